"""Whether a library is one: what a stranger could get wrong, so that every user of a library may trust it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ..configuration.machine_config import LEAST_REGISTERS, MOST_REGISTERS
from .library_code import HAS_ADDRESS
from .library_errors import LibraryError, shape, shown
from .library_records import LearnedCode, LibraryData, Program
from .machine.operations import FIELDS, OPERATIONS
from .machine.state import MAXIMUM_ARGUMENTS

MAXIMUM_INSTRUCTIONS = 1_000_000
MAXIMUM_PROGRAMS = 4_096
MAXIMUM_NAME = 128
MAXIMUM_TEXT = 100_000
MAXIMUM_KEYS = 256
LARGEST_IMMEDIATE = 2**31 - 1
LARGEST_OFFSET = 1_000.0

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_LIBRARY_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_TYPES = ("str", "int", "bool", "list[int]")


def validate_library(library: LibraryData) -> None:
    """Checks everything that a stranger could get wrong. Line numbers that are missing become zeros.

    Raises:
        LibraryError: naming the first thing that cannot be.
    """
    if (
        not isinstance(library.name, str)
        or len(library.name) > MAXIMUM_NAME
        or not _LIBRARY_NAME.fullmatch(library.name)
    ):
        raise LibraryError(f"a library is named by letters, digits, _ and -, found {shown(library.name)}")
    if not isinstance(library.registers, int) or not LEAST_REGISTERS <= library.registers <= MOST_REGISTERS:
        raise LibraryError(
            f"library {library.name!r}: registers must be {LEAST_REGISTERS}…{MOST_REGISTERS}, found {shown(library.registers)}"
        )
    _validate_code(library, library.instructions)
    if library.learned is not None:
        validate_learned(library, library.learned)
    count = len(library.programs)
    if not 1 <= count <= MAXIMUM_PROGRAMS:
        raise LibraryError(f"library {library.name!r} must have 1…{MAXIMUM_PROGRAMS} programs, has {count}")
    _validate_keys(library)
    for name, program in library.programs.items():
        _validate_program(library, name, program)
    for address, origin in library.origins.items():
        if not isinstance(address, int) or not 0 <= address < len(library.instructions):
            raise LibraryError(f"library {library.name!r}: symbol at {shown(address)} is outside the code")
        for text in (origin.name, origin.file, origin.source):
            if not _is_text(text):
                raise LibraryError(
                    f"library {library.name!r}: the symbol at {address} has no texts of at most {MAXIMUM_TEXT}"
                )
        if type(origin.line) is not int or not 0 <= origin.line <= MAXIMUM_INSTRUCTIONS:
            raise LibraryError(f"library {library.name!r}: the symbol at {address} has no line number")


def _validate_keys(library: LibraryData) -> None:
    if len(library.keys) > MAXIMUM_KEYS:
        raise LibraryError(
            f"library {library.name!r} must have keys of at most {MAXIMUM_KEYS} models, has {len(library.keys)}"
        )
    for number, keys in enumerate(library.keys):
        here = f"library {library.name!r}, tuned keys {number}"
        if not all(_is_text(text) and len(text) <= 2 * MAXIMUM_NAME for text in (keys.base, keys.revision, keys.heads)):
            raise LibraryError(f"{here}: base, revision and heads must be short texts")
        offsets = keys.offsets
        if offsets.ndim != 2 or len(offsets) != len(library.programs) or not np.issubdtype(offsets.dtype, np.floating):
            raise LibraryError(f"{here}: there must be floats [{len(library.programs)}, ·], found {shape(offsets)}")
        if not (np.abs(offsets) <= LARGEST_OFFSET).all():  # nor is NaN
            raise LibraryError(f"{here}: they must be finite numbers of at most {LARGEST_OFFSET:g}")


def validate_learned(library: LibraryData, learned: LearnedCode) -> None:
    """Checks what a library learned, against its instructions.

    Raises:
        LibraryError: naming the first thing that cannot be.
    """
    here = f"library {library.name!r}, what it learned"
    count, rows = len(library.instructions), learned.rows
    if not isinstance(learned.origin, np.ndarray) or learned.origin.shape != (count, len(FIELDS)):
        raise LibraryError(f"{here}: the origin must be int64 {[count, len(FIELDS)]}, like the instructions")
    _validate_code(library, learned.origin)
    if rows.ndim != 1 or not len(rows) or rows[0] < 0 or rows[-1] >= count or (np.diff(rows) <= 0).any():
        raise LibraryError(f"{here}: the rows must be ascending addresses 0…{count - 1}")
    if not 4 <= learned.values <= 2**32 or not 0 <= learned.offset <= count:
        raise LibraryError(
            f"{here}: values {shown(learned.values)} or offset {shown(learned.offset)} is out of range; they must be "
            f"4…{2**32} and 0…{count}"
        )
    if set(learned.weights) != set(FIELDS):
        raise LibraryError(
            f"{here}: there must be weights of {', '.join(FIELDS)}, found {shown(', '.join(learned.weights))}"
        )
    addresses = int(learned.origin[rows][HAS_ADDRESS[learned.origin[rows, 0]], 4].max(initial=0)) - learned.offset
    widths = (len(OPERATIONS), *[library.registers] * 3, max(learned.values, addresses + 1))
    for field_name, width in zip(FIELDS, widths, strict=True):
        weights = learned.weights[field_name]
        exact = weights.ndim == 2 and (
            weights.shape[1] == width or (field_name == "immediate" and weights.shape[1] > width)
        )
        if not exact or len(weights) != len(rows) or not np.issubdtype(weights.dtype, np.floating):
            raise LibraryError(f"{here}: weights of {field_name} must be {[len(rows), width]}, found {shape(weights)}")
        if not np.isfinite(weights).all():
            raise LibraryError(f"{here}: weights of {field_name} are not finite")
        if (weights < 0).any() or (np.abs(weights.sum(-1) - 1) > 1e-3).any():
            raise LibraryError(f"{here}: weights of {field_name} must be at least 0 and sum to 1 in every row")


def _validate_code(library: LibraryData, code: np.ndarray) -> None:
    if not isinstance(code, np.ndarray) or code.ndim != 2 or code.shape[1] != len(FIELDS) or code.dtype != np.int64:
        raise LibraryError(f"library {library.name!r}: instructions must be int64 [P, {len(FIELDS)}]")
    count = len(code)
    if not 1 <= count <= MAXIMUM_INSTRUCTIONS:
        raise LibraryError(f"library {library.name!r} must have 1…{MAXIMUM_INSTRUCTIONS} instructions, has {count}")
    if not len(library.lines):
        library.lines = np.zeros(count, dtype=np.int64)
    if library.lines.shape != (count,) or not 0 <= library.lines.min() <= library.lines.max() <= MAXIMUM_INSTRUCTIONS:
        raise LibraryError(
            f"library {library.name!r}: there must be one line number from 0 to {MAXIMUM_INSTRUCTIONS} for each instruction"
        )
    limits = [(0, len(OPERATIONS) - 1), *[(0, library.registers - 1)] * 3]
    for column, (least, most) in enumerate(limits):
        _validate_field(library, code, column, least, most, np.ones(count, bool))
    _validate_field(library, code, 4, 0, count - 1, HAS_ADDRESS[code[:, 0]])
    _validate_field(library, code, 4, -LARGEST_IMMEDIATE, LARGEST_IMMEDIATE, ~HAS_ADDRESS[code[:, 0]])


def _validate_field(
    library: LibraryData, code: np.ndarray, column: int, least: int, most: int, rows: np.ndarray
) -> None:
    values = code[:, column]
    wrong = rows & ((values < least) | (values > most))
    if wrong.any():
        where = int(wrong.argmax())
        raise LibraryError(
            f"library {library.name!r}, instruction {where}: {FIELDS[column]} must be {least}…{most}, "
            f"found {values[where]}; do not use this library"
        )


def _validate_program(library: LibraryData, name: str, program: Program) -> None:
    here = f"library {library.name!r}, program {shown(name)}"
    if name != program.name or not isinstance(name, str) or len(name) > MAXIMUM_NAME or not _NAME.fullmatch(name):
        raise LibraryError(f"{here}: a program is named like a Python function")
    for text in (program.docstring, program.source):
        if not _is_text(text):
            raise LibraryError(f"{here}: docstring and source must be texts of at most {MAXIMUM_TEXT} characters")
    if len(program.parameters) > MAXIMUM_ARGUMENTS or 2 * len(program.parameters) > library.registers - 2:
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
    count = len(library.instructions)
    if type(program.entry) is not int or not 0 <= program.entry < count:
        raise LibraryError(f"{here}: entry {shown(program.entry)} is outside the code of {count} instructions")
    if type(program.length) is not int or not 1 <= program.length <= count - program.entry:
        raise LibraryError(f"{here}: length {shown(program.length)} reaches outside the code of {count} instructions")


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
