"""Whole numbers of any length, as text: "0", "15", "-7". No sign "+", no leading zero, no "-0".

Restricted Python: what the programs of this folder share.
"""

from __future__ import annotations

from ._text import after_digits

NOT_A_NUMBER = "not a number"
NO_NUMBERS = "no numbers"


def without_groups(text: str) -> str:
    """A number without the commas before its groups of three digits, which may end in a point; any other text as it is.

    "0,125" has no groups: its comma is that of a decimal.
    """
    start = 0
    if text != "" and (text[0] == "-" or text[0] == "+"):
        start = 1
    comma = after_digits(text, start)
    end = after_groups(text, start)
    if end == comma or (end < len(text) and text[end] != "."):
        return text
    whole = text[:comma]
    while comma < end:
        whole += text[comma + 1 : comma + 4]
        comma += 4
    return whole + text[end:]


def after_groups(text: str, start: int) -> int:
    """The position behind the digits from ``start`` on and the groups of three digits, each after a comma, that go on with them.

    Behind the digits alone where what follows are no groups: in "0,125", "1250,300" and "1,250,3".
    """
    digits = after_digits(text, start)
    if digits == start or digits > start + 3 or text[start] == "0":
        return digits
    end = digits
    while end < len(text) and text[end] == ",":
        group = after_digits(text, end + 1)
        if group == end + 1:
            return end
        if group != end + 4:
            return digits
        end = group
    return end


def problem_with(numbers: list[str]) -> str:
    """What is wrong with a list of numbers that was read; an empty text if nothing is.

    Where there was anything else in the text, the list is [""].
    """
    if len(numbers) == 0:
        return NO_NUMBERS
    if numbers[0] == "":
        return NOT_A_NUMBER
    return ""


def negated(number: str) -> str:
    if number[0] == "-":
        return number[1:]
    if number == "0":
        return number
    return "-" + number


def magnitude(number: str) -> str:
    """The number without its sign."""
    if number[0] == "-":
        return number[1:]
    return number


def compare_numbers(a: str, b: str) -> int:
    """A negative number if a < b, zero if they are equal, a positive number if a > b."""
    if a[0] == "-":
        if b[0] != "-":
            return -1
        return compare_digits(b, a)
    if b[0] == "-":
        return 1
    return compare_digits(a, b)


def compare_digits(a: str, b: str) -> int:
    """``compare_numbers`` for two numbers that both have a sign "-", or both none, which is left out of account."""
    if len(a) != len(b):
        return len(a) - len(b)
    for i in range(len(a)):
        if a[i] != b[i]:
            return ord(a[i]) - ord(b[i])
    return 0


def sum_of(a: str, b: str) -> str:
    """a + b."""
    if a[0] != "-" and b[0] != "-":
        return add_digits(a, b)
    if a[0] == "-" and b[0] == "-":
        return "-" + add_digits(a[1:], b[1:])
    x = magnitude(a)
    y = magnitude(b)
    order = compare_digits(x, y)
    if order == 0:
        return "0"
    if order > 0:
        difference = subtract_digits(x, y)
        larger = a
    else:
        difference = subtract_digits(y, x)
        larger = b
    if larger[0] == "-":
        return "-" + difference
    return difference


def add_digits(a: str, b: str) -> str:
    """a + b for numbers without a sign: column by column from the right, as at school."""
    size = max(len(a), len(b)) + 1
    digits = ["0"] * size
    carry = 0
    for i in range(1, size + 1):
        column = carry
        if i <= len(a):
            column += ord(a[len(a) - i]) - 48
        if i <= len(b):
            column += ord(b[len(b) - i]) - 48
        if column >= 10:
            column -= 10
            carry = 1
        else:
            carry = 0
        digits[size - i] = chr(48 + column)
    return without_zeros("".join(digits))


def subtract_digits(a: str, b: str) -> str:
    """a - b for numbers without a sign, a not less than b."""
    size = len(a)
    digits = ["0"] * size
    borrow = 0
    for i in range(1, size + 1):
        column = ord(a[size - i]) - 48 - borrow
        if i <= len(b):
            column -= ord(b[len(b) - i]) - 48
        if column < 0:
            column += 10
            borrow = 1
        else:
            borrow = 0
        digits[size - i] = chr(48 + column)
    return without_zeros("".join(digits))


def without_zeros(digits: str) -> str:
    """Digits without leading zeros, but at least one digit."""
    if digits[0] != "0":
        return digits
    start = 0
    while start < len(digits) - 1 and digits[start] == "0":
        start += 1
    return digits[start:]


def small_integer(number: str) -> int:
    """The machine's integer for a number of at most nine digits."""
    value = 0
    for character in magnitude(number):
        value = value * 10 + (ord(character) - 48)
    if number[0] == "-":
        return -value
    return value
