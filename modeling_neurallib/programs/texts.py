"""Texts, character by character. A character is a Unicode code point, as in Python."""

from __future__ import annotations


def reverse_text(text: str) -> str:
    """Write a text backwards, last character first."""
    characters = []
    for i in range(len(text) - 1, -1, -1):
        characters.append(text[i])
    return "".join(characters)


def count_letter(text: str, letter: str) -> str:
    """Count how often a letter occurs in a text.

    Capital and small letters from A to Z count as the same. "not a single letter" if asked for more or less than one
    character.
    """
    if len(letter) != 1:
        return "not a single letter"
    wanted = _small(ord(letter[0]))
    count = 0
    for character in text:
        if _small(ord(character)) == wanted:
            count += 1
    return str(count)


def text_length(text: str) -> int:
    """Count the characters in a text."""
    return len(text)


def _small(code: int) -> int:
    """The code point of the small letter for a capital letter from A to Z; every other one as it is."""
    if 65 <= code <= 90:
        return code + 32
    return code
