"""Labellings of a text: which characters belong to which argument, as a chain with a memory.

A labelling gives each character a role: 0 "none", 1 the first argument, 2 the second, …. Its probability is that of a
linear-chain conditional random field whose states are 0, a piece of argument r, and a *gap* of argument r: what stands between two
pieces of one argument. A gap keeps in mind that a list is under way, so that its sixtieth number is read as its second is.

    score(s) = Σ_c emit_c(s_c) + Σ_c move_c(s_{c−1} → s_c),      p(s) = exp(score(s)) / Z

``emit`` is the score of a role for a character, 0 for "none" and gaps. The moves: to *stay* in a piece, to *leave* it, to *enter*
one, to *pause* (piece → gap), to *hold* (gap → gap), to *resume* (gap → piece of the same argument); from none to none is free. A
piece of another argument may follow directly (leave and enter). What parts two pieces of one argument that follow each other is a
gap, so a labelling is one chain; :func:`decode` enters every argument once.

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
    """The score of each labelling's chain, before the normalisation: [X].

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
    held = (sums[of, last, arguments + HOLD] - sums[of, first + 1, arguments + HOLD]).to(total)
    gap = potentials[of, first, arguments + PAUSE] + held + potentials[of, last, arguments + RESUME]
    return total.index_add(0, owner, gap)


def _columns(rows: Sequence[tuple[int, ...]], width: int, like: Tensor) -> tuple[Tensor, ...]:
    table = np.array(rows, dtype=np.int64).reshape(-1, width)
    return torch.from_numpy(table).to(like.device).unbind(1)


def decode(potentials: np.ndarray, arguments: int) -> np.ndarray:
    """The roles of the most probable chain that enters every argument once: [C, A' + 6] → int64 [C], roles 0…``arguments``.

    A program runs on all of its arguments or not at all, and an argument that is said twice ("My name is Ada. What is Ada
    backwards?") is read once: several pieces of one argument are a list, which gaps hold together. Texts of fewer characters
    than arguments have the most probable chain that enters none of them twice.

    Viterbi over (the arguments entered so far, the state); the former are the bits of a number.

    Args:
        potentials: of A' ≥ ``arguments`` roles. arguments: how many the program has.
    """
    count, subsets = len(potentials), 1 << arguments
    labelling = np.zeros(count, dtype=np.int64)
    if not count or not arguments:
        return labelling
    # (subset, role) of pieces, and of the gaps behind them; "none" of each subset comes first. Entered from: without the role.
    inside = [(subset, role) for subset in range(subsets) for role in range(arguments) if subset >> role & 1]
    of_subset = [[at for at, (held, _) in enumerate(inside) if held == subset] for subset in range(subsets)]
    entered = [(at, role, subset ^ 1 << role) for at, (subset, role) in enumerate(inside)]
    none = [0.0] + [2 * FORBIDDEN * count] * (subsets - 1)
    pieces, gaps = [2 * FORBIDDEN * count] * len(inside), [2 * FORBIDDEN * count] * len(inside)
    back: list[tuple[list[int], list[int], list[int]]] = []
    rows = zip(potentials[:, :arguments].tolist(), potentials[:, -len(MOVES) :].tolist(), strict=True)
    for emit, (stay, leave, enter, pause, hold, resume) in rows:
        # What comes from where: a state's number, none [subsets], then pieces, then gaps.
        outside, from_outside = none.copy(), list(range(subsets))
        for subset, members in enumerate(of_subset):
            for at in members:
                if pieces[at] + leave > outside[subset]:
                    outside[subset], from_outside[subset] = pieces[at] + leave, subsets + at
        new_pieces, from_pieces = [], []
        for at, role, before in entered:
            value, source = outside[before] + enter, from_outside[before]
            if pieces[at] + stay >= value:
                value, source = pieces[at] + stay, subsets + at
            if gaps[at] + resume > value:
                value, source = gaps[at] + resume, subsets + len(inside) + at
            new_pieces.append(value + emit[role])
            from_pieces.append(source)
        held = [gap + hold > piece + pause for piece, gap in zip(pieces, gaps, strict=True)]
        from_gaps = [subsets + len(inside) * holds + at for at, holds in enumerate(held)]
        gaps = [gap + hold if holds else piece + pause for piece, gap, holds in zip(pieces, gaps, held, strict=True)]
        none, pieces = outside, new_pieces
        back.append((from_outside, from_pieces, from_gaps))
    final = [*none, *pieces]
    every = [subsets - 1, *(subsets + at for at in of_subset[-1])] if count >= arguments else range(len(final))
    state = max(every, key=final.__getitem__)
    for place in range(count - 1, -1, -1):
        kind, at = (0, state) if state < subsets else (1 + (state - subsets) // len(inside), (state - subsets) % len(inside))
        labelling[place] = 1 + inside[at][1] if kind == 1 else 0
        state = back[place][kind][at]
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
