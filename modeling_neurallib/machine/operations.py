"""The operations of the machine: one table, each row one line of meaning and one definition in exact integers.

Everything else follows from this table or is tested against it: the lookup tables of the dense engine, the loop of the
exact engine, the disassembler and the documentation.

A word is an integer 0…V−1. ``signed`` reads it as two's complement, −V/2…V/2−1. Every operation has a value for every
input (the *edge value*, even where it also reports a fault), so the dense engine is total; only ``exact`` stops at a
fault.

| situation                            | value                    | fault               |
|--------------------------------------|--------------------------|---------------------|
| sum, difference, product too large   | the result modulo V      | overflow            |
| divide by zero                       | 0                        | division_by_zero    |
| modulo by zero                       | the first operand        | division_by_zero    |
| −V/2 divided by −1                   | −V/2                     | overflow            |
| shift left loses a digit             | the result modulo V      | overflow            |
| shift by ≥ width                     | 0 left, sign digit right | overflow left, if a ≠ 0 |
| shift by a negative amount           | 0 left, sign digit right | overflow            |
| address outside 0…N−1                | load: 0; store: nothing  | wild_access         |
| index outside 0…N−1                  | the sum modulo V         | wild_access         |
| check, guard violated                | –                        | index_out_of_range, out_of_memory |
| call on a full stack                 | jumps, pushes nothing    | stack_overflow      |
| return on an empty stack             | halts                    | stack_underflow     |
| program counter past the end         | halts                    | bad_program_counter |

Source: the paper (arXiv 2407.04899), section on the register machine; Adaptive Neural Compilation (arXiv 1605.07969),
whose eleven operations are the special cases listed in ``ANC_OPERATIONS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class Fault(IntEnum):
    """Why a run of the exact engine was stopped. A run with a fault has no result."""

    none = 0
    overflow = 1
    division_by_zero = 2
    wild_access = 3
    index_out_of_range = 4
    out_of_memory = 5
    stack_overflow = 6
    stack_underflow = 7
    bad_program_counter = 8
    out_of_steps = 9


def signed(word: int, values: int) -> int:
    """The integer −V/2…V/2−1 that a word 0…V−1 stands for."""
    return word - values if word >= values // 2 else word


def _wrap(exact: int, values: int) -> tuple[int, Fault]:
    half = values // 2
    return exact % values, Fault.none if -half <= exact < half else Fault.overflow


def _divide(a: int, b: int, values: int) -> tuple[int, Fault]:
    return (0, Fault.division_by_zero) if b == 0 else _wrap(a // b, values)


def _modulo(a: int, b: int, values: int) -> tuple[int, Fault]:
    return (a % values, Fault.division_by_zero) if b == 0 else _wrap(a % b, values)


def _shift_left(a: int, b: int, values: int) -> tuple[int, Fault]:
    width = values.bit_length() - 1
    if b < 0 or b >= width:
        return 0, Fault.overflow if b < 0 or a != 0 else Fault.none
    return _wrap(a << b, values)


def _shift_right(a: int, b: int, values: int) -> tuple[int, Fault]:
    width = values.bit_length() - 1
    if b < 0 or b >= width:
        return (-1 if a < 0 else 0) % values, Fault.overflow if b < 0 else Fault.none
    return _wrap(a >> b, values)


Semantics = Callable[[int, int, int], tuple[int, Fault]]
"""(signed a, signed b, V) → (word, fault): the value of an arithmetic operation."""


@dataclass(frozen=True)
class Operation:
    """One row of the table.

    Attributes:
        code: the number in an instruction's first field.
        name: the mnemonic.
        kind: ``alu`` (target ← semantics(a, b)), ``immediate`` (target ← semantics(a, immediate)), ``memory``,
            ``control`` or ``guard``.
        operands: which fields the instruction uses, in the order in which the disassembler prints them:
            ``t`` target register, ``a`` and ``b`` source registers, ``i`` immediate word, ``l`` immediate code address.
        meaning: one line of documentation.
        semantics: exact meaning of ``alu`` and ``immediate`` operations on signed operands.
    """

    code: int
    name: str
    kind: str
    operands: str
    meaning: str
    semantics: Semantics | None = None


# fmt: off
# ruff: noqa: E501  (a row is a line)
_ROWS: list[tuple[str, str, str, str, Semantics | None]] = [
    ("halt",                "control",   "",    "stop",                                              None),
    ("constant",            "immediate", "ti",  "t ← i",                                             lambda a, b, v: _wrap(b, v)),
    ("move",                "alu",       "ta",  "t ← a",                                             lambda a, b, v: _wrap(a, v)),
    ("add",                 "alu",       "tab", "t ← a + b",                                         lambda a, b, v: _wrap(a + b, v)),
    ("subtract",            "alu",       "tab", "t ← a − b",                                         lambda a, b, v: _wrap(a - b, v)),
    ("multiply",            "alu",       "tab", "t ← a · b",                                         lambda a, b, v: _wrap(a * b, v)),
    ("divide",              "alu",       "tab", "t ← ⌊a / b⌋",                                       _divide),
    ("modulo",              "alu",       "tab", "t ← a − b·⌊a / b⌋",                                 _modulo),
    ("min",                 "alu",       "tab", "t ← the lesser of a and b",                         lambda a, b, v: _wrap(min(a, b), v)),
    ("max",                 "alu",       "tab", "t ← the greater of a and b",                        lambda a, b, v: _wrap(max(a, b), v)),
    ("equal",               "alu",       "tab", "t ← 1 if a = b else 0",                             lambda a, b, v: (int(a == b), Fault.none)),
    ("less_than",           "alu",       "tab", "t ← 1 if a < b else 0",                             lambda a, b, v: (int(a < b), Fault.none)),
    ("and",                 "alu",       "tab", "t ← a & b, digit by digit",                         lambda a, b, v: _wrap(a & b, v)),
    ("or",                  "alu",       "tab", "t ← a | b, digit by digit",                         lambda a, b, v: _wrap(a | b, v)),
    ("xor",                 "alu",       "tab", "t ← a ^ b, digit by digit",                         lambda a, b, v: _wrap(a ^ b, v)),
    ("shift_left",          "alu",       "tab", "t ← a · 2^b",                                       _shift_left),
    ("shift_right",         "alu",       "tab", "t ← ⌊a / 2^b⌋",                                     _shift_right),
    ("add_immediate",       "immediate", "tai", "t ← a + i",                                         lambda a, b, v: _wrap(a + b, v)),
    ("multiply_immediate",  "immediate", "tai", "t ← a · i",                                         lambda a, b, v: _wrap(a * b, v)),
    ("equal_immediate",     "immediate", "tai", "t ← 1 if a = i else 0",                             lambda a, b, v: (int(a == b), Fault.none)),
    ("less_immediate",      "immediate", "tai", "t ← 1 if a < i else 0",                             lambda a, b, v: (int(a < b), Fault.none)),
    ("index",               "memory",    "tab", "t ← the address a + b (a unsigned, b signed)",      None),
    ("index_immediate",     "memory",    "tai", "t ← the address a + i (a unsigned, i signed)",      None),
    ("load",                "memory",    "tai", "t ← memory[a + i] (a unsigned, i signed)",          None),
    ("store",               "memory",    "aib", "memory[a + i] ← b (a unsigned, i signed)",          None),
    ("jump",                "control",   "l",   "go to l",                                           None),
    ("jump_if_zero",        "control",   "al",  "go to l if a = 0",                                  None),
    ("jump_if_not_zero",    "control",   "al",  "go to l if a ≠ 0",                                  None),
    ("call",                "control",   "l",   "push the next address on the call stack, go to l",  None),
    ("return",              "control",   "",    "pop an address off the call stack, go to it",       None),
    ("check",               "guard",     "ab",  "fault index_out_of_range unless 0 ≤ a < b",         None),
    ("guard",               "guard",     "ab",  "fault out_of_memory unless a < b as addresses (unsigned)", None),
]
# fmt: on

OPERATIONS: tuple[Operation, ...] = tuple(
    Operation(code, name, kind, operands, meaning, semantics)
    for code, (name, kind, operands, meaning, semantics) in enumerate(_ROWS)
)
CODES: dict[str, int] = {operation.name: operation.code for operation in OPERATIONS}

ANC_OPERATIONS: dict[str, str] = {
    "STOP": "halt",
    "ZERO": "constant t 0",
    "INC": "add_immediate t a 1",
    "ADD": "add t a b",
    "SUB": "subtract t a b",
    "DEC": "add_immediate t a -1",
    "MIN": "min t a b",
    "MAX": "max t a b",
    "READ": "load t a 0",
    "WRITE": "store a 0 b",
    "JEZ": "jump_if_zero a l",
}
"""The eleven operations of Adaptive Neural Compilation, each as one instruction of this machine."""

FIELDS = ("operation", "source_a", "source_b", "target", "immediate")
"""The columns of an instruction, in the order in which a library stores them (int64 [P, 5]).

``immediate`` is a signed integer, or a code address for operations with the operand ``l``.
"""

JUMPS = np.array(["l" in operation.operands for operation in OPERATIONS])
"""Whether the immediate of an operation is a code address, bool [operations]."""

READS = np.array(
    [[True, *(x in o.operands for x in "abt"), "i" in o.operands or "l" in o.operands] for o in OPERATIONS]
)
"""Which fields an operation reads, bool [operations, 5], columns as ``FIELDS``."""


def evaluate(code: int, a: int, b: int, immediate: int, values: int) -> tuple[int, Fault]:
    """Value and fault of an ``alu`` or ``immediate`` operation on words a, b (0…V−1) and a signed immediate.

    Raises:
        ValueError: the operation is neither, so it has no value of its own.
    """
    operation = OPERATIONS[code]
    if operation.semantics is None:
        raise ValueError(f"{operation.name} is a {operation.kind} operation and computes no value")
    second = immediate if operation.kind == "immediate" else signed(b, values)
    return operation.semantics(signed(a, values), second, values)


def address(base: int, offset: int, memory: int) -> tuple[int, Fault]:
    """The address base + offset (base a word read unsigned, offset signed), and ``wild_access`` if it is outside memory."""
    location = base + offset
    return location, Fault.none if 0 <= location < memory else Fault.wild_access
