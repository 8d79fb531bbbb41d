"""The exact engine: the machine on integers, for answering and for trying candidates during training.

Four ways to execute the same instructions, all equal in every register, word, fault and step count:

- ``reference_step`` is the definition: one instruction, straight from the table in ``operations``. It is slow and
  drives traces, tests and the last instruction of the portable path.
- the native path: an interpreter loop compiled by numba, over a batch of machines.
- the portable path, where numba is not installed: basic blocks translated to Python source. It handles the usual case
  of every instruction; at anything else (a fault, a halt, no steps left) it stops *before* the instruction and lets
  ``reference_step`` go on. So its faults cannot differ from the definition's.
- on a CUDA device, where one is asked for: one Triton kernel for a batch of thousands of machines, in ``cuda``.

All fast paths keep words as two's complement integers −V/2…V/2−1, which fit 32 bits for every V ≤ 2**32. Those of the CPU mark
the pages of memory that a run writes, so that the memory is wiped between short runs at the cost of what they touched.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np

from ...configuration.machine_config import MachineConfig
from .operations import CODES, FIELDS, JUMPS, OPERATIONS, Fault, address, evaluate, signed
from .state import (
    FinalStates,
    MachineError,
    MachineState,
    RunResult,
    SoftProgramError,
    TraceStep,
    check_arguments,
    code_points,
    decode,
    initial_state,
    result,
    result_range,
)

Instruction = tuple[int, int, int, int, int]

# ---------------------------------------------------------------------------------------------------------------------
# Validation: after it, every engine may trust the fields
# ---------------------------------------------------------------------------------------------------------------------


def validated(instructions: np.ndarray, config: MachineConfig) -> np.ndarray:
    """The instructions as int64 [P, 5], with the immediates that no operation reads set to 0.

    Raises:
        SoftProgramError: they are distributions, a ``SoftProgram``.
        MachineError: naming the first instruction with a field out of range. Operations are known codes, registers
            0…R−1, jump and call targets 0…P−1, other immediates −V/2…V/2−1.
    """
    if all(hasattr(instructions, name) for name in FIELDS):
        raise _soft(instructions)
    code = np.asarray(instructions)
    if code.ndim != 2 or code.shape[1] != len(FIELDS) or not len(code) or not np.issubdtype(code.dtype, np.integer):
        raise MachineError(
            f"instructions must be integers of shape [P, {len(FIELDS)}] with P ≥ 1, found {code.dtype} {code.shape}"
        )
    code = code.astype(np.int64)
    _refuse(code, 0, 0, len(OPERATIONS) - 1, np.ones(len(code), bool))
    for field in (1, 2, 3):
        _refuse(code, field, 0, config.registers - 1, np.ones(len(code), bool))
    targets = JUMPS[code[:, 0]]
    words = np.array(["i" in operation.operands for operation in OPERATIONS])[code[:, 0]]
    _refuse(code, 4, 0, len(code) - 1, targets)
    _refuse(code, 4, -config.half, config.half - 1, words)
    code[~(targets | words), 4] = 0
    return code


def _soft(program: Any) -> SoftProgramError:
    """The error for a ``SoftProgram``, which names the field that is farthest from one-hot."""
    rows = [np.asarray(getattr(program, name).detach().cpu().double()) for name in FIELDS]
    distances = np.stack([abs(row - np.eye(row.shape[1])[row.argmax(-1)]).max(-1) for row in rows], axis=1)
    # A weight that is not finite is farther than any other.
    instruction, field = divmod(int(np.where(np.isfinite(distances), distances, np.inf).argmax()), len(FIELDS))
    name, distance, count = FIELDS[field], float(distances[instruction, field]), int((~(distances <= 1e-6)).sum())
    if not np.isfinite(distance):
        found = f"{name} of instruction {instruction} has weights that are not finite"
    elif count:
        weight, entry = rows[field][instruction].max(), int(rows[field][instruction].argmax())
        found = (
            f"{count} of its fields are soft, most of all {name} of instruction {instruction}: its greatest weight is "
            f"{weight:.6g}, of entry {entry}, {distance:.6g} from one-hot"
        )
    else:
        found = "all its fields are one-hot"
    return SoftProgramError(
        f"instructions must be integers of shape [P, {len(FIELDS)}], found a program of distributions, and {found}; run "
        "discretised(program, config) of machine.learning, or the distributions on the dense engine",
        name, instruction, distance,
    )  # fmt: skip


def _refuse(code: np.ndarray, field: int, least: int, most: int, rows: np.ndarray) -> None:
    wrong = rows & ((code[:, field] < least) | (code[:, field] > most))
    if wrong.any():
        where = int(wrong.argmax())
        number = int(code[where, 0])
        name = OPERATIONS[number].name if 0 <= number < len(OPERATIONS) else "unknown"
        raise MachineError(
            f"instruction {where} ({name}): {FIELDS[field]} must be {least}…{most}, found {code[where, field]}"
        )


# ---------------------------------------------------------------------------------------------------------------------
# The definition
# ---------------------------------------------------------------------------------------------------------------------


def reference_step(
    instructions: Sequence[Instruction], state: MachineState, config: MachineConfig, total: bool = False
) -> None:
    """Executes one instruction, in place.

    Args:
        instructions: validated, P of them.
        state: neither halted nor faulted (with ``total``: not halted).
        config: the shape of the machine.
        total: go on after a fault with the edge value of the table in ``operations``, as the dense engine does. Without
            it an instruction that faults changes nothing but ``fault`` and ``steps``.
    """
    at = state.program_counter
    if at >= len(instructions):
        state.fault = state.fault or Fault.bad_program_counter
        state.halted = total
        return
    state.steps += 1
    code, source_a, source_b, target, immediate = instructions[at]
    a, b = state.registers[source_a], state.registers[source_b]
    operation = OPERATIONS[code]
    fault, following = Fault.none, at + 1
    value: int | None = None  # what the target register receives
    location: int | None = None  # where b is stored
    pushed = popped = halted = False

    if operation.semantics is not None:
        value, fault = evaluate(code, a, b, immediate, config.values)
    elif operation.kind == "memory":
        offset = signed(b, config.values) if operation.name == "index" else immediate
        where, fault = address(a, offset, config.memory)
        if operation.name == "load":
            value = state.memory[where] if not fault else 0
        elif operation.name != "store":
            value = where % config.values
        elif not fault:
            location = where
    elif operation.name == "halt":
        halted, following = True, at
    elif operation.name == "call":
        following, pushed = immediate, len(state.stack) < config.call_depth
        fault = Fault.none if pushed else Fault.stack_overflow
    elif operation.name == "return":
        popped = bool(state.stack)
        if popped:
            following = state.stack[-1]
        else:
            fault, halted, following = Fault.stack_underflow, True, at
    elif operation.kind == "control":
        taken = operation.name == "jump" or (a == 0) == (operation.name == "jump_if_zero")
        following = immediate if taken else following
    elif operation.name == "check":
        inside = 0 <= signed(a, config.values) < signed(b, config.values)
        fault = Fault.none if inside else Fault.index_out_of_range
    else:
        fault = Fault.none if a < b else Fault.out_of_memory

    state.fault = state.fault or fault
    if fault and not total:
        return
    if value is not None:
        state.registers[target] = value
    if location is not None:
        state.memory[location] = b
    if pushed:
        state.stack.append(at + 1)
    if popped:
        state.stack.pop()
    state.program_counter, state.halted = following, halted


def reference_run(
    instructions: Sequence[Instruction], state: MachineState, config: MachineConfig, max_steps: int
) -> None:
    """Steps until the machine halts, faults, or has executed ``max_steps`` instructions and would need another."""
    while not state.halted and not state.fault:
        if state.steps >= max_steps:
            state.fault = Fault.out_of_steps
        else:
            reference_step(instructions, state, config)


# ---------------------------------------------------------------------------------------------------------------------
# The native path
# ---------------------------------------------------------------------------------------------------------------------

# The compiled loop has numbers of its own for the operations. numba's disk cache watches this file only: were the
# numbers imported, a change of ``operations`` would go unnoticed and an old loop would run with a new meaning.
_HALT, _CONSTANT, _MOVE, _ADD, _SUBTRACT, _MULTIPLY, _DIVIDE, _MODULO = 0, 1, 2, 3, 4, 5, 6, 7
_MIN, _MAX, _EQUAL, _LESS_THAN, _AND, _OR, _XOR, _SHIFT_LEFT, _SHIFT_RIGHT = 8, 9, 10, 11, 12, 13, 14, 15, 16
_ADD_IMMEDIATE, _MULTIPLY_IMMEDIATE, _EQUAL_IMMEDIATE, _LESS_IMMEDIATE = 17, 18, 19, 20
_INDEX, _INDEX_IMMEDIATE, _LOAD, _STORE, _JUMP, _JUMP_IF_ZERO, _JUMP_IF_NOT_ZERO = 21, 22, 23, 24, 25, 26, 27
_CALL, _RETURN, _CHECK, _GUARD, _PAST_THE_END = 28, 29, 30, 31, 32

_NATIVE_CODES = {operation.name: globals()[f"_{operation.name.upper()}"] for operation in OPERATIONS}

_PAGE = 6  # log2 of the words in a page of the dirty map

# The faults, for the same reason as numbers.
_OVERFLOW, _DIVISION_BY_ZERO, _WILD_ACCESS, _INDEX_OUT_OF_RANGE, _OUT_OF_MEMORY = 1, 2, 3, 4, 5
_STACK_OVERFLOW, _STACK_UNDERFLOW, _BAD_PROGRAM_COUNTER, _OUT_OF_STEPS = 6, 7, 8, 9


def _packed(code: np.ndarray) -> np.ndarray:
    """Instructions as uint64 [P + 1]: operation, a, b, target in a byte each, the immediate in the upper half.

    The row past the end holds an operation that only faults, so that the loop need not test its program counter:
    every address in a validated instruction or on the call stack is 0…P.
    """
    numbers = np.array([_NATIVE_CODES[operation.name] for operation in OPERATIONS], dtype=np.int64)
    word = numbers[code[:, 0]] | code[:, 1] << 8 | code[:, 2] << 16 | code[:, 3] << 24
    word |= (code[:, 4] & 0xFFFFFFFF) << 32
    return np.append(word, _PAST_THE_END).astype(np.uint64)


def _interpret(  # pragma: no cover - runs compiled
    code: np.ndarray,
    registers: np.ndarray,
    memory: np.ndarray,
    program_counters: np.ndarray,
    steps: np.ndarray,
    faults: np.ndarray,
    image: np.ndarray,
    image_bounds: np.ndarray,
    output: np.ndarray,
    output_bounds: np.ndarray,
    call_depth: int,
    max_steps: int,
    values: int,
    scratch: bool,
) -> np.ndarray:
    """The interpreter loop, for numba. Runs B machines, one after the other.

    Args:
        code: ``_packed`` instructions, uint64 [P + 1].
        registers: two's complement, int64 [B, R], in and out.
        memory: two's complement, int32 [B, N], in and out; with ``scratch`` [1, N], all zero, in turn used by every run
            and wiped after it.
        program_counters, steps, faults: int64 [B]; the first is the entry before and the last address after.
        image, image_bounds: with ``scratch``, the words that run k finds in memory from address 1 on are
            ``image[image_bounds[k]:image_bounds[k + 1]]``; uint32 [characters], int64 [B + 1].
        output, output_bounds: with ``scratch``, the same for the texts of the results; uint32 [any], int64 [B + 1].
        call_depth, max_steps, values: of the machine.
        scratch: the whole of a call in text, instead of the bare execution.

    Returns:
        ``output``, or the larger array that took its place when it was full.
    """
    mask = values - 1
    most = values // 2 - 1
    least = -most - 1
    width = 0
    while values >> (width + 1):
        width += 1
    words = memory.shape[1]
    dirty = np.zeros(((words >> _PAGE) + 8) & ~7, np.uint8)
    eights = dirty.view(np.uint64)  # few pages of many are written: eight are looked at at once
    stack = np.empty(call_depth, np.int32)
    for run in range(len(program_counters)):
        r = registers[run]
        m = memory[0 if scratch else run]
        if scratch:
            first, last = image_bounds[run], image_bounds[run + 1]
            for offset in range(last - first):
                point = np.int64(image[first + offset])
                m[1 + offset] = np.int32(point - values if point > most else point)
            for page in range(((last - first) >> _PAGE) + 1):
                dirty[page] = 1
        pc = program_counters[run]
        count = 0
        depth = 0
        fault = 0
        while True:
            if count >= max_steps:
                fault = _OUT_OF_STEPS
                break
            # Unsigned indices spare numba's test for negative ones. All are in range by validation, addresses are
            # tested here.
            word = code[np.uint64(pc)]
            operation = np.uint8(word)
            a = (word >> np.uint64(8)) & np.uint64(255)
            b = (word >> np.uint64(16)) & np.uint64(255)
            t = (word >> np.uint64(24)) & np.uint64(255)
            i = np.int64(word) >> 32
            count += 1
            pc += 1
            if operation == _LOAD:
                x = (r[a] & mask) + i
                if x < 0 or x >= words:
                    fault = _WILD_ACCESS
                    break
                r[t] = m[np.uint64(x)]
            elif operation == _STORE:
                x = (r[a] & mask) + i
                if x < 0 or x >= words:
                    fault = _WILD_ACCESS
                    break
                m[np.uint64(x)] = np.int32(r[b])
                dirty[np.uint64(x >> _PAGE)] = 1
            elif operation in (_ADD, _SUBTRACT, _MULTIPLY):
                if operation == _ADD:
                    x = r[a] + r[b]
                elif operation == _SUBTRACT:
                    x = r[a] - r[b]
                else:
                    x = r[a] * r[b]
                if x < least or x > most:
                    fault = _OVERFLOW
                    break
                r[t] = x
            elif operation in (_ADD_IMMEDIATE, _MULTIPLY_IMMEDIATE):
                x = r[a] + i if operation == _ADD_IMMEDIATE else r[a] * i
                if x < least or x > most:
                    fault = _OVERFLOW
                    break
                r[t] = x
            elif operation == _JUMP:
                pc = i
            elif operation == _JUMP_IF_ZERO:
                if r[a] == 0:
                    pc = i
            elif operation == _JUMP_IF_NOT_ZERO:
                if r[a] != 0:
                    pc = i
            elif operation == _CONSTANT:
                r[t] = i
            elif operation == _MOVE:
                r[t] = r[a]
            elif operation == _EQUAL:
                r[t] = 1 if r[a] == r[b] else 0
            elif operation == _LESS_THAN:
                r[t] = 1 if r[a] < r[b] else 0
            elif operation == _EQUAL_IMMEDIATE:
                r[t] = 1 if r[a] == i else 0
            elif operation == _LESS_IMMEDIATE:
                r[t] = 1 if r[a] < i else 0
            elif operation in (_INDEX, _INDEX_IMMEDIATE):
                x = (r[a] & mask) + (r[b] if operation == _INDEX else i)
                if x < 0 or x >= words:
                    fault = _WILD_ACCESS
                    break
                r[t] = x - values if x > most else x
            elif operation == _CHECK:
                if r[a] < 0 or r[a] >= r[b]:
                    fault = _INDEX_OUT_OF_RANGE
                    break
            elif operation == _GUARD:
                if (r[a] & mask) >= (r[b] & mask):
                    fault = _OUT_OF_MEMORY
                    break
            elif operation == _CALL:
                if depth >= call_depth:
                    fault = _STACK_OVERFLOW
                    break
                stack[np.uint64(depth)] = np.int32(pc)
                depth += 1
                pc = i
            elif operation == _RETURN:
                if depth == 0:
                    fault = _STACK_UNDERFLOW
                    break
                depth -= 1
                pc = np.int64(stack[np.uint64(depth)])
            elif operation in (_DIVIDE, _MODULO):
                if r[b] == 0:
                    fault = _DIVISION_BY_ZERO
                    break
                x = r[a] // r[b] if operation == _DIVIDE else r[a] % r[b]
                if x > most:
                    fault = _OVERFLOW
                    break
                r[t] = x
            elif operation == _MIN:
                r[t] = min(r[a], r[b])
            elif operation == _MAX:
                r[t] = max(r[a], r[b])
            elif operation == _AND:
                r[t] = r[a] & r[b]
            elif operation == _OR:
                r[t] = r[a] | r[b]
            elif operation == _XOR:
                r[t] = r[a] ^ r[b]
            elif operation == _SHIFT_LEFT:
                if r[b] < 0 or (r[b] >= width and r[a] != 0):
                    fault = _OVERFLOW
                    break
                x = r[a] << min(r[b], width)
                if x < least or x > most:
                    fault = _OVERFLOW
                    break
                r[t] = x
            elif operation == _SHIFT_RIGHT:
                if r[b] < 0:
                    fault = _OVERFLOW
                    break
                r[t] = r[a] >> min(r[b], width)
            elif operation == _HALT:
                pc -= 1
                break
            else:
                fault = _BAD_PROGRAM_COUNTER
                count -= 1  # no instruction was executed
                break
        program_counters[run] = pc - 1 if fault != 0 and fault != _OUT_OF_STEPS else pc
        steps[run] = count
        if scratch:
            first, length = r[0] & mask, r[1]
            end = output_bounds[run]
            if fault == 0 and (length < 0 or first + length > words):
                fault = _WILD_ACCESS
            if fault == 0:
                if end + length > len(output):
                    grown = np.empty(2 * (end + length), np.uint32)
                    for offset in range(end):
                        grown[offset] = output[offset]
                    output = grown
                for offset in range(length):
                    point = np.int64(m[first + offset]) & mask
                    if point >= 0x110000 or (point >= 0xD800 and point < 0xE000):
                        fault = _WILD_ACCESS
                        break
                    output[end + offset] = np.uint32(point)
            output_bounds[run + 1] = end + length if fault == 0 else end
            for eight in range(len(eights)):
                if eights[eight] != 0:
                    for page in range(eight << 3, (eight + 1) << 3):
                        if dirty[page]:
                            for offset in range(page << _PAGE, min((page + 1) << _PAGE, words)):
                                m[offset] = 0
                    eights[eight] = 0
        faults[run] = fault
    return output


@cache
def _native() -> Callable[..., np.ndarray] | None:
    """The compiled loop, or None without a working numba. The import waits until something runs: it takes a while."""
    from .native import compiled, numba

    return None if numba is None else compiled(_interpret)


# ---------------------------------------------------------------------------------------------------------------------
# The portable path
# ---------------------------------------------------------------------------------------------------------------------

_TRANSLATED = 8_000
"""Instructions translated for one entry, which bounds the time to compile a stranger's library. Code beyond them is
executed by ``reference_step``."""

# Source of each operation: {a} {b} {t} are registers as local variables, {i} the immediate, {stop} leaves the
# translated code before the instruction. x is a scratch variable.
_IN_RANGE = "if x > {most} or x < {least}: {stop}"
_IN_MEMORY = "if not 0 <= x < {words}: {stop}"
# fmt: off
_SOURCE: dict[str, tuple[str, ...]] = {
    "constant":           ("{t} = {i}",),
    "move":               ("{t} = {a}",),
    "add":                ("x = {a} + {b}", _IN_RANGE, "{t} = x"),
    "subtract":           ("x = {a} - {b}", _IN_RANGE, "{t} = x"),
    "multiply":           ("x = {a} * {b}", _IN_RANGE, "{t} = x"),
    "divide":             ("x = {a} // {b} if {b} else {values}", _IN_RANGE, "{t} = x"),
    "modulo":             ("if not {b}: {stop}", "{t} = {a} % {b}"),
    "min":                ("{t} = {a} if {a} < {b} else {b}",),
    "max":                ("{t} = {a} if {a} > {b} else {b}",),
    "equal":              ("{t} = 1 if {a} == {b} else 0",),
    "less_than":          ("{t} = 1 if {a} < {b} else 0",),
    "and":                ("{t} = {a} & {b}",),
    "or":                 ("{t} = {a} | {b}",),
    "xor":                ("{t} = {a} ^ {b}",),
    "shift_left":         ("x = {a} << {b} if 0 <= {b} < {width} else {values} if {a} or {b} < 0 else 0",
                           _IN_RANGE, "{t} = x"),
    "shift_right":        ("if {b} < 0: {stop}", "{t} = {a} >> {b}"),
    "add_immediate":      ("x = {a} + {i}", _IN_RANGE, "{t} = x"),
    "multiply_immediate": ("x = {a} * {i}", _IN_RANGE, "{t} = x"),
    "equal_immediate":    ("{t} = 1 if {a} == {i} else 0",),
    "less_immediate":     ("{t} = 1 if {a} < {i} else 0",),
    "index":              ("x = ({a} & {mask}) + {b}", _IN_MEMORY, "{t} = x - {values} if x > {most} else x"),
    "index_immediate":    ("x = ({a} & {mask}) + {i}", _IN_MEMORY, "{t} = x - {values} if x > {most} else x"),
    "load":               ("x = ({a} & {mask}) + {i}", _IN_MEMORY, "{t} = memory[x]"),
    "store":              ("x = ({a} & {mask}) + {i}", _IN_MEMORY, "memory[x] = {b}", "dirty[x >> {page}] = 1"),
    "check":              ("if not 0 <= {a} < {b}: {stop}",),
    "guard":              ("if {a} & {mask} >= {b} & {mask}: {stop}",),
    "jump":               ("{leave}; pc = {i}; continue",),
    "jump_if_zero":       ("if not {a}: {leave}; pc = {i}; continue",),
    "jump_if_not_zero":   ("if {a}: {leave}; pc = {i}; continue",),
    "call":               ("if len(stack) >= {depth}: {stop}", "stack.append({next})", "{leave}; pc = {i}; continue"),
    "return":             ("if not stack: {stop}", "{leave}; pc = stack.pop(); continue"),
    "halt":               ("{stop}",),
}
# fmt: on
_NO_FALL_THROUGH = {CODES[name] for name in ("jump", "call", "return", "halt")}

_Translated = Callable[[int, int, list[int], list[int], bytearray, list[int]], tuple[int, int, tuple[int, ...]]]
"""(program counter, steps left, registers, memory, dirty, stack) → (program counter, steps left, registers), stopped
before an instruction that needs ``reference_step``."""


def _reachable(instructions: Sequence[Instruction], entry: int) -> tuple[set[int], list[int]]:
    """Addresses that can run from ``entry``, at most ``_TRANSLATED`` of them, and those where a block must start."""
    reached: set[int] = set()
    leaders, waiting = {entry}, [entry]
    while waiting and len(reached) < _TRANSLATED:
        at = waiting.pop()
        if at == len(instructions) or at in reached:
            continue
        reached.add(at)
        code, _, _, _, immediate = instructions[at]
        targets = [immediate] if "l" in OPERATIONS[code].operands else []
        if code == CODES["call"]:
            targets.append(at + 1)  # where the callee returns to
        leaders.update(targets)
        waiting += targets
        if code not in _NO_FALL_THROUGH:
            waiting.append(at + 1)
    return reached, sorted(leaders)


def _translate(instructions: Sequence[Instruction], entry: int, config: MachineConfig) -> _Translated:
    """Python code for all that ``entry`` can reach: registers as local variables, a binary search over the blocks."""
    reached, starts = _reachable(instructions, entry)
    leaders = set(starts)
    constants = {
        "values": config.values,
        "mask": config.values - 1,
        "most": config.half - 1,
        "least": -config.half,
        "width": config.bits,
        "words": config.memory,
        "depth": config.call_depth,
        "page": _PAGE,
    }

    def block(start: int, indent: str) -> list[str]:
        lines: list[str] = []
        at, done = start, 0
        while True:
            if at not in reached or (done and at in leaders):
                lines.append(f"{indent}steps -= {done}; pc = {at}; {'continue' if at in leaders and done else 'break'}")
                break
            code, a, b, t, i = instructions[at]
            fields = constants | {
                "a": f"r{a}",
                "b": f"r{b}",
                "t": f"r{t}",
                "i": i,
                "next": at + 1,
                "stop": f"steps -= {done}; pc = {at}; break",
                "leave": f"steps -= {done + 1}",
            }
            lines += [indent + line.format_map(fields) for line in _SOURCE[OPERATIONS[code].name]]
            done += 1
            if code in _NO_FALL_THROUGH:
                break
            at += 1
        # With fewer steps left than the block may take, the reference interpreter counts them out one by one.
        return [f"{indent}if steps < {done}: break", *lines]

    def search(low: int, high: int, indent: str) -> list[str]:
        if high - low == 1:
            return block(starts[low], indent)
        middle = (low + high) // 2
        left, right = search(low, middle, indent + " "), search(middle, high, indent + " ")
        return [f"{indent}if pc < {starts[middle]}:", *left, f"{indent}else:", *right]

    names = ", ".join(f"r{register}" for register in range(config.registers))
    source = [
        "def translated(pc, steps, registers, memory, dirty, stack):",
        f" {names} = registers",
        " while True:",
        *search(0, len(starts), "  "),
        f" return pc, steps, ({names})",
    ]
    # Safe although the instructions may come from a stranger: the source is made of the fixed templates above and of
    # Python integers that passed ``validated``; no text of the library enters it.
    namespace: dict[str, Any] = {"__builtins__": {"len": len}}
    exec(compile("\n".join(source), f"<program at {entry}>", "exec"), namespace)
    return namespace["translated"]


class _Words:
    """View of two's complement memory as words 0…V−1, for the few instructions that ``reference_step`` executes."""

    def __init__(self, memory: list[int], dirty: bytearray, values: int):
        self.memory, self.dirty, self.values = memory, dirty, values

    def __getitem__(self, at: int) -> int:
        return self.memory[at] % self.values

    def __setitem__(self, at: int, word: int) -> None:
        self.memory[at] = signed(word, self.values)
        self.dirty[at >> _PAGE] = 1


# ---------------------------------------------------------------------------------------------------------------------
# The engine
# ---------------------------------------------------------------------------------------------------------------------


class ExactMachine:
    """Runs validated instructions on integers. Never leaves its memory, always stops at ``max_steps``.

    Args:
        instructions: int64 [P, 5], columns as in ``operations.FIELDS``.
        config: the shape of the machine.
        portable: True for the path without numba, False to insist on numba, None for numba if it is installed.
        device: a CUDA device such as ``"cuda"`` that ``run_batch`` and ``execute`` run on, None for the CPU. It is for
            batches: a single machine is faster on the CPU.

    Raises:
        MachineError: an instruction is out of range (its address and field are named), numba is missing, or the device is
            not there.
    """

    def __init__(
        self,
        instructions: np.ndarray,
        config: MachineConfig,
        portable: bool | None = None,
        device: str | None = None,
    ):
        installed = importlib.util.find_spec("numba") is not None
        if portable is False and not installed:
            raise MachineError("the native path needs numba: pip install 'neurallib[fast]', or leave portable at None")
        self.config = config
        self.portable = not installed if portable is None else portable
        self.device = None
        if device is not None:
            from .cuda import device_of

            self.device = device_of(device)
        self._array = validated(instructions, config)
        self._code: list[Instruction] = [tuple(row) for row in self._array.tolist()]
        self._packed = _packed(self._array)
        self._programs: dict[int, _Translated] = {}
        # Wiped memories waiting for the next portable run; pop and append are atomic, so threads may share the machine.
        self._wiped: list[tuple[list[int], bytearray]] = []

    # -- text in, text out --------------------------------------------------------------------------------------------

    def run(
        self,
        entry: int,
        arguments: Sequence[str],
        *,
        max_steps: int | None = None,
        trace: Callable[[TraceStep], None] | None = None,
    ) -> RunResult:
        """Runs the program at ``entry`` on these texts.

        Args:
            entry: a code address, 0…P−1.
            arguments: at most six texts.
            max_steps: instead of the machine's own.
            trace: called with every step; the run is then executed by ``reference_step``, slowly.

        Raises:
            MachineError: no such entry, or the arguments do not fit the machine. Faults do not raise.
        """
        if trace is None:
            return self.run_batch([entry], [arguments], max_steps)[0]
        state = self._start(entry, arguments)
        for step in self._steps(state, self.config.max_steps if max_steps is None else max_steps):
            trace(step)
        return result(state, self.config)

    def run_batch(
        self, entries: Sequence[int], arguments: Sequence[Sequence[str]], max_steps: int | None = None
    ) -> list[RunResult]:
        """``run`` for B independent calls; all of them share one memory, wiped in between.

        Args:
            entries: a code address for each call.
            arguments: the texts for each call.
            max_steps: a bound for each call, instead of the machine's own.

        Raises:
            MachineError: as ``run``; nothing has run then.
        """
        if len(entries) != len(arguments):
            raise MachineError(
                f"{len(entries)} entries but {len(arguments)} lists of arguments; pass one of each a call"
            )
        limit = self.config.max_steps if max_steps is None else max_steps
        self._check_entries(entries)
        if self.device is not None:
            return self._run_on_device(entries, arguments, limit)
        kernel = None if self.portable else _native()
        if kernel is None:
            return [self._run_portable(entry, texts, limit) for entry, texts in zip(entries, arguments, strict=True)]
        image, bounds, registers = self._images(arguments)
        counters, steps, faults = self._columns(entries)
        output_bounds = np.zeros(len(entries) + 1, np.int64)
        memory = np.zeros((1, self.config.memory), np.int32)  # the system hands out zero pages when they are touched
        output = kernel(
            self._packed, registers, memory, counters, steps, faults, image, bounds, np.empty(4096, np.uint32),
            output_bounds, self.config.call_depth, limit, self.config.values, True,
        )  # fmt: skip
        return self._results(output[: output_bounds[-1]], output_bounds, steps, faults)

    def trace(self, entry: int, arguments: Sequence[str], limit: int = 10_000) -> Iterator[TraceStep]:
        """The first ``limit`` steps of a run, one by one, by ``reference_step``.

        Raises:
            MachineError: as ``run``.
        """
        return self._steps(self._start(entry, arguments), min(limit, self.config.max_steps))

    # -- bare states --------------------------------------------------------------------------------------------------

    def execute(
        self, entries: Sequence[int], registers: np.ndarray, memory: np.ndarray, max_steps: int | None = None
    ) -> FinalStates:
        """Runs B machines from given states, with no calling convention.

        Args:
            entries: B code addresses.
            registers: words, integers [B, R].
            memory: words, integers [B, N].
            max_steps: a bound for each run, instead of the machine's own.

        Raises:
            MachineError: a shape, a word or an entry is out of range.
        """
        self._check_states(entries, registers, memory)
        limit = self.config.max_steps if max_steps is None else max_steps
        if self.device is not None:
            from .cuda import execute

            return execute(self._array, self.config, entries, registers, memory, limit, self.device)
        counters, steps, faults = self._columns(entries)
        r, m = self._to_signed(registers, np.int64), self._to_signed(memory, np.int32)
        kernel = None if self.portable else _native()
        if kernel is not None:
            kernel(
                self._packed, r, m, counters, steps, faults, np.empty(0, np.uint32), np.zeros(1, np.int64),
                np.empty(0, np.uint32), np.zeros(1, np.int64), self.config.call_depth, limit, self.config.values, False,
            )  # fmt: skip
        else:
            for k in range(len(entries)):
                words = m[k].tolist()
                dirty = bytearray((self.config.memory >> _PAGE) + 1)
                state = self._execute_portable(entries[k], r[k].tolist(), words, dirty, limit)
                r[k], m[k] = self._to_signed(np.array(state.registers), np.int64), words
                counters[k], steps[k], faults[k] = state.program_counter, state.steps, state.fault
        mask = self.config.values - 1
        return FinalStates(r & mask, m.astype(np.int64) & mask, counters, steps, faults)

    def reference(
        self, entries: Sequence[int], registers: np.ndarray, memory: np.ndarray, max_steps: int | None = None
    ) -> FinalStates:
        """``execute`` by ``reference_step`` alone: the definition that the fast paths are tested against."""
        self._check_states(entries, registers, memory)
        limit = self.config.max_steps if max_steps is None else max_steps
        states = [
            MachineState(r, m, entry, [])
            for r, m, entry in zip(registers.tolist(), memory.tolist(), entries, strict=True)
        ]
        for state in states:
            reference_run(self._code, state, self.config, limit)
        return FinalStates(
            np.array([state.registers for state in states], np.int64).reshape(registers.shape),
            np.array([state.memory for state in states], np.int64).reshape(memory.shape),
            np.array([state.program_counter for state in states], np.int64),
            np.array([state.steps for state in states], np.int64),
            np.array([state.fault for state in states], np.int64),
        )

    # -- inside -------------------------------------------------------------------------------------------------------

    def _check_entries(self, entries: Sequence[int]) -> None:
        for entry in entries:
            if not 0 <= entry < len(self._code):
                raise MachineError(f"entry must be a code address 0…{len(self._code) - 1}, found {entry}")

    def _check_states(self, entries: Sequence[int], registers: np.ndarray, memory: np.ndarray) -> None:
        self._check_entries(entries)
        for name, array, columns in (
            ("registers", registers, self.config.registers),
            ("memory", memory, self.config.memory),
        ):
            if array.shape != (len(entries), columns):
                raise MachineError(f"{name} must have shape {(len(entries), columns)}, found {array.shape}")
            if array.size and (array.min() < 0 or array.max() >= self.config.values):
                raise MachineError(f"{name} must be words 0…{self.config.values - 1}")

    def _to_signed(self, words: np.ndarray, kind: type) -> np.ndarray:
        words = np.asarray(words, np.int64)
        return np.ascontiguousarray(np.where(words >= self.config.half, words - self.config.values, words), dtype=kind)

    @staticmethod
    def _columns(entries: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.array(entries, np.int64), np.zeros(len(entries), np.int64), np.zeros(len(entries), np.int64)

    def _images(self, arguments: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``state.initial_state`` for a batch: words from address 1 on, where each run's begin, and the registers."""
        # A header is a zero word, so a call's memory from address 1 on is its texts, each behind one NUL character.
        shapes: dict[tuple[int, ...], tuple[int, list[int]]] = {}  # lengths of the texts → words taken, registers
        pieces: list[str] = []
        taken: list[tuple[int, list[int]]] = []
        for texts in arguments:
            sizes = tuple(map(len, texts))
            shape = shapes.get(sizes)
            if shape is None:
                check_arguments(sizes, 0, self.config)
                free, row = 1, [0] * self.config.registers
                for position, size in enumerate(sizes):
                    row[2 * position], row[2 * position + 1] = free + 1, size
                    free += 1 + size
                row[-2], row[-1] = free, self.config.memory - 1
                shape = shapes[sizes] = free - 1, row
            taken.append(shape)
            for text in texts:
                pieces += ("\0", text)
        lengths, rows = [words for words, _ in taken], [row for _, row in taken]
        image = code_points("".join(pieces)).copy()
        check_arguments([], int(image.max(initial=0)), self.config)
        bounds = np.array([0, *accumulate(lengths)], np.int64)
        registers = np.array(rows, np.int64).reshape(-1, self.config.registers)
        return image, bounds, self._to_signed(registers, np.int64)

    @staticmethod
    def _results(
        output: np.ndarray, output_bounds: np.ndarray, steps: np.ndarray, faults: np.ndarray
    ) -> list[RunResult]:
        characters = output.tobytes().decode("utf-32-le")
        ends = output_bounds.tolist()
        return [
            RunResult(None, count, Fault(fault)) if fault else RunResult(characters[start:end], count, Fault.none)
            for start, end, count, fault in zip(ends, ends[1:], steps.tolist(), faults.tolist(), strict=False)
        ]

    def _run_on_device(self, entries: Sequence[int], arguments: Sequence[Sequence[str]], limit: int) -> list[RunResult]:
        from .cuda import run_texts

        assert self.device is not None
        image, bounds, registers = self._images(arguments)
        return self._results(
            *run_texts(self._array, self.config, entries, registers, image, bounds, limit, self.device)
        )

    def _start(self, entry: int, arguments: Sequence[str]) -> MachineState:
        self._check_entries([entry])
        return initial_state(arguments, entry, self.config)

    def _steps(self, state: MachineState, limit: int) -> Iterator[TraceStep]:
        while not state.halted and not state.fault:
            at = state.program_counter
            if state.steps >= limit:
                state.fault = Fault.out_of_steps
                return
            row = self._code[at] if at < len(self._code) else None
            before = list(state.registers)
            base = before[row[1]] if row else 0
            reference_step(self._code, state, self.config)
            if row is None:
                return
            operation = OPERATIONS[row[0]]
            changed: dict[int, int] = {}
            written: dict[int, int] = {}
            if not state.fault and "t" in operation.operands:
                changed[row[3]] = state.registers[row[3]]
            if not state.fault and operation.name == "store":
                written[base + row[4]] = state.memory[base + row[4]]
            yield TraceStep(at, operation.name, row, changed, written, state.fault)

    def _run_portable(self, entry: int, texts: Sequence[str], limit: int) -> RunResult:
        points = [list(map(ord, text)) if text.isascii() else code_points(text).tolist() for text in texts]
        check_arguments(list(map(len, points)), max((max(p, default=0) for p in points), default=0), self.config)
        try:
            memory, dirty = self._wiped.pop()
        except IndexError:
            memory, dirty = [0] * self.config.memory, bytearray((self.config.memory >> _PAGE) + 1)
        registers, free = [0] * self.config.registers, 1
        half, values = self.config.half, self.config.values
        for position, argument in enumerate(points):
            registers[2 * position], registers[2 * position + 1] = free + 1, len(argument)
            memory[free + 1 : free + 1 + len(argument)] = [p - values if p >= half else p for p in argument]
            free += 1 + len(argument)
        registers[-2], registers[-1] = free, self.config.memory - 1
        for page in range((free >> _PAGE) + 1):
            dirty[page] = 1
        registers = [word - values if word >= half else word for word in registers]
        state = self._execute_portable(entry, registers, memory, dirty, limit)
        outcome = RunResult(None, state.steps, state.fault)
        if not state.fault:
            where = result_range(state.registers[0], state.registers[1], self.config)
            text = None if where is None else decode([word & (values - 1) for word in memory[where[0] : where[1]]])
            outcome = RunResult(text, state.steps, Fault.wild_access if text is None else Fault.none)
        page = dirty.find(1)
        while page >= 0:
            dirty[page] = 0
            first, last = page << _PAGE, min((page + 1) << _PAGE, self.config.memory)
            memory[first:last] = [0] * (last - first)
            page = dirty.find(1, page + 1)
        self._wiped.append((memory, dirty))
        return outcome

    def _execute_portable(
        self, entry: int, registers: list[int], memory: list[int], dirty: bytearray, limit: int
    ) -> MachineState:
        """Runs translated code as far as it goes, then ``reference_step``. Two's complement in, words out."""
        program = self._programs.get(entry)
        if program is None:
            program = self._programs[entry] = _translate(self._code, entry, self.config)
        stack: list[int] = []
        at, left, final = program(entry, limit, registers, memory, dirty, stack)
        words: Any = _Words(memory, dirty, self.config.values)
        state = MachineState([word % self.config.values for word in final], words, at, stack, steps=limit - left)
        reference_run(self._code, state, self.config, limit)
        return state
