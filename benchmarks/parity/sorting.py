"""Sorting and merging. Restricted Python."""

from __future__ import annotations


def bubble_sort(values: list[int]) -> list[int]:
    """The numbers in ascending order: neighbours are exchanged until no pair is out of order."""
    end = len(values)
    changed = True
    while changed:
        changed = False
        for i in range(1, end):
            if values[i - 1] > values[i]:
                values[i - 1], values[i] = values[i], values[i - 1]
                changed = True
        end -= 1
    return values


def merge(first: list[int], second: list[int]) -> list[int]:
    """Two ascending lists as one."""
    merged: list[int] = []
    i = 0
    j = 0
    while i < len(first) or j < len(second):
        if j == len(second) or (i < len(first) and first[i] <= second[j]):
            merged.append(first[i])
            i += 1
        else:
            merged.append(second[j])
            j += 1
    return merged
