"""The wordings of requests, one line of ``phrasings/<program>.txt`` each, cut at their placeholders, and the split of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Literal

Split = Literal["train", "validation", "all"]

GENERAL = "general"
VALIDATION_PERCENT = 8
PHRASINGS = Path(__file__).parent / "phrasings"

#: Programs of the standard library that have phrasings, with their arguments in calling order.
PARAMETERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("add", "subtract", "multiply", "divide", "remainder", "power", "compare"), ("a", "b")),
    **dict.fromkeys(("greatest_common_divisor", "least_common_multiple", "difference", "percentage"), ("a", "b")),
    **dict.fromkeys(("factorial", "fibonacci", "is_prime", "square", "cube", "double", "half"), ("n",)),
    **dict.fromkeys(("sum_numbers", "maximum", "minimum", "mean", "count_numbers"), ("numbers",)),
    **dict.fromkeys(("sort_ascending", "sort_descending", "reverse_list"), ("numbers",)),
    "reverse_text": ("text",),
    "count_letter": ("text", "letter"),
    "text_length": ("text",),
    "evaluate": ("expression",),
}
_ARGUMENTS = ("a", "b", "n", "numbers", "text", "letter", "expression")
_FILLERS = ("name", "name2", "things", "place", "x", "y")
SLOT = re.compile("{(" + "|".join((*_ARGUMENTS, *_FILLERS)) + ")}")
"""A placeholder."""
_COUNTED = re.compile(
    r"\b(how (many|much (?!is\b)|old|long|far|tall|young)|left|remaining|ages?|years|months|weeks|hours|days|people|children|pupils"
    r"|friends|floor|runs|goals|points|weigh\w*|weights?|prices?|costs?|seats|euros|dollars|sales|budget|stock|scores?|km|kg"
    r"|capacity|votes?|likes|groups?|spoons?|ohms?|met(?:re|er)s|laps?|guests?|bill|rent|tickets?|inch(?:es)?|feet|resistors?|kids"
    r"|players|students|questions|marbles|nurses|lit(?:re|er)s?|bottles?|boxes|rows|came|invited)"
    r"\b",
    re.IGNORECASE,
)


class TaskError(ValueError):
    """A phrasing file that cannot be used, or a request that cannot be drawn."""


@dataclass(frozen=True)
class Wording:
    """A phrasing line cut at its placeholders: ``parts`` alternates text, slot name, text, … and ends with text."""

    identifier: str
    line: str
    parts: tuple[str, ...]

    @property
    def slots(self) -> tuple[str, ...]:
        return self.parts[1::2]

    @property
    def is_story(self) -> bool:
        """Whether the numbers count things of the world, where a negative or a zero would read oddly."""
        named = any(slot in ("name", "things", "place") for slot in self.slots)
        return named or len(self.line) > 75 or _COUNTED.search(self.line) is not None

    def places(self, slot: str) -> list[tuple[str, str]]:
        """The text before and after each occurrence of a slot; a neighbouring slot counts as a letter."""
        found = []
        for at in (at for at, part in enumerate(self.parts) if at % 2 and part == slot):
            before, after = self.parts[at - 1], self.parts[at + 1]
            found.append((before or ("x" if at > 1 else ""), after or ("x" if at + 2 < len(self.parts) else "")))
        return found


@cache
def load(program: str) -> tuple[Wording, ...]:
    """The wordings of a program, or of general conversation, in the order of the file.

    Raises:
        TaskError: no such file, or a line without an argument's placeholder, or with more than one of a list's.
    """
    path = PHRASINGS / f"{program}.txt"
    if program != GENERAL and program not in PARAMETERS:
        raise TaskError(f"no phrasings for {program!r}; there are some for {', '.join(PARAMETERS)}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise TaskError(f"cannot read the phrasings of {program}: {path.name}: {error.strerror}") from error
    result: list[Wording] = []
    for row, raw in enumerate(lines, 1):
        line = raw.strip()
        if not line or (line.startswith("# ") and not line.startswith("# of ")):
            continue
        wording = Wording(f"{program}:{len(result)}", line, tuple(SLOT.split(line.replace("\\n", "\n"))))
        found = [slot for slot in wording.slots if slot in _ARGUMENTS]
        if program != GENERAL and (set(found) != set(PARAMETERS[program]) or found.count("numbers") > 1):
            wanted = " ".join(f"{{{name}}}" for name in PARAMETERS[program])
            raise TaskError(
                f"{path.name}, line {row}: expected {wanted} (a list once), found {found or 'none'}: {line!r}"
            )
        result.append(wording)
    if not result:
        raise TaskError(f"{path.name} holds no wording")
    return tuple(result)


def wordings(program: str) -> list[str]:
    """The phrasing lines of a program, or of ``"general"``; ``"add:17"`` stands for ``wordings("add")[17]``."""
    return [wording.line for wording in load(program)]


def is_validation(line: str) -> bool:
    """Whether a phrasing line is kept for validation: see the rule at the top of this file."""
    return int.from_bytes(sha256(line.encode()).digest()[:8], "big") % 100 < VALIDATION_PERCENT


@cache
def select(program: str, split: Split) -> tuple[Wording, ...]:
    """The wordings of one side of the split.

    Raises:
        TaskError: none lies on that side.
    """
    chosen = tuple(w for w in load(program) if split == "all" or is_validation(w.line) == (split == "validation"))
    if not chosen:
        raise TaskError(f"no wording of {program} lies in the split {split!r}; add phrasings")
    return chosen
