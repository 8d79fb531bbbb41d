"""Compiled programs, linked together: what runs them, links them and takes them apart, and the way to their files.

A library is two files: ``library_config.json`` (names, docstrings, signatures, hashes) and ``library.safetensors`` (the
instructions). Whatever is loaded is validated before anything uses it. A library holds no code of the host: running one
touches no file, stays inside the machine's memory and ends at the machine's step limit.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..configuration.machine_config import MachineConfig
from .library_code import HAS_ADDRESS, HAS_IMMEDIATE, minimum_values, reachable
from .library_errors import PROGRAMS_SHOWN, LibraryError, ProgramFault, shown
from .library_files import (
    description_of,
    file_contents,
    fingerprint_of,
    from_model_tensors,
    model_tensors,
    read_files,
    write_files,
)
from .library_hub import download, upload
from .library_listing import disassembly, learned_changes, listed_functions, mnemonic
from .library_records import (
    Change,
    Example,
    LearnedCode,
    LibraryData,
    ListedLine,
    Origin,
    Program,
)
from .library_validation import MAXIMUM_NAME, validate_learned, validate_library
from .machine.exact import ExactMachine
from .machine.operations import CODES, FIELDS
from .machine.state import RunResult

_SAMPLES = {
    "str": (
        ("5 3 9 1", "3", "2", "7", "4", "6"),
        ("12", "5", "3", "7", "2", "9"),
        ("2 + 3 * 4", "+", "4", "3", "2", "1"),
        ("strawberry", "r", "a", "e", "b", "y"),
    ),
    "int": (("12", "5", "3", "7", "2", "9"), ("7", "2", "5", "3", "9", "4"), *[("3", "4", "6", "2", "5", "8")] * 2),
    "bool": (("yes", "no", "yes", "no", "yes", "no"), *[("no", "yes", "no", "yes", "no", "yes")] * 3),
    "list[int]": (("5 3 9 1", "2 8", "7 4 6", "1 1", "6", "3 2"), *[("4 8 15", "16 23", "42", "1 2", "9", "5")] * 3),
}
"""Type of a parameter → four samples of arguments, each with a text for every position."""


@dataclass
class NeuralLibrary(LibraryData):
    """Programs linked together, which run: what :class:`~.library_records.LibraryData` holds, and where it comes from.

    Attributes:
        repository: ``org/name`` on the Hub that it was loaded from or pushed to, if any. revision: the commit's hash there.
    """

    repository: str = ""
    revision: str = ""

    def __post_init__(self) -> None:
        self._machines: dict[MachineConfig, ExactMachine] = {}
        self.validate()
        values = minimum_values(self.instructions)
        self.programs = {
            name: replace(program, minimum_values=int(values[program.entry])) for name, program in self.programs.items()
        }

    # Running

    def run(self, program: str, *arguments: str, engine: str = "exact", machine: MachineConfig | None = None) -> str:
        """Runs a program and returns its result.

        Args:
            program: its name.
            arguments: one text for each parameter.
            engine: ``exact``. (The dense engine works on distributions; ``machine.dense`` runs ``instructions`` there.)
            machine: the machine's shape; the default one if None.

        Raises:
            LibraryError: there is no such program or engine, it takes another number of arguments, or one is no text.
            MachineError: an argument does not fit the machine.
            ProgramFault: the program was stopped.
        """
        if engine != "exact":
            raise LibraryError(
                f"no engine {shown(engine)} runs texts; use engine='exact', or machine.dense on instructions"
            )
        result = self.call(program, arguments, machine)
        if result.text is None:
            raise ProgramFault(program, result.fault, result.steps)
        return result.text

    def call(self, program: str, arguments: Sequence[str], machine: MachineConfig | None = None) -> RunResult:
        """Runs a program; a fault is part of the result.

        Raises:
            LibraryError: as for ``run``.
            MachineError: an argument does not fit the machine.
        """
        found = self._callable(program, arguments)
        return self.machine(machine).run(found.entry, list(arguments))

    def run_batch(
        self,
        calls: Sequence[tuple[str, Sequence[str]]],
        machine: MachineConfig | None = None,
        max_steps: int | None = None,
    ) -> list[RunResult]:
        """Runs many calls (program, arguments), each on a machine of its own.

        Raises:
            LibraryError, MachineError: as for ``call``; nothing has been run then.
        """
        if not calls:
            return []
        entries = [self._callable(program, arguments).entry for program, arguments in calls]
        texts = [list(arguments) for _, arguments in calls]
        return self.machine(machine).run_batch(entries, texts, max_steps=max_steps)

    def program(self, name: str) -> Program:
        """The program of this name.

        Raises:
            LibraryError: there is none; it names the nearest, or some that there are.
        """
        if not isinstance(name, str):
            raise LibraryError(
                f"a program of library {self.name!r} is asked for by its name, a text, found {shown(name)}"
            )
        if name in self.programs:
            return self.programs[name]
        near = difflib.get_close_matches(name[:MAXIMUM_NAME], self.programs, n=1)
        has = ", ".join(list(self.programs)[:PROGRAMS_SHOWN]) + (", …" if len(self.programs) > PROGRAMS_SHOWN else "")
        hint = f"did you mean {near[0]!r}?" if near else f"it has {has or 'none'}"
        raise LibraryError(f"library {self.name!r} has no program {shown(name)}; {hint}")

    def _callable(self, name: str, arguments: Sequence[str]) -> Program:
        program = self.program(name)
        if not isinstance(arguments, Collection):
            raise LibraryError(f"{name} must be called with a list of texts, found {shown(arguments)}")
        if len(arguments) != len(program.parameters):
            expected = ", ".join(parameter.name for parameter in program.parameters) or "none"
            raise LibraryError(f"{name} takes {len(program.parameters)} arguments ({expected}), found {len(arguments)}")
        for parameter, argument in zip(program.parameters, arguments, strict=True):
            if not isinstance(argument, str):
                raise LibraryError(
                    f"{name}: {parameter.name} must be a text, found {shown(argument)}; every argument is one, numbers too"
                )
        return program

    def machine(self, config: MachineConfig | None = None) -> ExactMachine:
        """The exact engine with this library on a machine of that shape, made once.

        Raises:
            LibraryError: the machine has another number of registers.
        """
        config = config or MachineConfig(registers=self.registers)
        if config not in self._machines:
            self._machines[config] = ExactMachine(self.instructions_for(config), config)
        return self._machines[config]

    def instructions_for(self, config: MachineConfig) -> np.ndarray:
        """The instructions as a machine of that shape can hold them: int64 [P, 5].

        A constant that is no word of the machine cannot be computed with, so its instruction becomes ``guard r0 r0``,
        which always faults: below a program's ``minimum_values`` a run gives the same result or none.

        Raises:
            LibraryError: the machine has another number of registers.
        """
        if config.registers != self.registers:
            raise LibraryError(
                f"library {self.name!r} is compiled for machines of {self.registers} registers, this one has "
                f"{config.registers}; compile it with registers={config.registers}"
            )
        code = self.instructions.copy()
        immediate = code[:, 4]
        outside = HAS_IMMEDIATE[code[:, 0]] & ((immediate < -config.half) | (immediate >= config.half))
        code[outside] = (CODES["guard"], 0, 0, 0, 0)
        return code

    def worked_examples(self, programs: Sequence[str] | None = None, max_steps: int = 1_000_000) -> list[Example]:
        """One example of each program, really run. A program that only faults on the samples has none.

        The arguments are samples of the parameters' types, of which the first is taken whose result no other sample has:
        an error of the domain tends to be the same text for all.

        Args:
            programs: names; all programs if None. max_steps: the most instructions that one run may take.
        """
        tried = []
        for name in self.programs if programs is None else programs:
            parameters = self.program(name).parameters
            drawn = [tuple(_SAMPLES[each.type][i][k] for k, each in enumerate(parameters)) for i in range(4)]
            tried += [(name, arguments) for arguments in dict.fromkeys(drawn)]
        results = self.run_batch(tried, max_steps=max_steps)
        examples: dict[str, list[Example]] = {}
        for (name, arguments), result in zip(tried, results, strict=True):
            if result.text is not None:
                examples.setdefault(name, []).append(Example(name, arguments, result.text))
        chosen = []
        for found in examples.values():
            texts = [example.result for example in found]
            chosen.append(next((example for example in found if texts.count(example.result) == 1), found[0]))
        return chosen

    # Code

    @property
    def symbols(self) -> dict[int, str]:
        """Start address → name of the function there."""
        return {address: origin.name for address, origin in self.origins.items()}

    def extract(self, programs: Sequence[str]) -> NeuralLibrary:
        """A library of these programs alone, with only the functions that they need.

        Raises:
            LibraryError: one of them is not here.
        """
        chosen = [self.program(name) for name in programs]
        needed = np.zeros(len(self.instructions), dtype=bool)
        for program in chosen:
            needed |= reachable(self.instructions, program.entry)
        for start, end in pairwise([*sorted(self.origins), len(needed)]):
            needed[start:end] = needed[start:end].any()  # whole functions, so that they stay readable
        moved = np.cumsum(needed) - 1
        code = self.instructions[needed]
        targets = HAS_ADDRESS[code[:, 0]]
        code[targets, 4] = moved[code[targets, 4]]
        origins = {int(moved[start]): origin for start, origin in self.origins.items() if needed[start]}
        found = {
            program.name: replace(
                program,
                entry=int(moved[program.entry]),
                length=int(needed[program.entry : program.entry + program.length].sum()),
            )
            for program in chosen
        }
        return NeuralLibrary(self.name, found, code, origins, self.lines[needed], self.registers)

    @classmethod
    def link(cls, libraries: Sequence[NeuralLibrary], name: str | None = None) -> NeuralLibrary:
        """One library of several. A program whose name occurs more than once becomes ``library.name``.

        Every program remembers the library that it comes from (:meth:`library_of`).

        Raises:
            LibraryError: there is none, two of the same name hold a program of the same name, or they are compiled for
                machines of different registers.
        """
        if not libraries:
            raise LibraryError("nothing to link; give at least one library")
        if len({library.registers for library in libraries}) > 1:
            found = ", ".join(f"{library.name}: {library.registers}" for library in libraries)
            raise LibraryError(f"libraries for machines of different registers ({found}); compile them for the same")
        linked = name or (libraries[0].name if len(libraries) == 1 else "linked")
        names = [program for library in libraries for program in library.programs]
        programs: dict[str, Program] = {}
        origins: dict[int, Origin] = {}
        parts, lines, start = [], [], 0
        for library in libraries:
            parts.append(library.moved(start))
            lines.append(library.lines)
            origins |= {start + address: origin for address, origin in library.origins.items()}
            for program in library.programs.values():
                prefix = re.sub(r"[^A-Za-z0-9_]", "_", library.name)
                called = program.name if names.count(program.name) == 1 else f"{prefix}.{program.name}"
                if called in programs:
                    raise LibraryError(
                        f"two libraries named {library.name!r} have a program {program.name!r}; rename one"
                    )
                source = program.library or library.name
                programs[called] = replace(
                    program, name=called, entry=program.entry + start, library="" if source == linked else source
                )
            start += len(library.instructions)
        return cls(linked, programs, np.concatenate(parts), origins, np.concatenate(lines), libraries[0].registers)

    def moved(self, start: int) -> np.ndarray:
        """The instructions for a place that begins at address ``start``: int64 [P, 5]."""
        code = self.instructions.copy()
        code[HAS_ADDRESS[code[:, 0]], 4] += start
        return code

    def part(self, name: str, programs: Mapping[str, str], start: int, stop: int) -> NeuralLibrary:
        """One of the libraries that this one was linked from.

        Args:
            name: its name. programs: its programs, name here → name there.
            start: address of its first instruction. stop: address after its last.

        Raises:
            LibraryError: these programs and instructions do not make a library.
        """
        code = self.instructions[start:stop].copy()
        code[HAS_ADDRESS[code[:, 0]], 4] -= start
        found = {}
        for here, there in programs.items():
            program = self.program(here)
            source = "" if program.library == name else program.library
            found[there] = replace(program, name=there, entry=program.entry - start, library=source)
        origins = {address - start: origin for address, origin in self.origins.items() if start <= address < stop}
        return NeuralLibrary(name, found, code, origins, self.lines[start:stop].copy(), self.registers)

    def library_of(self, program: str) -> str:
        """The name of the library that a program comes from: this one, or the one that it was linked from.

        Raises:
            LibraryError: there is no such program.
        """
        return self.program(program).library or self.name

    # Learned programs

    def with_learned(self, learned: LearnedCode, instructions: np.ndarray) -> NeuralLibrary:
        """This library with other instructions at the addresses that learned.

        Args:
            learned: its ``origin`` is this library's instructions, or those from before it learned the last time.
            instructions: of ``learned.rows``, int64 [n, 5], with the library's code addresses.

        Raises:
            LibraryError: they are out of range, or the weights are no distributions or of another shape.
        """
        code = self.instructions.copy()
        if np.shape(instructions) != (len(learned.rows), len(FIELDS)):
            raise LibraryError(
                f"there must be {len(learned.rows)} learned instructions of {len(FIELDS)} fields, found {np.shape(instructions)}"
            )
        if not np.issubdtype(np.asarray(instructions).dtype, np.integer):
            raise LibraryError(
                f"learned instructions must be integers, found {np.asarray(instructions).dtype}; discretise the soft program "
                "(discretised of machine.learning)"
            )
        validate_learned(self, learned)
        code[learned.rows] = instructions
        return replace(self, instructions=code, learned=learned, repository="", revision="")

    def changes(self) -> list[Change]:
        """What learning changed against the origin, instruction by instruction; empty if nothing."""
        return learned_changes(self)

    # Reading by people

    def disassemble(self, program: str | None = None) -> str:
        """The instructions as text, each group under the source line that it was compiled from.

        Args:
            program: a program's name, for it and every function that it calls; None for the whole library.

        Raises:
            LibraryError: there is no such program.
        """
        return disassembly(self.listing(program))

    def instruction_text(self, address: int) -> str:
        """The instruction at one address, as :meth:`disassemble` writes it, with addresses in place of labels."""
        return mnemonic(self, self.instructions[address].tolist(), {})

    def listing(self, program: str | None = None) -> list[list[ListedLine]]:
        """The instructions beside the source lines that they were compiled from: for each function, its lines in order.

        Args:
            program: a program's name, for it and every function that it calls; None for the whole library.

        Raises:
            LibraryError: there is no such program.
        """
        return listed_functions(self, None if program is None else self.program(program).entry)

    # Validation

    def validate(self) -> None:
        """Checks everything that a stranger could get wrong, so that every user of a library may trust it.

        Raises:
            LibraryError: naming the first thing that cannot be.
        """
        validate_library(self)

    # Files

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that the library is, in hexadecimal."""
        return fingerprint_of(self)

    def to_tensors(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The library as a model holds it: what its configuration says (no sources), and int64 [P, 5]."""
        return model_tensors(self)

    @classmethod
    def from_tensors(cls, description: dict[str, Any], tensors: dict[str, np.ndarray]) -> NeuralLibrary:
        """The library that :meth:`to_tensors` took apart, validated.

        Raises:
            LibraryError: it holds what no library may.
        """
        return from_model_tensors(cls, description, tensors)

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Writes the library's two files. Each appears complete or not at all, the description last.

        Raises:
            LibraryError: the folder cannot be written, or the library is too large for its files.
        """
        write_files(self, Path(directory))

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike,
        revision: str | None = None,
        *,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> NeuralLibrary:
        """Reads and validates a library from a folder, or from a repository of the Hub (``org/name``).

        A library from the Hub knows its ``repository`` and the commit that it has (``revision``).

        Args:
            source: a folder or ``org/name``. revision: branch, tag or commit on the Hub.
            token, cache_dir, force_download, local_files_only: as in ``huggingface_hub``.

        Raises:
            LibraryError: it is not there, incomplete, corrupt, of another format version, or holds what no library may.
        """
        folder, repository, commit = Path(source), "", ""
        if not os.path.isdir(folder):  # Path.is_dir raises if the name is too long
            repository = str(source)
            options = {"token": token, "cache_dir": cache_dir, "force_download": force_download}
            folder = download(repository, revision, {**options, "local_files_only": local_files_only})
            commit = folder.name
        library = read_files(cls, folder)
        library.repository, library.revision = repository, commit
        return library

    def card(self, repository: str | None = None, license: str | None = None) -> str:
        """The library's card: its programs, each with an example that is run now, what it needs, and how to load it.

        Args:
            repository: ``org/name`` on the Hub; the library's name stands for it if there is none yet.
            license: an identifier of the Hub's list, such as ``"apache-2.0"``.
        """
        from ..model_cards.library_card import library_card

        card = library_card(
            description_of(self),
            self.fingerprint,
            repository,
            license,
            examples=[asdict(example) for example in self.worked_examples()],
            files={name: hashlib.sha256(content).hexdigest() for name, content in file_contents(self).items()},
        )
        return str(card)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        commit_message: str | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        license: str | None = None,
    ) -> str:
        """Uploads the library and its card to the Hub as a model repository, in one commit.

        The library then knows its ``repository`` and the commit (``revision``), so that models may refer to it.

        Args:
            repo_id: ``org/name``, made if it is missing. private: who may see a repository that is made.
            token: as in ``huggingface_hub``. revision: the branch; the main one by default.
            create_pr: open a pull request instead. license: for the card.

        Returns:
            The address of the commit.

        Raises:
            LibraryError: the upload fails; the repository is then as it was.
        """
        commit = upload(
            self,
            self.card(repo_id, license),
            repo_id,
            private=private,
            commit_message=commit_message,
            token=token,
            revision=revision,
            create_pr=create_pr,
        )
        self.repository, self.revision = repo_id, commit.oid
        return str(commit)
