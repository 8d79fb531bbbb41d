"""Training requests: what people type when they want a computation, with the truth beside it.

A request is a **wording** (one line of ``phrasings/<program>.txt``, written by hand), filled with arguments drawn for
the program, with a surface drawn for them (separators, brackets, quotes, units), sometimes wrapped into what surrounds
requests in real life. Lines of ``phrasings/general.txt`` become conversation in which nothing must be called.

Two promises:

* **Example i is a function of (seed, split, i).** Every draw comes from ``random.Random`` seeded with a SHA-256 of
  those, so any process, resumed or not, sees the same stream.
* **The split is by wording.** A wording belongs to "validation" when the first eight bytes of the SHA-256 of its line,
  read as a big-endian integer, leave less than 8 modulo 100; to "train" otherwise. It depends on the line alone, so
  adding lines moves none.

Answers come from the compiled programs themselves; an example whose program faults is drawn again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from random import Random
from typing import Any, Protocol

from .drawing import ATTEMPTS, DRAWERS, Draw, Values
from .rendering import assemble, augment, drawn_fillers, mistyped, render
from .wording import GENERAL, PARAMETERS, SLOT, Split, TaskError, Wording, select

BLOCK = 128  # examples whose programs run in one batch; changes nothing in the stream


class _Result(Protocol):
    @property
    def text(self) -> str | None: ...


class _Library(Protocol):
    def run_batch(self, calls: Sequence[tuple[str, Sequence[str]]]) -> Sequence[_Result]: ...


@dataclass(frozen=True)
class Example:
    """One request and the truth about it.

    Attributes:
        prompt: the user's message.
        answer: the program's result text; None where nothing must be called.
        program: the program that answers; None where nothing must be called.
        arguments: the program's arguments in calling order; a list's numbers are joined by ", ".
        spans: for each argument the character ranges [start, end) of its pieces in ``prompt``: one for each number of a
            list, else one.
        wording: the phrasing line, ``"add:17"`` for ``wordings("add")[17]``.
        reply: the whole reply where it is more than the answer, which it then contains.
    """

    prompt: str
    answer: str | None
    program: str | None
    arguments: tuple[str, ...]
    spans: tuple[tuple[tuple[int, int], ...], ...]
    wording: str
    reply: str | None = None


def random_of(*parts: object) -> Random:
    return Random(int.from_bytes(sha256("\0".join(map(str, parts)).encode()).digest(), "big"))


_GROUPED = {("a", "b"): 0.15, ("n",): 0.15, ("numbers",): 0.08}
"""Parameters → how often their numbers are written with a comma before the last three digits."""
_IN_CODE = re.compile(r"([(\[{,=*/+^%:<>|-]|\b(SELECT|if|mod))\s*$")


def _grouped(value: str | list[str], places: Sequence[tuple[str, str]]) -> str | list[str]:
    """Numbers of four to six digits with a comma before the last three, where no other comma or code is beside them."""
    if isinstance(value, list):
        places = [(before.removesuffix(": "), after) for before, after in places]
    if any(_IN_CODE.search(before) or re.match(r"[,)\]]|\.\w", after) for before, after in places):
        return value
    return [_in_groups(number) for number in value] if isinstance(value, list) else _in_groups(value)


def _in_groups(number: str) -> str:
    digits = number.lstrip("-")
    return f"{number[:-3]},{number[-3:]}" if digits.isdecimal() and 4 <= len(digits) <= 6 else number


class RequestGenerator:
    """A deterministic, endless stream of requests.

    Args:
        seed: the stream's seed.
        split: whose wordings to use: "train", "validation" (never in "train"), or "all".
        digits: least and most digits of a number, 1 ≤ least ≤ most. Programs whose results would explode (power,
            factorial, fibonacci) or whose runs would (is_prime) keep to smaller numbers.
        list_length: least and most numbers of a list, 2 ≤ least ≤ most.
        programs: the programs to ask for; all of ``PARAMETERS`` by default.
        library: where answers come from; the standard library by default.
        mistyped: part of the requests that look as if typed in a hurry, 0…1.

    Raises:
        TaskError: a program without phrasings, an unknown split, or a range or a part that is none.
    """

    def __init__(
        self,
        seed: int,
        split: Split = "train",
        digits: tuple[int, int] = (1, 4),
        list_length: tuple[int, int] = (2, 8),
        programs: Sequence[str] | None = None,
        library: Any | None = None,
        mistyped: float = 0.0,
    ):
        if not 0 <= mistyped <= 1:
            raise TaskError(f"mistyped is {mistyped}; expected a part from 0 to 1")
        if split not in ("train", "validation", "all"):
            raise TaskError(f"unknown split {split!r}; expected train, validation or all")
        for name, (low, high), least in (("digits", digits, 1), ("list_length", list_length, 2)):
            if not least <= low <= high:
                raise TaskError(f"{name} is ({low}, {high}); expected {least} ≤ least ≤ most")
        self.seed = seed
        self.split = split
        self.digits = digits
        self.list_length = list_length
        self.programs = tuple(PARAMETERS) if programs is None else tuple(programs)
        if not self.programs:
            raise TaskError("no programs to ask for; leave programs out for all")
        for program in self.programs:
            select(program, split)
        self.mistyped = mistyped
        self._library: _Library | None = library
        self._drawn: dict[str, int] = {}

    def example(self, program: str) -> Example:
        """The next request for a program: the k-th call for it gives the same example in every process."""
        return self._answered([self._draft(program, f"single {self._next(program)}", 0)])[0]

    def general(self) -> Example:
        """The next request of general conversation, in which nothing must be called."""
        return self._draft(GENERAL, f"single {self._next(GENERAL)}", 0).example

    def examples(self, count: int, general_share: float = 0.3, start: int = 0) -> Iterator[Example]:
        """Examples ``start`` … ``start + count − 1`` of the stream: a share of general ones, the others balanced.

        Raises:
            TaskError: ``general_share`` is no share, or a program faults on every draw.
        """
        if not 0 <= general_share <= 1:
            raise TaskError(f"general_share is {general_share}; expected a share from 0 to 1")
        for first in range(start, start + count, BLOCK):
            block = range(first, min(first + BLOCK, start + count))
            yield from self._answered(
                [self._draft(self._kind(index, general_share), f"stream {index}", 0) for index in block]
            )

    def request(self, program: str, key: str, wording: int | None = None) -> Example:
        """A request without its answer, or general conversation: a function of seed, split and these.

        Args:
            wording: which of the split's wordings of the program, from 0; any by default.
        """
        return self._draft(program, key, 0, wording).example

    def wordings(self, program: str) -> int:
        """How many wordings of a program, or of general conversation, lie on the split's side."""
        return len(select(program, self.split))

    def filled(
        self, rng: Random, program: str, line: str, values: Mapping[str, str] | None = None, surrounded: float = 0.3
    ) -> Example:
        """A request, without its answer, by a wording from elsewhere.

        Args:
            values: texts of the arguments that ``line`` has placeholders for; drawn for the program by default. An argument
                without a placeholder gets no pieces.
            surrounded: how often greetings, thanks and the like are put around it, 0 to 1.
        """
        wording = Wording(line, line, tuple(SLOT.split(line.replace("\\n", "\n"))))
        return self._filled(
            rng, program, wording, self._drawn_values(rng, program, wording) if values is None else values, surrounded
        )

    def run(self, calls: Sequence[tuple[str, Sequence[str]]]) -> list[str | None]:
        """The results of calls; None for one that faults."""
        if self._library is None:
            # Imported here, so that wordings and splits can be read without the machine.
            from ..modeling_neurallib.programs import standard_library

            self._library = standard_library()
        return [result.text for result in self._library.run_batch(calls)]

    def _next(self, program: str) -> int:
        index = self._drawn.get(program, 0)
        self._drawn[program] = index + 1
        return index

    def _kind(self, index: int, general_share: float) -> str:
        """Program of the stream's example: general ones evenly spread, programs in rounds of shuffled order."""
        general_before = int(index * general_share + 1e-9)
        if int((index + 1) * general_share + 1e-9) > general_before:
            return GENERAL
        turn, place = divmod(index - general_before, len(self.programs))
        order = list(self.programs)
        random_of(self.seed, self.split, "round", turn).shuffle(order)
        return order[place]

    def _draft(self, program: str, index: str, attempt: int, number: int | None = None) -> _Draft:
        """The example without its answer."""
        rng = random_of(self.seed, self.split, index, program, attempt)
        chosen = select(program, self.split)
        wording = rng.choice(chosen) if number is None else chosen[number]
        example = self._filled(rng, program, wording, self._drawn_values(rng, program, wording), 0.3)
        return _Draft(example, program, index, attempt)

    def _drawn_values(self, rng: Random, program: str, wording: Wording) -> Values:
        values = DRAWERS[program](Draw(rng, self.digits, self.list_length, program), wording)
        if rng.random() < _GROUPED.get(PARAMETERS.get(program, ()), 0.0):
            return {name: _grouped(value, wording.places(name)) for name, value in values.items()}
        return values

    def _filled(self, rng: Random, program: str, wording: Wording, values: Values, surrounded: float) -> Example:
        taken = {text for value in values.values() for text in (value if isinstance(value, list) else [value])}
        fillers = drawn_fillers(rng, taken)
        segments = render(rng, wording, values, program, fillers)
        if rng.random() < surrounded:
            segments = augment(rng, segments, program, fillers)
        if self.mistyped and rng.random() < self.mistyped:
            segments = mistyped(rng, segments)
        names = PARAMETERS.get(program, ())
        prompt, spans = assemble(segments, len(names))
        arguments = tuple(", ".join(prompt[start:end] for start, end in pieces) for pieces in spans)
        truth = None if program == GENERAL else program
        return Example(prompt, None, truth, arguments, spans, wording.identifier)

    def _answered(self, drafts: list[_Draft]) -> list[Example]:
        """Run the programs of many drafts at once; draft again where one faults.

        Raises:
            TaskError: a program faults on every draw.
        """
        open_positions = [position for position, draft in enumerate(drafts) if draft.program != GENERAL]
        examples = [draft.example for draft in drafts]
        while open_positions:
            results = self.run([(drafts[p].program, drafts[p].example.arguments) for p in open_positions])
            faulted = []
            for position, answer in zip(open_positions, results, strict=True):
                draft = drafts[position]
                if answer is None:
                    if draft.attempt + 1 == ATTEMPTS:
                        raise TaskError(
                            f"{draft.program} faults on {ATTEMPTS} draws, the last {draft.example.arguments}"
                        )
                    drafts[position] = self._draft(draft.program, draft.index, draft.attempt + 1)
                    faulted.append(position)
                    continue
                e = draft.example
                examples[position] = Example(e.prompt, answer, e.program, e.arguments, e.spans, e.wording)
            open_positions = faulted
        return examples


@dataclass(frozen=True)
class _Draft:
    """An example before its answer, and how to draw it again."""

    example: Example
    program: str
    index: str
    attempt: int
