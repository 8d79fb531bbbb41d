"""What goes into a machine and what comes out of it: text as words in memory, and the result of a run.

The calling convention is the same for every engine. Address 0 is unused. Then, for each argument in turn, one header
word that the program may overwrite, and the argument's code points::

    address   0        1        2 … 1+n₀    2+n₀     3+n₀ …              hp …         … N−1
    word      unused   header   text 0      header   text 1              heap →       ← frames

``registers[2k]`` is the address of the first character of argument k, ``registers[2k+1]`` its length, the last register
but one the heap pointer hp (the first free address), the last the stack pointer sp = N − 1. When the run halts,
``registers[0]`` is the address and ``registers[1]`` the length of the result's text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...configuration.machine_config import MachineConfig
from .operations import Fault

MAXIMUM_ARGUMENTS = 6
"""Arguments a call may have: two registers each, and four registers remain on a machine of 16."""


class MachineError(ValueError):
    """Something that this machine cannot run: an instruction out of range, an argument that does not fit."""


class GradientError(MachineError):
    """A gradient that does not exist or cannot be represented; the message names the tensor, the step and the limit."""


class SoftProgramError(MachineError):
    """A program of distributions where instructions are wanted.

    Attributes:
        field: of the instruction farthest from one-hot; one of ``operations.FIELDS``.
        instruction: its address.
        distance: of that field from the nearest one-hot row, the greatest difference of a weight: for a distribution 1 − its
            greatest weight. NaN if it has weights that are not finite.
    """

    def __init__(self, message: str, field: str, instruction: int, distance: float) -> None:
        self.field, self.instruction, self.distance = field, instruction, distance
        super().__init__(message)


@dataclass(frozen=True)
class RunResult:
    """The outcome of one run.

    Attributes:
        text: the result, None if the run ended with a fault.
        steps: instructions executed, the last one (``halt``, or the one that faulted) included.
        fault: why the run was stopped; ``Fault.none`` if it halted by itself with a readable result.
    """

    text: str | None
    steps: int
    fault: Fault


@dataclass(frozen=True)
class TraceStep:
    """One executed instruction and everything it changed.

    Attributes:
        program_counter: the address of the instruction.
        operation: its mnemonic.
        instruction: its five fields, in the order of ``operations.FIELDS``.
        registers: register → new word, for the register that it wrote (at most one).
        memory: address → new word, for the memory word that it wrote (at most one).
        fault: the fault that it raised; then it has changed nothing and the run ends.
    """

    program_counter: int
    operation: str
    instruction: tuple[int, int, int, int, int]
    registers: dict[int, int]
    memory: dict[int, int]
    fault: Fault


@dataclass
class MachineState:
    """The whole state of one machine, in plain integers: what the reference interpreter steps.

    Attributes:
        registers: R words, 0…V−1.
        memory: N words, 0…V−1.
        program_counter: 0…P; P is the address past the end.
        stack: the return addresses, oldest first.
        halted: the run has ended by itself.
        fault: the first fault met, or ``Fault.none``.
        steps: instructions executed.
    """

    registers: list[int]
    memory: list[int]
    program_counter: int
    stack: list[int]
    halted: bool = False
    fault: Fault = Fault.none
    steps: int = 0


@dataclass(frozen=True)
class FinalStates:
    """Where a batch of B runs ended. A run that faulted shows the state *before* the faulting instruction.

    Attributes:
        registers: words, int64 [B, R].
        memory: words, int64 [B, N].
        program_counters: int64 [B].
        steps: int64 [B].
        faults: values of ``Fault``, int64 [B].
    """

    registers: np.ndarray
    memory: np.ndarray
    program_counters: np.ndarray
    steps: np.ndarray
    faults: np.ndarray


def code_points(text: str) -> np.ndarray:
    """The characters of a text as uint32 [length].

    Raises:
        MachineError: the text holds half of a surrogate pair, which is not a character.
    """
    try:
        return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    except UnicodeEncodeError as error:
        raise MachineError(
            f"character {error.start} of an argument is half of a surrogate pair (U+{ord(text[error.start]):04X}), "
            "not a character; pass well-formed text"
        ) from None


def check_arguments(lengths: Sequence[int], highest: int, config: MachineConfig) -> None:
    """Refuses arguments that do not fit: too many, too long, or with characters that are no words of this machine.

    Args:
        lengths: characters in each argument.
        highest: the largest code point among them all.

    Raises:
        MachineError: naming what does not fit and the machine that it would need.
    """
    allowed = min(MAXIMUM_ARGUMENTS, (config.registers - 2) // 2)
    if len(lengths) > allowed:
        raise MachineError(
            f"a call on a machine of {config.registers} registers has at most {allowed} arguments, found {len(lengths)}"
        )
    for position, length in enumerate(lengths):
        if length >= config.half:
            raise MachineError(
                f"argument {position} has {length} characters, more than the largest integer {config.half - 1} of a "
                f"machine of {config.values} values; use a machine with more values"
            )
    needed = 1 + sum(lengths) + len(lengths)
    if needed >= config.memory:
        raise MachineError(
            f"the arguments need {needed} words of memory and a free one, the machine has {config.memory}; "
            "shorten them or use a machine with more memory"
        )
    if highest >= config.values:
        raise MachineError(
            f"character U+{highest:04X} is no word of a machine of {config.values} values; "
            "use a machine with more values"
        )


def initial_state(arguments: Sequence[str], entry: int, config: MachineConfig) -> MachineState:
    """The state in which a program at ``entry`` starts on these arguments.

    Raises:
        MachineError: the arguments do not fit the machine.
    """
    texts = [code_points(text) for text in arguments]
    check_arguments([len(text) for text in texts], max((int(t.max()) for t in texts if len(t)), default=0), config)
    registers, memory, free = [0] * config.registers, [0] * config.memory, 1
    for position, text in enumerate(texts):
        registers[2 * position], registers[2 * position + 1] = free + 1, len(text)
        memory[free + 1 : free + 1 + len(text)] = text.tolist()
        free += 1 + len(text)
    registers[-2], registers[-1] = free, config.memory - 1
    return MachineState(registers, memory, entry, [])


def result_range(address: int, length: int, config: MachineConfig) -> tuple[int, int] | None:
    """First and past-the-last address of a result given as two words, or None if it is not inside memory.

    The length is an integer like any other, so a word of V/2 or more is negative and no length.
    """
    if length >= config.half or address + length > config.memory:
        return None
    return address, address + length


def decode(words: Sequence[int]) -> str | None:
    """The text of these code points, or None if one of them is no character."""
    if any(word >= 0x110000 or 0xD800 <= word < 0xE000 for word in words):
        return None
    return "".join(map(chr, words))


def result(state: MachineState, config: MachineConfig) -> RunResult:
    """The outcome of a run that ended in this state; an unreadable result is a ``wild_access``."""
    if state.fault is not Fault.none:
        return RunResult(None, state.steps, state.fault)
    where = result_range(state.registers[0], state.registers[1], config)
    text = None if where is None else decode(state.memory[where[0] : where[1]])
    return RunResult(text, state.steps, Fault.wild_access if text is None else Fault.none)
