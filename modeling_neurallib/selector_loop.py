"""The selector at one new position, as one compiled loop: what generation does for every token that it adds.

In torch this is some sixty small operations, which take longer than their arithmetic. The definition is
:class:`~.selector.StateProjection` and :class:`~.selector.Selector`; this is the same in float32 to rounding, for models on a
CPU where numba is installed. Everywhere else the definition runs.
"""

# mypy: disable-error-code="assignment"

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .machine.native import compiled, numba
from .selector import Selector, StateProjection

PLAIN = {nn.Linear, nn.LayerNorm}
"""Layers that are their weight and bias."""

_fast = partial(compiled, fastmath={"reassoc", "contract", "nsz", "arcp"})
"""Sums may be reassociated, so that they are made in vector registers; infinities and NaN keep their meaning."""


@_fast
def _linear(flat: np.ndarray, at: int, given: np.ndarray, result: np.ndarray) -> int:
    """``result`` = weight @ given + bias, both from ``flat`` on; where they end."""
    inputs, outputs = len(given), len(result)
    bias = at + inputs * outputs
    for row in range(outputs):
        weight = flat[at + row * inputs : at + (row + 1) * inputs]
        total = np.float32(0.0)
        for column in range(inputs):
            total += weight[column] * given[column]
        result[row] = total + flat[bias + row]
    return bias + outputs


@_fast
def _norm(flat: np.ndarray, at: int, given: np.ndarray, result: np.ndarray, epsilon: np.float32) -> int:
    """``result`` = LayerNorm of ``given``, its scale and bias from ``flat`` on; where they end."""
    width = len(given)
    mean = np.float32(0.0)
    for column in range(width):
        mean += given[column]
    mean /= np.float32(width)
    spread = np.float32(0.0)
    for column in range(width):
        spread += (given[column] - mean) * (given[column] - mean)
    scale = np.float32(1.0) / np.sqrt(spread / np.float32(width) + epsilon)
    for column in range(width):
        result[column] = (given[column] - mean) * scale * flat[at + column] + flat[at + width + column]
    return at + 2 * width


@_fast
def _step(
    flat: np.ndarray,
    heads: int,
    hops: int,
    epsilon: np.float32,
    features: np.ndarray,
    memory: np.ndarray,
    weights: np.ndarray,
    length: int,
    keys: np.ndarray,
    allowed: np.ndarray,
    pooled: np.ndarray,
    choices: np.ndarray,
) -> None:
    """One position of each of B sequences, the last of ``length``.

    Args:
        flat: float32, the parameters in the order of :meth:`SelectorLoop._packed`.
        heads, hops: of attention. epsilon: of the norms.
        features: [B, F] of the position. memory: [B, ≥ length, 2·hops·width], whose row of the position is written.
        weights: [B, ≥ length], log-weights. keys: [programs, key_width]. allowed: bool [programs].
        pooled: [B, width] and choices: [B, 1 + programs], log-probabilities; the results.
    """
    batch, width = pooled.shape
    size = width // heads
    state, normed = np.empty(width, np.float32), np.empty(width, np.float32)
    query, found = np.empty(width, np.float32), np.empty(width, np.float32)
    mixed = np.empty(2 * width, np.float32)
    scores = np.empty(length, np.float32)
    asked = np.empty(keys.shape[1], np.float32)
    score = np.empty(1, np.float32)
    sharpness = np.float32(1.0 / math.sqrt(size))
    for row in range(batch):
        at = _linear(flat, 0, features[row], found)
        at = _norm(flat, at, found, state, epsilon)
        at = _linear(flat, at, state, memory[row, length - 1])
        for hop in range(hops):
            at = _norm(flat, at, state, normed, epsilon)
            at = _linear(flat, at, normed, query)
            for head in range(heads):
                begin = head * size
                asks = query[begin : begin + size]
                greatest = np.float32(-np.inf)
                for place in range(length):
                    key = memory[row, place, 2 * hop * width + begin : 2 * hop * width + begin + size]
                    total = np.float32(0.0)
                    for column in range(size):
                        total += asks[column] * key[column]
                    total = total * sharpness + weights[row, place]
                    scores[place] = total
                    greatest = max(greatest, total)
                whole = np.float32(0.0)
                found[begin : begin + size] = 0.0
                for place in range(length):
                    share = np.exp(scores[place] - greatest)
                    whole += share
                    if share == 0.0:
                        continue
                    first = (2 * hop + 1) * width + begin
                    value = memory[row, place, first : first + size]
                    for column in range(size):
                        found[begin + column] += share * value[column]
                for column in range(size):
                    found[begin + column] /= whole
            at = _linear(flat, at, found, query)
            for column in range(width):
                state[column] += query[column]
            at = _norm(flat, at, state, normed, epsilon)
            at = _linear(flat, at, normed, mixed)
            for column in range(2 * width):
                mixed[column] *= np.float32(0.5 * (1.0 + math.erf(mixed[column] * math.sqrt(0.5))))
            at = _linear(flat, at, mixed, query)
            for column in range(width):
                state[column] += query[column]
        at = _norm(flat, at, state, pooled[row], epsilon)
        at = _linear(flat, at, pooled[row], asked)
        _linear(flat, at, pooled[row], score)
        choices[row, 0] = score[0]
        for program in range(len(keys)):
            total = np.float32(-3.4028234663852886e38)
            if allowed[program]:
                total = np.float32(0.0)
                for column in range(len(asked)):
                    total += asked[column] * keys[program, column]
                total /= np.float32(math.sqrt(len(asked)))
            choices[row, 1 + program] = total
        greatest = choices[row].max()
        whole = np.float32(0.0)
        for choice in range(len(keys) + 1):
            whole += np.exp(choices[row, choice] - greatest)
        choices[row] -= greatest + np.log(whole)


class SelectorLoop:
    """The compiled loop for one projection and selector, with their parameters packed side by side.

    Args:
        projection, selector: whose parameters are packed, and packed again when one of them has changed.
    """

    def __init__(self, projection: StateProjection, selector: Selector):
        self.projection, self.selector = projection, selector
        # Dictionaries, because to get a module as an attribute takes longer.
        owners: list[tuple[Any, str]] = [(projection, "linear"), (projection, "norm"), (selector, "memory")]
        for hop in selector.hops:
            owners += [(hop, name) for name in ("query_norm", "query", "merge", "mix_norm")]
            owners += [(hop.mix, "0"), (hop.mix, "2")]
        owners += [(selector, name) for name in ("norm", "query", "no_call")]
        self.places: list[tuple[dict[str, Any], str]] = [(owner._modules, name) for owner, name in owners]
        self.parameters: list[Tensor] = []
        self.state: tuple[tuple[int, int], ...] = ()
        self.flat = np.empty(0, np.float32)

    def fits(self, features: Tensor) -> bool:
        """Whether it can stand for the definition: float32 on a CPU, one new position, nothing to differentiate, and numba.

        And plain layers: those of an adapter, of a quantizer or of a parametrization do more than their weight and bias say.
        """
        if numba is None or features.shape[1] != 1 or not {type(held[name]) for held, name in self.places} <= PLAIN:
            return False
        weight = self.projection.linear.weight
        return (
            features.device.type == weight.device.type == "cpu"
            and features.dtype == weight.dtype == torch.float32
            and not torch.is_grad_enabled()
        )

    def unwritten(self, features: Tensor) -> Tensor:
        """A place for what the selector keeps of the position: [B, 1, 2·hops·width]."""
        return features.new_empty(features.shape[0], 1, self.selector.memory.out_features)

    def _ordered(self) -> list[Tensor]:
        """Parameters in the order in which the loop reads them."""
        modules = [held[name] for held, name in self.places]
        return [parameter for module in modules for parameter in (module.weight, module.bias)]

    def _packed(self) -> np.ndarray:
        if not self.parameters or self.parameters[0] is not self.projection.linear.weight:
            self.parameters = self._ordered()
        state = tuple((parameter.data_ptr(), parameter._version) for parameter in self.parameters)
        if state != self.state:
            self.flat = torch.cat([parameter.detach().flatten() for parameter in self.parameters]).numpy()
            self.state = state
        return self.flat

    def __call__(
        self, features: Tensor, memory: Tensor, weights: Tensor, length: int, keys: Tensor, allowed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(pooled [B, 1, width], log-probabilities of "no call" and the programs [B, 1, 1 + programs]); writes the memory's row.

        Args:
            features: [B, 1, F]. memory: [B, ≥ length, 2·hops·width] and weights: [B, ≥ length], contiguous; the position's row of
                the memory is written. length: positions, this one counted. keys: [programs, key_width]. allowed: bool [programs].
        """
        batch, selector = features.shape[0], self.selector
        hop: Any = selector.hops[0]
        pooled = torch.empty(batch, 1, selector.norm.normalized_shape[0])
        choices = torch.empty(batch, 1, 1 + len(keys))
        _step(
            self._packed(), hop.heads, len(selector.hops), np.float32(selector.norm.eps), features[:, 0].contiguous().numpy(),
            memory.numpy(), weights.numpy(), length, keys.numpy(), allowed.numpy(), pooled[:, 0].numpy(), choices[:, 0].numpy(),
        )  # fmt: skip
        return pooled, choices
