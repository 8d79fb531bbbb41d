"""The writer: a learned lead, then the result's characters cut into tokens, then a learned end."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from .characters import CharacterTable

LEADS = ("", " ", "\n")
"""What may stand before a result: nothing, a space, or, where it follows another, a line break."""

END, GO_ON = 0, 1
"""The two choices after a complete result: the turn ends, or the next call or the backbone goes on."""


class Writer(nn.Module):
    """Two small choices of the model around a result that is not its own, both made at the position where the call opens.

    There the state is that of the request. At the end of a result of sixty numbers it is that of a list such as training never
    had, and says little about whether something is still to come.
    """

    def __init__(self, width: int):
        super().__init__()
        self.lead = nn.Linear(width, len(LEADS))
        self.end = nn.Linear(width, 2)

    def lead_scores(self, pooled: Tensor) -> Tensor:
        """Log-probabilities of the leads: [..., width] → [..., 3]."""
        return self.lead(pooled).log_softmax(-1)

    def end_scores(self, pooled: Tensor) -> Tensor:
        """Log-probabilities that the turn ends with the result and that it goes on: [..., width] → [..., 2]."""
        return self.end(pooled).log_softmax(-1)


def result_tokens(table: CharacterTable, lead: int, result: str) -> list[int]:
    """The tokens of a result: the one rule for inference and for training targets."""
    return table.cut(LEADS[lead] + result)


def lead_at_the_end(text: str) -> int:
    """The longest lead that a text ends with."""
    return max((lead for lead, before in enumerate(LEADS) if text.endswith(before)), key=lambda lead: len(LEADS[lead]))


def forbidden_after(table: CharacterTable, result: str, following: list[int]) -> np.ndarray | None:
    """Tokens that would extend a complete result, bool [vocabulary]; None when none is forbidden.

    Directly after the result: letters, digits, a point with digits. After a lone separator ("5535" "."): digits, because
    "5535.5" contradicts the result just as well.

    Args:
        following: the tokens after the result so far, 0 or 1.
    """
    if not result:
        return None
    if not following:
        return table.extending
    if result[-1].isdigit() and table.bytes_of(following[0]) in (b".", b",", b"/", b"'", b"_", b"e", b"-"):
        return table.digit_first
    return None
