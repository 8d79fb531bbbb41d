"""Everyday sums that name one number alone, or leave open which of two goes first: the distance between two numbers, squares and
cubes, doubles and halves, percentages.

Numbers of any length, whole or with decimals, and exact results; other text gives "not a number".
"""

from __future__ import annotations

from ._decimals import read_decimal, sum_of_decimals
from ._limbs import product_of_decimals
from ._numbers import NOT_A_NUMBER, magnitude, negated


def difference(a: str, b: str) -> str:
    """The difference between two numbers: how far apart they are, never negative."""
    x = read_decimal(a)
    y = read_decimal(b)
    if x == "" or y == "":
        return NOT_A_NUMBER
    return magnitude(sum_of_decimals(x, negated(y)))


def square(n: str) -> str:
    """The square of a number: the number times itself."""
    x = read_decimal(n)
    if x == "":
        return NOT_A_NUMBER
    return product_of_decimals(x, x)


def cube(n: str) -> str:
    """The cube of a number: its third power."""
    x = read_decimal(n)
    if x == "":
        return NOT_A_NUMBER
    return product_of_decimals(product_of_decimals(x, x), x)


def double(n: str) -> str:
    """Twice a number."""
    x = read_decimal(n)
    if x == "":
        return NOT_A_NUMBER
    return sum_of_decimals(x, x)


def half(n: str) -> str:
    """Half of a number, exactly: half of 7 is 3.5."""
    x = read_decimal(n)
    if x == "":
        return NOT_A_NUMBER
    return product_of_decimals(x, "0.5")


def percentage(a: str, b: str) -> str:
    """The first number percent of the second: 15 percent of 80 is 12."""
    x = read_decimal(a)
    y = read_decimal(b)
    if x == "" or y == "":
        return NOT_A_NUMBER
    return product_of_decimals(product_of_decimals(x, y), "0.01")
