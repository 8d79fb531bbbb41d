"""Arrays of integers. Restricted Python."""

from __future__ import annotations


def access(values: list[int], place: int) -> int:
    """The number at a place."""
    return values[place]


def copy(values: list[int]) -> list[int]:
    """The same numbers in new memory, copied one by one."""
    copied: list[int] = []
    for value in values:
        copied.append(value)
    return copied


def increment(values: list[int]) -> list[int]:
    """Every number one more."""
    for i in range(len(values)):
        values[i] += 1
    return values


def linear_search(values: list[int], wanted: int) -> int:
    """The first place of a number, -1 if it is not there."""
    for i in range(len(values)):
        if values[i] == wanted:
            return i
    return -1


def permutation(values: list[int], places: list[int]) -> list[int]:
    """The numbers in the order of these places."""
    permuted: list[int] = []
    for place in places:
        permuted.append(values[place])
    return permuted


def reverse(values: list[int]) -> list[int]:
    """The numbers from the last to the first, in place."""
    left = 0
    right = len(values) - 1
    while left < right:
        values[left], values[right] = values[right], values[left]
        left += 1
        right -= 1
    return values


def swap(values: list[int], first: int, second: int) -> list[int]:
    """The numbers with two places exchanged."""
    values[first], values[second] = values[second], values[first]
    return values
