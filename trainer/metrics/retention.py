"""Base-ability retention as a module of ``evaluate``."""

import datasets
import evaluate
from neurallib.trainer.metrics import scoring

_DESCRIPTION = "How much of what the base model says is left, where nothing is to be computed."

_INPUTS = """
Args:
    predictions: the model's replies, as token ids.
    references: the base model's replies to the same prompts, as token ids, decoded in the same way.

Returns:
    identical: share of prompts whose reply is the base's, token by token; low, high: its Wilson interval of 95 %.
    agreement: mean over the prompts of the common beginning's length over that of the longer reply.
    count: prompts counted.
"""


class Retention(evaluate.Metric):
    """See the description in :meth:`_info`."""

    def _info(self) -> evaluate.MetricInfo:
        tokens = datasets.List(datasets.Value("int64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": tokens, "references": tokens}),
        )

    def _compute(self, predictions, references):  # type: ignore[no-untyped-def]
        return scoring.retention(predictions, references)
