"""What became of each request: answered, or which part of the call went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..modeling_neurallib.call import Call
from ..modeling_neurallib.characters import CharacterTable
from ..modeling_neurallib.objective import Explanation, pieces_text
from ..modeling_neurallib.writer import LEADS
from .features import Conversation


@dataclass(frozen=True)
class Expected:
    """The call that should open at one place.

    Attributes:
        prompt: tokens before the reply; what is called in earlier turns is not judged. start: tokens before the place, as
            :class:`Call` counts them. answer: the result wanted.
        calls: (program, arguments) of every call that explains it; none where nothing should be called.
    """

    prompt: int
    start: int
    answer: str
    calls: frozenset[tuple[str, tuple[str, ...]]]


def expected(
    table: CharacterTable, programs: Sequence[str], conversation: Conversation, explanations: Sequence[Explanation]
) -> Expected:
    """What should be called first in the reply of a conversation."""
    tokens, prompt = conversation.tokens, conversation.prompt
    if not explanations:
        return Expected(prompt, len(tokens), "", frozenset())
    start = min(one.start for one in explanations)
    first = [one for one in explanations if one.start == start]
    text = table.characters(tokens).text()
    written = table.characters(tokens[start + 1 : start + 1 + first[0].length]).text()
    return Expected(
        prompt,
        start + 1,
        written.removeprefix(LEADS[first[0].lead]),
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
    if call.result == wanted.answer:
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
