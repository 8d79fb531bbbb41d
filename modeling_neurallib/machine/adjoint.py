"""The adjoint engine: an exact run forward, and the dense engine's gradient backward along its undo log.

At a one-hot point the Jacobian of a dense step touches only the cells that its instruction names. So the gradient needs
no superposition: the run is executed on integers, every step logs the one word that it overwrites, and the backward pass
undoes the steps one by one and carries the derivative of the loss with respect to every distribution of the machine. The
mathematics is in GRADIENTS.md, beside this file.

All gradients are on the tangent of the simplex, in one gauge: in every row the entry of the word that the machine holds
is 0, and entry v is what moving probability from that word to v would change the loss by, to first order.

Two paths, equal to rounding: the native one, compiled by numba, and a portable one in numpy that takes every value from
the table in ``operations``.

Source: arXiv 2407.04899 (the differentiable machine); the reverse mode of automatic differentiation along an undo log is
classical (Griewank and Walther, Evaluating Derivatives, 2008).
"""

# numba gives the native loops their types.
# mypy: disable-error-code="assignment, index, call-overload, call-arg, arg-type"

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ...configuration.machine_config import MachineConfig
from .dense import DenseState, SoftProgram, check_shapes, checked_rows, first_row
from .exact import reference_step, validated
from .native import compiled, numba
from .operations import CODES, JUMPS, OPERATIONS, evaluate
from .state import GradientError, MachineError, MachineState

if TYPE_CHECKING:
    from .cuda import AdjointRuns

Fetch = Literal["separate", "joint"]
"""How a spread program counter fetches: every field of the instruction by itself, as the paper does, or whole
instructions. On a one-hot counter both fetch the same; their derivatives differ."""

LARGEST_VALUES = 65_536
"""The largest V of the adjoint engine."""

LARGEST_GRADIENT = 2**28
"""Entries N · V of the largest gradient of a memory: 2 GiB of float64."""

LONGEST_RUN = 2**27
"""Steps of the longest run that is logged: 1 GiB, 8 bytes a step."""

_PADDING = 8
"""Columns more than V in the gradients of words: with a stride that is no power of two, the entries for one word fall
into different cache sets."""

LOG_BYTES = 8
"""Bytes of log a step: the address of the instruction, and the word that it overwrote."""


# ---------------------------------------------------------------------------------------------------------------------
# The code as the compiled loops read it
# ---------------------------------------------------------------------------------------------------------------------

# Numbers of the compiled loops' own, for the reason given in ``exact``: numba's cache watches this file only. An operation
# and its form with an immediate share a number; ``_IMMEDIATE`` says that the second operand is the immediate, and
# ``_UNSIGNED`` tells ``guard``, which compares addresses, from ``check``.
_MOVE, _SECOND, _ADD, _SUBTRACT, _MULTIPLY, _DIVIDE, _MODULO, _MIN, _MAX = 0, 1, 2, 3, 4, 5, 6, 7, 8
_EQUAL, _LESS, _AND, _OR, _XOR, _SHIFT_LEFT, _SHIFT_RIGHT, _LOAD = 9, 10, 11, 12, 13, 14, 15, 16
_STORE, _JUMP, _JUMP_IF_ZERO, _JUMP_IF_NOT_ZERO, _CALL, _RETURN, _HALT, _NOTHING = 17, 18, 19, 20, 21, 22, 23, 24
_KINDS, _IMMEDIATE, _UNSIGNED = 25, 32, 64

_KIND_OF = {
    "halt": _HALT, "constant": _SECOND, "move": _MOVE, "add": _ADD, "subtract": _SUBTRACT, "multiply": _MULTIPLY,
    "divide": _DIVIDE, "modulo": _MODULO, "min": _MIN, "max": _MAX, "equal": _EQUAL, "less_than": _LESS, "and": _AND,
    "or": _OR, "xor": _XOR, "shift_left": _SHIFT_LEFT, "shift_right": _SHIFT_RIGHT, "add_immediate": _ADD,
    "multiply_immediate": _MULTIPLY, "equal_immediate": _EQUAL, "less_immediate": _LESS, "index": _ADD,
    "index_immediate": _ADD, "load": _LOAD, "store": _STORE, "jump": _JUMP, "jump_if_zero": _JUMP_IF_ZERO,
    "jump_if_not_zero": _JUMP_IF_NOT_ZERO, "call": _CALL, "return": _RETURN, "check": _NOTHING, "guard": _NOTHING,
}  # fmt: skip
SLOTS = np.array(
    [_KIND_OF[o.name] + _IMMEDIATE * ("i" in o.operands) + _UNSIGNED * (o.name == "guard") for o in OPERATIONS],
    np.int64,
)
"""The compiled loops' number of each operation, [operations]."""

_IS_LOAD = CODES["load"]
_WRITES = tuple(o.semantics is not None or o.name in ("index", "index_immediate", "load") for o in OPERATIONS)
_READS_A, _READS_B = (tuple(letter in o.operands for o in OPERATIONS) for letter in "ab")


def packed(rows: np.ndarray, values: int) -> np.ndarray:
    """Instructions as the compiled loops read them, int64 [P + 1, 5]; the last is the halt past the end.

    Args:
        rows: fields as indices into the dense engine's distributions, int64 [P, 5]: the immediate is 0…max(V, P) − 1.
    """
    code = np.vstack([rows, [[CODES["halt"], 0, 0, 0, 0]]]).astype(np.int64)
    code[:, 0] = SLOTS[code[:, 0]]
    return np.ascontiguousarray(code)


def entries_of(instructions: np.ndarray, config: MachineConfig) -> np.ndarray:
    """Instructions [P, 5] with each immediate as an index into its distribution, 0…max(V, P) − 1.

    Raises:
        MachineError: an instruction is out of range.
    """
    code = validated(instructions, config)
    words = ~JUMPS[code[:, 0]]
    code[words, 4] %= config.values
    return code


# ---------------------------------------------------------------------------------------------------------------------
# The native path
# ---------------------------------------------------------------------------------------------------------------------


@compiled
def _value(kind: int, a: int, b: int, values: int) -> int:  # pragma: no cover - runs compiled
    """The word that a kind of operation computes from two words, edge values included."""
    mask, half = values - 1, values >> 1
    if kind == _ADD:
        return (a + b) & mask
    if kind == _SECOND:
        return b
    if kind == _MOVE:
        return a
    if kind == _SUBTRACT:
        return (a - b) & mask
    if kind == _MULTIPLY:
        return (a * b) & mask
    if kind == _EQUAL:
        return 1 if a == b else 0
    if kind == _LESS:
        return 1 if (a ^ half) < (b ^ half) else 0
    if kind == _MIN:
        return a if (a ^ half) < (b ^ half) else b
    if kind == _MAX:
        return b if (a ^ half) < (b ^ half) else a
    if kind == _AND:
        return a & b
    if kind == _OR:
        return a | b
    if kind == _XOR:
        return a ^ b
    x, y = (a ^ half) - half, (b ^ half) - half
    if kind == _DIVIDE:
        return 0 if y == 0 else (x // y) & mask
    if kind == _MODULO:
        return a if y == 0 else (x % y) & mask
    inside = 0 <= y < 32 and (values >> y) > 1  # a shift by 64 or more is none in native code
    if kind == _SHIFT_LEFT:
        return (x << y) & mask if inside else 0
    return (x >> y if inside else x >> 63) & mask


@compiled
def execute(  # pragma: no cover - runs compiled
    code: np.ndarray,
    registers: np.ndarray,
    memory: np.ndarray,
    stack: np.ndarray,
    cursor: np.ndarray,
    limit: int,
    values: int,
    log: np.ndarray,
    strict: bool = False,
) -> None:
    """Runs one machine on, as the dense engine would on one-hot input, until it halts or has taken ``limit`` steps.

    Args:
        code: as ``packed``.
        registers, memory, stack: words int64 [R], int32 [N], return addresses int32 [D]; changed in place.
        cursor: program counter, depth of the stack, steps taken, 1 if halted, greatest depth so far; int64 [5], in place.
        limit: steps, those already taken included.
        values: V.
        log: int32 [≥ limit, 2], or [0, 2] for none: where each step was, and the word that it overwrote (a call that
            pushed nothing: −1).
        strict: end the run, as if at the limit, where the exact engine finds that a check or guard is violated, an address
            is outside memory, the stack is broken or the counter past the end. (It also finds overflow, of a word or
            an address; this does not.)
    """
    mask, half, size, words = values - 1, values >> 1, len(code) - 1, len(memory)
    pc, depth, steps, halted, deepest = cursor[0], cursor[1], cursor[2], cursor[3], cursor[4]
    logging = len(log) > 0
    while halted == 0 and steps < limit:
        slot = code[pc, 0]
        kind = slot & 31
        a = registers[code[pc, 1]]
        entry = code[pc, 4]
        second = entry & mask if slot & _IMMEDIATE else registers[code[pc, 2]]
        target = code[pc, 3]
        old = np.int64(0)
        following = pc + 1
        if strict:
            fault = pc == size
            if kind == _NOTHING:
                bound = registers[code[pc, 2]]
                fault = fault or a >= bound or (slot & _UNSIGNED == 0 and (a >= half or bound >= half))
            elif kind in (_LOAD, _STORE):
                x = a + ((second ^ half) - half)
                fault = fault or x < 0 or x >= words
            elif kind == _CALL:
                fault = fault or depth >= len(stack)
            elif kind == _RETURN:
                fault = fault or depth == 0
            if fault:
                steps = limit
                break
        if kind < _LOAD:
            old = registers[target]
            if kind == _ADD:
                registers[target] = (a + second) & mask
            elif kind == _LESS:
                registers[target] = 1 if (a ^ half) < (second ^ half) else 0
            else:
                registers[target] = _value(kind, a, second, values)
        elif kind == _LOAD:
            old = registers[target]
            x = a + ((second ^ half) - half)
            registers[target] = memory[x] if 0 <= x < words else 0
        elif kind == _JUMP_IF_ZERO:
            if a == 0:
                following = min(entry, size)
        elif kind == _JUMP_IF_NOT_ZERO:
            if a != 0:
                following = min(entry, size)
        elif kind == _JUMP:
            following = min(entry, size)
        elif kind == _STORE:
            x = a + ((second ^ half) - half)
            if 0 <= x < words:
                old = np.int64(memory[x])
                memory[x] = np.int32(registers[code[pc, 2]])
        elif kind == _CALL:
            old = np.int64(-1)
            if depth < len(stack):
                old = np.int64(stack[depth])
                stack[depth] = np.int32(pc + 1)
                depth += 1
                deepest = max(deepest, depth)
            following = min(entry, size)
        elif kind == _RETURN:
            if depth > 0:
                depth -= 1
                following = np.int64(stack[depth])
            else:
                following, halted = pc, np.int64(1)
        elif kind == _HALT:
            following, halted = pc, np.int64(1)
        if logging:
            log[steps, 0] = np.int32(pc)
            log[steps, 1] = np.int32(old)
        pc = following
        steps += 1
    cursor[0], cursor[1], cursor[2], cursor[3], cursor[4] = pc, depth, steps, halted, deepest


@compiled
def _rows_of_value(  # pragma: no cover - runs compiled
    kind: int, row: np.ndarray, a: int, b: int, values: int, by_a: np.ndarray, by_b: np.ndarray
) -> None:
    """The row of a result, pulled back to the operands: by_a[v] = row[value(v, b)], by_b[v] = row[value(a, v)]."""
    mask, half = values - 1, values >> 1
    if kind == _ADD:
        for v in range(values - b):
            by_a[v] = row[v + b]
        for v in range(b):
            by_a[values - b + v] = row[v]
        for v in range(values - a):
            by_b[v] = row[v + a]
        for v in range(a):
            by_b[values - a + v] = row[v]
    elif kind == _SECOND:
        by_b[:] = row
    elif kind == _MOVE:
        by_a[:] = row
    elif kind == _EQUAL:
        by_a[:] = row[0]
        by_a[b] = row[1]
        by_b[:] = row[0]
        by_b[a] = row[1]
    elif kind == _LESS:
        zero, one = row[0], row[1]
        for v in range(values):
            by_a[v] = one if (v ^ half) < (b ^ half) else zero
            by_b[v] = one if (a ^ half) < (v ^ half) else zero
    elif kind == _SUBTRACT:
        for v in range(values):
            by_a[v] = row[np.uint64((v - b) & mask)]
            by_b[v] = row[np.uint64((a - v) & mask)]
    elif kind == _MULTIPLY:
        for v in range(values):
            by_a[v] = row[np.uint64((v * b) & mask)]
            by_b[v] = row[np.uint64((a * v) & mask)]
    elif kind == _MIN:
        for v in range(values):
            by_a[v] = row[v] if (v ^ half) < (b ^ half) else row[b]
            by_b[v] = row[v] if (v ^ half) < (a ^ half) else row[a]
    elif kind == _MAX:
        for v in range(values):
            by_a[v] = row[b] if (v ^ half) < (b ^ half) else row[v]
            by_b[v] = row[a] if (v ^ half) < (a ^ half) else row[v]
    elif kind == _AND:
        for v in range(values):
            by_a[v] = row[np.uint64(v & b)]
            by_b[v] = row[np.uint64(a & v)]
    elif kind == _OR:
        for v in range(values):
            by_a[v] = row[np.uint64(v | b)]
            by_b[v] = row[np.uint64(a | v)]
    elif kind == _XOR:
        for v in range(values):
            by_a[v] = row[np.uint64(v ^ b)]
            by_b[v] = row[np.uint64(a ^ v)]
    else:
        for v in range(values):
            by_a[v] = row[np.uint64(_value(kind, v, b, values))]
            by_b[v] = row[np.uint64(_value(kind, a, v, values))]


@compiled
def _finite(rows: np.ndarray) -> bool:  # pragma: no cover - runs compiled
    total = 0.0
    for x in rows.flat:
        total += x - x
    return total == 0.0


@compiled
def _backward(  # pragma: no cover - runs compiled
    code: np.ndarray,
    slots: np.ndarray,
    registers: np.ndarray,
    memory: np.ndarray,
    stack: np.ndarray,
    cursor: np.ndarray,
    log: np.ndarray,
    g_registers: np.ndarray,
    g_memory: np.ndarray,
    g_counter: np.ndarray,
    g_stack: np.ndarray,
    g_depth: np.ndarray,
    g_halted: float,
    g_operation: np.ndarray,
    g_source_a: np.ndarray,
    g_source_b: np.ndarray,
    g_target: np.ndarray,
    g_immediate: np.ndarray,
    call_depth: int,
    values: int,
    joint: bool,
    damping: float,
    watch: bool,
) -> int:
    """Undoes a run and pulls its gradient back, in place, from the final state to the first.

    Args:
        code: as ``packed``.
        slots: as ``SLOTS``.
        registers, memory, stack, cursor, log: where ``execute`` ended; the words are undone.
        g_registers, g_memory, g_counter, g_stack, g_depth: the gradient of each row of the final state, float64
            [R, ≥ V], [N, ≥ V], [P + 1], [rows, P + 1], [depths]; 0 at what the machine holds. Rows of the stack and
            depths that the run never came near may be missing.
        g_halted: of the probability of having halted.
        g_operation, g_source_a, g_source_b, g_target, g_immediate: the fields' gradients, added to, or all empty.
        call_depth, values: of the machine.
        joint: fetch of whole instructions.
        damping: the factor on the program counter's gradient at every step.
        watch: stop at the first step whose gradient is not finite; otherwise where that of having halted is not.

    Returns:
        −1, or the step at which it stopped.
    """
    mask, half = values - 1, values >> 1
    size, words, count = len(code) - 1, len(memory), len(registers)
    fields = len(g_operation) > 0
    # By alternative: the operation (by slot), the word in source a, the second operand, and the registers.
    by_kind = np.zeros(2 * _IMMEDIATE)
    by_a, by_second = np.zeros(values), np.zeros(values)
    by_source_a, by_source_b, by_target = np.zeros(count), np.zeros(count), np.zeros(count)
    before = np.zeros(size + 1)
    depths = np.zeros(len(g_depth))
    # Unsigned indices spare numba's test for negative ones, and small ones the cache.
    kinds, sources, seconds = (
        (code[:, 0] & ~_UNSIGNED).astype(np.uint8),
        code[:, 1].astype(np.uint8),
        code[:, 2].astype(np.uint8),
    )
    targets, entries = code[:, 3].astype(np.uint8), code[:, 4]
    as_word, as_address = (entries & mask).astype(np.uint16), np.minimum(entries, size).astype(np.uint32)
    depth, top = cursor[1], len(g_depth) - 1
    for step in range(cursor[2] - 1, -1, -1):
        pc, old = np.int64(log[step, 0]), np.int64(log[step, 1])
        slot, source_a, source_b, target = np.int64(kinds[pc]), sources[pc], seconds[pc], targets[pc]
        kind, immediate = slot & 31, (slot & _IMMEDIATE) != 0
        writes = kind <= _LOAD
        result = registers[target]
        # Undo the step. What a row would gain from keeping its old word is `kept_…`.
        kept_register = kept_memory = kept_stack = 0.0
        location = np.int64(-1)
        pushed, stays = False, kind == _HALT
        if writes:
            registers[target] = old
            kept_register = g_registers[target, old]
        elif kind == _STORE:
            x = registers[source_a] + ((np.int64(as_word[pc]) ^ half) - half)
            if 0 <= x < words:
                location = x
                memory[x] = np.int32(old)
                kept_memory = g_memory[x, old]
        elif kind == _CALL and old >= 0:
            depth -= 1
            stack[depth] = np.int32(old)
            pushed = True
            kept_stack = g_stack[depth, old]
        elif kind == _RETURN:
            stays = step == cursor[2] - 1 and cursor[3] == 1
            if not stays:
                depth += 1
        a, b = registers[source_a], registers[source_b]
        word, address = np.int64(as_word[pc]), np.int64(as_address[pc])
        second = word if immediate else b
        following = min(pc + 1, size)
        popped = np.int64(stack[depth - 1]) if depth > 0 else pc

        # h' = h + (1 − h) k and X' = h X + (1 − h) F(X): what having halted before this step would change.
        halting = 0.0 if stays else g_halted
        halting += kept_register + kept_memory + kept_stack + g_counter[pc] + g_depth[depth]

        row = g_registers[target]
        if joint:
            nothing = kept_register + kept_memory + kept_stack
            for q in range(size + 1):
                other = np.int64(kinds[q]) & 31
                x, t = registers[sources[q]], targets[q]
                y = np.int64(as_word[q]) if kinds[q] & _IMMEDIATE else registers[seconds[q]]
                total = nothing
                there = min(q + 1, size)
                level = depth
                if other <= _LOAD:
                    if other == _LOAD:
                        where = x + ((y ^ half) - half)
                        z = np.int64(memory[where]) if 0 <= where < words else np.int64(0)
                    else:
                        z = _value(other, x, y, values)
                    total += g_registers[t, z]
                    if writes and t == target:
                        total -= kept_register
                elif other == _STORE:
                    where = x + ((as_word[q] ^ half) - half)
                    if 0 <= where < words:
                        total += g_memory[where, registers[seconds[q]]]
                        if where == location:
                            total -= kept_memory
                elif other == _JUMP:
                    there = np.int64(as_address[q])
                elif other == _JUMP_IF_ZERO:
                    there = np.int64(as_address[q]) if x == 0 else there
                elif other == _JUMP_IF_NOT_ZERO:
                    there = np.int64(as_address[q]) if x != 0 else there
                elif other == _CALL:
                    if depth < call_depth:
                        level = depth + 1
                        if depth < len(g_stack):
                            total += g_stack[depth, there]
                        if pushed:
                            total -= kept_stack
                    there = np.int64(as_address[q])
                elif other == _RETURN and depth > 0:
                    level, there = depth - 1, popped
                elif other in (_HALT, _RETURN):
                    there = q
                    total += g_halted
                before[q] = total + g_counter[there] + g_depth[level]
            actual = before[pc]
            for q in range(size + 1):
                before[q] -= actual

        # The operation, every other field as it is.
        if fields or not joint:
            rest = kept_memory + kept_stack + g_counter[following] + g_depth[depth]
            for other in range(_LOAD):
                by_kind[other] = row[_value(other, a, b, values)] + rest
            for other in (_SECOND, _ADD, _MULTIPLY, _EQUAL, _LESS):
                by_kind[other + _IMMEDIATE] = row[_value(other, a, word, values)] + rest
            where = a + ((word ^ half) - half)
            inside = 0 <= where < words
            by_kind[_LOAD + _IMMEDIATE] = row[memory[where] if inside else 0] + rest
            there = kept_register + g_depth[depth] + g_counter[following]
            stored = g_memory[where, b] if inside else 0.0
            by_kind[_STORE + _IMMEDIATE] = there + kept_stack + stored
            nothing = kept_register + kept_memory + kept_stack
            by_kind[_NOTHING] = nothing + g_depth[depth] + g_counter[following]
            by_kind[_JUMP] = nothing + g_depth[depth] + g_counter[address]
            by_kind[_JUMP_IF_ZERO] = nothing + g_depth[depth] + g_counter[address if a == 0 else following]
            by_kind[_JUMP_IF_NOT_ZERO] = nothing + g_depth[depth] + g_counter[following if a == 0 else address]
            by_kind[_HALT] = nothing + g_depth[depth] + g_counter[pc] + g_halted
            by_kind[_RETURN] = by_kind[_HALT]
            if depth > 0:
                by_kind[_RETURN] = nothing + g_depth[depth - 1] + g_counter[popped]
            by_kind[_CALL] = nothing + g_counter[address] + g_depth[depth]
            if depth < call_depth:
                push = g_stack[depth, following] if depth < len(g_stack) else 0.0
                by_kind[_CALL] = nothing - kept_stack + push + g_counter[address] + g_depth[depth + 1]
            actual = by_kind[slot]
            for other in range(2 * _IMMEDIATE):
                by_kind[other] -= actual

        # The words in source a and in the second operand: [V] each.
        reads_a = reads_b = reads_word = False
        if kind < _LOAD:
            reads_a, reads_word = kind != _SECOND, immediate
            reads_b = not immediate and kind != _MOVE
            _rows_of_value(kind, row[:values], a, second, values, by_a, by_second)
        elif kind == _LOAD:
            reads_a = reads_word = True
            shift = (word ^ half) - half
            wild = row[0]
            for v in range(values):
                x = v + shift
                by_a[v] = row[np.uint64(memory[np.uint64(x)])] if 0 <= x < words else wild
                x = a + ((v ^ half) - half)
                by_second[v] = row[np.uint64(memory[np.uint64(x)])] if 0 <= x < words else wild
        elif kind == _STORE:
            reads_a = reads_word = True
            shift = (word ^ half) - half
            for v in range(values):
                x = v + shift
                by_a[v] = kept_memory + (g_memory[x, b] if 0 <= x < words and x != location else 0.0)
                x = a + ((v ^ half) - half)
                by_second[v] = kept_memory + (g_memory[x, b] if 0 <= x < words and x != location else 0.0)
            by_a[a] = 0.0
            by_second[word] = 0.0
        elif kind in (_JUMP_IF_ZERO, _JUMP_IF_NOT_ZERO):
            reads_a = True
            zero = g_counter[address if kind == _JUMP_IF_ZERO else following]
            other_words = g_counter[following if kind == _JUMP_IF_ZERO else address]
            by_a[:] = other_words
            by_a[0] = zero
        reads_address = (
            kind in (_JUMP, _CALL) or (kind == _JUMP_IF_ZERO and a == 0) or (kind == _JUMP_IF_NOT_ZERO and a != 0)
        )

        if reads_a:
            for r in range(count):
                by_source_a[r] = by_a[np.uint64(registers[r])]
        else:
            by_source_a[:] = 0.0
        stores = kind == _STORE and location >= 0
        if reads_b:
            for r in range(count):
                by_source_b[r] = by_second[np.uint64(registers[r])]
        elif stores:
            for r in range(count):
                by_source_b[r] = g_memory[location, registers[r]]
        else:
            by_source_b[:] = 0.0
        if writes:
            for r in range(count):
                by_target[r] = g_registers[r, result] + kept_register
            by_target[target] = 0.0
        else:
            by_target[:] = 0.0

        if fields and pc < size:
            for other in range(len(slots)):
                g_operation[pc, other] += by_kind[slots[other] & ~_UNSIGNED]
            for r in range(count):
                g_source_a[pc, r] += by_source_a[r]
                g_source_b[pc, r] += by_source_b[r]
                g_target[pc, r] += by_target[r]
            if reads_word:
                for first in range(0, g_immediate.shape[1], values):
                    for v in range(min(values, g_immediate.shape[1] - first)):
                        g_immediate[pc, first + v] += by_second[v]
            elif reads_address:
                for e in range(g_immediate.shape[1]):
                    g_immediate[pc, e] += g_counter[min(e, size)]

        # The program counter: a gather over all instructions.
        if not joint:
            for q in range(size + 1):
                before[q] = by_kind[kinds[q]]
            if reads_a:
                for q in range(size + 1):
                    before[q] += by_source_a[sources[q]]
            if reads_b or stores:
                for q in range(size + 1):
                    before[q] += by_source_b[seconds[q]]
            if writes:
                for q in range(size + 1):
                    before[q] += by_target[targets[q]]
            if reads_word:
                for q in range(size + 1):
                    before[q] += by_second[as_word[q]]
            elif reads_address:
                for q in range(size + 1):
                    before[q] += g_counter[as_address[q]]
            if stays:
                for q in range(size + 1):
                    before[q] += g_counter[q]
            elif pushed:
                for q in range(size):
                    before[q] += g_stack[depth, q + 1]
                before[size] += g_stack[depth, size]
            elif not reads_address and kind != _RETURN:
                for q in range(size):
                    before[q] += g_counter[q + 1]
                before[size] += g_counter[size]

        # Depth and stack.
        if kind == _CALL:
            for q in range(top + 1):
                depths[q] = g_depth[min(q + 1, top)] + kept_stack
                if q < len(g_stack) and q < call_depth:
                    depths[q] += g_stack[q, following]
            actual = depths[depth]
            if pushed:
                depths[depth] = g_depth[depth + 1]
                actual = depths[depth]
                g_stack[depth, :] = 0.0
            for q in range(top + 1):
                g_depth[q] = depths[q] - actual
        elif kind == _RETURN:
            depths[0] = g_counter[pc] + g_halted + g_depth[0]
            for q in range(1, top + 1):
                depths[q] = g_depth[q - 1] + g_counter[stack[q - 1] if q - 1 < len(stack) else 0]
            actual = depths[depth]
            for q in range(top + 1):
                g_depth[q] = depths[q] - actual
            if not stays:
                for q in range(size + 1):
                    g_stack[depth - 1, q] += g_counter[q]

        # Registers and memory.
        if kind == _LOAD:
            x = a + ((word ^ half) - half)
            if 0 <= x < words:
                for v in range(values):
                    g_memory[x, v] += row[v]
        if writes:
            for v in range(values):
                row[v] = 0.0
        if reads_a:
            pulled = g_registers[source_a]
            for v in range(values):
                pulled[v] += by_a[v]
        if reads_b:
            pulled = g_registers[source_b]
            for v in range(values):
                pulled[v] += by_second[v]
        elif stores:
            pulled = g_registers[source_b]
            for v in range(values):
                pulled[v] += g_memory[location, v]
                g_memory[location, v] = 0.0
        for q in range(size + 1):
            g_counter[q] = damping * before[q]
        g_halted = halting
        if not np.isfinite(g_halted):
            return step
        if watch:  # what the step has changed: nothing else can have ceased to be finite
            sound = _finite(g_counter) and _finite(g_depth)
            sound = sound and _finite(g_registers[source_a]) and _finite(g_registers[source_b])
            if kind == _LOAD and 0 <= x < words:
                sound = sound and _finite(g_memory[x])
            elif kind == _RETURN and not stays:
                sound = sound and _finite(g_stack[depth - 1])
            if fields and pc < size:
                sound = sound and _finite(g_operation[pc]) and _finite(g_immediate[pc])
                sound = sound and _finite(g_source_a[pc]) and _finite(g_source_b[pc]) and _finite(g_target[pc])
            if not sound:
                return step
    return -1


# ---------------------------------------------------------------------------------------------------------------------
# All alternatives of a run, for ``counterfactual``; here because numba's cache would not see a change of ``execute``
# ---------------------------------------------------------------------------------------------------------------------


@compiled
def _score(  # pragma: no cover - runs compiled
    registers: np.ndarray,
    memory: np.ndarray,
    cursor: np.ndarray,
    g_registers: np.ndarray,
    g_memory: np.ndarray,
    g_counter: np.ndarray,
    g_halted: float,
    g_steps: float,
    g_open: float,
) -> float:
    """The loss of a final state: what its rows contribute, each by the weight of what it holds, steps and open calls."""
    total = g_counter[cursor[0]] + g_halted * cursor[3] + g_steps * cursor[2] + g_open * cursor[1]
    for n in range(len(g_memory)):
        total += g_memory[n, memory[n]]
    for r in range(len(g_registers)):
        total += g_registers[r, registers[r]]
    return total


@compiled
def keep_final(  # pragma: no cover - runs compiled
    registers: np.ndarray, memory: np.ndarray, cursor: np.ndarray, row: np.ndarray
) -> None:
    """Writes a final state into a row of integers [4 + R + N]: counter, depth, steps, halted, registers, memory."""
    row[:4] = cursor[:4]
    row[4 : 4 + len(registers)] = registers
    row[4 + len(registers) :] = memory


@compiled
def alternatives(  # pragma: no cover - runs compiled
    code: np.ndarray,
    slots: np.ndarray,
    entry: int,
    registers: np.ndarray,
    memory: np.ndarray,
    call_depth: int,
    limit: int,
    values: int,
    memory_starts: np.ndarray,
    register_starts: np.ndarray,
    program_starts: np.ndarray,
    widths: np.ndarray,
    g_registers: np.ndarray,
    g_memory: np.ndarray,
    g_counter: np.ndarray,
    g_halted: float,
    g_steps: float,
    g_open: float,
    losses: np.ndarray,
    finals: np.ndarray,
    unfinished: np.ndarray,
    strict: bool = False,
) -> tuple[int, int]:
    """Runs a machine and, from the step where a cell is first read, every alternative to what the cell holds.

    Args:
        code, slots: as ``packed`` and ``SLOTS``.
        entry, registers, memory: the state at the start; int64 [R], int32 [N], left as they are.
        call_depth, limit, values: D, the steps at which a run is stopped, V.
        memory_starts, register_starts, program_starts: where in ``losses`` the alternatives of each cell begin, −1 for
            cells that are fixed; int64 [N], [R], [P]. Those of an instruction are its five fields', one after the other.
        widths: alternatives of each field, int64 [5].
        g_registers, g_memory, g_counter, g_halted, g_steps, g_open: the loss of a final state is the sum of their entries
            at what it holds, g_steps times its steps and g_open times its calls that have not returned; float64 [R, V],
            [N, V], [P + 1]. The first two may be empty.
        losses: the loss of each alternative, float64 [alternatives], set.
        finals: its final state, int64 [alternatives, 4 + R + N] or [0, 0], set.
        unfinished: the first alternative that reached the limit and how many did, int64 [2], −1 and 0 before.
        strict: as ``execute``.

    Returns:
        The instructions executed, all runs together, and how many runs that were.
    """
    mask, half, words, count, size = values - 1, values >> 1, len(memory), len(registers), len(code) - 1
    keeps = len(finals) > 0
    no_log = np.empty((0, 2), np.int32)
    r, m, stack = registers.copy(), memory.copy(), np.zeros(call_depth, np.int32)
    other_r, other_m, other_stack = r.copy(), m.copy(), np.zeros(call_depth, np.int32)
    cursor, other = np.zeros(5, np.int64), np.zeros(5, np.int64)
    cursor[0] = entry
    changed = code.copy()
    seen_memory, seen_register, seen_code = (
        np.zeros(words, np.uint8),
        np.zeros(count, np.uint8),
        np.zeros(size, np.uint8),
    )
    # What is the same as in the run itself is filled in when that has ended.
    same = np.ones(len(losses), np.uint8)
    executed, runs = 0, 1
    # One turn of the inner loop per group of alternatives: a cell of memory, a register, or a field of an instruction.
    while cursor[3] == 0 and cursor[2] < limit:
        pc = cursor[0]
        kind, immediate = code[pc, 0] & 31, code[pc, 0] & _IMMEDIATE
        a, b, target = code[pc, 1], code[pc, 2], code[pc, 3]
        word = code[pc, 4] & mask
        reads_a = (kind <= _STORE and kind != _SECOND) or kind in (_JUMP_IF_ZERO, _JUMP_IF_NOT_ZERO)
        reads_b = kind == _STORE or (kind < _LOAD and kind != _MOVE and immediate == 0)
        if strict and kind == _NOTHING:
            reads_a = reads_b = True
        where = np.int64(-1)
        if kind in (_LOAD, _STORE):
            where = r[a] + ((word ^ half) - half)
            if where >= words:
                where = np.int64(-1)
        for group in range(8):
            start, cell, width, actual = np.int64(-1), np.int64(0), values, np.int64(0)
            if group == 0 and reads_a and seen_register[a] == 0:
                start, cell, actual, seen_register[a] = register_starts[a], a, r[a], 1
            elif group == 1 and reads_b and seen_register[b] == 0:
                start, cell, actual, seen_register[b] = register_starts[b], b, r[b], 1
            elif group == 2 and kind == _LOAD and where >= 0 and seen_memory[where] == 0:
                start, cell, actual, seen_memory[where] = memory_starts[where], where, np.int64(m[where]), 1
            elif group >= 3 and pc < size and seen_code[pc] == 0 and program_starts[pc] >= 0:
                column = group - 3
                used = column == 0
                if column == 1:
                    used = reads_a
                elif column == 2:
                    used = reads_b
                elif column == 3:
                    used = kind <= _LOAD
                elif column == 4:
                    used = immediate != 0 or (kind >= _JUMP and kind <= _CALL)
                if used:
                    start, width = program_starts[pc], widths[column]
                    for before in range(column):
                        start += widths[before]
                    actual = code[pc, column]
            if start < 0:
                continue
            for v in range(width):
                instead = slots[v] if group == 3 else v
                if instead == actual:
                    continue
                other_r[:] = r
                other_m[:] = m
                for level in range(cursor[1]):
                    other_stack[level] = stack[level]
                other[:] = cursor
                if group < 2:
                    other_r[cell] = instead
                elif group == 2:
                    other_m[cell] = np.int32(instead)
                else:
                    changed[pc, group - 3] = instead
                execute(changed, other_r, other_m, other_stack, other, limit, values, no_log, strict)
                executed += other[2] - cursor[2]
                runs += 1
                if group > 2:
                    changed[pc, group - 3] = actual
                if other[3] == 0:
                    if unfinished[0] < 0:
                        unfinished[0] = start + v
                    unfinished[1] += 1
                losses[start + v] = _score(
                    other_r, other_m, other, g_registers, g_memory, g_counter, g_halted, g_steps, g_open
                )
                if keeps:
                    keep_final(other_r, other_m, other, finals[start + v])
                same[start + v] = 0
        if pc < size:
            seen_code[pc] = 1
        if kind <= _LOAD and seen_register[target] == 0:
            seen_register[target] = 2
        if kind == _STORE and where >= 0 and seen_memory[where] == 0:
            seen_memory[where] = 2
        execute(code, r, m, stack, cursor, cursor[2] + 1, values, no_log, strict)
        executed += 1
    base = _score(r, m, cursor, g_registers, g_memory, g_counter, g_halted, g_steps, g_open)
    for k in range(len(losses)):
        if same[k]:
            losses[k] = base
            if keeps:
                keep_final(r, m, cursor, finals[k])
    # A cell that was never read nor written ends as it began.
    for n in range(words):
        if memory_starts[n] >= 0 and seen_memory[n] == 0:
            for v in range(values):
                if len(g_memory) > 0:
                    losses[memory_starts[n] + v] = base + g_memory[n, v] - g_memory[n, m[n]]
                if keeps:
                    finals[memory_starts[n] + v, 4 + count + n] = v
    for k in range(count):
        if register_starts[k] >= 0 and seen_register[k] == 0:
            for v in range(values):
                if len(g_registers) > 0:
                    losses[register_starts[k] + v] = base + g_registers[k, v] - g_registers[k, r[k]]
                if keeps:
                    finals[register_starts[k] + v, 4 + k] = v
    return executed, runs


@compiled
def first_right(  # pragma: no cover - runs compiled
    code: np.ndarray,
    edits: np.ndarray,
    entry: int,
    stop: int,
    registers: np.ndarray,
    memory: np.ndarray,
    wanted: np.ndarray,
    weights: np.ndarray,
    call_depth: int,
    limit: int,
    values: int,
    budget: int,
) -> tuple[int, int]:
    """Tries variants of a program, in order, each on one example after the other up to the first that it is wrong on.

    Args:
        code: as ``packed``.
        edits: what each variant changes, int64 [K, edits, 3]: row, column and what is there instead; row −1 for nothing.
        entry, stop: where runs start, and where they should halt.
        registers, memory: words at the start, int64 [B, R] and int32 [B, N].
        wanted, weights: words at the end, int64 [B, R + N]; those of weight 0 are not compared.
        call_depth, limit, values: D, the steps at which a run is stopped, V.
        budget: runs that may be spent.

    Returns:
        The first variant that is right on all examples, or −1; and the runs spent.
    """
    changed = code.copy()
    no_log = np.empty((0, 2), np.int32)
    r, m, stack, cursor = registers[0].copy(), memory[0].copy(), np.zeros(call_depth, np.int32), np.zeros(5, np.int64)
    count, runs = len(r), 0
    for variant in range(len(edits)):
        for k in range(edits.shape[1]):
            if edits[variant, k, 0] >= 0:
                changed[edits[variant, k, 0], edits[variant, k, 1]] = edits[variant, k, 2]
        right = True
        for example in range(len(registers)):
            if runs >= budget:
                return -1, runs
            r[:] = registers[example]
            m[:] = memory[example]
            cursor[:] = 0
            cursor[0] = entry
            execute(changed, r, m, stack, cursor, limit, values, no_log, True)
            runs += 1
            right = cursor[3] == 1 and cursor[0] == stop
            if right:
                for n in range(count):
                    if weights[example, n] > 0 and r[n] != wanted[example, n]:
                        right = False
                for n in range(len(m)):
                    if weights[example, count + n] > 0 and m[n] != wanted[example, count + n]:
                        right = False
            if not right:
                break
        for k in range(edits.shape[1]):
            if edits[variant, k, 0] >= 0:
                changed[edits[variant, k, 0], edits[variant, k, 1]] = code[edits[variant, k, 0], edits[variant, k, 1]]
        if right:
            return variant, runs
    return -1, runs


# ---------------------------------------------------------------------------------------------------------------------
# The portable path
# ---------------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _row_by_a(code: int, b: int, values: int) -> np.ndarray:
    """The word that an operation computes from every word in source a, int64 [V]; b is the other operand."""
    return np.array([_word(code, a, b, values) for a in range(values)])


@lru_cache(maxsize=4096)
def _row_by_second(code: int, a: int, values: int) -> np.ndarray:
    """The word that an operation computes with every second operand, int64 [V]."""
    return np.array([_word(code, a, b, values) for b in range(values)])


def _word(code: int, a: int, second: int, values: int) -> int:
    if OPERATIONS[code].semantics is None:  # index
        return (a + second) % values
    offset = second - values if second >= values // 2 else second
    return evaluate(code, a, second, offset, values)[0]


def _execute_portable(
    rows: np.ndarray, state: MachineState, config: MachineConfig, limit: int
) -> tuple[list[tuple[int, int]], int]:
    """``execute`` by ``reference_step``: the log, and the greatest depth of the stack."""
    half, values, size = config.half, config.values, len(rows)
    jumps = JUMPS[rows[:, 0]]
    signed_words = (rows[:, 4] % values + half) % values - half
    immediates = np.where(jumps, np.minimum(rows[:, 4], size), signed_words)
    code = [tuple(row) for row in np.column_stack([rows[:, :4], immediates]).tolist()]
    log: list[tuple[int, int]] = []
    deepest = 0
    stale = [0] * config.call_depth  # what the dense engine's stack still holds above the top
    while not state.halted and len(log) < limit:
        at, depth = state.program_counter, len(state.stack)
        operation, source, _, target, immediate = code[at] if at < size else (CODES["halt"], 0, 0, 0, 0)
        name, old = OPERATIONS[operation].name, 0
        where = state.registers[source] + immediate
        if _WRITES[operation]:
            old = state.registers[target]
        elif name == "store" and 0 <= where < config.memory:
            old = state.memory[where]
        elif name == "call":
            old = stale[depth] if depth < config.call_depth else -1
        reference_step(code, state, config, total=True)
        if len(state.stack) > depth:
            stale[depth] = at + 1
        deepest = max(deepest, len(state.stack))
        log.append((at, old))
    state.stack = stale[:]
    return log, deepest


@dataclass
class _StepBack:
    """One step being undone: the gradients after it, and the state before it. ``kept_…`` is what its row would gain from
    keeping the old word; ``target`` and ``location`` are what the step wrote, or −1."""

    g_registers: np.ndarray
    g_memory: np.ndarray
    g_counter: np.ndarray
    g_stack: np.ndarray
    g_depth: np.ndarray
    g_halted: float
    memory: np.ndarray
    stack: np.ndarray
    depth: int
    call_depth: int
    target: int
    location: int
    kept_register: float
    kept_memory: float
    kept_stack: float

    def outcome(self, code: int, a: int, b: int, word: int, target: int, address: int, at: int) -> float:
        """The gradient of the state to which another instruction, executed in this one's place, would lead.

        Args:
            code: its operation.
            a, b: the words in its sources.
            word, address: its immediate as a word and as a code address.
            target: its target register.
            at: its own code address.
        """
        operation, values, last = OPERATIONS[code], self.g_registers.shape[1] - _PADDING, len(self.g_counter) - 1
        level, following = self.depth, min(at + 1, last)
        total = self.kept_register + self.kept_memory + self.kept_stack
        offset = word - values if word >= values // 2 else word
        where = a + offset if 0 <= a + offset < len(self.memory) else -1
        if _WRITES[code]:
            if code == _IS_LOAD:
                result = int(self.memory[where]) if where >= 0 else 0
            else:
                result = _word(code, a, word if "i" in operation.operands else b, values)
            total += self.g_registers[target, result] - (self.kept_register if target == self.target else 0.0)
        elif operation.name == "store" and where >= 0:
            total += self.g_memory[where, b] - (self.kept_memory if where == self.location else 0.0)
        elif operation.name == "call":
            if self.depth < self.call_depth:
                level = self.depth + 1
                total += (
                    self.g_stack[self.depth, following] if self.depth < len(self.g_stack) else 0.0
                ) - self.kept_stack
            following = address
        elif operation.name == "return" and self.depth > 0:
            level, following = self.depth - 1, int(self.stack[self.depth - 1])
        elif operation.name in ("halt", "return"):
            total, following = total + self.g_halted, at
        elif operation.name == "jump" or operation.name == ("jump_if_zero" if a == 0 else "jump_if_not_zero"):
            following = address
        return total + self.g_counter[following] + self.g_depth[level]


def _backward_portable(
    rows: np.ndarray,
    run: Run,
    gradient: StateGradient,
    fields: FieldGradient | None,
    config: MachineConfig,
    joint: bool,
    damping: float,
    watch: bool,
) -> int:
    """``_backward`` for one machine, a few numpy expressions a step; the same arguments, grouped."""
    values, half, memory_size, call_depth = config.values, config.half, config.memory, config.call_depth
    size = len(rows)
    code = np.vstack([rows, [[CODES["halt"], 0, 0, 0, 0]]])
    registers, memory, stack = run.registers.copy(), run.memory.astype(np.int64), run.stack.astype(np.int64)
    g_registers, g_memory, g_stack = gradient.registers, gradient.memory, gradient.stack
    words = np.arange(values)
    as_word, as_address = code[:, 4] % values, np.minimum(code[:, 4], size)
    every_next = np.minimum(np.arange(size + 1) + 1, size)
    depth = run.depth

    def location_of(bases: Any, offsets: Any) -> Any:
        """Addresses of loads and stores, −1 outside memory."""
        where = np.asarray(bases) + ((np.asarray(offsets) + half) % values - half)
        return np.where((where >= 0) & (where < memory_size), where, -1)

    def loaded(where: Any) -> Any:
        return np.where(where >= 0, memory[where], 0)

    for step in range(run.steps - 1, -1, -1):
        pc, old = (int(x) for x in run.log[step])
        operation, source_a, source_b, target, _ = (int(x) for x in code[pc])
        name, writes = OPERATIONS[operation].name, _WRITES[operation]
        word, address, following = int(as_word[pc]), int(as_address[pc]), int(every_next[pc])
        g_counter, g_depth, g_halted = gradient.counter.copy(), gradient.depth.copy(), gradient.halted
        top = len(g_depth) - 1
        result, kept_register, kept_memory, kept_stack, location = int(registers[target]), 0.0, 0.0, 0.0, -1
        pushed, stays = False, name == "halt"
        if writes:
            registers[target] = old
            kept_register = g_registers[target, old]
        elif name == "store":
            location = int(location_of(registers[source_a], word))
            if location >= 0:
                memory[location], kept_memory = old, g_memory[location, old]
        elif name == "call" and old >= 0:
            depth, pushed = depth - 1, True
            stack[depth], kept_stack = old, g_stack[depth, old]
        elif name == "return":
            stays = run.halted and step == run.steps - 1
            depth += 0 if stays else 1
        a, b = int(registers[source_a]), int(registers[source_b])
        row = g_registers[target, :values].copy()
        step_back = _StepBack(
            gradient.registers, g_memory, g_counter, g_stack, g_depth, g_halted, memory, stack, depth, call_depth,
            target if writes else -1, location, kept_register, kept_memory, kept_stack,
        )  # fmt: skip

        halting = (
            (0.0 if stays else g_halted) + kept_register + kept_memory + kept_stack + g_counter[pc] + g_depth[depth]
        )
        by_kind = np.array([step_back.outcome(o, a, b, word, target, address, pc) for o in range(len(OPERATIONS))])
        by_kind -= by_kind[operation]

        by_a, by_b, by_word = np.zeros(values), np.zeros(values), np.zeros(values)
        by_address, by_target = np.zeros(size + 1), np.zeros(len(registers))
        if writes and operation != _IS_LOAD:
            immediate = "i" in OPERATIONS[operation].operands
            by_second = row[_row_by_second(operation, a, values)]
            by_a = row[_row_by_a(operation, word if immediate else b, values)] if _READS_A[operation] else by_a
            by_b = by_second if _READS_B[operation] else by_b
            by_word = by_second if immediate else by_word
        elif operation == _IS_LOAD:
            by_a = row[loaded(location_of(words, word))]
            by_word = row[loaded(location_of(a, words))]
        elif name == "store":
            for where, into in ((location_of(words, word), by_a), (location_of(a, words), by_word)):
                other_cells = (where >= 0) & (where != location)
                into[:] = np.where(other_cells, g_memory[where, b], 0.0) + kept_memory
            by_a[a] = by_word[word] = 0.0
            by_b = g_memory[location, :values].copy() if location >= 0 else by_b
        elif name in ("jump_if_zero", "jump_if_not_zero"):
            zero, others = (address, following) if name == "jump_if_zero" else (following, address)
            by_a = np.where(words == 0, g_counter[zero], g_counter[others])
        taken = name in ("jump", "call") or name == ("jump_if_zero" if a == 0 else "jump_if_not_zero")
        if taken:
            by_address = g_counter
        if writes:
            by_target = g_registers[:, result] + kept_register
            by_target[target] = 0.0

        if fields is not None and pc < size:
            fields.operation[pc] += by_kind
            fields.source_a[pc] += by_a[registers]
            fields.source_b[pc] += by_b[registers]
            fields.target[pc] += by_target
            every = np.arange(fields.immediate.shape[1])
            fields.immediate[pc] += by_address[np.minimum(every, size)] if taken else by_word[every % values]

        if joint:
            whole = zip(
                code[:, 0], registers[code[:, 1]], registers[code[:, 2]], as_word, code[:, 3], as_address, strict=True
            )
            before = np.array([step_back.outcome(*map(int, fetched), q) for q, fetched in enumerate(whole)])
            before -= before[pc]
        else:
            before = by_kind[code[:, 0]] + by_a[registers[code[:, 1]]] + by_b[registers[code[:, 2]]]
            before += by_target[code[:, 3]] + (by_address[as_address] if taken else by_word[as_word])
            if stays:
                before += g_counter
            elif pushed:
                before += g_stack[depth, every_next]
            elif not taken and name != "return":
                before += g_counter[every_next]

        if name in ("call", "return"):
            levels = np.arange(top + 1)
            if name == "call":
                depths = g_depth[np.minimum(levels + 1, top)] + kept_stack
                held = min(len(g_stack), call_depth, top + 1)
                depths[:held] += g_stack[:held, following]
                if pushed:
                    depths[depth] = g_depth[depth + 1]
                    g_stack[depth] = 0.0
            else:
                depths = np.concatenate([g_depth[:1] + g_counter[pc] + g_halted, g_depth[:-1] + g_counter[stack[:top]]])
                if not stays:
                    g_stack[depth - 1] += g_counter
            gradient.depth = depths - depths[depth]

        if operation == _IS_LOAD and (where := int(location_of(a, word))) >= 0:
            g_memory[where, :values] += row
        if location >= 0:
            g_memory[location] = 0.0
        if writes:
            g_registers[target] = 0.0
        g_registers[source_a, :values] += by_a
        g_registers[source_b, :values] += by_b
        gradient.counter, gradient.halted = damping * before, halting
        overflowed = watch and (gradient.overflowed() or (fields is not None and fields.overflowed()))
        if overflowed or not np.isfinite(halting):
            return step
    return -1


# ---------------------------------------------------------------------------------------------------------------------
# The engine
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """One machine after its run, and all that is needed to go back.

    Attributes:
        registers: words, int64 [R].
        memory: words, int32 [N].
        stack: return addresses, those above the top stale, int32 [D].
        program_counter, depth, deepest, steps: where it is, how deep the stack is and ever was, steps taken.
        halted: it has halted by itself; otherwise it ran out of steps.
        log: int32 [steps, 2], 8 bytes a step: where each step was, and the word that it overwrote.
    """

    registers: np.ndarray
    memory: np.ndarray
    stack: np.ndarray
    program_counter: int
    depth: int
    deepest: int
    steps: int
    halted: bool
    log: np.ndarray


@dataclass
class StateGradient:
    """The gradient of a loss with respect to the rows of one machine's state, float64, 0 at what the machine holds.

    Attributes:
        memory: [N, V + 8], of which the last columns are padding.
        registers: [R, V + 8], likewise.
        counter: [P + 1].
        stack: [D, P + 1]; rows that the run never came near may be missing.
        depth: [D + 1]; entries likewise.
        halted: of the probability of having halted.
    """

    memory: np.ndarray
    registers: np.ndarray
    counter: np.ndarray
    stack: np.ndarray
    depth: np.ndarray
    halted: float

    def overflowed(self) -> str | None:
        """The first part that is not finite; None where all are."""
        return next((name for name, rows in vars(self).items() if not np.isfinite(rows).all()), None)


@dataclass
class FieldGradient:
    """The gradient with respect to a program's fields, float64: [P, operations], three times [P, R], [P, max(V, P)]."""

    operation: np.ndarray
    source_a: np.ndarray
    source_b: np.ndarray
    target: np.ndarray
    immediate: np.ndarray

    def overflowed(self) -> str | None:
        """The first field that is not finite; None where all are."""
        return next((name for name, rows in vars(self).items() if not np.isfinite(rows).all()), None)


class AdjointMachine:
    """Runs instructions on integers, as the dense engine would on one-hot input, and pulls gradients back.

    Args:
        rows: instructions int64 [P, 5], each immediate an index 0…max(V, P) − 1 (``entries_of``).
        config: the shape of the machine.
        fetch: what the gradient of the program counter is of: ``separate`` fields, or whole instructions (``joint``).
        damping: factor on the program counter's gradient at every step: 1 for the gradient of the dense engine, less to
            keep it small, 0 to be blind to control flow.
        portable: True for the path in numpy, False to insist on numba, None for numba if it is installed.
        device: a CUDA device such as ``"cuda"`` that ``run_adjoint`` runs whole batches on, None for the CPU.

    Raises:
        MachineError: V is too large, an option is none of these, numba is missing, or the device is not there.
    """

    def __init__(
        self,
        rows: np.ndarray,
        config: MachineConfig,
        fetch: Fetch = "separate",
        damping: float = 1.0,
        portable: bool | None = None,
        device: str | None = None,
    ):
        if config.values > LARGEST_VALUES:
            raise MachineError(
                f"the adjoint engine takes V ≤ {LARGEST_VALUES}, found {config.values}; use a smaller machine"
            )
        if fetch not in ("separate", "joint"):
            raise MachineError(f"fetch must be 'separate' or 'joint', found {fetch!r}")
        if not 0.0 <= damping <= 1.0:
            raise MachineError(f"damping must be between 0 and 1, found {damping}")
        if portable is False and numba is None:
            raise MachineError("the native path needs numba: pip install 'neurallib[fast]', or leave portable at None")
        self.config, self.rows = config, rows
        self.joint, self.damping = fetch == "joint", float(damping)
        self.portable = numba is None if portable is None else portable
        self.code = packed(rows, config.values)
        self.device: torch.device | None = None
        if device is not None:
            from .cuda import device_of

            self.device = device_of(device)

    def run_on_device(
        self, entries: Sequence[int], registers: np.ndarray, memory: np.ndarray, limit: int
    ) -> tuple[list[Run], AdjointRuns]:
        """``run`` for B machines in one launch; their logs stay on the device, and are made when they are needed.

        Raises:
            GradientError: as ``run``.
        """
        from .cuda import AdjointRuns

        assert self.device is not None
        ran = AdjointRuns(self.rows, entries, registers, memory, self.config, min(limit, LONGEST_RUN), self.device)
        if limit > LONGEST_RUN and not ran.halted.all():
            self._check_length(int(ran.steps[~ran.halted].max()))
        columns = (ran.counters, ran.depths, ran.deepest, ran.steps, ran.halted)
        states = zip(ran.final_registers, ran.final_memory, ran.final_stack, *columns, strict=True)
        no_log = np.empty((0, 2), np.int32)
        runs = [
            Run(r, m.astype(np.int32), s.astype(np.int32), int(pc), int(d), int(top), int(taken), bool(halted), no_log)
            for r, m, s, pc, d, top, taken, halted in states
        ]
        return runs, ran

    def run(self, entry: int, registers: np.ndarray, memory: np.ndarray, max_steps: int | None = None) -> Run:
        """Runs one machine until it halts or has taken ``max_steps`` steps, and logs it.

        Steps are counted as the dense engine counts them: reading the halt past the end is one.

        Args:
            entry: a code address, 0…P.
            registers: words, integers [R].
            memory: words, integers [N].
            max_steps: instead of the machine's own.

        Raises:
            GradientError: the log would be longer than ``LONGEST_RUN`` steps.
        """
        limit = self.config.max_steps if max_steps is None else max_steps
        stack = np.zeros(self.config.call_depth, np.int32)
        if self.portable:
            state = MachineState(registers.tolist(), memory.tolist(), entry, [])
            steps, deepest, depth = self._run_portable(state, limit)
            held = np.array(state.registers, np.int64), np.array(state.memory, np.int32)
            stack = np.array(state.stack, np.int32)
            log = np.array(steps, np.int32).reshape(-1, 2)
            return Run(*held, stack, state.program_counter, depth, deepest, len(log), state.halted, log)
        r, m = np.array(registers, np.int64), np.array(memory, np.int32)
        cursor = np.array([entry, 0, 0, 0, 0], np.int64)
        log = np.empty((min(limit, 1024), 2), np.int32)
        while True:
            execute(self.code, r, m, stack, cursor, min(limit, len(log)), self.config.values, log)
            if cursor[3] or cursor[2] >= limit:
                break
            self._check_length(len(log))
            log = np.concatenate([log, np.empty((min(len(log), limit - len(log)), 2), np.int32)])
        pc, depth, taken, halted, deepest = (int(x) for x in cursor)
        return Run(r, m, stack, pc, depth, deepest, taken, bool(halted), log[:taken])

    def _run_portable(self, state: MachineState, limit: int) -> tuple[list[tuple[int, int]], int, int]:
        log, deepest = _execute_portable(self.rows, state, self.config, min(limit, LONGEST_RUN))
        if not state.halted and len(log) < limit:
            self._check_length(len(log))
        names = [OPERATIONS[int(self.rows[at, 0])].name if at < len(self.rows) else "halt" for at, _ in log]
        pushes = sum(name == "call" and old >= 0 for name, (_, old) in zip(names, log, strict=True))
        pops = sum(name == "return" for name in names) - (state.halted and names[-1] == "return")
        return log, deepest, pushes - pops

    @staticmethod
    def _check_length(steps: int) -> None:
        if steps >= LONGEST_RUN:
            raise GradientError(
                f"the log of the run is full at step {steps}: backward reaches at most {LONGEST_RUN} steps; "
                "set max_steps to no more, or use kind='counterfactual'"
            )

    def backward(
        self, run: Run, gradient: StateGradient, program: bool = False, tensor: str = "the run"
    ) -> FieldGradient | None:
        """Pulls the gradient of a final state back to the first, in place.

        Args:
            run: from ``run``; left as it is.
            gradient: of the final state; afterwards of the first. Its stack and depth may be shorter than the machine's
                where the loss does not read them (``blank``).
            program: whether to return the gradient of the program's fields as well.
            tensor: what an error calls this gradient.

        Raises:
            GradientError: a gradient is not finite at some step.
        """
        fields = None
        if program:
            size = len(self.rows)
            widths = (len(OPERATIONS), *(self.config.registers,) * 3, max(self.config.values, size))
            fields = FieldGradient(*(np.zeros((size, width)) for width in widths))
        first = StateGradient(*(x.copy() if isinstance(x, np.ndarray) else x for x in vars(gradient).values()))
        part = first.overflowed()
        if part is not None:
            raise GradientError(
                f"the gradient of {tensor} overflows float64 (1.8e308) in its final {part}, at step {run.steps} of {run.steps}, "
                "before the first one back: the loss itself is too steep"
            )
        stopped = self._pull(run, gradient, fields, False)
        if stopped >= 0 or gradient.overflowed() or (fields is not None and fields.overflowed()):
            for rows in () if fields is None else vars(fields).values():
                rows[:] = 0.0  # they were added to
            step = self._pull(run, first, fields, True)
            part = first.overflowed() or (fields is not None and fields.overflowed()) or "halted"
            raise GradientError(
                f"the gradient of {tensor} overflows float64 (1.8e308) in its {part}, at step {step} of {run.steps}, "
                f"{run.steps - step} steps back; damp the program counter, use fetch='joint', or kind='counterfactual'"
            )
        return fields

    def blank(self, run: Run, whole: bool = False) -> StateGradient:
        """A gradient of zeros for the final state of a run; with ``whole`` no row of the stack is left out.

        Raises:
            MachineError: as ``check_size``.
        """
        self.check_size()
        config, addresses = self.config, len(self.rows) + 1
        # A call in place of a return leaves the stack two deeper than the run has it, and stays two deeper.
        depths = config.call_depth if whole else min(config.call_depth, run.deepest + 2)
        return StateGradient(
            np.zeros((config.memory, config.values + _PADDING)),
            np.zeros((config.registers, config.values + _PADDING)),
            np.zeros(addresses),
            np.zeros((depths, addresses)),
            np.zeros(depths + 1),
            0.0,
        )

    def check_size(self) -> None:
        """Refuses a machine that can be run, but whose memory has too large a gradient.

        Raises:
            MachineError: N · V is greater than ``LARGEST_GRADIENT``.
        """
        values, memory = self.config.values, self.config.memory
        if values * memory > LARGEST_GRADIENT:
            raise MachineError(
                f"gradients of the adjoint engine take N · V ≤ {LARGEST_GRADIENT}, found N = {memory}, V = {values}; "
                "use a smaller machine"
            )

    def _pull(self, run: Run, gradient: StateGradient, fields: FieldGradient | None, watch: bool) -> int:
        if self.portable:
            with np.errstate(over="ignore", invalid="ignore"):  # reported by the caller
                return _backward_portable(
                    self.rows, run, gradient, fields, self.config, self.joint, self.damping, watch
                )
        cursor = np.array([run.program_counter, run.depth, run.steps, run.halted, run.deepest], np.int64)
        parts = [np.zeros((0, 0))] * 5 if fields is None else list(vars(fields).values())
        return int(
            _backward(
                self.code, SLOTS, run.registers.copy(), run.memory.copy(), run.stack.copy(), cursor, run.log,
                gradient.registers, gradient.memory, gradient.counter, gradient.stack, gradient.depth, gradient.halted,
                *parts, self.config.call_depth, self.config.values, self.joint, self.damping, watch,
            )
        )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# As a function of torch
# ---------------------------------------------------------------------------------------------------------------------


def words_of(name: str, rows: Tensor, engine: str) -> np.ndarray:
    """The words that one-hot distributions [..., K] stand for, int64 [...].

    Raises:
        GradientError: a row is no distribution, or is soft: its greatest weight is below 1 − 1e-6.
    """
    checked_rows(name, rows)
    weights, words = rows.max(-1)
    soft = weights < 1 - 1e-6
    if soft.any():
        where = first_row(soft)
        raise GradientError(
            f"{name} is soft: row {where} has the greatest weight {float(weights[where]):.6g}, and the {engine} engine takes "
            "one-hot rows only; discretise it, or use kind='dense' or, for inputs, kind='counterfactual'"
        )
    return np.ascontiguousarray(words.cpu().numpy())


def instructions_of(program: SoftProgram, engine: str) -> np.ndarray:
    """The rows [P, 5] of a one-hot program, each immediate an index 0…max(V, P) − 1.

    Raises:
        GradientError: a field is soft or no distribution.
    """
    columns = [
        words_of(f"{field.name} of the program", getattr(program, field.name), engine) for field in fields_of(program)
    ]
    return np.stack(columns, axis=1)


def unfinished_error(engine: str, machine: int, limit: int) -> GradientError:
    return GradientError(
        f"machine {machine} of the {engine} run has not halted at step {limit}, the limit max_steps; raise it, or pass "
        "unfinished='state' to take the state at the limit"
    )


def tangent(rows: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Gradients [..., K] relative to their entries at ``words`` [...]: the gauge of this module."""
    return rows - np.take_along_axis(rows, np.asarray(words, np.int64)[..., None], -1)


class _AdjointRun(torch.autograd.Function):
    """(memory, registers, five fields) → the six parts of a ``DenseState``."""

    @staticmethod
    def forward(
        ctx: Any, machine: AdjointMachine, runs: list[Run], on_device: AdjointRuns | None, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.machine, ctx.runs, ctx.on_device = machine, runs, on_device
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        like, config, addresses = inputs[0], machine.config, len(machine.rows) + 1
        columns: list[tuple[list[Any], int]] = [
            ([run.memory for run in runs], config.values),
            ([run.registers for run in runs], config.values),
            ([run.program_counter for run in runs], addresses),
            ([run.stack for run in runs], addresses),
            ([run.depth for run in runs], config.call_depth + 1),
        ]
        rows = [one_hot(torch.from_numpy(np.array(words, np.int64)), width).to(like) for words, width in columns]
        return *rows, torch.tensor([float(run.halted) for run in runs]).to(like)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        machine, runs, inputs = ctx.machine, ctx.runs, ctx.saved_tensors
        values, program = machine.config.values, any(ctx.needs_input_grad[5:])
        memories, banks, parts = np.zeros(0), np.zeros(0), None
        rest: Sequence[int] = range(len(runs))
        if ctx.on_device is not None:
            there = ctx.on_device.backward(gradients, program, machine.joint, machine.damping)
            memories, banks, parts = there.memory, there.registers, there.fields
            # The CPU pulls these again, to name the step.
            rest = np.flatnonzero(~there.finite).tolist()
            for k in rest:
                start = ctx.on_device.registers[k], ctx.on_device.memory[k]
                runs[k] = machine.run(int(ctx.on_device.entries[k]), *start, runs[k].steps)
        else:
            memories, banks = np.zeros(inputs[0].shape), np.zeros(inputs[1].shape)
        arrays = [None if g is None else g.detach().to("cpu", torch.float64).numpy() for g in gradients]
        memory, registers, counter, stack, depth, halted = arrays
        for k in rest:
            run = runs[k]
            pulled = machine.blank(run, whole=stack is not None or depth is not None)
            if memory is not None:
                pulled.memory[:, :values] = tangent(memory[k], run.memory)
            if registers is not None:
                pulled.registers[:, :values] = tangent(registers[k], run.registers)
            if counter is not None:
                pulled.counter = tangent(counter[k], np.array(run.program_counter))
            if stack is not None:
                pulled.stack = tangent(stack[k], run.stack)
            if depth is not None:
                pulled.depth = tangent(depth[k], np.array(run.depth))
            pulled.halted = 0.0 if halted is None else float(halted[k])
            found = machine.backward(run, pulled, program, f"machine {k}")
            memories[k], banks[k] = pulled.memory[:, :values], pulled.registers[:, :values]
            if found is not None:
                new = list(vars(found).values())
                parts = new if parts is None else [old + more for old, more in zip(parts, new, strict=True)]
        names = ("memory", "registers", *(f"{field.name} of the program" for field in fields_of(SoftProgram)))
        results: list[Tensor | None] = []
        arrays = [memories, banks, *(parts or [None] * 5)]
        for name, array, like, wanted in zip(names, arrays, inputs, ctx.needs_input_grad[3:], strict=True):
            results.append(as_gradient(name, array, like) if wanted and array is not None else None)
        return None, None, None, *results


def as_gradient(name: str, array: np.ndarray, like: Tensor) -> Tensor:
    """A gradient in the precision and on the device of its tensor.

    Raises:
        GradientError: it is not finite in that precision.
    """
    gradient = torch.from_numpy(array).to(like)
    if not torch.isfinite(gradient).all():
        raise GradientError(
            f"the gradient of {name} overflows {gradient.dtype} (greatest {np.abs(array).max():.3g}, at step 0, limit "
            f"{torch.finfo(gradient.dtype).max:.3g}); use float64, damp the program counter, or use kind='counterfactual'"
        )
    return gradient


def run_adjoint(
    program: SoftProgram,
    config: MachineConfig,
    memory: Tensor,
    registers: Tensor,
    entries: Sequence[int],
    *,
    max_steps: int | None = None,
    fetch: Fetch = "separate",
    damping: float = 1.0,
    unfinished: Literal["error", "state"] = "error",
    portable: bool | None = None,
    device: str | None = None,
) -> tuple[DenseState, np.ndarray]:
    """Runs B machines from one-hot states; gradients flow into memory, registers and the program's fields.

    Args:
        program: one-hot.
        config: the shape of the machine.
        memory, registers: one-hot distributions [B, N, V] and [B, R, V].
        entries: B code addresses.
        max_steps: a bound for each run, instead of the machine's own.
        fetch, damping, portable, device: as ``AdjointMachine``.
        unfinished: what a run is that has not halted by then: an ``error``, or the ``state`` that it has reached.

    Returns:
        The final states, one-hot, and the steps of each run, int64 [B].

    Raises:
        GradientError: shapes disagree, rows are soft or no distributions, a run has not halted; in backward, a gradient
            overflows.
        MachineError: as ``AdjointMachine`` and ``check_size``.
    """
    check_shapes(program, config, memory, registers, entries)
    rows = instructions_of(program, "adjoint")
    machine = AdjointMachine(rows, config, fetch, damping, portable, device)
    machine.check_size()
    memories, banks = words_of("memory", memory, "adjoint"), words_of("registers", registers, "adjoint")
    on_device = None
    if machine.device is None:
        runs = [machine.run(entry, banks[k], memories[k], max_steps) for k, entry in enumerate(entries)]
    else:
        limit = config.max_steps if max_steps is None else max_steps
        runs, on_device = machine.run_on_device(entries, banks, memories, limit)
    for k, run in enumerate(runs):
        if not run.halted and unfinished == "error":
            raise unfinished_error("adjoint", k, run.steps)
    parts = _AdjointRun.apply(machine, runs, on_device, memory, registers, *vars(program).values())
    return DenseState(*parts), np.array([run.steps for run in runs])
