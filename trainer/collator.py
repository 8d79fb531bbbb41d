"""The collator: conversations → the tensors that ``NeuralLibForCausalLM.forward`` trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

from ..modeling_neurallib.modeling_neurallib import NeuralLibForCausalLM
from ..modeling_neurallib.objective import Explanation, call_labels
from .arguments import NO_PACKING, TrainingArgumentsError, one_of
from .own_data import RowReader

logger = logging.get_logger(__name__)

IGNORED = -100
"""Label of a token that is not of the answer."""


class DataCollatorForCalls:
    """Pads conversations into a batch: rows (see :mod:`.own_data`), lessons, or tokens (``input_ids`` and ``labels``).

    It serves the stock ``Trainer`` too, with ``remove_unused_columns=False``.

    Args:
        tokenizer: pads on its ``padding_side`` if none is given. model: for its library and characters.
        padding_side: "left" or "right". pad_to_multiple_of: tokens.
        packing: refused, because a call reads all of the row before it.
        reading: arguments of :class:`RowReader`.
    Returns:
        (when called) int64: ``input_ids``, ``attention_mask``, ``labels`` [B, L], −100 on prompt and padding, and, but for
        tokens, ``call_targets`` [B, K, 9], the calls that explain each answer. A row whose answer has too many explanations
        says nothing: its labels are −100 throughout.
    Raises:
        TrainingArgumentsError: packing, an unknown side, or a tokenizer with neither padding nor end token.
        RowError: (when called) a row that cannot be trained on.
    """

    def __init__(
        self,
        tokenizer: Any,
        model: NeuralLibForCausalLM,
        padding_side: str | None = None,
        pad_to_multiple_of: int | None = None,
        packing: bool = False,
        **reading: Any,
    ):
        if packing:
            raise TrainingArgumentsError(NO_PACKING)
        self.tokenizer = tokenizer
        self.padding_side = one_of("padding_side", padding_side or tokenizer.padding_side, ("left", "right"))
        self.multiple = pad_to_multiple_of or 1
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        if pad is None:
            raise TrainingArgumentsError(
                "the tokenizer has neither a padding nor an end token: set tokenizer.pad_token"
            )
        self.pad = int(pad)
        self.reader = RowReader(model, tokenizer, **reading)

    def __call__(self, items: Sequence[Any]) -> dict[str, Tensor]:
        read = [self._read(item) for item in items]
        longest = max(len(tokens) for tokens, _, _, _ in read)
        longest = -(-longest // self.multiple) * self.multiple
        shape = (len(read), longest)
        tokens = torch.full(shape, self.pad, dtype=torch.long)
        mask = torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, IGNORED, dtype=torch.long)
        calls: list[list[Explanation] | None] = []
        for row, (ids, own, explanations, _) in enumerate(read):
            start = longest - len(ids) if self.padding_side == "left" else 0
            tokens[row, start : start + len(ids)] = torch.tensor(ids)
            mask[row, start : start + len(ids)] = 1
            labels[row, start : start + len(ids)] = torch.tensor(own)
            calls.append(explanations and [replace(one, start=one.start + start) for one in explanations])
        batch = {"input_ids": tokens, "attention_mask": mask, "labels": labels}
        if all(one is None for one in calls):
            return batch
        given = [row for row, (*_, one) in enumerate(read) if one]
        return {**batch, "call_targets": call_labels(calls, given)}

    def _read(self, item: Any) -> tuple[list[int], list[int], list[Explanation] | None, bool]:
        """Tokens, labels, the calls (None where the model is to search for them), and whether they were given."""
        if isinstance(item, Mapping) and "input_ids" in item:
            for column in ("position_ids", "seq_idx", "cu_seq_lens_q"):
                if column in item:
                    raise TrainingArgumentsError(f"the rows have {column!r}, as packed ones do: {NO_PACKING}")
            tokens = [int(token) for token in item["input_ids"]]
            real = [bool(one) for one in item.get("attention_mask", [1] * len(tokens))]
            kept = [token for token, one in zip(tokens, real, strict=True) if one]
            own = [int(label) for label, one in zip(item["labels"], real, strict=True) if one]
            return kept, own, None, False
        lesson, remark = self.reader.lesson(item)
        tokens, prompt = list(lesson.conversation.tokens), lesson.conversation.prompt
        if remark == "ambiguous":
            # A data set that is read as a whole leaves such a row out; a batch keeps its rows.
            logger.warning_once("answers that have too many explanations are not trained on")
            return tokens, [IGNORED] * len(tokens), [], False
        return tokens, [IGNORED] * prompt + tokens[prompt:], list(lesson.explanations), not lesson.alone
