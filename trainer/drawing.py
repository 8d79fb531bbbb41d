"""Arguments of requests: for each program those that people ask about, drawn to fit a wording."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from random import Random

from .material import CLAUSES, NAMES, PLACES, SENTENCE_PATTERNS, SENTENCES, SETS_OFF, THINGS, WORDS
from .wording import GENERAL, PARAMETERS, SLOT, Wording

Values = Mapping[str, str | list[str]]
"""Argument → its text, or the numbers of a list."""
ATTEMPTS = 40
"""Draws of one thing before it is given up."""
BEST_OF = {"maximum", "minimum"}
"""Programs that choose one number of a list."""
_OF_TWO = re.compile(r"\b(two|bigger|larger|greater|higher|smaller|lesser|lower)\b", re.IGNORECASE)
"""A comparative is mostly of two numbers."""
ROUNDED = re.compile(
    r"\b(whole|full|rounded?|complete|entire|at most|integer|int|quotient|floor|div|left|remain\w*)\b|//", re.IGNORECASE
)
"""What says in a story that a quotient is rounded down."""
_OF_YEARS = re.compile(r"\b(years?|born|century|reign\w*)\b", re.IGNORECASE)
_DATED = re.compile(r"\b(in|since|until|from|to|between|and|the year|from year|until year)( the year)? $", re.IGNORECASE)
"""What stands before a number that is a year, in a wording that is about years."""
WITH_DECIMALS = {
    *("add", "subtract", "multiply", "power", "compare", "difference", "percentage", "square", "cube", "double", "half"),
    *("sum_numbers", "maximum", "minimum", "mean", "count_numbers", "sort_ascending", "sort_descending", "reverse_list"),
}
"""Programs that are asked for with decimals, too (a power's base). ``divide`` takes them, but rounds down: few would expect it."""
_WHOLE = re.compile(
    r"\b(whole|int|integers?|digits?|bits?|natural|years?|born|century|quotient|remainder|mod|modulo)\b|//|%", re.IGNORECASE
)
"""What says that numbers are whole, or asks for what few ask of others."""
_SIZES = re.compile(
    r"\b(side|edge|length|width|height|radius|radii|diameter|area|volume|dose|pixels?|tiles?|rows?|root|deviation|cm|mm|km|m|px|ml|kg|g)\b"
    r"|[√²³^σ]",
    re.IGNORECASE,
)
"""What says that a number is a size, or would leave in doubt how far its sign reaches."""
_HEADS = re.compile(
    r"{things}|\b(people|persons|pupils|students|children|kids|nurses|guests|members|employees|workers|voters?|votes|players|answers"
    r"|questions|marbles|seats|tickets|boxes|eggs|trees|animals|cars|houses|items|units)\b",
    re.IGNORECASE,
)
"""What is counted whole."""
_EITHER_WAY = re.compile(r"\bf?abs(?!en)|\||differ|apart|distance|\bdist\b|\bgap\b|how far|spread|delta", re.IGNORECASE)
"""What asks how far two numbers are from each other, whichever is larger."""
_MONEY = re.compile(r"[$€£]$"), re.compile(r" ?(euros?|dollars?|pounds?|€)\b")
"""What stands before and after an amount of money."""
_MEASURES = re.compile(
    r" ?(euros?|dollars?|pounds?|€|kg|kilos?|km|m|cm|g|grams?|kilograms?|lit(?:re|er)s?|met(?:re|er)s?|miles?|kilomet(?:re|er)s?|"
    r"centimet(?:re|er)s?|hours?|tons?|tonnes?|degrees|°C|°)\b"
)
"""What follows a number that may have decimals in a story."""


def weighted(rng: Random, choices: Mapping[str, float]) -> str:
    """One of the choices, each as often as its weight says."""
    return rng.choices(list(choices), list(choices.values()))[0]


@dataclass(frozen=True)
class Draw:
    """Draws arguments of one request: sizes are uniform over the number of digits."""

    rng: Random
    digits: tuple[int, int]
    list_length: tuple[int, int]
    program: str = GENERAL

    def number(self) -> int:
        count = self.rng.randint(*self.digits)
        value = self.rng.randint(10 ** (count - 1) if count > 1 else 0, 10**count - 1)
        if count > 1 and self.rng.random() < 0.12:  # people like round numbers
            value -= value % 10 ** self.rng.randint(1, count - 1)
        return value

    def positive(self) -> int:
        return self.number() or self.rng.randint(1, 9)

    def up_to(self, most: int) -> int:
        """From 1 to ``most``, uniform over the number of digits."""
        count = self.rng.randint(1, len(str(most)))
        return self.rng.randint(10 ** (count - 1), min(most, 10**count - 1))

    @property
    def limit(self) -> int:
        return 10 ** self.digits[1] - 1

    def pair(self) -> tuple[int, int]:
        return self.number(), self.number()

    def years(self, wording: Wording, a: int, b: int) -> dict[str, int]:
        """Where one of a pair is the year of something, it is mostly of our age, and the other, if no year, a span of years."""
        values = {"a": a, "b": b}
        if not self.digits[0] <= 4 <= self.digits[1] or not _OF_YEARS.search(wording.line):
            return values
        dated = [
            name
            for name in values
            if any(_DATED.search(before) and not after.startswith(" year") for before, after in wording.places(name))
        ]
        if not dated or self.rng.random() < 0.25:
            return values
        return {name: self.rng.randint(1850, 2035) if name in dated else self.rng.randint(1, 99) for name in values}

    def signed(self, wording: Wording, values: dict[str, int]) -> dict[str, str]:
        """Sometimes negative, where the wording has room for a sign."""
        result = {}
        for name, value in values.items():
            room = not wording.is_story and all(
                (not before or before[-1] in " \n([,=:\"'") and after[:1] not in ("t", "s", "-")
                for before, after in wording.places(name)
            )
            result[name] = f"-{value}" if value and room and self.rng.random() < 0.15 else str(value)
        return result

    def with_point(self, wording: Wording, values: Mapping[str, str]) -> dict[str, str]:
        """Sometimes a power of ten smaller, with decimals, where the wording has room for them.

        Args:
            values: parameter → whole number.
        """
        result = dict(values)
        places = {name: wording.places(name) for name in values}
        if self.rng.random() < 0.84 or not self._may_have_decimals(wording, [place for own in places.values() for place in own]):
            return result
        money = any(_MONEY[0].search(before) or _MONEY[1].match(after) for own in places.values() for before, after in own)
        drawn = iter(self._divided([*values.values()], money))
        return {name: next(drawn) for name in values}

    def list_with_point(self, wording: Wording, values: Sequence[int], alike: bool = False) -> list[str]:
        """The same for the numbers of a list; ``alike``: all are divided by the same."""
        whole = [str(value) for value in values]
        if self.rng.random() < 0.8 or not self._may_have_decimals(wording, wording.places("numbers")):
            return whole
        return self._divided(whole, wording.is_story and self.rng.random() < 0.5, alike)

    def _may_have_decimals(self, wording: Wording, places: Sequence[tuple[str, str]]) -> bool:
        """Whether numbers at these places may have decimals."""
        line = wording.line.replace("%", "") if self.program == "percentage" else wording.line
        if self.digits[0] > 3 or _WHOLE.search(line):  # of long numbers the digits are counted
            return False
        measured = any(_MONEY[0].search(before) or _MEASURES.match(after) for before, after in places)
        beside = all(
            (not before or before[-1] in " \n([{,=:;\"'$€£*/+-") and after[:1] not in ("t", "s") and not re.match(r"[.,]\d", after)
            for before, after in places
        )
        return beside and (measured or not wording.is_story)

    def _divided(self, numbers: Sequence[str], money: bool, alike: bool = False) -> list[str]:
        """Whole numbers divided by 10, 100 or 1,000, mostly by no more than they are; sums of money have two decimals or none."""
        rng = self.rng
        count = 2 if money else rng.choices((1, 2, 3), (50, 40, 10))[0]
        found = []
        for number in numbers:
            digits = number.lstrip("-")
            places = count
            if not (money or alike) and rng.random() < 0.9:
                places = min(count if rng.random() < 0.7 else rng.randint(1, 3), max(1, len(digits) - 1))
            digits = digits.zfill(places + 1)
            text = f"{digits[:-places]}.{digits[-places:]}"
            if text.endswith("00") if money else rng.random() < 0.85:
                text = text.rstrip("0").rstrip(".")
            found.append(f"-{text}" if number.startswith("-") and text != "0" else text)
        return found

    def numbers(self, wording: Wording) -> list[int]:
        length = self.rng.randint(*self.list_length)
        of_two = _OF_TWO.search(wording.line) if self.program in BEST_OF and self.list_length[0] <= 2 else None
        if of_two and ("two" in of_two[0].lower() or self.rng.random() < 0.7):
            length = 2
        if self.rng.random() < 0.4:  # all of about the same size, as measurements are
            count = self.rng.randint(*self.digits)
            values = [Draw(self.rng, (count, count), self.list_length).number() for _ in range(length)]
        else:
            values = [self.number() for _ in range(length)]
        if self.rng.random() < 0.25:
            values[self.rng.randrange(length)] = self.rng.choice(values)
        if not wording.is_story and self.rng.random() < 0.18:
            values = [-value if self.rng.random() < 0.4 else value for value in values]
        return values

    # -- text

    def text(self, wording: Wording) -> str:
        """A word, phrase, code or sentence that the wording can hold without doubt about where it ends."""
        rng = self.rng
        before, after = wording.places("text")[0]
        quoted = before[-1:] + after[:1] in SETS_OFF
        line = SLOT.sub("", wording.line.lower())
        if "dna" in line:
            return "".join(rng.choice("ACGT") for _ in range(rng.randint(4, 20)))
        if "my name is" in line or "full name" in line or "name of" in line:
            return f"{rng.choice(NAMES)} {rng.choice(WORDS).capitalize()}" if rng.random() < 0.5 else rng.choice(NAMES)
        if re.search(r"\b(town|city|village|place)\b", line):
            return rng.choice(PLACES)
        weights = {
            "word": 38.0,
            "Word": 8,
            "NAME": 6,
            "WORD": 4,
            "letters": 8,
            "code": 7,
            "phrase": 20,
            "clause": 10,
            "sentence": 12,
        }
        if re.search(r"\b(sentence|phrase|motto|slogan|title|quote|message|line)\b", line):
            weights.update(word=6, Word=2, NAME=1, WORD=1, letters=1, code=1, phrase=30, clause=20, sentence=25)
        elif re.search(r"\b(word|wrd|name|spell|spells|spelled|hangman|scrabble)\b", line):
            weights.update(phrase=1, clause=0, sentence=0, code=1)
        if (
            self.program == "text_length"
            and re.search(r"\bletters?\b", line)
            and not re.search(r"\b(character|space)s?\b", line)
        ):
            # A space or a mark is a character of a text and no letter of it.
            weights = {
                kind: weight for kind, weight in weights.items() if kind in ("word", "Word", "NAME", "WORD", "letters")
            }
        value = self._text_of(weighted(rng, weights))
        if not quoted and after[:1] not in ("", "\n") and not value[-1].isalnum():
            value = value.rstrip(".!?")  # its own full stop could be taken for the wording's
        return value if value else rng.choice(WORDS)

    def _text_of(self, kind: str) -> str:
        rng = self.rng
        if kind == "letters":
            some = rng.choice(
                ("abcdefghijklmnopqrstuvwxyz", "abc", "xyz", "aeiou", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "qwertyuiop")
            )
            return "".join(rng.choice(some) for _ in range(rng.randint(3, 14)))
        if kind == "code":
            if rng.random() < 0.2:
                return str(rng.randint(100, 10 ** rng.randint(3, 9)))
            some = (
                "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789" if rng.random() < 0.6 else "abcdefghijklmnopqrstuvwxyz0123456789"
            )
            groups = ("".join(rng.choice(some) for _ in range(rng.randint(2, 6))) for _ in range(rng.randint(1, 3)))
            return rng.choice(("", "-", "_")).join(groups)
        if kind == "phrase":
            words = [rng.choice(WORDS) for _ in range(rng.randint(2, 5))]
            if rng.random() < 0.2:
                words[0] = words[0].capitalize()
            return rng.choice((" and ", ", ", *[" "] * 4)).join(words[:2]) + "".join(f" {word}" for word in words[2:])
        if kind == "clause":
            return rng.choice(CLAUSES)
        if kind == "sentence":
            if rng.random() < 0.5:
                return rng.choice(SENTENCES)
            template = rng.choice(SENTENCE_PATTERNS)
            return template.format(
                n=rng.choice(NAMES), p=rng.choice(PLACES), q=rng.choice(PLACES), t=rng.choice(THINGS),
                u=rng.choice(THINGS), w=rng.choice(WORDS), v=rng.choice(WORDS),
            )  # fmt: skip
        if kind == "NAME":
            return rng.choice(rng.choice((NAMES, PLACES)))
        word = rng.choice(rng.choice((WORDS, WORDS, WORDS, THINGS)))
        return {"word": word, "Word": word.capitalize(), "WORD": word.upper()}[kind]

    def letter(self, text: str) -> str:
        rng = self.rng
        own = [c for c in text if c.isalpha()]
        if own and rng.random() < 0.75:
            # An argument that occurs often is the more telling one: half of the time the most frequent letter.
            letter = max(own, key=own.count) if rng.random() < 0.3 else rng.choice(own)
            return letter.swapcase() if rng.random() < 0.1 and len(letter.swapcase()) == 1 else letter
        letter = rng.choice("abcdefghijklmnopqrstuvwxyz")
        return letter.upper() if rng.random() < 0.2 else letter

    # -- expressions

    def expression(self) -> str:
        rng = self.rng
        for _ in range(ATTEMPTS):
            signs = {"+": "+", "-": "-", "*": rng.choice("*******x××"), "/": rng.choice("//////÷")}
            if rng.random() < 0.12:
                signs["^"] = rng.choice(("^", "^", "**"))
            space = rng.random() < 0.6 or signs["*"] == "x"
            leaves = rng.choices((2, 3, 4, 5), (6, 44, 30, 20))[0]
            decimals = rng.choice((1, 1, 2)) if rng.random() < 0.12 else 0
            try:
                text, _, _ = self._tree(leaves, signs, " " if space else "", decimals)
            except ZeroDivisionError:
                continue
            return "-" + text if rng.random() < 0.04 else text
        return "1 + 2 * 3"

    def _tree(self, leaves: int, signs: Mapping[str, str], space: str, decimals: int = 0) -> tuple[str, Fraction, int]:
        """Text, value and binding strength (1 sum, 2 product, 3 atom) of a random tree; many of its numbers have ``decimals``.

        Args:
            signs: how "+", "-", "*" and "/" are written, and "^" where some of the numbers are to be powers.
        """
        rng = self.rng
        if leaves == 1:
            if "^" in signs and rng.random() < 0.4:
                base, exponent = rng.randint(2, 12), rng.choice((2, 2, 2, 3, 3, 4))
                return f"{base}{signs['^']}{exponent}", Fraction(base**exponent), 3
            value = min(self.number(), self.number())
            if decimals and rng.random() < 0.7:
                digits = str(value).zfill(decimals + 1)
                return f"{digits[:-decimals]}.{digits[-decimals:]}", Fraction(value, 10**decimals), 3
            if value and rng.random() < 0.03:
                return f"(-{value})", Fraction(-value), 3
            return str(value), Fraction(value), 3
        cut = rng.randint(1, leaves - 1)
        sign = rng.choices("+-*/", (32, 26, 28, 14))[0]
        left, x, left_binds = self._tree(cut, signs, space, decimals)
        right, y, right_binds = self._tree(leaves - cut, signs, space, decimals)
        if sign == "/" and left_binds == 3 and y.denominator == 1 and 0 < y <= self.limit and rng.random() < 0.6:
            x = y * self.up_to(max(1, self.limit // int(y)))
            left = str(x)
        binds = 1 if sign in "+-" else 2
        if left_binds < binds or (left_binds < 3 and rng.random() < 0.1):
            left = f"({left})"
        if right_binds < binds or (right_binds == binds and sign in "-/") or (right_binds < 3 and rng.random() < 0.1):
            right = f"({right})"
        result = x + y if sign == "+" else x - y if sign == "-" else x * y if sign == "*" else x / y
        return f"{left}{space}{signs[sign]}{space}{right}", result, binds


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


def _signed_pair(draw: Draw, wording: Wording) -> Values:
    a, b = draw.pair()
    return draw.with_point(wording, draw.signed(wording, {"a": a, "b": b}))


def _add(draw: Draw, wording: Wording) -> Values:
    return draw.with_point(wording, draw.signed(wording, draw.years(wording, *draw.pair())))


def _subtract(draw: Draw, wording: Wording) -> Values:
    drawn = draw.with_point(wording, draw.signed(wording, draw.years(wording, *draw.pair())))
    # The greater number is no sign of which one is taken from, but in a story, where one seldom gives more than one has.
    if Fraction(drawn["a"]) < Fraction(drawn["b"]) and draw.rng.random() < (0.98 if wording.is_story else 0.15):
        return {"a": drawn["b"], "b": drawn["a"]}
    return drawn


def _difference(draw: Draw, wording: Wording) -> Values:
    values = draw.years(wording, *draw.pair())
    if not wording.is_story and _EITHER_WAY.search(wording.line):
        return draw.with_point(wording, draw.signed(wording, values))
    # A wording that needs the larger number to be one of them calls it a.
    told = draw.with_point(wording, {name: str(value) for name, value in values.items()})
    return dict(zip(("b", "a"), sorted(told.values(), key=Fraction), strict=True))


def _percentage(draw: Draw, wording: Wording) -> Values:
    rng = draw.rng
    kind = rng.random()
    a = str(rng.choice((5, 10, 15, 20, 25, 30, 40, 50, 60, 75, 80, 90)) if kind < 0.6 else rng.randint(1, 100))
    if kind > 0.92:
        a = f"{rng.randint(1, 30)}.{rng.choice((5, 5, 25, 75))}"
    b = draw.positive()
    if wording.is_story and a.isdecimal() and _HEADS.search(wording.line):
        step = 100 // gcd(int(a), 100)
        b = step * rng.randint(1, max(1, draw.limit // step))  # of people, none is cut in two
        return {"a": a, "b": str(b)}
    if b > 9 and rng.random() < 0.4:
        b -= b % 10
    return {"a": a, **draw.with_point(wording, {"b": str(b)})}


def _one(draw: Draw, wording: Wording) -> Values:
    """Of ``square`` and ``cube`` mostly small numbers; of ``half`` in a story an even one. Sizes are positive."""
    rng = draw.rng
    sized = wording.is_story or _SIZES.search(wording.line) is not None
    n = draw.positive() if sized else draw.number()
    if draw.program in ("square", "cube") and draw.digits[0] < 3 and rng.random() < 0.8:
        least = 10 ** (draw.digits[0] - 1) if draw.digits[0] > 1 else int(sized)
        n = rng.randint(least, 30) if draw.program == "square" or rng.random() < 0.4 else rng.randint(least, 12)
    elif draw.program == "half" and n % 2 and (wording.is_story or rng.random() < 0.4):
        n += 1 if n < draw.limit else -1
    values = {"n": str(n)} if sized else draw.signed(wording, {"n": n})
    return draw.with_point(wording, values)


def _compare(draw: Draw, wording: Wording) -> Values:
    a, b = draw.pair()
    draw_kind = draw.rng.random()
    if draw_kind < 0.2:
        b = a
    elif draw_kind < 0.4:
        b = abs(a + draw.rng.choice((-10, -2, -1, 1, 2, 10)))
    elif draw_kind < 0.5:
        b = int(str(a)[::-1])
    values = draw.signed(wording, {"a": a, "b": b})
    if a == b and draw.rng.random() < 0.8:
        values["b"] = values["a"] = str(a)
    if (
        not wording.is_story
        and not re.search(r"\b(whole|int|integers?)\b", wording.line, re.I)
        and draw.rng.random() < 0.15
    ):
        same = draw.rng.random() < 0.6  # the same number before the point, as in 9.9 and 9.11
        decimals = [str(draw.rng.randint(0, 999)).zfill(draw.rng.randint(1, 2)) for _ in values]
        values = {
            name: f"{a if same else value}.{decimal}"
            for (name, value), decimal in zip(values.items(), decimals, strict=True)
        }
    return values


def _division(draw: Draw, wording: Wording) -> Values:
    rng = draw.rng
    b = draw.positive()
    # A price or a speed is not rounded down where nobody says so.
    even = draw.program == "divide" and wording.is_story and not ROUNDED.search(wording.line)
    if even:
        a = b * draw.up_to(max(1, draw.limit // b))
    elif rng.random() < 0.5:
        a = b * draw.up_to(max(1, draw.limit // b))
        a += rng.choice((0, 0, 0, 1, 2)) if a < draw.limit - 2 else 0
    else:
        a = draw.number()
        if a < b and rng.random() < 0.85:
            a, b = b, a or 1
    if not wording.is_story and rng.random() < 0.012:
        b = 0
    return {"a": str(a), "b": str(b)}


def _divisors(draw: Draw, wording: Wording) -> Values:
    rng = draw.rng
    a, b = draw.positive(), draw.positive()
    kind = rng.random()
    if kind < 0.4:
        common = max(1, min(draw.up_to(99), draw.limit // 2))
        low = 10 ** (draw.digits[0] - 1) // common + 1 if draw.digits[0] > 1 else 1
        a, b = (common * max(low, draw.up_to(max(1, draw.limit // common))) for _ in range(2))
    elif kind < 0.5:
        b = a * draw.up_to(max(1, min(99, draw.limit // a)))
    if rng.random() < 0.5:
        a, b = b, a
    if not wording.is_story and rng.random() < 0.01:
        a = 0
    return {"a": str(a), "b": str(b)}


def _power(draw: Draw, wording: Wording) -> Values:
    rng = draw.rng
    kind = rng.random()
    if draw.digits[0] > 2:
        a, b = draw.number(), rng.randint(0, 4)
    elif kind < 0.75:
        a, b = rng.randint(2, 50 if rng.random() < 0.5 else 12), rng.randint(2, 12 if rng.random() < 0.5 else 5)
    elif kind < 0.85:
        a, b = rng.choice((2, 2, 3, 5, 10)), rng.randint(2, 64)
    elif kind < 0.96:
        a, b = draw.number(), rng.randint(2, 4)
    else:
        a, b = rng.randint(0, 20), rng.choice((0, 1))
    base = {"a": str(a)}
    return {**(draw.with_point(wording, base) if b < 7 else base), "b": str(b)}


def _factorial(draw: Draw, wording: Wording) -> Values:
    rng = draw.rng
    return {"n": str(rng.randint(0, 60) if rng.random() < 0.1 else rng.randint(0, rng.choice((12, 20, 30))))}


def _fibonacci(draw: Draw, wording: Wording) -> Values:
    rng = draw.rng
    return {
        "n": str(
            rng.randint(90, 200) if rng.random() < 0.06 else rng.randint(rng.random() < 0.9, rng.choice((20, 40, 90)))
        )
    }


def _prime(draw: Draw, wording: Wording) -> Values:
    # Trial division decides primality in the program, so that more than five digits would cost millions of steps.
    n = Draw(draw.rng, (min(draw.digits[0], 5), min(draw.digits[1], 5)), draw.list_length).number()
    if draw.rng.random() < 0.5:
        while not _is_prime(n):
            n += 1
    elif n % 2 == 0 and draw.rng.random() < 0.6:
        n += 1  # even numbers are easy
    return {"n": str(n)}


def _list(draw: Draw, wording: Wording) -> Values:
    return {"numbers": draw.list_with_point(wording, draw.numbers(wording))}


def _mean(draw: Draw, wording: Wording) -> Values:
    values = draw.numbers(wording)
    if draw.rng.random() < 0.6:  # a whole mean, or one with a half
        rest = sum(values) % len(values)
        low = 10 ** (draw.digits[0] - 1) if draw.digits[0] > 1 else 0
        at = next((i for i, value in enumerate(values) if value - rest >= low), None)
        if at is not None:
            values[at] -= rest
    return {"numbers": draw.list_with_point(wording, values, alike=True)}


def _text(draw: Draw, wording: Wording) -> Values:
    return {"text": draw.text(wording)}


def _letter(draw: Draw, wording: Wording) -> Values:
    text = draw.text(wording)
    letter = draw.letter(text)
    plural = any(after.startswith("s") for _, after in wording.places("letter"))
    if plural and draw.rng.random() < 0.4 and len(letter.upper()) == 1:  # "how many Ls"
        letter = letter.upper()
    return {"text": text, "letter": letter}


def _expression(draw: Draw, wording: Wording) -> Values:
    return {"expression": draw.expression()}


def _anything(draw: Draw, wording: Wording) -> Values:
    """Every kind of value, for general conversation."""
    values: dict[str, str | list[str]] = {name: str(draw.number()) for name in ("a", "b", "n")}
    values["numbers"] = draw.list_with_point(wording, draw.numbers(wording)) if "numbers" in wording.slots else []
    values["expression"] = draw.expression()
    values["text"] = draw.text(wording) if "text" in wording.slots else ""
    values["letter"] = draw.letter("etaoin")
    return values


DRAWERS: dict[str, Callable[[Draw, Wording], Values]] = {
    **{program: _list for program, names in PARAMETERS.items() if names == ("numbers",)},
    "add": _add,
    "subtract": _subtract,
    "multiply": _signed_pair,
    "divide": _division,
    "remainder": _division,
    "power": _power,
    "compare": _compare,
    "greatest_common_divisor": _divisors,
    "least_common_multiple": _divisors,
    "factorial": _factorial,
    "fibonacci": _fibonacci,
    "is_prime": _prime,
    "difference": _difference,
    "percentage": _percentage,
    **dict.fromkeys(("square", "cube", "double", "half"), _one),
    "mean": _mean,
    "reverse_text": _text,
    "count_letter": _letter,
    "text_length": _text,
    "evaluate": _expression,
    GENERAL: _anything,
}
"""Program, or general conversation → what draws its arguments."""
