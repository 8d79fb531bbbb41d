"""Arithmetic expressions, worked out exactly by recursive descent over fractions of whole numbers of any length.

    sum     = product { ("+" | "-") product }
    product = factor { ("*" | "×" | "x" | "/" | "÷") factor }
    factor  = ("+" | "-") factor | power
    power   = atom [ ("**" | "^") factor ]
    atom    = digits [ "." digits ] | "(" sum ")"

A value is a fraction: the list [numerator, denominator], the denominator positive. Where the reader is, and what went
wrong, stand in a list of two integers that all parts share: [position, problem].
"""

from __future__ import annotations

from ._limbs import fraction_text, product_of
from ._numbers import negated, small_integer, sum_of, without_zeros
from ._text import after_digits, after_spaces

FINE = 0
BAD_SYNTAX = 1
ZERO_DIVISOR = 2
TOO_LARGE = 3

POSITION = 0
PROBLEM = 1


def evaluate(expression: str) -> str:
    """Work out an arithmetic expression with + - * / and parentheses.

    Also ** or ^ for powers with whole exponents from 0 to 9999, × and ÷, and decimals. The result is exact: an integer,
    a decimal where that ends, else a fraction such as 7/3. "not an expression", "division by zero" or "too large" if
    there is none.
    """
    state = [0, FINE]
    value = _sum(expression, state)
    if _next(expression, state) < len(expression):
        _fail(state, BAD_SYNTAX)
    if state[PROBLEM] == BAD_SYNTAX:
        return "not an expression"
    if state[PROBLEM] == ZERO_DIVISOR:
        return "division by zero"
    if state[PROBLEM] == TOO_LARGE:
        return "too large"
    return fraction_text(value[0], value[1])


def _fail(state: list[int], problem: int) -> None:
    """Remembers a problem; bad syntax anywhere outweighs what went wrong in working it out."""
    if state[PROBLEM] == FINE or problem == BAD_SYNTAX:
        state[PROBLEM] = problem


def _next(text: str, state: list[int]) -> int:
    """Moves on to the next character that is not a space, and says where that is."""
    i = after_spaces(text, state[POSITION])
    state[POSITION] = i
    return i


def _sum(text: str, state: list[int]) -> list[str]:
    value = _product(text, state)
    while True:
        i = _next(text, state)
        if i == len(text) or text[i] not in "+-−":
            return value
        state[POSITION] = i + 1
        other = _product(text, state)
        if text[i] != "+":
            other = [negated(other[0]), other[1]]
        value = [
            sum_of(product_of(value[0], other[1]), product_of(other[0], value[1])),
            product_of(value[1], other[1]),
        ]


def _product(text: str, state: list[int]) -> list[str]:
    value = _factor(text, state)
    while True:
        i = _next(text, state)
        if i == len(text) or text[i] not in "*×x/÷":
            return value
        state[POSITION] = i + 1
        other = _factor(text, state)
        if text[i] in "/÷":
            if other[0] == "0":
                _fail(state, ZERO_DIVISOR)
                other = ["1", "1"]  # what follows is still read
            other = [other[1], other[0]]
            if other[1][0] == "-":
                other = [negated(other[0]), negated(other[1])]
        value = [product_of(value[0], other[0]), product_of(value[1], other[1])]


def _factor(text: str, state: list[int]) -> list[str]:
    i = _next(text, state)
    if i < len(text) and text[i] in "+-−":
        state[POSITION] = i + 1
        value = _factor(text, state)
        if text[i] == "+":
            return value
        return [negated(value[0]), value[1]]
    return _power(text, state)


def _power(text: str, state: list[int]) -> list[str]:
    base = _atom(text, state)
    i = _next(text, state)
    if i < len(text) and text[i] == "^":
        state[POSITION] = i + 1
    elif i + 1 < len(text) and text[i] == "*" and text[i + 1] == "*":
        state[POSITION] = i + 2
    else:
        return base
    exponent = _factor(text, state)
    whole = fraction_text(exponent[0], exponent[1])
    for character in whole:
        if not "0" <= character <= "9":
            _fail(state, BAD_SYNTAX)
            return base
    if len(whole) > 4:
        _fail(state, TOO_LARGE)
        return base
    count = small_integer(whole)
    result = ["1", "1"]
    while count > 0:
        if count % 2 == 1:
            result = [product_of(result[0], base[0]), product_of(result[1], base[1])]
        count = count // 2
        if count > 0:
            base = [product_of(base[0], base[0]), product_of(base[1], base[1])]
    return result


def _atom(text: str, state: list[int]) -> list[str]:
    i = _next(text, state)
    if i < len(text) and text[i] == "(":
        state[POSITION] = i + 1
        value = _sum(text, state)
        i = _next(text, state)
        if i < len(text) and text[i] == ")":
            state[POSITION] = i + 1
        else:
            _fail(state, BAD_SYNTAX)
        return value
    start = i
    i = after_digits(text, i)
    if i == start:
        _fail(state, BAD_SYNTAX)
        state[POSITION] = len(text)
        return ["0", "1"]
    whole = text[start:i]
    if i + 1 < len(text) and text[i] == "." and "0" <= text[i + 1] <= "9":
        end = after_digits(text, i + 1)
        state[POSITION] = end
        tenths = "1" + "".join(["0"] * (end - i - 1))
        return [without_zeros(whole + text[i + 1 : end]), tenths]
    state[POSITION] = i
    return [without_zeros(whole), "1"]
