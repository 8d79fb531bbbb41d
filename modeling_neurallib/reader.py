"""The reader: which characters of the prefix are the arguments of a call?

A labelling gives each character a role: 0 "none", 1 the first argument, 2 the second, …. The score of a role is that of the
character's token plus a trim inside the token, because many requests have a token that straddles an argument's edge
(",-" in ``max(12,-7)``). Characters are independent given the prefix, so a labelling's probability is a product.

The tokens of one number count as one: a token that goes on with the digits of the one before speaks with the voice of the
number's first. So a number of forty digits is read as one of four is, in a vocabulary of single digits and in one of threes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .selector import UNSEEN, StateProjection

CHARACTER_CLASSES = 192
"""ASCII characters have a class each, the others share 64."""


def character_classes(code_points: Tensor) -> Tensor:
    """The class 0…191 of each code point."""
    return torch.where(code_points < 128, code_points, 128 + code_points % 64)


class ReaderLayer(nn.Module):
    """Neighbourhood (convolution over 5 tokens), whole prefix (attention), then a mix of channels; all residual."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.near_norm = nn.LayerNorm(width)
        self.near = nn.Conv1d(width, width, kernel_size=5, padding=2)
        self.far_norm = nn.LayerNorm(width)
        self.attend = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.mix_norm = nn.LayerNorm(width)
        self.mix = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, states: Tensor, weights: Tensor) -> Tensor:
        """states [B, U, width], log-weights [B, U] (``UNSEEN``: not of the prefix) → [B, U, width]."""
        inside = (weights > UNSEEN).unsqueeze(-1)
        near = self.near((self.near_norm(states) * inside).transpose(1, 2)).transpose(1, 2)
        states = states + functional.gelu(near)
        query, key, value = self.attend(self.far_norm(states)).view(*states.shape[:2], 3, self.heads, -1).unbind(2)
        far = functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=weights[:, None, None, :]
        )
        states = states + self.merge(far.transpose(1, 2).flatten(2))
        result: Tensor = states + self.mix(self.mix_norm(states))
        return result


class Reader(nn.Module):
    """Scores of roles for the characters of a prefix, for one or more programs.

    The prefix is encoded once in both directions, with the pooled state of the call's position in every token; a program
    asks for its arguments with role vectors made from its key. The reader has a projection of its own: its gradient is a sum
    over hundreds of characters, and through states shared with the selector it drowns what the selector needs of them.
    """

    def __init__(
        self, projection: StateProjection, width: int, heads: int, layers: int, key_width: int, max_arguments: int
    ):
        super().__init__()
        self.projection = projection
        self.max_arguments = max_arguments
        self.character_width = width // 4
        self.position = nn.Linear(width, width)
        self.layers = nn.ModuleList(ReaderLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.character = nn.Embedding(CHARACTER_CLASSES, 3 * self.character_width)
        self.inside = nn.Linear(width, self.character_width)
        self.trim = nn.Linear(self.character_width, self.character_width)
        self.roles = nn.Linear(key_width, max_arguments * (width + self.character_width + 1))

    def encode(self, states: Tensor, weights: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """The prefix in context.

        Args:
            states: [B, L, width], the reader's ``projection`` of the features. weights: [B, L], log-weight of each token:
                ``UNSEEN`` for padding, for what comes after the call's position, and for tokens that go on with a number.
            pooled: [B, width] of the call's position.
        Returns:
            encoded units [B, U, width]; the unit that each token belongs to, int64 [B, L].
        """
        seen = weights > UNSEEN
        units = (seen.cumsum(1) - 1).clamp(min=0)
        count = int(seen.sum(1).max()) if seen.numel() else 0
        leaders = seen.sort(dim=1, descending=True, stable=True).indices[:, :count]
        encoded = states.gather(1, leaders.unsqueeze(-1).expand(-1, -1, states.shape[-1]))
        encoded = encoded + self.position(pooled).unsqueeze(1)
        weights = weights.gather(1, leaders)
        for layer in self.layers:
            encoded = layer(encoded, weights)
        return self.norm(encoded), units

    def forward(self, encoded: tuple[Tensor, Tensor], code_points: Tensor, tokens: Tensor, keys: Tensor) -> Tensor:
        """Log-probabilities of roles.

        Args:
            encoded: what :meth:`encode` gave. code_points, tokens: int64 [B, C], the characters and their tokens (any value
                where there is none). keys: [B, A, key_width], the programs asked for each prefix.
        Returns:
            [B, A, C, 1 + max_arguments].
        """
        context, units = encoded
        of_token = context.gather(1, units.gather(1, tokens).unsqueeze(-1).expand(-1, -1, context.shape[-1]))
        here, before, after = self.character(character_classes(code_points)).chunk(3, dim=-1)
        neighbours = functional.pad(before, (0, 0, 1, 0))[:, :-1] + functional.pad(after, (0, 0, 0, 1))[:, 1:]
        trim = functional.gelu(self.trim(functional.gelu(here + neighbours + self.inside(of_token))))
        described = torch.cat([of_token, trim, torch.ones_like(trim[..., :1])], dim=-1)
        roles = self.roles(keys).unflatten(-1, (self.max_arguments, described.shape[-1]))
        scores = torch.einsum("bcw,barw->bacr", described, roles) / described.shape[-1] ** 0.5
        return functional.pad(scores, (1, 0)).log_softmax(-1)


def decode_labelling(log_probabilities: np.ndarray, arguments: int, switch_cost: float) -> np.ndarray:
    """The best labelling under a cost for each change of role between neighbours (Viterbi).

    Args:
        log_probabilities: [C, 1 + max_arguments]. arguments: how many roles the program has. switch_cost: nats.
    Returns:
        int64 [C], roles 0…arguments.
    """
    scores = log_probabilities[:, : arguments + 1].astype(np.float64)
    count, roles = scores.shape
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    back = np.zeros((count, roles), dtype=np.int64)
    best = scores[0].copy()
    for position in range(1, count):
        leader = int(best.argmax())
        switch = best[leader] - switch_cost
        stay = best >= switch
        back[position] = np.where(stay, np.arange(roles), leader)
        best = np.where(stay, best, switch) + scores[position]
    labelling = np.zeros(count, dtype=np.int64)
    role = int(best.argmax())
    for position in range(count - 1, -1, -1):
        labelling[position] = role
        role = int(back[position, role])
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
