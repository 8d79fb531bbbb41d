"""What people ask for without saying both numbers, or which of two goes first: differences, squares and cubes, doubles and halves,
percentages. Numbers of any length, whole or with decimals, exactly; other text gives "not a number".
"""

from __future__ import annotations

from ._decimals import in_units, places_of, read_decimal, with_point
from ._limbs import product_of
from ._numbers import NOT_A_NUMBER, magnitude, negated, sum_of


def difference(a: str, b: str) -> str:
    """How far apart two numbers are: the larger minus the smaller, never negative."""
    x = read_decimal(a)
    y = read_decimal(b)
    if x == "" or y == "":
        return NOT_A_NUMBER
    places = max(places_of(x), places_of(y))
    return with_point(magnitude(sum_of(in_units(x, places), negated(in_units(y, places)))), places)


def square(n: str) -> str:
    """The square of a number: the number times itself."""
    x = read_decimal(n)
    if x == "":
        return NOT_A_NUMBER
    places = places_of(x)
    units = in_units(x, places)
    return with_point(product_of(units, units), 2 * places)


def cube(n: str) -> str:
    """The cube of a number: its third power."""
    x = read_decimal(n)
    if x == "":
        return NOT_A_NUMBER
    places = places_of(x)
    units = in_units(x, places)
    return with_point(product_of(product_of(units, units), units), 3 * places)


def double(n: str) -> str:
    """Twice a number."""
    x = read_decimal(n)
    if x == "":
        return NOT_A_NUMBER
    places = places_of(x)
    units = in_units(x, places)
    return with_point(sum_of(units, units), places)


def half(n: str) -> str:
    """Half of a number, exactly: half of 7 is 3.5."""
    x = read_decimal(n)
    if x == "":
        return NOT_A_NUMBER
    places = places_of(x)
    return with_point(product_of(in_units(x, places), "5"), places + 1)


def percentage(a: str, b: str) -> str:
    """Take a percentage of a number: so many percent, the first, of the second."""
    x = read_decimal(a)
    y = read_decimal(b)
    if x == "" or y == "":
        return NOT_A_NUMBER
    places_x = places_of(x)
    places_y = places_of(y)
    return with_point(product_of(in_units(x, places_x), in_units(y, places_y)), places_x + places_y + 2)
