"""Linked lists: each cell is two numbers, the index of the next cell's first (-1 after the last) and a value.

Restricted Python.
"""

from __future__ import annotations


def list_k(cells: list[int], head: int, k: int) -> int:
    """The value of the cell k links behind the head."""
    at = head
    for _ in range(k):
        at = cells[at]
    return cells[at + 1]


def list_search(cells: list[int], head: int, wanted: int) -> int:
    """How many links lead from the head to the first cell of this value, -1 if none has it."""
    at = head
    links = 0
    while at != -1:
        if cells[at + 1] == wanted:
            return links
        at = cells[at]
        links += 1
    return -1
