"""The figures of an evaluation that go with a model: left in its folder, for its card and for the leaderboards of the Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..modeling_neurallib.sharing import EVALUATION, sha256, versions
from .checkpoints import write_whole

_BENCHMARK = re.compile(r"(?P<task>.+)=(?P<id>[\w.-]+/[\w.-]+)(?::(?P<part>[\w.-]+))?")


class EvaluationError(ValueError):
    """A task that cannot be read, a model that cannot be asked, or a folder that holds something else."""


def weights_of(folder: Path) -> dict[str, str]:
    """File → sha256, of the weights in the folder of a model or an adapter.

    Raises:
        EvaluationError: it is neither.
    """
    found = {path.name: sha256(path) for path in sorted(folder.glob("*.safetensors"))}
    if not found or not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise EvaluationError(f"{folder} is no folder of a model or an adapter, whose card could take the figures")
    return found


def benchmarks_of(given: Sequence[str], tasks: Sequence[str]) -> dict[str, dict[str, str]]:
    """Task → ``dataset_id`` and ``task_id`` of the benchmark on the Hub that it is.

    Args:
        given: each ``TASK=org/name`` or ``TASK=org/name:task_id``. tasks: their names.
    Raises:
        EvaluationError: another form, or no such task.
    """
    found = {}
    for text in given:
        match = _BENCHMARK.fullmatch(text)
        if match is None:
            raise EvaluationError(f"a benchmark is given as TASK=org/name:task_id, found {text!r}")
        if match["task"] not in tasks:
            raise EvaluationError(f"{match['task']!r} is none of the tasks: {', '.join(tasks)}")
        found[match["task"]] = {"dataset_id": match["id"], "task_id": match["part"] or "default"}
    return found


def write_figures(
    folder: Path, report: Mapping[str, Any], weights: Mapping[str, str], benchmarks: Mapping[str, Mapping[str, str]]
) -> None:
    """Leave a report in the folder of the model that it is of, in place of an earlier one.

    Args:
        weights: see :func:`weights_of`. benchmarks: see :func:`benchmarks_of`.
    """
    # Of the report, nothing that names places on this machine.
    record = {"tasks": report["tasks"], "settings": report["settings"], "benchmarks": dict(benchmarks)}
    record |= {"versions": versions("neurallib", "torch", "transformers"), "weights": dict(weights)}
    write_whole(folder / EVALUATION, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def results_files(record: Mapping[str, Any] | None) -> dict[str, bytes]:
    """Name → content of the evaluation results files of a record, one for each task that is a benchmark of the Hub."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump

    files = {}
    for task, benchmark in ((record or {}).get("benchmarks") or {}).items():
        found = (record or {})["tasks"].get(task, {}).get("exact_match")
        if found is None or found["share"] is None:
            continue
        value = round(100 * found["share"], 2)
        entry = EvalResultEntry(**benchmark, value=value, notes="with compiled programs (neurallib)")
        name = re.sub(r"\W+", "_", "_".join(benchmark.values()))
        files[f".eval_results/{name}.yaml"] = yaml_dump(eval_result_entries_to_yaml([entry])).encode()
    return files
