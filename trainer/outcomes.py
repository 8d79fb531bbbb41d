"""What became of each request: answered, or which part of the call went wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..modeling_neurallib.call import Call, CallLayer
from ..modeling_neurallib.characters import CharacterTable
from ..modeling_neurallib.objective import Explanation, pieces_text
from ..modeling_neurallib.writer import LEADS
from .features import Conversation
from .lessons import Lessons, collate

DECIDED_AT_ONCE = 32
"""Lessons in a batch of :func:`decided`."""


@dataclass(frozen=True)
class Expected:
    """The call that should open at one place.

    Attributes:
        prompt: tokens before the reply; what is called in earlier turns is not judged. start: tokens before the place, as
            :class:`Call` counts them. answers: the results that explain the reply there (a part of it may be a result, too).
        calls: (program, arguments) of every call that explains it; none where nothing should be called.
    """

    prompt: int
    start: int
    answers: frozenset[str]
    calls: frozenset[tuple[str, tuple[str, ...]]]


def expected(
    table: CharacterTable, programs: Sequence[str], conversation: Conversation, explanations: Sequence[Explanation]
) -> Expected:
    """What should be called first in the reply of a conversation."""
    tokens, prompt = conversation.tokens, conversation.prompt
    if not explanations:
        return Expected(prompt, len(tokens), frozenset(), frozenset())
    start = min(one.start for one in explanations)
    first = [one for one in explanations if one.start == start]
    text = table.characters(tokens).text()
    written = ((one, table.characters(tokens[start + 1 : start + 1 + one.length]).text()) for one in first)
    return Expected(
        prompt,
        start + 1,
        frozenset(result.removeprefix(LEADS[one.lead]) for one, result in written),
        frozenset((programs[one.program], tuple(pieces_text(text, pieces) for pieces in one.pieces)) for one in first),
    )


def outcome(wanted: Expected, calls: Sequence[Call]) -> tuple[str, Call | None]:
    """("exact" | "selector" | "reader" | "execution" | "quiet" | "uncalled_for", the call that was judged).

    ``quiet`` and ``uncalled_for`` belong to conversations in which nothing should be called. The result counts: another
    program or other arguments with the right result are exact. Otherwise the selector errs where no call opens or one of a
    program that does not explain the answer, the reader where such a program has other arguments, and the execution where
    program and arguments are right and the run does not end with the answer.
    """
    calls = [call for call in calls if call.start >= wanted.prompt]
    if not wanted.calls:
        return ("uncalled_for", calls[0]) if calls else ("quiet", None)
    call = next((call for call in calls if call.start == wanted.start), None)
    if call is None:
        return "selector", None
    if call.result in wanted.answers:
        return "exact", call
    if call.program not in {program for program, _ in wanted.calls}:
        return "selector", call
    return ("execution" if (call.program, call.arguments) in wanted.calls else "reader"), call


def summary(outcomes: Sequence[tuple[str, Call | None]]) -> dict[str, float]:
    """Shares of the requests that were answered exactly, and that failed by selector, reader or execution.

    Besides ``quiet``, the share of other conversations without a call, ``call_rate``, calls a row, and ``steps_per_call``,
    instructions.
    """
    counts = Counter(name for name, _ in outcomes)
    calls = [call for _, call in outcomes if call is not None]
    kinds = ("exact", "selector", "reader", "execution")
    requests = sum(counts[kind] for kind in kinds)
    general = counts["quiet"] + counts["uncalled_for"]
    found: dict[str, float] = {}
    if requests:
        found |= {name if name == "exact" else f"{name}_errors": counts[name] / requests for name in kinds}
    if general:
        found["quiet"] = counts["quiet"] / general
    if outcomes:
        found["call_rate"] = len(calls) / len(outcomes)
    if calls:
        found["steps_per_call"] = sum(call.steps for call in calls) / len(calls)
    return found


@torch.no_grad()
def calls_of_lessons(lessons: Lessons, numbers: Sequence[int], ends: Sequence[int]) -> list[tuple[Call, ...]]:
    """The calls that the heads decide in each lesson, given its first ``ends`` tokens."""
    computer = lessons.computer
    chosen = [lessons.lessons[number] for number in numbers]
    width = max(ends)
    features = collate([lessons[number] for number in numbers])["batch"].features[:, :width]
    tokens = torch.zeros(len(chosen), width, dtype=torch.long)
    mask = torch.zeros(len(chosen), width, dtype=torch.bool)
    for row, (lesson, end) in enumerate(zip(chosen, ends, strict=True)):
        tokens[row, :end] = torch.tensor(lesson.conversation.tokens[:end])
        mask[row, :end] = True
    layer, device = CallLayer(), computer.offsets.device
    computer.advance(layer, tokens.to(device), mask.to(device), features.to(device))
    return [tuple(row.calls) for row in layer.rows]


@torch.no_grad()
def decided(lessons: Lessons) -> dict[str, Any]:
    """What the heads make of lessons, given each prompt and the part of the reply before its first call.

    Returns:
        exact: share of requests whose call, whichever it is, has the right result; selected: share with a call of the program
        that the generator had in mind; read: of those, the share whose copied texts are the truth's, up to spaces and commas;
        quiet: share of general conversations without a call; programs: ``exact`` of each program; confused: pairs
        "wanted→called" with wrong results, most frequent first.
    """
    counts: dict[str, int] = defaultdict(int)
    programs: dict[str, list[bool]] = defaultdict(list)
    confused: dict[str, int] = defaultdict(int)
    for begin in range(0, len(lessons), DECIDED_AT_ONCE):
        numbers = range(begin, min(begin + DECIDED_AT_ONCE, len(lessons)))
        chosen = [lessons.lessons[i] for i in numbers]
        ends = [
            min(one.start for one in lesson.explanations) + 1
            if lesson.explanations
            else len(lesson.conversation.tokens)
            for lesson in chosen
        ]
        for lesson, calls, end in zip(chosen, calls_of_lessons(lessons, numbers, ends), ends, strict=True):
            if not lesson.dialogue.steps:
                counts["general"] += 1
                counts["quiet"] += not any(call.start >= lesson.conversation.prompt for call in calls)
                continue
            truth = lesson.dialogue.steps[0]
            call = next((call for call in calls if call.start == end), None)
            selected = call is not None and call.program.rsplit(".", 1)[-1] == truth.program
            read = selected and call is not None and [*map(_folded, call.arguments)] == [*map(_folded, truth.arguments)]
            exact = call is not None and call.result == truth.answer
            counts["requests"] += 1
            counts["selected"] += selected
            counts["read"] += read
            counts["exact"] += exact
            programs[truth.program].append(exact)
            if not exact:
                confused[f"{truth.program}→{'nothing' if call is None else call.program}"] += 1
    requests, general = max(counts["requests"], 1), max(counts["general"], 1)
    return {
        "exact": counts["exact"] / requests,
        "selected": counts["selected"] / requests,
        "read": counts["read"] / max(counts["selected"], 1),
        "quiet": counts["quiet"] / general,
        "programs": {name: sum(hits) / len(hits) for name, hits in sorted(programs.items())},
        "confused": dict(sorted(confused.items(), key=lambda pair: -pair[1])[:20]),
    }


def _folded(text: str) -> str:
    return " ".join(text.replace(",", " ").split())
