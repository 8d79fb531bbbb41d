"""A library as a description (JSON) and tensors: in its two files, and in a model that holds it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .library_errors import LibraryError, place, reason, shape, shown
from .library_records import LearnedCode, LibraryData, Origin, Parameter, Program, TunedKeys
from .library_validation import MAXIMUM_INSTRUCTIONS
from .machine.operations import FIELDS

FORMAT_VERSION = 1
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Format version → how a description of that version becomes one of the next; tensors are read by what it then says."""

CONFIG_FILE = "library_config.json"
TENSOR_FILE = "library.safetensors"

MAXIMUM_FILE = 64 * 2**20
MAXIMUM_DESCRIPTION = 32 * 2**20
"""Bytes of the description; 4,096 programs like those of the standard library have 12 MiB."""
MAXIMUM_VALUES = 1_000_000
"""Values in the description; 4,096 programs like those of the standard library have 190,000."""
MAXIMUM_HEADER = 2**20
"""Bytes in which the file of tensors names them."""

KEYS_TOLD = ("base", "revision", "heads")
"""What the description of a library says of tuned keys; their numbers are tensors."""

Library = TypeVar("Library", bound=LibraryData)


def fingerprint_of(library: LibraryData) -> str:
    """sha256 of everything that the library is, in hexadecimal."""
    digest = hashlib.sha256(json.dumps(description_of(library), sort_keys=True).encode())
    digest.update(np.ascontiguousarray(library.instructions).tobytes())
    digest.update(np.ascontiguousarray(library.lines).tobytes())
    if library.learned is not None:
        for name in sorted(tensors := _learned_tensors(library.learned)):
            digest.update(tensors[name].tobytes())
    for name in sorted(tensors := _key_tensors(library)):
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()


def description_of(library: LibraryData) -> dict[str, Any]:
    """What the file says of the library, but for the hash of its tensors."""
    learned = {} if library.learned is None else {"values": library.learned.values, "offset": library.learned.offset}
    return {
        "format_version": FORMAT_VERSION,
        "name": library.name,
        "registers": library.registers,
        **({"learned": learned} if learned else {}),
        **(
            {"keys": [{name: getattr(each, name) for name in KEYS_TOLD} for each in library.keys]}
            if library.keys
            else {}
        ),
        "instructions": len(library.instructions),
        "minimum_values": max(program.minimum_values for program in library.programs.values()),
        "programs": [_program_description(program) for program in library.programs.values()],
        "symbols": [{"address": address, **asdict(library.origins[address])} for address in sorted(library.origins)],
    }


def _tensors(library: LibraryData) -> dict[str, np.ndarray]:
    tensors = {name: library.instructions[:, column].astype(np.int32) for column, name in enumerate(FIELDS)}
    tensors["line"] = library.lines.astype(np.int32)
    if library.learned is not None:
        tensors |= _learned_tensors(library.learned)
    tensors |= _key_tensors(library)
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def _key_tensors(library: LibraryData) -> dict[str, np.ndarray]:
    return {f"keys.{number}": each.offsets.astype(np.float32) for number, each in enumerate(library.keys)}


def _learned_tensors(learned: LearnedCode) -> dict[str, np.ndarray]:
    tensors = {f"learned.{name}": weights.astype(np.float32) for name, weights in learned.weights.items()}
    tensors["learned.origin"] = learned.origin.astype(np.int32)
    tensors["learned.rows"] = learned.rows.astype(np.int32)
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def model_tensors(library: LibraryData) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The library as a model holds it: what its configuration says (no sources), and int64 [P, 5]."""
    description = description_of(library)
    description["programs"] = [{**program, "source": ""} for program in description["programs"]]
    del description["symbols"]
    for name in ("learned", "keys"):
        description.pop(name, None)
    return description, {"instructions": library.instructions.astype(np.int64)}


def from_model_tensors(kind: type[Library], description: dict[str, Any], tensors: dict[str, np.ndarray]) -> Library:
    """The library that :func:`model_tensors` took apart, made as ``kind``.

    Raises:
        LibraryError: it does not say what a library says.
    """
    where = "the model's configuration"
    return kind(
        _get(description, "name", str, where),
        _programs(description, where),
        np.asarray(tensors["instructions"], dtype=np.int64),
        registers=_get(description, "registers", int, where),
    )


def file_contents(library: LibraryData) -> dict[str, bytes]:
    """File name → content, the description last."""
    from safetensors.numpy import save

    tensors = save(_tensors(library), metadata={"format": "neurallib"})
    description = description_of(library) | {"sha256": hashlib.sha256(tensors).hexdigest()}
    text = (json.dumps(description, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()
    for name, content, most in ((TENSOR_FILE, tensors, MAXIMUM_FILE), (CONFIG_FILE, text, MAXIMUM_DESCRIPTION)):
        if len(content) > most:
            raise LibraryError(
                f"library {library.name!r}: {name} would be larger than {most // 2**20} MiB; extract a part of its programs"
            )
    return {TENSOR_FILE: tensors, CONFIG_FILE: text}


def write_files(library: LibraryData, folder: Path) -> None:
    """Writes the library's two files. Each appears complete or not at all, the description last.

    Raises:
        LibraryError: the folder cannot be written, or the library is too large for its files.
    """
    files = file_contents(library)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            _write(folder / name, content)
    except OSError as error:
        raise LibraryError(
            f"the library cannot be written to {place(folder)}: {reason(error)}; choose another folder"
        ) from None


def read_files(kind: type[Library], folder: Path) -> Library:
    """The library of a folder, made as ``kind``.

    Raises:
        LibraryError: it is not there, incomplete, corrupt, of another format version, or holds what no library may.
    """
    return decoded(
        kind, _read(folder / CONFIG_FILE, MAXIMUM_DESCRIPTION), _read(folder / TENSOR_FILE, MAXIMUM_FILE), folder
    )


def decoded(kind: type[Library], description: bytes, tensors: bytes, folder: Path) -> Library:
    """The library that the contents of two files make; errors name them as files of ``folder``."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    where, held = place(folder / CONFIG_FILE), place(folder / TENSOR_FILE)
    data = _migrated(_parsed(description, where), where)
    if _get(data, "sha256", str, where) != hashlib.sha256(tensors).hexdigest():
        raise LibraryError(
            f"{held} is not the file that {CONFIG_FILE} describes (sha256 differs); get the library again"
        )
    if int.from_bytes(tensors[:8], "little") > MAXIMUM_HEADER:
        raise LibraryError(
            f"{held} is corrupt (its header is larger than {MAXIMUM_HEADER} bytes); get the library again"
        )
    try:
        loaded = load(tensors)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise LibraryError(f"{held} is corrupt ({reason(error)}); get the library again") from None
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
        return kind(
            _get(data, "name", str, where), programs, code, origins, columns[5], _get(data, "registers", int, where),
            learned, keys,
        )  # fmt: skip
    except LibraryError as error:
        raise LibraryError(f"{place(folder)}: {error}") from None


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
            raise LibraryError(f"{where}: two programs named {shown(program.name)}; do not use this library")
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
            f"found {shape(found)}; do not use this library"
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


def _read(path: Path, most: int) -> bytes:
    where = place(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise LibraryError(f"{where} is not a file, but a folder, a device or a pipe; do not use this library")
        if status.st_size > most:
            raise LibraryError(f"{where} is larger than {most // 2**20} MiB; do not use this library")
        return path.read_bytes()
    except OSError as error:
        raise LibraryError(
            f"{where} cannot be read ({error.strerror}); a library is that file and its sister"
        ) from None


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
        raise LibraryError(f"{where} is not JSON ({reason(error)}); get the library again") from None


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
            f"{where}: format version {shown(version)} is newer than {FORMAT_VERSION}, the newest that this neurallib reads; "
            "upgrade neurallib"
        )
    while type(version) is not int or version != FORMAT_VERSION:
        if type(version) is not int or version not in MIGRATIONS:
            raise LibraryError(
                f"{where}: format version {shown(version)}, this neurallib reads 1…{FORMAT_VERSION}; get the library again"
            )
        version += 1
        data = MIGRATIONS[version - 1](data) | {"format_version": version}
    return dict(data)
