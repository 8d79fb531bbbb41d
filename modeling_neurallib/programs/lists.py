"""Lists of numbers of any length, whole or with decimals, put into another order. Results are separated by single spaces.

The numbers stand in a text, separated by spaces, commas, semicolons, brackets, new lines or the word "and"; where not only
commas separate them, their digits may be in groups: "1,250 and 3,400". Other text gives "not a number", a text without numbers
"no numbers".
"""

from __future__ import annotations

from ._decimals import all_in_units, all_with_point, most_places, read_decimals
from ._numbers import compare_numbers, problem_with


def sort_ascending(numbers: str) -> str:
    """Sort a list of numbers from smallest to largest."""
    values = read_decimals(numbers)
    if problem_with(values) != "":
        return problem_with(values)
    return " ".join(_sorted(values))


def sort_descending(numbers: str) -> str:
    """Sort a list of numbers from largest to smallest."""
    values = read_decimals(numbers)
    if problem_with(values) != "":
        return problem_with(values)
    return " ".join(_reversed(_sorted(values)))


def insertion_sort(numbers: list[int]) -> list[int]:
    """Sort a list of numbers from smallest to largest, by insertion sort."""
    for i in range(1, len(numbers)):
        number = numbers[i]
        j = i
        while j > 0 and numbers[j - 1] > number:
            numbers[j] = numbers[j - 1]
            j -= 1
        numbers[j] = number
    return numbers


def reverse_list(numbers: str) -> str:
    """Reverse the order of the numbers in a list."""
    values = read_decimals(numbers)
    if problem_with(values) != "":
        return problem_with(values)
    return " ".join(_reversed(values))


def _sorted(values: list[str]) -> list[str]:
    places = most_places(values)
    return all_with_point(_merge_sorted(all_in_units(values, places)), places)


def _merge_sorted(values: list[str]) -> list[str]:
    """Merge sort of whole numbers: runs of one, two, four … sorted numbers are merged in pairs."""
    width = 1
    target = values[:]
    while width < len(values):
        start = 0
        while start < len(values):
            _merge(values, target, start, min(start + width, len(values)), min(start + 2 * width, len(values)))
            start += 2 * width
        values, target = target, values
        width = 2 * width
    return values


def _merge(values: list[str], target: list[str], start: int, middle: int, end: int) -> None:
    """Merges the sorted runs values[start:middle] and values[middle:end] into target[start:end]."""
    left = start
    right = middle
    for place in range(start, end):
        if left < middle and (right == end or compare_numbers(values[left], values[right]) <= 0):
            target[place] = values[left]
            left += 1
        else:
            target[place] = values[right]
            right += 1


def _reversed(values: list[str]) -> list[str]:
    result: list[str] = []
    for i in range(len(values) - 1, -1, -1):
        result.append(values[i])
    return result
