"""Compiled programs as data: what they are called, what they take, and their instructions.

A library is two files: ``library_config.json`` (names, docstrings, signatures, hashes) and ``library.safetensors`` (the
instructions). Whatever is loaded is validated before anything uses it. A library holds no code of the host: running one
touches no file, stays inside the machine's memory and ends at the machine's step limit.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import re
import stat
import tempfile
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..configuration.machine_config import LEAST_REGISTERS, MOST_REGISTERS, MachineConfig
from .machine.exact import ExactMachine
from .machine.operations import CODES, FIELDS, OPERATIONS, Fault
from .machine.state import MAXIMUM_ARGUMENTS, RunResult

FORMAT_VERSION = 1
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Format version → how a description of that version becomes one of the next; tensors are read by what it then says."""

CONFIG_FILE = "library_config.json"
TENSOR_FILE = "library.safetensors"

MAXIMUM_INSTRUCTIONS = 1_000_000
MAXIMUM_PROGRAMS = 4_096
MAXIMUM_NAME = 128
MAXIMUM_TEXT = 100_000
MAXIMUM_FILE = 64 * 2**20
MAXIMUM_DESCRIPTION = 32 * 2**20
"""Bytes of the description; 4,096 programs like those of the standard library have 12 MiB."""
MAXIMUM_VALUES = 1_000_000
"""Values in the description; 4,096 programs like those of the standard library have 190,000."""
MAXIMUM_HEADER = 2**20
"""Bytes in which the file of tensors names them."""
MAXIMUM_KEYS = 256
LARGEST_IMMEDIATE = 2**31 - 1
LARGEST_OFFSET = 1_000.0
SHOWN = 80
"""Characters of a text that an error shows."""
PROGRAMS_SHOWN = 12
"""Programs that an error names where none is like the one that was asked for."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_LIBRARY_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_TYPES = ("str", "int", "bool", "list[int]")
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

KEYS_TOLD = ("base", "revision", "heads")
"""What the description of a library says of tuned keys; their numbers are tensors."""

_HAS_IMMEDIATE = np.array(["i" in operation.operands for operation in OPERATIONS])
_HAS_ADDRESS = np.array(["l" in operation.operands for operation in OPERATIONS])
_ENDS = np.array([operation.name in ("halt", "jump", "return") for operation in OPERATIONS])


class LibraryError(ValueError):
    """A library or a call of it that cannot be: says what was found, where, and what to do."""


class ProgramFault(RuntimeError):
    """A program that did not come to a result.

    Attributes:
        program: its name.
        fault: what stopped it.
        steps: after how many instructions.
    """

    def __init__(self, program: str, fault: Fault, steps: int) -> None:
        self.program, self.fault, self.steps = program, fault, steps
        super().__init__(f"{program} was stopped after {steps} instructions: {fault.name.replace('_', ' ')}")


@dataclass(frozen=True)
class Parameter:
    """One parameter: its name and its type, one of ``str``, ``int``, ``bool`` and ``list[int]``.

    At the boundary every argument is text; the type says what the program reads it as.
    """

    name: str
    type: str


@dataclass(frozen=True)
class Program:
    """One program of a library.

    Attributes:
        name: what it is called by; ``library.name`` after libraries with equal names were linked.
        docstring: what it does, in words.
        parameters: its parameters, at most six.
        returns: the type of its result, which is text at the boundary.
        entry: the address at which a run starts.
        length: instructions from there on that belong to it alone.
        source: the Python function that it was compiled from.
        minimum_values: the smallest V on which each of its constants is a word. With fewer values an instruction whose
            constant is none faults when it is reached.
        library: the library that it was linked from; empty for the one that holds it.
    """

    name: str
    docstring: str
    parameters: tuple[Parameter, ...]
    returns: str
    entry: int
    length: int
    source: str
    minimum_values: int
    library: str = ""


@dataclass(frozen=True)
class Example:
    """One run of a program: its arguments and what came of them."""

    program: str
    arguments: tuple[str, ...]
    result: str


@dataclass(frozen=True)
class Origin:
    """Where the instructions from one address on come from, for the disassembler: function, file, first line, text."""

    name: str
    file: str
    line: int
    source: str


@dataclass(frozen=True)
class ListedLine:
    """A source line and the instructions that it was compiled to.

    Attributes:
        line: its number in the file; 0 for the head of a function. source: its text, fit for a terminal.
        instructions: address and instruction of each, and labels (".1") that jumps lead to.
    """

    line: int
    source: str
    instructions: tuple[str, ...]


@dataclass(frozen=True)
class LearnedCode:
    """What instructions were before they learned, and the weights that they came to.

    A library's ``instructions`` are always those that run: of a learned one the discretised ones.

    Attributes:
        origin: the library's instructions before, int64 [P, 5].
        rows: the addresses that learned, ascending, int64 [n].
        values: V of the machine that they learned on.
        offset: what its code addresses are less than those of the library.
        weights: field → distributions over its alternatives, float32 [n, K]. Entry j of an immediate is the word j mod V or,
            where the operation jumps, the address j + offset.
    """

    origin: np.ndarray
    rows: np.ndarray
    values: int
    offset: int
    weights: Mapping[str, np.ndarray]

    def probability(self, position: int, instruction: Sequence[int]) -> float:
        """The least weight that learning gave to a field of this instruction that is read; ``position`` is one in ``rows``."""
        operation = OPERATIONS[instruction[0]]
        found = [float(self.weights["operation"][position, instruction[0]])]
        for column, letter in enumerate("abt", 1):
            if letter in operation.operands:
                found.append(float(self.weights[FIELDS[column]][position, instruction[column]]))
        immediate = self.weights["immediate"][position]
        if "l" in operation.operands:
            entry = instruction[4] - self.offset
            found.append(float(immediate[entry]) if 0 <= entry < len(immediate) else 0.0)
        elif "i" in operation.operands:
            found.append(float(immediate[instruction[4] % self.values :: self.values].sum()))
        return min(found)


@dataclass(frozen=True)
class TunedKeys:
    """What tuning added to the keys by which a model selects a library's programs.

    Attributes:
        base: the model, ``org/name`` on the Hub; empty if it came from elsewhere. revision: its commit there.
        heads: sha256 of the heads that select by these keys; for others they mean nothing.
        offsets: float32 [programs, width], in the order of the programs.
    """

    base: str
    revision: str
    heads: str
    offsets: np.ndarray


@dataclass(frozen=True)
class Change:
    """An instruction that learning changed.

    Attributes:
        address: where. function: in which function.
        before, after: the instruction, with code addresses in place of labels.
        weight: the least weight that learning gave to a field of it, 0…1.
    """

    address: int
    function: str
    before: str
    after: str
    weight: float


@dataclass
class NeuralLibrary:
    """Programs linked together.

    Attributes:
        name: the library's name.
        programs: name → program.
        instructions: int64 [P, 5], columns as in ``operations.FIELDS``.
        origins: start address → the function whose instructions begin there.
        lines: source line of each instruction, int64 [P], 0 for none.
        registers: R of the machine that it was compiled for; no other can run it.
        learned: what its instructions were before some of them learned, and their weights; None if they are as compiled.
            Extracting, linking and models keep the instructions and leave this behind.
        keys: what tuning added to its selector keys, for each model that it was tuned on; extracting and linking leave it behind.
        repository: ``org/name`` on the Hub that it was loaded from or pushed to, if any. revision: the commit's hash there.
    """

    name: str
    programs: dict[str, Program]
    instructions: np.ndarray
    origins: dict[int, Origin] = field(default_factory=dict)
    lines: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    registers: int = 16
    learned: LearnedCode | None = None
    keys: tuple[TunedKeys, ...] = ()
    repository: str = ""
    revision: str = ""

    def __post_init__(self) -> None:
        self._machines: dict[MachineConfig, ExactMachine] = {}
        self.validate()
        values = self._minimum_values()
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
            raise LibraryError(f"no engine {_shown(engine)} runs texts; use engine='exact', or machine.dense on instructions")
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
            raise LibraryError(f"a program of library {self.name!r} is asked for by its name, a text, found {_shown(name)}")
        if name in self.programs:
            return self.programs[name]
        near = difflib.get_close_matches(name[:MAXIMUM_NAME], self.programs, n=1)
        has = ", ".join(list(self.programs)[:PROGRAMS_SHOWN]) + (", …" if len(self.programs) > PROGRAMS_SHOWN else "")
        hint = f"did you mean {near[0]!r}?" if near else f"it has {has or 'none'}"
        raise LibraryError(f"library {self.name!r} has no program {_shown(name)}; {hint}")

    def _callable(self, name: str, arguments: Sequence[str]) -> Program:
        program = self.program(name)
        if not isinstance(arguments, Collection):
            raise LibraryError(f"{name} must be called with a list of texts, found {_shown(arguments)}")
        if len(arguments) != len(program.parameters):
            expected = ", ".join(parameter.name for parameter in program.parameters) or "none"
            raise LibraryError(f"{name} takes {len(program.parameters)} arguments ({expected}), found {len(arguments)}")
        for parameter, argument in zip(program.parameters, arguments, strict=True):
            if not isinstance(argument, str):
                raise LibraryError(
                    f"{name}: {parameter.name} must be a text, found {_shown(argument)}; every argument is one, numbers too"
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
        outside = _HAS_IMMEDIATE[code[:, 0]] & ((immediate < -config.half) | (immediate >= config.half))
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

    def _follow(self, entry: int) -> np.ndarray:
        """Which instructions a run from ``entry`` can reach: bool [P]."""
        seen = np.zeros(len(self.instructions), dtype=bool)
        operations, targets = self.instructions[:, 0].tolist(), self.instructions[:, 4].tolist()
        waiting = [entry]
        while waiting:
            position = waiting.pop()
            while position < len(operations) and not seen[position]:
                seen[position] = True
                if _HAS_ADDRESS[operations[position]]:
                    waiting.append(targets[position])
                if _ENDS[operations[position]]:
                    break
                position += 1
        return seen

    def _minimum_values(self) -> np.ndarray:
        """The least V of a run that begins at each instruction, int64 [P]: what the most demanding one in its reach needs."""
        operations, immediates = self.instructions[:, 0], self.instructions[:, 4]
        own = np.full(len(operations), 4, dtype=np.int64)
        for values in 2 ** np.arange(2, 64, dtype=np.uint64).astype(object):
            small = ~_HAS_IMMEDIATE[operations] | ((immediates >= -(values // 2)) & (immediates < values // 2))
            own[~small] = values * 2
            if small.all():
                break
        jumps: dict[int, list[int]] = defaultdict(list)
        for position in np.flatnonzero(_HAS_ADDRESS[operations]).tolist():
            jumps[int(immediates[position])].append(position)
        ends = _ENDS[operations].tolist()
        found = np.zeros(len(own), dtype=np.int64)
        # The most demanding first: each instruction is reached once, by the greatest need that it leads to.
        for values in np.unique(own)[::-1].tolist():
            waiting = np.flatnonzero(own == values).tolist()
            while waiting:
                position = waiting.pop()
                if found[position]:
                    continue
                found[position] = values
                waiting += jumps.get(position, ())
                if position and not ends[position - 1]:
                    waiting.append(position - 1)
        return found

    def extract(self, programs: Sequence[str]) -> NeuralLibrary:
        """A library of these programs alone, with only the functions that they need.

        Raises:
            LibraryError: one of them is not here.
        """
        chosen = [self.program(name) for name in programs]
        needed = np.zeros(len(self.instructions), dtype=bool)
        for program in chosen:
            needed |= self._follow(program.entry)
        for start, end in pairwise([*sorted(self.origins), len(needed)]):
            needed[start:end] = needed[start:end].any()  # whole functions, so that they stay readable
        moved = np.cumsum(needed) - 1
        code = self.instructions[needed]
        targets = _HAS_ADDRESS[code[:, 0]]
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
        code[_HAS_ADDRESS[code[:, 0]], 4] += start
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
        code[_HAS_ADDRESS[code[:, 0]], 4] -= start
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
        self._validate_learned(learned)
        code[learned.rows] = instructions
        return replace(self, instructions=code, learned=learned, repository="", revision="")

    def changes(self) -> list[Change]:
        """What learning changed against the origin, instruction by instruction; empty if nothing."""
        if self.learned is None:
            return []
        found, starts = [], sorted(self.origins)
        for position, address in enumerate(self.learned.rows.tolist()):
            before, after = self.learned.origin[address].tolist(), self.instructions[address].tolist()
            was, now = (_one_line(self._mnemonic(row, {})) for row in (before, after))
            if was != now:  # or only fields that are not read differ
                place = bisect_right(starts, address) - 1
                name = self.origins[starts[place]].name if place >= 0 else ""
                found.append(Change(address, _one_line(name), was, now, self.learned.probability(position, after)))
        return found

    # Reading by people

    def disassemble(self, program: str | None = None) -> str:
        """The instructions as text, each group under the source line that it was compiled from.

        Args:
            program: a program's name, for it and every function that it calls; None for the whole library.

        Raises:
            LibraryError: there is no such program.
        """
        blocks = []
        for lines in self.listing(program):
            out = []
            for listed in lines:
                out.append(f"    # {listed.line:>4} {listed.source}" if listed.line else listed.source)
                out += [f"  {instruction}" for instruction in listed.instructions]
            blocks.append("\n".join(out))
        return "\n\n".join(blocks) + "\n"

    def instruction_text(self, address: int) -> str:
        """The instruction at one address, as :meth:`disassemble` writes it, with addresses in place of labels."""
        return self._mnemonic(self.instructions[address].tolist(), {})

    def listing(self, program: str | None = None) -> list[list[ListedLine]]:
        """The instructions beside the source lines that they were compiled from: for each function, its lines in order.

        Args:
            program: a program's name, for it and every function that it calls; None for the whole library.

        Raises:
            LibraryError: there is no such program.
        """
        count = len(self.instructions)
        shown = np.ones(count, bool) if program is None else self._follow(self.program(program).entry)
        starts = sorted({0, *self.origins})
        ranges = zip(starts, [*starts[1:], count], strict=True)
        return [self._listed(start, end) for start, end in ranges if shown[start:end].any()]

    def _listed(self, start: int, end: int) -> list[ListedLine]:
        origin = self.origins.get(start, Origin(f"code at {start}", "", 0, ""))
        source = origin.source.splitlines()
        first = origin.line or 1
        where = f"   ({Path(origin.file).name}, line {origin.line})" if origin.line else ""
        code = self.instructions[start:end].tolist()
        labels = sorted({row[4] for row in code if _HAS_ADDRESS[row[0]] and start < row[4] < end})
        names = {address: f".{number}" for number, address in enumerate(labels, 1)} | {start: ".0"}
        lines: list[tuple[int, str, list[str]]] = [(0, f"{origin.name}:{where}", [])]
        for address, row in enumerate(code, start):
            line = int(self.lines[address])
            if line and line != lines[-1][0] and 0 <= line - first < len(source):
                lines.append((line, source[line - first], []))
            if address in names and address != start:
                lines[-1][2].append(names[address])
            lines[-1][2].append(f"{address:>6}  {self._mnemonic(row, names)}")
        return [ListedLine(line, _one_line(text), tuple(instructions)) for line, text, instructions in lines]

    def _mnemonic(self, row: list[int], labels: dict[int, str]) -> str:
        operation = OPERATIONS[row[0]]
        words = []
        for operand in operation.operands:
            if operand == "t":
                words.append(self._register(row[3]))
            elif operand == "a":
                words.append(self._register(row[1]))
            elif operand == "b":
                words.append(self._register(row[2]))
            elif operand == "i":
                words.append(str(row[4]))
            else:
                name = self.origins[row[4]].name if row[4] in self.origins else labels.get(row[4], str(row[4]))
                words.append(_one_line(name if operation.name == "call" else labels.get(row[4], name)))
        text = f"{operation.name:<17} {' '.join(words)}".rstrip()
        return f"{text:<46}; {self._comment(row, operation.name)}".rstrip("; ") if words else text

    def _register(self, number: int) -> str:
        return {self.registers - 2: "hp", self.registers - 1: "sp"}.get(number, f"r{number}")

    def _comment(self, row: list[int], name: str) -> str:
        """The instruction in the notation of the operation table."""
        t, a, b, i = self._register(row[3]), self._register(row[1]), self._register(row[2]), row[4]
        if name == "load":
            return f"{t} ← memory[{a} {'-' if i < 0 else '+'} {abs(i)}]"
        if name == "store":
            return f"memory[{a} {'-' if i < 0 else '+'} {abs(i)}] ← {b}"
        if name == "constant":
            return f"{t} ← {i}" + (f"  {chr(i)!r}" if 33 <= i < 127 else "")
        if name == "equal_immediate" and 33 <= i < 127:
            return f"{t} ← {a} = {i}  {chr(i)!r}"
        signs = {
            "add": "+",
            "subtract": "-",
            "multiply": "·",
            "divide": "//",
            "modulo": "%",
            "equal": "=",
            "less_than": "<",
            "index": "+",
            "add_immediate": "+",
            "multiply_immediate": "·",
            "equal_immediate": "=",
            "less_immediate": "<",
            "index_immediate": "+",
        }
        if name == "move":
            return f"{t} ← {a}"
        if name in signs:
            return f"{t} ← {a} {signs[name]} {i if name.endswith('immediate') else b}"
        return ""

    # Validation

    def validate(self) -> None:
        """Checks everything that a stranger could get wrong, so that every user of a library may trust it.

        Raises:
            LibraryError: naming the first thing that cannot be.
        """
        if not isinstance(self.name, str) or len(self.name) > MAXIMUM_NAME or not _LIBRARY_NAME.fullmatch(self.name):
            raise LibraryError(f"a library is named by letters, digits, _ and -, found {_shown(self.name)}")
        if not isinstance(self.registers, int) or not LEAST_REGISTERS <= self.registers <= MOST_REGISTERS:
            raise LibraryError(
                f"library {self.name!r}: registers must be {LEAST_REGISTERS}…{MOST_REGISTERS}, found {_shown(self.registers)}"
            )
        self._validate_code(self.instructions)
        if self.learned is not None:
            self._validate_learned(self.learned)
        count = len(self.programs)
        if not 1 <= count <= MAXIMUM_PROGRAMS:
            raise LibraryError(f"library {self.name!r} must have 1…{MAXIMUM_PROGRAMS} programs, has {count}")
        self._validate_keys()
        for name, program in self.programs.items():
            self._validate_program(name, program)
        for address, origin in self.origins.items():
            if not isinstance(address, int) or not 0 <= address < len(self.instructions):
                raise LibraryError(f"library {self.name!r}: symbol at {_shown(address)} is outside the code")
            for text in (origin.name, origin.file, origin.source):
                if not _is_text(text):
                    raise LibraryError(
                        f"library {self.name!r}: the symbol at {address} has no texts of at most {MAXIMUM_TEXT}"
                    )
            if type(origin.line) is not int or not 0 <= origin.line <= MAXIMUM_INSTRUCTIONS:
                raise LibraryError(f"library {self.name!r}: the symbol at {address} has no line number")

    def _validate_keys(self) -> None:
        if len(self.keys) > MAXIMUM_KEYS:
            raise LibraryError(f"library {self.name!r} must have keys of at most {MAXIMUM_KEYS} models, has {len(self.keys)}")
        for number, keys in enumerate(self.keys):
            here = f"library {self.name!r}, tuned keys {number}"
            if not all(_is_text(text) and len(text) <= 2 * MAXIMUM_NAME for text in (keys.base, keys.revision, keys.heads)):
                raise LibraryError(f"{here}: base, revision and heads must be short texts")
            offsets = keys.offsets
            if offsets.ndim != 2 or len(offsets) != len(self.programs) or not np.issubdtype(offsets.dtype, np.floating):
                raise LibraryError(f"{here}: there must be floats [{len(self.programs)}, ·], found {_shape(offsets)}")
            if not (np.abs(offsets) <= LARGEST_OFFSET).all():  # nor is NaN
                raise LibraryError(f"{here}: they must be finite numbers of at most {LARGEST_OFFSET:g}")

    def _validate_learned(self, learned: LearnedCode) -> None:
        here = f"library {self.name!r}, what it learned"
        count, rows = len(self.instructions), learned.rows
        if not isinstance(learned.origin, np.ndarray) or learned.origin.shape != (count, len(FIELDS)):
            raise LibraryError(f"{here}: the origin must be int64 {[count, len(FIELDS)]}, like the instructions")
        self._validate_code(learned.origin)
        if rows.ndim != 1 or not len(rows) or rows[0] < 0 or rows[-1] >= count or (np.diff(rows) <= 0).any():
            raise LibraryError(f"{here}: the rows must be ascending addresses 0…{count - 1}")
        if not 4 <= learned.values <= 2**32 or not 0 <= learned.offset <= count:
            raise LibraryError(
                f"{here}: values {_shown(learned.values)} or offset {_shown(learned.offset)} is out of range; they must be "
                f"4…{2**32} and 0…{count}"
            )
        if set(learned.weights) != set(FIELDS):
            raise LibraryError(
                f"{here}: there must be weights of {', '.join(FIELDS)}, found {_shown(', '.join(learned.weights))}"
            )
        addresses = int(learned.origin[rows][_HAS_ADDRESS[learned.origin[rows, 0]], 4].max(initial=0)) - learned.offset
        widths = (len(OPERATIONS), *[self.registers] * 3, max(learned.values, addresses + 1))
        for field_name, width in zip(FIELDS, widths, strict=True):
            weights = learned.weights[field_name]
            exact = weights.ndim == 2 and (
                weights.shape[1] == width or (field_name == "immediate" and weights.shape[1] > width)
            )
            if not exact or len(weights) != len(rows) or not np.issubdtype(weights.dtype, np.floating):
                raise LibraryError(
                    f"{here}: weights of {field_name} must be {[len(rows), width]}, found {_shape(weights)}"
                )
            if not np.isfinite(weights).all():
                raise LibraryError(f"{here}: weights of {field_name} are not finite")
            if (weights < 0).any() or (np.abs(weights.sum(-1) - 1) > 1e-3).any():
                raise LibraryError(f"{here}: weights of {field_name} must be at least 0 and sum to 1 in every row")

    def _validate_code(self, code: np.ndarray) -> None:
        if not isinstance(code, np.ndarray) or code.ndim != 2 or code.shape[1] != len(FIELDS) or code.dtype != np.int64:
            raise LibraryError(f"library {self.name!r}: instructions must be int64 [P, {len(FIELDS)}]")
        count = len(code)
        if not 1 <= count <= MAXIMUM_INSTRUCTIONS:
            raise LibraryError(f"library {self.name!r} must have 1…{MAXIMUM_INSTRUCTIONS} instructions, has {count}")
        if not len(self.lines):
            self.lines = np.zeros(count, dtype=np.int64)
        if self.lines.shape != (count,) or not 0 <= self.lines.min() <= self.lines.max() <= MAXIMUM_INSTRUCTIONS:
            raise LibraryError(
                f"library {self.name!r}: there must be one line number from 0 to {MAXIMUM_INSTRUCTIONS} for each instruction"
            )
        limits = [(0, len(OPERATIONS) - 1), *[(0, self.registers - 1)] * 3]
        for column, (least, most) in enumerate(limits):
            self._validate_field(code, column, least, most, np.ones(count, bool))
        self._validate_field(code, 4, 0, count - 1, _HAS_ADDRESS[code[:, 0]])
        self._validate_field(code, 4, -LARGEST_IMMEDIATE, LARGEST_IMMEDIATE, ~_HAS_ADDRESS[code[:, 0]])

    def _validate_field(self, code: np.ndarray, column: int, least: int, most: int, rows: np.ndarray) -> None:
        values = code[:, column]
        wrong = rows & ((values < least) | (values > most))
        if wrong.any():
            where = int(wrong.argmax())
            raise LibraryError(
                f"library {self.name!r}, instruction {where}: {FIELDS[column]} must be {least}…{most}, "
                f"found {values[where]}; do not use this library"
            )

    def _validate_program(self, name: str, program: Program) -> None:
        here = f"library {self.name!r}, program {_shown(name)}"
        if name != program.name or not isinstance(name, str) or len(name) > MAXIMUM_NAME or not _NAME.fullmatch(name):
            raise LibraryError(f"{here}: a program is named like a Python function")
        for text in (program.docstring, program.source):
            if not _is_text(text):
                raise LibraryError(f"{here}: docstring and source must be texts of at most {MAXIMUM_TEXT} characters")
        if len(program.parameters) > MAXIMUM_ARGUMENTS or 2 * len(program.parameters) > self.registers - 2:
            raise LibraryError(f"{here}: {len(program.parameters)} parameters, at most {MAXIMUM_ARGUMENTS} may be")
        for parameter in program.parameters:
            if not isinstance(parameter.name, str) or not _is_name(parameter.name):
                raise LibraryError(f"{here}: a parameter is named like a Python variable")
            if parameter.type not in _TYPES:
                raise LibraryError(f"{here}: parameter {parameter.name} must be one of {', '.join(_TYPES)}")
        if not isinstance(program.library, str) or len(program.library) > MAXIMUM_NAME:
            raise LibraryError(f"{here}: the library that it comes from must be a name")
        if program.library and not _LIBRARY_NAME.fullmatch(program.library):
            raise LibraryError(f"{here}: the library that it comes from is named by letters, digits, _ and -")
        if program.returns not in _TYPES:
            raise LibraryError(f"{here}: the result must be one of {', '.join(_TYPES)}")
        count = len(self.instructions)
        if type(program.entry) is not int or not 0 <= program.entry < count:
            raise LibraryError(f"{here}: entry {_shown(program.entry)} is outside the code of {count} instructions")
        if type(program.length) is not int or not 1 <= program.length <= count - program.entry:
            raise LibraryError(f"{here}: length {_shown(program.length)} reaches outside the code of {count} instructions")

    # Files

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that the library is, in hexadecimal."""
        digest = hashlib.sha256(json.dumps(self._description(), sort_keys=True).encode())
        digest.update(np.ascontiguousarray(self.instructions).tobytes())
        digest.update(np.ascontiguousarray(self.lines).tobytes())
        if self.learned is not None:
            for name in sorted(tensors := self._learned_tensors(self.learned)):
                digest.update(tensors[name].tobytes())
        for name in sorted(tensors := self._key_tensors()):
            digest.update(tensors[name].tobytes())
        return digest.hexdigest()

    def _description(self) -> dict[str, Any]:
        learned = {} if self.learned is None else {"values": self.learned.values, "offset": self.learned.offset}
        return {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "registers": self.registers,
            **({"learned": learned} if learned else {}),
            **({"keys": [{name: getattr(each, name) for name in KEYS_TOLD} for each in self.keys]} if self.keys else {}),
            "instructions": len(self.instructions),
            "minimum_values": max(program.minimum_values for program in self.programs.values()),
            "programs": [_program_description(program) for program in self.programs.values()],
            "symbols": [{"address": address, **asdict(self.origins[address])} for address in sorted(self.origins)],
        }

    def _tensors(self) -> dict[str, np.ndarray]:
        tensors = {name: self.instructions[:, column].astype(np.int32) for column, name in enumerate(FIELDS)}
        tensors["line"] = self.lines.astype(np.int32)
        if self.learned is not None:
            tensors |= self._learned_tensors(self.learned)
        tensors |= self._key_tensors()
        return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}

    def _key_tensors(self) -> dict[str, np.ndarray]:
        return {f"keys.{number}": each.offsets.astype(np.float32) for number, each in enumerate(self.keys)}

    @staticmethod
    def _learned_tensors(learned: LearnedCode) -> dict[str, np.ndarray]:
        tensors = {f"learned.{name}": weights.astype(np.float32) for name, weights in learned.weights.items()}
        tensors["learned.origin"] = learned.origin.astype(np.int32)
        tensors["learned.rows"] = learned.rows.astype(np.int32)
        return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}

    def to_tensors(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The library as a model holds it: what its configuration says (no sources), and int64 [P, 5]."""
        description = self._description()
        description["programs"] = [{**program, "source": ""} for program in description["programs"]]
        del description["symbols"]
        for name in ("learned", "keys"):
            description.pop(name, None)
        return description, {"instructions": self.instructions.astype(np.int64)}

    @classmethod
    def from_tensors(cls, description: dict[str, Any], tensors: dict[str, np.ndarray]) -> NeuralLibrary:
        """The library that :meth:`to_tensors` took apart, validated.

        Raises:
            LibraryError: it holds what no library may.
        """
        where = "the model's configuration"
        return cls(
            _get(description, "name", str, where),
            _programs(description, where),
            np.asarray(tensors["instructions"], dtype=np.int64),
            registers=_get(description, "registers", int, where),
        )

    def _files(self) -> dict[str, bytes]:
        """File name → content, the description last."""
        from safetensors.numpy import save

        tensors = save(self._tensors(), metadata={"format": "neurallib"})
        description = self._description() | {"sha256": hashlib.sha256(tensors).hexdigest()}
        text = (json.dumps(description, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()
        for name, content, most in ((TENSOR_FILE, tensors, MAXIMUM_FILE), (CONFIG_FILE, text, MAXIMUM_DESCRIPTION)):
            if len(content) > most:
                raise LibraryError(
                    f"library {self.name!r}: {name} would be larger than {most // 2**20} MiB; extract a part of its programs"
                )
        return {TENSOR_FILE: tensors, CONFIG_FILE: text}

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Writes the library's two files. Each appears complete or not at all, the description last.

        Raises:
            LibraryError: the folder cannot be written, or the library is too large for its files.
        """
        folder, files = Path(directory), self._files()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                _write(folder / name, content)
        except OSError as error:
            raise LibraryError(
                f"the library cannot be written to {_place(folder)}: {_reason(error)}; choose another folder"
            ) from None

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
            folder = _download(repository, revision, {**options, "local_files_only": local_files_only})
            commit = folder.name
        description = _read(folder / CONFIG_FILE, MAXIMUM_DESCRIPTION)
        tensors = _read(folder / TENSOR_FILE, MAXIMUM_FILE)
        library = cls._decoded(description, tensors, folder)
        library.repository, library.revision = repository, commit
        return library

    @classmethod
    def _decoded(cls, description: bytes, tensors: bytes, folder: Path) -> NeuralLibrary:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        where, held = _place(folder / CONFIG_FILE), _place(folder / TENSOR_FILE)
        data = _migrated(_parsed(description, where), where)
        if _get(data, "sha256", str, where) != hashlib.sha256(tensors).hexdigest():
            raise LibraryError(
                f"{held} is not the file that {CONFIG_FILE} describes (sha256 differs); get the library again"
            )
        if int.from_bytes(tensors[:8], "little") > MAXIMUM_HEADER:
            raise LibraryError(f"{held} is corrupt (its header is larger than {MAXIMUM_HEADER} bytes); get the library again")
        try:
            loaded = load(tensors)
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise LibraryError(f"{held} is corrupt ({_reason(error)}); get the library again") from None
        columns = []
        for name in (*FIELDS, "line"):
            column = _integers(loaded, name, held)
            if column.ndim != 1:
                raise LibraryError(f"{held}: tensor {name!r} must be integers [P]; get the library again")
            columns.append(column)
        if len({len(column) for column in columns}) > 1:
            raise LibraryError(f"{held}: its tensors differ in length; get the library again")
        programs = _programs(data, where)
        origins = {}
        for item in _get(data, "symbols", list, where):
            texts = [_get(item, key, str, where) for key in ("name", "file", "source")]
            origins[_get(item, "address", int, where)] = Origin(
                texts[0], texts[1], _get(item, "line", int, where), texts[2]
            )
        code = np.stack(columns[:5], axis=1)
        learned = _learned(_get(data, "learned", dict, where), loaded, where) if "learned" in data else None
        keys = _keys(_get(data, "keys", list, where), loaded, where) if "keys" in data else ()
        try:
            return cls(
                _get(data, "name", str, where), programs, code, origins, columns[5], _get(data, "registers", int, where),
                learned, keys,
            )  # fmt: skip
        except LibraryError as error:
            raise LibraryError(f"{_place(folder)}: {error}") from None

    def card(self, repository: str | None = None, license: str | None = None) -> str:
        """The library's card: its programs, each with an example that is run now, what it needs, and how to load it.

        Args:
            repository: ``org/name`` on the Hub; the library's name stands for it if there is none yet.
            license: an identifier of the Hub's list, such as ``"apache-2.0"``.
        """
        from ..model_cards.library_card import library_card

        card = library_card(
            self._description(),
            self.fingerprint,
            repository,
            license,
            examples=[asdict(example) for example in self.worked_examples()],
            files={name: hashlib.sha256(content).hexdigest() for name, content in self._files().items()},
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
        from huggingface_hub import CommitOperationAdd, HfApi

        files = {"README.md": self.card(repo_id, license).encode(), **self._files()}
        try:
            api = HfApi(token=token)
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.create_commit(
                repo_id=repo_id,
                operations=[CommitOperationAdd(name, content) for name, content in files.items()],
                commit_message=commit_message or f"Upload library {self.name}",
                revision=revision,
                create_pr=create_pr,
            )
        except Exception as error:  # the HTTP library's, whichever that is, among them
            raise LibraryError(f"library {self.name!r} cannot be uploaded: {hub_reason(error, repo_id)}") from error
        self.repository, self.revision = repo_id, commit.oid
        return str(commit)


def _one_line(text: str) -> str:
    """Text of a stranger, fit to be shown on a terminal: no control characters."""
    return "".join(character if character.isprintable() else " " for character in text).rstrip()


def _shown(value: Any) -> str:
    """What an error shows of a value that can be anything: one short line."""
    if isinstance(value, str):
        return repr(value) if len(value) <= SHOWN else f"{value[:SHOWN]!r}…"
    if value is None or isinstance(value, (bool, float)):
        return repr(value)
    if isinstance(value, (int, np.integer)):
        return str(value) if abs(int(value)) < 2**64 else f"an integer of {int(value).bit_length()} bits"
    return type(value).__name__


def _shape(tensor: np.ndarray) -> str:
    return f"{list(tensor.shape)}" if tensor.ndim <= 3 else f"{tensor.ndim} dimensions"


def _place(path: Path) -> str:
    return _one_line(str(path))


def _reason(error: Exception) -> str:
    """What a library beneath says of a stranger's file, fit for one line."""
    return _one_line(str(error)[: 4 * SHOWN])


def _get(data: Any, key: str, kind: type, where: str) -> Any:
    value = data.get(key) if isinstance(data, dict) else None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise LibraryError(f"{where}: {key!r} must be of type {kind.__name__}, found {type(value).__name__}")
    return value


def _program_description(program: Program) -> dict[str, Any]:
    described = asdict(program) | {"parameters": [asdict(each) for each in program.parameters]}
    if not program.library:
        del described["library"]
    return described


def _program(item: Any, where: str) -> Program:
    return Program(
        name=_get(item, "name", str, where),
        docstring=_get(item, "docstring", str, where),
        parameters=tuple(
            Parameter(_get(each, "name", str, where), _get(each, "type", str, where))
            for each in _get(item, "parameters", list, where)
        ),
        returns=_get(item, "returns", str, where),
        entry=_get(item, "entry", int, where),
        length=_get(item, "length", int, where),
        source=_get(item, "source", str, where),
        minimum_values=_get(item, "minimum_values", int, where),
        library=_get(item, "library", str, where) if "library" in item else "",
    )


def _programs(data: Any, where: str) -> dict[str, Program]:
    """Name → program, of a description that can be anybody's."""
    programs: dict[str, Program] = {}
    for item in _get(data, "programs", list, where):
        program = _program(item, where)
        if program.name in programs:
            raise LibraryError(f"{where}: two programs named {_shown(program.name)}; do not use this library")
        programs[program.name] = program
    return programs


def _learned(described: dict[str, Any], tensors: dict[str, np.ndarray], where: str) -> LearnedCode:
    origin, rows = (_integers(tensors, f"learned.{name}", where) for name in ("origin", "rows"))
    values, offset = (_get(described, key, int, where) for key in ("values", "offset"))
    weights = {name.removeprefix("learned."): tensor for name, tensor in tensors.items() if name.startswith("learned.")}
    del weights["origin"], weights["rows"]
    return LearnedCode(origin, rows, values, offset, weights)


def _integers(tensors: dict[str, np.ndarray], name: str, where: str) -> np.ndarray:
    """A tensor of integers as int64, of at most as many rows and columns as a library's instructions may have."""
    found = tensors.get(name)
    if found is None or not np.issubdtype(found.dtype, np.signedinteger):
        raise LibraryError(f"{where}: tensor {name!r} must be integers; get the library again")
    if len(np.atleast_1d(found)) > MAXIMUM_INSTRUCTIONS or found.size > MAXIMUM_INSTRUCTIONS * len(FIELDS):
        raise LibraryError(
            f"{where}: tensor {name!r} must have at most {MAXIMUM_INSTRUCTIONS} entries, one for each instruction, "
            f"found {_shape(found)}; do not use this library"
        )
    return found.astype(np.int64)


def _keys(described: list[Any], tensors: dict[str, np.ndarray], where: str) -> tuple[TunedKeys, ...]:
    found = []
    for number, item in enumerate(described):
        if f"keys.{number}" not in tensors:
            raise LibraryError(f"{where}: tensor 'keys.{number}' is missing; get the library again")
        base, revision, heads = (_get(item, name, str, where) for name in KEYS_TOLD)
        found.append(TunedKeys(base, revision, heads, tensors[f"keys.{number}"]))
    return tuple(found)


def _is_text(text: Any) -> bool:
    """Whether it is a text of at most ``MAXIMUM_TEXT`` characters that a file can hold: no half of a surrogate pair."""
    if not isinstance(text, str) or len(text) > MAXIMUM_TEXT:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_name(name: str) -> bool:
    return len(name) <= MAXIMUM_NAME and name.isidentifier()


def _read(path: Path, most: int) -> bytes:
    where = _place(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise LibraryError(f"{where} is not a file, but a folder, a device or a pipe; do not use this library")
        if status.st_size > most:
            raise LibraryError(f"{where} is larger than {most // 2**20} MiB; do not use this library")
        return path.read_bytes()
    except OSError as error:
        raise LibraryError(f"{where} cannot be read ({error.strerror}); a library is that file and its sister") from None


def _parsed(description: bytes, where: str) -> Any:
    """What the description says. One of more values than a library has is refused before it takes memory and time."""
    letters = np.frombuffer(description.replace(rb"\\", b"").replace(rb"\"", b""), np.uint8)
    in_a_text = np.logical_xor.accumulate(letters == ord('"'))
    begins = (letters == ord(",")) | (letters == ord("[")) | (letters == ord("{"))
    if np.count_nonzero(begins & ~in_a_text) > MAXIMUM_VALUES:
        raise LibraryError(f"{where} has more than {MAXIMUM_VALUES} values; do not use this library")
    try:
        return json.loads(description.decode("utf-8-sig"))  # bytes that are UTF-16 would not be counted
    except (ValueError, RecursionError) as error:
        raise LibraryError(f"{where} is not JSON ({_reason(error)}); get the library again") from None


def _write(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _migrated(data: Any, where: str) -> dict[str, Any]:
    """A description in the present format, whichever it was written in."""
    version = data.get("format_version") if isinstance(data, dict) else None
    if type(version) is int and version > FORMAT_VERSION:
        raise LibraryError(
            f"{where}: format version {_shown(version)} is newer than {FORMAT_VERSION}, the newest that this neurallib reads; "
            "upgrade neurallib"
        )
    while type(version) is not int or version != FORMAT_VERSION:
        if type(version) is not int or version not in MIGRATIONS:
            raise LibraryError(
                f"{where}: format version {_shown(version)}, this neurallib reads 1…{FORMAT_VERSION}; get the library again"
            )
        version += 1
        data = MIGRATIONS[version - 1](data) | {"format_version": version}
    return dict(data)


def _download(repository: str, revision: str | None, options: dict[str, Any]) -> Path:
    if len(repository) > 2 * MAXIMUM_NAME or not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", repository):
        raise LibraryError(f"no folder {_shown(repository)}; give the folder of a library, or a repository org/name")
    from huggingface_hub import snapshot_download

    wanted = [CONFIG_FILE, TENSOR_FILE]
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted, **options))
    except Exception as error:  # the HTTP library's, whichever that is, among them
        reason = hub_reason(error, repository, revision)
        raise LibraryError(
            f"no folder {repository!r}, and no such library can be had from the Hub: {reason}"
        ) from error


def hub_reason(error: BaseException, repository: str, revision: str | None = None) -> str:
    """One line for what went wrong between this machine and the Hub, and the way out."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, errors.HfHubHTTPError):
        error = error.__cause__  # the client looked into its cache after the Hub had answered
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return f"access to {repository} must be asked for on its page"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository} has no revision {_shown(revision or 'main')}; check the branch, tag or commit"
    if status == 401 and re.search("invalid (credentials|user token)", str(error), re.IGNORECASE):
        return "the Hub does not know this token; log in again with `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no repository {repository}, or your token may not see it; check the name, or `hf auth login`"
    if status in (401, 403) or isinstance(error, errors.LocalTokenNotFoundError):
        return f"your token may not do this with {repository}; log in with `hf auth login`, with a token that may write"
    said = " ".join(str(error).split()) or type(error).__name__
    return f"{_one_line(said[: 8 * SHOWN])}; check name and network"
