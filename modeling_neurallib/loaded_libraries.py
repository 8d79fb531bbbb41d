"""The libraries of a model: loaded, chosen, weighed and deleted; kept inside the model, or by reference.

A model's libraries are linked into one, in the order in which they were loaded. What each of them is stands in
``config.libraries``. The instructions of a library inside the model are rows of the computer's buffer; those of a library
by reference are fetched when the model is loaded, and are used only if they have the sha256 that the model was saved with.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from .library import NeuralLibrary
from .library_errors import PROGRAMS_SHOWN, LibraryError
from .library_records import TunedKeys
from .sharing import base_revision, hub_name

if TYPE_CHECKING:
    from ..configuration.configuration_neurallib import NeuralLibConfig

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class LibraryRecord:
    """What a model knows of one of its libraries.

    Attributes:
        name: the library's name in the model. programs: its programs, by their own names, in the order of their keys.
        instructions: how many it has. fingerprint: sha256 of the library that was loaded.
        repository: ``org/name`` that it came from, if any. revision: the commit's hash there.
        by_reference: its instructions are not saved in the model, but fetched from the repository at that revision.
        bias: logit that is added to the selection of its programs.
    """

    name: str
    programs: tuple[str, ...]
    instructions: int
    fingerprint: str = ""
    repository: str = ""
    revision: str = ""
    by_reference: bool = False
    bias: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"programs": list(self.programs)}

    def known_as(self, name: str) -> bool:
        """True if an allow-list that holds ``name`` means this library: its name, sha256, repository or repository@revision."""
        names = {self.name, self.fingerprint, self.repository, f"{self.repository}@{self.revision}"}
        return bool(name) and name in names


def record_of(library: NeuralLibrary, by_reference: bool = False, bias: float = 0.0) -> LibraryRecord:
    """The record of a library that is loaded now.

    Raises:
        LibraryError: a library by reference has no place on the Hub, or the bias is no finite number.
    """
    if by_reference and not (library.repository and library.revision):
        raise LibraryError(
            f"library {library.name!r} comes from no commit of the Hub that a model could refer to: push it there and load "
            "it from there, or save it inside the model (by_reference=False)"
        )
    if not math.isfinite(bias):
        raise LibraryError(f"the bias of library {library.name!r} must be a finite number, found {bias}")
    return LibraryRecord(
        library.name,
        tuple(library.programs),
        len(library.instructions),
        library.fingerprint,
        library.repository,
        library.revision,
        by_reference,
        float(bias),
    )


def records(config: NeuralLibConfig) -> list[LibraryRecord]:
    """The libraries of a model, in the order of its programs.

    Raises:
        LibraryError: the configuration contradicts itself.
    """
    if config.library is None:
        return []
    names = [program["name"] for program in config.library["programs"]]
    if config.libraries is None:  # a model of the time when it could have one library
        return [LibraryRecord(config.library["name"], tuple(names), int(config.library["instructions"]))]
    try:
        found = [LibraryRecord(**{**each, "programs": tuple(each["programs"])}) for each in config.libraries]
        instructions = sum(record.instructions for record in found)
        sound = all(type(record.instructions) is int and record.instructions > 0 for record in found)
    except (TypeError, KeyError) as error:
        raise LibraryError(f"the model's configuration: 'libraries' holds no record of a library ({error})") from None
    programs = [program for record in found for program in record.programs]
    own = all(name == its or name.endswith(f".{its}") for name, its in zip(names, programs, strict=False))
    if not sound or instructions != config.library["instructions"] or len(programs) != len(names) or not own:
        raise LibraryError(
            f"the model's configuration describes {len(names)} programs, but not those of its libraries; get it again"
        )
    return found


def library_shape(config: NeuralLibConfig) -> tuple[int, int]:
    """(programs, instructions kept inside the model)."""
    found = records(config)
    inside = sum(record.instructions for record in found if not record.by_reference)
    return sum(len(record.programs) for record in found), inside


def linked_library(
    config: NeuralLibConfig, inside: np.ndarray, references: dict[str, NeuralLibrary]
) -> NeuralLibrary | None:
    """All libraries of a model as one, validated.

    Args:
        inside: int64 [·, 5], instructions of the libraries inside the model. references: name → library, of those by
            reference; what is missing is fetched and put there.

    Raises:
        LibraryError: the model's libraries are not what they must be, or one of them cannot be fetched.
    """
    if config.library is None:
        return None
    parts, start, used = [], 0, 0
    for record in records(config):
        if record.by_reference:
            if record.name not in references:
                references[record.name] = _fetched(record)
            parts.append(references[record.name].moved(start))
        else:
            parts.append(inside[used : used + record.instructions])
            used += record.instructions
        start += record.instructions
    linked = NeuralLibrary.from_tensors(config.library, {"instructions": np.concatenate(parts)})
    for name, part in separate(linked, records(config)).items():
        reference = references.get(name)
        if reference is not None and _interfaces(part) != _interfaces(reference):
            raise LibraryError(
                f"the model's configuration describes the programs of library {name!r} otherwise than the library itself; "
                "do not use this model"
            )
    return linked


def separate(linked: NeuralLibrary, found: Sequence[LibraryRecord]) -> dict[str, NeuralLibrary]:
    """Name → library, as they were before they were linked."""
    names = iter(linked.programs)
    parts, start = {}, 0
    for record in found:
        # Its own names are drawn first, so that zip takes no name too many.
        programs = {here: own for own, here in zip(record.programs, names, strict=False)}
        part = linked.part(record.name, programs, start, start + record.instructions)
        parts[record.name] = replace(part, repository=record.repository, revision=record.revision)
        start += record.instructions
    return parts


def _interfaces(library: NeuralLibrary) -> list[tuple[Any, ...]]:
    return [(p.name, p.docstring, p.parameters, p.returns, p.entry, p.length) for p in library.programs.values()]


def _fetched(record: LibraryRecord) -> NeuralLibrary:
    """The library that a record refers to.

    Raises:
        LibraryError: it cannot be reached, or is another one.
    """
    try:
        library = NeuralLibrary.from_pretrained(record.repository, revision=record.revision)
    except LibraryError as error:
        raise LibraryError(f"the model needs library {record.name!r}, which is not inside it: {error}") from error
    if library.fingerprint != record.fingerprint:
        raise LibraryError(
            f"the model needs library {record.name!r} of sha256 {record.fingerprint}, but {record.repository} at "
            f"{record.revision} has {library.fingerprint}: do not use it, and get the model again"
        )
    return library if library.name == record.name else replace(library, name=record.name)


def callable_libraries(config: NeuralLibConfig) -> list[LibraryRecord]:
    """The libraries that are active and on the allow-list."""
    return [
        record
        for record in records(config)
        if (config.active_libraries is None or record.name in config.active_libraries) and _allowed(config, record)
    ]


def callable_programs(config: NeuralLibConfig, suspended: Iterable[str] = ()) -> set[str]:
    """Names of the programs that may be called: of a callable library, on the allow-list, and not disabled.

    Args:
        suspended: names of libraries that may not be called now.
    """
    may = {record.name for record in callable_libraries(config)} - set(suspended)
    disabled, allowed = set(config.disabled_programs or ()), config.allowed_programs
    found = set()
    for record, here, own in _programs(config):
        listed = allowed is None or here in allowed or f"{record.name}.{own}" in allowed
        if record.name in may and listed and here not in disabled:
            found.add(here)
    return found


def program_biases(config: NeuralLibConfig) -> list[float]:
    """What each program's library adds to its logit, in the order of the keys."""
    return [record.bias for record, _, _ in _programs(config)]


def _programs(config: NeuralLibConfig) -> Iterator[tuple[LibraryRecord, str, str]]:
    """(library, name in the model, own name) of each program."""
    names = iter(config.library["programs"] if config.library is not None else ())
    for record in records(config):
        for own in record.programs:
            yield record, next(names)["name"], own


def _allowed(config: NeuralLibConfig, record: LibraryRecord) -> bool:
    return config.allowed_libraries is None or any(record.known_as(name) for name in config.allowed_libraries)


def _listed(names: str | Sequence[str] | None) -> list[str] | None:
    """One name, or several, as a list."""
    return [names] if isinstance(names, str) else None if names is None else list(names)


def program_text(name: str, docstring: str) -> str:
    """What the backbone reads of a program to make its key."""
    return f"{name.rsplit('.', 1)[-1].replace('_', ' ')}: {docstring}"


def heads_hash(computer: Any) -> str:
    """sha256 of what selects a program by its key, the keys left out."""
    digest = hashlib.sha256()
    for part in (computer.projection, computer.selector):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


class LibraryManagement:
    """What a model offers for its libraries: load, choose, weigh, allow, delete."""

    config: Any
    model: Any

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As ``PreTrainedModel.from_pretrained``; libraries are validated, and those by reference fetched.

        Raises:
            LibraryError: a library in the model is not what it must be, or one by reference cannot be had.
        """
        stock: Any = super()
        loaded = stock.from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if not model.computer.instructions.is_meta:
            _ = model.library
        return loaded

    @property
    def library(self) -> NeuralLibrary | None:
        """All programs of the model, its libraries linked; None if it has no library."""
        found: NeuralLibrary | None = self.model.computer.library
        return found

    @property
    def libraries(self) -> dict[str, NeuralLibrary]:
        """Name → library, in the order in which they were loaded. Their sources are not in the model."""
        linked = self.library
        return {} if linked is None else separate(linked, records(self.config))

    @property
    def loaded_here(self) -> dict[str, NeuralLibrary]:
        """Name → library, of those that were loaded in this process: as they were, sources and all."""
        found: dict[str, NeuralLibrary] = self.__dict__.setdefault("_loaded_here", {})
        return found

    @property
    def active_libraries(self) -> list[str]:
        """Names of the libraries whose programs may be called now."""
        suspended = self.model.computer.suspended
        return [record.name for record in callable_libraries(self.config) if record.name not in suspended]

    def load_library(
        self,
        library: NeuralLibrary | str | os.PathLike[str],
        name: str | None = None,
        *,
        tokenizer: Any = None,
        revision: str | None = None,
        by_reference: bool = False,
        bias: float = 0.0,
    ) -> None:
        """Add a library's programs to those that can be called. A program whose name is taken becomes ``library.program``.

        Their keys are made from their names and docstrings; keys that were tuned for these very heads (:meth:`tuned_library`) are
        used. A warning names programs that the model never calls: those of no parameter, or of more than its ``max_arguments``.

        Args:
            library: a library, a folder, or ``org/name`` on the Hub.
            name: its name in this model; its own by default.
            tokenizer: that of the model; by default it is loaded from the model's folder or repository.
            revision: branch, tag or commit, for a library on the Hub.
            by_reference: save the library's address, commit and sha256 with the model, and not its instructions.
            bias: logit that is added to the selection of its programs.

        Raises:
            LibraryError: it cannot be loaded, its name is taken, it is for another machine, the model's allow-list does not
                hold it, or there is no tokenizer.
        """
        if not isinstance(library, NeuralLibrary):
            if str(library).endswith(".py") and not os.path.isdir(library):
                raise LibraryError(
                    f"{library} is Python source, and a model loads what is compiled: neurallib.compile_library({str(library)!r}) "
                    "makes a library of it"
                )
            library = NeuralLibrary.from_pretrained(library, revision=revision)
        new = replace(record_of(library, by_reference, bias), name=name or library.name)
        if new.name != library.name:
            library = replace(library, name=new.name)
        computer, known = self.model.computer, self.libraries
        if new.name in known:
            raise LibraryError(
                f"the model has a library {new.name!r} already: give this one another name=…, or delete_library first"
            )
        if not _allowed(self.config, new):
            raise LibraryError(
                f"library {new.name!r} is not on the model's allow-list ({', '.join(self.config.allowed_libraries)}): "
                "add its name, repository or sha256 with allow_only(libraries=[…])"
            )
        if library.registers != computer.machine.registers:
            raise LibraryError(
                f"library {new.name!r} is compiled for machines of {library.registers} registers, the model's has "
                f"{computer.machine.registers}: compile it with registers={computer.machine.registers}"
            )
        most = self.config.max_arguments
        never = [name for name, program in library.programs.items() if not 0 < len(program.parameters) <= most]
        if never:
            shown = ", ".join(never[:PROGRAMS_SHOWN]) + (", …" if len(never) > PROGRAMS_SHOWN else "")
            logger.warning(
                f"the model never calls {shown} of library {new.name!r}: it reads 1…{most} arguments (max_arguments of its "
                "configuration) from the text; give such a function one parameter, a list[int] or str of all that it works on"
            )
        linked = NeuralLibrary.link([*known.values(), library])
        texts = [program_text(program.name, program.docstring) for program in library.programs.values()]
        described = self._describe(tokenizer, texts).to(computer.descriptions.device)
        fresh = self._tuned(library)
        if by_reference:
            computer.references[new.name] = library
        self.loaded_here[new.name] = library
        self._install(
            linked,
            torch.cat([computer.descriptions, described]),
            torch.cat([computer.offsets.detach(), fresh]),
            [*records(self.config), new],
        )
        if self.config.active_libraries is not None:
            self.config.active_libraries = [*self.config.active_libraries, new.name]

    def _tuned(self, library: NeuralLibrary) -> Tensor:
        """[programs, key_width]: what tuning added to a library's keys for these heads, else nothing."""
        offsets = self.model.computer.offsets
        if library.keys:
            here = heads_hash(self.model.computer)
            for keys in library.keys:
                if keys.heads == here and keys.offsets.shape[1] == offsets.shape[1]:
                    return torch.from_numpy(keys.offsets.astype(np.float32)).to(offsets.device)
        return offsets.new_zeros(len(library.programs), offsets.shape[1])

    def tuned_library(self, name: str) -> NeuralLibrary:
        """A library with the keys that its programs have in this model, to be saved or pushed; those for other models are kept.

        Raises:
            LibraryError: there is no such library.
        """
        self._known([name])
        computer = self.model.computer
        library, here = self.libraries[name], self.loaded_here.get(name)
        if here is not None and np.array_equal(here.instructions, library.instructions):
            library = here  # with its sources
        mine = torch.tensor([record.name == name for record, _, _ in _programs(self.config)])
        offsets = computer.offsets.detach().cpu()[mine].numpy()
        keys = TunedKeys(hub_name(self.config) or "", base_revision(self.config) or "", heads_hash(computer), offsets)
        others = [each for each in library.keys if each.heads != keys.heads]
        return replace(library, keys=(*others, keys), repository="", revision="")

    def redescribe(self, tokenizer: Any = None) -> None:
        """Make the descriptions behind the keys anew, after the backbone has changed.

        Args:
            tokenizer: that of the model; by default it is loaded from the model's folder.
        Raises:
            LibraryError: there is no tokenizer.
        """
        programs = self.model.computer.library.programs.values() if self.model.computer.library is not None else ()
        described = self._describe(tokenizer, [program_text(program.name, program.docstring) for program in programs])
        # Of the heads in use: those that an adapter's stand in for belong to the backbone without it.
        self.model.computer.descriptions.copy_(described)

    def delete_library(self, name: str) -> None:
        """Take a library out of the model, with its programs and their keys.

        Raises:
            LibraryError: there is no such library.
        """
        self._known([name])
        computer, known, found = self.model.computer, self.libraries, records(self.config)
        kept = torch.tensor([record.name != name for record in found for _ in record.programs])
        rest = [library for its, library in known.items() if its != name]
        where = kept.to(computer.offsets.device)
        self._install(
            NeuralLibrary.link(rest) if rest else None,
            computer.descriptions[where],
            computer.offsets.detach()[where],
            [record for record in found if record.name != name],
        )
        if self.config.active_libraries is not None:
            self.config.active_libraries = [each for each in self.config.active_libraries if each != name]

    def set_library(self, names: str | Sequence[str] | None) -> None:
        """Say which libraries may be called: one, several, none (``[]``) or all of them, later ones included (None).

        Raises:
            LibraryError: there is no such library.
        """
        chosen = _listed(names)
        self._known(chosen or ())
        self.config.active_libraries = chosen

    def set_library_bias(self, name: str, bias: float) -> None:
        """Add a number to the logit of every program of a library when a program is selected; 0 leaves it as it is.

        Raises:
            LibraryError: there is no such library, or the bias is no finite number.
        """
        self._known([name])
        if not math.isfinite(bias):
            raise LibraryError(f"the bias of library {name!r} must be a finite number, found {bias}")
        found = [replace(each, bias=float(bias)) if each.name == name else each for each in records(self.config)]
        self.config.libraries = [record.to_dict() for record in found]

    def allow_only(self, libraries: str | Sequence[str] | None = None, programs: str | Sequence[str] | None = None) -> None:
        """Set the allow-list: nothing else is ever called, and no other library can be loaded. It is saved with the model.

        Args:
            libraries: one or several, each a library's name, its repository (``org/name`` or ``org/name@commit``) or its sha256,
                which alone no stranger can imitate; loaded or not yet. None: all.
            programs: one or several names in the model, or ``library.program``. None: all.
        """
        self.config.allowed_libraries, self.config.allowed_programs = _listed(libraries), _listed(programs)

    @contextmanager
    def disable_library(self, names: str | Sequence[str] | None = None) -> Iterator[None]:
        """Within, no program of these libraries is called; of none at all by default, so that the logits are the base's.

        Raises:
            LibraryError: there is no such library.
        """
        chosen = _listed(names)
        self._known(chosen or ())
        off = {record.name for record in records(self.config)} if chosen is None else set(chosen)
        computers = self._computers()
        before = [computer.suspended for computer in computers]
        for computer in computers:
            computer.suspended = computer.suspended | off
        try:
            yield
        finally:
            for computer, suspended in zip(computers, before, strict=True):
                computer.suspended = suspended

    def _known(self, names: Iterable[str]) -> None:
        known = [record.name for record in records(self.config)]
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"it has {', '.join(known)}" if known else "it has none; load_library loads one"
                hint = f"did you mean {near[0]!r}?" if near else hint
                raise LibraryError(f"the model has no library {name!r}; {hint}")

    def _computers(self) -> list[Any]:
        """The computer, and its copies where PEFT keeps some (``modules_to_save``), which follow the model's configuration."""
        return [module for module in self.model.modules() if type(module).__name__ == "Computer"]

    def _describe(self, tokenizer: Any, texts: Sequence[str]) -> Tensor:
        """float32 [texts, features], by the backbone as it answers: without dropout."""
        if tokenizer is None:
            place = str(self.config.name_or_path)
            revision = "main" if os.path.isdir(place) else getattr(self.config, "_commit_hash", None) or "main"
            try:
                # The tokenizer's own class: AutoTokenizer would ask whether to run the code of a model folder.
                tokenizer = PreTrainedTokenizerFast.from_pretrained(place, revision=revision)
            except (OSError, ValueError) as error:
                raise LibraryError(
                    f"keys of programs are made with the model's tokenizer, and {place or 'the model'!r} has none: pass "
                    "tokenizer=AutoTokenizer.from_pretrained(…)"
                ) from error
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            described: Tensor = self.model.describe(tokenizer, texts)
        finally:
            for module, training in modes:
                module.training = training
        return described

    def _install(
        self,
        library: NeuralLibrary | None,
        descriptions: Tensor,
        offsets: Tensor,
        found: Sequence[LibraryRecord] | None = None,
    ) -> None:
        """Put linked libraries with their programs' descriptions and offsets into the model.

        Args:
            library: all programs; None for no library. descriptions: [programs, ·]. offsets: [programs, key_width].
            found: the libraries that it was linked from; it alone if None.
        """
        if found is None:
            found = [] if library is None else [record_of(library)]
        renamed = self._renamed(library, found)
        config = self.config
        config.library, code = None, np.zeros((0, 5), dtype=np.int64)
        if library is not None:
            config.library, tensors = library.to_tensors()
            inside = [np.full(record.instructions, not record.by_reference) for record in found]
            code = tensors["instructions"][np.concatenate(inside)]
        config.libraries = [record.to_dict() for record in found] or None
        for key in ("disabled_programs", "allowed_programs"):
            listed = getattr(config, key)
            if listed is not None:
                setattr(config, key, [renamed.get(name, name) for name in listed])
        computers = self._computers()
        references = {name: its for computer in computers for name, its in computer.references.items()}
        names = {record.name for record in found if record.by_reference}
        for computer in computers:
            device = computer.offsets.device
            computer.references = {name: its for name, its in references.items() if name in names}
            computer.instructions = torch.from_numpy(np.ascontiguousarray(code)).to(device)
            computer.descriptions = descriptions.to(device, torch.float32)
            learned = computer.offsets.requires_grad
            computer.offsets = nn.Parameter(offsets.clone().to(device, torch.float32), requires_grad=learned)
            computer.forget_cached()

    def _renamed(self, library: NeuralLibrary | None, found: Sequence[LibraryRecord]) -> Mapping[str, str]:
        """Name that a program had → name that it gets, where a clash came or went."""
        before = {(record.name, own): here for record, here, own in _programs(self.config)}
        after = zip(
            [(record.name, own) for record in found for own in record.programs],
            [] if library is None else library.programs,
            strict=True,
        )
        return {before[program]: here for program, here in after if program in before}
