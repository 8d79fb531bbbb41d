"""How a reply writes values: numbers, and texts in quotes. Carriers make room for values and metrics judge them by one notation."""

from __future__ import annotations

import re

SIGN = r"(?:(?<![\w)\]])[-−])?"
"""A sign belongs to a number only where nothing stands before it that it could join."""

NUMBER = rf"{SIGN}\d+(?:,\d{{3}}(?!\d))*(?:\.\d+)?(?:/\d+)?"
"""Digits, perhaps with thousands separators, decimals or a denominator."""

QUOTED = re.compile(r"\"([^\"\n]+)\"|“([^”\n]+)”|`([^`\n]+)`|(?<!\w)'([^'\n]+)'(?!\w)")
"""A text in quotes of any kind; the group that matched is the text."""


def plain(number: str) -> str:
    """One spelling of a number: no thousands separators, no signs but the hyphen."""
    return number.replace(",", "").replace("−", "-")
