"""Text of strangers made safe to stand in a card: it shows as what it is, and neither formats, links nor runs."""

from __future__ import annotations

import re

_MEANS_SOMETHING = re.compile(r"[\\`*_{}\[\]<>&|~#!@$]|:(?=//)|(?<=www)\.", re.IGNORECASE)
"""What Markdown, HTML or the Hub's mathematics could act on within a line; ``://``, ``www.`` and ``@`` make links."""


def plain(text: str) -> str:
    """One line of Markdown that renders as the text itself.

    Line breaks and control characters become spaces. Characters with a meaning become entities, which, unlike a
    backslash, no character before them can undo.
    """
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return _MEANS_SOMETHING.sub(lambda found: f"&#{ord(found[0])};", line)


def code(text: str) -> str:
    """The text in a monospaced face, by HTML, so that no backtick in it ends it early."""
    return f"<code>{plain(text)}</code>"


def literal(text: str) -> str:
    """The text as a Python string on one line, for the snippets of a card: no break, control
    character, end of a fence, or tag."""
    quoted = repr(text).replace("`", r"\x60").replace("<", r"\x3c")
    simple = quoted[0] == "'" and not set('"\\') & set(quoted)
    return f'"{quoted[1:-1]}"' if simple else quoted
