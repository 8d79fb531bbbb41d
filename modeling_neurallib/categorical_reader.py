"""The paper's own reader: arguments as categorical numbers predicted from one hidden state, and a learned output head.

Where the reader of the model points at characters of the text, this one *writes* its arguments: each word of the call is
a distribution over the V values of a word (the paper's base is 128), made from a single hidden state by a linear layer.
The choice of a program is such a word too, on which the program branches. The words are placed in memory, the program
runs, and the words that it leaves go through a learned head to the vocabulary:

    hidden state [B, H] → words [B, W, V] → machine → results [B, L, V] → p(token) [B, L, vocabulary]

A word can only name as many arguments as the reader has outputs for, so this reader does not generalise in length; it is
here because the paper's experiments are about it, and because gradients must cross the machine to train it.

Four estimators of log p(answer) and its gradient, one argument to choose:

| estimator        | words                    | p(answer)                             | its gradient reaches the words by |
|------------------|--------------------------|---------------------------------------|-----------------------------------|
| `dense`          | as they are              | Π_l of the superposition's results    | autograd through every step       |
| `adjoint`        | K samples                | mean over samples of Π_l              | the undo log, straight through    |
| `counterfactual` | K samples                | Π_l of the results' mean over samples | runs in which a word is another   |
| `marginal`       | K samples, without twins | Σ over samples of p(words) Π_l        | p(words) alone                    |

Source: arXiv 2407.04899 (the reader and the head); Bengio et al., arXiv 1308.3432 (straight-through); GRADIENTS.md in
``machine`` (the three gradients).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad, rms_norm

from ..configuration.machine_config import MachineConfig
from .machine.adjoint import AdjointMachine, entries_of, execute
from .machine.counterfactual import run_with_gradient
from .machine.dense import Arithmetic, DenseMachine, SoftProgram, checked_rows
from .machine.state import MachineError

CategoricalEstimator = Literal["dense", "adjoint", "counterfactual", "marginal"]

NOISE = 0.02
"""Standard deviation of what a word's Q begins with besides the identity, so that no two words begin alike."""


class CategoricalReader(nn.Module):
    """One hidden state → the words of a call, each a distribution of its own.

    A word is scored by a linear layer, or, where its values are written as tokens, by what the state makes of their
    embeddings: score_v = ⟨Q h, ê_v⟩ / √H, with ê at unit size and Q begun at the identity. So a state that holds what some
    token says reads that token's value before anything is learned, for all values alike.

    Args:
        hidden_size: H.
        alternatives: of each of W words, how many values it may have, 1…V; they are 0, 1, 2, ….
        values: V.
        tokens: of each word the token that its value 0 is written as, the next value's being the next token; None for a word
            whose values are no tokens. All None by default.

    Raises:
        ValueError: a word has no alternatives, or more than V; there is not one entry of ``tokens`` for each word.
    """

    def __init__(
        self,
        hidden_size: int,
        alternatives: Sequence[int],
        values: int = 128,
        tokens: Sequence[int | None] | None = None,
    ):
        super().__init__()
        if not alternatives or not all(1 <= count <= values for count in alternatives):
            raise ValueError(f"each word must have 1…{values} alternatives, found {list(alternatives)}")
        self.alternatives, self.values = list(alternatives), values
        self.tokens = [None] * len(alternatives) if tokens is None else list(tokens)
        if len(self.tokens) != len(alternatives):
            raise ValueError(
                f"tokens must have one entry for each of {len(alternatives)} words, found {len(self.tokens)}"
            )
        scored = self._scored()
        self.linear = nn.Linear(hidden_size, sum(scored)) if scored else None
        start = torch.eye(hidden_size) + NOISE * torch.randn(len(alternatives) - len(scored), hidden_size, hidden_size)
        self.query = nn.Parameter(start)

    def forward(self, state: Tensor, embeddings: Tensor | None = None) -> Tensor:
        """Hidden states [B, H] → distributions [B, W, V].

        Args:
            state: hidden states [B, H].
            embeddings: of all tokens, [vocabulary, H], where the values of a word are tokens.

        Raises:
            ValueError: there are words whose values are tokens, and no embeddings.
        """
        scores = []
        linear = [] if self.linear is None else list(self.linear(state).split(self._scored(), dim=-1))
        queries: list[Tensor] = []
        if len(self.query):
            if embeddings is None:
                raise ValueError("the values of a word are tokens: pass the embeddings of all tokens, [vocabulary, H]")
            embeddings = rms_norm(embeddings, embeddings.shape[-1:]) / embeddings.shape[-1] ** 0.5
            queries = list(torch.einsum("whk,bk->wbh", self.query, state).unbind(0))
        for count, token in zip(self.alternatives, self.tokens, strict=True):
            if token is None or embeddings is None:
                scores.append(linear.pop(0))
            else:
                scores.append(queries.pop(0) @ embeddings[token : token + count].T)
        return torch.stack([pad(each.softmax(-1), (0, self.values - each.shape[-1])) for each in scores], dim=1)

    def _scored(self) -> list[int]:
        return [count for count, token in zip(self.alternatives, self.tokens, strict=True) if token is None]


class ResultHead(nn.Module):
    """The words that a run leaves → tokens: p(token) = Σ_v p(word v) softmax(W_v)[token], linear in the results.

    Args:
        vocabulary: tokens.
        values: V.
        tokens: the token that each of the first words stands for before training; none for a random start.
        sharpness: by how many nats that token leads.
    """

    def __init__(self, vocabulary: int, values: int = 128, tokens: Sequence[int] | None = None, sharpness: float = 8.0):
        super().__init__()
        start = 0.02 * torch.randn(values, vocabulary)
        if tokens is not None:
            start[torch.arange(len(tokens)), torch.tensor(tokens)] += sharpness
        self.weight = nn.Parameter(start)

    def forward(self, results: Tensor) -> Tensor:
        """Distributions over words [..., V] → over tokens [..., vocabulary]."""
        probabilities: Tensor = results @ self.weight.softmax(-1)
        return probabilities

    def likelihood(self, results: Tensor, tokens: Tensor) -> Tensor:
        """log p of the tokens [..., L], summed over L, given the results [..., L, V]: [...]."""
        ways = self.weight.softmax(-1).T[tokens]
        return (results * ways).sum(-1).clamp_min(torch.finfo(results.dtype).tiny).log().sum(-1)


@dataclass(frozen=True)
class Results:
    """What S versions of the runs of B calls left.

    Attributes:
        words: distributions [S, B, L, V].
        log_weights: of each version in p(answer), [S, B]; −1e9 where a version does not count.
    """

    words: Tensor
    log_weights: Tensor

    def log_likelihood(self, head: ResultHead, tokens: Tensor) -> Tensor:
        """log p(answer) of B calls, [B], for answers of L tokens, [B, L]."""
        of_versions = head.likelihood(self.words, tokens.expand(len(self.words), -1, -1))
        return (self.log_weights + of_versions).logsumexp(0)


class CategoricalCall:
    """A program whose arguments and results are cells of memory, run by any estimator.

    All other words of the machine are 0 at the start. What has not halted at the machine's ``max_steps`` is taken as it is.

    Args:
        instructions: int64 [P, 5], started at address 0.
        config: the shape of the machine.
        arguments: addresses of the words that are read; a call may give only the first of them.
        results: addresses of the words that are the result.
        immediates: code addresses whose immediates are words too, the same for all calls of a batch.
        arithmetic: of ``dense``.
    """

    def __init__(
        self,
        instructions: np.ndarray,
        config: MachineConfig,
        arguments: Sequence[int],
        results: Sequence[int],
        immediates: Sequence[int] = (),
        arithmetic: Arithmetic = "tables",
    ):
        self.config, self.arguments, self.results = config, list(arguments), list(results)
        self.immediates, self.arithmetic = list(immediates), arithmetic
        for address in (*self.arguments, *self.results):
            if not 0 <= address < config.memory:
                raise MachineError(f"arguments and results must be addresses 0…{config.memory - 1}, found {address}")
        self.rows = entries_of(instructions, config)
        self.program = SoftProgram.from_instructions(instructions, config)

    def __call__(
        self,
        words: Tensor,
        length: int,
        estimator: CategoricalEstimator,
        *,
        samples: int = 8,
        generator: torch.Generator | None = None,
        immediates: Tensor | None = None,
        damping: float = 1.0,
    ) -> Results:
        """Runs B calls; gradients flow from the results into the words and the immediates.

        Args:
            words: distributions [B, W, V], W up to the number of arguments.
            length: L, how many of the results are wanted.
            estimator: see the table of the module.
            samples: K.
            generator: of the samples.
            immediates: distributions [F, V], if the call has immediates that are words.
            damping: factor on the program counter's gradient at every step, 0…1, of ``dense`` and ``adjoint``.

        Raises:
            MachineError: the shapes do not fit the call, or the estimator is none of the four.
            GradientError: words or immediates are no distributions; in backward, a gradient overflows.
        """
        self._check(words, length, immediates)
        if estimator in ("dense", "counterfactual"):
            memory, registers = self._start(words)
            program = self._program(words, immediates)
            if estimator == "dense":
                machine = DenseMachine(program, self.config, damping=damping, arithmetic=self.arithmetic)
                state, _ = machine.run(machine.state_from(memory, registers, [0] * len(words)))
            else:
                state, _ = run_with_gradient(
                    program, self.config, memory, registers, [0] * len(words), "counterfactual", unfinished="state",
                    samples=samples, generator=generator, cells=self.arguments[: words.shape[1]],
                )  # fmt: skip
            found = state.memory[:, self.results[:length]]
            return Results(found[None], found.new_zeros(1, len(found)))
        if estimator not in get_args(CategoricalEstimator):
            raise MachineError(f"estimator must be one of {get_args(CategoricalEstimator)}, found {estimator!r}")
        drawn = _draw(words, samples, generator)  # [S, B, W]
        fields = None if immediates is None else _draw(immediates, samples, generator)  # [S, F]
        if estimator == "adjoint":
            versions = [
                self._straight_through(
                    words, drawn[s], immediates, None if fields is None else fields[s], length, damping
                )
                for s in range(samples)
            ]
            return Results(torch.stack(versions), words.new_full((samples, len(words)), -float(np.log(samples))))
        log_weights = _log_probability(words, drawn)
        choices = drawn
        if immediates is not None and fields is not None:
            log_weights = log_weights + _log_probability(immediates, fields)[:, None]
            choices = torch.cat([drawn, fields[:, None].expand(-1, len(words), -1)], dim=-1)
        log_weights = log_weights.masked_fill(_seen_before(choices), -1e9)
        if fields is None:
            left = self.answers(drawn.flatten(0, 1), length).reshape(samples, len(words), length)
        else:
            left = torch.stack([self.answers(drawn[s], length, fields[s]) for s in range(samples)])
        return Results(one_hot(left, self.config.values).to(words), log_weights)

    def answers(self, words: Tensor, length: int, immediates: Tensor | None = None) -> Tensor:
        """The results of exact runs: words int64 [B, W], immediates [F] → int64 [B, L]."""
        rows = self.rows.copy()
        if immediates is not None:
            rows[self.immediates, 4] = immediates.cpu().numpy()
        machine, config, where = AdjointMachine(rows, self.config), self.config, self.results[:length]
        # A reader that has settled draws the same call again and again: it is run once.
        which = _names(words)
        memory = np.zeros((int(which.max()) + 1 if len(which) else 0, config.memory), np.int32)
        memory[which.cpu().numpy()[:, None], self.arguments[: words.shape[1]]] = words.cpu().numpy()
        registers, no_log = np.zeros(config.registers, np.int64), np.empty((0, 2), np.int32)
        stack, cursor = np.zeros(config.call_depth, np.int32), np.zeros(5, np.int64)
        for cells in memory:
            registers[:], stack[:], cursor[:] = 0, 0, 0
            execute(machine.code, registers, cells, stack, cursor, config.max_steps, config.values, no_log)
        return torch.from_numpy(memory[:, where].astype(np.int64))[which.cpu()]

    def _check(self, words: Tensor, length: int, immediates: Tensor | None) -> None:
        if words.dim() != 3 or words.shape[1] > len(self.arguments) or words.shape[2] != self.config.values:
            raise MachineError(
                f"words must have shape [B, at most {len(self.arguments)}, {self.config.values}], found {list(words.shape)}"
            )
        if not 0 < length <= len(self.results):
            raise MachineError(f"the call has 1…{len(self.results)} results, found length = {length}")
        wanted = [len(self.immediates), self.config.values]
        if (immediates is None) == bool(self.immediates) or (
            immediates is not None and list(immediates.shape) != wanted
        ):
            found = None if immediates is None else list(immediates.shape)
            raise MachineError(f"immediates must have shape {wanted} (none if that is empty), found {found}")
        checked_rows("words", words)
        if immediates is not None:
            checked_rows("immediates", immediates)

    def _start(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """Memory [B, N, V] and registers [B, R, V] with the words in place and 0 elsewhere."""
        config = self.config
        zeros = words.new_zeros(len(words), config.memory + config.registers, config.values)
        zeros[..., 0] = 1
        memory, registers = zeros.split([config.memory, config.registers], dim=1)
        at = torch.tensor(self.arguments[: words.shape[1]], device=words.device)
        return memory.index_copy(1, at, words), registers

    def _program(self, like: Tensor, immediates: Tensor | None) -> SoftProgram:
        program = SoftProgram(*(field.to(like) for field in vars(self.program).values()))
        if immediates is None:
            return program
        wide = program.immediate
        rows = pad(immediates, (0, wide.shape[1] - immediates.shape[1]))
        return replace(program, immediate=wide.index_copy(0, torch.tensor(self.immediates, device=wide.device), rows))

    def _straight_through(
        self,
        words: Tensor,
        drawn: Tensor,
        immediates: Tensor | None,
        fields: Tensor | None,
        length: int,
        damping: float,
    ) -> Tensor:
        """The results [B, L, V] of one sample, differentiated as if the sample were the distribution it is drawn from."""

        def hard(soft: Tensor, chosen: Tensor) -> Tensor:
            return one_hot(chosen, soft.shape[-1]).to(soft) + (soft - soft.detach())

        memory, registers = self._start(hard(words, drawn))
        program = self._program(words, None if immediates is None or fields is None else hard(immediates, fields))
        state, _ = run_with_gradient(
            program, self.config, memory, registers, [0] * len(words), "adjoint", unfinished="state", damping=damping
        )
        return state.memory[:, self.results[:length]]


def _draw(words: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:
    """Samples of distributions [..., V]: int64 [S, ...]."""
    rows = words.detach().reshape(-1, words.shape[-1])
    drawn = torch.multinomial(rows, samples, replacement=True, generator=generator) if len(rows) else rows.long()
    return drawn.T.reshape(samples, *words.shape[:-1])


def _log_probability(words: Tensor, drawn: Tensor) -> Tensor:
    """log p of samples [S, ..., W] of independent words [..., W, V]: [S, ...]."""
    of_words = words.clamp_min(torch.finfo(words.dtype).tiny).log().expand(len(drawn), *words.shape)
    return of_words.gather(-1, drawn[..., None])[..., 0].sum(-1)


def _names(rows: Tensor) -> Tensor:
    """A number 0, 1, … for each of the rows [K, W] of words, the same for the same rows: int64 [K]."""
    names = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
    for column in rows.unbind(-1):  # one column at a time is many times faster than unique rows
        names = (names * (int(column.max()) + 1 if len(column) else 1) + column).unique(return_inverse=True)[1]
    return names


def _seen_before(drawn: Tensor) -> Tensor:
    """Which of the samples [S, B, W] are a twin of an earlier one: bool [S, B]."""
    names = _names(drawn.flatten(0, -2)).reshape(drawn.shape[:-1])  # [S, B]
    first = torch.full((len(names.T), int(names.max()) + 1), len(drawn), device=drawn.device)
    order = torch.arange(len(drawn), device=drawn.device)[:, None].expand_as(names).T
    first = first.scatter_reduce(1, names.T, order, "amin")
    return (first.gather(1, names.T) < order).T
