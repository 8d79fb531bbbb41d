"""Call precision and recall as a module of ``evaluate``."""

import datasets
import evaluate
from neurallib.trainer.metrics import scoring

_DESCRIPTION = "Whether calls are made where they are wanted, whichever program."

_INPUTS = """
Args:
    predictions: for each reply the calls made, each with ``program`` and ``arguments`` (a list of texts).
    references: for each reply the calls wanted, in the same form; an empty list where nothing is to be computed.

Returns:
    precision: share of the calls made that were wanted; recall: share of those wanted that were made; f1.
    quiet: share of the replies without a wanted call in which none was made.
    made_calls, wanted_calls, matched_calls, quiet_replies: counts.
"""


class CallPrecisionRecall(evaluate.Metric):
    """See the description in :meth:`_info`."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        calls = datasets.List({"program": text, "arguments": datasets.List(text)})
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": calls, "references": calls}),
        )

    def _compute(self, predictions, references):  # type: ignore[no-untyped-def]
        return scoring.call_precision_recall(predictions, references)
