"""The selector: call now? which program? Attention of the present state over program keys, one of them "no call"."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class StateProjection(nn.Module):
    """Hidden states of a few layers → the residual stream that selector and reader share.

    Each layer's state is divided by its root mean square, so that layers of different scale weigh alike and features can
    be kept in half precision.

    Shapes: hidden states, each [..., H] → features [..., len(layers)·H] → states [..., head_width].
    """

    def __init__(self, hidden_size: int, layers: int, width: int, dropout: float = 0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden_size * layers, width)
        self.norm = nn.LayerNorm(width)

    @staticmethod
    def features(hidden_states: list[Tensor]) -> Tensor:
        """The layers' states side by side, each of root mean square 1: [..., len(layers)·H], float32 or wider."""
        wide = [state if state.dtype == torch.float64 else state.float() for state in hidden_states]
        return torch.cat([functional.rms_norm(state, state.shape[-1:]) for state in wide], dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        states: Tensor = self.dropout(self.norm(self.linear(self.dropout(features.to(self.linear.weight.dtype)))))
        return states


class Selector(nn.Module):
    """Pools the request with one layer of causal attention and compares the result with the program keys.

    A key is the projected description of a program (its name and docstring through the backbone) plus an offset that
    tuning may add; so a library loaded today has keys at once.
    """

    def __init__(self, width: int, heads: int, key_width: int, description_width: int):
        super().__init__()
        self.heads = heads
        self.attend = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.query = nn.Linear(width, key_width)
        self.key = nn.Linear(description_width, key_width)
        self.key_norm = nn.LayerNorm(key_width, elementwise_affine=False)
        self.no_call = nn.Linear(width, 1)

    def keys(self, descriptions: Tensor, offsets: Tensor) -> Tensor:
        """Keys of programs: descriptions [programs, description_width], offsets [programs, key_width] → [programs, key_width]."""
        keys: Tensor = self.key_norm(self.key(descriptions.to(self.key.weight.dtype))) + offsets
        return keys

    def split(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value of the pooling attention: each [B, heads, T, width/heads]."""
        query, key, value = self.attend(states).view(*states.shape[:-1], 3, self.heads, -1).transpose(1, 3).unbind(2)
        return query, key, value

    def pool(self, states: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """The state of each position with its prefix pooled into it.

        Args:
            states: [B, T, width] of the positions asked for. query: theirs. key, value: of all positions, S ≥ T.
            mask: bool [B, 1, T, S], True where a position may look.
        """
        pooled = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        # A row of padding may look nowhere, which makes NaN: it is never read, but must not spread.
        pooled = torch.where(mask.any(-1, keepdim=True), pooled, torch.zeros_like(pooled))
        states = states + self.merge(pooled.transpose(-2, -3).flatten(-2))
        result: Tensor = states + self.mix(self.norm(states))
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
