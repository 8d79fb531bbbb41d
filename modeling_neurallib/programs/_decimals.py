"""Numbers of any length with decimals or none, as text: "0", "-7", "2.5", "-0.04". No sign "+", no "-0", no needless zeros.

They are worked out as whole numbers of a smaller unit: 2.5 + 0.75 is 250 hundredths and 75 hundredths, 325 hundredths, 3.25.

Restricted Python: what the programs share whose numbers need not be whole.
"""

from __future__ import annotations

from ._numbers import NOT_A_NUMBER, magnitude, sum_of, without_groups, without_zeros
from ._text import after_digits, after_separators, after_spaces, before_spaces

NOT_WHOLE = "not a whole number"


def read_decimal(text: str) -> str:
    """The number that a text stands for: spaces, a sign or none, digits and perhaps a point among them, spaces.

    An empty text if it is none. The digits before the point may be in groups of three: "1,234,567.5".
    """
    start = after_spaces(text, 0)
    end = before_spaces(text, start)
    number = decimal_between(text, start, end)
    if number == "":
        digits = without_groups(text[start:end])
        return decimal_between(digits, 0, len(digits))
    return number


def decimal_between(text: str, start: int, end: int) -> str:
    """The number in text[start:end], which holds a sign or none, and digits, at least one behind a point if there is one.

    An empty text if it does not.
    """
    first = start
    if start < end and (text[start] == "-" or text[start] == "+"):
        first = start + 1
    if first >= end:
        return ""
    point = after_digits(text, first)
    number = "0"
    if point > first:
        number = without_zeros(text[first:point])
    if point < end:
        if text[point] != "." or point + 1 == end or after_digits(text, point + 1) < end:
            return ""
        last = end
        while text[last - 1] == "0":
            last -= 1
        if last > point + 1:
            number += text[point:last]
    if text[start] == "-" and number != "0":
        return "-" + number
    return number


def read_decimals(text: str) -> list[str]:
    """The numbers in a text, separated by spaces, commas, semicolons, brackets, new lines or the word "and".

    The list [""] if there is anything else in it. What only commas join is one number if they part groups of three digits, and if
    not only commas separate the text's numbers: "1,250 and 3,400" are two, "100,200,300" three, "1250,300,400 and 7" four.
    """
    numbers: list[str] = []
    i = after_separators(text, 0)
    may_have_groups = after_separators(text, _after_commas(text, i)) < len(text)
    apart = i
    while i < len(text):
        end = after_digits(text, i + 1)
        number = ""
        if may_have_groups and i >= apart and end < len(text) and text[end] == ",":
            apart = _after_commas(text, i)
            last = apart
            while text[last - 1] == ",":
                last -= 1
            number = read_decimal(text[i:last])
            if number != "":
                end = last
        if number == "":
            if end + 1 < len(text) and text[end] == "." and "0" <= text[end + 1] <= "9":
                end = after_digits(text, end + 1)
            number = decimal_between(text, i, end)
        i = after_separators(text, end)
        if number == "" or (i == end and i < len(text)):
            return [""]
        numbers.append(number)
    return numbers


def _after_commas(text: str, start: int) -> int:
    """The position of the first character from ``start`` on that is no part of numbers with nothing but commas between them."""
    i = start
    while i < len(text) and ("0" <= text[i] <= "9" or text[i] in ",.-+"):
        i += 1
    return i


def whole_problem(number: str) -> str:
    """Why what ``read_decimal`` found is no whole number; an empty text if it is one."""
    if number == "":
        return NOT_A_NUMBER
    if places_of(number) > 0:
        return NOT_WHOLE
    return ""


def problem_with_pair(x: str, y: str) -> str:
    """Why one of two numbers that ``read_decimal`` found is no whole number; an empty text if both are."""
    if whole_problem(x) != "":
        return whole_problem(x)
    return whole_problem(y)


def places_of(number: str) -> int:
    """How many decimals a number has."""
    return max(0, len(number) - _point(number) - 1)


def most_places(numbers: list[str]) -> int:
    places = 0
    for number in numbers:
        places = max(places, places_of(number))
    return places


def in_units(number: str, places: int) -> str:
    """A number of at most so many decimals, times 10 to their power: a whole number."""
    if places == 0 or number == "0":
        return number
    point = _point(number)
    if point == len(number):
        return number + zeros(places)
    digits = number[point + 1 :] + zeros(places - (len(number) - point - 1))
    if number[0] == "-":
        return "-" + without_zeros(number[1:point] + digits)
    return without_zeros(number[:point] + digits)


def all_in_units(numbers: list[str], places: int) -> list[str]:
    if places == 0:
        return numbers
    whole: list[str] = []
    for number in numbers:
        whole.append(in_units(number, places))
    return whole


def with_point(number: str, places: int) -> str:
    """The opposite of ``in_units``: a whole number divided by 10 to the power of ``places``."""
    if places == 0:
        return number
    digits = magnitude(number)
    if len(digits) <= places:
        digits = zeros(places + 1 - len(digits)) + digits
    point = len(digits) - places
    last = len(digits)
    while last > point and digits[last - 1] == "0":
        last -= 1
    text = digits[:point]
    if last > point:
        text += "." + digits[point:last]
    if number[0] == "-":
        return "-" + text
    return text


def all_with_point(numbers: list[str], places: int) -> list[str]:
    if places == 0:
        return numbers
    texts: list[str] = []
    for number in numbers:
        texts.append(with_point(number, places))
    return texts


def sum_of_decimals(x: str, y: str) -> str:
    """x + y for numbers that ``read_decimal`` found."""
    places = max(places_of(x), places_of(y))
    return with_point(sum_of(in_units(x, places), in_units(y, places)), places)


def zeros(count: int) -> str:
    return "".join(["0"] * count)


def _point(number: str) -> int:
    """Where the decimal point stands; the length of the number if it has none."""
    for i in range(len(number)):
        if number[i] == ".":
            return i
    return len(number)
