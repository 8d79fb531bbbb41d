"""The shape of a machine: how many values a word has, how much memory, how long it may run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any

DEEPEST_CALLS = 2**20
"""The greatest ``call_depth``: 4 MiB of return addresses a run."""

LONGEST_RUN = 2**62
"""The greatest ``max_steps``, so that a count of steps is an int64."""

LEAST_REGISTERS, MOST_REGISTERS = 6, 256


class MachineConfigError(ValueError):
    """A machine shape that cannot exist."""


@dataclass(frozen=True)
class MachineConfig:
    """Shape of a machine.

    Attributes:
        values: V, the number of values of a word, a power of two from 4 to 2**32. Words are 0…V−1 and are compared and
            added as two's complement, so the integers −V/2…V/2−1 can be computed with.
        memory: N, words of memory, 1…V.
        registers: R, 6…256. The last two hold the heap pointer and the stack pointer of compiled programs.
        call_depth: return addresses that the call stack holds, at most ``DEEPEST_CALLS``.
        max_steps: instructions after which a run is stopped with the fault ``out_of_steps``; at most ``LONGEST_RUN``.

    The paper's base is V = 128; answers are computed on V = 2**31, N = 65,536. A program gives the same result on every
    shape on which it does not fault.
    """

    values: int = 2**31
    memory: int = 65_536
    registers: int = 16
    call_depth: int = 4_096
    max_steps: int = 20_000_000

    def __post_init__(self) -> None:
        for name, number in vars(self).items():
            if isinstance(number, bool) or not isinstance(number, Integral):
                raise MachineConfigError(f"{name} must be an integer, found {number!r}")
        if not 4 <= self.values <= 2**32 or self.values & (self.values - 1):
            raise MachineConfigError(f"values must be a power of two from 4 to 2**32, found {self.values}")
        if not 1 <= self.memory <= self.values:
            raise MachineConfigError(f"memory must be between 1 and values = {self.values}, found {self.memory}")
        if not LEAST_REGISTERS <= self.registers <= MOST_REGISTERS:
            raise MachineConfigError(
                f"registers must be between {LEAST_REGISTERS} and {MOST_REGISTERS}, found {self.registers}"
            )
        for name, most in (("call_depth", DEEPEST_CALLS), ("max_steps", LONGEST_RUN)):
            if not 1 <= getattr(self, name) <= most:
                raise MachineConfigError(f"{name} must be between 1 and {most}, found {getattr(self, name)}")

    @property
    def half(self) -> int:
        """V/2: the first value that reads as a negative integer."""
        return self.values // 2

    @property
    def bits(self) -> int:
        """Binary digits of a word."""
        return self.values.bit_length() - 1

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


PAPER = MachineConfig(values=128, memory=128, registers=16, call_depth=32, max_steps=10_000)
"""The paper's base 128, as the dense engine runs it."""

TEXT = MachineConfig(values=256, memory=256, registers=16, call_depth=32, max_steps=100_000)
"""The smallest machine that handles all ASCII letters."""
