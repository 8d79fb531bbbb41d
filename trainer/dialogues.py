"""Training conversations: later turns, turns that use an earlier result, several requests in one message.

A conversation is put together from requests (``tasks.py``), from follow-ups (``phrasings/follow_ups.txt``: messages in
which one argument is the result of the turn before; ``phrasings/again.txt``: messages that ask the same again, or another thing
of the same arguments), from patterns that join requests (``phrasings/several.txt``) and from small talk
(``phrasings/small_talk.txt``).

The two promises of ``tasks.py`` hold here too. **Conversation i is a function of (seed, split, i)** and of the shares.
Plain requests and general conversation go through all wordings in rounds, so that none is left out by chance.
**The split is by wording**: every wording, pattern and turn of small talk that a conversation uses lies on its side.
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import cache
from random import Random
from typing import Any

from . import wording as wording_files
from .drawing import ATTEMPTS, ROUNDED, WITH_DECIMALS, Draw
from .material import NAMES, PLACES
from .tasks import BLOCK, Example, RequestGenerator, random_of
from .wording import GENERAL, PARAMETERS, Split, TaskError
from .worked_examples import BARE, patterns, task_line

#: Characters of a message: (number of the message, start, end), the end excluded.
Piece = tuple[int, int, int]


@dataclass(frozen=True)
class Step:
    """One call that the reply must make.

    Attributes:
        program: the program called.
        arguments: its arguments in calling order; a list's numbers are joined by ", ".
        answer: the result.
        spans: for each argument its pieces (message, start, end): characters of ``messages[message]``. One piece for each
            number of a list, else one.
    """

    program: str
    arguments: tuple[str, ...]
    answer: str
    spans: tuple[tuple[Piece, ...], ...]

    @classmethod
    def from_example(cls, example: Example, answer: str, message: int) -> Step:
        """The call of a request that is the message of this number."""
        assert example.program is not None
        spans = tuple(tuple((message, start, end) for start, end in pieces) for pieces in example.spans)
        return cls(example.program, example.arguments, answer, spans)


@dataclass(frozen=True)
class Dialogue:
    """A conversation up to the user's last message, and the truth about the reply to it.

    Attributes:
        messages: user, assistant, user, … ending with the user's.
        steps: calls of the reply in order, () where nothing must be called.
        wording: identifiers of all that it is made of, parted by spaces; "follow_ups:3" is the fourth line of its file.
        reply: the reply's text with "{}" for each step's answer; None for the bare answer.
    """

    messages: tuple[str, ...]
    steps: tuple[Step, ...]
    wording: str
    reply: str | None = None

    @classmethod
    def from_example(cls, example: Example) -> Dialogue:
        """A request as a conversation of one message."""
        if example.program is None or example.answer is None:
            return cls((example.prompt,), (), example.wording)
        step = Step.from_example(example, example.answer, 0)
        reply = None if example.reply is None else example.reply.replace(example.answer, "{}", 1)
        return cls((example.prompt,), (step,), example.wording, reply)

    @property
    def around(self) -> tuple[str, ...]:
        """The texts of the reply before, between and after the answers: one more than there are steps."""
        if self.reply is None:
            return ("",) * (len(self.steps) + 1)
        return tuple(self.reply.split("{}"))


@dataclass(frozen=True)
class DialogueShares:
    """Which part of the conversations is of which kind; the rest are plain requests. Each ≥ 0, their sum ≤ 1.

    Attributes:
        general: one message in which nothing must be called.
        later: one or two earlier turns, then a fresh request, or a message after a result in which nothing must be called.
        follow_up: a message of which one argument is the result of the turn before.
        several: one message with two or three requests.
        examples: one message with solved examples before the request, or with an instruction alone (:mod:`.worked_examples`).
        again: after a result the same is asked of other arguments, or another thing of the same arguments.

    Raises:
        TaskError: a share is negative, or their sum exceeds 1.
    """

    general: float = 0.2
    later: float = 0.2
    follow_up: float = 0.2
    several: float = 0.12
    examples: float = 0.0
    again: float = 0.0

    def __post_init__(self) -> None:
        values = [getattr(self, field.name) for field in fields(self)]
        if not all(value >= 0 for value in values) or sum(values) > 1 + 1e-9:
            raise TaskError(f"{self}: expected shares from 0 that sum to at most 1")

    def kind(self, index: int) -> tuple[str | None, int]:
        """The kind of conversation ``index``, None for a plain request, and how many before it are of that kind."""
        rank, rest = index, 1.0
        for field in fields(self):
            value = getattr(self, field.name)
            share = value / rest if rest > 0 else 0.0
            before = int(rank * share + 1e-9)
            if int((rank + 1) * share + 1e-9) > before:
                return field.name, before
            rank, rest = rank - before, rest - value
        return None, rank


# ---------------------------------------------------------------------------------------------------------- wordings

_RESULT_KINDS = {
    **dict.fromkeys(PARAMETERS, "number"),
    **dict.fromkeys(("sort_ascending", "sort_descending", "reverse_list"), "list"),
    **dict.fromkeys(("compare", "is_prime"), "verdict"),
    "reverse_text": "text",
}
_SORTS = ("sort_ascending", "sort_descending")
_ARGUMENTS_SHARED = {
    program: tuple(other for other, own in PARAMETERS.items() if own == names and other != program)
    for program, names in PARAMETERS.items()
    if names in (("a", "b"), ("numbers",), ("text",)) and program not in ("power", "percentage")
}
"""Program that can be asked of the arguments of another → those others."""
_SAYS_LITTLE = ("not ", "division by zero", "too large")
"""How results begin of programs that are not for such arguments."""
_LINE = re.compile(r"(?P<programs>[a-z_]+(?: [a-z_]+)*?)(?: after (?P<after>[a-z_]+))?: (?P<line>.+)")
_PLACES = re.compile(r"{(first|second|third)}")


@dataclass(frozen=True)
class _FollowUp:
    """``slot`` is the parameter that the earlier result fills; ``producers`` the programs whose result can."""

    identifier: str
    line: str
    program: str
    slot: str
    producers: tuple[str, ...]


@dataclass(frozen=True)
class _Joined:
    """Several requests in one message: a pattern of ``places`` if there are no programs, else their one wording."""

    identifier: str
    line: str
    programs: tuple[str, ...]

    @property
    def places(self) -> int:
        return len(_PLACES.findall(self.line))


def _rows(name: str) -> list[tuple[int, str]]:
    """Numbers and texts of the lines of a phrasing file.

    Raises:
        TaskError: it cannot be read, or holds no line.
    """
    path = wording_files.PHRASINGS / f"{name}.txt"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise TaskError(f"cannot read {path.name}: {error.strerror}") from error
    rows = [(row, line.strip()) for row, line in enumerate(lines, 1) if line.strip() and not line.startswith("# ")]
    if not rows:
        raise TaskError(f"{path.name} holds no wording")
    return rows


def _on(split: Split, line: str) -> bool:
    return split == "all" or wording_files.is_validation(line) == (split == "validation")


def _parsed(name: str, row: int, text: str) -> tuple[tuple[str, ...], str | None, str]:
    """Programs, what they come after, and the wording of a line ``program program after KIND: wording``."""
    match = _LINE.fullmatch(text)
    programs = tuple(match["programs"].split()) if match else ()
    if match is None or not set(programs) <= set(PARAMETERS):
        raise TaskError(f"{name}.txt, line {row}: expected a program with phrasings, a colon, a wording: {text!r}")
    return programs, match["after"], match["line"]


@cache
def _follow_ups(split: Split) -> tuple[_FollowUp, ...]:
    """Raises TaskError: a line that has not exactly one parameter without a placeholder, or an unknown context."""
    result = []
    for position, (row, text) in enumerate(_rows("follow_ups")):
        (program, *more), after, line = _parsed("follow_ups", row, text)
        missing = [name for name in PARAMETERS[program] if line.count(f"{{{name}}}") == 0]
        slots = len(PARAMETERS[program]) - 1
        if more or len(missing) != 1 or line.count("{") != slots:
            raise TaskError(f"follow_ups.txt, line {row}: expected {slots} placeholders for {program}: {text!r}")
        kind = after or {"numbers": "list", "text": "text"}.get(missing[0], "number")
        producers = tuple(
            other
            for other, made in _RESULT_KINDS.items()
            if kind in (made, other) and not (other == program and program in _SORTS)
        )
        if not producers:
            raise TaskError(f"follow_ups.txt, line {row}: no program's result is {kind!r}: {text!r}")
        if _on(split, line):
            result.append(_FollowUp(f"follow_ups:{position}", line, program, missing[0], producers))
    return tuple(result)


@cache
def _several(split: Split) -> tuple[_Joined, ...]:
    """Raises TaskError: a pattern with other places than first, second, perhaps third, or programs that do not share."""
    result = []
    for position, (row, text) in enumerate(_rows("several")):
        found = _PLACES.findall(text)
        programs: tuple[str, ...] = ()
        line = text
        if found:
            fits = found in (["first", "second"], ["first", "second", "third"])
        else:
            programs, _, line = _parsed("several", row, text)
            fits = len(programs) > 1 and len({PARAMETERS[program] for program in programs}) == 1
        if not fits:
            raise TaskError(f"several.txt, line {row}: expected {{first}} {{second}}, or programs that share: {text!r}")
        if _on(split, line):
            result.append(_Joined(f"several:{position}", line, programs))
    return tuple(result)


@cache
def _again(split: Split) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str, str], ...]]:
    """Identifiers and lines that ask the same of other ``{arguments}``; identifiers, programs and lines that ask another thing.

    Raises:
        TaskError: a line without a program, or with other placeholders.
    """
    same: list[tuple[str, str]] = []
    other: list[tuple[str, str, str]] = []
    for position, (row, text) in enumerate(_rows("again")):
        if text.count("{arguments}") == 1 and text.count("{") == 1:
            if _on(split, text):
                same.append((f"again:{position}", text))
            continue
        programs, after, line = _parsed("again", row, text)
        if len(programs) != 1 or after is not None or "{" in line or programs[0] not in _ARGUMENTS_SHARED:
            raise TaskError(
                f"again.txt, line {row}: expected {{arguments}}, or a program that shares its arguments with others: {text!r}"
            )
        if _on(split, line):
            other.append((f"again:{position}", programs[0], line.replace("\\n", "\n")))
    return tuple(same), tuple(other)


@cache
def _small_talk(split: Split, opening: bool) -> tuple[tuple[str, str, str], ...]:
    """Identifier, message and reply ("" where none) of exchanges that open a conversation, or of what follows a result."""
    result = []
    for position, (_, text) in enumerate(_rows("small_talk")):
        message, _, reply = (part.strip() for part in text.partition("|"))
        if bool(reply) == opening and _on(split, text):
            result.append((f"small_talk:{position}", message, reply))
    return tuple(result)


@cache
def _short(program: str, split: Split) -> tuple[tuple[str, str], ...]:
    """Identifiers and lines of wordings that can stand beside another request in one message."""
    lines = ((f"{program}:{position}", line) for position, line in enumerate(wording_files.wordings(program)))
    return tuple((name, line) for name, line in lines if _on(split, line) and "\\n" not in line and len(line) <= 75)


_TERSE = 32
"""Characters of a wording, placeholders counted, that is as short as requests in a list of them often are."""


# ---------------------------------------------------------------------------------------------- arguments of follow-ups

#: Least and most of an earlier number that an argument can take: larger ones would explode, or have no meaning.
_RANGES: dict[tuple[str, str], tuple[int, float]] = {
    ("factorial", "n"): (0, 30),
    ("is_prime", "n"): (0, 99_999),
    ("power", "a"): (0, 9_999),
    ("power", "b"): (0, 12),
    ("square", "n"): (0, 99_999),
    ("cube", "n"): (0, 9_999),
    ("text_length", "text"): (0, math.inf),
    ("divide", "a"): (0, math.inf),
    ("divide", "b"): (1, math.inf),
    ("remainder", "a"): (0, math.inf),
    ("remainder", "b"): (1, math.inf),
    **{(p, n): (1, math.inf) for p in ("greatest_common_divisor", "least_common_multiple") for n in "ab"},
}
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class _Unfit(Exception):
    """A draw that makes no sense, or faults: it is drawn again."""


def _taken(wording: _FollowUp, program: str, result: str) -> list[tuple[int, int]]:
    """The pieces of an earlier result that are the argument.

    Raises:
        _Unfit: the result is of another kind, or out of the argument's range.
    """
    kind = _RESULT_KINDS[program]
    if kind == "list":
        pieces = [match.span() for match in _NUMBER.finditer(result)]
        if len(pieces) < 2:
            raise _Unfit(f"{result!r} is no list")
        return pieces
    if kind == "number":
        least, most = _RANGES.get((wording.program, wording.slot), (-math.inf, math.inf))
        exponent = (wording.program, wording.slot) == ("power", "b")
        fits = "." not in result or (wording.program in WITH_DECIMALS and not exponent)
        if not (fits and _NUMBER.fullmatch(result) and least <= float(result) <= most):
            raise _Unfit(f"{wording.program} does not take {result!r}")
    return [(0, len(result))]


def _other_number(draw: Draw, program: str, slot: str, earlier: int) -> int:
    """The argument that stands in the follow-up, beside the earlier result that fills ``slot``."""
    rng = draw.rng
    if program in ("divide", "remainder"):
        if slot == "a":
            return draw.up_to(max(2, min(draw.limit, earlier)))
        return earlier * draw.up_to(99) + rng.choice((0, 0, 1, 2)) if rng.random() < 0.5 else draw.number()
    if program == "power":
        return rng.randint(2, 6 if earlier < 100 else 4) if slot == "a" else rng.randint(2, 12)
    if program == "percentage":
        return rng.choice((5, 10, 20, 25, 50, 75, rng.randint(1, 100)))
    if program == "compare" and rng.random() < 0.5:
        return abs(earlier + rng.choice((-10, -1, 0, 0, 1, 10)))
    if program in ("greatest_common_divisor", "least_common_multiple"):
        divisor = rng.choice([d for d in range(1, 100) if earlier % d == 0])
        return divisor * draw.up_to(99) if rng.random() < 0.6 else draw.positive()
    if program == "subtract" and earlier > 0 and rng.random() < 0.8:  # mostly something is left
        return draw.up_to(min(draw.limit, earlier)) if slot == "a" else earlier + draw.positive()
    return draw.positive()


def _in_order(step: Step) -> Step:
    """The step itself; raises _Unfit where of two numbers the first that is said is not the first argument."""
    first = [pieces[0] for pieces in step.spans]
    if first != sorted(first) and PARAMETERS[step.program] == ("a", "b"):
        raise _Unfit("the first number is not the first argument")
    return step


def _beside_the_point(program: str, line: str, arguments: Sequence[str], answer: str) -> bool:
    """Whether a result is not what a person would expect who asks so of these arguments."""
    if answer.startswith(_SAYS_LITTLE):
        return True
    if program != "divide" or ROUNDED.search(line):
        return False
    a, b = (Fraction(argument.replace(",", "")) for argument in arguments)
    return (a / b).denominator > 1


# ------------------------------------------------------------------------------------------------- joining of requests


def _joined(rng: Random, before: str, request: Example, after: str) -> str:
    """A request as it reads between two stretches of a pattern: first letter and last mark. Its spans stay right.

    Args:
        after: the pattern's text up to the next request, and that one's first character.
    """
    text = request.prompt
    owned = [edge for pieces in request.spans for piece in pieces for edge in piece]
    continued = re.search(r"[\w,&] $", before) is not None or (before.endswith(("\n", " ")) and rng.random() < 0.25)
    first = text.split()[0].strip(",.'’s")
    if continued and 0 not in owned and text[:1].isupper() and text[1:2].islower() and first not in (*NAMES, *PLACES):
        text = text[0].lower() + text[1:]
    bare = text.rstrip(".?!")
    goes_on = re.match(r"[,;]| [a-z&|-]", after) is not None
    if goes_on and bare and len(bare) >= max(owned) and (after[0] in ",;" or rng.random() < 0.8):
        return bare
    if re.match(r" +[\w(]", after) and not goes_on and text[-1] not in ".?!:;,=" and rng.random() < 0.85:
        return text + rng.choice(".?.")
    return text


def _lowered(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text in lower case, but for the spans."""
    kept = {at for start, end in spans for at in range(start, end)}
    lowered = ((c if at in kept or len(c.lower()) != 1 else c.lower()) for at, c in enumerate(text))
    return "".join(lowered)


# ------------------------------------------------------------------------------------------------------------ generator

_Call = tuple[str, tuple[str, ...]]
#: A conversation in the making: hands out calls, is sent their results, returns what it was made for.
_Making = Generator[list[_Call], list[str | None], Any]


@dataclass
class _Turns:
    """The conversation so far."""

    messages: list[str]
    wordings: list[str]

    def take(self, message: str, wording: str, reply: str | None = None) -> int:
        """Append a user's message, and the reply if it has one by now; the message's number."""
        number = len(self.messages)
        self.messages += [message] if reply is None else [message, reply]
        self.wordings.append(wording)
        return number

    def dialogue(self, steps: Sequence[Step] = (), reply: str | None = None) -> Dialogue:
        return Dialogue(tuple(self.messages), tuple(steps), " ".join(self.wordings), reply)


@dataclass
class _Open:
    """A conversation in the making, its attempt, and the calls that it waits for."""

    index: int
    attempt: int
    making: _Making
    calls: list[_Call]


def _results(calls: list[_Call]) -> Generator[list[_Call], list[str | None], list[str]]:
    """The results of calls; raises _Unfit if one faults."""
    texts = yield calls
    found = [text for text in texts if text is not None]
    if len(found) < len(calls):
        raise _Unfit(f"a run faults: {calls}")
    return found


class DialogueGenerator:
    """A deterministic, endless stream of conversations.

    Args:
        seed, split, digits, list_length, programs, library, mistyped: as for :class:`~neurallib.trainer.tasks.RequestGenerator`.
        emphasis: program → how many times each of its wordings is in a round of all, where a message is one request alone; 1 by
            default.

    Raises:
        TaskError: a program without phrasings, an unknown split, or a range that is none.
    """

    def __init__(
        self,
        seed: int,
        split: Split = "train",
        digits: tuple[int, int] = (1, 4),
        list_length: tuple[int, int] = (2, 8),
        programs: Sequence[str] | None = None,
        library: Any | None = None,
        emphasis: Mapping[str, int] | None = None,
        mistyped: float = 0.0,
    ):
        self._requests = RequestGenerator(seed, split, digits, list_length, programs, library, mistyped)
        self.emphasis = dict(emphasis or {})
        for program, times in self.emphasis.items():
            if program not in self._requests.programs or type(times) is not int or times < 1:
                raise TaskError(
                    f"emphasis has {program!r}: {times!r}; expected a program that is asked for, and a whole number from 1 on"
                )
        self.seed = seed
        self.split = split
        self.programs = self._requests.programs
        self._orders: dict[tuple[tuple[str, ...], int], list[tuple[str, int]]] = {}
        follow_ups = [wording for wording in _follow_ups(split) if wording.program in self.programs]
        self._follow_ups = [wording for wording in follow_ups if self._producers(wording)]
        self._several = [wording for wording in _several(split) if set(wording.programs) <= set(self.programs)]

    def dialogues(
        self,
        count: int,
        shares: DialogueShares = DialogueShares(),
        start: int = 0,
    ) -> Iterator[Dialogue]:
        """Conversations ``start`` … ``start + count − 1`` of the stream, their kinds evenly spread.

        Raises:
            TaskError: follow-ups are asked for and no program can use another's result, or every draw of a conversation
                faults.
        """
        if shares.follow_up and not self._follow_ups:
            raise TaskError(f"no follow-up in the split {self.split!r} fits the programs {', '.join(self.programs)}")
        for first in range(start, start + count, BLOCK):
            yield from self._made(range(first, min(first + BLOCK, start + count)), shares)

    def _made(self, indices: Sequence[int], shares: DialogueShares) -> list[Dialogue]:
        """Make many conversations at once: the calls that they wait for run together."""
        finished: dict[int, Dialogue] = {}
        waiting = [_Open(index, 0, self._making(index, shares, 0), []) for index in indices]
        results: list[str | None] = []
        while waiting:
            still = []
            for one in waiting:
                own, results = results[: len(one.calls)], results[len(one.calls) :]
                dialogue = self._advanced(one, own, shares)
                if dialogue is None:
                    still.append(one)
                else:
                    finished[one.index] = dialogue
            waiting = still
            results = self._requests.run([call for one in waiting for call in one.calls])
        return [finished[index] for index in indices]

    def _advanced(self, one: _Open, results: list[str | None], shares: DialogueShares) -> Dialogue | None:
        """Go on with a conversation until it waits for calls, or is finished and returned."""
        sent = results if one.calls else None
        while True:
            try:
                one.calls = one.making.send(sent)  # type: ignore[arg-type]  # a generator starts with None
                return None
            except StopIteration as finished:
                dialogue: Dialogue = finished.value
                return dialogue
            except _Unfit as reason:
                one.attempt += 1
                if one.attempt == ATTEMPTS:
                    raise TaskError(f"no conversation {one.index} in {ATTEMPTS} draws; the last: {reason}") from None
                one.making, sent = self._making(one.index, shares, one.attempt), None

    def _making(self, index: int, shares: DialogueShares, attempt: int) -> _Making:
        kind, rank = shares.kind(index)
        rng = random_of(self.seed, self.split, "dialogue", index, kind, attempt)
        turns = _Turns([], [])
        if kind == "general":
            turns.take(*self._general(rng, self._in_rounds((GENERAL,), rank)[1]))
            return turns.dialogue()
        if kind is None and attempt < ATTEMPTS // 2:
            program, wording_number = self._in_rounds(self.programs, rank)
            step = yield from self._asked(rng, turns, (program,), wording_number)
            return turns.dialogue([step])
        if kind == "several":
            return (yield from self._of_several(rng, turns))
        if kind == "examples":
            return (yield from self._after_examples(rng, turns))
        if kind == "again":
            return (yield from self._asked_again(rng, turns))
        if kind == "follow_up":
            if rng.random() < 0.25:
                yield from self._earlier_turn(rng, turns, talk=0.3)
            # The first draws keep to one program, so that those which take few results do not become rare.
            chosen = random_of(self.seed, self.split, "follow-up", index, attempt // (ATTEMPTS // 2))
            program = chosen.choice(sorted({wording.program for wording in self._follow_ups}))
            wording = rng.choice([wording for wording in self._follow_ups if wording.program == program])
            step = yield from self._following(rng, turns, wording, 2 if rng.random() < 0.25 else 1)
            return turns.dialogue([step])
        if kind == "later":
            earlier = rng.choice((1, 1, 2))
            ends_general = rng.random() < 0.35
            if earlier == 2:
                yield from self._earlier_turn(rng, turns, talk=0.4)
            yield from self._earlier_turn(rng, turns, talk=0.0 if ends_general or earlier == 2 else 0.3)
            if ends_general:
                closing = rng.choice(_small_talk(self.split, False))
                turns.take(*(closing[1::-1] if rng.random() < 0.5 else self._general(rng)))
                return turns.dialogue()
        step = yield from self._asked(rng, turns)
        return turns.dialogue([step])

    def _in_rounds(self, programs: tuple[str, ...], rank: int) -> tuple[str, int]:
        """Program and wording of the request of a rank: rounds of all of them, each in an order of its own."""
        times = [self.emphasis.get(program, 1) for program in programs]
        counts = [self._requests.wordings(program) for program in programs]
        turn, place = divmod(rank, sum(a * b for a, b in zip(times, counts, strict=True)))
        if (programs, turn) not in self._orders:
            every = [
                (program, number)
                for program, count, again in zip(programs, counts, times, strict=True)
                for number in range(count)
                for _ in range(again)
            ]
            random_of(self.seed, self.split, "wordings", turn).shuffle(every)
            self._orders[programs, turn] = every
        return self._orders[programs, turn][place]

    # -- parts: each draws from ``rng`` and appends to ``turns``

    def _general(self, rng: Random, wording: int | None = None) -> tuple[str, str]:
        """Message and wording of general conversation."""
        example = self._requests.request(GENERAL, f"dialogue {rng.getrandbits(64)}", wording)
        return example.prompt, example.wording

    def _asked(
        self, rng: Random, turns: _Turns, programs: Sequence[str] | None = None, wording: int | None = None
    ) -> _Making:
        """A request, yet without its reply; returns its step."""
        program = rng.choice(programs or self.programs)
        example = self._requests.request(program, f"dialogue {rng.getrandbits(64)}", wording)
        assert example.program is not None
        (answer,) = yield from _results([(example.program, example.arguments)])
        return Step.from_example(example, answer, turns.take(example.prompt, example.wording))

    def _earlier_turn(self, rng: Random, turns: _Turns, talk: float) -> _Making:
        """A request with its result, or, with the probability ``talk``, an exchange of small talk."""
        if rng.random() < talk:
            wording, message, reply = rng.choice(_small_talk(self.split, True))
            turns.take(message, wording, reply)
            return
        step = yield from self._asked(rng, turns)
        turns.messages.append(step.answer)

    def _producers(self, wording: _FollowUp) -> list[str]:
        return [program for program in wording.producers if program in self.programs]

    def _following(self, rng: Random, turns: _Turns, wording: _FollowUp, depth: int) -> _Making:
        """A request with its result, perhaps a follow-up itself, then a message of this wording; returns its step."""
        producers = self._producers(wording)
        links = [other for other in self._follow_ups if other.program in producers] if depth > 1 else []
        if links:
            earlier = yield from self._following(rng, turns, rng.choice(links), depth - 1)
        else:
            earlier = yield from self._asked(rng, turns, producers)
        taken = _taken(wording, earlier.program, earlier.answer)
        turns.messages.append(earlier.answer)
        message = len(turns.messages)
        values = {}
        for name in PARAMETERS[wording.program]:
            draw = Draw(rng, self._requests.digits, self._requests.list_length)
            if name == "letter":
                values[name] = draw.letter(earlier.answer)
            elif name != wording.slot:
                values[name] = str(_other_number(draw, wording.program, wording.slot, int(earlier.answer.partition(".")[0])))
        example = self._requests.filled(rng, wording.program, wording.line, values, 0.15)
        at = PARAMETERS[wording.program].index(wording.slot)
        arguments, spans = list(example.arguments), [[(message, s, e) for s, e in p] for p in example.spans]
        arguments[at] = ", ".join(earlier.answer[start:end] for start, end in taken)
        spans[at] = [(message - 1, start, end) for start, end in taken]
        (answer,) = yield from _results([(wording.program, tuple(arguments))])
        turns.take(example.prompt, wording.identifier)
        return Step(wording.program, tuple(arguments), answer, tuple(map(tuple, spans)))

    def _asked_again(self, rng: Random, turns: _Turns) -> _Making:
        """A request with its result, then, once or twice, a message that leaves out what is asked, or of what; the conversation."""
        same, other = _again(self.split)
        other = tuple(one for one in other if one[1] in self.programs)
        if rng.random() < 0.2:
            yield from self._earlier_turn(rng, turns, talk=0.4)
        times = 2 if rng.random() < 0.3 else 1
        if rng.random() < 0.5 or not other:
            step = _in_order((yield from self._asked(rng, turns)))
            for _ in range(times):
                turns.messages.append(step.answer)
                identifier, line = rng.choice(same)
                bare = BARE[PARAMETERS[step.program]]
                if re.search(r"{arguments}\W*\w", line):  # a text would run into what follows it
                    bare = tuple(one for one in bare if "{text}" not in one or '"' in one)
                line = line.replace("{arguments}", rng.choice(bare))
                step = yield from self._answered(rng, turns, step.program, line, identifier)
            return turns.dialogue([step])
        chosen = [rng.choice(other)]
        if times == 2:
            fitting = [one for one in other if one[1] in _ARGUMENTS_SHARED[chosen[0][1]]]
            chosen += [rng.choice(fitting)] if fitting else []
        asked = [one for one in _ARGUMENTS_SHARED[chosen[0][1]] if one in self.programs]
        if not asked:
            raise _Unfit(f"no program shares its arguments with {chosen[0][1]}")
        step = _in_order((yield from self._asked(rng, turns, asked)))
        for identifier, program, line in chosen:
            (answer,) = yield from _results([(program, step.arguments)])
            if answer == step.answer or _beside_the_point(program, line, step.arguments, answer):
                raise _Unfit(f"{program} of {step.arguments} says little")
            turns.messages.append(step.answer)
            turns.take(line, identifier)
            step = Step(program, step.arguments, answer, step.spans)
        return turns.dialogue([step])

    def _answered(self, rng: Random, turns: _Turns, program: str, line: str, identifier: str) -> _Making:
        """A message by a wording from elsewhere, yet without its reply; returns its step."""
        example = self._requests.filled(rng, program, line, surrounded=0.1)
        (answer,) = yield from _results([(program, example.arguments)])
        return Step.from_example(example, answer, turns.take(example.prompt, identifier))

    def _after_examples(self, rng: Random, turns: _Turns) -> _Making:
        """One message with up to four solved examples before its request; returns the conversation."""
        found = patterns(self.split)
        if not found:
            raise _Unfit(f"no pattern of examples in the split {self.split!r}")
        pattern, program = rng.choice(found), rng.choice(self.programs)
        wordings = _short(program, self.split)
        if not wordings and not pattern.bare:
            raise _Unfit(f"no short wording of {program} in the split {self.split!r}")
        identifier, line = pattern.line(rng, program, wordings)
        # An instruction, or a request, says what to do once; examples alone say it two times or more.
        task = task_line(rng, program) if pattern.bare and rng.random() < 0.6 else ""
        counts = (1, 1, 2, 2, 3) if not pattern.bare else (0, 1, 1, 2, 2, 3) if task else (2, 2, 3, 3, 4)
        count = rng.choice(counts)
        asked = [self._requests.filled(rng, program, line, surrounded=0) for _ in range(count + 1)]
        if len({example.arguments for example in asked}) <= count:
            raise _Unfit(f"{line!r}: an example is the request")
        answers = yield from _results([(program, example.arguments) for example in asked])
        *examples, request = asked
        message, spans = pattern.message(task, list(zip(examples, answers[:-1], strict=True)), request)
        turns.messages.append(message)
        turns.wordings += [pattern.identifier, identifier]
        pieces = tuple(tuple((0, start, end) for start, end in own) for own in spans)
        return turns.dialogue([Step(program, request.arguments, answers[-1], pieces)])

    def _of_several(self, rng: Random, turns: _Turns) -> _Making:
        """One message with several requests; returns the conversation."""
        shared = [wording for wording in self._several if wording.programs]
        if shared and rng.random() < 0.3:
            wording = rng.choice(shared)
            example = self._requests.filled(rng, wording.programs[0], wording.line)
            answers = yield from _results([(program, example.arguments) for program in wording.programs])
            if any(answer.startswith(_SAYS_LITTLE) for answer in answers):
                raise _Unfit(f"{wording.line!r} says little of {example.arguments}")
            turns.take(example.prompt, wording.identifier)
            first = Step.from_example(example, "", 0)
            steps = [
                Step(program, first.arguments, answer, first.spans)
                for program, answer in zip(wording.programs, answers, strict=True)
            ]
            return turns.dialogue(steps, "\n".join("{}" for _ in steps))
        patterns = [wording for wording in self._several if wording.places == (3 if rng.random() < 0.3 else 2)]
        if not patterns:
            raise _Unfit(f"no pattern of several requests in the split {self.split!r}")
        pattern = rng.choice(patterns)
        turns.wordings.append(pattern.identifier)
        # People often ask the same several times, of other arguments; half of the time in the same words.
        program = rng.choice(self.programs) if rng.random() < 0.4 else None
        worded = rng.choice(self._short_of(program)) if program is not None and rng.random() < 0.5 else None
        requests = [self._part(rng, turns, program, worded) for _ in range(pattern.places)]
        answers = yield from _results([(r.program, r.arguments) for r in requests if r.program is not None])
        message, spans = self._together(rng, pattern, requests)
        turns.messages.append(message)
        steps = [
            Step(r.program, r.arguments, answer, tuple(tuple((0, s, e) for s, e in pieces) for pieces in own))
            for r, answer, own in zip(requests, answers, spans, strict=True)
            if r.program is not None
        ]
        return turns.dialogue(steps, "\n".join("{}" for _ in steps))

    def _short_of(self, program: str) -> Sequence[tuple[str, str]]:
        """Wordings of a program that can stand beside another request."""
        wordings = _short(program, self.split)
        if not wordings:
            raise _Unfit(f"no short wording of {program} in the split {self.split!r}")
        return wordings

    def _part(
        self, rng: Random, turns: _Turns, program: str | None = None, wording: tuple[str, str] | None = None
    ) -> Example:
        """A request short enough to stand beside another; raises _Unfit where a reader could not tell where it ends.

        Args:
            program, wording: drawn by default; often one of the shortest wordings.
        """
        program = rng.choice(self.programs) if program is None else program
        if wording is None:
            wordings = self._short_of(program)
            terse = [one for one in wordings if len(one[1]) <= _TERSE] if rng.random() < 0.5 else []
            wording = rng.choice(terse or wordings)
        identifier, line = wording
        example = self._requests.filled(rng, program, line, surrounded=0)
        edges = {edge for pieces in example.spans for piece in pieces for edge in piece}
        if "\n" in example.prompt or ("text" in PARAMETERS[program] and edges & {0, len(example.prompt)}):
            raise _Unfit(f"{example.prompt!r} cannot stand beside another request")
        turns.wordings.append(identifier)
        return example

    def _together(
        self, rng: Random, pattern: _Joined, requests: Sequence[Example]
    ) -> tuple[str, list[tuple[tuple[tuple[int, int], ...], ...]]]:
        """The message, and for each request where the pieces of its arguments came to lie."""
        stretches = _PLACES.split(pattern.line.replace("\\n", "\n"))[::2]
        message, spans = stretches[0], []
        for number, (request, after) in enumerate(zip(requests, stretches[1:], strict=True)):
            following = requests[number + 1].prompt[0] if number + 1 < len(requests) else ""
            first = min(start for pieces in request.spans for start, _ in pieces)
            parts = re.search(r"[\n;|•\d]|\b(?!(and|plus|minus|times|over|with|or|n|by|of)\b)[a-z]", stretches[number], re.I)
            if number and not parts and not any(c.isalpha() for c in request.prompt[:first]):
                raise _Unfit(f"{request.prompt!r} could be read as part of {message!r}")
            text = _joined(rng, message, request, after + following.upper())
            at = len(message)
            spans.append(tuple(tuple((start + at, end + at) for start, end in pieces) for pieces in request.spans))
            message += text + after
        if rng.random() < 0.25:
            message = _lowered(message, [piece for own in spans for pieces in own for piece in pieces])
        return message, spans
