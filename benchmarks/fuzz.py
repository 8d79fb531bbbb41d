"""Hostile programs, libraries and files, in large numbers: nothing crashes, leaves its memory or outruns its limit.

    python benchmarks/fuzz.py [--executions 10_000_000] [--processes 2] [--seed 0] [--json]

Five kinds of rounds, each made from one seed, which is printed if it finds anything:

- **states**: random instructions from random states, run by the native loop in buffers between guard cells. Every other
  machine of the batch stands on a halt: what a neighbour writes there is out of bounds. Some of the machines are run
  again by the portable path and by the reference interpreter, and must end in the same state.
- **texts**: compiled programs with mutated instructions on random texts, native in one batch (which shares a memory),
  native alone on a fresh machine, and portable.
- **gradients**: the compiled loops of the adjoint and the counterfactual gradient (``execute``, ``_backward``,
  ``alternatives``, ``first_right``) on random instructions and states, each array that they are given between guard cells.
  They must end where the portable path ends, and the loops themselves, uncompiled: an index past an array's end raises there.
- **dense**: random instructions on a small dense machine, tables and circuits, against the reference at every step.
- **files**: libraries with mutated JSON and tensors, hashes made to fit. Either they are refused by ``LibraryError``, or
  everything that can be done with a library can be done with them.

An execution is one run of one machine by one engine; the machines that only guard are not counted.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from neurallib.configuration.machine_config import MachineConfig
from neurallib.modeling_neurallib.compiler.compiling import compile_source
from neurallib.modeling_neurallib.library import NeuralLibrary
from neurallib.modeling_neurallib.library_errors import LibraryError
from neurallib.modeling_neurallib.library_files import CONFIG_FILE, TENSOR_FILE
from neurallib.modeling_neurallib.machine import adjoint, exact
from neurallib.modeling_neurallib.machine.exact import ExactMachine, reference_step
from neurallib.modeling_neurallib.machine.operations import OPERATIONS, Fault
from neurallib.modeling_neurallib.machine.state import MachineState
from safetensors.numpy import load, save

Random = np.random.Generator

CONFIGS = (
    MachineConfig(values=4, memory=4, registers=6, call_depth=1),
    MachineConfig(values=16, memory=16, registers=6, call_depth=2),
    MachineConfig(values=64, memory=5, registers=7, call_depth=3),
    MachineConfig(values=256, memory=200, registers=16, call_depth=8),
    MachineConfig(values=2**31, memory=70, registers=8, call_depth=2),
    MachineConfig(values=2**32, memory=130, registers=6, call_depth=1),
    MachineConfig(values=2**32, memory=64, registers=256, call_depth=64),
)
GRADIENT_CONFIGS = (
    *CONFIGS[:4],
    MachineConfig(values=8, memory=3, registers=256, call_depth=5),
    MachineConfig(values=1_024, memory=70, registers=6, call_depth=1),
)
TEXT_CONFIG = MachineConfig(memory=2_048, call_depth=64)
GUARD = 64
"""Guard cells on each side of a buffer."""

LIBRARY_SOURCE = '''
def first_letters(text: str, count: int) -> str:
    """The beginning of a text."""
    return text[:count]

def sorted_numbers(values: list[int]) -> list[int]:
    """Numbers in ascending order."""
    for i in range(1, len(values)):
        j = i
        while j > 0 and values[j - 1] > values[j]:
            values[j - 1], values[j] = values[j], values[j - 1]
            j -= 1
    return values

def depth(count: int) -> int:
    """A number, counted by calls."""
    if count <= 0:
        return 0
    return 1 + depth(count - 1)

def joined(first: str, second: str) -> str:
    """Two texts with every letter of one between those of the other."""
    pieces: list[str] = []
    for letter in first:
        pieces.append(letter + second)
    return "-".join(pieces)
'''


class Finding(AssertionError):
    """Something that must never happen."""


def require(true: Any, what: str) -> None:
    if not true:
        raise Finding(what)


# States


def random_code(random: Random, config: MachineConfig, longest: int = 40) -> np.ndarray:
    """Random valid instructions, int64 [P, 5], the last a halt. Small immediates are likely, so that loops are."""
    size = int(random.integers(1, longest))
    code = np.empty((size + 1, 5), np.int64)
    code[:, 0] = random.integers(0, len(OPERATIONS), size + 1)
    # Most programs would halt at once: only some halts stay.
    again = (code[:, 0] == 0) & (random.random(size + 1) < 0.8)
    code[again, 0] = random.integers(1, len(OPERATIONS), int(again.sum()))
    code[:, 1:4] = random.integers(0, random.choice([3, config.registers]), (size + 1, 3))
    near = np.clip(random.integers(-3, 4, size + 1), -config.half, config.half - 1)
    far = random.integers(-config.half, config.half, size + 1)
    code[:, 4] = np.where(random.random(size + 1) < 0.6, near, far)
    targets = np.array(["l" in operation.operands for operation in OPERATIONS])[code[:, 0]]
    code[targets, 4] = random.integers(0, size + 1, int(targets.sum()))
    code[-1] = 0
    return code


def random_words(random: Random, config: MachineConfig, shape: tuple[int, int]) -> np.ndarray:
    """Words of any value; those at the edges are likely."""
    edges = [0, 1, 2, config.memory - 1, config.memory % config.values, config.half - 1, config.half, config.values - 1]
    return np.where(random.random(shape) < 0.5, random.choice(edges, shape), random.integers(0, config.values, shape))


def guarded(content: np.ndarray, mark: int) -> tuple[np.ndarray, np.ndarray]:
    """A buffer with guard cells of this value around the content, and the view of the content within it."""
    buffer = np.full(content.size + 2 * GUARD, mark, content.dtype)
    view = buffer[GUARD : GUARD + content.size].reshape(content.shape)
    view[:] = content
    return buffer, view


def intact(buffer: np.ndarray, mark: int) -> bool:
    return bool((buffer[:GUARD] == mark).all() and (buffer[-GUARD:] == mark).all())


def states(random: Random, batch: int = 64, compared: int = 2) -> Counter[str]:
    """One round of random programs from random states."""
    config = CONFIGS[random.integers(len(CONFIGS))]
    code = random_code(random, config)
    machine = ExactMachine(code, config, portable=False)
    kernel = exact._native()
    require(kernel is not None, "numba is not installed: the native loop is what is to be tested")
    limit = int(random.choice([0, 1, 7, 60, 400]))
    entries = random.integers(0, len(code), 2 * batch)
    entries[1::2] = len(code) - 1  # the guards stand on the last halt
    registers = random_words(random, config, (2 * batch, config.registers))
    memory = random_words(random, config, (2 * batch, config.memory))
    r, m = machine._to_signed(registers, np.int64), machine._to_signed(memory, np.int32)
    code_buffer, code_view = guarded(machine._packed, 0)  # instructions 0 are halts: who reads them ends out of bounds
    register_buffer, register_view = guarded(r, -7_777)
    memory_buffer, memory_view = guarded(m, -7_777)
    counters, steps, faults = machine._columns(entries)
    kernel(  # type: ignore[misc]
        code_view, register_view, memory_view, counters, steps, faults, np.empty(0, np.uint32), np.zeros(1, np.int64),
        np.empty(0, np.uint32), np.zeros(1, np.int64), config.call_depth, limit, config.values, False,
    )  # fmt: skip
    require(intact(code_buffer, 0), "wrote around the code")
    require(np.array_equal(code_view, machine._packed), "wrote into the code")
    require(intact(register_buffer, -7_777), "wrote around the registers")
    require(intact(memory_buffer, -7_777), "wrote around the memory")
    require(np.array_equal(memory_view[1::2], m[1::2]), "wrote into a neighbour's memory")
    require(np.array_equal(register_view[1::2], r[1::2]), "wrote into a neighbour's registers")
    require(steps.max() <= limit and steps.min() >= 0, "ran past max_steps")
    require(counters.min() >= 0 and counters.max() <= len(code), "left the code")
    require(np.abs(register_view + 0.5).max() <= config.half, "a register is no word")
    require(np.abs(memory_view + 0.5).max() <= config.half, "a memory cell is no word")
    counts = Counter({"native": batch})
    chosen = 2 * random.choice(batch, compared, replace=False)
    if compared:
        for name, run in (
            ("portable", ExactMachine(code, config, portable=True).execute),
            ("reference", machine.reference),
        ):
            final = run(entries[chosen].tolist(), registers[chosen], memory[chosen], limit)
            for part, found in (("program_counters", counters), ("steps", steps), ("faults", faults)):
                require(np.array_equal(getattr(final, part), found[chosen]), f"{part} differ from {name}")
            mask = config.values - 1
            require(np.array_equal(final.registers, register_view[chosen] & mask), f"registers differ from {name}")
            require(
                np.array_equal(final.memory, memory_view[chosen].astype(np.int64) & mask), f"memory differs from {name}"
            )
            counts[name] += compared
    return counts


# Gradients


class Guarded:
    """Arrays between guard cells."""

    def __init__(self) -> None:
        self._buffers: list[tuple[str, np.ndarray, np.ndarray, np.ndarray | None]] = []

    def __call__(self, name: str, content: np.ndarray, constant: bool = False) -> np.ndarray:
        """A copy of the content between guard cells; a constant one must stay as it is."""
        buffer, view = guarded(np.ascontiguousarray(content), -77)
        self._buffers.append((name, buffer, view, view.copy() if constant else None))
        return view

    def check(self, loop: str) -> None:
        for name, buffer, view, before in self._buffers:
            require(intact(buffer, -77), f"{loop} wrote around {name}")
            require(before is None or np.array_equal(view, before), f"{loop} wrote into {name}")


def uncompiled(loop: Any) -> Any:
    """The loop as Python, where what it calls is still compiled."""
    return getattr(loop, "py_func", loop)


def gradients(random: Random, batch: int = 8, longest: int = 40) -> Counter[str]:
    """One round of the compiled loops behind the gradients, on one program."""
    config = GRADIENT_CONFIGS[random.integers(len(GRADIENT_CONFIGS))]
    rows = adjoint.entries_of(random_code(random, config, longest), config)
    limit = int(random.choice([1, 7, 60, 400]))
    registers = random_words(random, config, (batch, config.registers))
    memory = random_words(random, config, (batch, config.memory)).astype(np.int32)
    entries = random.integers(0, len(rows), batch)
    counts: Counter[str] = Counter()
    for entry, r, m in zip(entries.tolist(), registers, memory, strict=True):
        counts += _forward_and_back(random, rows, config, entry, r, m, limit)
    counts += _alternatives(random, rows, config, int(entries[0]), registers[0], memory[0], min(limit, 60))
    return counts + _variants(random, rows, config, int(entries[0]), registers, memory, limit)


def _forward_and_back(
    random: Random, rows: np.ndarray, config: MachineConfig, entry: int, r: np.ndarray, m: np.ndarray, limit: int
) -> Counter[str]:
    """``execute``, logging and strict, and ``_backward`` from where it ended, against the portable path."""
    options: dict[str, Any] = {
        "fetch": str(random.choice(["separate", "joint"])), "damping": float(random.choice([0.0, 0.5, 1.0])),
    }  # fmt: skip
    portable = adjoint.AdjointMachine(rows, config, portable=True, **options)
    run = portable.run(entry, r, m, limit)
    for strict in (True, False):  # the last is the one to go back from
        hold = Guarded()
        code = hold("the code", portable.code, constant=True)
        words, cells = hold("the registers", r), hold("the memory", m)
        stack, cursor = hold("the stack", np.zeros(config.call_depth, np.int32)), hold("the cursor", np.zeros(5, np.int64))
        log = hold("the log", np.zeros((limit, 2), np.int32))
        cursor[0] = entry
        adjoint.execute(code, words, cells, stack, cursor, limit, config.values, log, strict)
        hold.check("execute")
        require(0 < cursor[2] <= limit and 0 <= cursor[0] <= len(rows), "execute left the code or ran past max_steps")
        require(0 <= cursor[1] <= cursor[4] <= config.call_depth, "execute left the stack")
        for held in (words, cells):
            require(held.min() >= 0 and held.max() < config.values, "execute left a cell that is no word")
    ended = run.program_counter, run.depth, run.steps, run.halted, run.deepest
    require(cursor.tolist() == list(ended), "execute ends elsewhere than the portable path")
    for name, found, wanted in (
        ("registers", words, run.registers), ("memory", cells, run.memory), ("stack", stack, run.stack),
        ("log", log[: run.steps], run.log),
    ):  # fmt: skip
        require(np.array_equal(found, wanted), f"execute and the portable path differ in the {name}")

    gradient = portable.blank(run, whole=bool(random.integers(2)))
    scale = float(random.choice([1.0, 1.0, 1e300]))
    for part, held in ((gradient.memory, run.memory), (gradient.registers, run.registers)):
        part[:, : config.values] = adjoint.tangent(scale * random.normal(size=(len(part), config.values)), held)
    program, watch = bool(random.integers(2)), bool(random.integers(2))
    widths = (len(OPERATIONS), *(config.registers,) * 3, max(config.values, len(rows)))
    parts = [np.zeros((len(rows), width) if program else (0, 0)) for width in widths]
    hold = Guarded()
    slots = hold("the slots", adjoint.SLOTS, constant=True)
    code, log = hold("the code", portable.code, constant=True), hold("the log", run.log, constant=True)
    ends = hold("the cursor", np.array(ended, np.int64), constant=True)
    state = [hold(name, getattr(run, name)) for name in ("registers", "memory", "stack")]
    names = ("registers", "memory", "counter", "stack", "depth")
    pulled = [hold(f"the gradient of {name}", getattr(gradient, name)) for name in names]
    fields = [hold(f"the gradient of field {k}", part) for k, part in enumerate(parts)]
    stopped = adjoint._backward(
        code, slots, *state, ends, log, *pulled, 0.0, *fields, config.call_depth, config.values, portable.joint,
        portable.damping, watch,
    )  # fmt: skip
    hold.check("_backward")
    require(-1 <= stopped < run.steps, "_backward stopped at a step that was not taken")
    require(not np.concatenate([part[:, config.values :] for part in pulled[:2]]).any(), "_backward wrote past V")
    if stopped < 0:
        require(state[0].tolist() == r.tolist() and state[1].tolist() == m.tolist(), "_backward did not undo the run")
    try:
        found = portable.backward(run, gradient, program)
    except adjoint.GradientError:
        require(scale > 1 or stopped >= 0 or run.steps > 100, "only the portable path overflows")
    else:
        require(stopped < 0, "only the native path overflows")
        wanted = [getattr(gradient, name) for name in names] + ([] if found is None else list(vars(found).values()))
        for ours, theirs in zip(pulled + fields, wanted, strict=False):
            with np.errstate(over="ignore"):
                near = 1e-8 * max(1.0, float(np.abs(theirs).max(initial=0.0)))
            require(np.allclose(ours, theirs, rtol=1e-6, atol=near), "the native gradient is not the portable path's")
    return Counter({"adjoint": 3, "portable": 2})


def _alternatives(
    random: Random, rows: np.ndarray, config: MachineConfig, entry: int, r: np.ndarray, m: np.ndarray, limit: int
) -> Counter[str]:
    """``alternatives`` of some cells and instructions, against the same loop uncompiled."""
    widths = np.array([len(OPERATIONS), *(config.registers,) * 3, max(config.values, len(rows))], np.int64)
    starts, total = [], 0
    for count, width in ((config.memory, config.values), (config.registers, config.values), (len(rows), int(widths.sum()))):
        wanted = random.permutation(count) < min(count, 4_000 // width)
        starts.append(np.where(wanted, total + (np.cumsum(wanted) - 1) * width, -1))
        total += int(wanted.sum()) * width
    judged = [random.normal(size=(count, config.values)) for count in (config.registers, config.memory)]
    keeps, strict = bool(random.integers(2)), bool(random.integers(2))
    if random.random() < 0.3:
        judged = [np.zeros((0, 0))] * 2
    code, counter = adjoint.packed(rows, config.values), random.normal(size=len(rows) + 1)
    found = []
    for loop in (adjoint.alternatives, uncompiled(adjoint.alternatives)):
        hold = Guarded()
        losses = hold("the losses", np.zeros(total))
        finals = hold("the final states", np.zeros((total if keeps else 0, 4 + len(r) + len(m)), np.int64))
        unfinished = hold("the unfinished", np.array([-1, 0], np.int64))
        fixed = [
            hold(name, content, constant=True)
            for name, content in (
                ("the code", code), ("the slots", adjoint.SLOTS), ("the registers", r), ("the memory", m),
                ("the starts in memory", starts[0]), ("the starts in registers", starts[1]),
                ("the starts in the program", starts[2]), ("the widths", widths), ("the registers' weights", judged[0]),
                ("the memory's weights", judged[1]), ("the counter's weights", counter),
            )
        ]  # fmt: skip
        executed, runs = loop(
            *fixed[:2], entry, *fixed[2:4], config.call_depth, limit, config.values, *fixed[4:], 0.5, 0.25, 0.125,
            losses, finals, unfinished, strict,
        )  # fmt: skip
        hold.check("alternatives")
        require(executed <= runs * limit and runs <= total + 1, "alternatives ran past max_steps, or ran too many")
        require(np.isfinite(losses).all() and -1 <= unfinished[0] < total, "alternatives left a loss that is none")
        if keeps:
            require(finals[:, 2].min() >= 0 and finals[:, 2].max() <= limit, "an alternative ran past max_steps")
            require(finals.min() >= 0 and finals[:, 4:].max() < config.values, "an alternative left what is no word")
        found.append((losses, finals, unfinished, np.array([executed, runs])))
    for name, ours, theirs in zip(("losses", "final states", "unfinished", "counts"), *found, strict=True):
        require(np.array_equal(ours, theirs), f"alternatives compiled and not differ in the {name}")
    return Counter({"counterfactual": int(found[0][3][1]), "portable": int(found[0][3][1])})


def _variants(
    random: Random, rows: np.ndarray, config: MachineConfig, entry: int, registers: np.ndarray, memory: np.ndarray, limit: int
) -> Counter[str]:
    """``first_right`` on random changes of the program, against the same loop uncompiled."""
    count, size = 20, len(rows)
    edits = np.stack([random.integers(-1, size, (count, 2)), random.integers(0, 5, (count, 2)), np.zeros((count, 2), int)], 2)
    widths = np.array([1, *(config.registers,) * 3, max(config.values, size)])
    edits[:, :, 2] = random.integers(0, widths[edits[:, :, 1]])
    operations = edits[:, :, 1] == 0
    edits[operations, 2] = random.choice(adjoint.SLOTS, int(operations.sum()))
    start = np.concatenate([registers, memory], axis=1).astype(np.int64)
    weights = (random.random(start.shape) < random.choice([0.0, 0.1])).astype(float)
    budget, stop = int(random.choice([0, 5, 10**6])), int(random.integers(size))
    found = []
    for loop in (adjoint.first_right, uncompiled(adjoint.first_right)):
        hold = Guarded()
        fixed = [
            hold(name, content, constant=True)
            for name, content in (
                ("the code", adjoint.packed(rows, config.values)), ("the changes", edits), ("the registers", registers),
                ("the memory", memory), ("the wanted words", start), ("the weights", weights),
            )
        ]  # fmt: skip
        found.append(loop(*fixed[:2], entry, stop, *fixed[2:], config.call_depth, limit, config.values, budget))
        hold.check("first_right")
    require(found[0] == found[1], "first_right compiled and not differ")
    require(-1 <= found[0][0] < count and 0 <= found[0][1] <= min(budget, count * len(start)), "first_right overspent")
    return Counter({"counterfactual": int(found[0][1]), "portable": int(found[0][1])})


# Texts


@cache
def base_library() -> NeuralLibrary:
    return compile_source(LIBRARY_SOURCE, name="base")


def random_text(random: Random) -> str:
    alphabet = ["0123456789", "0123456789 -,", "abcxyz", " é漢😀\0\x7f", "\n\t[](){}+"][random.integers(5)]
    return "".join(random.choice(list(alphabet), int(random.choice([0, 1, 3, 12, 60]))))


def mutated_code(random: Random, library: NeuralLibrary) -> np.ndarray:
    """The library's instructions with one to eight fields replaced by other valid ones."""
    code = library.instructions.copy()
    for at in random.integers(0, len(code), int(random.integers(1, 9))):
        column = int(random.integers(5))
        if column == 0:
            code[at, 0] = random.integers(len(OPERATIONS))
        elif column < 4:
            code[at, column] = random.integers(library.registers)
        if "l" in OPERATIONS[code[at, 0]].operands:
            code[at, 4] = random.integers(len(code))
        elif column == 4:
            code[at, 4] = random.choice([-1, 0, 1, 7, 100, 70_000, -(2**30), 2**30 - 1, int(random.integers(-99, 99))])
    return code


def texts(random: Random, batch: int = 64, compared: int = 2, portable: float = 1.0) -> Counter[str]:
    """One round of a mutated library on random texts."""
    library = base_library()
    code = mutated_code(random, library)
    programs = list(library.programs.values())
    chosen = [programs[k] for k in random.integers(0, len(programs), batch)]
    entries = [program.entry for program in chosen]
    arguments = [[random_text(random) for _ in program.parameters] for program in chosen]
    limit = int(random.choice([0, 50, 3_000]))
    machine = ExactMachine(code, TEXT_CONFIG, portable=False)
    results = machine.run_batch(entries, arguments, limit)
    for result in results:
        require(0 <= result.steps <= limit, "ran past max_steps")
        require((result.text is None) == (result.fault is not Fault.none), "a result with a fault, or neither")
        require(result.text is None or len(result.text) <= TEXT_CONFIG.memory, "a result larger than the memory")
    counts = Counter({"native": batch})
    if random.random() < portable:
        other = ExactMachine(code, TEXT_CONFIG, portable=True)
        for k in random.choice(batch, compared, replace=False):
            alone = ExactMachine(code, TEXT_CONFIG, portable=False).run(entries[k], arguments[k], max_steps=limit)
            require(alone == results[k], "a call saw what another call left in memory")
            require(other.run(entries[k], arguments[k], max_steps=limit) == results[k], "portable differs from native")
            counts["native"] += 1
            counts["portable"] += 1
    return counts


# Dense


def dense(random: Random, steps: int = 16) -> Counter[str]:
    """One round on the dense engine, both arithmetics."""
    import torch
    from neurallib.modeling_neurallib.machine.dense import DenseMachine, SoftProgram

    config = CONFIGS[random.integers(2)]
    code = random_code(random, config, 20)
    entry = int(random.integers(len(code)))
    registers = random_words(random, config, (1, config.registers))
    memory = random_words(random, config, (1, config.memory))
    program = SoftProgram.from_instructions(code, config)
    instructions = [tuple(row) for row in code.tolist()]
    for unit in ("tables", "circuits"):
        machine = DenseMachine(program, config, arithmetic=unit)  # type: ignore[arg-type]
        soft = machine.state_from(
            machine.one_hot_words(memory).float(), machine.one_hot_words(registers).float(), [entry]
        )
        state = MachineState(registers[0].tolist(), memory[0].tolist(), entry, [])
        for _ in range(steps):
            if not state.halted:
                reference_step(instructions, state, config, total=True)  # type: ignore[arg-type]
            with torch.no_grad():
                soft = machine.step(soft)
            for rows, words in ((soft.memory[0], state.memory), (soft.registers[0], state.registers)):
                require(torch.equal(rows.amax(-1), torch.ones(len(words))), f"dense, {unit}: not one-hot")
                require(rows.argmax(-1).tolist() == words, f"dense, {unit}: differs from the reference")
            require(soft.program_counter.argmax(-1).tolist() == [state.program_counter], f"dense, {unit}: counter")
            require(soft.halted.tolist() == [float(state.halted)], f"dense, {unit}: halting")
    return Counter({"dense": 2})


# Files


@cache
def base_files() -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        base_library().save_pretrained(folder)
        return (Path(folder) / CONFIG_FILE).read_bytes(), (Path(folder) / TENSOR_FILE).read_bytes()


HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, -(2**63), 2**64, 10**30, 1.0, 1e400, "", "x", "../x", "a" * 200, "\x1b[2J", "\0",
    "__import__('os')", [], [[]], {}, {"name": "x"}, [{}], ["x"], "str", "list[int]", "é" * 50,
)  # fmt: skip


def paths_of(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places in a description, outermost first."""
    children = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in children:
        yield (*path, key)
        yield from paths_of(value, (*path, key))


def mutated_description(random: Random, data: dict[str, Any]) -> dict[str, Any]:
    """A description with one to three places removed, replaced, or doubled."""
    data = copy.deepcopy(data)
    for _ in range(int(random.integers(1, 4))):
        places = list(paths_of(data))
        path = places[random.integers(len(places))]
        holder = data
        for key in path[:-1]:
            holder = holder[key]
        action = int(random.integers(4))
        if action == 0:
            del holder[path[-1]]
        elif action == 1 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[path[-1]]))
        elif action == 2 and isinstance(holder[path[-1]], int):
            holder[path[-1]] += int(random.choice([-1, 1, 1000, 2**31]))
        else:
            holder[path[-1]] = copy.deepcopy(HOSTILE[random.integers(len(HOSTILE))])
        if not data:
            break
    return data


def mutated_tensors(random: Random, content: bytes) -> bytes:
    """A tensor file with bytes flipped, cut or grown, or with columns that are others: kinds, shapes, values."""
    action = int(random.integers(5))
    if action == 0:  # any bytes
        changed = bytearray(content)
        for at in random.integers(0, len(content), int(random.integers(1, 9))):
            changed[at] = random.integers(256)
        return bytes(changed)
    if action == 1:  # the header, where it hurts
        changed = bytearray(content)
        size = int.from_bytes(content[:8], "little")
        for at in random.integers(0, 8 + size, int(random.integers(1, 5))):
            changed[at] = random.integers(256)
        return bytes(changed)
    if action == 2:
        return content[: random.integers(len(content))] + bytes(int(random.integers(0, 20)))
    # Sorted: the order in which they are read is not the same each time, and a seed must be.
    tensors = {name: column.copy() for name, column in sorted(load(content).items())}
    name = str(random.choice(list(tensors)))
    if action == 3:
        kinds = [np.int8, np.int16, np.int64, np.uint8, np.uint64, np.float32, np.float64, np.bool_]
        tensors[name] = tensors[name].astype(kinds[random.integers(len(kinds))])
        if random.random() < 0.3:
            tensors[name] = tensors[name][: random.integers(len(tensors[name]))].copy()
        if random.random() < 0.2:
            tensors[name] = tensors[name][:, None].copy()
        if random.random() < 0.1:
            del tensors[name]
    else:
        column = tensors[name].astype(np.int64)
        column[random.integers(len(column))] = random.choice([-1, 31, 32, 255, 2**31, -(2**63), 2**63 - 1])
        tensors[name] = column
    return save(tensors)


def use_everything(library: NeuralLibrary) -> int:
    """All that a user may do with a library that validation let pass. Returns how many calls it made."""
    require(library.fingerprint and library.disassemble(), "no text")
    machine = ExactMachine(library.instructions_for(TEXT_CONFIG), TEXT_CONFIG) if library.registers == 16 else None
    calls = 0
    for name, program in library.programs.items():
        require(library.extract([name]).programs, "no program")
        if machine is not None:
            result = machine.run(program.entry, ["3"] * len(program.parameters), max_steps=1_000)
            require(result.steps <= 1_000, "ran past max_steps")
            calls += 1
    with tempfile.TemporaryDirectory() as folder:
        library.save_pretrained(folder)
        require(NeuralLibrary.from_pretrained(folder).fingerprint == library.fingerprint, "another library when read")
    return calls


def files(random: Random) -> Counter[str]:
    """One mutated pair of files."""
    description, tensors = base_files()
    data = json.loads(description)
    if random.random() < 0.6:
        data = mutated_description(random, data)
    if random.random() < 0.6:
        tensors = mutated_tensors(random, tensors)
    if "sha256" in data and random.random() < 0.95:
        data["sha256"] = hashlib.sha256(tensors).hexdigest()
    text = json.dumps(data).encode()
    if random.random() < 0.1:
        changed = bytearray(text)
        changed[random.integers(len(text))] = random.integers(256)
        text = bytes(changed)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CONFIG_FILE).write_bytes(text)
        (Path(folder) / TENSOR_FILE).write_bytes(tensors)
        try:
            library = NeuralLibrary.from_pretrained(folder)
        except LibraryError as error:
            require(len(str(error)) > 20 and str(error).replace(folder, "").strip(": "), "refused without a reason")
            require("\x1b" not in str(error), "a control character in the message")
            return Counter({"files refused": 1})
        return Counter({"files read": 1, "native": use_everything(library)})


# The long run

ROUNDS: dict[str, Callable[[Random], Counter[str]]] = {
    "states": lambda random: states(random, batch=1_024, compared=2),
    "texts": lambda random: texts(random, batch=512, compared=2, portable=0.05),
    "gradients": gradients,
    "dense": dense,
    "files": files,
}
SHARES = {"states": 0.60, "texts": 0.25, "gradients": 0.10, "dense": 0.02, "files": 0.03}
"""Of the rounds."""


def chunk(seed: int, rounds: int) -> tuple[Counter[str], list[str], int]:
    """Rounds from one seed on, executions by engine, what was found, and the largest memory of the process in MiB."""
    counts: Counter[str] = Counter()
    found = []
    for k in range(seed, seed + rounds):
        random = np.random.default_rng(k)
        kind = str(random.choice(list(SHARES), p=list(SHARES.values())))
        try:
            counts += ROUNDS[kind](random)
        except Exception as error:  # whatever it is, it is a finding
            found.append(f"{kind}, seed {k}: {type(error).__name__}: {error}")
        counts[f"rounds of {kind}"] += 1
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return counts, found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // scale


def executions(counts: Counter[str]) -> int:
    return sum(counts[engine] for engine in ("native", "portable", "reference", "dense", "adjoint", "counterfactual"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executions", type=int, default=10_000_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="the seed of the first round")
    parser.add_argument("--rounds", type=int, default=100, help="rounds that a process makes before it reports")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    found: list[str] = []
    largest, seed, began = 0, options.seed, time.perf_counter()
    with ProcessPoolExecutor(options.processes) as pool:
        running: dict[Future[tuple[Counter[str], list[str], int]], int] = {}
        while True:
            going = executions(counts) < options.executions and time.perf_counter() - began < options.seconds
            while going and len(running) < options.processes:
                running[pool.submit(chunk, seed, options.rounds)] = seed
                seed += options.rounds
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                start = running.pop(future)
                try:
                    more, findings, memory = future.result()
                except Exception as error:  # the process is gone: a crash of the interpreter itself
                    findings = [f"a process died in seeds {start}…{start + options.rounds - 1}: {error}"]
                    more, memory, options.executions = Counter(), 0, 0
                counts, largest = counts + more, max(largest, memory)
                found += findings
                for finding in findings:
                    print(finding, file=sys.stderr, flush=True)
            if not options.json:
                print(
                    f"\rseeds {options.seed}…{seed - 1}: {executions(counts):,} executions, {len(found)} findings, "
                    f"{largest} MiB, {time.perf_counter() - began:.0f} s",
                    end="", flush=True,
                )  # fmt: skip
    report = {
        "executions": executions(counts),
        "seeds": [options.seed, seed - 1],
        "findings": found,
        "MiB of the largest process": largest,
        "seconds": round(time.perf_counter() - began, 1),
        "counts": dict(sorted(counts.items())),
    }
    print(json.dumps(report) if options.json else "\n" + json.dumps(report, indent=2))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
