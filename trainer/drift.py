"""Directions in which a backbone's states drift along a list, and heads that do not see them.

The state of a list's sixtieth number is not that of its fourth: the backbone counts, in a way, and tires. A reader that was
trained on lists of at most eight numbers takes such a state for anything, and stops. What drifts is low-dimensional and can
be measured without a request or an answer, on lists of random numbers that only the backbone reads; a reader whose
projection is orthogonal to it reads the sixtieth number as the fourth. The selector's tells the writer whether the turn ends.

With s_k the features of the k-th number of a list (and, likewise, of the token after it), rows s̄_{k…k+7} − s̄_{1…7} for k = 8, 16, …
over all lists make a matrix; its first right singular vectors are the directions.
Related: Song & Zhong, Uncovering hidden geometry in Transformers via disentangling position and context, 2023.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from ..modeling_neurallib.modeling_neurallib import NeuralLibForCausalLM
from .arguments import TrainingArgumentsError

LISTS = 96
LENGTHS = (48, 64, 80)
SEPARATORS = (", ", " ", ", ", "\n", ",", "; ")
WINDOW = 8
"""Numbers whose mean state is compared with that of a list's beginning, as long as the lists that training knows."""


def random_lists(seed: int = 0) -> list[str]:
    """Lists of random numbers of at most one to four digits, without a word around them."""
    draw = random.Random(f"drift:{seed}")
    texts = []
    for _ in range(LISTS):
        most = 10 ** draw.randint(1, 4)
        texts.append(draw.choice(SEPARATORS).join(str(draw.randrange(most)) for _ in range(draw.choice(LENGTHS))))
    return texts


@torch.no_grad()
def drift_directions(model: NeuralLibForCausalLM, tokenizer: Any, count: int) -> Tensor:
    """The directions, orthonormal, in which features drift most: float32 [count, len(feature_layers)·H].

    Args:
        model: its backbone reads :func:`random_lists`, about 28,000 tokens, as a user's message where there is a chat template.
        count: how many; at most as many as the lists leave (about 1,300) and as features have dimensions.
    Raises:
        TrainingArgumentsError: the context is too short for a list.
    """
    table, rows = model.computer.table, []
    for text in random_lists():
        tokens = _tokens(tokenizer, text)[: model.config.max_position_embeddings]
        output = model.model(
            torch.tensor([tokens], device=model.device), use_cache=False, decide_calls=False, output_hidden_states=True
        )
        features = model.model.features(output.hidden_states)[0].float()
        characters = table.characters(tokens)
        goes_on = table.goes_on(np.array([tokens]), np.array([-1]))[0]
        number = np.zeros(len(tokens), dtype=bool)
        number[characters.tokens[characters.digits]] = True
        behind = np.append(False, number[:-1]) & ~number
        for chosen in (number & ~goes_on, behind):
            states = features[torch.from_numpy(chosen)]
            beginning = states[1:WINDOW].mean(0)
            windows = range(WINDOW, len(states) - WINDOW + 1, WINDOW)
            rows += [states[start : start + WINDOW].mean(0) - beginning for start in windows]
    if not rows:
        raise TrainingArgumentsError(
            f"drift_directions: a context of {model.config.max_position_embeddings} tokens holds no list of {2 * WINDOW} numbers "
            "to measure the drift on; leave it at 0"
        )
    return torch.linalg.svd(torch.stack(rows), full_matrices=False).Vh[:count]


def _tokens(tokenizer: Any, text: str) -> list[int]:
    if getattr(tokenizer, "chat_template", None) is None:
        return list(tokenizer(text)["input_ids"])
    message = [{"role": "user", "content": text}]
    return list(tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=True)["input_ids"])


class BlindToDrift(TrainerCallback):
    """Keeps a projection of features orthogonal to directions, from the beginning of training and after each step.

    Args:
        projection: weight [width, F]. directions: orthonormal, [count, F].
    """

    def __init__(self, projection: nn.Linear, directions: Tensor):
        self.projection, self.directions = projection, directions

    @torch.no_grad()
    def project(self) -> None:
        weight = self.projection.weight
        directions = self.directions.to(weight)
        weight -= (weight @ directions.T) @ directions

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:  # a checkpoint's weights are so already, and stay what they are to the last bit
            self.project()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.project()
