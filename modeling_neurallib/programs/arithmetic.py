"""Arithmetic on whole numbers of any length, given and returned as decimal text.

A number is digits with an optional sign (+ or -) and spaces around it, as in "-7", "1250" or "1,250"; other text gives "not a
number".
"""

from __future__ import annotations

from ._limbs import (
    base_for,
    divide_limbs,
    is_zero,
    limbs_of,
    multiply_limbs,
    product_of,
    signed_text,
    text_of,
)
from ._numbers import (
    NOT_A_NUMBER,
    compare_numbers,
    negated,
    number_between,
    read_number,
    small_integer,
    sum_of,
    without_groups,
)
from ._text import after_spaces

DIVISION_BY_ZERO = "division by zero"
NOT_WHOLE = "not a whole number"
TOO_LARGE = "too large"


def add(a: str, b: str) -> str:
    """Add two whole numbers."""
    x = read_number(a)
    y = read_number(b)
    if x == "" or y == "":
        return NOT_A_NUMBER
    return sum_of(x, y)


def subtract(a: str, b: str) -> str:
    """Subtract the second whole number from the first."""
    x = read_number(a)
    y = read_number(b)
    if x == "" or y == "":
        return NOT_A_NUMBER
    return sum_of(x, negated(y))


def multiply(a: str, b: str) -> str:
    """Multiply two whole numbers."""
    x = read_number(a)
    y = read_number(b)
    if x == "" or y == "":
        return NOT_A_NUMBER
    return product_of(x, y)


def divide(a: str, b: str) -> str:
    """Divide the first whole number by the second and round down: the whole-number quotient."""
    x = read_number(a)
    y = read_number(b)
    if x == "" or y == "":
        return NOT_A_NUMBER
    if y == "0":
        return DIVISION_BY_ZERO
    base = base_for(len(x) + len(y))
    parts = divide_limbs(limbs_of(x, base), limbs_of(y, base), base)
    quotient = text_of(parts[0], base)
    if (x[0] == "-") == (y[0] == "-"):
        return quotient
    if not is_zero(parts[1]):
        quotient = sum_of(quotient, "1")
    return negated(quotient)


def remainder(a: str, b: str) -> str:
    """The remainder when the first whole number is divided by the second (modulo).

    It has the sign of the second number, as it does for a quotient that is rounded down.
    """
    x = read_number(a)
    y = read_number(b)
    if x == "" or y == "":
        return NOT_A_NUMBER
    if y == "0":
        return DIVISION_BY_ZERO
    base = base_for(len(x) + len(y))
    parts = divide_limbs(limbs_of(x, base), limbs_of(y, base), base)
    rest = signed_text(parts[1], x[0] == "-", base)
    if rest != "0" and (x[0] == "-") != (y[0] == "-"):
        return sum_of(rest, y)
    return rest


def power(a: str, b: str) -> str:
    """Raise the first whole number to the power of the second.

    By binary powering. "not a whole number" if the result is a fraction, "too large" if the exponent has more than
    five digits.
    """
    x = read_number(a)
    y = read_number(b)
    if x == "" or y == "":
        return NOT_A_NUMBER
    odd = (ord(y[-1]) - 48) % 2 == 1
    if y == "0" or x == "1" or (x == "-1" and not odd):
        return "1"
    if x == "-1":
        return x
    if y[0] == "-":
        if x == "0":
            return DIVISION_BY_ZERO
        return NOT_WHOLE
    if x == "0":
        return x
    if len(y) > 5:
        return TOO_LARGE
    exponent = small_integer(y)
    base = base_for(len(x) * exponent)
    result = [1]
    square = limbs_of(x, base)
    while True:
        if exponent % 2 == 1:
            result = multiply_limbs(result, square, base)
        exponent = exponent // 2
        if exponent == 0:
            break
        square = multiply_limbs(square, square, base)
    return signed_text(result, x[0] == "-" and odd, base)


def compare(a: str, b: str) -> str:
    """Say whether the first number is less than, equal to or greater than the second.

    Numbers may have decimals: 9.9 is greater than 9.11.
    """
    places = max(_places(a), _places(b))
    scaled_a = _scaled(a, places)
    scaled_b = _scaled(b, places)
    x = number_between(scaled_a, 0, len(scaled_a))
    y = number_between(scaled_b, 0, len(scaled_b))
    if x == "" or y == "":
        return NOT_A_NUMBER
    order = compare_numbers(x, y)
    if order < 0:
        return "less"
    if order > 0:
        return "greater"
    return "equal"


def _point(text: str) -> int:
    """Where the decimal point stands; the length of the text if it has none."""
    for i in range(len(text)):
        if text[i] == ".":
            return i
    return len(text)


def _end(text: str) -> int:
    """Where the spaces at the end of a text begin."""
    end = len(text)
    while end > 0 and text[end - 1] in " \n\t":
        end -= 1
    return end


def _places(text: str) -> int:
    """How many characters follow the decimal point."""
    return max(0, _end(text) - _point(text) - 1)


def _scaled(text: str, places: int) -> str:
    """A number with decimals, times 10 to the power of ``places``; no number if there is nothing behind its point."""
    start = after_spaces(text, 0)
    point = _point(text)
    end = _end(text)
    if point == len(text):
        return without_groups(text[start:end]) + _zeros(text, places)
    if point + 1 >= end or not "0" <= text[point + 1] <= "9":
        return ""
    return without_groups(text[start:point]) + text[point + 1 : end] + _zeros(text, places - (end - point - 1))


def _zeros(text: str, count: int) -> str:
    """Zeros to be put behind a number; none if there is no number, so that it does not become one."""
    if _end(text) == 0 or not "0" <= text[_end(text) - 1] <= "9":
        return ""
    return "".join(["0"] * count)
