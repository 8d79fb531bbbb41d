"""Stage 5: routines into one library. Each routine gets an address, and calls and jumps the addresses that they mean.

Whole libraries are joined by ``NeuralLibrary.link``, which needs no compiler.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..library import NeuralLibrary
from ..library_records import Origin, Parameter, Program
from .assemble import Assembled


@dataclass
class ProgramParts:
    """A program before it has an address: what the library says of it, and the routines that are laid out together."""

    name: str
    docstring: str
    parameters: tuple[Parameter, ...]
    returns: str
    source: str
    routines: list[str]


def link(name: str, programs: list[ProgramParts], assembled: dict[str, Assembled], registers: int) -> NeuralLibrary:
    """Lays out programs, then the functions that they share, and resolves every address."""
    order: list[str] = []
    for program in programs:
        order += [routine for routine in program.routines if routine not in order]
    order += [routine for routine in assembled if routine not in order]
    addresses: dict[str, int] = {}
    free = 0
    for label in order:
        addresses[label] = free
        free += len(assembled[label].rows)
    instructions = np.zeros((free, 5), dtype=np.int64)
    lines = np.zeros(free, dtype=np.int64)
    origins = {}
    for label in order:
        part, start = assembled[label], addresses[label]
        end = start + len(part.rows)
        instructions[start:end] = part.rows
        lines[start:end] = part.lines
        for position in part.jumps:
            instructions[start + position, 4] += start
        for position, callee in part.calls.items():
            instructions[start + position, 4] = addresses[callee]
        routine = part.routine
        origins[start] = Origin(label, Path(routine.file).name, routine.line, routine.source)
    built = {}
    for program in programs:
        entry = addresses[program.routines[0]]
        built[program.name] = Program(
            name=program.name,
            docstring=program.docstring,
            parameters=program.parameters,
            returns=program.returns,
            entry=entry,
            length=sum(len(assembled[label].rows) for label in program.routines),
            source=program.source,
            minimum_values=0,
        )
    return NeuralLibrary(name, built, instructions, origins, lines, registers)
