"""How arguments stand in a request: separators, brackets, quotes, units, labels, and what surrounds requests in real life."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random

from .drawing import BEST_OF, Values, weighted
from .material import (
    DISTRACTIONS,
    LABELS,
    LEADS,
    NAMES,
    NUMBER_TRAILS,
    NUMBERED_LEADS,
    NUMBERED_TRAILS,
    PLACES,
    QUOTES,
    SETS_OFF,
    THINGS,
    TIMES,
    TRAILS,
    UNITS,
)
from .wording import GENERAL, PARAMETERS, SLOT, Wording

_WORDING = -1  # text of the wording and its surroundings, open to augmentation
_FIXED = -2  # quotes, separators, units: as rendered
Segment = tuple[str, int]
"""A stretch of a prompt, and the number of the argument that it belongs to, or one of the two above."""
_OF_ALL_KINDS = re.compile(
    r"\b(things|objects|items|animals|pets|fruits?|vegetables|toys|tools|instruments|pieces|goods|articles)\b", re.IGNORECASE
)
"""What says in a sum that things of several kinds are counted together."""
_CODE = re.compile(r"[][(){}<>=_`|\\/*^]")
"""What a wording that is code holds, in which nobody leaves letters out."""
_LONG_WORD = re.compile(r"[A-Za-z]{4,}")
_STORY_LISTS = {"sum_numbers", "maximum", "minimum", "mean", "count_numbers", "sort_ascending", "sort_descending"}
_TEXT_RESULTS = {"reverse_text", "compare", "is_prime", "sort_ascending", "sort_descending", "reverse_list"}


def _joined(numbers: Sequence[str], separator: str, last: str, owner: int) -> list[Segment]:
    if separator == "," and any("," in number for number in numbers):
        separator = last = ", "
    segments: list[Segment] = [(numbers[0], owner)]
    for position, number in enumerate(numbers[1:], 2):
        segments += [(last if position == len(numbers) else separator, _FIXED), (number, owner)]
    return segments


_INLINE = {
    **{", ": 34.0, ",": 8, " ": 13, "; ": 5, ";": 1, " / ": 1.5, "/": 1, " | ": 1.5, "\t": 1, "   ": 1, " , ": 1},
    **{"... ": 0.5, ", then ": 0.7, " then ": 0.3, ". ": 0.3},
    **{"and": 15, ", and": 7, "&": 1.5},
    **{"[]": 6, "()": 2.5, "{}": 1, "quotes": 1},
}
_BLOCK_STYLES = {"\n": 5.0, "- ": 2, "* ": 1, "• ": 1, ",\n": 1, "1. ": 0.4, "\n\n": 0.3}


def _render_list(
    rng: Random, numbers: list[str], before: str, after: str, owner: int, story: bool, units: bool, alternatives: bool,
    kinds: bool = False,
) -> list[Segment]:
    """A list as people write it: numbers are pieces of the argument, all between them is fixed."""
    code = before[-1:] in ("(", "[", "{", '"', "'") and bool(before)
    if code:
        separator = weighted(rng, {", ": 6.0, ",": 3, " ": 1, "; ": 0.5})
        segments = _joined(numbers, separator, separator, owner)
        if before[-1] == "(" and "," in separator and rng.random() < 0.3:
            return [("[", _FIXED), *segments, ("]", _FIXED)]
        return segments
    inline_end = not after or after[0] in ".?,;:!\n"
    positive = not any(number.startswith("-") for number in numbers)
    if (
        story
        and inline_end
        and positive
        and before[-1:] in ("", " ", "\n")
        and "=" not in before
        and rng.random() < (0.8 if kinds else 0.24)
    ):
        return _render_story(rng, numbers, owner, after in ("", "\n") and rng.random() < 0.15, units, kinds)
    alone = (not before or before[-1] == "\n" or before.endswith(": ")) and (not after or after[0] == "\n")
    if alone and rng.random() < 0.3:
        style = weighted(rng, _BLOCK_STYLES)
        lead = "" if not before or before[-1] == "\n" else "\n"
        if style in ("- ", "* ", "• "):
            return [(lead + style, _FIXED), *_joined(numbers, "\n" + style, "\n" + style, owner)]
        if style == "1. ":
            rows = [((f"{lead}1. ") if i == 1 else f"\n{i}. ", number) for i, number in enumerate(numbers, 1)]
            return [segment for mark, number in rows for segment in ((mark, _FIXED), (number, owner))]
        return [(lead, _FIXED), *_joined(numbers, style, style, owner)]
    style = weighted(
        rng,
        _INLINE
        | ({"or": 8.0, ", or": 4.0} if alternatives else {})
        | ({"-": 1.0} if positive and len(numbers) > 2 else {}),
    )
    if style in ("or", ", or"):
        return _joined(
            numbers,
            rng.choice((", ", ", ", " or ")),
            f"{style} " if len(numbers) > 2 and "," in style else " or ",
            owner,
        )
    if style in ("[]", "()", "{}", "quotes"):
        pair = '""' if style == "quotes" else style
        separator = rng.choice((", ", ", ", ",", " "))
        return [(pair[0], _FIXED), *_joined(numbers, separator, separator, owner), (pair[1], _FIXED)]
    if len(numbers) == 2:
        style = {", and": "and", ",": ", "}.get(style, style)  # "22,44" could be one number
    if style in ("and", ", and", "&"):
        return _joined(numbers, ", ", {"and": " and ", ", and": ", and ", "&": " & "}[style], owner)
    return _joined(numbers, style, style, owner)


def _different(rng: Random, entries: Sequence[str], count: int) -> list[str]:
    """Different entries, as long as there are enough."""
    return rng.sample(entries, count) if count <= len(entries) else rng.choices(entries, k=count)


def _unit(rng: Random) -> str:
    unit = rng.choice(UNITS)
    return unit if unit in "%°" or (len(unit) < 3 and rng.random() < 0.5) else f" {unit}"


def _render_story(
    rng: Random, numbers: list[str], owner: int, block: bool, units: bool, kinds_of_things: bool = False
) -> list[Segment]:
    """Numbers with a unit (if ``units``) or a label each: ``Mon 5, Tue 3``, ``5 kg, 3 kg``, ``$5, $3``, ``5 cups, 3 forks``."""
    kinds = {"name": 3.0, "label": 3, "owner": 1, "when": 2.5, "table": 1.5 if block else 0}
    if kinds_of_things:
        kinds["things"] = 40.0
    elif units:
        kinds |= {"unit": 4, "currency": 2, "thing": 1, "things": 1}
    kind = weighted(rng, kinds)
    before, after = [""] * len(numbers), [""] * len(numbers)
    if kind == "unit":
        after = [_unit(rng)] * len(numbers)
    elif kind == "currency":
        before = [rng.choice("$€£")] * len(numbers)
    elif kind == "thing":
        after = [" " + rng.choice(THINGS)] * len(numbers)
    elif kind == "things":
        after = [" " + thing for thing in _different(rng, THINGS, len(numbers))]
    elif kind == "owner":
        after = [
            rng.choice((" for {}", " from {}", " ({})")).replace("{}", name)
            for name in rng.choices(NAMES, k=len(numbers))
        ]
    elif kind == "when" and len(numbers) <= len(TIMES[0]):
        times = rng.choice([times for times in TIMES if len(times) >= len(numbers)])
        after = [f" {time}" for time in times[: len(numbers)]]
        if units and rng.random() < 0.6:  # the unit is said with all of them or with the first
            unit = f" {rng.choice(THINGS)}" if rng.random() < 0.5 else _unit(rng)
            once = rng.random() < 0.6
            after = [unit * (not once or at == 0) + time for at, time in enumerate(after)]
    else:
        table = kind == "table"
        labelled = kind == "label" or (table and rng.random() < 0.5)
        fitting = [labels for labels in LABELS if len(labels) >= len(numbers)] if labelled else []
        people = _different(rng, NAMES, len(numbers))
        labels = rng.choice(fitting)[: len(numbers)] if fitting else people
        mark = rng.choice((" ", " ", ": ", ": ", " = ", " has " if kind == "name" else " - "))
        if table and rng.random() < 0.5:
            before, after = [f"| {label} | " for label in labels], [" |"] * len(numbers)
        elif table:
            comma = rng.choice((",", "\t"))
            comma = "\t" if any("," in number for number in numbers) else comma
            before = [label + comma for label in labels]
        else:
            before = [label + mark for label in labels]
        if units and not table and rng.random() < 0.15:
            after = [_unit(rng)] * len(numbers)
    separator = "\n" if block else rng.choice((", ", ", ", ", ", "; "))
    last = separator if block else rng.choice((separator, separator, " and ", ", and "))
    segments: list[Segment] = [("\n" if block else "", _FIXED)]
    for position, number in enumerate(numbers):
        gap = "" if position == 0 else last if position == len(numbers) - 1 else separator
        segments += [(gap + before[position], _FIXED), (number, owner), (after[position], _FIXED)]
    return segments


def _render_text(rng: Random, text: str, before: str, after: str, owner: int) -> list[Segment]:
    """A text, in quotes where the wording has none and would leave its end in doubt, and half of the time anyway."""
    marks = before[-1:] + after[:1]
    if marks in SETS_OFF:
        if any(mark in text for mark in marks):
            text = "".join(c for c in text if c not in marks)
        return [(text, owner)]
    edge_before = not before or before[-1] == "\n" or before.endswith(": ")
    edge_after = not after or after[0] == "\n"
    plain = all(c.isalnum() for c in text)
    alone = edge_before and edge_after
    apart = edge_before and after[:1] in (".", ",") and "," not in text
    clear = plain or alone or (text[-1].isalnum() and (apart or (edge_after and bool(before))))
    glued = bool((before and before[-1].isalnum()) or (after and after[0].isalnum()))
    if not clear or glued or rng.random() < 0.5:
        fitting = [marks for marks in QUOTES if not any(mark in text for mark in marks)]
        if fitting:
            opening, closing = rng.choice(fitting)
            return [(opening, _FIXED), (text, owner), (closing, _FIXED)]
    return [(text, owner)]


def _render_letter(rng: Random, letter: str, before: str, after: str, owner: int) -> list[Segment]:
    free = (not before or before[-1] in " \n(,") and (not after or after[0] in " \n?.,):")
    if free and rng.random() < 0.25:
        mark = rng.choice('""\'')
        return [(mark, _FIXED), (letter, owner), (mark, _FIXED)]
    return [(letter, owner)]


def _ordinal(number: str) -> str:
    if number[-2:] in ("11", "12", "13"):
        return "th"
    return {"1": "st", "2": "nd", "3": "rd"}.get(number[-1], "th")


def drawn_fillers(rng: Random, taken: set[str]) -> dict[str, str]:
    """What stands in a wording besides its arguments: names, things, a place, and two numbers that are none of ``taken``."""
    name, name2 = rng.sample(NAMES, 2)
    numbers: list[str] = []
    while len(numbers) < 2:
        number = str(rng.randint(2, rng.choice((9, 30, 99, 400))))
        if number not in taken and number not in numbers:
            numbers.append(number)
    things, place = rng.choice(THINGS), rng.choice(PLACES)
    return {"name": name, "name2": name2, "things": things, "place": place, "x": numbers[0], "y": numbers[1]}


def render(
    rng: Random, wording: Wording, values: Values, program: str, fillers: Mapping[str, str]
) -> list[Segment]:
    """A wording with its arguments, which stand in it as people write them."""
    names = PARAMETERS.get(program, ())
    segments: list[Segment] = []
    ordinal = rng.random() < 0.8
    asks = (
        "?" in wording.line or re.match(r"\W*(which|what)", wording.line, re.I) is not None
    )  # "5 or 7" is no statement
    # Of an argument that is said more than once, one place, drawn, counts as where it is read.
    said: dict[str, list[int]] = {}
    for at, part in enumerate(wording.parts):
        if at % 2 and part in names:
            said.setdefault(part, []).append(at)
    owners = {rng.choice(places) if len(places) > 1 else places[0]: names.index(part) for part, places in said.items()}
    for at, part in enumerate(wording.parts):
        if at % 2 == 0:
            number = segments[-1][0] if segments else ""
            if ordinal and number.isdigit() and (match := re.match(r"(-?)th\b", part)):
                part = match[1] + _ordinal(number) + part[match.end() :]
            segments.append((part, _WORDING))
            continue
        if part in fillers:
            segments.append((fillers[part], _WORDING))
            continue
        owner = owners.get(at, _FIXED)
        before = wording.parts[at - 1] or ("x" if at > 1 else "")
        after = wording.parts[at + 1] or ("x" if at + 2 < len(wording.parts) else "")
        value = values[part]
        if isinstance(value, list):
            segments += _render_list(
                rng,
                value,
                before,
                after,
                owner,
                program in _STORY_LISTS,
                not wording.is_story,
                program in BEST_OF and asks,
                program == "sum_numbers" and _OF_ALL_KINDS.search(wording.line) is not None,
            )
        elif part == "text":
            segments += _render_text(rng, value, before, after, owner)
        elif part == "letter":
            segments += _render_letter(rng, value, before, after, owner)
        else:
            segments.append((value, owner))
    return [(text, owner) for text, owner in segments if text]


def augment(rng: Random, segments: list[Segment], program: str, fillers: Mapping[str, str]) -> list[Segment]:
    """What surrounds requests in real life: case, punctuation, greetings, thanks, noise. Arguments stay as they are."""
    result = list(segments)
    if rng.random() < 0.35:
        result = [(text.lower() if owner == _WORDING else text, owner) for text, owner in result]
    last, owner = result[-1]
    if owner == _WORDING and rng.random() < 0.35 and len(result) > 1:
        result[-1] = (last.rstrip(".?!").rstrip(" ") or last, owner)
    if rng.random() < 0.15:
        for at, (text, owner) in enumerate(result):
            if owner == _WORDING and (match := re.search(r"[.?!:] (?=\w)", text)) is not None:
                result[at] = (
                    text[: match.end() - 1] + rng.choice(("  ", "\n", "\n", "\n\n")) + text[match.end() :],
                    owner,
                )
                break
    elif rng.random() < 0.12:
        for at, (text, owner) in enumerate(result):
            if owner == _WORDING and " " in text.strip():
                spot = rng.choice([i for i, c in enumerate(text.strip()) if c == " "]) + len(text) - len(text.lstrip())
                result[at] = (text[:spot] + "  " + text[spot + 1 :], owner)
                break
    # A text without quotes at the edge of the message would run into what is put beside it: a new line parts them.
    bare_text = program in ("reverse_text", "text_length", "count_letter")
    if rng.random() < 0.35:
        lead = rng.choice(LEADS)
        first, owner = result[0]
        gap = "\n" if (bare_text and owner >= 0) or rng.random() < 0.08 else " "
        if (
            lead[-1] == ","
            and owner == _WORDING
            and first[:1].isupper()
            and first[1:2].islower()
            and rng.random() < 0.7
        ):
            result[0] = (first[0].lower() + first[1:], owner)
        result.insert(0, (lead + gap, _WORDING))
    filled = dict(zip("xy", sorted((fillers["x"], fillers["y"]), key=int), strict=True))
    if rng.random() < 0.22 and result[0][1] == _WORDING:  # not before a bare number, which it would run into
        mark = rng.choice(NUMBERED_LEADS).format(**filled)
        result.insert(0, (mark + rng.choice((" ", " ", " ", "\n")), _WORDING))
    if rng.random() < 0.2:
        sentence = SLOT.sub(lambda match: fillers[match[1]], rng.choice(DISTRACTIONS))
        result.insert(0, (sentence + rng.choice((" ", " ", " ", "\n")), _WORDING))
    if rng.random() < 0.12:
        mark = rng.choice(NUMBERED_TRAILS).format(**filled)
        result.append((("\n" if bare_text and result[-1][1] >= 0 else rng.choice((" ", " ", "\n"))) + mark, _WORDING))
    elif rng.random() < 0.35:
        numeric = program not in _TEXT_RESULTS and rng.random() < (0.3 if program != GENERAL else 0.1)
        trail = rng.choice(NUMBER_TRAILS if numeric else TRAILS)
        last, owner = result[-1]
        if (bare_text and owner >= 0) or last[-1] in ":=":  # else it would be taken for what is asked
            gap = "\n"
        elif last[-1] in ".?!":
            gap = rng.choice((" ", " ", " ", "\n"))
        else:
            gap = rng.choice((". ", "\n", ", ", " ")) if trail[0].islower() else rng.choice((". ", "\n"))
        result.append((gap + trail, _WORDING))
    return result


def mistyped(rng: Random, segments: list[Segment]) -> list[Segment]:
    """As typed in a hurry: small letters, no apostrophes, no mark at the end, a letter or two swapped, left out or doubled.

    Arguments stay as they are.
    """
    result = list(segments)
    if rng.random() < 0.7:
        result = [(text.lower() if owner == _WORDING else text, owner) for text, owner in result]
    if rng.random() < 0.6:
        result = [
            (re.sub(r"(?<=[A-Za-z])['’](?=[a-z])", "", text) if owner == _WORDING else text, owner)
            for text, owner in result
        ]
    last, owner = result[-1]
    if owner == _WORDING and len(result) > 1 and rng.random() < 0.6:
        result[-1] = (last.rstrip(".?!").rstrip(" ") or last, owner)
    if any(owner == _WORDING and _CODE.search(text) for text, owner in result):
        return result
    for _ in range(rng.choice((0, 1, 1, 2))):
        words = [
            (at, match)
            for at, (text, owner) in enumerate(result)
            if owner == _WORDING
            for match in _LONG_WORD.finditer(text)
        ]
        if not words:
            break
        at, match = rng.choice(words)
        text, where = result[at][0], rng.randint(match.start() + 1, match.end() - 2)
        letter, following = text[where], text[where + 1]
        typed = rng.choice((following + letter, following, letter + letter + following))
        result[at] = (text[:where] + typed + text[where + 2 :], _WORDING)
    return result


def assemble(segments: Sequence[Segment], arguments: int) -> tuple[str, tuple[tuple[tuple[int, int], ...], ...]]:
    """The prompt, and for each argument the characters [start, end) of its pieces in it."""
    spans: list[list[tuple[int, int]]] = [[] for _ in range(arguments)]
    at = 0
    for text, owner in segments:
        if owner >= 0:
            spans[owner].append((at, at + len(text)))
        at += len(text)
    return "".join(text for text, _ in segments), tuple(map(tuple, spans))
