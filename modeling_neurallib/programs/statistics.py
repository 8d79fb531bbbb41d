"""Figures of a list of whole numbers of any length.

The numbers stand in a text, separated by spaces, commas, semicolons, brackets, new lines or the word "and". Other text
gives "not a number", a text without numbers "no numbers".
"""

from __future__ import annotations

from ._limbs import fraction_text
from ._numbers import compare_numbers, problem_with, read_numbers, sum_of


def sum_numbers(numbers: str) -> str:
    """Add up all the numbers in a list."""
    values = read_numbers(numbers)
    if problem_with(values) != "":
        return problem_with(values)
    return _total(values)


def maximum(numbers: str) -> str:
    """The largest number in a list."""
    return _extreme(numbers, 1)


def minimum(numbers: str) -> str:
    """The smallest number in a list."""
    return _extreme(numbers, -1)


def mean(numbers: str) -> str:
    """The mean (average) of the numbers in a list, exactly.

    An integer, a decimal such as 2.5 where that ends, else a fraction in lowest terms such as 22/3.
    """
    values = read_numbers(numbers)
    if problem_with(values) != "":
        return problem_with(values)
    return fraction_text(_total(values), str(len(values)))


def count_numbers(numbers: str) -> str:
    """Count how many numbers are in a list."""
    values = read_numbers(numbers)
    if problem_with(values) != "":
        return problem_with(values)
    return str(len(values))


def _extreme(numbers: str, direction: int) -> str:
    """The largest number for the direction 1, the smallest for -1."""
    values = read_numbers(numbers)
    if problem_with(values) != "":
        return problem_with(values)
    found = values[0]
    for value in values:
        if compare_numbers(value, found) * direction > 0:
            found = value
    return found


def _total(values: list[str]) -> str:
    total = "0"
    for value in values:
        total = sum_of(total, value)
    return total
