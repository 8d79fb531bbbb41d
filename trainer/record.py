"""The record that a training run leaves beside the weights, from which their card tells how they came about."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from ..modeling_neurallib.loaded_libraries import records
from ..modeling_neurallib.sharing import RECORD, base_revision, hub_name, sha256, versions

ARGUMENTS = (
    *(
        "learning_rate",
        "lr_scheduler_type",
        "warmup_steps",
        "optim",
        "weight_decay",
        "max_grad_norm",
        "num_train_epochs",
    ),
    *("max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "seed", "bf16", "fp16"),
)
"""What a record keeps of the arguments of the stock Trainer; of ours it keeps all. Paths and tokens stay at home."""

OURS_KEPT_APART = ("train", "supervision", "packing", "sample_size", "sample_steps", "cached_features")


def source_of(dataset: Any) -> str | None:
    """What a data set is, in words that say nothing of this machine."""
    if dataset is None:
        return None
    if isinstance(dataset, (str, Path)):
        return Path(dataset).name if os.path.exists(dataset) else str(dataset)
    info = getattr(dataset, "info", None)
    if info is not None:
        parts = (
            getattr(info, "dataset_name", None),
            getattr(info, "config_name", None),
            getattr(dataset, "split", None),
        )
        return (
            " ".join(["datasets:", *(str(part) for part in parts if part)])
            if any(parts)
            else "datasets: rows in memory"
        )
    return {"Lessons": "requests that were generated", "list": "rows passed in Python"}.get(
        type(dataset).__name__, "rows"
    )


def training_record(trainer: Any) -> dict[str, Any]:
    """What a trainer knows: see ``training_fields`` of the cards.

    Args:
        trainer: a :class:`~.training.NeuralLibTrainer`.
    """
    args, ours, state, config = trainer.args, trainer.ours, trainer.state, trainer.language_model.config
    own = {field.name for field in dataclasses.fields(ours)} - {
        field.name for field in dataclasses.fields(TrainingArguments)
    }
    kept = {name: getattr(args, name) for name in ARGUMENTS} | {
        name: getattr(ours, name) for name in sorted(own) if name not in OURS_KEPT_APART
    }
    history = [dict(row) for row in state.log_history]
    measured = next((row for row in reversed(history) if any(name.startswith("eval_") for name in row)), {})
    aside = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
    metrics = {
        name.removeprefix("eval_"): value
        for name, value in measured.items()
        if name.startswith("eval_") and not name.endswith(aside)
    }
    summary = next((row for row in reversed(history) if "train_runtime" in row), {})
    return {
        "base_model": hub_name(config),
        "base_revision": base_revision(config),
        "libraries": [
            {"name": each.name, "programs": list(each.programs), "fingerprint": each.fingerprint}
            for each in records(config)
        ],
        "trained": trainer.trained,
        "supervision": ours.supervision,
        "steps": state.global_step,
        "epochs": state.epoch,
        "seconds": summary.get("train_runtime"),
        "data": trainer.data_described,
        "arguments": {name: getattr(value, "value", value) for name, value in kept.items() if value is not None},
        "log": history,
        "metrics": metrics,
        "sample_size": ours.sample_size,
        "hardware": hardware(args),
        "versions": versions("neurallib", "torch", "transformers", "peft", "datasets", "accelerate"),
    }


def hardware(args: Any) -> str:
    """The devices of a run, in words."""
    if args.device.type == "cuda":
        return f"{args.world_size} × {torch.cuda.get_device_name(args.device)}"
    cores = f"{os.cpu_count()} cores ({platform.machine()})"
    return cores if args.device.type == "cpu" else f"{args.device.type}, {cores}"


def write_record(folder: str | os.PathLike[str], record: dict[str, Any]) -> None:
    """Put a record beside the weights that it tells of, with their sha256."""
    weights = {path.name: sha256(path) for path in sorted(Path(folder).glob("*.safetensors"))}
    text = json.dumps(record | {"weights": weights}, indent=2, default=str)
    (Path(folder) / RECORD).write_text(text + "\n", encoding="utf-8")
