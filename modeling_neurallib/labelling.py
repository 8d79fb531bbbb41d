"""Labellings of a text: which characters belong to which argument, as a chain with a memory.

A labelling gives each character a role: 0 "none", 1 the first argument, 2 the second, …. Its probability is that of a
linear-chain conditional random field whose states are 0, a piece of argument r, and a *gap* of argument r: what stands between two
pieces of one argument. A gap keeps in mind that a list is under way, so that its sixtieth number is read as its second is.

    score(s) = Σ_c emit_c(s_c) + Σ_c move_c(s_{c−1} → s_c),      p(s) = exp(score(s)) / Z

``emit`` is the score of a role for a character, 0 for "none" and gaps. The moves: to *stay* in a piece, to *leave* it, to *enter*
one, to *pause* (piece → gap), to *hold* (gap → gap), to *resume* (gap → piece of the same argument); from none to none is free. A
piece of another argument may follow directly (leave and enter). The roles of a labelling leave open whether what parts two
pieces is a gap or none, so its probability is the sum of both.

Shapes: A arguments, C characters; potentials [..., C, A + 6], the A roles and then the moves in the order of ``MOVES``.

Source: Lafferty, McCallum & Pereira, Conditional Random Fields, 2001; scans: Särkkä & García-Fernández, 2021.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

MOVES = ("stay", "leave", "enter", "pause", "hold", "resume")
STAY, LEAVE, ENTER, PAUSE, HOLD, RESUME = range(len(MOVES))

FORBIDDEN = -1.0e4
"""Score of a move that there is not: finite, so that a sum over nothing makes no NaN."""

Piece = tuple[int, int]
"""Characters [start, end)."""


def _transitions(potentials: Tensor, arguments: int) -> Tensor:
    """[..., C, A + 6] → [..., C, S, S]: score of coming to each character's state from each state of the one before, S = 1 + 2A."""
    emit, moves = potentials[..., :arguments], potentials[..., arguments:]
    stay, leave, enter, pause, hold, resume = (moves[..., move] for move in range(len(MOVES)))
    never = torch.full_like(stay, FORBIDDEN)
    none = torch.zeros_like(stay)
    rows = []
    for source in range(1 + 2 * arguments):
        piece, gap = source, source - arguments
        row = [none if source == 0 else leave if piece <= arguments else never]
        for role in range(1, arguments + 1):
            into = enter if source == 0 else stay if role == piece else leave + enter if piece <= arguments else never
            row.append((resume if gap == role else into) + emit[..., role - 1])
        for role in range(1, arguments + 1):
            row.append(pause if role == piece else hold if role == gap else never)
        rows.append(torch.stack(row, dim=-1))
    return torch.stack(rows, dim=-2)


def _first(potentials: Tensor, arguments: int) -> Tensor:
    """[..., A + 6] of the first character → [..., S], the score of each state that it may have."""
    entered = potentials[..., :arguments] + potentials[..., arguments + ENTER, None]
    return torch.cat([torch.zeros_like(entered[..., :1]), entered, torch.full_like(entered, FORBIDDEN)], dim=-1)


def log_partition(potentials: Tensor, counts: Tensor, arguments: int) -> Tensor:
    """log Z of each text, by a product of matrices in pairs: ⌈log₂ C⌉ rounds.

    Args:
        potentials: [P, C, A + 6]. counts: int64 [P], characters of each text, 1…C; what is behind them is not looked at.
    Returns:
        [P]
    """
    states = 1 + 2 * arguments
    if not potentials.shape[1]:
        return potentials.new_zeros(len(potentials))
    inside = torch.arange(1, potentials.shape[1], device=potentials.device)[None] < counts[:, None]
    one = torch.full((states, states), FORBIDDEN, device=potentials.device, dtype=potentials.dtype).fill_diagonal_(0.0)
    chain = torch.where(inside[..., None, None], _transitions(potentials[:, 1:], arguments), one)
    while chain.shape[1] > 1:
        if chain.shape[1] % 2:
            chain = torch.cat([chain, one.expand(len(chain), 1, states, states)], dim=1)
        left, right = chain[:, 0::2], chain[:, 1::2]
        chain = (left.unsqueeze(-1) + right.unsqueeze(-3)).logsumexp(-2)
    ends = _first(potentials[:, 0], arguments)
    if chain.shape[1]:
        ends = (ends.unsqueeze(-1) + chain[:, 0]).logsumexp(-2)
    return ends[:, : arguments + 1].logsumexp(-1)  # no text ends in a gap


def role_probabilities(potentials: Tensor, arguments: int) -> Tensor:
    """Marginal probability of each role for each character of one text, character by character: the plain version.

    Args:
        potentials: [..., C, A + 6].
    Returns:
        [..., C, 1 + A], each row of sum 1.
    """
    if not potentials.shape[-2]:
        return potentials[..., : arguments + 1]
    moves = _transitions(potentials, arguments)
    forward = [_first(potentials[..., 0, :], arguments)]
    for place in range(1, potentials.shape[-2]):
        forward.append((forward[-1].unsqueeze(-1) + moves[..., place, :, :]).logsumexp(-2))
    last = torch.zeros_like(forward[0])
    last[..., arguments + 1 :] = FORBIDDEN
    backward = [last]
    for place in range(potentials.shape[-2] - 1, 0, -1):
        backward.append((backward[-1].unsqueeze(-2) + moves[..., place, :, :]).logsumexp(-1))
    states = (torch.stack(forward, dim=-2) + torch.stack(backward[::-1], dim=-2)).softmax(-1)
    none = states[..., :1] + states[..., arguments + 1 :].sum(-1, keepdim=True)
    return torch.cat([none, states[..., 1 : arguments + 1]], dim=-1)


def labelling_scores(
    potentials: Tensor,
    counts: Sequence[int],
    arguments: int,
    texts: Sequence[int],
    labellings: Sequence[Sequence[Sequence[Piece]]],
) -> Tensor:
    """log Σ exp(score) of each labelling's chains, before the normalisation: [X].

    Args:
        potentials: [P, C, A + 6]. counts: characters of each text. texts: which of the P texts each labelling is of.
        labellings: for each of its arguments the pieces, which do not overlap.
    """
    # In double precision: what is wanted of sums over a whole text are their differences.
    sums = torch.nn.functional.pad(potentials.double().cumsum(1), (0, 0, 1, 0))
    # Rows of (labelling, text, …): characters of a piece; single moves; what may be a gap.
    pieces: list[tuple[int, int, int, int, int]] = []
    moves: list[tuple[int, int, int, int]] = []
    gaps: list[tuple[int, int, int, int]] = []
    for number, (text, labelling) in enumerate(zip(texts, labellings, strict=True)):
        ordered = sorted((start, end, argument) for argument, spans in enumerate(labelling) for start, end in spans)
        before, previous = -1, -1
        for start, end, argument in ordered:
            pieces.append((number, text, start, end, argument))
            if start == before and argument == previous:
                moves.append((number, text, start, STAY))
            elif argument == previous:
                gaps.append((number, text, before, start))
            else:
                if previous >= 0:
                    moves.append((number, text, before, LEAVE))
                moves.append((number, text, start, ENTER))
            before, previous = end, argument
        if 0 <= before < counts[text]:
            moves.append((number, text, before, LEAVE))
    total = potentials.new_zeros(len(texts))
    owner, of, first, last, role = _columns(pieces, 5, potentials)
    inside = sums[of, last, role] - sums[of, first, role]
    inside = inside + sums[of, last, arguments + STAY] - sums[of, first + 1, arguments + STAY]
    total = total.index_add(0, owner, inside.to(total))
    owner, of, at, move = _columns(moves, 4, potentials)
    total = total.index_add(0, owner, potentials[of, at, arguments + move])
    owner, of, first, last = _columns(gaps, 4, potentials)
    none = potentials[of, first, arguments + LEAVE] + potentials[of, last, arguments + ENTER]
    held = (sums[of, last, arguments + HOLD] - sums[of, first + 1, arguments + HOLD]).to(total)
    gap = potentials[of, first, arguments + PAUSE] + held + potentials[of, last, arguments + RESUME]
    return total.index_add(0, owner, torch.logaddexp(none, gap))


def _columns(rows: Sequence[tuple[int, ...]], width: int, like: Tensor) -> tuple[Tensor, ...]:
    table = np.array(rows, dtype=np.int64).reshape(-1, width)
    return torch.from_numpy(table).to(like.device).unbind(1)


def decode(potentials: np.ndarray, arguments: int) -> np.ndarray:
    """The roles of the most probable chain in which every argument has a character: [C, A' + 6] → int64 [C], roles 0…``arguments``.

    A program runs on all of its arguments or not at all. Texts of fewer characters than arguments have the most probable chain.

    Args:
        potentials: of A' ≥ ``arguments`` roles. arguments: how many the program has.
    """
    labelling = most_probable(potentials, arguments)
    if len(potentials) < arguments or len(set(labelling.tolist()) - {0}) == arguments:
        return labelling
    return _with_every_role(potentials, arguments)


def _with_every_role(potentials: np.ndarray, arguments: int) -> np.ndarray:
    """The most probable chain with every role in it: Viterbi over (roles so far, state), roles so far as the digits of a number."""
    count, states, subsets = len(potentials), 1 + 2 * arguments, 1 << arguments
    own = torch.from_numpy(np.concatenate([potentials[:, :arguments], potentials[:, -len(MOVES) :]], axis=1)).double()
    moves = _transitions(own, arguments).numpy()
    never = 2.0 * FORBIDDEN * count
    role_of = np.array([0, *range(1, arguments + 1), *[0] * arguments])
    digit = np.where(role_of > 0, 1 << np.maximum(role_of - 1, 0), 0)
    scores = np.full((subsets, states), never)
    scores[digit, np.arange(states)] = _first(own[0], arguments).numpy()
    # A piece of an argument is reached from subsets that have its digit and from those that lack it; it leaves only the former.
    having, every = np.arange(subsets)[:, None], np.arange(states)
    lacking, valid = having & ~digit, (having & digit) == digit
    back = np.zeros((count, subsets, states, 2), dtype=np.int64)
    for place in range(1, count):
        reached = scores[:, :, None] + moves[place]
        source, best = reached.argmax(1), reached.max(1)
        new = best[lacking, every] > best
        subset_before = np.where(new, lacking, having)
        scores = np.where(valid, best[subset_before, every], never)
        back[place] = np.stack([subset_before, source[subset_before, every]], axis=-1)
    subset, state = subsets - 1, int(scores[-1, : arguments + 1].argmax())
    labelling = np.zeros(count, dtype=np.int64)
    for place in range(count - 1, -1, -1):
        labelling[place] = role_of[state]
        subset, state = back[place, subset, state]
    return labelling


def most_probable(potentials: np.ndarray, arguments: int) -> np.ndarray:
    """The roles of the most probable chain, whatever is in it (Viterbi): as :func:`decode`."""
    count = len(potentials)
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    roles = range(1, arguments + 1)
    emits, moves = potentials[:, :arguments].tolist(), potentials[:, -len(MOVES) :].tolist()
    none, pieces, gaps = 0.0, [emits[0][r - 1] + moves[0][ENTER] for r in roles], [FORBIDDEN] * arguments
    back: list[tuple[int, ...]] = []
    for emit, (stay, leave, enter, pause, hold, resume) in zip(emits[1:], moves[1:], strict=True):
        best = max(range(arguments), key=pieces.__getitem__) if arguments else 0
        left = pieces[best] + leave if arguments else FORBIDDEN
        # States as numbers: 0 none, r a piece, arguments + r a gap.
        outside, from_outside = (none, 0) if none >= left else (left, best + 1)
        new_pieces, new_gaps, sources = [], [], [from_outside]
        paused = []
        for r in roles:
            options = [
                (pieces[r - 1] + stay, r),
                (none + enter, 0),
                (gaps[r - 1] + resume, arguments + r),
            ]
            options += [(pieces[o - 1] + leave + enter, o) for o in roles if o != r]
            value, source = max(options, key=lambda option: option[0])
            new_pieces.append(value + emit[r - 1])
            sources.append(source)
            held, started = gaps[r - 1] + hold, pieces[r - 1] + pause
            new_gaps.append(max(held, started))
            paused.append(arguments + r if held > started else r)
        back.append((*sources, *paused))
        none, pieces, gaps = outside, new_pieces, new_gaps
    ends = [none, *pieces]
    state = max(range(len(ends)), key=ends.__getitem__)
    labelling = np.zeros(count, dtype=np.int64)
    for place in range(count - 1, -1, -1):
        labelling[place] = state if state <= arguments else 0
        if place:
            state = back[place - 1][state]
    return labelling


_MINUS = re.compile("−(?=[0-9])")


def copied(pieces: Iterable[str]) -> str:
    """The text of an argument: its pieces without outer spaces, joined by one; the minus sign before a digit becomes a hyphen."""
    return _MINUS.sub("-", " ".join(stripped for stripped in map(str.strip, pieces) if stripped))


def argument_texts(labelling: np.ndarray, code_points: np.ndarray, boundary: np.ndarray, arguments: int) -> list[str]:
    """The texts that a labelling copies: pieces of one role, joined by one space where there is a gap; outer spaces trimmed."""
    texts = []
    for role in range(1, arguments + 1):
        pieces: list[str] = []
        piece: list[str] = []
        previous = -2
        for position in np.flatnonzero(labelling == role):
            if piece and (position != previous + 1 or boundary[position]):
                pieces.append("".join(piece))
                piece = []
            piece.append(chr(code_points[position]))
            previous = int(position)
        if piece:
            pieces.append("".join(piece))
        texts.append(copied(pieces))
    return texts
