"""The call: a latent variable (start position, program, arguments), and the cache layer that remembers calls.

The next token is a function of the prefix alone. What the layer keeps (the heads' states of the prefix, the calls decided so
far) could be computed again from the prefix at any time: a cache only saves work.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin


@dataclass(frozen=True)
class Call:
    """One run of a program by the language model.

    Attributes:
        start: tokens (padding not counted) before the position at which the call was opened.
        program: name of the program. library: the library that it comes from.
        arguments: their texts, as read. probability: of this program at this position, 0…1.
        result: the program's result text; None after a fault. tokens: the tokens it is written with, the lead included.
        steps: instructions run. fault: why there is no result ("" if there is one). seconds: wall time of reading and running.
    """

    start: int
    program: str
    library: str
    arguments: tuple[str, ...]
    # Two records of the same call are equal whatever rounding did to its probability, and whatever time it took.
    probability: float = field(default=0.0, compare=False)
    result: str | None = None
    tokens: tuple[int, ...] = ()
    steps: int = 0
    fault: str = ""
    seconds: float = field(default=0.0, compare=False)


@dataclass
class Row:
    """The tokens of one sequence (padding left out) and the calls decided in it."""

    tokens: list[int] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    def copy(self) -> Row:
        return Row(list(self.tokens), list(self.calls))

    def following(self) -> tuple[Call, int] | None:
        """The last call that has a result and how many tokens follow its start, if the text has kept to it; else None.

        With k tokens following: k < len(call.tokens), the result is being written; k ≥ len, it is complete.
        """
        if not self.calls or self.calls[-1].result is None:
            return None
        call = self.calls[-1]
        written = tuple(self.tokens[call.start : call.start + len(call.tokens)])
        if written != call.tokens[: len(written)]:
            return None
        return call, len(self.tokens) - call.start

    def drop(self, tokens: int) -> None:
        """Take back the last tokens, and the calls that were opened after what remains."""
        if tokens:
            del self.tokens[-tokens:]
            self.calls = [call for call in self.calls if call.start <= len(self.tokens)]


class CallLayer(CacheLayerMixin):
    """An extra layer of ``past_key_values.layers`` with the state of the computer.

    Tensors, S positions (padding included): ``states`` [B, S, width], ``key`` and ``value`` [B, heads, S, width/heads] of the
    selector's attention, ``mask`` bool [B, S]. Rows: tokens and calls.
    """

    is_compileable = False
    is_croppable = True
    supports_early_init = False
    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self.states: Tensor | None = None
        self.key: Tensor | None = None
        self.value: Tensor | None = None
        self.mask: Tensor | None = None

    @property
    def length(self) -> int:
        """Positions held, S."""
        return 0 if self.mask is None else self.mask.shape[1]

    def extend(self, states: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> None:
        """Append T positions: states [B, T, width], key and value [B, heads, T, ·], mask bool [B, T]."""
        if self.states is None or self.key is None or self.value is None or self.mask is None:
            self.states, self.key, self.value, self.mask = states, key, value, mask
            self.rows = [Row() for _ in range(mask.shape[0])]
            return
        self.states = torch.cat([self.states, states], dim=1)
        self.key = torch.cat([self.key, key], dim=2)
        self.value = torch.cat([self.value, value], dim=2)
        self.mask = torch.cat([self.mask, mask], dim=1)

    def _select(self, indices: Tensor) -> None:
        if self.states is None or self.key is None or self.value is None or self.mask is None:
            return
        self.rows = [self.rows[index].copy() for index in indices.tolist()]
        indices = indices.to(self.states.device)
        self.states, self.key = self.states.index_select(0, indices), self.key.index_select(0, indices)
        self.value, self.mask = self.value.index_select(0, indices), self.mask.index_select(0, indices)

    # What generation asks of a cache layer.

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._select(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        self._select(indices if indices.dtype != torch.bool else indices.nonzero().flatten())

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._select(torch.arange(len(self.rows)).repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last ``-tokens_to_remove`` positions (a negative number, as all layers expect)."""
        remove = min(-tokens_to_remove, self.length)
        if remove < 0:
            raise ValueError(
                f"crop takes the number of tokens to remove as a negative integer, found {tokens_to_remove}"
            )
        if remove == 0 or self.states is None or self.key is None or self.value is None or self.mask is None:
            return
        for row, real in zip(self.rows, self.mask[:, -remove:].sum(1).tolist(), strict=True):
            row.drop(int(real))
        self.states, self.mask = self.states[:, :-remove], self.mask[:, :-remove]
        self.key, self.value = self.key[:, :, :-remove], self.value[:, :, :-remove]

    def reset(self) -> None:
        self.rows, self.states, self.key, self.value, self.mask = [], None, None, None, None

    def activate_past_recording(self) -> None:
        """Nothing to switch on: every position can be taken back."""

    def offload(self) -> None:
        """Kept on the device: a few hundred floats a token."""

    def prefetch(self) -> None:
        """See :meth:`offload`."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to prepare: the first :meth:`extend` does it."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        raise TypeError(
            "the call layer holds no keys and values of the decoder; more decoder layers ran than the model has"
        )

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1
