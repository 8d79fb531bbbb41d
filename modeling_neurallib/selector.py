"""The selector: call now? which program? Attention of the present state over program keys, one of them "no call"."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

UNSEEN = -1.0e9
"""Log-weight of a token that attention does not see: finite, so that a row that sees nothing makes no NaN."""


class SequenceDropout(nn.Module):
    """Dropout of whole channels, one draw for all tokens of a sequence: states [..., T, width].

    On a CPU a draw for each entry would cost more than the rest of a training step.
    Source: Gal & Ghahramani, A Theoretically Grounded Application of Dropout in Recurrent Neural Networks, 2016.
    """

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, states: Tensor) -> Tensor:
        if not self.training or self.share == 0.0:
            return states
        kept = functional.dropout(states.new_ones(*states.shape[:-2], 1, states.shape[-1]), self.share)
        return states * kept


class StateProjection(nn.Module):
    """Hidden states of a few layers → the residual stream of a head.

    Each layer's state is divided by its root mean square, so that layers of different scale weigh alike and features can
    be kept in half precision.

    Shapes: hidden states, each [..., H] → features [..., len(layers)·H] → states [..., head_width].
    """

    def __init__(self, hidden_size: int, layers: int, width: int, dropout: float = 0.0):
        super().__init__()
        self.dropout = SequenceDropout(dropout)
        self.linear = nn.Linear(hidden_size * layers, width)
        self.norm = nn.LayerNorm(width)

    @staticmethod
    def features(hidden_states: list[Tensor]) -> Tensor:
        """The layers' states side by side, each of root mean square 1: [..., len(layers)·H], float32 or wider."""
        wide = [state if state.dtype == torch.float64 else state.float() for state in hidden_states]
        return torch.cat([functional.rms_norm(state, state.shape[-1:]) for state in wide], dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        states: Tensor = self.dropout(self.norm(self.linear(self.dropout(features.to(self.norm.weight.dtype)))))
        return states


class Hop(nn.Module):
    """One look of a position at its prefix, and a mix of what it found; residual."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.merge = nn.Linear(width, width)
        self.mix_norm = nn.LayerNorm(width)
        self.mix = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(
        self,
        states: Tensor,
        key: Tensor,
        value: Tensor,
        weights: Tensor,
        coverage: Tensor | None = None,
        moves: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """states [B, T, width], key and value [B, S, width], log-weights [B, T, S] (or [B, 1, S]) → [B, T, width].

        Args:
            coverage: [B, T, S], how far the ``moves``, [width] each, are added to each key and value as a position sees them.
        """
        query = self.query(self.query_norm(states))
        query, key, value = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (query, key, value))
        if coverage is None or moves is None:
            found = functional.scaled_dot_product_attention(query, key, value, attn_mask=weights.unsqueeze(1))
        else:
            # A key of its own for each query would take S times the memory: what coverage adds is summed apart.
            moved_key, moved_value = (move.view(self.heads, 1, -1) for move in moves)
            apart = coverage.unsqueeze(1)
            scores = query @ key.transpose(-1, -2) + apart * (query * moved_key).sum(-1, keepdim=True)
            shares = (scores / query.shape[-1] ** 0.5 + weights.unsqueeze(1)).softmax(-1)
            found = shares @ value + (shares * apart).sum(-1, keepdim=True) * moved_value
        states = states + self.merge(found.transpose(1, 2).flatten(2))
        result: Tensor = states + self.mix(self.mix_norm(states))
        return result


class Selector(nn.Module):
    """Pools the request in a few hops of attention and compares the result with the program keys.

    A key is the projected description of a program (its name and docstring through the backbone) plus an offset that
    tuning may add; so a library loaded today has keys at once. What a position says of itself to later ones
    (:meth:`remember`) depends on its own state alone, so that a cache keeps it as it is.
    """

    def __init__(self, width: int, heads: int, hops: int, key_width: int, description_width: int):
        super().__init__()
        self.memory = nn.Linear(width, 2 * hops * width)
        self.covered = nn.Parameter(torch.zeros(2 * hops * width))
        self.hops = nn.ModuleList(Hop(width, heads) for _ in range(hops))
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, key_width)
        self.key = nn.Linear(description_width, key_width)
        self.key_norm = nn.LayerNorm(key_width, elementwise_affine=False)
        self.no_call = nn.Linear(width, 1)

    @torch.no_grad()
    def begin_from(self, descriptions: Tensor) -> None:
        """Let untrained keys be the whitened descriptions [programs, description_width].

        The descriptions of "sort ascending" and "sort descending" have a cosine of 0.997: through a random projection they are
        one key, and what tells them apart is learned very slowly.
        """
        mean = descriptions.mean(0)
        _, scales, directions = torch.linalg.svd(descriptions - mean, full_matrices=False)
        kept = min(int((scales > 0.05 * scales[0]).sum()), len(self.key.weight))
        if len(descriptions) < 3 or not kept:
            return
        rotation = torch.linalg.qr(torch.randn(len(self.key.weight), kept)).Q
        spread = (len(descriptions) * len(self.key.weight) / kept) ** 0.5
        self.key.weight += (rotation.to(directions) * spread / scales[:kept]) @ directions[:kept]
        self.key.bias.copy_(-self.key.weight @ mean)

    def keys(self, descriptions: Tensor, offsets: Tensor) -> Tensor:
        """Keys of programs: descriptions [programs, description_width], offsets [programs, key_width] → [programs, key_width]."""
        keys: Tensor = self.key_norm(self.key(descriptions.to(self.norm.weight.dtype))) + offsets
        return keys

    def remember(self, states: Tensor) -> Tensor:
        """What later positions may look at: a key and a value for each hop, [B, T, width] → [B, T, 2·hops·width]."""
        memory: Tensor = self.memory(states)
        return memory

    def pool(self, states: Tensor, memory: Tensor, weights: Tensor, coverage: Tensor | None = None) -> Tensor:
        """The state of each position with its prefix pooled into it.

        Args:
            states: [B, T, width] of the positions asked for. memory: [B, S, 2·hops·width] of all positions, S ≥ T.
            weights: [B, T, S], log-weight of each position for each: 0 where it is seen, ``UNSEEN`` where not.
            coverage: [B, T, S], 0…1, how far each position was read by calls before, for each that is asked for, see
                :mod:`.coverage`; by default not at all.
        """
        parts, moves = memory.chunk(2 * len(self.hops), dim=-1), self.covered.chunk(2 * len(self.hops))
        for number, hop in enumerate(self.hops):
            key, value = 2 * number, 2 * number + 1
            states = hop(states, parts[key], parts[value], weights, coverage, (moves[key], moves[value]))
        result: Tensor = self.norm(states)
        return result

    def forward(self, pooled: Tensor, keys: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Log-probabilities over "no call" (index 0) and the programs: [..., 1 + programs].

        Args:
            pooled: [..., width]. keys: [programs, key_width]. allowed: bool [programs], programs that may be called.
        """
        scores = self.query(pooled) @ keys.T / keys.shape[-1] ** 0.5
        if allowed is not None:
            scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        return torch.cat([self.no_call(pooled), scores], dim=-1).log_softmax(-1)


def causal(weights: Tensor, new: int) -> Tensor:
    """Log-weights [B, S] of the positions so far → [B, new, S] for the last ``new`` of them, none of which sees a later one."""
    if new == 1:
        return weights.unsqueeze(1)
    total = weights.shape[1]
    later = torch.ones(new, total, dtype=torch.bool, device=weights.device).triu(total - new + 1)
    return weights.unsqueeze(1).masked_fill(later, UNSEEN)
