"""Addition by counting. Restricted Python."""

from __future__ import annotations


def loopy_add(first: int, second: int) -> int:
    """The sum of two numbers, the second not negative, by adding one again and again."""
    while second > 0:
        first += 1
        second -= 1
    return first
