"""Selection accuracy as a module of ``evaluate``."""

import datasets
import evaluate
from neurallib.trainer.metrics import scoring

_DESCRIPTION = "Share of the calls made for a wanted one that run the right program."

_INPUTS = """
Args:
    predictions: for each reply the calls made, each with ``program`` and ``arguments`` (a list of texts).
    references: for each reply the calls wanted, in the same form; an empty list where nothing is to be computed.

Returns:
    selection_accuracy: the share, None if no call was made for a wanted one; low, high: its Wilson interval of 95 %.
    count: calls counted.
"""


class SelectionAccuracy(evaluate.Metric):
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
        found = scoring.share(scoring.selections(predictions, references))
        return {"selection_accuracy": found.pop("share"), **found}
