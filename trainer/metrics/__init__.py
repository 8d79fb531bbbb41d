"""Metrics as modules of ``evaluate``, loaded from this folder: no network is asked.

    import evaluate
    exact_match = evaluate.load(metric_path("exact_match"))
    exact_match.compute(predictions=["42."], references=["42"])

What they compute is defined in :mod:`.scoring`, which needs neither ``evaluate`` nor torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluate import EvaluationModule

METRICS = (
    "exact_match",
    "call_precision_recall",
    "selection_accuracy",
    "reading_accuracy",
    "length_generalisation",
    "retention",
)


class MetricError(ValueError):
    """A metric that there is not."""


def metric_path(name: str) -> str:
    """What ``evaluate.load`` takes for a metric of this package.

    Raises:
        MetricError: there is no metric of that name.
    """
    if name not in METRICS:
        raise MetricError(f"there is no metric {name!r}; there are {', '.join(METRICS)}")
    return str(Path(__file__).with_name(f"{name}.py"))


def load_metric(name: str, **kwargs: Any) -> EvaluationModule:
    """A metric of this package as an ``evaluate.EvaluationModule``.

    Args:
        kwargs: of ``evaluate.load``: ``num_process``, ``process_id``, ``experiment_id``, ``cache_dir``, …

    Raises:
        MetricError: there is no metric of that name.
    """
    path = metric_path(name)
    import evaluate

    return evaluate.load(path, **kwargs)
