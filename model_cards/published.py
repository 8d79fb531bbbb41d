"""A card that somebody may have written, made fit to be published: the repository's name and the files that go with it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .library_card import file_rows
from .markdown import literal

MADE = "<!-- neurallib: made from what is in this repository; without this line the card is kept as you write it -->"
"""Stands in a card that may be made anew. A card without it is somebody's own."""

BEGIN, END = "<!-- neurallib: files -->", "<!-- neurallib: end of files -->"
"""What stands between them is written anew whenever the card is published."""


def is_made(text: str) -> bool:
    """Whether a card was made by us, or is the draft that transformers, the Trainer and PEFT leave to be filled in."""
    return MADE in text or re.search("more information needed", text, re.IGNORECASE) is not None


def published_card(text: str, repository: str, files: Mapping[str, str], before: str | None = None) -> str:
    """The card of a folder as it stands in its repository.

    Args:
        text: the card. repository: ``org/name``.
        files: file → sha256, listed at the card's end, or where an earlier list stands.
        before: what snippets called the folder so far; they load the repository from now on.
    """
    if before is not None:
        text = text.replace(f"from_pretrained({literal(before)}", f"from_pretrained({literal(repository)}")
    rows = [f"| {row['name']} | {row['sha256']} |" for row in file_rows(files)]
    section = "\n".join([BEGIN, "## Files", "", "| file | sha256 |", "|---|---|", *rows, END])
    earlier = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if earlier.search(text):
        return earlier.sub(lambda _: section, text, count=1)
    return f"{text.rstrip()}\n\n{section}\n"
