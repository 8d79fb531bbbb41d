"""The length-generalisation curve as a module of ``evaluate``."""

import datasets
import evaluate
from neurallib.trainer.metrics import scoring

_DESCRIPTION = "Exact match by the length of the input."

_INPUTS = """
Args:
    predictions: replies, as text.
    references: the answer of each, as text.
    lengths: the length of each input, ≥ 1: digits of a number, numbers of a list, characters of a text.
    edges: buckets (least, most), both included; by default 1–4, 5–8, 9–16, 17–32, … as far as there are inputs.

Returns:
    curve: for each bucket ``least``, ``most``, ``share`` (of exact replies), ``low`` and ``high`` (its Wilson interval of
        95 %), ``count``.
"""


class LengthGeneralisation(evaluate.Metric):
    """See the description in :meth:`_info`."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text, "lengths": datasets.Value("int32")}),
        )

    def _compute(self, predictions, references, lengths, edges=None):  # type: ignore[no-untyped-def]
        hits = [scoring.is_exact(reply, [answer]) for reply, answer in zip(predictions, references, strict=True)]
        return {"curve": scoring.length_curve(hits, [int(length) for length in lengths], edges)}
