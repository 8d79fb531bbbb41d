"""The configuration of a LLaMA with a computer inside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from huggingface_hub.dataclasses import strict, validated_field
from transformers import LlamaConfig

from .machine_config import PAPER, MachineConfig
from .remote_code import AUTO_MAP, write_remote_code

ESTIMATORS = ("marginal", "dense")
"""What the loss can differentiate: see ``estimator`` of :class:`NeuralLibConfig`."""


def _is_estimator(value: Any) -> None:
    if value not in ESTIMATORS:
        raise ValueError(f"estimator cannot be {value!r}; expected one of {', '.join(map(repr, ESTIMATORS))}")


@strict
class NeuralLibConfig(LlamaConfig):
    """A ``LlamaConfig`` plus the shape of the computer and of the heads that use it.

    Attributes:
        machine: fields of :class:`MachineConfig` on which calls are answered.
        library: what ``library_config.json`` says of the library inside the model (programs, docstrings, symbols); the
            instructions themselves are a buffer of the model. ``None``: no library, so nothing is ever called.
        feature_layers: hidden states that the heads read, as ``output_hidden_states`` counts them (0 is the embedding).
        head_width: width of the selector's and the reader's residual stream.
        head_heads: attention heads of both; divides ``head_width``.
        head_dropout, reader_dropout: of the features and the stream, while training; the selector's and the reader's.
        key_width: width of a program key.
        reader_layers: bidirectional layers of the reader.
        max_arguments: roles that the reader knows besides "none".
        call_threshold: a call is opened where the probability of "no call" is below 1 − call_threshold.
        estimator: what the loss of ``forward(labels=…)`` differentiates: "marginal", the choices (programs run exactly), or
            "dense", the execution too (small machines and libraries).
        dense_machine: fields of :class:`MachineConfig` for the estimator "dense".
        max_calls: calls in one sequence, after which the model goes on by itself.
        max_steps: machine steps in one sequence, likewise.
        libraries: a record of each library that ``library`` was linked from: name, programs, instructions, sha256, where it
            came from, whether it is kept by reference, bias. ``None``: ``library`` is one library.
        active_libraries: names of those that may be called; all if ``None``.
        allowed_libraries: names, repositories or sha256 of the libraries that may ever be called; all if ``None``.
        allowed_programs: programs that may ever be called, likewise.
        disabled_programs: qualified names of programs that the model may not call.
        end_of_turn_token_id: the token that the writer ends a turn with.
        token_bytes: bytes in the character table (a buffer of the model).
    """

    model_type = "neurallib"
    keys_to_ignore_at_inference = ["past_key_values", "cache", "calls", "log_likelihoods", "parts"]  # noqa: RUF012 - as in the base class

    machine: dict[str, Any] | None = None
    library: dict[str, Any] | None = None
    feature_layers: list[int] | None = None
    head_width: int = 192
    head_heads: int = 6
    head_dropout: float = 0.0
    reader_dropout: float = 0.1
    key_width: int = 96
    selector_hops: int = 2
    reader_layers: int = 2
    max_arguments: int = 2
    call_threshold: float = 0.5
    estimator: str = validated_field(_is_estimator, default="marginal")
    dense_machine: dict[str, Any] | None = None
    max_calls: int = 64
    max_steps: int = 100_000_000
    libraries: list[dict[str, Any]] | None = None
    active_libraries: list[str] | None = None
    allowed_libraries: list[str] | None = None
    allowed_programs: list[str] | None = None
    disabled_programs: list[str] | None = None
    end_of_turn_token_id: int | None = None
    token_bytes: int = 0

    def __post_init__(self, **kwargs: Any) -> None:
        if self.machine is None:
            self.machine = MachineConfig().to_dict()
        if self.dense_machine is None:
            self.dense_machine = PAPER.to_dict()
        if self.feature_layers is None:
            depth = self.num_hidden_layers
            self.feature_layers = sorted({max(1, round(depth * share)) for share in (0.27, 0.53, 0.8)})
        super().__post_init__(**kwargs)

    def validate_neurallib(self) -> None:
        """Part of the strict validation of transformers: shapes that no model can have are refused here."""
        if self.head_width % self.head_heads:
            raise ValueError(f"head_width ({self.head_width}) is not a multiple of head_heads ({self.head_heads})")
        layers = self.feature_layers or []
        if any(not 0 <= layer <= self.num_hidden_layers for layer in layers):
            raise ValueError(f"feature_layers {layers} must lie in 0…{self.num_hidden_layers} (num_hidden_layers)")
        for machine in (self.machine, self.dense_machine):
            MachineConfig(**(machine or {}))

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> None:
        """Save ``config.json`` and, beside it, the code that loads the model where ``neurallib`` is not installed.

        Args:
            push_to_hub: upload the folder's files as well. kwargs: ``repo_id`` and whatever else ``push_to_hub`` takes.
        """
        # A configuration that came from a Hub repository points there; what is saved carries its own code.
        self.auto_map = dict(AUTO_MAP)
        super().save_pretrained(save_directory)
        write_remote_code(save_directory)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)

    @property
    def machine_config(self) -> MachineConfig:
        return MachineConfig(**(self.machine or {}))
