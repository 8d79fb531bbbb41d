"""Coverage: which tokens earlier calls of a reply have read.

A message with several requests is answered call after call: the result of one stands directly behind that of the one before.
There the selector and the reader see what those calls have read, and the choice of the turn's end sees what its own call reads,
too. Anywhere else nothing is covered.
Source: Tu et al., Modeling Coverage for Neural Machine Translation, 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .objective import Explanation

LEAST_PART = 1e-9
"""Added to each part, so that there is a mean of parts that are all zero."""


@dataclass
class _Sum:
    """What the calls that end, or begin, at one position cover: the sum of their parts and of what each covers, and what all do."""

    parts: float
    covered: np.ndarray
    by_all: np.ndarray
    weighed: bool

    def mean(self) -> np.ndarray:
        return self.covered / np.float32(self.parts) if self.weighed else self.by_all


def expected_coverage(
    explanations: Sequence[Explanation], owners: np.ndarray, length: int
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """What is covered in a reply that these calls explain: the mean over those that end, or begin, at a position.

    A call counts by its ``part`` in p(reply). Where nobody has weighed one of them, that is covered which all of them have read:
    most explain the answer by chance.

    Args:
        owners: int64 [C], the token of each character. length: L, tokens of the sequence.
    Returns:
        position → float32 [L], 0…1: what is covered at a position where a result has just ended, and what is covered, once the call
        is read, at one where it begins.
    """
    begun: dict[int, _Sum] = {}
    ended: dict[int, _Sum] = {}
    for one in sorted(explanations, key=lambda one: one.start):
        # All that ends here began before, for no result is empty.
        covered = ended[one.start].mean().copy() if one.start in ended else np.zeros(length, dtype=np.float32)
        for pieces in one.pieces:
            for first, last in pieces:
                covered[owners[first:last]] = 1.0
        for sums, position in ((begun, one.start), (ended, one.start + one.length)):
            _add(sums, position, covered, one.part)
    return {at: found.mean() for at, found in ended.items()}, {at: found.mean() for at, found in begun.items()}


def _add(sums: dict[int, _Sum], position: int, covered: np.ndarray, part: float | None) -> None:
    weight = LEAST_PART if part is None else part + LEAST_PART
    if position not in sums:
        sums[position] = _Sum(weight, weight * covered, covered, part is not None)
        return
    found = sums[position]
    found.parts += weight
    found.covered = found.covered + weight * covered
    found.by_all = np.minimum(found.by_all, covered)
    found.weighed &= part is not None
