"""Directions in which a backbone's states drift along a list, and heads that do not see them.

The state of a list's sixtieth number is not that of its fourth: the backbone counts, in a way, and tires. A reader that was
trained on lists of at most eight numbers takes such a state for anything, and stops. What drifts is low-dimensional and can
be measured without a request or an answer, on lists of random numbers that only the backbone reads; a reader whose
projection is orthogonal to it reads the sixtieth number as the fourth. The selector's tells the writer whether the turn ends.

With s_k the features of the k-th number of a list (and, likewise, of the token after it), rows s̄_{k…k+7} − s̄_{1…7} for k = 8, 16, …
over all lists make a matrix; its first right singular vectors are the directions.

So it is with the end of the prompt, where calls are decided: what a chat template puts behind a message has another state behind a
long list than behind a short one. With s_p the features of the p-th token behind a list and s̄_p their mean over short lists, rows
s_p − s̄_p make another matrix.
Related: Song & Zhong, Uncovering hidden geometry in Transformers via disentangling position and context, 2023.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from ..modeling_neurallib.modeling_neurallib import NeuralLibForCausalLM
from .arguments import TrainingArgumentsError
from .prompts import prompt_tokens

LISTS = 96
LENGTHS = (48, 64, 80)
SHORT = (2, 3, 4, 5, 6, 7, 8)
"""As long as the lists that training knows."""
SEPARATORS = (", ", " ", ", ", "\n", ",", "; ")
WINDOW = 8
"""Numbers whose mean state is compared with that of a list's beginning."""


def random_lists(seed: int = 0, lengths: Sequence[int] = LENGTHS) -> list[str]:
    """Lists of random numbers of at most one to four digits, without a word around them."""
    draw = random.Random(f"drift:{seed}")
    texts = []
    for _ in range(LISTS):
        most = 10 ** draw.randint(1, 4)
        texts.append(draw.choice(SEPARATORS).join(str(draw.randrange(most)) for _ in range(draw.choice(lengths))))
    return texts


@torch.no_grad()
def drift_directions(model: NeuralLibForCausalLM, tokenizer: Any, count: int, ends: int = 0) -> Tensor:
    """The directions, orthonormal, in which features drift most: float32 [at most count + ends, len(feature_layers)·H].

    Args:
        model: its backbone reads :func:`random_lists`, about 28,000 tokens, as a user's message where there is a chat template.
        count: how many along lists; at most as many as the lists leave (about 1,300) and as features have dimensions.
        ends: how many of the end of the prompt behind a list, besides; none where nothing stands behind a message.
    Raises:
        TrainingArgumentsError: the context is too short for the lists.
    """
    along: list[Tensor] = []
    behind: list[Tensor] = []
    for text in random_lists():
        features, number, goes_on = _read(model, tokenizer, text)
        after = np.append(False, number[:-1]) & ~number
        for chosen in (number & ~goes_on, after):
            states = features[torch.from_numpy(chosen)]
            beginning = states[1:WINDOW].mean(0)
            windows = range(WINDOW, len(states) - WINDOW + 1, WINDOW)
            along += [states[start : start + WINDOW].mean(0) - beginning for start in windows]
        behind.append(_behind(features, number))
    if not along:
        raise TrainingArgumentsError(
            f"drift_directions: a context of {model.config.max_position_embeddings} tokens holds no list of {2 * WINDOW} numbers "
            "to measure the drift on; leave it at 0"
        )
    directions = torch.linalg.svd(torch.stack(along), full_matrices=False).Vh[:count]
    short = [_behind(*_read(model, tokenizer, text)[:2]) for text in random_lists(1, SHORT)] if ends else []
    if not short or not len(short[0]):
        return directions
    whole = [states for states in behind if len(states) == len(short[0])]  # the context cuts off the others
    if not whole:
        raise TrainingArgumentsError(
            f"end_drift_directions: a context of {model.config.max_position_embeddings} tokens holds no list of {min(LENGTHS)} "
            "numbers with what the chat template puts behind it; leave it at 0"
        )
    rows = (torch.stack(whole) - torch.stack(short).mean(0)).flatten(0, 1)
    rows = rows - (rows @ directions.T) @ directions
    left = min(ends, rows.shape[1] - len(directions))  # beyond, there is no direction that is orthogonal to the others
    return torch.cat([directions, torch.linalg.svd(rows, full_matrices=False).Vh[:left]])


def _behind(features: Tensor, number: np.ndarray) -> Tensor:
    """The features of the tokens behind the last number."""
    return features[int(number.nonzero()[0][-1]) + 1 :]


def _read(model: NeuralLibForCausalLM, tokenizer: Any, text: str) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """What the backbone makes of a message: features [L, ·], which tokens hold digits, and which go on with a number."""
    tokens = _tokens(tokenizer, text)[: model.config.max_position_embeddings]
    output = model.model(
        torch.tensor([tokens], device=model.device), use_cache=False, decide_calls=False, output_hidden_states=True
    )
    characters = model.computer.table.characters(tokens)
    number = np.zeros(len(tokens), dtype=bool)
    number[characters.tokens[characters.digits]] = True
    goes_on = model.computer.table.goes_on(np.array([tokens]), np.array([-1]))[0]
    return model.model.features(output.hidden_states)[0].float(), number, goes_on


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return prompt_tokens(tokenizer, [{"role": "user", "content": text}])


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
