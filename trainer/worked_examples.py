"""Requests that show what is wanted: solved examples of the same kind, then one to solve, in a single message.

The numbers of the examples, and their results, are no arguments; and where only arguments are shown ("cat -> tac, rabbit ->"),
nothing but the examples may say what to compute. Patterns are lines of ``phrasings/examples.txt``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from . import wording
from .descriptions import paraphrases
from .tasks import Example
from .wording import PARAMETERS, Split, TaskError

_FIELDS = re.compile(r"(?: |^)\|(?: |$)")
_QUESTION, _ARGUMENTS, _ANSWER = "{question}", "{arguments}", "{answer}"

BARE: dict[tuple[str, ...], tuple[str, ...]] = {
    ("a", "b"): ("{a}, {b}", "{a} {b}", "{a} and {b}", "{a}; {b}", "{a},{b}"),
    ("n",): ("{n}",),
    ("numbers",): ("[{numbers}]", "[{numbers}]", "({numbers})", "{numbers}"),
    ("text",): ("{text}", '"{text}"', "{text}"),
    ("text", "letter"): ("{text}, {letter}", '"{text}", "{letter}"', "{letter} in {text}", "{text} {letter}"),
    ("expression",): ("{expression}",),
}
"""Parameters → how they are said alone."""


@dataclass(frozen=True)
class Pattern:
    """One line of the file, its newlines made real."""

    identifier: str
    example: str
    between: str
    request: str

    @property
    def bare(self) -> bool:
        """Arguments alone are shown, not requests."""
        return _ARGUMENTS in self.request

    def line(self, rng: Random, program: str, wordings: Sequence[tuple[str, str]]) -> tuple[str, str]:
        """Identifier and line by which the examples and the request are worded: the same for all of them."""
        if not self.bare:
            return rng.choice(wordings)
        return f"{program}:arguments", rng.choice(BARE[PARAMETERS[program]])

    def message(
        self, task: str, solved: Sequence[tuple[Example, str]], request: Example
    ) -> tuple[str, tuple[tuple[tuple[int, int], ...], ...]]:
        """The message, and where in it the pieces of the request's arguments lie.

        Args:
            task: an instruction that stands first, or "". solved: examples with their results.
        """
        slot = _ARGUMENTS if self.bare else _QUESTION
        parts = [task] if task else []
        parts += [self.example.replace(_ANSWER, answer).replace(slot, example.prompt) for example, answer in solved]
        before, _, after = self.request.partition(slot)
        start = "".join(part + (self.between if at or not task else "\n") for at, part in enumerate(parts)) + before
        spans = tuple(tuple((s + len(start), e + len(start)) for s, e in pieces) for pieces in request.spans)
        return start + request.prompt + after, spans


@cache
def patterns(split: Split) -> tuple[Pattern, ...]:
    """Those of one side of the split.

    Raises:
        TaskError: a line that has not three fields, each with the placeholders of its kind.
    """
    path = wording.PHRASINGS / "examples.txt"
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise TaskError(f"cannot read {path.name}: {error.strerror}") from error
    for row, raw in enumerate(lines, 1):
        if not raw.strip() or raw.startswith("# "):
            continue
        parts = _FIELDS.split(raw)
        slots = [slot for slot in (_QUESTION, _ARGUMENTS) if len(parts) == 3 and parts[0].count(slot) == 1]
        if len(slots) != 1 or parts[2].count(slots[0]) != 1 or parts[0].count(_ANSWER) != 1 or _ANSWER in parts[2]:
            raise TaskError(
                f"{path.name}, line {row}: expected 'example | between | request' with {{question}} or {{arguments}} in both and "
                f"{{answer}} in the first: {raw!r}"
            )
        if split != "all" and wording.is_validation(raw.strip()) != (split == "validation"):
            continue
        example, between, request = (part.replace("\\n", "\n").replace("\\t", "\t") for part in parts)
        found.append(Pattern(f"examples:{row}", example, between or " ", request))
    return tuple(found)


def task_line(rng: Random, program: str) -> str:
    """What a program does, in other words than its docstring's: an instruction before examples."""
    return rng.choice(paraphrases()[program]).rpartition(": ")[2]
