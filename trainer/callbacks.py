"""What happens between the steps of training: descriptions follow a backbone that learns, keys that are not tuned stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainerCallback

from ..modeling_neurallib.modeling_neurallib import Computer, NeuralLibForCausalLM
from .arguments import one_of
from .descriptions import Descriptions


class KeysFollowTheBackbone(TrainerCallback):
    """A backbone that learns describes the programs anew, so that libraries loaded later get keys of the same kind."""

    def __init__(self, model: NeuralLibForCausalLM, tokenizer: Any, steps: int):
        self.model, self.tokenizer, self.steps = model, tokenizer, steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.steps == 0:
            self.model.redescribe(self.tokenizer)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.model.redescribe(self.tokenizer)


class DescriptionsFollowTheBackbone(TrainerCallback):
    """Those of which training draws, likewise."""

    def __init__(self, descriptions: Descriptions, steps: int):
        self.descriptions, self.steps = descriptions, steps

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.descriptions.renew()  # a checkpoint may have been loaded since they were made

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.steps == 0:
            self.descriptions.renew()


class OtherKeysStay(TrainerCallback):
    """The keys of all programs but some are after each step what they were before it.

    Raises:
        TrainingArgumentsError: the model has no such program.
    """

    def __init__(self, computer: Computer, programs: Sequence[str]):
        for name in programs:
            one_of("tuned_programs", name, computer.programs)
        self.computer = computer
        self.stay = torch.tensor([name not in programs for name in computer.programs])
        self.kept = computer.offsets.detach().clone()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.kept = self.computer.offsets.detach().clone()
        self.stay = self.stay.to(self.kept.device)

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.computer.offsets[self.stay] = self.kept[self.stay]
