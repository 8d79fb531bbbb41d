"""Coordinates in which heads learn from features: in the backbone's own, a few directions carry most of what varies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .lessons import Lessons

SAMPLE = 1_500
"""Lessons, evenly spread, whose features are measured."""


class Whitened(nn.Module):
    """Parametrization of a projection's weight [width, layers·H]: what learns is its counterpart in whitened features.

    The states of a Llama lie along few directions: the longest varies twenty times as much as the median. A step of gradient
    descent on the weight itself follows the long ones; on ``weight · whitening⁻¹`` it sees all alike. The function that is
    computed stays the same, and when training ends the parametrization is folded into the weight.

    Args:
        whitening: [layers, H, H], of each layer, symmetric and invertible: see :func:`whitening_of`.
        unseen: orthonormal [count, layers·H], directions that the weight stays blind to. Here, and not by a projection after each
            step, which is an oblique one in these coordinates and stirs up what was learned: it takes away all that is gained.
    Source: Desjardins et al., Natural Neural Networks, 2015.
    """

    whitening: Tensor
    inverse: Tensor
    unseen: Tensor

    def __init__(self, whitening: Tensor, unseen: Tensor):
        super().__init__()
        self.register_buffer("whitening", whitening.clone())  # a checkpoint stores no tensor twice
        self.register_buffer("inverse", torch.linalg.inv(whitening.double()).to(whitening).contiguous())
        self.register_buffer("unseen", unseen.to(whitening).contiguous().clone())

    def forward(self, learned: Tensor) -> Tensor:
        weight = _by_layer(learned, self.whitening)
        return weight - (weight @ self.unseen.T) @ self.unseen

    def right_inverse(self, weight: Tensor) -> Tensor:
        return _by_layer(weight, self.inverse)


def _by_layer(weight: Tensor, maps: Tensor) -> Tensor:
    layers, size, _ = maps.shape
    return torch.einsum("wlh,lhk->wlk", weight.unflatten(1, (layers, size)), maps).flatten(1)


def whitening_of(features: Tensor, layers: int, ridge: float) -> Tensor:
    """(second moment + ridge · its mean eigenvalue)^(−1/2) of each layer's features: [layers, H, H].

    Args:
        features: [N, layers·H]. ridge: > 0; directions much shorter than this share of the mean are left as they are.
    """
    states = features.unflatten(1, (layers, -1)).double()
    moments = torch.einsum("nlh,nlk->lhk", states, states) / len(states)
    lengths, directions = torch.linalg.eigh(moments)
    scales = (lengths.clamp(min=0) + ridge * lengths.mean(1, keepdim=True)).rsqrt()
    return ((directions * scales[:, None]) @ directions.mT).to(features)


def sampled_features(lessons: Lessons) -> Tensor:
    """[N, layers·H], those of a sample of lessons; what many conversations begin with is left out."""
    chosen = lessons.lessons[:: max(1, len(lessons) // SAMPLE)][:SAMPLE]
    own = [lessons.cache.own(lesson.heard(lessons.end)) for lesson in chosen]
    return torch.from_numpy(np.concatenate(own).astype(np.float32))


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model as it is without parametrizations: what it computes with, under the names that it is loaded by."""
    state = model.state_dict()
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            prefix = f"{name}.parametrizations.weight."
            state = {key: value for key, value in state.items() if not key.startswith(prefix)}
            state[f"{name}.weight"] = cast(Tensor, module.weight).detach()
    return state


@contextmanager
def whitened(projections: Sequence[nn.Linear], whitening: Tensor, unseen: Tensor | None = None) -> Iterator[None]:
    """Within, what the optimiser changes of these projections is their weight in whitened features; afterwards the weight.

    Args:
        whitening, unseen: see :class:`Whitened`.
    """
    none = whitening.new_zeros(0, whitening.shape[0] * whitening.shape[1])
    for projection in projections:
        coordinates = Whitened(whitening, none if unseen is None else unseen).to(projection.weight)
        parametrize.register_parametrization(projection, "weight", coordinates)
    try:
        yield
    finally:
        for projection in projections:
            parametrize.remove_parametrizations(projection, "weight")


@contextmanager
def whitened_for(
    lessons: Lessons, projections: Sequence[nn.Linear], ridge: float, unseen: Tensor | None = None
) -> Iterator[None]:
    """:func:`whitened` by the features of lessons; a ridge of 0 leaves everything as it is."""
    if not ridge:
        yield
        return
    layers = len(lessons.computer.config.feature_layers or [])
    with whitened(projections, whitening_of(sampled_features(lessons), layers, ridge), unseen):
        yield
