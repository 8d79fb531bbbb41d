"""The call: a latent variable (start position, program, arguments), and the cache layer that remembers calls.

The next token is a function of the prefix alone. What the layer keeps (the heads' states of the prefix, the calls decided so
far) could be computed again from the prefix at any time: a cache only saves work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from .selector import UNSEEN

CROPS_TO_A_LENGTH = "max_length" in signature(DynamicLayer.crop).parameters
"""Whether this transformers crops a cache to a length, not by a number of positions."""


@dataclass(frozen=True)
class Call:
    """One run of a program by the language model.

    Attributes:
        start: tokens (padding not counted) before the position at which the call was opened.
        program: name of the program. library: the library that it comes from.
        arguments: their texts, as read. probability: of this program at this position, 0…1.
        result: the program's result text; None after a fault. tokens: the tokens it is written with, the lead included.
        ends_turn: the turn ends with the result; else the next call or the backbone goes on.
        steps: instructions run. fault: why there is no result ("" if there is one). seconds: wall time of reading and running.
        read: the tokens that the arguments were copied from, counted as ``start`` is.
    """

    start: int
    program: str
    library: str
    arguments: tuple[str, ...]
    # Two records of the same call are equal whatever rounding did to its probability, and whatever time it took.
    probability: float = field(default=0.0, compare=False)
    result: str | None = None
    tokens: tuple[int, ...] = ()
    ends_turn: bool = False
    steps: int = 0
    fault: str = ""
    seconds: float = field(default=0.0, compare=False)
    read: tuple[int, ...] = ()

    def record(self) -> dict[str, Any]:
        """The call as plain data, for files and people: without ``read``, a number for each token of a list."""
        return {name: value for name, value in asdict(self).items() if name != "read"}


@dataclass
class Row:
    """The tokens of one sequence (padding left out) and the calls decided in it."""

    tokens: list[int] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    def copy(self) -> Row:
        return Row(list(self.tokens), list(self.calls))

    def repeats(self, call: Call) -> bool:
        """Whether a call would say again what has just been said: the program and arguments of the last, right after its result."""
        following = self.following()
        if following is None or following[1] != len(following[0].tokens):
            return False
        return (call.program, call.arguments) == (following[0].program, following[0].arguments)

    def following(self) -> tuple[Call, int] | None:
        """The last call that has a result and how many tokens follow its start, if the text has kept to it; else None.

        With k tokens following: k < len(call.tokens), the result is being written; k ≥ len, it is complete.
        """
        call = next((call for call in reversed(self.calls) if call.result is not None), None)
        if call is None:
            return None
        written = tuple(self.tokens[call.start : call.start + len(call.tokens)])
        if written != call.tokens[: len(written)]:
            return None
        return call, len(self.tokens) - call.start

    def covered(self) -> frozenset[int]:
        """The tokens that calls have read whose results stand one directly behind the other and end here: see :mod:`.coverage`."""
        covered: set[int] = set()
        end = len(self.tokens)
        for call in reversed(self.calls):
            if call.result is None:
                continue
            if call.start + len(call.tokens) != end or tuple(self.tokens[call.start : end]) != call.tokens:
                break
            covered.update(call.read)
            end = call.start
        return frozenset(covered)

    def drop(self, tokens: int) -> None:
        """Take back the last tokens, and the calls that were opened after what remains."""
        if tokens:
            del self.tokens[-tokens:]
            self.calls = [call for call in self.calls if call.start <= len(self.tokens)]

    def hide(self, seen: list[bool]) -> None:
        """Take tokens out of the text, those that are False in ``seen``, and the calls that were opened after the first of them."""
        if all(seen):
            return
        self.calls = [call for call in self.calls if call.start <= seen.index(False)]
        self.tokens = [token for token, kept in zip(self.tokens, seen, strict=True) if kept]


@dataclass(frozen=True)
class Place:
    """Where a call may open.

    Attributes:
        number: the sequence. position: the column, padding counted. features: [F] of it.
        covered: the tokens that earlier calls have read, padding not counted: see :meth:`Row.covered`.
    """

    number: int
    position: int
    features: Tensor
    covered: frozenset[int]


UNREAD = 64
"""Positions whose features may wait. Their projection together reads its weights once; more of them would only take memory."""


class CallLayer(CacheLayerMixin):
    """An extra layer of the cache's ``layers`` with the state of the computer.

    Tensors, S positions (padding included): ``memory`` [B, S, ·], what the selector keeps of each; ``mask`` bool [B, S], False
    for padding; ``weights`` [B, S], log-weight of each in attention; rows: tokens and calls. They are the first S positions of
    ``held``, which grows by doubling, so that a token does not copy all that came before it.

    Most tokens are never read, and a projection of one by itself costs the time in which its weights come from memory. So the
    features of the last positions, :data:`UNREAD` at most, wait until a call opens: see :meth:`settle`.
    """

    is_compileable = False
    is_croppable = True
    supports_early_init = False
    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self.held: tuple[Tensor, ...] | None = None
        self.length = 0
        self.settled: Tensor | None = None
        self.unread: list[Tensor] = []

    @property
    def memory(self) -> Tensor:
        return self._read(0)

    @property
    def mask(self) -> Tensor:
        return self._read(1)

    @property
    def weights(self) -> Tensor:
        return self._read(2)

    def _read(self, number: int) -> Tensor:
        if self.held is None:
            raise RuntimeError("the call layer is empty: nothing has been read yet")
        return self.held[number][:, : self.length]

    def settle(self, project: Callable[[Tensor], Tensor]) -> Tensor:
        """The reader's states of all positions, [B, S, width].

        Args:
            project: features [B, T, F] → states [B, T, width], of positions that were not read before.
        """
        if self.unread:
            new = project(torch.cat(self.unread, dim=1))
            self.settled = new if self.settled is None else torch.cat([self.settled, new], dim=1)
            self.unread = []
        if self.settled is None:
            raise RuntimeError("the call layer is empty: nothing has been read yet")
        return self.settled

    @property
    def waiting(self) -> int:
        """Positions whose features wait."""
        return sum(features.shape[1] for features in self.unread)

    def extend(self, features: Tensor, memory: Tensor, mask: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        """Append T positions: features [B, T, F], memory [B, T, ·], mask bool [B, T], weights [B, T]; returns ``held``."""
        self.unread.append(features)
        before, self.length = self.length, self.length + mask.shape[1]
        if self.held is None:
            self.held = (memory, mask.clone(), weights)  # the mask may be the caller's
            self.rows = [Row() for _ in range(mask.shape[0])]
            return self.held
        frozen = self.held[0].is_inference() and not torch.is_inference_mode_enabled()
        if self.length > self.held[0].shape[1] or frozen:
            room = 2 * self.length
            self.held = tuple(
                torch.cat([held[:, :before], held.new_empty(held.shape[0], room - before, *held.shape[2:])], dim=1)
                for held in self.held
            )
        for held, more in zip(self.held, (memory, mask, weights), strict=True):
            held[:, before : self.length] = more
        return self.held

    def hide(self, mask: Tensor) -> bool:
        """Let positions that were read be padding, as those behind an ended sequence are in the next turn.

        Args:
            mask: bool [B, S], False for padding.
        Returns:
            False where padding would turn into text, which was not read; then nothing has changed.
        """
        before = self.mask
        if torch.equal(before, mask):
            return True
        if bool((mask & ~before).any()):
            return False
        for row, was, now in zip(self.rows, before, mask, strict=True):
            row.hide(now[was].tolist())
        memory, *rest = self.held or ()
        real, weights = (held.clone() for held in rest)
        real[:, : self.length] = mask
        weights[:, : self.length].masked_fill_(~mask, UNSEEN)
        self.held = (memory, real, weights)
        return True

    def _select(self, indices: Tensor) -> None:
        if self.held is None:
            return
        self.rows = [self.rows[index].copy() for index in indices.tolist()]
        self.held = tuple(held.index_select(0, indices.to(held.device)) for held in self.held)
        self.unread = [features.index_select(0, indices.to(features.device)) for features in self._unread_together()]
        if self.settled is not None:
            self.settled = self.settled.index_select(0, indices.to(self.settled.device))

    def _unread_together(self) -> list[Tensor]:
        return [torch.cat(self.unread, dim=1)] if self.unread else []

    # What generation asks of a cache layer.

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._select(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        self._select(indices if indices.dtype != torch.bool else indices.nonzero().flatten())

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._select(torch.arange(len(self.rows)).repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last ``-tokens_to_remove`` positions (a negative number, as all layers expect).

        In early versions of transformers 5 a number that is not negative is how many positions to keep.
        """
        if CROPS_TO_A_LENGTH and tokens_to_remove >= 0:
            tokens_to_remove = min(tokens_to_remove - self.length, 0)
        remove = min(-tokens_to_remove, self.length)
        if remove < 0:
            raise ValueError(
                f"crop takes the number of tokens to remove as a negative integer, found {tokens_to_remove}"
            )
        if remove == 0 or self.held is None:
            return
        for row, real in zip(self.rows, self.mask[:, -remove:].sum(1).tolist(), strict=True):
            row.drop(int(real))
        self.length = left = self.length - remove
        read = 0 if self.settled is None else self.settled.shape[1]
        self.unread = [features[:, : left - read] for features in self._unread_together() if left > read]
        if self.settled is not None:
            self.settled = self.settled[:, :left]

    def reset(self) -> None:
        self.rows, self.held, self.length, self.settled, self.unread = [], None, 0, None, []

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

    def get_max_cache_shape(self) -> int:
        """:meth:`get_max_length`, as early versions of transformers 5 call it."""
        return -1
