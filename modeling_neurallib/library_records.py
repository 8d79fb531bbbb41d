"""What a library holds, and what it tells of itself, as plain records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .machine.operations import FIELDS, OPERATIONS


@dataclass(frozen=True)
class Parameter:
    """One parameter: its name and its type, one of ``str``, ``int``, ``bool`` and ``list[int]``.

    At the boundary every argument is text; the type says what the program reads it as.
    """

    name: str
    type: str


@dataclass(frozen=True)
class Program:
    """One program of a library.

    Attributes:
        name: what it is called by; ``library.name`` after libraries with equal names were linked.
        docstring: what it does, in words.
        parameters: its parameters, at most six.
        returns: the type of its result, which is text at the boundary.
        entry: the address at which a run starts.
        length: instructions from there on that belong to it alone.
        source: the Python function that it was compiled from.
        minimum_values: the smallest V on which each of its constants is a word. With fewer values an instruction whose
            constant is none faults when it is reached.
        library: the library that it was linked from; empty for the one that holds it.
    """

    name: str
    docstring: str
    parameters: tuple[Parameter, ...]
    returns: str
    entry: int
    length: int
    source: str
    minimum_values: int
    library: str = ""


@dataclass(frozen=True)
class Example:
    """One run of a program: its arguments and what came of them."""

    program: str
    arguments: tuple[str, ...]
    result: str


@dataclass(frozen=True)
class Origin:
    """Where the instructions from one address on come from, for the disassembler: function, file, first line, text."""

    name: str
    file: str
    line: int
    source: str


@dataclass(frozen=True)
class ListedLine:
    """A source line and the instructions that it was compiled to.

    Attributes:
        line: its number in the file; 0 for the head of a function. source: its text, fit for a terminal.
        instructions: address and instruction of each, and labels (".1") that jumps lead to.
    """

    line: int
    source: str
    instructions: tuple[str, ...]


@dataclass(frozen=True)
class LearnedCode:
    """What instructions were before they learned, and the weights that they came to.

    A library's ``instructions`` are always those that run: of a learned one the discretised ones.

    Attributes:
        origin: the library's instructions before, int64 [P, 5].
        rows: the addresses that learned, ascending, int64 [n].
        values: V of the machine that they learned on.
        offset: what its code addresses are less than those of the library.
        weights: field → distributions over its alternatives, float32 [n, K]. Entry j of an immediate is the word j mod V or,
            where the operation jumps, the address j + offset.
    """

    origin: np.ndarray
    rows: np.ndarray
    values: int
    offset: int
    weights: Mapping[str, np.ndarray]

    def probability(self, position: int, instruction: Sequence[int]) -> float:
        """The least weight that learning gave to a field of this instruction that is read; ``position`` is one in ``rows``."""
        operation = OPERATIONS[instruction[0]]
        found = [float(self.weights["operation"][position, instruction[0]])]
        for column, letter in enumerate("abt", 1):
            if letter in operation.operands:
                found.append(float(self.weights[FIELDS[column]][position, instruction[column]]))
        immediate = self.weights["immediate"][position]
        if "l" in operation.operands:
            entry = instruction[4] - self.offset
            found.append(float(immediate[entry]) if 0 <= entry < len(immediate) else 0.0)
        elif "i" in operation.operands:
            found.append(float(immediate[instruction[4] % self.values :: self.values].sum()))
        return min(found)


@dataclass(frozen=True)
class TunedKeys:
    """What tuning added to the keys by which a model selects a library's programs.

    Attributes:
        base: the model, ``org/name`` on the Hub; empty if it came from elsewhere. revision: its commit there.
        heads: sha256 of the heads that select by these keys; for others they mean nothing.
        offsets: float32 [programs, width], in the order of the programs.
    """

    base: str
    revision: str
    heads: str
    offsets: np.ndarray


@dataclass(frozen=True)
class Change:
    """An instruction that learning changed.

    Attributes:
        address: where. function: in which function.
        before, after: the instruction, with code addresses in place of labels.
        weight: the least weight that learning gave to a field of it, 0…1.
    """

    address: int
    function: str
    before: str
    after: str
    weight: float


@dataclass
class LibraryData:
    """Programs linked together, as data; :class:`~.library.NeuralLibrary` runs them.

    Attributes:
        name: the library's name.
        programs: name → program.
        instructions: int64 [P, 5], columns as in ``operations.FIELDS``.
        origins: start address → the function whose instructions begin there.
        lines: source line of each instruction, int64 [P], 0 for none.
        registers: R of the machine that it was compiled for; no other can run it.
        learned: what its instructions were before some of them learned, and their weights; None if they are as compiled.
            Extracting, linking and models keep the instructions and leave this behind.
        keys: what tuning added to its selector keys, for each model that it was tuned on; extracting and linking leave it behind.
    """

    name: str
    programs: dict[str, Program]
    instructions: np.ndarray
    origins: dict[int, Origin] = field(default_factory=dict)
    lines: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    registers: int = 16
    learned: LearnedCode | None = None
    keys: tuple[TunedKeys, ...] = ()
