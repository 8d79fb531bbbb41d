"""Replies in the backbone's own words: where in what it wrote do the answers belong?

A backbone that answers a request by itself writes a good sentence with a wrong value. Put the right one in its place, and
the reply is one that the backbone could have written: a natural carrier for a result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from .notation import NUMBER, QUOTED, plain

_Kind = Literal["number", "list", "text"]

_NUMBER = re.compile(NUMBER)
_LIST = re.compile(rf"{NUMBER}(?:(?:\s*[,;]\s*(?:and )?|\s+and\s+|[ \t]+){NUMBER})+")
#: What leads up to a value that ends its sentence.
_LEADING = re.compile(
    r"(?:(?:[:=]|\bbecomes|\bget|\bgives)|\b(?:answer|result|output|text|string|word|revers\w+|backwards?)\b[^.\n]*\b(?:is|be))"
    r"[ \n*_]*\Z",
    re.IGNORECASE,
)
_MARKER = re.compile(r"^[ \t]*(\d+)[.)][ \t]+(?=\S)", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?](?=[\s*_\"'”’)\]]|$)|\n")
_CLOSING = re.compile(r"[*_`\"'”’)\]]+")
_ROUGHLY = re.compile(
    r"(?:\b(?:about|around|approximately|approx\.?|roughly|nearly|almost|over|under)|[≈~])[ *$€£]*\Z", re.I
)
_NUMBER_WORDS = re.compile(
    r"\b(?:zero|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
    r"|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|hundred|thousand|million|billion)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Value:
    """A stretch [start, end) of a reply that states a value."""

    start: int
    end: int
    kind: _Kind
    text: str


def _kind(answer: str) -> _Kind:
    if _NUMBER.fullmatch(answer):
        return "number"
    return "list" if re.fullmatch(rf"{NUMBER}(?: {NUMBER})+", answer) else "text"


def _numbers(text: str) -> list[str]:
    return [plain(match[0]) for match in _NUMBER.finditer(text)]


def _known(number: str, known: set[str]) -> bool:
    """Whether the prompt names the number, or both parts of it where it is a quotient."""
    said = plain(number)
    return said in known or said.lstrip("-") in known or ("/" in said and set(said.split("/")) <= known)


def _within(sequence: Sequence[str], longer: Sequence[str]) -> bool:
    length = len(sequence)
    return any(list(longer[at : at + length]) == list(sequence) for at in range(len(longer) - length + 1))


def _markers(reply: str) -> list[tuple[int, int]]:
    """The numbers of a numbered list, which count 1, 2, … and state nothing."""
    found = list(_MARKER.finditer(reply))
    counted = len(found) > 1 and all(int(match[1]) == at for at, match in enumerate(found, 1))
    return [match.span(1) for match in found] if counted else []


def _concluding(reply: str, start: int, end: int) -> bool:
    """Whether a stretch ends its sentence and is led up to as a value, or is the whole sentence."""
    rest = _CLOSING.sub("", reply[end:], count=1) if _CLOSING.match(reply, end) else reply[end:]
    before = reply[:start].rstrip("*_`\"'“‘([ ")
    ends = not rest.strip() or rest[0] in ".!\n"
    return ends and (not before.strip() or before.endswith("\n") or _LEADING.search(reply[:start]) is not None)


def _values(prompt: str, reply: str, kinds: set[_Kind]) -> Iterator[_Value]:
    """What the reply states and the prompt does not, of the kinds asked for; numbers always."""
    stated = _numbers(prompt)
    known = {*stated, *re.findall(r"\d+", prompt)}
    covered = _markers(reply)
    if "text" in kinds:
        quoted = [m.span(m.lastindex or 0) for m in QUOTED.finditer(reply)]
        final = [m.span() for m in re.finditer(r"[^\s*_`\"“”.!?:=]+", reply) if _concluding(reply, *m.span())]
        inside = [span for span in final if not any(a <= span[0] and span[1] <= b for a, b in quoted)]
        for start, end in [*quoted, *inside]:
            text = reply[start:end]
            if text.lower() not in prompt.lower() and not (_NUMBER.fullmatch(text) and "number" in kinds):
                covered.append((start, end))
                yield _Value(start, end, "text", text)
    if "list" in kinds:
        for match in _LIST.finditer(reply):
            inside_another = any(a < match.end() and match.start() < b for a, b in covered)
            if not inside_another and not _within(_numbers(match[0]), stated):
                covered.append(match.span())
                yield _Value(*match.span(), "list", match[0])
    for match in _NUMBER.finditer(reply):
        if not _known(match[0], known) and not any(a <= match.start() and match.end() <= b for a, b in covered):
            yield _Value(*match.span(), "number", match[0])


def _restated(prompt: str, reply: str, answer: str) -> list[_Value]:
    """The value that concludes the reply, for an answer that the prompt names, as it names a list's largest number."""
    if plain(answer) not in _numbers(prompt):
        return []
    found = [m for m in _NUMBER.finditer(reply) if _concluding(reply, *m.span())]
    return [_Value(*found[0].span(), "number", found[0][0])] if len(found) == 1 else []


def _cut(reply: str, last: int) -> str | None:
    """The reply up to the end of the sentence that holds position ``last``; None if it is unfinished, or a question."""
    end = _SENTENCE_END.search(reply, last)
    if end is None:
        unfinished = _CLOSING.sub("", reply[last:]).strip()
        return None if unfinished else reply.rstrip()
    if end[0] == "?":
        return None
    if end[0] == "\n":
        return reply[: end.start()].rstrip()
    closing = _CLOSING.match(reply, end.end())
    return reply[: closing.end() if closing else end.end()]


def spots(prompt_text: str, reply: str, answers: Sequence[str]) -> str | None:
    """The reply with "{}" in the places where the answers belong, in order, cut after the sentence of the last one.

    The places are those of the values that the backbone made up: numbers, lists of numbers or, for an answer that is
    neither, quoted or final words, which do not occur in the prompt.

    Args:
        prompt_text: the user's message. reply: what the backbone wrote; its values are usually wrong.
        answers: the right results, in the order asked for; at least one.

    Returns:
        None where it cannot be told: another count or order of values than of answers, another new number, a number in
        words, an estimate, an unfinished sentence, or a template in which the wrong value stands a second time.
    """
    reply = reply.lstrip()
    if not answers or "{" in reply or "}" in reply:
        return None
    kinds = [_kind(answer) for answer in answers]
    values = sorted(_values(prompt_text, reply, set(kinds)), key=lambda value: value.start)
    if not values and kinds == ["number"]:
        values = _restated(prompt_text, reply, answers[0])
    chosen, more = values[: len(answers)], values[len(answers) :]
    if [value.kind for value in chosen] != kinds:
        return None
    cut = _cut(reply, chosen[-1].end)
    if cut is None:
        return None
    # Behind the cut the values may be said again; anything else there makes it doubtful which was the answer.
    said = {plain(value.text).lower() for value in chosen}
    if any(value.start < len(cut) or plain(value.text).lower() not in said for value in more):
        return None
    pieces, at = [], 0
    for value in chosen:
        before, after = cut[: value.start], cut[value.end :]
        if re.search(r"\w\Z", before) or re.match(r"\w|[.,:^]\d|\s*[×*^]\s*\d", after) or _ROUGHLY.search(before):
            return None
        pieces.append(cut[at : value.start])
        at = value.end
    pieces.append(cut[at:])
    left = " ".join(pieces)
    again = any(value.kind == "text" and re.search(rf"\b{re.escape(value.text)}\b", left, re.I) for value in chosen)
    spelled = {match[0].lower() for match in _NUMBER_WORDS.finditer(left)}
    if again or not spelled <= set(re.findall(r"\w+", prompt_text.lower())):
        return None
    return "{}".join(pieces)
