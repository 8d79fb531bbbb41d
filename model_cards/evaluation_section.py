"""What a card says of an evaluation: whole replies on tasks, with intervals, and what the base makes of them.

All of it comes from a record, plain data that ``neurallib evaluate --card`` left (``evaluation_record.json``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult

from .markdown import plain

FIGURES = {
    "exact_match": ("exact match", ("exact_match", "share")),
    "stated": ("stated", ("stated", "share")),
    "selection_accuracy": ("selection", ("selection_accuracy", "share")),
    "reading_accuracy": ("reading", ("reading_accuracy", "share")),
    "call_precision": ("precision of calls", ("calls", "precision")),
    "call_recall": ("recall of calls", ("calls", "recall")),
    "quiet": ("no call where none is wanted", ("calls", "quiet")),
    "exact_match_of_base": ("exact match, base", ("base", "exact_match", "share")),
    "identical_to_base": ("identical to base", ("retention", "identical")),
}
"""Metric → what it is in words, and where it stands in what was measured of a task. All are shares, 0 to 1."""

COUNTED = {"call_precision": "made_calls", "call_recall": "wanted_calls", "quiet": "quiet_replies"}
"""Metric of calls → how many it is of: one of none says nothing."""

EVALUATION = """
{%- if evaluation %}
## Evaluation of whole replies

Measured with `neurallib evaluate`: greedy replies, percent, intervals of 95 % in brackets.

| task | examples | {{ evaluation.columns | join(" | ") }} |
|---|---:|{% for column in evaluation.columns %}---:|{% endfor %}
{% for row in evaluation.rows -%}
| {{ row | join(" | ") }} |
{% endfor %}
{%- endif %}
"""


def evaluation_fields(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A record, ready for the template.

    Args:
        record: ``tasks``: name → what ``neurallib evaluate`` reports of it. None if there is no evaluation.
    """
    tasks = _tasks(record)
    columns = [metric for metric in FIGURES if any(metric in found for _, _, found in tasks)]
    if not columns:
        return None
    return {
        "columns": [FIGURES[metric][0] for metric in columns],
        "rows": [
            [plain(name), f"{int(task['examples']):,}", *(_percent(task, metric, found) for metric in columns)]
            for name, task, found in tasks
        ],
    }


def evaluated(record: Mapping[str, Any] | None) -> list[EvalResult]:
    """What was measured of the model itself, for the ``model-index`` of a card."""
    return [
        EvalResult(
            task_type="text-generation",
            task_name="Text generation with calls",
            dataset_type=name.partition(":")[0],
            dataset_name=name,
            dataset_split=name.partition(":")[2] or None,
            metric_type=metric,
            metric_name=FIGURES[metric][0],
            metric_value=round(value, 4),
        )
        for name, _, found in _tasks(record)
        for metric, value in found.items()
        if metric != "exact_match_of_base"
    ]


def _tasks(record: Mapping[str, Any] | None) -> list[tuple[str, Mapping[str, Any], dict[str, float]]]:
    """Name, report and figures (metric → share) of each task."""
    tasks = (record or {}).get("tasks") or {}
    return [(str(name), task, _figures(task)) for name, task in tasks.items()]


def _figures(task: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    for metric, (_, path) in FIGURES.items():
        *parts, last = path
        value = _at(task, parts).get(last)
        counted = metric not in COUNTED or _at(task, parts).get(COUNTED[metric])
        if value is not None and counted:
            found[metric] = float(value)
    return found


def _at(task: Mapping[str, Any], path: list[str]) -> Mapping[str, Any]:
    for part in path:
        task = task.get(part) or {}
    return task


def _percent(task: Mapping[str, Any], metric: str, found: Mapping[str, float]) -> str:
    if metric not in found:
        return "–"
    of = _at(task, list(FIGURES[metric][1][:-1]))
    interval = f" ({100 * of['low']:.0f}–{100 * of['high']:.0f})" if "low" in of else ""
    return f"{100 * found[metric]:.1f}{interval}"
