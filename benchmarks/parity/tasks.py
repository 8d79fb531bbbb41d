"""What the parity suite runs: a random input of any size for every task, and how an engine's result is read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from neurallib.configuration.machine_config import MachineConfig
from neurallib.modeling_neurallib.compiler.compiling import compile_files
from neurallib.modeling_neurallib.library import NeuralLibrary
from neurallib.modeling_neurallib.machine.adjoint import AdjointMachine, entries_of
from neurallib.modeling_neurallib.machine.dense import DenseMachine, SoftProgram
from neurallib.modeling_neurallib.machine.operations import Fault
from neurallib.modeling_neurallib.machine.state import MachineError, MachineState, RunResult, initial_state, result

from . import arithmetic, arrays, graphs, linked, sorting

GROUPS = (arithmetic, arrays, linked, sorting, graphs)

LARGE = MachineConfig(max_steps=200_000_000)
"""The machine of the exact engine: V = 2**31, N = 65,536."""

SMALL = MachineConfig(values=128, memory=128, call_depth=8, max_steps=5_000)
"""The machine of the dense and the adjoint engine: the paper's base. Its integers are −64…63."""

TENFOLD = MachineConfig(values=2**15, memory=2**15, call_depth=64, max_steps=50_000_000)
"""The machine of the adjoint engine at 1,000 words of data, in text, as numbers, and in text again."""


@dataclass(frozen=True)
class Task:
    """One of the fourteen.

    Attributes:
        name: of the program, and of the Python function.
        draw: (random, size, largest number) → its arguments. The size counts numbers of data; it is at least 2.
        tenfold: the size at which the exact and the adjoint engine run: 1,000 words of data, ten times the paper's largest
            memory.
        backward: the size to which the adjoint pulls a gradient back: as many words of single digits as leave N · V, the
            gradient of the memory, in its bounds; a quarter where the steps grow with the square.
        small: the size that fits the small machine.
    """

    name: str
    draw: Callable[[Random, int, int], list[Any]]
    tenfold: int = 1_000
    backward: int = 1_000
    small: int = 4


def _numbers(random: Random, size: int, largest: int) -> list[int]:
    return [random.randint(-largest, largest) for _ in range(size)]


def _linear_search(random: Random, size: int, largest: int) -> list[Any]:
    values = _numbers(random, size, largest)
    return [values, random.choice([values[-1], random.randint(-largest, largest)])]


def _places(random: Random, size: int, largest: int) -> list[Any]:
    places = list(range(size // 2))
    random.shuffle(places)
    return [_numbers(random, size // 2, largest), places]


def _cells(random: Random, size: int, largest: int) -> tuple[list[int], list[int]]:
    """A linked list in shuffled memory, and the indices of its cells in the order of the links."""
    order = list(range(0, 2 * (size // 2), 2))
    random.shuffle(order)
    cells = [0] * len(order) * 2
    for at, following in zip(order, [*order[1:], -1], strict=True):
        cells[at], cells[at + 1] = following, random.randint(-largest, largest)
    return cells, order


def _list_k(random: Random, size: int, largest: int) -> list[Any]:
    cells, order = _cells(random, size, largest)
    return [cells, order[0], random.randrange(len(order))]


def _list_search(random: Random, size: int, largest: int) -> list[Any]:
    cells, order = _cells(random, size, largest)
    return [cells, order[0], random.choice([cells[order[-1] + 1], random.randint(-largest, largest)])]


def _merge(random: Random, size: int, largest: int) -> list[Any]:
    first = random.randint(0, size)
    return [sorted(_numbers(random, count, largest)) for count in (first, size - first)]


def _dijkstra(random: Random, size: int, largest: int) -> list[Any]:
    nodes = max(1, int(size**0.5))
    longest = max(1, largest // nodes)  # so that a path's length is a word of the small machine
    density = random.random()
    weights = [random.randint(0, longest) if random.random() < density else -1 for _ in range(nodes * nodes)]
    return [weights, nodes, random.randrange(nodes)]


def _walk(random: Random, size: int, largest: int) -> list[Any]:
    """A search tree of random insertions, and a walk to a random node of it."""
    tree: list[int] = []
    paths: list[list[int]] = []
    while len(tree) + 3 <= max(size, 3):
        value, at, path = random.randint(-largest, largest), 0, []
        while tree:
            turn = int(value >= tree[at])
            path.append(turn)
            if tree[at + 1 + turn] < 0:
                tree[at + 1 + turn] = len(tree)
                break
            at = tree[at + 1 + turn]
        tree += [value, -1, -1]
        paths.append(path)
    return [tree, random.choice(paths)]


TASKS = (
    Task("access", lambda r, n, top: [_numbers(r, n, top), r.randrange(n)]),
    Task("bubble_sort", lambda r, n, top: [_numbers(r, n, top)], backward=250),
    Task("copy", lambda r, n, top: [_numbers(r, n, top)], backward=600),
    Task("dijkstra", _dijkstra),
    Task("increment", lambda r, n, top: [_numbers(r, n, top - 1)], backward=600),
    Task("linear_search", _linear_search),
    Task("list_search", _list_search),
    Task("list_k", _list_k),
    Task("loopy_add", lambda r, n, top: [r.randint(-top // 2, top // 2), r.randint(n // 2, n)]),
    Task("merge", _merge, backward=600),
    Task("permutation", _places),
    Task("reverse", lambda r, n, top: [_numbers(r, n, top)], backward=600),
    Task("swap", lambda r, n, top: [_numbers(r, n, top), r.randrange(n), r.randrange(n)], backward=600),
    Task("walk_search_tree", _walk, small=3),
)


@cache
def library() -> NeuralLibrary:
    """The fourteen programs, compiled."""
    return compile_files([Path(str(group.__file__)) for group in GROUPS], "parity")


@cache
def library_of(task: str) -> NeuralLibrary:
    """One of the programs alone: the dense engine's cost grows with the number of instructions."""
    return library().extract([task])


def printed(value: Any) -> str:
    """An argument or a result as the machine reads and prints it."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def under_cpython(task: str, arguments: list[Any]) -> str:
    """The oracle: the same source, run by CPython on copies of the arguments."""
    function = next(getattr(group, task) for group in GROUPS if hasattr(group, task))
    return printed(function(*(list(each) if isinstance(each, list) else each for each in arguments)))


def exact(task: str, arguments: list[Any], portable: bool, config: MachineConfig = LARGE) -> RunResult:
    """A run of the exact engine."""
    return _exact_machine(config, portable).run(library().programs[task].entry, [printed(each) for each in arguments])


@cache
def _exact_machine(config: MachineConfig, portable: bool) -> Any:
    from neurallib.modeling_neurallib.machine.exact import ExactMachine

    return ExactMachine(library().instructions_for(config), config, portable=portable)


def adjoint(task: str, arguments: list[Any], config: MachineConfig = SMALL) -> RunResult:
    """A run of the adjoint engine, forward."""
    entry, state = _start(task, arguments, config)
    run = _adjoint_machine(task, config).run(entry, np.array(state.registers), np.array(state.memory))
    return _outcome(run.registers.tolist(), run.memory.tolist(), run.steps, run.halted, config)


def smallest(task: str, arguments: list[Any]) -> MachineConfig:
    """The smallest machine with V = N on which the exact engine has CPython's result."""
    for bits in range(7, 16):
        config = MachineConfig(values=2**bits, memory=2**bits, call_depth=64, max_steps=TENFOLD.max_steps)
        with suppress(MachineError):  # the arguments do not fit
            if exact(task, arguments, False, config).text == under_cpython(task, arguments):
                return config
    raise ValueError(f"{task}: no machine is large enough")


def gradient(task: str, arguments: list[Any], config: MachineConfig, damping: float = 1.0) -> tuple[np.ndarray, int]:
    """The adjoint's gradient of the last character of a result, a loss of 1 for each code point, and the steps of the run.

    Returns:
        By memory at the start, [N, V], relative to what it holds; and the steps.

    Raises:
        GradientError: it overflows.
    """
    entry, state = _start(task, arguments, config)
    machine = AdjointMachine(_adjoint_machine(task, config).rows, config, damping=damping)
    run = machine.run(entry, np.array(state.registers), np.array(state.memory))
    last = run.registers[0] + run.registers[1] - 1
    found = machine.blank(run)
    found.memory[last, : config.values] = np.arange(config.values) - run.memory[last]
    machine.backward(run, found, tensor=task)
    return found.memory[:, : config.values], run.steps


@cache
def _adjoint_machine(task: str, config: MachineConfig) -> AdjointMachine:
    return AdjointMachine(entries_of(library_of(task).instructions_for(config), config), config)


def dense(task: str, arguments: list[Any], config: MachineConfig = SMALL, arithmetic: str = "tables") -> RunResult:
    """A run of the dense engine. Every row of its last state must still be one-hot."""
    entry, _ = _start(task, arguments, config)
    machine = _dense_machine(task, config, arithmetic)
    with torch.no_grad():
        state, steps = machine.run(machine.initial_state([[printed(each) for each in arguments]], [entry]))
    for rows in (state.registers, state.memory):
        if not torch.equal(rows.amax(-1), torch.ones(rows.shape[:-1])):
            raise SystemExit(f"{task}: the dense engine left the corners of the simplex")
    words = [rows[0].argmax(-1).tolist() for rows in (state.registers, state.memory)]
    return _outcome(words[0], words[1], steps, float(state.halted) == 1.0, config)


@cache
def _dense_machine(task: str, config: MachineConfig, arithmetic: Any) -> DenseMachine:
    program = SoftProgram.from_instructions(library_of(task).instructions_for(config), config)
    return DenseMachine(program, config, arithmetic=arithmetic)


def _start(task: str, arguments: list[Any], config: MachineConfig) -> tuple[int, MachineState]:
    entry = library_of(task).programs[task].entry
    return entry, initial_state([printed(each) for each in arguments], entry, config)


def _outcome(registers: list[int], memory: list[int], steps: int, halted: bool, config: MachineConfig) -> RunResult:
    """The result in a last state. These engines have no faults: one that did not halt ran out of steps."""
    fault = Fault.none if halted else Fault.out_of_steps
    return result(MachineState(registers, memory, 0, [], halted, fault, steps), config)
