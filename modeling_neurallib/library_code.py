"""The instructions of a library, int64 [P, 5]: where a run of them can come to, and what machine it needs."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from .machine.operations import OPERATIONS

HAS_IMMEDIATE = np.array(["i" in operation.operands for operation in OPERATIONS])
HAS_ADDRESS = np.array(["l" in operation.operands for operation in OPERATIONS])
ENDS = np.array([operation.name in ("halt", "jump", "return") for operation in OPERATIONS])
"""For each operation: whether it has an immediate, whether that is a code address, whether a run goes on elsewhere or ends."""


def reachable(code: np.ndarray, entry: int) -> np.ndarray:
    """Which instructions a run from ``entry`` can reach: bool [P]."""
    seen = np.zeros(len(code), dtype=bool)
    operations, targets = code[:, 0].tolist(), code[:, 4].tolist()
    waiting = [entry]
    while waiting:
        position = waiting.pop()
        while position < len(operations) and not seen[position]:
            seen[position] = True
            if HAS_ADDRESS[operations[position]]:
                waiting.append(targets[position])
            if ENDS[operations[position]]:
                break
            position += 1
    return seen


def minimum_values(code: np.ndarray) -> np.ndarray:
    """The least V of a run that begins at each instruction, int64 [P]: what the most demanding one in its reach needs."""
    operations, immediates = code[:, 0], code[:, 4]
    own = np.full(len(operations), 4, dtype=np.int64)
    for values in 2 ** np.arange(2, 64, dtype=np.uint64).astype(object):
        small = ~HAS_IMMEDIATE[operations] | ((immediates >= -(values // 2)) & (immediates < values // 2))
        own[~small] = values * 2
        if small.all():
            break
    jumps: dict[int, list[int]] = defaultdict(list)
    for position in np.flatnonzero(HAS_ADDRESS[operations]).tolist():
        jumps[int(immediates[position])].append(position)
    ends = ENDS[operations].tolist()
    found = np.zeros(len(own), dtype=np.int64)
    # The most demanding first: each instruction is reached once, by the greatest need that it leads to.
    for values in np.unique(own)[::-1].tolist():
        waiting = np.flatnonzero(own == values).tolist()
        while waiting:
            position = waiting.pop()
            if found[position]:
                continue
            found[position] = values
            waiting += jumps.get(position, ())
            if position and not ends[position - 1]:
                waiting.append(position - 1)
    return found
