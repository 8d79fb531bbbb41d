"""How integers, truth values and lists of integers are read from text and written as text.

The compiler adds these to programs whose parameters or results are not ``str``; programs that read text share them.
Restricted Python, like the programs.
"""

from __future__ import annotations


def is_integer(text: str) -> bool:
    """Spaces, a sign or none, digits, spaces."""
    i = _after_sign(text, after_spaces(text, 0))
    end = after_digits(text, i)
    return end > i and after_spaces(text, end) == len(text)


def integer(text: str) -> int:
    """The number that a text stands for of which ``is_integer`` is true."""
    value = 0
    i = after_spaces(text, 0)
    if "0" <= text[i] <= "9" or text[i] == "+":
        for character in text:
            if "0" <= character <= "9":
                value = value * 10 + (ord(character) - 48)
    else:
        for character in text:
            if "0" <= character <= "9":
                value = value * 10 - (ord(character) - 48)
    return value


def is_truth(text: str) -> bool:
    return text == "yes" or text == "no" or text == "true" or text == "false" or text == "1" or text == "0"


def truth(text: str) -> bool:
    return text == "yes" or text == "true" or text == "1"


def is_integer_list(text: str) -> bool:
    """Integers with anything between them that separates: spaces, commas, semicolons, brackets, the word "and"."""
    i = after_separators(text, 0)
    while i < len(text):
        start = _after_sign(text, i)
        end = after_digits(text, start)
        i = after_separators(text, end)
        if end == start or (i == end and i < len(text)):
            return False
    return True


def integer_list(text: str) -> list[int]:
    """The numbers of a text of which ``is_integer_list`` is true."""
    numbers: list[int] = []
    i = after_separators(text, 0)
    while i < len(text):
        end = after_digits(text, i + 1)
        numbers.append(integer(text[i:end]))
        i = after_separators(text, end)
    return numbers


def integer_to_text(value: int) -> str:
    if value == 0:
        return "0"
    characters = []
    if value < 0:
        characters.append("-")
        rest = value
    else:
        rest = -value
    # From here on rest is negative, because the least integer has no positive counterpart.
    start = len(characters)
    while rest != 0:
        characters.append(chr(48 - rest % -10))
        rest = -(rest // -10)
    end = len(characters) - 1
    while start < end:
        characters[start], characters[end] = characters[end], characters[start]
        start += 1
        end -= 1
    return "".join(characters)


def truth_to_text(value: bool) -> str:
    return "yes" if value else "no"


def integer_list_to_text(values: list[int]) -> str:
    texts: list[str] = []
    for value in values:
        texts.append(integer_to_text(value))
    return " ".join(texts)


def _after_sign(text: str, start: int) -> int:
    """The position behind a sign that stands at ``start``, or ``start`` if there is none."""
    if start == len(text) or "0" <= text[start] <= "9" or text[start] not in "-+":
        return start
    return start + 1


def after_digits(text: str, start: int) -> int:
    """The position of the first character from ``start`` on that is no digit."""
    i = start
    while i < len(text) and "0" <= text[i] <= "9":
        i += 1
    return i


def after_spaces(text: str, start: int) -> int:
    """The position of the first character from ``start`` on that is not a space."""
    i = start
    while i < len(text) and text[i] in " \n\t":
        i += 1
    return i


def before_spaces(text: str, start: int) -> int:
    """The position at which the spaces at the end of a text begin, no less than ``start``."""
    end = len(text)
    while end > start and text[end - 1] in " \n\t":
        end -= 1
    return end


def after_separators(text: str, start: int) -> int:
    """The position of the first character from ``start`` on that does not separate numbers."""
    i = start
    while i < len(text):
        # Digits and signs first: they are the most frequent, and small machines have no letters or square brackets.
        if "0" <= text[i] <= "9" or text[i] == "-" or text[i] == "+":
            return i
        if text[i] in " ,;\n\t()[]{}":
            i += 1
        elif text[i] == "a" and i + 2 < len(text) and text[i + 1] == "n" and text[i + 2] == "d":
            i += 3
        else:
            return i
    return i
