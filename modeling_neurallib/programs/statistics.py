"""Figures of a list of numbers of any length, whole or with decimals.

The numbers stand in a text, separated by spaces, commas, semicolons, brackets, new lines or the word "and"; where not only
commas separate them, their digits may be in groups: "1,250 and 3,400". Other text gives "not a number", a text without numbers
"no numbers".
"""

from __future__ import annotations

from ._decimals import all_in_units, most_places, read_decimals, with_point, zeros
from ._limbs import fraction_text
from ._numbers import compare_numbers, problem_with, sum_of


def sum_numbers(numbers: str) -> str:
    """Add up all the numbers in a list."""
    values = read_decimals(numbers)
    if problem_with(values) != "":
        return problem_with(values)
    places = most_places(values)
    return with_point(_total(all_in_units(values, places)), places)


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
    values = read_decimals(numbers)
    if problem_with(values) != "":
        return problem_with(values)
    places = most_places(values)
    return fraction_text(_total(all_in_units(values, places)), str(len(values)) + zeros(places))


def count_numbers(numbers: str) -> str:
    """Count how many numbers are in a list."""
    values = read_decimals(numbers)
    if problem_with(values) != "":
        return problem_with(values)
    return str(len(values))


def _extreme(numbers: str, direction: int) -> str:
    """The largest number for the direction 1, the smallest for -1."""
    values = read_decimals(numbers)
    if problem_with(values) != "":
        return problem_with(values)
    places = most_places(values)
    units = all_in_units(values, places)
    found = units[0]
    for value in units:
        if compare_numbers(value, found) * direction > 0:
            found = value
    return with_point(found, places)


def _total(values: list[str]) -> str:
    """The sum of whole numbers."""
    total = "0"
    for value in values:
        total = sum_of(total, value)
    return total
