"""What the metrics compute: replies against answers, calls against wanted calls, tokens against the base's.

A right reply is a chain: a call is opened where one is wanted (recall), of the right program (selection), on the right
characters (reading); then the result is written and nothing contradicts it (exact match). Each rate is taken over what
the link before let through, so that an error is counted once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ..notation import NUMBER, QUOTED, SIGN, plain

CallRecord = Mapping[str, Any]
"""A call: ``program`` (str) and ``arguments`` (a list of str); other keys are ignored."""

Z95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution: intervals are of 95 %."""

# A comma may part thousands or the numbers of a list: both readings are tried.
_NUMBERS = (
    re.compile(rf"(?<![\w.]){NUMBER}"),
    re.compile(rf"(?<![\w.]){SIGN}\d+(?:\.\d+)?(?:/\d+)?"),
)
_LISTED = re.compile(r"(?<=\d)\s*,\s*(?=[-−+]?\.?\d)")
_BETWEEN = re.compile(r"\s*(?:[,;|]\s*(?:and\s+)?|\s+and\s+|\s+)\s*")


def folded(text: str) -> str:
    """Text in which neither white space nor commas between numbers matter."""
    return " ".join(_LISTED.sub(" ", text).split())


def is_exact(reply: str, answers: Sequence[str]) -> bool:
    """Whether the whole reply is right.

    To one answer: the reply is the answer, but for white space, commas between numbers and one full stop. To several: all are
    stated, see :func:`is_stated`.
    """
    if len(answers) == 1:
        return folded(answers[0]) in (folded(reply), folded(reply.strip().removesuffix(".")))
    return is_stated(reply, answers)


def is_stated(reply: str, answers: Sequence[str]) -> bool:
    """Whether a reply in any words states the answers in order, and nothing contradicts them behind the last one.

    A number may be written with thousands separators, a list with commas. What contradicts is another number, or, behind an
    answer that is text, another text in quotes. What stands before an answer may be the request said again, and is not judged.
    """
    at = 0
    for answer in answers:
        end = _end(reply, answer, at)
        if end is None:
            return False
        at = end
    rest = reply[at:]
    allowed = {number for answer in answers for number in _numbers(answer) or ()}
    if any(_numbers(answer) is not None for answer in answers):
        return any({plain(match[0]) for match in pattern.finditer(reply, at)} <= allowed for pattern in _NUMBERS)
    return all(match[match.lastindex or 0] in answers for match in QUOTED.finditer(rest))


def _numbers(answer: str) -> list[str] | None:
    """The numbers that an answer consists of; None if it is text."""
    parts = folded(answer).split()
    return [*map(plain, parts)] if parts and all(_NUMBERS[1].fullmatch(part) for part in parts) else None


def _end(reply: str, answer: str, start: int) -> int | None:
    """Where the first statement of an answer ends, None if it is not stated."""
    wanted = _numbers(answer)
    if wanted is None:
        found = re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)").search(reply, start)
        return found.end() if found else None
    ends = []
    for pattern in _NUMBERS:
        stated = list(pattern.finditer(reply, start))
        for at in range(len(stated) - len(wanted) + 1):
            run = stated[at : at + len(wanted)]
            joined = all(_BETWEEN.fullmatch(reply, one.end(), other.start()) for one, other in pairwise(run))
            if joined and [plain(match[0]) for match in run] == wanted:
                ends.append(run[-1].end())
                break
    return min(ends, default=None)


# Calls


def pairs(made: Sequence[CallRecord], wanted: Sequence[CallRecord]) -> list[tuple[CallRecord, CallRecord]]:
    """Which made call stands for which wanted one: in order, as many as can be, most with the right program and arguments."""
    # best[i][j]: ((pairs, right programs, right arguments), pairs) of the first i made and j wanted calls.
    nothing: tuple[tuple[int, int, int], list[tuple[CallRecord, CallRecord]]] = ((0, 0, 0), [])
    best = [[nothing] * (len(wanted) + 1) for _ in range(len(made) + 1)]
    for i, one in enumerate(made, 1):
        for j, other in enumerate(wanted, 1):
            (count, programs, arguments), chosen = best[i - 1][j - 1]
            score = (count + 1, programs + same_program(one, other), arguments + same_arguments(one, other))
            best[i][j] = max((score, [*chosen, (one, other)]), best[i - 1][j], best[i][j - 1], key=lambda b: b[0])
    return best[-1][-1][1]


def same_program(made: CallRecord, wanted: CallRecord) -> bool:
    """Whether the programs are the same; a library's name before the made one's, as in "dates.difference", is ignored."""
    return str(made["program"]).rsplit(".", 1)[-1] == str(wanted["program"]).rsplit(".", 1)[-1]


def same_arguments(made: CallRecord, wanted: CallRecord) -> bool:
    """Whether the arguments are the same, up to white space and commas between numbers."""
    return [*map(folded, made["arguments"])] == [*map(folded, wanted["arguments"])]


def call_precision_recall(
    made: Sequence[Sequence[CallRecord]], wanted: Sequence[Sequence[CallRecord]]
) -> dict[str, float | int]:
    """How well it is decided whether to call, whichever program.

    Args:
        made, wanted: the calls of each reply; none where nothing is to be computed.

    Returns:
        precision: share of the calls made that were wanted; recall: share of those wanted that were made; f1: their harmonic
        mean (an empty share counts 1); quiet: share of the replies without a wanted call that have none (1 if there are no
        such replies); counts: made_calls, wanted_calls, matched_calls, quiet_replies.
    """
    matched = sum(min(len(m), len(w)) for m, w in zip(made, wanted, strict=True))
    made_calls, wanted_calls = sum(map(len, made)), sum(map(len, wanted))
    quiet = [not m for m, w in zip(made, wanted, strict=True) if not w]
    precision = matched / made_calls if made_calls else 1.0
    recall = matched / wanted_calls if wanted_calls else 1.0
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "quiet": sum(quiet) / len(quiet) if quiet else 1.0,
        "made_calls": made_calls,
        "wanted_calls": wanted_calls,
        "matched_calls": matched,
        "quiet_replies": len(quiet),
    }


def selections(made: Sequence[Sequence[CallRecord]], wanted: Sequence[Sequence[CallRecord]]) -> list[bool]:
    """For each call that stands for a wanted one: whether its program is the right one."""
    return [same_program(*pair) for m, w in zip(made, wanted, strict=True) for pair in pairs(m, w)]


def readings(made: Sequence[Sequence[CallRecord]], wanted: Sequence[Sequence[CallRecord]]) -> list[bool]:
    """For each call of the right program: whether its arguments are the right ones."""
    found = (pair for m, w in zip(made, wanted, strict=True) for pair in pairs(m, w))
    return [same_arguments(*pair) for pair in found if same_program(*pair)]


# Shares and their uncertainty


def share(hits: Iterable[bool]) -> dict[str, float | int | None]:
    """A share with its Wilson interval of 95 %: ``share``, ``low``, ``high`` (None if there is nothing to count), ``count``."""
    counted = [bool(hit) for hit in hits]
    if not counted:
        return {"share": None, "low": None, "high": None, "count": 0}
    low, high = wilson(sum(counted), len(counted))
    return {"share": sum(counted) / len(counted), "low": low, "high": high, "count": len(counted)}


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's score interval of 95 % for ``hits`` of ``count`` (E. B. Wilson, 1927); count ≥ 1."""
    p, square = hits / count, Z95 * Z95
    centre = (p + square / (2 * count)) / (1 + square / count)
    half = Z95 / (1 + square / count) * math.sqrt(p * (1 - p) / count + square / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def difference(new: Mapping[str, Any], old: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Difference of two independent shares with its interval of 95 % (Newcombe, 1998, method 10); None if one is empty.

    Args:
        new, old: as :func:`share` returns them.
    """
    if new["share"] is None or old["share"] is None:
        return None
    p, q = new["share"], old["share"]
    low = p - q - math.hypot(p - new["low"], old["high"] - q)
    return p - q, low, p - q + math.hypot(new["high"] - p, q - old["low"])


def buckets(lengths: Iterable[int]) -> list[tuple[int, int]]:
    """The buckets (least, most) that hold the lengths (each ≥ 1): 1–4, 5–8, 9–16, 17–32, …"""
    return sorted(
        {(1, 4) if n <= 4 else (2 ** ((n - 1).bit_length() - 1) + 1, 2 ** (n - 1).bit_length()) for n in lengths}
    )


def length_curve(
    hits: Sequence[bool], lengths: Sequence[int], edges: Sequence[tuple[int, int]] | None = None
) -> list[dict[str, Any]]:
    """Accuracy by length.

    Args:
        hits, lengths: of each example. edges: buckets (least, most), both included; by default :func:`buckets`.

    Returns:
        of each bucket ``least``, ``most``, and what :func:`share` returns.
    """
    return [
        {"least": least, "most": most} | share(hit for hit, n in zip(hits, lengths, strict=True) if least <= n <= most)
        for least, most in (buckets(lengths) if edges is None else edges)
    ]


# Retention


def agreement(tokens: Sequence[int], base: Sequence[int]) -> float:
    """Length of the common beginning over that of the longer reply, 0 to 1; what follows the first difference is another text."""
    if not tokens and not base:
        return 1.0
    same = next(
        (at for at, (one, other) in enumerate(zip(tokens, base, strict=False)) if one != other),
        min(len(tokens), len(base)),
    )
    return same / max(len(tokens), len(base))


def retention(tokens: Sequence[Sequence[int]], base: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Replies against the base's, as token ids.

    Returns:
        identical: share of the replies that are the base's; low, high: its Wilson interval of 95 %; agreement: mean of
        :func:`agreement`, None without replies; count.
    """
    both = [(list(one), list(other)) for one, other in zip(tokens, base, strict=True)]
    found = share(one == other for one, other in both)
    rates = [agreement(*pair) for pair in both]
    return {"identical": found.pop("share"), "agreement": sum(rates) / len(rates) if rates else None, **found}
