"""What goes wrong with a library, and how a text or a value of a stranger is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .machine.operations import Fault

SHOWN = 80
"""Characters of a text that an error shows."""
PROGRAMS_SHOWN = 12
"""Programs that an error names where none is like the one that was asked for."""


class LibraryError(ValueError):
    """A library or a call of it that cannot be: says what was found, where, and what to do."""


class ProgramFault(RuntimeError):
    """A program that did not come to a result.

    Attributes:
        program: its name.
        fault: what stopped it.
        steps: after how many instructions.
    """

    def __init__(self, program: str, fault: Fault, steps: int) -> None:
        self.program, self.fault, self.steps = program, fault, steps
        super().__init__(f"{program} was stopped after {steps} instructions: {fault.name.replace('_', ' ')}")


def one_line(text: str) -> str:
    """Text of a stranger, fit to be shown on a terminal: no control characters."""
    return "".join(character if character.isprintable() else " " for character in text).rstrip()


def shown(value: Any) -> str:
    """What an error shows of a value that can be anything: one short line."""
    if isinstance(value, str):
        return repr(value) if len(value) <= SHOWN else f"{value[:SHOWN]!r}…"
    if value is None or isinstance(value, (bool, float)):
        return repr(value)
    if isinstance(value, (int, np.integer)):
        return str(value) if abs(int(value)) < 2**64 else f"an integer of {int(value).bit_length()} bits"
    return type(value).__name__


def shape(tensor: np.ndarray) -> str:
    """What an error shows of a shape, of however many dimensions."""
    return f"{list(tensor.shape)}" if tensor.ndim <= 3 else f"{tensor.ndim} dimensions"


def place(path: Path) -> str:
    """A path as an error shows it."""
    return one_line(str(path))


def reason(error: Exception) -> str:
    """What a library beneath says of a stranger's file, fit for one line."""
    return one_line(str(error)[: 4 * SHOWN])
