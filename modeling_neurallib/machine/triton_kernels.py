"""The machine as Triton kernels: one launch runs a whole batch from its first step to its last.

Every operation is defined once for the device, in ``_operate``, under the codes of the table in ``operations``; the tests
hold it against that table on every pair of words. ``run_machines`` is one lane a machine, registers and memory laid out
[field, machine], so that machines at the same instruction read neighbouring words. ``pull_back`` is one program of the
grid a machine, its lanes going over words, registers and code addresses.

Without triton this module can be imported, and nothing in it can be launched. With ``TRITON_INTERPRET=1`` in the
environment Triton runs the same kernels on the CPU, slowly.
"""

# Triton gives the kernels their types.
# mypy: ignore-errors

from __future__ import annotations

import os

import numpy as np

from .operations import CODES, OPERATIONS, Fault

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = tl = None

INTERPRETED = triton is not None and os.environ.get("TRITON_INTERPRET") == "1"
"""Whether the kernels run on the CPU, in Triton's interpreter."""

# ---------------------------------------------------------------------------------------------------------------------
# The code as the kernels read it
# ---------------------------------------------------------------------------------------------------------------------

IMMEDIATE = 128
"""Flag on the number of an operation whose second operand is the immediate."""

PAST_THE_END = len(OPERATIONS)
"""The number of the row past the end of the code."""


def _number(name: str) -> int:
    """The kernels' number of an operation: that of the form without an immediate, and the flag."""
    plain = {"less_immediate": "less_than"}.get(name, name.removesuffix("_immediate"))
    return CODES[plain] + IMMEDIATE * ("i" in OPERATIONS[CODES[name]].operands)


NUMBERS = np.array([_number(operation.name) for operation in OPERATIONS] + [PAST_THE_END], np.int64)
"""The kernels' number of each operation, and of the row past the end: [operations + 1]."""


def packed(code: np.ndarray) -> np.ndarray:
    """Instructions [..., P, 5] as int64 [..., P + 1]: number, a, b, target in a byte each, the immediate above.

    The immediate is a signed integer, or a code address 0…P for the operations that go to one.
    """
    word = NUMBERS[code[..., 0]] | code[..., 1] << 8 | code[..., 2] << 16 | code[..., 3] << 24 | code[..., 4] << 32
    end = np.full((*word.shape[:-1], 1), PAST_THE_END, np.int64)
    return np.concatenate([word, end], axis=-1)


def _kernel(function):
    # One compiled kernel for every shape of machine and batch: their numbers are not made constants where they are 1 or
    # multiples of 16.
    shapes = ["batch", "size", "words", "call_depth", "width", "count", "rows"]
    return function if triton is None else triton.jit(function, do_not_specialize=shapes)


# Globals of a kernel must be constants of Triton's own.
_constant = int if tl is None else tl.constexpr
_HALT, _CONSTANT, _MOVE = (_constant(CODES[name]) for name in ("halt", "constant", "move"))
_ADD, _SUBTRACT, _MULTIPLY = (_constant(CODES[name]) for name in ("add", "subtract", "multiply"))
_DIVIDE, _MODULO, _MIN, _MAX = (_constant(CODES[name]) for name in ("divide", "modulo", "min", "max"))
_EQUAL, _LESS, _AND, _OR, _XOR = (_constant(CODES[name]) for name in ("equal", "less_than", "and", "or", "xor"))
_SHIFT_LEFT, _SHIFT_RIGHT = (_constant(CODES[name]) for name in ("shift_left", "shift_right"))
_INDEX, _LOAD, _STORE = (_constant(CODES[name]) for name in ("index", "load", "store"))
_JUMP, _JUMP_IF_ZERO = (_constant(CODES[name]) for name in ("jump", "jump_if_zero"))
_JUMP_IF_NOT_ZERO, _CALL, _RETURN = (_constant(CODES[name]) for name in ("jump_if_not_zero", "call", "return"))
_CHECK, _GUARD = (_constant(CODES[name]) for name in ("check", "guard"))
_FLAG, _PAST_THE_END = _constant(IMMEDIATE), _constant(PAST_THE_END)
_OVERFLOW, _DIVISION_BY_ZERO = _constant(int(Fault.overflow)), _constant(int(Fault.division_by_zero))
_WILD_ACCESS, _INDEX_OUT_OF_RANGE = _constant(int(Fault.wild_access)), _constant(int(Fault.index_out_of_range))
_OUT_OF_MEMORY, _STACK_OVERFLOW = _constant(int(Fault.out_of_memory)), _constant(int(Fault.stack_overflow))
_STACK_UNDERFLOW, _OUT_OF_STEPS = _constant(int(Fault.stack_underflow)), _constant(int(Fault.out_of_steps))
_BAD_PROGRAM_COUNTER = _constant(int(Fault.bad_program_counter))

# ---------------------------------------------------------------------------------------------------------------------
# Operations
# ---------------------------------------------------------------------------------------------------------------------


@_kernel
def _quotient(a, b):
    """⌊a / b⌋ of int64 that fit 32 bits, b ≠ 0; in 32 bits, which the device divides much faster."""
    # −2³¹ / −1 does not fit; and b = 1 stands for it, so that the division is defined.
    opposite = b == -1
    a32, b32 = a.to(tl.int32), tl.where(opposite, 1, b).to(tl.int32)
    truncated = a32 // b32
    rest = a32 - truncated * b32
    floor = truncated - ((rest != 0) & ((rest ^ b32) < 0)).to(tl.int32)
    return tl.where(opposite, -a, floor.to(tl.int64))


@_kernel
def _operate(kind, a, b, width, divides):
    """Value and fault of the operations that compute a value from two words.

    Args:
        kind: number without its flag, int32.
        a, b: operands as two's complement int64; b is the immediate where the operation has one.
        width: the binary digits of a word.
        divides: whether any lane divides; a scalar, so that the others need not wait for a division.

    Returns:
        The value as two's complement int64, edge values included, and the fault, int32; 0 and none for other operations.
    """
    x = tl.where(kind == _CONSTANT, b, tl.zeros_like(a + b))
    x = tl.where(kind == _MOVE, a, x)
    x = tl.where(kind == _ADD, a + b, x)
    x = tl.where(kind == _SUBTRACT, a - b, x)
    x = tl.where(kind == _MULTIPLY, a * b, x)
    x = tl.where(kind == _MIN, tl.where(a < b, a, b), x)
    x = tl.where(kind == _MAX, tl.where(a < b, b, a), x)
    x = tl.where(kind == _EQUAL, (a == b).to(tl.int64), x)
    x = tl.where(kind == _LESS, (a < b).to(tl.int64), x)
    x = tl.where(kind == _AND, a & b, x)
    x = tl.where(kind == _OR, a | b, x)
    x = tl.where(kind == _XOR, a ^ b, x)
    # A shift by width moves every digit out, as does any longer one.
    distance = tl.where((b < 0) | (b > width), width, b)
    shifts_left = kind == _SHIFT_LEFT
    x = tl.where(shifts_left, a << distance, x)
    x = tl.where(kind == _SHIFT_RIGHT, a >> distance, x)
    no_divisor = ((kind == _DIVIDE) | (kind == _MODULO)) & (b == 0)
    if divides:
        whole = _quotient(a, tl.where(b == 0, 1, b))
        x = tl.where(kind == _DIVIDE, tl.where(b == 0, 0, whole), x)
        x = tl.where(kind == _MODULO, tl.where(b == 0, a, a - whole * b), x)
    half = (tl.zeros_like(x) + 1) << (width - 1)
    wrapped = ((x + half) & (2 * half - 1)) - half
    wrong_shift = (b < 0) & (shifts_left | (kind == _SHIFT_RIGHT))
    fault = tl.where((wrapped != x) | wrong_shift, _OVERFLOW, 0)
    return wrapped, tl.where(no_divisor, _DIVISION_BY_ZERO, fault)


@_kernel
def operate_on_pairs(kinds, a, b, results, faults, count, width, BLOCK: tl.constexpr):
    """``_operate`` for arrays of operands; what the tests hold against the table in ``operations``."""
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = lane < count
    kind = tl.load(kinds + lane, mask=inside, other=0).to(tl.int32)
    x, y = tl.load(a + lane, mask=inside, other=0), tl.load(b + lane, mask=inside, other=0)
    divides = tl.max(((kind == _DIVIDE) | (kind == _MODULO)).to(tl.int32), 0) > 0
    result, fault = _operate(kind, x, y, width, divides)
    tl.store(results + lane, result, mask=inside)
    tl.store(faults + lane, fault, mask=inside)


# ---------------------------------------------------------------------------------------------------------------------
# Runs
# ---------------------------------------------------------------------------------------------------------------------


@_kernel
def _touch(first, at, lane, batch, mask, mark):
    """Marks a cell that nothing has touched yet."""
    where = first + at.to(tl.int64) * batch + lane
    fresh = mask & (tl.load(where, mask=mask, other=0) == -1)
    tl.store(where, tl.zeros_like(lane) + mark, mask=fresh)


@_kernel
def run_machines(
    code, program, size, patch_at, patch_word, registers, memory, stack, counters, depths, deepest, halted, steps, faults,
    log, log_starts, first_registers, first_memory, first_code, batch, words, call_depth, width,
    TOTAL: tl.constexpr, PROGRAMS: tl.constexpr, LOG: tl.constexpr, FIRST: tl.constexpr, BETWEEN: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Runs a batch of machines until each has halted, faulted, or taken as many steps as it may; a lane a machine.

    Args:
        code: ``packed`` programs, int64 [programs, P + 1]; with ``PROGRAMS``, machine k runs program[k] with the word at
            patch_at[k] replaced by patch_word[k] (int64 [B]; patch_at −1 for none); otherwise all run the only one.
        size: P.
        registers, memory: two's complement, int32 [R, B] and [N, B]; in place.
        stack: return addresses, int32 [D, B]; in place.
        counters, depths, deepest, halted, faults: int32 [B]; set, the first two are read as well.
        steps: int64 [B]; the most that each machine may take before, what it has taken after.
        log: with ``LOG``, for machine k from log_starts[k] on, an int64 a step: where it was, and above, the word that it
            overwrote (words of memory and registers unsigned; a call that pushed nothing: −1).
        first_registers, first_memory, first_code: with ``FIRST``, int64 [R, B], [N, B], [P, B], −1 before: the step that
            first read a cell, −2 if it was written before; for registers twice the step, and one more if it was source b.
        batch, words, call_depth, width: B, N, D and the binary digits of a word.
        TOTAL: go on after a fault with its edge value, as the dense engine does, and count the halt past the end as a
            step; otherwise end before the fault, as the exact engine does.
        BETWEEN: steps between two looks whether any machine is still running.
    """
    lane = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    batch, words = tl.cast(batch, tl.int64), tl.cast(words, tl.int64)
    half = (tl.zeros_like(lane) + 1) << (width - 1)
    mask = 2 * half - 1
    exists = lane < batch
    running = exists
    pc = tl.load(counters + lane, mask=exists, other=0)
    depth = tl.load(depths + lane, mask=exists, other=0)
    top = depth
    limit = tl.load(steps + lane, mask=exists, other=0)
    count = tl.zeros_like(lane)
    fault = tl.zeros_like(pc)
    stopped = tl.zeros_like(pc)
    if PROGRAMS:
        own = tl.load(program + lane, mask=exists, other=0) * (tl.cast(size, tl.int64) + 1)
        changed_at = tl.load(patch_at + lane, mask=exists, other=-1)
        changed = tl.load(patch_word + lane, mask=exists, other=0)
    if LOG:
        log_at = log + tl.load(log_starts + lane, mask=exists, other=0)
    while tl.max(running.to(tl.int32), 0) > 0:
        for _ in range(BETWEEN):
            over = running & (count >= limit)
            if not TOTAL:
                fault = tl.where(over, _OUT_OF_STEPS, fault)
            running = running & (count < limit)
            if PROGRAMS:
                word = tl.load(code + own + pc, mask=running, other=0)
                word = tl.where(pc == changed_at, changed, word)
            else:
                word = tl.load(code + pc, mask=running, other=0)
            kind = (word & 127).to(tl.int32)
            immediate = (word & _FLAG) != 0
            source_a, source_b = (word >> 8) & 255, (word >> 16) & 255
            target = (word >> 24) & 255
            entry = (word >> 32).to(tl.int32)
            a = tl.load(registers + source_a * batch + lane, mask=running, other=0).to(tl.int64)
            b = tl.load(registers + source_b * batch + lane, mask=running, other=0).to(tl.int64)
            second = tl.where(immediate, entry.to(tl.int64), b)

            loads, stores = running & (kind == _LOAD), running & (kind == _STORE)
            addresses = (kind == _INDEX) | (kind == _LOAD) | (kind == _STORE)
            at = (a & mask) + second
            inside = (at >= 0) & (at < words)
            if FIRST:
                plain = (kind < _JUMP) & (kind > _HALT)
                reads_a = (plain & (kind != _CONSTANT)) | (kind == _JUMP_IF_ZERO) | (kind == _JUMP_IF_NOT_ZERO)
                reads_b = (plain & (immediate == 0) & (kind != _MOVE)) | (kind == _STORE)
                _touch(first_registers, source_a, lane, batch, running & reads_a, 2 * count)
                _touch(first_registers, source_b, lane, batch, running & reads_b, 2 * count + 1)
                _touch(first_memory, at, lane, batch, loads & inside, count)
                _touch(first_code, pc, lane, batch, running & (pc < size), count)
                _touch(first_registers, target, lane, batch, running & plain & (kind != _STORE), -2)
                _touch(first_memory, at, lane, batch, stores & inside, -2)
            loaded = tl.load(memory + at * batch + lane, mask=loads & inside, other=0)

            divides = tl.max((running & ((kind == _DIVIDE) | (kind == _MODULO))).to(tl.int32), 0) > 0
            value, wrong = _operate(kind, a, second, width, divides)
            value = tl.where(loads, loaded.to(tl.int64), value)
            value = tl.where(kind == _INDEX, ((at + half) & mask) - half, value)
            wrong = tl.where(addresses & (inside == 0), _WILD_ACCESS, wrong)
            wrong = tl.where((kind == _CHECK) & ((a < 0) | (a >= b)), _INDEX_OUT_OF_RANGE, wrong)
            wrong = tl.where((kind == _GUARD) & ((a & mask) >= (b & mask)), _OUT_OF_MEMORY, wrong)
            full, empty = depth >= call_depth, depth == 0
            wrong = tl.where((kind == _CALL) & full, _STACK_OVERFLOW, wrong)
            wrong = tl.where((kind == _RETURN) & empty, _STACK_UNDERFLOW, wrong)
            wrong = tl.where(kind == _PAST_THE_END, _BAD_PROGRAM_COUNTER, wrong)

            executes = running
            if not TOTAL:
                fault = tl.where(running, wrong, fault)
                executes = running & (wrong == 0)
            writes = executes & (kind > _HALT) & (kind < _STORE)
            stores = stores & executes & inside
            calls = executes & (kind == _CALL)
            pushes = calls & (full == 0)
            pops = executes & (kind == _RETURN) & (empty == 0)
            popped = tl.load(stack + (depth - 1).to(tl.int64) * batch + lane, mask=pops, other=0)
            if LOG:
                old = tl.load(registers + target * batch + lane, mask=writes, other=0).to(tl.int64)
                old = tl.where(stores, tl.load(memory + at * batch + lane, mask=stores, other=0).to(tl.int64), old)
                old = old & mask
                kept = tl.load(stack + depth.to(tl.int64) * batch + lane, mask=pushes, other=-1)
                old = tl.where(calls, kept.to(tl.int64), old)
                tl.store(log_at + count, pc.to(tl.int64) | (old << 32), mask=running)
            tl.store(registers + target * batch + lane, value.to(tl.int32), mask=writes)
            tl.store(memory + at * batch + lane, b.to(tl.int32), mask=stores)
            tl.store(stack + depth.to(tl.int64) * batch + lane, pc + 1, mask=pushes)

            takes = (kind == _JUMP) | ((kind == _JUMP_IF_ZERO) & (a == 0)) | ((kind == _JUMP_IF_NOT_ZERO) & (a != 0))
            following = tl.where(takes | calls, entry, pc + 1)
            following = tl.where(pops, popped, following)
            ends = executes & ((kind == _HALT) | (kind == _PAST_THE_END) | ((kind == _RETURN) & empty))
            if TOTAL:
                count += running.to(tl.int64)
            else:
                count += (running & (kind != _PAST_THE_END)).to(tl.int64)
            stopped = tl.where(ends, 1, stopped)
            pc = tl.where(executes & (ends == 0), following, pc)
            depth += pushes.to(tl.int32) - pops.to(tl.int32)
            top = tl.where(depth > top, depth, top)
            running = executes & (ends == 0)
    tl.store(counters + lane, pc, mask=exists)
    tl.store(depths + lane, depth, mask=exists)
    tl.store(deepest + lane, top, mask=exists)
    tl.store(halted + lane, stopped, mask=exists)
    tl.store(steps + lane, count, mask=exists)
    tl.store(faults + lane, fault, mask=exists)


@_kernel
def score_machines(
    registers, memory, counters, halted, owners, g_registers, g_memory, g_counter, g_halted, scores, batch, rows, words,
    width, size, BLOCK: tl.constexpr,
):  # fmt: skip
    """What the final state of each machine contributes to a loss that is a sum over its rows, added up in the CPU's order.

    Args:
        registers, memory, counters, halted: of ``run_machines``, after it.
        owners: which weights each machine is scored by, int64 [B].
        g_registers, g_memory, g_counter, g_halted: the weights of what each row may hold, float64 [owners, R, V],
            [owners, N, V], [owners, P + 1], [owners].
        scores: float64 [B], set.
        batch, rows, words, width, size: B, R, N, the binary digits of a word, P.
    """
    lane = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    exists = lane < batch
    mask = ((tl.zeros_like(lane) + 1) << width) - 1
    owner = tl.load(owners + lane, mask=exists, other=0)
    total = tl.load(
        g_counter + owner * (size + 1) + tl.load(counters + lane, mask=exists, other=0), mask=exists, other=0.0
    )
    ended = tl.load(halted + lane, mask=exists, other=0) != 0
    total += tl.where(ended, tl.load(g_halted + owner, mask=exists, other=0.0), 0.0)
    # The interpreter has no ranges whose ends are arguments.
    n = tl.cast(0, tl.int64)
    while n < words:
        word = tl.load(memory + n * batch + lane, mask=exists, other=0).to(tl.int64) & mask
        total += tl.load(g_memory + (owner * words + n) * (mask + 1) + word, mask=exists, other=0.0)
        n += 1
    n = tl.cast(0, tl.int64)
    while n < rows:
        word = tl.load(registers + n * batch + lane, mask=exists, other=0).to(tl.int64) & mask
        total += tl.load(g_registers + (owner * rows + n) * (mask + 1) + word, mask=exists, other=0.0)
        n += 1
    tl.store(scores + lane, total, mask=exists)
