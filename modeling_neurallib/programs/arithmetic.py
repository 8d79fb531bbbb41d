"""Arithmetic on numbers of any length, whole or with decimals, given and returned as decimal text.

A number is digits with an optional sign (+ or -), an optional point and spaces around it, as in "-7", "2.5", "1250" or "1,250";
other text gives "not a number".
"""

from __future__ import annotations

from ._decimals import NOT_WHOLE, in_units, places_of, read_decimal, sum_of_decimals, with_point, zeros
from ._limbs import (
    base_for,
    divide_limbs,
    fraction_text,
    is_zero,
    limbs_of,
    multiply_limbs,
    product_of_decimals,
    signed_text,
    text_of,
)
from ._numbers import NOT_A_NUMBER, compare_numbers, magnitude, negated, small_integer, sum_of

DIVISION_BY_ZERO = "division by zero"
TOO_LARGE = "too large"


def add(a: str, b: str) -> str:
    """Add two numbers."""
    x = read_decimal(a)
    y = read_decimal(b)
    if x == "" or y == "":
        return NOT_A_NUMBER
    return sum_of_decimals(x, y)


def subtract(a: str, b: str) -> str:
    """Subtract the second number from the first."""
    x = read_decimal(a)
    y = read_decimal(b)
    if x == "" or y == "":
        return NOT_A_NUMBER
    return sum_of_decimals(x, negated(y))


def multiply(a: str, b: str) -> str:
    """Multiply two numbers."""
    x = read_decimal(a)
    y = read_decimal(b)
    if x == "" or y == "":
        return NOT_A_NUMBER
    return product_of_decimals(x, y)


def divide(a: str, b: str) -> str:
    """Divide the first number by the second and round down: the whole-number quotient."""
    x = read_decimal(a)
    y = read_decimal(b)
    if x == "" or y == "":
        return NOT_A_NUMBER
    if y == "0":
        return DIVISION_BY_ZERO
    places = max(places_of(x), places_of(y))
    x = in_units(x, places)
    y = in_units(y, places)
    base = base_for(len(x) + len(y))
    parts = divide_limbs(limbs_of(x, base), limbs_of(y, base), base)
    quotient = text_of(parts[0], base)
    if (x[0] == "-") == (y[0] == "-"):
        return quotient
    if not is_zero(parts[1]):
        quotient = sum_of(quotient, "1")
    return negated(quotient)


def remainder(a: str, b: str) -> str:
    """The remainder when the first number is divided by the second (modulo).

    It has the sign of the second number, as it does for a quotient that is rounded down.
    """
    x = read_decimal(a)
    y = read_decimal(b)
    if x == "" or y == "":
        return NOT_A_NUMBER
    if y == "0":
        return DIVISION_BY_ZERO
    places = max(places_of(x), places_of(y))
    x = in_units(x, places)
    y = in_units(y, places)
    base = base_for(len(x) + len(y))
    parts = divide_limbs(limbs_of(x, base), limbs_of(y, base), base)
    rest = signed_text(parts[1], x[0] == "-", base)
    if rest != "0" and (x[0] == "-") != (y[0] == "-"):
        rest = sum_of(rest, y)
    return with_point(rest, places)


def power(a: str, b: str) -> str:
    """Raise the first number to the power of the second.

    By binary powering, exactly: for a negative exponent a decimal where that ends, else a fraction such as 1/9.
    "not a whole number" if the exponent is none, "too large" if it has more than five digits, or three below 0.
    """
    x = read_decimal(a)
    y = read_decimal(b)
    if x == "" or y == "":
        return NOT_A_NUMBER
    if places_of(y) > 0:
        return NOT_WHOLE
    odd = (ord(y[-1]) - 48) % 2 == 1
    if y == "0" or x == "1" or (x == "-1" and not odd):
        return "1"
    if x == "-1":
        return x
    if x == "0":
        if y[0] == "-":
            return DIVISION_BY_ZERO
        return x
    exponent = magnitude(y)
    if len(exponent) > 5 or (y[0] == "-" and len(exponent) > 3):
        return TOO_LARGE
    places = places_of(x)
    whole = in_units(x, places)
    count = small_integer(exponent)
    result = _powered(whole, count)
    if whole[0] == "-" and odd:
        result = "-" + result
    if y[0] != "-":
        return with_point(result, places * count)
    # 1 / (result / 10 ** (places · count)); a fraction has its sign above.
    numerator = "1" + zeros(places * count)
    if result[0] == "-":
        return fraction_text("-" + numerator, magnitude(result))
    return fraction_text(numerator, result)


def _powered(number: str, exponent: int) -> str:
    """A whole number, its sign left out of account, to the power of a positive exponent."""
    base = base_for(len(number) * exponent)
    result = [1]
    square = limbs_of(number, base)
    while True:
        if exponent % 2 == 1:
            result = multiply_limbs(result, square, base)
        exponent = exponent // 2
        if exponent == 0:
            return text_of(result, base)
        square = multiply_limbs(square, square, base)


def compare(a: str, b: str) -> str:
    """Say whether the first number is less than, equal to or greater than the second.

    Numbers may have decimals: 9.9 is greater than 9.11.
    """
    x = read_decimal(a)
    y = read_decimal(b)
    if x == "" or y == "":
        return NOT_A_NUMBER
    places = max(places_of(x), places_of(y))
    order = compare_numbers(in_units(x, places), in_units(y, places))
    if order < 0:
        return "less"
    if order > 0:
        return "greater"
    return "equal"
