"""Coverage: which tokens earlier calls of a reply have read.

A message with several requests is answered call after call: the result of one stands directly behind that of the one before.
There the selector and the reader see what those calls have read, and the choice of the turn's end sees what its own call reads,
too. Anywhere else nothing is covered.
Source: Tu et al., Modeling Coverage for Neural Machine Translation, 2016.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .objective import Explanation


def expected_coverage(
    explanations: Sequence[Explanation], owners: np.ndarray, length: int
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """What is covered in a reply that these calls explain: the mean over those that end, or begin, at a position.

    A call counts by its ``part`` in p(reply), or, where nobody has weighed it, as one of its program's candidates.

    Args:
        owners: int64 [C], the token of each character. length: L, tokens of the sequence.
    Returns:
        position → float32 [L], 0…1: what is covered at a position where a result has just ended, and what is covered, once the call
        is read, at one where it begins.
    """
    before: dict[int, np.ndarray] = {}
    begun: defaultdict[int, list[tuple[float, np.ndarray]]] = defaultdict(list)
    ended: defaultdict[int, list[tuple[float, np.ndarray]]] = defaultdict(list)
    for one in sorted(explanations, key=lambda one: one.start):
        # All that ends here began before, for no result is empty.
        if one.start in ended and one.start not in before:
            before[one.start] = _mean(ended[one.start])
        covered = before[one.start].copy() if one.start in before else np.zeros(length, dtype=np.float32)
        for pieces in one.pieces:
            for first, last in pieces:
                covered[owners[first:last]] = 1.0
        weight = 1 / one.candidates if one.part is None else one.part
        begun[one.start].append((weight, covered))
        ended[one.start + one.length].append((weight, covered))
    before |= {position: _mean(calls) for position, calls in ended.items() if position not in before}
    return before, {position: _mean(calls) for position, calls in begun.items()}


def _mean(calls: Sequence[tuple[float, np.ndarray]]) -> np.ndarray:
    weights = np.array([weight for weight, _ in calls], dtype=np.float32) + np.float32(1e-9)
    mean: np.ndarray = weights @ np.stack([covered for _, covered in calls]) / weights.sum()
    return mean
