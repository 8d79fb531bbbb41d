"""Looking for a program that is right on examples among those that differ from a wrong one in a few fields.

``walk`` goes from program to program along the counterfactual gradient. ``search`` is the baseline: the same programs
without a gradient, at random or one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations, islice

import numpy as np

from ...configuration.machine_config import MachineConfig
from .dense import SoftProgram
from .learning import (
    Examples,
    Learned,
    LearningError,
    Objective,
    Trial,
    as_instructions,
    entries,
    losses_of_alternatives,
    started,
    widths_of,
)
from .operations import READS

_CHUNK = 4_096
_IDLE = 1_000
"""After so many turns without a visit there is nothing left to visit."""


class _Visited:
    """A program of the walk's tree.

    Attributes:
        losses: of its alternatives, summed over examples, float32 [rows · Σ widths].
        order: their indices, the least loss first, once a child has been asked for; int32.
        next: where in ``order`` to look for a child that has not been visited.
        children: indices of those that have been.
    """

    def __init__(self, losses: np.ndarray):
        self.losses, self.next = losses.astype(np.float32), 0
        self.order: np.ndarray | None = None
        self.children: list[int] = []


def walk(
    instructions: np.ndarray,
    config: MachineConfig,
    examples: Examples,
    objective: Objective,
    budget: int,
    *,
    rows: np.ndarray | None = None,
    most: int = 4,
    max_steps: int | None = None,
    seed: int = 0,
) -> Learned:
    """Looks for a program that is right on all examples along the counterfactual gradient.

    The gradient at a program is the loss of each of its alternatives, so programs make a tree, in which a child differs from
    its parent in one field. A visit to a program takes the gradient there, at one example (at the first program: at all), and
    tries the alternatives of no loss on all examples: one that is right is not missed, and no second visit is needed. Every
    turn goes down from the first program and, with even chances, visits the child of least loss that has not been visited,
    or goes on from one that has been, the one of rank r by its loss with a probability of about 1/r. By rank, since among
    wrong programs a loss says what is better, but little by how much.

    Args:
        objective: its efficiency must be 0.
        budget: runs that may be spent, about.
        rows, max_steps, seed: as ``learn``.
        most: in how many fields programs differ from the one to start at, at most.

    Raises:
        LearningError, MachineError: an argument is out of range.
    """
    origin = started(instructions, config)
    examples.check(config, len(origin))
    learned = np.ones(len(origin), bool) if rows is None else np.asarray(rows, bool)
    if objective.efficiency:
        raise LearningError(
            f"efficiency must be 0, a walk ends at the first right program, found {objective.efficiency}"
        )
    if most < 1:
        raise LearningError(f"most must be at least 1, found {most}")
    trial = Trial(origin, learned, config, examples, max_steps or config.max_steps)
    tree = _Tree(trial, learned, config, examples, objective, budget, np.random.default_rng(seed))
    root = entries(origin, config)
    if not trial.judge(origin):
        tree.visit(root, range(len(examples)))
    idle, before = 0, trial.runs
    while most > 1 and not trial.right and trial.runs < budget and idle < _IDLE:
        tree.descend(root, most - 1)
        idle, before = idle + 1 if trial.runs == before else 0, trial.runs
    return Learned(SoftProgram.from_instructions(trial.best, config), trial.best, trial.right, [], trial.runs)


class _Tree:
    """The programs that a walk has visited."""

    def __init__(
        self,
        trial: Trial,
        rows: np.ndarray,
        config: MachineConfig,
        examples: Examples,
        objective: Objective,
        budget: int,
        random: np.random.Generator,
    ):
        self._trial, self._config, self._examples, self._objective = trial, config, examples, objective
        self._rows, self._budget, self._random = rows, budget, random
        self._addresses, self._widths = np.flatnonzero(rows), widths_of(config, len(rows))
        self._ends, self._visited = np.cumsum(self._widths), dict[bytes, _Visited]()

    def visit(self, code: np.ndarray, chosen: Iterable[int]) -> None:
        """Takes the gradient at a program at these examples, until a right program is found or the budget spent."""
        total = np.zeros(len(self._addresses) * int(self._ends[-1]))
        for turn, number in enumerate(chosen):
            losses, runs = losses_of_alternatives(
                code, self._rows, self._config, self._examples, number, self._objective, self._trial.limit
            )
            total += losses
            self._trial.runs += runs
            none = np.array([self._edit(index) for index in np.flatnonzero(losses < 1e-9).tolist()])
            if not turn and len(none):
                self._trial.propose(code, none, self._budget - self._trial.runs)
            if self._trial.right or self._trial.runs >= self._budget:
                break
        self._visited[code.tobytes()] = _Visited(total)

    def descend(self, code: np.ndarray, depth: int) -> None:
        """One turn: to a program that has not been visited, at most so many fields away."""
        for left in range(depth, 0, -1):
            here = self._visited[code.tobytes()]
            wide = left == 1 or not here.children or self._random.random() < 0.5
            if (wide and self._widen(code, here)) or not here.children:
                return
            rank = int((len(here.children) + 1) ** self._random.random()) - 1
            known = np.array(here.children)
            code = self._changed(code, int(known[np.argpartition(here.losses[known], rank)[rank]]))

    def _widen(self, code: np.ndarray, here: _Visited) -> bool:
        """Visits the child of least loss that has not been visited; False if there is none."""
        if here.order is None:
            here.order = np.argsort(here.losses + self._random.random(len(here.losses)) * 1e-4).astype(np.int32)
        for index in map(int, here.order[here.next :]):
            here.next += 1
            row, column, entry = self._edit(index)
            if code[row, column] == entry or not READS[code[row, 0], column]:
                continue
            here.children.append(index)
            child = self._changed(code, index)
            if child.tobytes() not in self._visited:
                self.visit(child, [int(self._random.integers(len(self._examples)))])
                return True
        return False

    def _changed(self, code: np.ndarray, index: int) -> np.ndarray:
        row, column, entry = self._edit(index)
        child = code.copy()
        child[row, column] = entry
        return child

    def _edit(self, index: int) -> tuple[int, int, int]:
        """Row, column and entry of an alternative."""
        row, at = divmod(index, int(self._ends[-1]))
        column = int(np.searchsorted(self._ends, at, side="right"))
        return int(self._addresses[row]), column, at - int(self._ends[column] - self._widths[column])


def search(
    instructions: np.ndarray,
    config: MachineConfig,
    examples: Examples,
    budget: int,
    *,
    rows: np.ndarray | None = None,
    exhaustive: bool = False,
    most: int = 4,
    fewest: bool = False,
    max_steps: int | None = None,
    seed: int = 0,
) -> Learned:
    """Looks for a program that is right on all examples among those that differ from this one in a few fields.

    A program is given up at the first example that it is wrong on, and only fields that are read are changed.

    Args:
        rows, max_steps, seed: as ``learn``.
        budget: runs that may be spent.
        exhaustive: all programs that differ in one field, then all in two, …, in a random order of the fields; otherwise
            programs that differ in 1…``most`` fields, drawn at random.
        fewest: this program is right; look for others that take fewer steps, each among those that differ in a few fields
            from the one before, until the budget is spent. One that saves no step on an example drawn at random is given up there.
    """
    origin = started(instructions, config)
    examples.check(config, len(origin))
    learned = np.ones(len(origin), bool) if rows is None else np.asarray(rows, bool)
    random = np.random.default_rng(seed)
    trial = Trial(origin, learned, config, examples, max_steps or config.max_steps)
    if fewest and not trial.judge(origin):
        raise LearningError(
            "the program to start at is not right on every example; leave out fewest, or repair it first"
        )
    going = True
    while going and trial.runs < budget:
        going = _searched(trial, entries(trial.best, config), config, learned, budget, most, exhaustive, fewest, random)
        going = going and fewest
    return Learned(SoftProgram.from_instructions(trial.best, config), trial.best, trial.right, [], trial.runs)


def _searched(
    trial: Trial,
    code: np.ndarray,
    config: MachineConfig,
    rows: np.ndarray,
    budget: int,
    most: int,
    exhaustive: bool,
    fewest: bool,
    random: np.random.Generator,
) -> bool:
    """Whether a better program was found before the budget was spent."""
    for edits in _edits(code, config, rows, most, exhaustive, random):
        if fewest:
            example = int(random.integers(len(trial.steps)))
            left = budget - trial.runs
            tried = trial.all_right(code, edits, left, example, int(trial.steps[example]) - 1)
            found: Iterator[int] = (
                k for k in tried if list(trial.all_right(code, edits[k : k + 1], budget - trial.runs))
            )
        else:
            found = trial.all_right(code, edits, budget - trial.runs)
        for k in found:
            changed = code.copy()
            for row, column, entry in edits[k]:
                if row >= 0:
                    changed[row, column] = entry
            program = as_instructions(changed, config)
            # The search does not look for overflow; the exact engine does.
            before = trial.best
            if program is not None and trial.judge(program) and trial.best is not before:
                return True
        if trial.runs >= budget:
            return False
    return False


def single_edits(code: np.ndarray, config: MachineConfig, rows: np.ndarray) -> np.ndarray:
    """Every change of one field of these instructions, int64 [edits, 3]: row, column, index of the alternative.

    Args:
        code: fields as indices into their distributions, int64 [P, 5].
    """
    found = []
    for row in np.flatnonzero(rows):
        for column, width in enumerate(widths_of(config, len(code))):
            others = np.delete(np.arange(width), code[row, column])
            found.append(np.column_stack([np.full((len(others), 2), (row, column)), others]))
    return np.concatenate(found)


def _edits(
    code: np.ndarray, config: MachineConfig, rows: np.ndarray, most: int, exhaustive: bool, random: np.random.Generator
) -> Iterator[np.ndarray]:
    """Sets of changes, int64 [chunk, n, 3], without end if they are drawn at random."""
    singles = random.permutation(single_edits(code, config, rows))
    if not exhaustive:
        while True:
            sets = singles[random.integers(len(singles), size=(_CHUNK, most))]
            sets[np.arange(most) >= random.integers(1, most + 1, size=(_CHUNK, 1)), 0] = -1
            yield _sensible(sets, code)
    for count in range(1, most + 1):
        chosen = combinations(range(len(singles)), count)
        while chunk := list(islice(chosen, _CHUNK)):
            yield _sensible(singles[np.array(chunk)], code)


def _sensible(sets: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Those sets that change no field twice, and only fields that are read once they are made."""
    keep = np.ones(len(sets), bool)
    for k in range(sets.shape[1]):
        row, column = sets[:, k, 0], sets[:, k, 1]
        operation = code[row, 0]
        for other in range(sets.shape[1]):
            same = (sets[:, other, 0] == row) & (row >= 0)
            keep &= ~(same & (sets[:, other, 1] == column)) if other != k else True
            operation = np.where(same & (sets[:, other, 1] == 0), sets[:, other, 2], operation)
        keep &= (row < 0) | READS[operation, column]
    return np.ascontiguousarray(sets[keep])
