"""Learning from answers alone: log p(answer) summed over calls, and the search for calls that explain an answer.

A reply is explained either by the backbone alone or by a call: at some position t of the reply the gate opens, a program and
a labelling of the prefix's characters are chosen, and the program's result stands at t in the reply. With A the answer,

    p(A from t) = p(no call from t on) · p_base(A from t)  +  Σ_x p(no call from t to t_x) · p_base(A from t to t_x)
                  · p(program_x | t_x) · p(labelling_x) · p(lead_x) · p(end_x) · p(A after x)

where x runs over the calls that open at t_x ≥ t: the sum over all ways to cut a reply into the backbone's words and results
of calls, so that a reply may hold several. ``exact`` runs the candidates x, so the sum differentiates the *choices*; no
gradient crosses the machine. Candidates come from a search of the prompt within a budget. The search exists only in training:
at inference the reader alone decides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from itertools import pairwise, permutations
from math import log
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .characters import Characters
from .coverage import expected_coverage
from .labelling import Piece, copied, labelling_scores, log_partition
from .selector import UNSEEN, causal
from .writer import END, GO_ON, LEADS, result_tokens

if TYPE_CHECKING:
    from ..configuration.machine_config import MachineConfig
    from .library import NeuralLibrary


@dataclass(frozen=True)
class Explanation:
    """A call that would have produced what stands in a reply.

    Attributes:
        start: the column of the last token before the result (where the gate opens). program: index of its key.
        pieces: per argument, the character pieces copied. lead: index into ``LEADS``. length: tokens of the result, lead included.
        candidates: how many labellings there were for the program, of which this is one.
        read: log-probability that these pieces were read, by a reader that was asked before (see ``weighed`` of the trainer);
            None where none was. part: that of this explanation in p(reply), 0…1, by the same heads. Neither travels with
            :func:`call_labels`.
    """

    start: int
    program: int
    pieces: tuple[tuple[Piece, ...], ...]
    lead: int
    length: int
    candidates: int = 1
    read: float | None = None
    part: float | None = None


def number_pieces(text: str) -> list[Piece]:
    """Maximal runs of decimal digits, each with a sign that touches it and follows no letter, digit, bracket or point."""
    pieces: list[Piece] = []
    position = 0
    while position < len(text):
        if not text[position].isdecimal():
            position += 1
            continue
        start = position
        while position < len(text) and text[position].isdecimal():
            position += 1
        if (
            start
            and text[start - 1] in "-−+"
            and (start == 1 or not (text[start - 2].isalnum() or text[start - 2] in ")]."))
        ):
            start -= 1
        pieces.append((start, position))
    return pieces


_JOINED = re.compile(r"\d[.,](?=\d)")
_GROUPED = re.compile(r"[-−+]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?")


def longer_numbers(text: str, numbers: Sequence[Piece]) -> list[Piece]:
    """What a point or comma makes of neighbouring :func:`number_pieces`: "9.11" of 9 and 11, "1,234,567" of three."""
    longer: list[Piece] = []
    begun, ended = -1, -2
    for start, end in numbers:
        if start != ended + 1 or not _JOINED.match(text, ended - 1):
            begun = start
        elif longer and longer[-1][0] == begun:
            longer[-1] = (begun, end)
        else:
            longer.append((begun, end))
        ended = end
    return longer


def decimal_pieces(text: str, numbers: Sequence[Piece]) -> list[Piece]:
    """:func:`number_pieces` with those as one that a point joins: "2.5" of 2 and 5."""
    joined: list[Piece] = []
    for start, end in numbers:
        if joined and joined[-1][1] == start - 1 and text[start - 1] == ".":
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def grouped_pieces(text: str, numbers: Sequence[Piece]) -> list[Piece]:
    """:func:`decimal_pieces` with those as one that are groups of three digits, each after a comma: "1,250" of 1 and 250.

    Where not all that commas join are groups, none is: "1,250,3" are three.
    """
    chains: list[list[Piece]] = []
    for piece in numbers:
        if chains and chains[-1][-1][1] == piece[0] - 1 and text[piece[0] - 1] == ",":
            chains[-1].append(piece)
        else:
            chains.append([piece])
    joined: list[Piece] = []
    for chain in chains:
        whole = chain[0][0], chain[-1][1]
        joined += [whole] if _GROUPED.fullmatch(text, *whole) else chain
    return joined


def _runs(numbers: Sequence[Piece]) -> Iterator[tuple[Piece, ...]]:
    """Two and more neighbouring numbers."""
    return (tuple(numbers[i:j]) for i in range(len(numbers)) for j in range(len(numbers), i + 1, -1))


def word_edges(text: str) -> tuple[list[int], list[int]]:
    """Where a copied span may start and where it may end: at changes between letters and digits, spaces, and other signs."""

    def kind(character: str) -> int:
        return 0 if character.isspace() else 1 if character.isalnum() else 2

    starts, ends = [], []
    for position, character in enumerate(text):
        if kind(character) == 0:
            continue
        if position == 0 or kind(text[position - 1]) != kind(character) or kind(character) == 2:
            starts.append(position)
        if position + 1 == len(text) or kind(text[position + 1]) != kind(character) or kind(character) == 2:
            ends.append(position + 1)
    return starts, ends


_RESULTS = re.compile(r"-?\d+(?:\.\d+)?(?: -?\d+(?:\.\d+)?)+|[^\n]+")
"""Runs of numbers, and lines."""

RESULT_SPANS = 12
"""Parts of a reply that are taken for a result, at most."""


def result_spans(text: str) -> list[Piece]:
    """Parts of a reply that may be a result: lines, their parts between commas, "and" and colons, quotations, numbers, last words.

    The first ``RESULT_SPANS`` of the reply.
    """
    spans: set[Piece] = set()
    for match in _RESULTS.finditer(text):
        spans.add(match.span())
    for line in re.finditer(r"[^\n]+", text):
        at = line.start()
        for part in re.split(r"((?:, (?:and )?| and |; |: |^\d+[.)] | is | = |\.(?= |$)))", line[0]):
            spans.add((at, at + len(part)))
            at += len(part)
        for word in re.finditer(r"(\S+?)[.!]?$", line[0]):
            spans.add((line.start() + word.start(1), line.start() + word.end(1)))
    for quoted in re.finditer(r"[\"'“*`](.+?)[\"'”*`]", text):
        spans.add(quoted.span(1))
    numbers = number_pieces(text)
    spans.update(numbers, decimal_pieces(text, numbers))
    return sorted({_trimmed(text, *span) for span in spans if text[slice(*span)].strip()})[:RESULT_SPANS]


def _trimmed(text: str, start: int, end: int) -> Piece:
    """A stretch of a text without the white space at its edges."""
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), end - len(part) + len(part.rstrip())


Labelling = tuple[tuple[Piece, ...], ...]
"""For each argument the pieces that it copies."""

Covered = dict[tuple[int, int], np.ndarray]
"""(row, position) → float32 [L], how far each token is covered there."""

EVEN = 0.05
"""What an even reading of all candidates counts beside the reader's, when explanations are weighed: it may be wrong."""
NEGLIGIBLE = 1e-3
"""An explanation whose part in p(reply) is so much smaller than the greatest one's is left out."""

PROBES = 12
"""Candidates of a kind that are run before the rest of it."""

LONGEST_SPAN = 120
"""Characters of a span that the search copies whole."""


def proposals(text: str, arity: int) -> list[list[Labelling]]:
    """Labellings worth running, by kind: numbers, runs of numbers as pieces, spans at word edges without and with letters.

    In runs a number with a point is one piece; alone, what stands at the sides of its point is offered, too. So is, in runs,
    what commas part into groups of three digits: as one number, and as several.

    Args:
        text: the stretch of the prefix to search. arity: arguments of the program, 1 or 2; calls of others must be given as
            labels.
    Returns:
        kinds, each a list of labellings of pieces of ``text``; no labelling is in two kinds.
    """
    numbers = number_pieces(text)
    starts, ends = word_edges(text)
    spans = [(s, e) for s in starts for e in ends if s < e <= s + LONGEST_SPAN]
    if arity == 1:
        decimals = decimal_pieces(text, numbers)
        known = dict.fromkeys([*decimals, *numbers])
        runs = list(dict.fromkeys(run for pieces in (decimals, grouped_pieces(text, decimals)) for run in _runs(pieces)))
        lettered = [any(character.isalpha() for character in text[s:e]) for s, e in spans]
        kinds: list[list[Labelling]] = [[((number,),) for number in known], [(run,) for run in runs]]
        for letters in (False, True):
            kinds.append([((s,),) for s, has in zip(spans, lettered, strict=True) if has is letters and s not in known])
        return kinds
    if arity == 2:
        letters_alone = [(s, e) for s, e in spans if e - s == 1 and text[s].isalpha()]
        texts = [(s, e) for s, e in spans if text[s].isalpha()]
        return [
            [
                ((first,), (second,))
                for first, second in permutations([*numbers, *longer_numbers(text, numbers)], 2)
                if first[1] <= second[0] or second[1] <= first[0]
            ],
            [((t,), (c,)) for c in letters_alone for t in texts if t[1] <= c[0] or c[1] <= t[0]],
        ]
    return []


def pieces_text(text: str, pieces: Iterable[Piece]) -> str:
    """What a reader that labelled these pieces would copy."""
    return copied(text[start:end] for start, end in pieces)


@dataclass(frozen=True)
class Found:
    """A call that the search found: index of the program's key, pieces, and the labellings that it ran of that program."""

    program: int
    pieces: Labelling
    candidates: int


SEARCHED_STEPS = 200_000
"""Steps after which a search gives a run up: it makes thousands of them."""


def search(
    library: NeuralLibrary,
    programs: Sequence[tuple[int, str, int]],
    text: str,
    wanted: str,
    budget: int,
    machine: MachineConfig | None = None,
    max_steps: int = SEARCHED_STEPS,
    known: dict[tuple[str, tuple[str, ...]], str | None] | None = None,
) -> list[Found]:
    """Calls on a text whose result is exactly ``wanted``.

    A few candidates of each kind are run first. Where a program answers all of them alike ("not a number", say) and not with
    what is wanted, that kind says nothing to it, and the rest of it is left out.

    Args:
        programs: (index of the key, name, arity) of the programs that may be called. budget: runs.
        known: results of earlier calls, by name and arguments, which are not run again; those of this search are added.
    """
    results_of = {} if known is None else known
    arities = {arity for _, _, arity in programs}
    kinds = {arity: [_spread(kind) for kind in proposals(text, arity) if kind] for arity in arities}

    @cache
    def copy(argument: tuple[Piece, ...]) -> str:
        return pieces_text(text, argument)

    def run(candidates: Sequence[tuple[int, str, Labelling]]) -> list[str | None]:
        calls = [(name, tuple(map(copy, labelling))) for _, name, labelling in candidates]
        new = list({call: None for call in calls if call not in results_of})
        outcomes = library.run_batch(new, machine=machine, max_steps=max_steps)
        results_of.update((call, outcome.text) for call, outcome in zip(new, outcomes, strict=True))
        return [results_of[call] for call in calls]

    # Numbers of all programs go before spans of any: what a budget leaves out is the unlikely.
    groups = [
        (index, name, *kinds[arity][number])
        for number in range(max(map(len, kinds.values()), default=0))
        for index, name, arity in programs
        if number < len(kinds[arity])
    ]
    probes = [(index, name, labelling) for index, name, first, _ in groups for labelling in first]
    results = run(probes)
    tried: list[tuple[int, Labelling, str | None]] = []
    rest: list[tuple[int, str, Labelling]] = []
    at = 0
    for index, name, first, others in groups:
        seen = results[at : at + len(first)]
        at += len(first)
        if len(set(seen)) > 1 or seen[0] == wanted:
            tried += [(index, labelling, text_) for labelling, text_ in zip(first, seen, strict=True)]
            rest += [(index, name, labelling) for labelling in others]
    rest = rest[: max(0, budget - len(probes))]
    tried += [(index, labelling, text_) for (index, _, labelling), text_ in zip(rest, run(rest), strict=True)]
    candidates = Counter(index for index, _, _ in tried)
    return [Found(index, labelling, candidates[index]) for index, labelling, text_ in tried if text_ == wanted]


def _spread(kind: list[Labelling]) -> tuple[list[Labelling], list[Labelling]]:
    """The probes of a kind, evenly spread over it, and the rest."""
    step = max(1, len(kind) // PROBES)
    chosen = set(range(0, len(kind), step)[:PROBES])
    return [kind[i] for i in sorted(chosen)], [labelling for i, labelling in enumerate(kind) if i not in chosen]


@dataclass
class CallBatch:
    """Sequences as the heads see them.

    Attributes:
        features: [B, L, ·]. weights: [B, L], log-weight of each token in attention, ``UNSEEN`` for padding and for tokens that
            go on with a number. prompt: bool [B, L], tokens at which no call may open.
        characters: per row, owners counted in columns.
        decisions: bool [B, L], positions of the reply at which a call may open (the last prompt token included).
        base: [B, L], log-probability that the backbone gives the token after each position (0 where it is not of the reply).
        explanations: per row. ends: per row, the column at which the reply's last token stands if it closes the turn, else −1.
        given: rows whose explanations are known to be the calls; they are not explained by the backbone alone.
    """

    features: Tensor
    weights: Tensor
    prompt: Tensor
    characters: list[Characters]
    decisions: Tensor
    base: Tensor
    explanations: list[list[Explanation]]
    ends: list[int]
    given: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.explanations)

    @cached_property
    def coverage(self) -> tuple[Covered, Covered]:
        """What is covered where a result has just ended, and what, where a call opens, once that call has been read."""
        decisions = self.decisions.cpu().numpy()
        before, after = dict[tuple[int, int], np.ndarray](), dict[tuple[int, int], np.ndarray]()
        for row, explanations in enumerate(self.explanations):
            behind, read = expected_coverage(explanations, self.characters[row].tokens, decisions.shape[1])
            before |= {(row, at): found for at, found in behind.items() if at < len(decisions[row]) and decisions[row, at]}
            after |= {(row, at): found for at, found in read.items()}
        return before, after

    def to(self, device: torch.device | str, non_blocking: bool = False) -> CallBatch:
        """The same batch on another device."""
        moved: dict[str, Any] = {
            field.name: value.to(device, non_blocking=non_blocking)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)


class Pooled(NamedTuple):
    """The selector's states of a batch, [B, L, width] each.

    Attributes:
        plain: with nothing covered. behind: with what is covered where a result has just ended. read: with what is covered once
            the call that opens there has been read.
    """

    plain: Tensor
    behind: Tensor
    read: Tensor


class Choices(NamedTuple):
    """Log-probabilities over "no call" and the programs, [B, L, 1 + programs], and what they make of a reply without calls.

    Attributes:
        plain, behind: of the states of these names. until: [B, L + 1], log-probability of no call at any decision before each
            token, nothing being covered, and of the backbone's words up to there.
    """

    plain: Tensor
    behind: Tensor
    until: Tensor


def lengthened(batch: CallBatch, most: float) -> CallBatch:
    """A batch as if its lists were longer than any that was trained on, in half of its rows.

    Every number, and the token after it, counts several times in attention: a factor drawn log-uniformly from 1 to ``most``. And
    because the states of numbers drift with their place in a list, they are moved, all those of a row alike, some of the way
    to the mean that such states have in another row.
    Source of the second: Zhou et al., Domain Generalization with MixStyle, 2021.
    """
    weights, features = batch.weights, batch.features
    rows, device = len(weights), weights.device
    chosen = torch.rand(rows, 1) < 0.5
    factors = torch.rand(rows, 1) * log(most) * chosen
    numbers = torch.zeros(weights.shape, dtype=torch.bool)
    for row, characters in enumerate(batch.characters):
        numbers[row, torch.from_numpy(characters.tokens[characters.digits])] = True
    beside = (numbers | torch.nn.functional.pad(numbers, (1, 0))[:, :-1]).to(device) & (weights > UNSEEN)
    share = beside.to(features.dtype)
    means = torch.einsum("bl,blf->bf", share, features) / share.sum(1, keepdim=True).clamp(min=1)
    other = torch.randperm(rows).to(device)
    moved = (torch.rand(rows, 1) * chosen).to(device) * beside.any(1, keepdim=True) * beside.any(1)[other].unsqueeze(1)
    moves = moved * (means[other] - means)
    return replace(
        batch,
        weights=torch.where(beside, weights + factors.to(device), weights),
        features=features + share.unsqueeze(-1) * moves.unsqueeze(1),
    )


UNKNOWN, NOTHING, GIVEN = -1, -2, -3
"""First number of a line of call labels: the row's calls are to be searched for; nothing is called in it; its calls were given."""


def call_labels(rows: Sequence[Sequence[Explanation] | None], given: Collection[int] = ()) -> Tensor:
    """Explanations as a tensor that travels with ``labels``: int64 [B, K, 9], a line for each piece of an argument.

    A line holds (number of the explanation, start, program, lead, length, candidates, argument, first character, character after
    the last).
    Characters are counted in the sequence without its padding. Lines that hold nothing are −1.

    Args:
        rows: per sequence; None where the calls are not known. given: see :class:`CallBatch`.
    """
    tables: list[list[tuple[int, ...]]] = []
    for row, explanations in enumerate(rows):
        lines: list[tuple[int, ...]] = [
            (number, one.start, one.program, one.lead, one.length, one.candidates, argument, start, end)
            for number, one in enumerate(explanations or ())
            for argument, pieces in enumerate(one.pieces)
            for start, end in pieces
        ]
        lines = lines or [(UNKNOWN if explanations is None else NOTHING, *[-1] * 8)]
        tables.append([*lines, (GIVEN, *[-1] * 8)] if row in given else lines)
    longest = max(map(len, tables), default=0)
    return torch.tensor([lines + [(-1,) * 9] * (longest - len(lines)) for lines in tables], dtype=torch.int64)


def explanations_of(labels: Tensor) -> list[list[Explanation] | None]:
    """What :func:`call_labels` was made from: int64 [B, K, 9] → explanations per sequence, None where they are not known."""
    rows: list[list[Explanation] | None] = []
    for lines in labels.tolist():
        if lines[0][0] == UNKNOWN:
            rows.append(None)
            continue
        found: dict[int, tuple[tuple[int, ...], list[list[Piece]]]] = {}
        for number, *call, argument, start, end in lines:
            if number >= 0:
                pieces = found.setdefault(number, (tuple(call), []))[1]
                pieces += [[] for _ in range(argument + 1 - len(pieces))]
                pieces[argument].append((start, end))
        rows.append(
            [
                Explanation(start, program, tuple(map(tuple, pieces)), lead, length, candidates)
                for (start, program, lead, length, candidates), pieces in found.values()
            ]
        )
    return rows


def given_rows(labels: Tensor) -> frozenset[int]:
    """The rows of :func:`call_labels` whose calls were given."""
    return frozenset((labels[..., 0] == GIVEN).any(1).nonzero().flatten().tolist())


def _logsumexp_of_groups(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """log Σ exp of the values [X] of each group: int64 [X] → [count]; no group is empty."""
    with torch.no_grad():
        most = torch.full((count,), UNSEEN, dtype=values.dtype, device=values.device)
        most = most.scatter_reduce(0, groups, values, "amax", include_self=False)
    sums = torch.zeros_like(most).index_add(0, groups, (values - most[groups]).exp())
    return most + sums.log()


class MarginalObjective:
    """log p(reply), marginal over calls.

    A reader that has learned nothing prefers, by tens of nats, the explanations that copy the fewest characters: "9" is the
    maximum, the minimum, the sum and the reversal of "9". So with the computer's ``reading_weight`` w < 1 a labelling has the
    probability p_reader^w · (1/n)^(1−w), n its program's candidates, as if one of them were read at random: a program with
    hundreds of them explains much by chance ("5" is the length of many words). Which program is called is learned first. At
    w = 0 nothing is read and only the decisions of replies are made, which takes a small part of the time. Where an explanation
    remembers how a reader ``read`` it, that stands in the place of 1/n.
    Source: Ueda & Nakano, Deterministic annealing EM algorithm, 1998, and the uniform alignments of Brown et al., 1993.

    While the computer trains, its ``stretch`` > 1 makes lists look longer than they are: see :func:`lengthened`. Its
    ``alone_weight`` is what the backbone alone counts as an explanation of a reply that calls explain too. An answer that the
    backbone says nearly as well ("2") keeps a call from being learned at all, where its weight is 1; 0 leaves it out.

    Args:
        computer: the model's :class:`Computer`.
        budget: exact runs spent on the search of one reply (only where explanations are not given).
    """

    def __init__(self, computer, budget: int = 4_000):  # type: ignore[no-untyped-def]
        self.computer = computer
        self.budget = budget

    def score(self, batch: CallBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """[B] log-likelihoods of the replies, and parts of them, [B] each.

        Parts: ``prompt_no_call``, the mean log p(no call) on the prompt (0 where nothing is read); ``alone``, log p without any
        call; ``calls``, log p of the calls that explain the reply (gate, program, reading, lead, end), 0 where there are none;
        and, without a gradient, ``entropy`` (nats) over programs and "no call", and ``opens`` (0 or 1), whether the gate opens,
        both where the first of the calls begins, else at the last prompt token.
        """
        computer = self.computer
        if computer.training and computer.stretch > 1:
            batch = lengthened(batch, computer.stretch)
        reads = computer.reading_weight > 0
        asked = batch.decisions | batch.prompt if reads else batch.decisions
        states = self._pooled(batch, asked)
        keys = computer.keys()
        choices = self._choices(batch, states, keys)
        no_call = choices.plain[..., 0]
        alone = choices.until[:, -1]
        likelihoods, calls = alone, torch.zeros_like(alone)
        if any(batch.explanations):
            flat = [(row, explanation) for row, found in enumerate(batch.explanations) for explanation in found]
            labellings = self._labellings(batch, states, keys, flat) if reads else alone.new_zeros(len(flat))
            likelihoods, calls = self._sum_over_calls(
                batch, choices, states, labellings, flat, computer.reading_weight
            )
        spoken = batch.prompt & asked
        quiet = torch.where(spoken, no_call, torch.zeros_like(no_call)).sum(1) / spoken.sum(1).clamp(min=1)
        with torch.no_grad():
            first = batch.decisions.int().argmax(1).tolist()
            places = [min((x.start for x in e), default=f) for e, f in zip(batch.explanations, first, strict=True)]
            chosen = choices.plain[torch.arange(len(places)), places]
            entropy = -(chosen.exp() * chosen).sum(-1)
            opens = (chosen[:, 0].exp() < 1 - computer.config.call_threshold).to(chosen.dtype)
        parts = {"prompt_no_call": quiet, "alone": alone, "calls": calls, "entropy": entropy, "opens": opens}
        return likelihoods, parts

    def _choices(self, batch: CallBatch, states: Pooled, keys: Tensor) -> Choices:
        """What the selector chooses at every position."""
        allowed, biases = self.computer.allowed(), self.computer.biases()
        plain: Tensor = self.computer.choose(states.plain, keys, allowed, biases)
        behind = plain if states.behind is states.plain else self.computer.choose(states.behind, keys, allowed, biases)
        decided = torch.where(batch.decisions, plain[..., 0], torch.zeros_like(plain[..., 0]))
        return Choices(plain, behind, torch.nn.functional.pad((decided + batch.base).cumsum(1), (1, 0)))

    def _pooled(self, batch: CallBatch, asked: Tensor) -> Pooled:
        """The selector's states where bool [B, L] asks for them, elsewhere anything."""
        rows, length = asked.shape
        count = int(asked.sum(1).max()) if asked.numel() else 0
        columns = asked.sort(dim=1, descending=True, stable=True).indices[:, :count]
        seen = causal(batch.weights, length).gather(1, columns.unsqueeze(-1).expand(-1, -1, length))
        states = self.computer.projection(batch.features)
        memory = self.computer.selector.remember(states)
        few = states.gather(1, columns.unsqueeze(-1).expand(-1, -1, states.shape[-1]))
        few = self.computer.selector.pool(few, memory, seen)
        everywhere = torch.zeros(rows, length, few.shape[-1], dtype=few.dtype, device=few.device)
        plain = everywhere.scatter(1, columns.unsqueeze(-1).expand(-1, -1, few.shape[-1]), few)
        before, after = batch.coverage
        if not after:
            return Pooled(plain, plain, plain)
        places = [*before.items(), *after.items()]
        asked_of: Counter[int] = Counter()
        slots = []
        for (at, _), _ in places:
            slots.append(asked_of[at])
            asked_of[at] += 1
        most = max(asked_of.values())
        covered = np.zeros((rows, most, length), dtype=np.float32)
        columns = torch.zeros(rows, most, dtype=torch.int64)
        for ((at, position), coverage), slot in zip(places, slots, strict=True):
            covered[at, slot], columns[at, slot] = coverage, position
        columns = columns.to(states.device)
        seen = causal(batch.weights, length).gather(1, columns.unsqueeze(-1).expand(-1, -1, length))
        few = states.gather(1, columns.unsqueeze(-1).expand(-1, -1, states.shape[-1]))
        row, column = torch.tensor([place for place, _ in places], device=states.device).unbind(1)
        few = self.computer.selector.pool(few, memory, seen, torch.from_numpy(covered).to(states))
        found, count = few[row, torch.tensor(slots, device=states.device)], len(before)
        behind = plain.index_put((row[:count], column[:count]), found[:count]) if count else plain
        return Pooled(plain, behind, behind.index_put((row[count:], column[count:]), found[count:]))

    def _sum_over_calls(
        self,
        batch: CallBatch,
        choices: Choices,
        states: Pooled,
        labellings: Tensor,
        flat: list[tuple[int, Explanation]],
        reading_weight: float,
    ) -> tuple[Tensor, Tensor]:
        """[B] log-likelihoods: the sum over sequences of calls that do not overlap, by as many rounds as calls can follow.

        Beside it [B] log-probabilities of the calls alone, those of a row summed.

        Args:
            labellings: [X] of the calls ``flat``.
        """
        until, device, length = choices.until, choices.until.device, choices.plain.shape[1]
        leads, ends = self.computer.writer.lead_scores(states.behind), self.computer.writer.end_scores(states.read)
        row = torch.tensor([r for r, _ in flat], device=device)
        start = torch.tensor([x.start for _, x in flat], device=device)
        last = start + torch.tensor([x.length for _, x in flat], device=device)
        program = torch.tensor([x.program for _, x in flat], device=device)
        lead = torch.tensor([x.lead for _, x in flat], device=device)
        if reading_weight < 1:
            shares = torch.tensor([-log(x.candidates) if x.read is None else x.read for _, x in flat], device=device)
            labellings = reading_weight * labellings + (1 - reading_weight) * shares
        call = choices.behind[row, start, 1 + program] + labellings + leads[row, start, lead]
        closing = torch.tensor(batch.ends, device=device)[row] == last + 1
        inside = last.clamp(max=length - 1)
        # After the last token of a result the turn ends or goes on, with the gate free again; the edge of the text ends nothing.
        going = (last + 1 < length) & batch.decisions[row, inside] & ~closing
        zero = torch.zeros_like(call)
        call = call + torch.where(closing, ends[row, start, END], zero)
        call = call + torch.where(going, ends[row, start, GO_ON], zero)
        total = until[:, -1]
        # Of the places [P] at which calls begin, those that come after each of the ends [E] at which calls end, in its row.
        places, at_place = torch.unique(torch.stack([row, start]), dim=1, return_inverse=True)
        edges, at_end = torch.unique(torch.stack([row, last]), dim=1, return_inverse=True)
        goes_on = torch.zeros(edges.shape[1], dtype=torch.bool, device=device).index_put((at_end,), going)
        follows = (edges[0, :, None] == places[0]) & (places[1] >= edges[1, :, None]) & goes_on[:, None]
        at_edge = edges[0], edges[1].clamp(max=length - 1)
        behind = until[at_edge]
        # That nothing is called directly behind a result is said knowing what is covered there.
        known = choices.behind[*at_edge, 0] - choices.plain[*at_edge, 0]
        silent = torch.where(goes_on, total[edges[0]] - behind + known, torch.zeros_like(behind))
        waits = known[:, None] * (places[1] > edges[1, :, None])
        begun = until[places[0], places[1]]
        rest, followed = silent, follows.any(1)
        value = call + rest[at_end]
        # A chain of calls goes from place to place of its row.
        for _ in range(int(followed.any()) and int(places[0].bincount().max())):
            reached = begun + _logsumexp_of_groups(value, at_place, places.shape[1])
            continued = torch.where(follows, reached[None] - behind[:, None] + waits, UNSEEN).logsumexp(1)
            rest = torch.where(followed, torch.logaddexp(silent, continued), silent)
            renewed = call + rest[at_end]
            if torch.equal(renewed, value):
                break
            value = renewed
        width = max(len(found) for found in batch.explanations)
        terms = torch.full((len(batch.explanations), 1 + width), UNSEEN, dtype=value.dtype, device=device)
        column = torch.tensor([i for found in batch.explanations for i in range(1, 1 + len(found))], device=device)
        terms = terms.index_put((row, column), until[row, start] + value)
        calls = torch.full_like(terms, UNSEEN).index_put((row, column), call).logsumexp(1)
        explained = torch.tensor([bool(found) for found in batch.explanations], device=device)
        calls = torch.where(explained, calls, torch.zeros_like(calls))
        counted = [0.0 if number in batch.given else self.computer.alone_weight for number in range(len(total))]
        weighed = total + torch.tensor([log(share) if share else UNSEEN for share in counted], device=device)
        alone = torch.where(explained, weighed, total)
        return torch.cat([alone[:, None], terms[:, 1:]], dim=1).logsumexp(1), calls

    def weighed(
        self, batch: CallBatch, unknown: Collection[int] = (), kept: Collection[int] = ()
    ) -> list[list[Explanation]]:
        """The explanations of each row that are not negligible, with how the reader reads them: the first half of a step of EM.

        What is left out has next to no part in p(reply) as the heads see it now, would teach next to nothing, and cost what the
        others cost. Heads that are sure of what is wrong leave out what is right.

        Args:
            unknown: programs that the heads were never trained for: their explanations stay as they are.
            kept: programs that the heads are not to be trusted about: no explanation of theirs is negligible.
        Source: Neal & Hinton, A view of the EM algorithm that justifies incremental, sparse, and other variants, 1998.
        """
        computer = self.computer
        flat = [(row, explanation) for row, found in enumerate(batch.explanations) for explanation in found]
        if not flat:
            return [[] for _ in batch.explanations]
        with torch.no_grad():
            states = self._pooled(batch, batch.decisions)
            keys = computer.keys()
            choices = self._choices(batch, states, keys)
            read = self._labellings(batch, states, keys, flat)
            even = torch.tensor([1 / one.candidates for _, one in flat], dtype=read.dtype, device=read.device)
            shares = ((1 - EVEN) * read.exp() + EVEN * even).log()
        with torch.enable_grad():
            # The part of an explanation in the sum is the slope of the sum's logarithm against the explanation's.
            leaf = shares.clone().requires_grad_()
            likelihoods, _ = self._sum_over_calls(batch, choices, states, leaf, flat, reading_weight=1.0)
            (parts,) = torch.autograd.grad(likelihoods.sum(), leaf)
        found = iter(zip(shares.tolist(), parts.tolist(), strict=True))
        rows = []
        for explanations in batch.explanations:
            told = [replace(one, read=share, part=part) for one, (share, part) in zip(explanations, found, strict=False)]
            least = NEGLIGIBLE * max((new.part or 0.0 for new in told), default=0.0)
            rows.append(
                [
                    old if old.program in unknown else new
                    for old, new in zip(explanations, told, strict=True)
                    if old.program in unknown or old.program in kept or (new.part or 0.0) >= least
                ]
            )
        return rows

    def _labellings(
        self, batch: CallBatch, pooled: Pooled, keys: Tensor, flat: list[tuple[int, Explanation]]
    ) -> Tensor:
        """Log-probability of the labelling of each (row, explanation).

        What the selector made (pooled states, keys) the reader takes as it is: reading teaches the reader alone.
        """
        states = self.computer.reader.projection(batch.features)
        places = sorted({(row, explanation.start) for row, explanation in flat})
        place_of = {place: index for index, place in enumerate(places)}
        device = states.device
        rows = torch.tensor([row for row, _ in places], device=device)
        starts = torch.tensor([start for _, start in places], device=device)
        later = torch.arange(states.shape[1], device=device)[None] > starts[:, None]
        weights = batch.weights[rows].masked_fill(later, UNSEEN)
        before, _ = batch.coverage
        uncovered = np.zeros(states.shape[1], dtype=np.float32)
        coverage = np.stack([before.get(place, uncovered) for place in places])
        encoded = self.computer.reader.encode(
            states[rows], weights, pooled.behind[rows, starts].detach(), torch.from_numpy(coverage).to(states)
        )
        counts = [int(np.searchsorted(batch.characters[row].tokens, start, side="right")) for row, start in places]
        widest = max(counts, default=0)
        code_points = np.zeros((len(places), widest), dtype=np.int64)
        tokens = np.zeros_like(code_points)
        for at, ((row, _), count) in enumerate(zip(places, counts, strict=True)):
            code_points[at, :count] = batch.characters[row].code_points[:count]
            tokens[at, :count] = batch.characters[row].tokens[:count]
        pairs = sorted({(place_of[row, x.start], x.program) for row, x in flat})
        pair_of = {pair: index for index, pair in enumerate(pairs)}
        texts = torch.tensor([place for place, _ in pairs], device=device)
        asked = torch.tensor([program for _, program in pairs], device=device)
        reader = self.computer.reader
        potentials = reader(
            encoded,
            torch.from_numpy(code_points).to(device),
            torch.from_numpy(tokens).to(device),
            keys[asked].detach(),
            texts,
        )
        lengths = [counts[place] for place, _ in pairs]
        of_pair = [pair_of[place_of[row, x.start], x.program] for row, x in flat]
        scores = labelling_scores(potentials, lengths, reader.max_arguments, of_pair, [x.pieces for _, x in flat])
        normaliser = log_partition(potentials, torch.tensor(lengths, device=device), reader.max_arguments)
        return scores - normaliser[torch.tensor(of_pair, device=device)]

    def programs(self) -> list[tuple[int, str, int]]:
        """(index, name, arity) of what may be called."""
        allowed = self.computer.may_be_called()
        named = zip(self.computer.programs, self.computer.arities, strict=True)
        return [(index, name, arity) for index, (name, arity) in enumerate(named) if allowed[index]]

    def explain(self, tokens: Sequence[int], decisions: Sequence[int], characters: Characters) -> list[Explanation]:
        """Search the prompt for calls that explain a stretch of the reply.

        Args:
            tokens: of the whole sequence. decisions: columns at which a call may open, ascending; the first is the last prompt
                token, and the reply follows it.
        Returns:
            the explanations found, those of the whole reply first.
        """
        library = self.computer.library
        if library is None or not decisions:
            return []
        first = decisions[0]
        count = int(np.searchsorted(characters.tokens, first, side="right"))
        reply = list(tokens[first + 1 :])
        found: list[Explanation] = []
        known: dict[tuple[str, tuple[str, ...]], str | None] = {}
        for whole in (True, False):
            for wanted, start, lead, length in self._results(reply, first, whole):
                found += [
                    Explanation(start, one.program, one.pieces, lead, length, one.candidates)
                    for one in self.calls_for(wanted, characters, count, known)
                ]
            if found:
                break
        return found

    def calls_for(
        self,
        wanted: str,
        characters: Characters,
        count: int,
        known: dict[tuple[str, tuple[str, ...]], str | None] | None = None,
    ) -> list[Found]:
        """Calls on the first ``count`` characters whose result is ``wanted``; their pieces count from the first character.

        The last message is searched, and so are it and the two before it together, and it and the four before it, because a result
        or what was asked about may be used again; what the last message alone explains by chance ("3" is the length of "And") must
        not hide that.
        """
        library = self.computer.library
        found: dict[tuple[int, Labelling], Found] = {}
        if library is None:
            return []
        for offset, text in self.stretches(characters, count):
            for one in search(library, self.programs(), text, wanted, self.budget, self.computer.machine, known=known):
                pieces = tuple(tuple((s + offset, e + offset) for s, e in argument) for argument in one.pieces)
                found[one.program, pieces] = Found(one.program, pieces, one.candidates)
        return list(found.values())

    def stretches(self, characters: Characters, count: int) -> list[tuple[int, str]]:
        """(offset, text) of what is searched: the last message, and that with the two and the four before it, if there are any."""
        edges = sorted({0, *np.flatnonzero(characters.boundary[:count]).tolist(), count})
        stretches = [(a, b) for a, b in pairwise(edges) if len(characters.text(a, b).split()) > 1]
        stretches = stretches or list(pairwise(edges))[-1:]
        spans = stretches[-1:]
        spans += [(stretches[-turns][0], stretches[-1][1]) for turns in (3, 5) if len(stretches) >= turns]
        return [(a, characters.text(a, b)) for a, b in spans]

    def _results(self, reply: Sequence[int], first: int, whole: bool) -> Iterator[tuple[str, int, int, int]]:
        """(text, start, lead, tokens) of what in a reply could be a result: all of it, or parts of it."""
        table = self.computer.table
        characters = table.characters(reply)
        text = characters.text()
        lead_of_all = max((len(before) for before in LEADS if text.startswith(before)), default=0)
        spans = [(lead_of_all, len(text))] if whole else result_spans(text)
        for start, end in spans:
            wanted = text[start:end]
            for lead, before in enumerate(LEADS):
                begin = start - len(before)
                if begin < 0 or not wanted or not text.startswith(before, begin):
                    continue
                written = result_tokens(table, lead, wanted)
                at = int(characters.tokens[begin])
                if list(reply[at : at + len(written)]) == written:
                    yield wanted, first + at, lead, len(written)

    def batch(
        self,
        features: Tensor,
        tokens: Tensor,
        mask: Tensor,
        labels: Tensor,
        logits: Tensor,
        calls: Tensor | None = None,
    ) -> CallBatch:
        """Whole sequences with labels as the heads see them; calls that are not known are searched for.

        Args:
            features: [B, L, ·]. tokens, labels: int64 [B, L] (−100: not of the reply). mask: bool [B, L], False for padding.
            logits: [B, L, vocabulary] of the backbone. calls: int64 [B, K, 9], see :func:`call_labels`.
        """
        after = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
        decisions = after != -100
        scores = logits[decisions].float().log_softmax(-1)
        base = torch.zeros(decisions.shape, dtype=scores.dtype, device=scores.device)
        base[decisions] = scores.gather(-1, after[decisions].unsqueeze(-1)).squeeze(-1)
        weights = self.computer.weights(tokens, mask)
        prompt, turn_end = mask & ~decisions, self.computer.config.end_of_turn_token_id
        known = [None] * len(tokens) if calls is None else explanations_of(calls)
        characters, explanations, ends = [], [], []
        for row, told in enumerate(known):
            ids = torch.where(mask[row], tokens[row], -1).tolist()
            columns = decisions[row].nonzero().flatten().tolist()
            characters.append(self.computer.table.characters(ids))
            end = columns[-1] + 1 if columns else -1
            ends.append(end if columns and ids[end] == turn_end else -1)
            explanations.append(self.explain(ids[: end + 1], columns, characters[-1]) if told is None else told)
            if not columns:
                # Without a reply nothing is known of the row, not even that nothing is called in it.
                prompt[row] = False
            turns = [at for at in range(columns[0] if columns else 0) if ids[at] == turn_end]
            if len(turns) > 2:
                # Beyond a system message and a request: earlier replies, which made calls of their own.
                prompt[row, : turns[-2]] = False
        given = frozenset[int]() if calls is None else given_rows(calls)
        return CallBatch(features, weights, prompt, characters, decisions, base, explanations, ends, given)
