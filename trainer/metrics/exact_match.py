"""Exact match as a module of ``evaluate``."""

import datasets
import evaluate
from neurallib.trainer.metrics import scoring

_DESCRIPTION = "Share of replies that are right as a whole."

_INPUTS = """
Args:
    predictions: replies, as text.
    references: the answer of each, as text; or a list of answers, in the order in which the reply must state them.

Returns:
    exact_match: share of replies that are the answer, but for white space, commas between numbers and one full stop; with
        several answers, share that state all of them with nothing contradictory behind the last.
    low, high: its Wilson interval of 95 %.
    stated: share of replies in any words that state the answers in order with no other value behind the last.
    count: replies counted.
"""


class ExactMatch(evaluate.Metric):
    """See the description in :meth:`_info`."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": text, "references": text}),
                datasets.Features({"predictions": text, "references": datasets.List(text)}),
            ],
        )

    def _compute(self, predictions, references):  # type: ignore[no-untyped-def]
        answers = [[answer] if isinstance(answer, str) else list(answer) for answer in references]
        both = list(zip(predictions, answers, strict=True))
        exact = scoring.share(scoring.is_exact(*pair) for pair in both)
        stated = scoring.share(scoring.is_stated(*pair) for pair in both)
        return {
            "exact_match": exact["share"],
            "low": exact["low"],
            "high": exact["high"],
            "stated": stated["share"],
            "count": exact["count"],
        }
