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
    shapes = ["batch", "size", "words", "call_depth", "width", "count", "levels", "entries"]
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
    """⌊a / b⌋ of integers that fit 32 bits, b ≠ 0; in 32 bits, which the device divides much faster."""
    # −2³¹ / −1 does not fit; and b = 1 stands for it, so that the division is defined.
    opposite = b == -1
    a32, b32 = a.to(tl.int32), tl.where(opposite, 1, b).to(tl.int32)
    truncated = a32 // b32
    rest = a32 - truncated * b32
    floor = truncated - ((rest != 0) & ((rest ^ b32) < 0)).to(tl.int32)
    return tl.where(opposite, -a, floor.to(a.dtype))


@_kernel
def _operate(kind, a, b, width, divides):
    """Value and fault of the operations that compute a value from two words.

    Args:
        kind: number without its flag, int32.
        a, b: operands as two's complement, int64, or int32 where a word has fewer than 32 digits, which is faster; b is the
            immediate where the operation has one.
        width: the binary digits of a word.
        divides: whether any lane divides; a scalar, so that the others need not wait for a division.

    Returns:
        The value as two's complement, edge values included, and the fault, int32; 0 and none for other operations.
    """
    x = tl.where(kind == _CONSTANT, b, tl.zeros_like(a + b))
    x = tl.where(kind == _MOVE, a, x)
    x = tl.where(kind == _ADD, a + b, x)
    x = tl.where(kind == _SUBTRACT, a - b, x)
    x = tl.where(kind == _MIN, tl.where(a < b, a, b), x)
    x = tl.where(kind == _MAX, tl.where(a < b, b, a), x)
    x = tl.where(kind == _EQUAL, (a == b).to(x.dtype), x)
    x = tl.where(kind == _LESS, (a < b).to(x.dtype), x)
    x = tl.where(kind == _AND, a & b, x)
    x = tl.where(kind == _OR, a | b, x)
    x = tl.where(kind == _XOR, a ^ b, x)
    # A shift by width moves every digit out, as does any longer one.
    distance = tl.where((b < 0) | (b > width), width.to(a.dtype), b)
    shifts_left = kind == _SHIFT_LEFT
    long = a.to(tl.int64)
    long = tl.where(kind == _MULTIPLY, long * b.to(tl.int64), long << distance.to(tl.int64))
    is_long = (kind == _MULTIPLY) | shifts_left
    x = tl.where(is_long, long.to(x.dtype), x)
    x = tl.where(kind == _SHIFT_RIGHT, a >> distance, x)
    no_divisor = ((kind == _DIVIDE) | (kind == _MODULO)) & (b == 0)
    if divides:
        whole = _quotient(a, tl.where(b == 0, 1, b))
        x = tl.where(kind == _DIVIDE, tl.where(b == 0, 0, whole), x)
        x = tl.where(kind == _MODULO, tl.where(b == 0, a, a - whole * b), x)
    half = (tl.zeros_like(x) + 1) << (width - 1).to(x.dtype)
    wrapped = ((x + half) & (half - 1 + half)) - half
    wrong_shift = (b < 0) & (shifts_left | (kind == _SHIFT_RIGHT))
    outside = tl.where(is_long, wrapped.to(tl.int64) != long, wrapped != x)
    fault = tl.where(outside | wrong_shift, _OVERFLOW, 0)
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
    NARROW: tl.constexpr, BLOCK: tl.constexpr,
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
        NARROW: words have fewer than 32 digits, so that 32 bits hold what is computed with.
    """
    lane = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    batch, words = tl.cast(batch, tl.int64), tl.cast(words, tl.int64)
    one = tl.zeros_like(lane) + 1
    if NARROW:
        one = one.to(tl.int32)
    half = one << (width - 1).to(one.dtype)
    mask = half - 1 + half
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
            low = word.to(tl.int32)
            kind, immediate = low & 127, (low & _FLAG) != 0
            source_a, source_b = ((low >> 8) & 255).to(tl.int64), ((low >> 16) & 255).to(tl.int64)
            target = ((low >> 24) & 255).to(tl.int64)
            entry = (word >> 32).to(tl.int32)
            a = tl.load(registers + source_a * batch + lane, mask=running, other=0).to(one.dtype)
            b = tl.load(registers + source_b * batch + lane, mask=running, other=0).to(one.dtype)
            second = tl.where(immediate, entry.to(one.dtype), b)

            loads, stores = running & (kind == _LOAD), running & (kind == _STORE)
            addresses = (kind == _INDEX) | (kind == _LOAD) | (kind == _STORE)
            at = (a & mask).to(tl.int64) + second.to(tl.int64)
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
            value = tl.where(loads, loaded.to(one.dtype), value)
            value = tl.where(kind == _INDEX, ((at.to(one.dtype) + half) & mask) - half, value)
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
                old = old & mask.to(tl.int64)
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
    registers, memory, counters, halted, owners, g_registers, g_memory, g_counter, g_halted, scores, batch, count, words,
    width, size, BLOCK: tl.constexpr,
):  # fmt: skip
    """What the final state of each machine contributes to a loss that is a sum over its rows, added up in the CPU's order.

    Args:
        registers, memory, counters, halted: of ``run_machines``, after it.
        owners: which weights each machine is scored by, int64 [B].
        g_registers, g_memory, g_counter, g_halted: the weights of what each row may hold, float64 [owners, R, V],
            [owners, N, V], [owners, P + 1], [owners].
        scores: float64 [B], set.
        batch, count, words, width, size: B, R, N, the binary digits of a word, P.
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
    while n < count:
        word = tl.load(registers + n * batch + lane, mask=exists, other=0).to(tl.int64) & mask
        total += tl.load(g_registers + (owner * count + n) * (mask + 1) + word, mask=exists, other=0.0)
        n += 1
    tl.store(scores + lane, total, mask=exists)


# ---------------------------------------------------------------------------------------------------------------------
# Adjoints
# ---------------------------------------------------------------------------------------------------------------------


@_kernel
def _word(kind, a, b, width, divides):
    """The word that an operation computes from two words, edge values included, int64; ``index`` is a sum here."""
    half = (tl.zeros_like(a + b) + 1) << (width - 1)
    plain = tl.where(kind == _INDEX, _ADD, kind)
    value, _ = _operate(plain, (a ^ half) - half, (b ^ half) - half, width, divides)
    return value & (2 * half - 1)


@_kernel
def pull_back(
    rows, log, log_starts, steps, depths, halted, registers, memory, stack, g_registers, g_memory, g_counter, g_stack,
    g_depth, g_halted, g_operation, g_source_a, g_source_b, g_target, g_immediate, scratch, damping, size, count, words,
    levels, call_depth, width, entries, FIELDS: tl.constexpr, JOINT: tl.constexpr, OPERATIONS: tl.constexpr,
    REGISTERS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Undoes the runs of a batch and pulls their gradients back, in place, from final states to first; a program of the grid
    a machine. The mathematics is in GRADIENTS.md, the same step by step in ``adjoint._backward``.

    Args:
        rows: int32 [6, P + 1]: numbers, a, b, target, immediate as an index, operation; the last column is a halt.
        log, log_starts, steps, depths, halted: of ``run_machines``.
        registers, memory, stack: where it ended, as words: int32 [B, R], [B, N], [B, D]; undone.
        g_registers, g_memory, g_counter, g_stack, g_depth, g_halted: float64 [B, R, V], [B, N, V], [B, 2, P + 1],
            [B, levels, P + 1], [B, 2, levels + 1], [B]; of [B, 2, …] the second is room to work. Afterwards the gradients
            of the first states; which of the two those of the counter and the depth are in is not told.
        g_operation, g_source_a, g_source_b, g_target, g_immediate: with ``FIELDS``, added to: float64 [B, P, operations],
            three times [B, P, R], [B, P, entries].
        scratch: float64 [B, 2 V + OPERATIONS].
        damping: float64 [1], the factor on the program counter's gradient at every step.
        size, count, words, levels, call_depth, width, entries: P, R, N, rows of ``g_stack``, D, the binary digits of a
            word, max(V, P).
        JOINT: fetch of whole instructions.
        OPERATIONS, REGISTERS, BLOCK: lanes for operations, registers, and everything else; powers of two.
    """
    machine = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    bank_lane = tl.arange(0, REGISTERS)
    values = tl.cast(1, tl.int64) << width
    half, mask = values >> 1, values - 1
    addresses = tl.cast(size, tl.int64) + 1
    registers += machine * count
    memory += machine * words
    stack += machine * call_depth
    g_registers += machine * count * values
    g_memory += machine * words * values
    g_counter += machine * 2 * addresses
    g_stack += machine * levels * addresses
    g_depth += machine * 2 * (levels + 1)
    if FIELDS:
        g_operation += machine * size * OPERATIONS
        g_source_a += machine * size * count
        g_source_b += machine * size * count
        g_target += machine * size * count
        g_immediate += machine * size * entries
    by_a = scratch + machine * (2 * values + OPERATIONS)
    by_second = by_a + values
    by_operation = by_second + values
    log += tl.load(log_starts + machine)
    factor = tl.load(damping)
    last = tl.load(steps + machine) - 1
    ended = tl.load(halted + machine) != 0
    depth = tl.load(depths + machine)
    halting = tl.load(g_halted + machine)
    counter, other_counter = tl.cast(0, tl.int64), addresses
    level_at, other_level = tl.cast(0, tl.int64), tl.cast(levels, tl.int64) + 1
    operation = tl.arange(0, OPERATIONS)
    step = last
    while step >= 0:
        logged = tl.load(log + step)
        pc, old = logged.to(tl.int32), logged >> 32
        number = tl.load(rows + pc)
        kind, immediate = number & 127, (number & _FLAG) != 0
        source_a, source_b = tl.load(rows + addresses + pc), tl.load(rows + 2 * addresses + pc)
        target = tl.load(rows + 3 * addresses + pc)
        entry = tl.load(rows + 4 * addresses + pc).to(tl.int64)
        code = tl.load(rows + 5 * addresses + pc)
        word, address = entry & mask, tl.minimum(entry, size.to(tl.int64))
        writes = (kind > _HALT) & (kind < _STORE)
        row = g_registers + target * values
        result = tl.load(registers + target).to(tl.int64)

        # Undo the step. What a row would gain from keeping its old word is `kept_…`.
        at = tl.load(registers + source_a).to(tl.int64) + ((word ^ half) - half)
        stored = (kind == _STORE) & (at >= 0) & (at < words)
        pushed = (kind == _CALL) & (old >= 0)
        stays = (kind == _HALT) | ((kind == _RETURN) & (step == last) & ended)
        depth += ((kind == _RETURN) & (stays == 0)).to(tl.int32) - pushed.to(tl.int32)
        kept_register = tl.load(row + old, mask=writes, other=0.0)
        kept_memory = tl.load(g_memory + at * values + old, mask=stored, other=0.0)
        kept_stack = tl.load(g_stack + depth * addresses + old, mask=pushed, other=0.0)
        nothing = kept_register + kept_memory + kept_stack
        tl.debug_barrier()
        tl.store(registers + target, old.to(tl.int32), mask=writes)
        tl.store(memory + at, old.to(tl.int32), mask=stored)
        tl.store(stack + depth, old.to(tl.int32), mask=pushed)
        tl.debug_barrier()
        a, b = tl.load(registers + source_a).to(tl.int64), tl.load(registers + source_b).to(tl.int64)
        second = tl.where(immediate, word, b)
        following = tl.minimum(pc + 1, size)
        popped = tl.load(stack + depth - 1, mask=depth > 0, other=0)
        popped = tl.where(depth > 0, popped, pc)
        now, levels_now = g_counter + counter, g_depth + level_at
        here, there = tl.load(now + pc), tl.load(now + following)
        level = tl.load(levels_now + depth)
        # h' = h + (1 − h) k and X' = h X + (1 − h) F(X): what having halted before this step would change.
        halting_before = tl.where(stays, 0.0, halting) + nothing + here + level

        reads_a = (
            writes & (kind != _CONSTANT) | (kind == _STORE) | (kind == _JUMP_IF_ZERO) | (kind == _JUMP_IF_NOT_ZERO)
        )
        reads_b = writes & (immediate == 0) & (kind != _MOVE)
        reads_word = immediate
        reads_address = (kind == _JUMP) | (kind == _CALL) | ((kind == _JUMP_IF_ZERO) & (a == 0))
        reads_address = reads_address | ((kind == _JUMP_IF_NOT_ZERO) & (a != 0))

        # The operation, every other field as it is.
        cell = a + ((word ^ half) - half)
        in_memory = (cell >= 0) & (cell < words)
        if FIELDS or not JOINT:
            numbers = tl.load(rows + 6 * addresses + operation)
            others = numbers & 127
            computes = (others > _HALT) & (others < _STORE)
            word_there = tl.load(memory + cell, mask=in_memory, other=0).to(tl.int64)
            put = tl.load(g_memory + cell * values + b, mask=in_memory, other=0.0)
            push = tl.load(g_stack + depth * addresses + following, mask=depth < levels, other=0.0)
            rises = tl.load(levels_now + depth + 1, mask=depth < levels, other=0.0)
            sinks = tl.load(levels_now + depth - 1, mask=depth > 0, other=0.0)
            to_address, to_popped = tl.load(now + address), tl.load(now + popped)
            value = _word(others, a, tl.where((numbers & _FLAG) != 0, word, b), width, True)
            value = tl.where(others == _LOAD, word_there, value)
            by_kind = tl.where(computes, tl.load(row + value, mask=computes, other=0.0) - kept_register, 0.0)
            by_kind += tl.where(others == _STORE, put - kept_memory, 0.0)
            pushes = (others == _CALL) & (depth < call_depth)
            by_kind += tl.where(pushes, push - kept_stack, 0.0)
            pops = (others == _RETURN) & (depth > 0)
            ends = (others == _HALT) | ((others == _RETURN) & (depth == 0))
            jumps = (others == _JUMP) | (others == _CALL) | ((others == _JUMP_IF_ZERO) & (a == 0))
            jumps = jumps | ((others == _JUMP_IF_NOT_ZERO) & (a != 0))
            arrives = tl.where(pops, to_popped, tl.where(ends, here + halting, tl.where(jumps, to_address, there)))
            by_kind += nothing + arrives + tl.where(pushes, rises, tl.where(pops, sinks, level))
            by_kind -= tl.sum(tl.where(operation == code, by_kind, 0.0), 0)
            tl.store(by_operation + operation, by_kind)

        # The words in source a and in the second operand.
        divides = (kind == _DIVIDE) | (kind == _MODULO)
        if writes | (kind == _STORE):
            start = tl.cast(0, tl.int64)
            while start < values:
                v = start + lane
                inside = v < values
                if kind == _LOAD:
                    x, y = v + ((word ^ half) - half), a + ((v ^ half) - half)
                    z = tl.load(memory + x, mask=inside & (x >= 0) & (x < words), other=0).to(tl.int64)
                    pulled_a = tl.load(row + z, mask=inside, other=0.0)
                    z = tl.load(memory + y, mask=inside & (y >= 0) & (y < words), other=0).to(tl.int64)
                    pulled_second = tl.load(row + z, mask=inside, other=0.0)
                elif kind == _STORE:
                    x, y = v + ((word ^ half) - half), a + ((v ^ half) - half)
                    fits = inside & (x >= 0) & (x < words) & ((x != at) | (stored == 0))
                    pulled_a = kept_memory + tl.load(g_memory + x * values + b, mask=fits, other=0.0)
                    pulled_a = tl.where(v == a, 0.0, pulled_a)
                    fits = inside & (y >= 0) & (y < words) & ((y != at) | (stored == 0))
                    pulled_second = kept_memory + tl.load(g_memory + y * values + b, mask=fits, other=0.0)
                    pulled_second = tl.where(v == word, 0.0, pulled_second)
                else:
                    pulled_a = tl.load(row + _word(kind, v, second, width, divides), mask=inside, other=0.0)
                    pulled_second = tl.load(row + _word(kind, a, v, width, divides), mask=inside, other=0.0)
                tl.store(by_a + v, pulled_a, mask=inside)
                tl.store(by_second + v, pulled_second, mask=inside)
                start += BLOCK
        elif reads_a:
            zero = tl.load(now + tl.where(kind == _JUMP_IF_ZERO, address, following.to(tl.int64)))
            rest = tl.load(now + tl.where(kind == _JUMP_IF_ZERO, following.to(tl.int64), address))
            start = tl.cast(0, tl.int64)
            while start < values:
                v = start + lane
                tl.store(by_a + v, tl.where(v == 0, zero, rest), mask=v < values)
                start += BLOCK
        tl.debug_barrier()

        if FIELDS:  # noqa: SIM102  (a constant, and a number of the device)
            if pc < size:
                at_row = pc.to(tl.int64) * OPERATIONS + operation
                tl.store(g_operation + at_row, tl.load(g_operation + at_row) + tl.load(by_operation + operation))
                banks = bank_lane < count
                at_bank = pc.to(tl.int64) * count + bank_lane
                held = tl.load(registers + bank_lane, mask=banks, other=0).to(tl.int64)
                if reads_a:
                    more = tl.load(by_a + held, mask=banks, other=0.0)
                    tl.store(
                        g_source_a + at_bank, tl.load(g_source_a + at_bank, mask=banks, other=0.0) + more, mask=banks
                    )
                if reads_b | stored:
                    more = tl.load(by_second + held, mask=banks & reads_b, other=0.0)
                    more += tl.load(g_memory + at * values + held, mask=banks & stored, other=0.0)
                    tl.store(
                        g_source_b + at_bank, tl.load(g_source_b + at_bank, mask=banks, other=0.0) + more, mask=banks
                    )
                if writes:
                    more = tl.load(g_registers + bank_lane * values + result, mask=banks, other=0.0) + kept_register
                    more = tl.where(bank_lane == target, 0.0, more)
                    tl.store(g_target + at_bank, tl.load(g_target + at_bank, mask=banks, other=0.0) + more, mask=banks)
                if reads_word | reads_address:
                    start = tl.cast(0, tl.int64)
                    while start < entries:
                        e = start + lane
                        fits = e < entries
                        gained = tl.load(by_second + (e & mask), mask=fits & reads_word, other=0.0)
                        aim = tl.minimum(e, size.to(tl.int64))
                        gained += tl.load(now + aim, mask=fits & reads_address, other=0.0)
                        immediate_at = g_immediate + pc.to(tl.int64) * entries + e
                        tl.store(immediate_at, tl.load(immediate_at, mask=fits, other=0.0) + gained, mask=fits)
                        start += BLOCK

        # The program counter: a gather over all instructions.
        start = tl.cast(0, tl.int64)
        while start < addresses:
            q = start + lane
            fits = q < addresses
            entry_q = tl.load(rows + 4 * addresses + q, mask=fits, other=0).to(tl.int64)
            word_q, address_q = entry_q & mask, tl.minimum(entry_q, size.to(tl.int64))
            target_q = tl.load(rows + 3 * addresses + q, mask=fits, other=0)
            next_q = tl.minimum(q + 1, size.to(tl.int64))
            a_q = tl.load(rows + addresses + q, mask=fits, other=0)
            b_q = tl.load(rows + 2 * addresses + q, mask=fits, other=0)
            a_q = tl.load(registers + a_q, mask=fits, other=0).to(tl.int64)
            b_q = tl.load(registers + b_q, mask=fits, other=0).to(tl.int64)
            if JOINT:
                number_q = tl.load(rows + q, mask=fits, other=0)
                kind_q = number_q & 127
                y = tl.where((number_q & _FLAG) != 0, word_q, b_q)
                x = a_q + ((word_q ^ half) - half)
                inside = fits & (x >= 0) & (x < words)
                plain = fits & (kind_q > _HALT) & (kind_q < _STORE)
                z = _word(kind_q, a_q, y, width, True)
                held = tl.load(memory + x, mask=inside & (kind_q == _LOAD), other=0).to(tl.int64)
                z = tl.where(kind_q == _LOAD, held, z)
                before = tl.load(g_registers + target_q * values + z, mask=plain, other=0.0)
                before -= tl.where(plain & writes & (target_q == target), kept_register, 0.0)
                puts = inside & (kind_q == _STORE)
                before += tl.load(g_memory + x * values + b_q, mask=puts, other=0.0)
                before -= tl.where(puts & stored & (x == at), kept_memory, 0.0)
                calls = fits & (kind_q == _CALL) & (depth < call_depth)
                before += tl.load(g_stack + depth * addresses + next_q, mask=calls & (depth < levels), other=0.0)
                before -= tl.where(calls, kept_stack, 0.0)
                returns = (kind_q == _RETURN) & (depth > 0)
                halts = (kind_q == _HALT) | ((kind_q == _RETURN) & (depth == 0))
                takes = (kind_q == _JUMP) | (kind_q == _CALL) | ((kind_q == _JUMP_IF_ZERO) & (a_q == 0))
                takes = takes | ((kind_q == _JUMP_IF_NOT_ZERO) & (a_q != 0))
                goes = tl.where(takes, address_q, next_q)
                goes = tl.where(returns, popped.to(tl.int64), tl.where(halts, q, goes))
                before += tl.load(now + goes, mask=fits, other=0.0) + tl.where(halts, halting, 0.0) + nothing
                deeper = tl.where(calls, 1, tl.where(returns, -1, 0))
                before += tl.load(levels_now + depth + deeper, mask=fits & (depth + deeper <= levels), other=0.0)
            else:
                code_q = tl.load(rows + 5 * addresses + q, mask=fits, other=0)
                before = tl.load(by_operation + code_q, mask=fits, other=0.0)
                if reads_a:
                    before += tl.load(by_a + a_q, mask=fits, other=0.0)
                before += tl.load(by_second + b_q, mask=fits & reads_b, other=0.0)
                before += tl.load(g_memory + at * values + b_q, mask=fits & stored, other=0.0)
                if writes:
                    more = tl.load(g_registers + target_q * values + result, mask=fits, other=0.0) + kept_register
                    before += tl.where(target_q == target, 0.0, more)
                before += tl.load(by_second + word_q, mask=fits & reads_word, other=0.0)
                before += tl.load(now + address_q, mask=fits & reads_address, other=0.0)
                goes_on = (stays == 0) & (pushed == 0) & (reads_address == 0) & (kind != _RETURN)
                before += tl.load(now + tl.where(stays, q, next_q), mask=fits & (stays | goes_on), other=0.0)
                before += tl.load(g_stack + depth * addresses + next_q, mask=fits & pushed, other=0.0)
                before *= factor
            tl.store(g_counter + other_counter + q, before, mask=fits)
            start += BLOCK
        tl.debug_barrier()
        if JOINT:
            actual = tl.load(g_counter + other_counter + pc)
            tl.debug_barrier()
            start = tl.cast(0, tl.int64)
            while start < addresses:
                q = start + lane
                before = tl.load(g_counter + other_counter + q, mask=q < addresses, other=0.0)
                tl.store(g_counter + other_counter + q, factor * (before - actual), mask=q < addresses)
                start += BLOCK

        # Depth and stack.
        if (kind == _CALL) | (kind == _RETURN):
            up = (kind == _CALL).to(tl.int32)
            # What the actual depth would find, then what every depth finds less that.
            actual = tl.cast(0.0, tl.float64)
            turn = tl.cast(0, tl.int32)
            while turn < 2:
                start = tl.cast(0, tl.int64)
                while start <= levels:
                    q = tl.where(turn == 0, depth.to(tl.int64), start + lane)
                    fits = q <= levels
                    if up > 0:
                        found = tl.load(levels_now + tl.minimum(q + 1, levels), mask=fits, other=0.0)
                        keeps = fits & ((q != depth) | (pushed == 0))
                        found += tl.where(keeps, kept_stack, 0.0)
                        keeps = keeps & (q < levels)
                        found += tl.load(g_stack + q * addresses + following, mask=keeps, other=0.0)
                    else:
                        found = tl.load(levels_now + tl.where(q > 0, q - 1, 0), mask=fits, other=0.0)
                        back = tl.load(stack + q - 1, mask=fits & (q > 0) & (q <= call_depth), other=0)
                        found += tl.load(now + tl.where(q > 0, back, pc), mask=fits, other=0.0)
                        found += tl.where(q == 0, halting, 0.0)
                    if turn == 0:
                        actual = tl.max(found, 0)
                        start += levels + 1
                    else:
                        tl.store(g_depth + other_level + q, found - actual, mask=fits)
                        start += BLOCK
                turn += 1
            tl.debug_barrier()
            start = tl.cast(0, tl.int64)
            while start < addresses:
                q = start + lane
                fits = q < addresses
                if pushed:
                    tl.store(g_stack + depth * addresses + q, tl.zeros_like(q).to(tl.float64), mask=fits)
                elif (kind == _RETURN) & (stays == 0):
                    gained = tl.load(now + q, mask=fits, other=0.0)
                    popped_row = g_stack + (depth - 1) * addresses + q
                    tl.store(popped_row, tl.load(popped_row, mask=fits, other=0.0) + gained, mask=fits)
                start += BLOCK
            level_at, other_level = other_level, level_at

        # Registers and memory.
        loaded = (kind == _LOAD) & in_memory
        if writes | (kind == _STORE) | reads_a:
            start = tl.cast(0, tl.int64)
            while start < values:
                v = start + lane
                fits = v < values
                if loaded:
                    gained = tl.load(row + v, mask=fits, other=0.0)
                    place = g_memory + cell * values + v
                    tl.store(place, tl.load(place, mask=fits, other=0.0) + gained, mask=fits)
                tl.debug_barrier()
                tl.store(row + v, tl.zeros_like(v).to(tl.float64), mask=fits & writes)
                tl.debug_barrier()
                if reads_a:
                    place = g_registers + source_a * values + v
                    gained = tl.load(by_a + v, mask=fits, other=0.0)
                    tl.store(place, tl.load(place, mask=fits, other=0.0) + gained, mask=fits)
                tl.debug_barrier()
                if reads_b | stored:
                    place = g_registers + source_b * values + v
                    gained = tl.load(by_second + v, mask=fits & reads_b, other=0.0)
                    gained += tl.load(g_memory + at * values + v, mask=fits & stored, other=0.0)
                    tl.store(place, tl.load(place, mask=fits, other=0.0) + gained, mask=fits)
                tl.debug_barrier()
                tl.store(g_memory + at * values + v, tl.zeros_like(v).to(tl.float64), mask=fits & stored)
                start += BLOCK
        tl.debug_barrier()
        counter, other_counter = other_counter, counter
        halting = halting_before
        step -= 1
    tl.store(g_halted + machine, halting)
