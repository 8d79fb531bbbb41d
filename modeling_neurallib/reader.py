"""The reader: which characters of the prefix are the arguments of a call?

It scores, for each character, its roles and the moves of :mod:`.labelling` between it and the one before. A score is that of
the character's token plus a trim inside the token, because many requests have a token that straddles an argument's edge (",-" in
``max(12,-7)``).

The tokens of one number count as one: a token that goes on with the digits of the one before speaks with the voice of the
number's first. So a number of forty digits is read as one of four is, in a vocabulary of single digits and in one of threes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .labelling import MOVES
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
    """Scores of labellings of a prefix, for one or more programs.

    The prefix is encoded once in both directions, with the pooled state of the call's position in every token; a program
    asks for its arguments with vectors made from its key. The reader has a projection of its own: its gradient is a sum
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
        self.covered = nn.Parameter(torch.zeros(width))
        self.layers = nn.ModuleList(ReaderLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.character = nn.Embedding(CHARACTER_CLASSES, 3 * self.character_width)
        self.inside = nn.Linear(width, self.character_width)
        self.trim = nn.Linear(self.character_width, self.character_width)
        self.scores = nn.Linear(key_width, (max_arguments + len(MOVES)) * (width + self.character_width + 1))

    def encode(
        self, states: Tensor, weights: Tensor, pooled: Tensor, coverage: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The prefix in context.

        Args:
            states: [B, L, width], the reader's ``projection`` of the features. weights: [B, L], log-weight of each token:
                ``UNSEEN`` for padding, for what comes after the call's position, and for tokens that go on with a number.
            pooled: [B, width] of the call's position. coverage: [B, L], 0…1, see :mod:`.coverage`.
        Returns:
            encoded units [B, U, width]; the unit that each token belongs to, int64 [B, L].
        """
        seen = weights > UNSEEN
        units = (seen.cumsum(1) - 1).clamp(min=0)
        count = int(seen.sum(1).max()) if seen.numel() else 0
        leaders = seen.sort(dim=1, descending=True, stable=True).indices[:, :count]
        if coverage is not None:
            states = states + coverage.unsqueeze(-1) * self.covered
        encoded = states.gather(1, leaders.unsqueeze(-1).expand(-1, -1, states.shape[-1]))
        encoded = encoded + self.position(pooled).unsqueeze(1)
        weights = weights.gather(1, leaders)
        for layer in self.layers:
            encoded = layer(encoded, weights)
        return self.norm(encoded), units

    def forward(
        self, encoded: tuple[Tensor, Tensor], code_points: Tensor, tokens: Tensor, keys: Tensor, texts: Tensor
    ) -> Tensor:
        """Potentials of labellings, for P pairs of a prefix and a program.

        Args:
            encoded: what :meth:`encode` gave. code_points, tokens: int64 [B, C], the characters and their tokens (any value
                where there is none). keys: [P, key_width] of the programs. texts: int64 [P], the prefix of each pair, 0…B−1.
        Returns:
            [P, C, max_arguments + 6], see :mod:`.labelling`.
        """
        context, units = encoded
        of_token = context.gather(1, units.gather(1, tokens).unsqueeze(-1).expand(-1, -1, context.shape[-1]))
        here, before, after = self.character(character_classes(code_points)).chunk(3, dim=-1)
        neighbours = functional.pad(before, (0, 0, 1, 0))[:, :-1] + functional.pad(after, (0, 0, 0, 1))[:, 1:]
        trim = functional.gelu(self.trim(functional.gelu(here + neighbours + self.inside(of_token))))
        described = torch.cat([of_token, trim, torch.ones_like(trim[..., :1])], dim=-1)
        asked = self.scores(keys).unflatten(-1, (self.max_arguments + len(MOVES), described.shape[-1]))
        potentials: Tensor = described[texts] @ asked.transpose(1, 2) / described.shape[-1] ** 0.5
        return potentials
