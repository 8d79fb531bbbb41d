"""A Llama of two layers, trained from scratch, with the paper's reader and a computer; and what it is compared with.

What the experiments of ``paper.py`` share: the learners, the loop that trains them within a budget of processor time, and
the split of their errors. The learners, all with the same backbone, data and budget:

- an estimator's name (``dense``, …): the last hidden state of the prompt → ``CategoricalReader`` → machine → ``ResultHead``
  → answer, learned from answers alone;
- ``enumerated``: the same, by the exact likelihood: the sum over all readings there are, each run. What the estimators
  estimate; for calls of few words only;
- ``shown``: the same network, trained on the words that it should read;
- ``alone``: the same network without the computer; it writes the answer token by token;
- ``tool``: the same network writes the text of a call, which Python executes. It is shown the calls, not only the answers.

How the backbone starts is one choice for all of them. ``copying``: besides random weights every layer's attention passes on
what it looks at (its value and output projections begin near the identity), so the last hidden state says which tokens stand
in the prompt, though not where, as a pretrained network's can; and the words of a call that are written as tokens are read by
these tokens' embeddings. ``random``: neither.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, Literal, Protocol

import torch
from neurallib.modeling_neurallib.categorical_reader import (
    Arithmetic,
    CategoricalCall,
    CategoricalEstimator,
    CategoricalReader,
    ResultHead,
)
from neurallib.modeling_neurallib.machine.adjoint import GradientError
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

ESTIMATORS: dict[str, tuple[CategoricalEstimator, Arithmetic, int, float]] = {
    "dense": ("dense", "tables", 1, 1.0),
    "dense, circuits": ("dense", "circuits", 1, 1.0),
    "adjoint": ("adjoint", "tables", 4, 1.0),
    "adjoint, damped": ("adjoint", "tables", 4, 0.1),
    "counterfactual": ("counterfactual", "tables", 8, 1.0),
    "marginal": ("marginal", "tables", 64, 1.0),
}
"""Learners with the computer: estimator, arithmetic, samples, so that no update takes many times as long as another's, and
the damping of the program counter's gradient."""

CONTROLS = ("enumerated", "shown")
BASELINES = ("alone", "tool")

Start = Literal["copying", "random"]
COPYING = 0.5
"""Of the identity, in the value and output projections of a backbone that starts ``copying``."""
MOST_READINGS = 8_192
"""The most readings that ``enumerated`` sums over."""


@dataclass(frozen=True)
class Batch:
    """Examples of one size.

    Attributes:
        prompts: tokens [B, T].
        answers: tokens [B, L].
        words: what a right reading is, [B, W].
        calls: tokens [B, C] of the call as text, for ``tool``.
    """

    prompts: Tensor
    answers: Tensor
    words: Tensor
    calls: Tensor


class Task(Protocol):
    """One of the experiments' tasks. A number's token is the number itself.

    Attributes:
        vocabulary: tokens.
        values: V.
        alternatives: of each word of the call, for the reader.
        tokens: of each word the token of its value 0, None where its values are no tokens.
        selects: words of the call that select the program; the others are its arguments.
        sizes: of the examples that are trained on, drawn with equal chances.
    """

    vocabulary: int
    values: int
    alternatives: list[int]
    tokens: list[int | None]
    selects: int
    sizes: list[int]

    def call(self, arithmetic: Arithmetic, size: int | None) -> CategoricalCall:
        """The program, on a machine for examples of this size, or of any (None)."""

    def batch(self, count: int, size: int, held_out: bool, generator: torch.Generator) -> Batch:
        """Examples, all held out from training or none."""

    def execute(self, calls: Tensor, length: int) -> Tensor:
        """What Python answers to the calls that a network wrote: tokens [B, length], −1 for a call that is none."""

    def same_reading(self, words: Tensor, true: Tensor) -> Tensor:
        """Whether words [B, W] are a right reading of the arguments, bool [B]."""


def held_out(keys: Tensor, share: int = 5) -> Tensor:
    """Which examples are for testing only: one in ``share``, by a hash of their content, int64 [B, …] → bool [B]."""
    mixed = torch.full(keys.shape[:1], 0x9E3779B1)
    for column in keys.unbind(1):
        mixed = (mixed ^ column) * 0x85EBCA6B & 0x7FFFFFFF
        mixed = mixed ^ (mixed >> 13)
    return mixed % share == 0


def configuration(vocabulary: int, width: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def pass_on(model: LlamaModel) -> None:
    """Lets every layer's attention begin by adding up what it looks at."""
    with torch.no_grad():
        for layer in model.layers:
            for weight in (layer.self_attn.v_proj.weight, layer.self_attn.o_proj.weight):
                weight += COPYING * torch.eye(len(weight))


class WithComputer(nn.Module):
    """The backbone, the paper's reader, the machine and the head."""

    def __init__(self, task: Task, learner: str, width: int, generator: torch.Generator, start: Start):
        super().__init__()
        self.task, self.generator, self.learner = task, generator, learner
        self.estimator, arithmetic, self.samples, self.damping = ESTIMATORS.get(learner, ESTIMATORS["marginal"])
        self.backbone = LlamaModel(configuration(task.vocabulary, width))
        if start == "copying":
            pass_on(self.backbone)
        tokens = task.tokens if start == "copying" else None
        self.reader = CategoricalReader(width, task.alternatives, task.values, tokens)
        self.head = ResultHead(task.vocabulary, task.values, range(task.values))
        self.calls = {size: task.call(arithmetic, size) for size in (*task.sizes, None)}
        if learner == "enumerated":
            if prod(task.alternatives) > MOST_READINGS:
                raise ValueError(
                    f"{prod(task.alternatives)} readings are too many to enumerate, at most {MOST_READINGS}"
                )
            self.readings = torch.tensor(list(product(*map(range, task.alternatives))))  # [K, W]
            self.outcomes = self.calls[None].answers(self.readings, 1)[:, 0]

    def words(self, prompts: Tensor) -> Tensor:
        state = self.backbone(prompts, use_cache=False).last_hidden_state[:, -1]
        words: Tensor = self.reader(state, self.backbone.embed_tokens.weight)
        return words

    def loss(self, batch: Batch, size: int) -> Tensor:
        words = self.words(batch.prompts)[:, : batch.words.shape[1]]
        if self.learner == "shown":
            tiny = torch.finfo(words.dtype).tiny
            return -words.gather(-1, batch.words[..., None]).clamp_min(tiny).log().sum((1, 2)).mean()
        if self.learner == "enumerated":
            chances = words[:, torch.arange(words.shape[1])[:, None], self.readings.T].prod(1)  # [B, K]
            results = words.new_zeros(words[:, 0].shape).index_add(1, self.outcomes, chances)
            return -self.head.likelihood(results[:, None], batch.answers).mean()
        runs = self.calls[size](
            words, batch.answers.shape[1], self.estimator, samples=self.samples, generator=self.generator,
            damping=self.damping,
        )  # fmt: skip
        return -runs.log_likelihood(self.head, batch.answers).mean()

    def answers(self, batch: Batch) -> Tensor:
        words = self.words(batch.prompts).argmax(-1)
        return self.head.weight.argmax(-1)[self.calls[None].answers(words, batch.answers.shape[1])]

    def errors(self, batch: Batch) -> dict[str, float]:
        """Shares of the examples whose answer is wrong because of the first of these that is wrong."""
        words = self.words(batch.prompts).argmax(-1)
        wrong = (self.answers(batch) != batch.answers).any(-1)
        selects = self.task.selects
        selected = (words[:, :selects] == batch.words[:, :selects]).all(-1)
        read = self.task.same_reading(words[:, selects:], batch.words[:, selects:])
        parts = {
            "selecting": wrong & ~selected,
            "reading": wrong & selected & ~read,
            "executing": wrong & selected & read,
        }
        return {name: float(part.float().mean()) for name, part in parts.items()}


class WithoutComputer(nn.Module):
    """The backbone as a language model: it writes the answer, or the text of a call (``tool``)."""

    def __init__(self, task: Task, learner: str, width: int, start: Start):
        super().__init__()
        self.task, self.tool = task, learner == "tool"
        self.model = LlamaForCausalLM(configuration(task.vocabulary, width))
        if start == "copying":
            pass_on(self.model.model)

    def loss(self, batch: Batch, size: int) -> Tensor:
        target = batch.calls if self.tool else batch.answers
        logits = self.model(torch.cat([batch.prompts, target[:, :-1]], dim=1), use_cache=False).logits
        return cross_entropy(logits[:, -target.shape[1] :].flatten(0, 1), target.flatten())

    def answers(self, batch: Batch) -> Tensor:
        target = batch.calls if self.tool else batch.answers
        length = target.shape[1]
        tokens = self.model.generate(
            batch.prompts, attention_mask=torch.ones_like(batch.prompts), do_sample=False,
            max_new_tokens=length, min_new_tokens=length, pad_token_id=0,
        )  # fmt: skip
        text = tokens[:, batch.prompts.shape[1] :]
        return self.task.execute(text, batch.answers.shape[1]) if self.tool else text

    def errors(self, batch: Batch) -> dict[str, float]:
        return {}


def test(learner: WithComputer | WithoutComputer, task: Task, size: int, count: int) -> dict[str, Any]:
    """Accuracy of whole answers on held-out examples of a size, the same for every learner, and the kinds of error."""
    batch = task.batch(count, size, True, torch.Generator().manual_seed(size))
    learner.eval()
    with torch.no_grad():
        right = (learner.answers(batch) == batch.answers).all(-1)
        found = {"accuracy": float(right.float().mean()), **learner.errors(batch)}
    learner.train()
    return found


def train(
    task: Task,
    learner: str,
    seed: int,
    seconds: float,
    *,
    width: int = 64,
    batch: int = 32,
    rate: float = 2e-3,
    start: Start = "copying",
    warm_up: int = 20,
) -> tuple[WithComputer | WithoutComputer, dict[str, Any]]:
    """Trains a learner for so many seconds of processor time, at a rate that rises for a few updates, then falls to 0.

    Compiling is not counted: before the clock starts there is one loss, backward, that changes nothing.

    Returns:
        The learner; its examples seen, updates skipped because their gradient overflowed, and the last loss.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model: WithComputer | WithoutComputer
    if learner in BASELINES:
        model = WithoutComputer(task, learner, width, start)
    else:
        model = WithComputer(task, learner, width, generator, start)
    with suppress(GradientError):
        model.loss(task.batch(2, task.sizes[0], False, generator), task.sizes[0]).backward()
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    began, updates, overflows, loss = time.thread_time(), 0, 0, torch.zeros(())
    while (used := time.thread_time() - began) < seconds:
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (updates + 1) / warm_up) * (1 - used / seconds)
        size = task.sizes[int(torch.randint(len(task.sizes), (), generator=generator))]
        loss = model.loss(task.batch(batch, size, False, generator), size)
        optimiser.zero_grad()
        try:
            loss.backward()
        except GradientError:
            overflows += 1
            continue
        if not torch.isfinite(nn.utils.clip_grad_norm_(model.parameters(), 1.0)):
            overflows += 1
            continue
        optimiser.step()
        updates += 1
    return model, {"examples": updates * batch, "overflows": overflows, "loss": float(loss.detach())}
