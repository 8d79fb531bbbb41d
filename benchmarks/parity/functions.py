"""The fourteen tasks without their text: the compiled function alone, on words, for programs that learn.

A function is called by two instructions of ours, ``call`` at address 0 and ``halt`` at address 1, on a small machine. Its
arguments are in registers 0, 1, …; a list is the address of three words, length, capacity and address of its numbers. A run
is right if it halts at address 1 and leaves, as the compiled function does, the result, the registers that a call preserves,
memory up to the heap pointer and that of its callers. What is learned is put back into the library, where it runs on text of
any size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any

import numpy as np
from neurallib.configuration.machine_config import MachineConfig
from neurallib.modeling_neurallib.compiler.allocate import argument_registers
from neurallib.modeling_neurallib.library import NeuralLibrary
from neurallib.modeling_neurallib.library_records import LearnedCode
from neurallib.modeling_neurallib.machine.exact import ExactMachine
from neurallib.modeling_neurallib.machine.learning import Examples, Learned
from neurallib.modeling_neurallib.machine.operations import CODES, OPERATIONS

from . import tasks

CONFIG = MachineConfig(values=128, memory=64, registers=16, call_depth=4, max_steps=1_000)
"""The machine that functions learn on. Its integers are −64…63, so that, as on large machines, no address is negative."""

STUB = 2
"""Instructions before the function."""

_JUMPS = np.array(["l" in operation.operands for operation in OPERATIONS])


@dataclass(frozen=True)
class Function:
    """A task's compiled function.

    Attributes:
        task: its name. library: the one that it is of.
        start: its first address there.
        instructions: the stub and the function, int64 [2 + n, 5], with code addresses of their own.
    """

    task: str
    library: NeuralLibrary
    start: int
    instructions: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """Which instructions may learn, bool [2 + n]: all but the stub."""
        return np.arange(len(self.instructions)) >= STUB

    def learned(self, found: Learned) -> NeuralLibrary | None:
        """The library with the function as it was learned, or None if it jumps into the stub or past its end."""
        code = found.instructions[STUB:].copy()
        jumps = _JUMPS[code[:, 0]]
        if (code[jumps, 4] < STUB).any():
            return None
        code[jumps, 4] += self.start - STUB
        weights = {name: rows[STUB:].numpy().astype(np.float32) for name, rows in vars(found.program).items()}
        addresses = np.arange(self.start, self.start + len(code))
        learned = LearnedCode(self.library.instructions, addresses, CONFIG.values, self.start - STUB, weights)
        return self.library.with_learned(learned, code)


@cache
def function(task: str) -> Function:
    """The function of a task that calls no other.

    Raises:
        ValueError: it calls others.
    """
    library = tasks.library_of(task)
    files = {str(group.__file__) for group in tasks.GROUPS}
    names = (task, *(f"{group.__name__.split('.')[-1]}.{task}" for group in tasks.GROUPS))
    start = next(a for a, o in library.origins.items() if o.name in names and any(f.endswith(o.file) for f in files))
    alone = replace(library, programs={task: replace(library.programs[task], entry=start, length=1)}).extract([task])
    if len(alone.origins) > 1:
        raise ValueError(f"{task} calls other functions")
    stub = [[CODES["call"], 0, 0, 0, STUB], [CODES["halt"], 0, 0, 0, 0]]
    return Function(task, library, start, np.concatenate([stub, alone.moved(STUB)]))


def state(arguments: list[Any], random: Random, config: MachineConfig = CONFIG) -> list[int]:
    """Registers and memory, R + N words, as the function is called with these arguments.

    Where lists, their numbers and the stack lie, and how long a list may grow, is random, and so is what the convention leaves
    open: a program that relied on it would be right here only.
    """
    registers, memory = ([random.randrange(config.values) for _ in range(n)] for n in (config.registers, config.memory))
    free = random.randint(1, 12)
    for place, argument in enumerate(arguments):
        if isinstance(argument, list):
            registers[place] = free
            numbers = free + 3 + random.randint(0, 4)
            capacity = len(argument) + random.randint(0, 4)
            memory[free : free + 3] = len(argument), capacity, numbers
            memory[numbers : numbers + len(argument)] = [value % config.values for value in argument]
            free = numbers + capacity + random.randint(0, 4)
        else:
            registers[place] = argument % config.values
    registers[-2:] = free, config.memory - 1 - random.randint(0, 4)
    return registers + memory


def examples(task: str, draw: Callable[[Random], list[Any]], count: int, seed: str) -> Examples:
    """Random inputs of a task's function, and what its compiled form makes of them."""
    random, code = Random(seed), function(task).instructions
    start = np.array([state(draw(random), random) for _ in range(count)])
    split = CONFIG.registers
    registers, memory = np.split(start, [split], axis=1)
    final = ExactMachine(code, CONFIG).execute([0] * count, registers, memory)
    judged = np.zeros(start.shape, bool)
    judged[:, 0] = True
    judged[:, argument_registers(split) : split] = True
    addresses = np.arange(
        CONFIG.memory
    )  # below what is free, and above the stack pointer, where the caller's frames are
    judged[:, split:] = (addresses < final.registers[:, -2:-1]) | (addresses > start[:, split - 1 : split])
    return Examples.of(code, CONFIG, start, judged)
