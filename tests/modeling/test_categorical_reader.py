"""The paper's reader, the head, and the four estimators of log p(answer); and the programs of the benchmarks that use them."""

from __future__ import annotations

import importlib
import json
import sys
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import numpy as np
import pytest
import torch
from neurallib.configuration.machine_config import MachineConfig
from neurallib.modeling_neurallib.categorical_reader import (
    CategoricalCall,
    CategoricalEstimator,
    CategoricalReader,
    ResultHead,
    _seen_before,
)
from neurallib.modeling_neurallib.machine.operations import CODES
from neurallib.modeling_neurallib.machine.state import GradientError, MachineError
from torch import Tensor
from torch.nn.functional import one_hot, pad

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = MachineConfig(values=8, memory=4, registers=6, call_depth=1, max_steps=20)
ESTIMATORS = get_args(CategoricalEstimator)


def instruction(name: str, target: int = 0, a: int = 0, b: int = 0, immediate: int = 0) -> tuple[int, ...]:
    return CODES[name], a, b, target, immediate


# memory[2] ← memory[0] + memory[1]; memory[3] ← memory[0] + 1
CODE = np.array(
    [
        instruction("load", 1, 0, immediate=0),
        instruction("load", 2, 0, immediate=1),
        instruction("add", 3, 1, 2),
        instruction("add_immediate", 1, 1, immediate=1),
        instruction("store", a=0, b=3, immediate=2),
        instruction("store", a=0, b=1, immediate=3),
    ]
)


@pytest.fixture
def call() -> CategoricalCall:
    return CategoricalCall(CODE, SMALL, [0, 1], [2, 3])


@pytest.fixture
def head() -> ResultHead:
    torch.manual_seed(0)
    return ResultHead(9, 8, range(8), sharpness=2.0).double()


def soft_words() -> tuple[Tensor, Tensor]:
    """Logits [3, 2, 4], and words of four alternatives, [3, 2, 8]."""
    generator = torch.Generator().manual_seed(0)
    logits = (0.5 * torch.randn(3, 2, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    return logits, pad(logits.softmax(-1), (0, 4))


def enumerated(words: Tensor, head: ResultHead, answers: Tensor) -> Tensor:
    """log Σ over all pairs of words of p(words) p(answer | words), [B]; of the first result, or of both."""
    ways = head.weight.softmax(-1)
    total = torch.zeros(len(words), dtype=torch.float64)
    for a, b in product(range(4), repeat=2):
        of_results = [ways[(a + b) % 8][answers[:, 0]], ways[(a + 1) % 8][answers[:, -1]]][: answers.shape[1]]
        total = total + words[:, 0, a] * words[:, 1, b] * torch.stack(of_results).prod(0)
    return total.log()


ANSWERS = torch.tensor([[0, 1], [3, 2], [4, 4]])


def test_the_reader_gives_each_word_its_alternatives() -> None:
    reader = CategoricalReader(6, [2, 8, 5], values=8)
    words = reader(torch.randn(7, 6))
    assert words.shape == (7, 3, 8)
    assert torch.allclose(words.sum(-1), torch.ones(7, 3))
    assert (words[:, 0, 2:] == 0).all() and (words[:, 2, 5:] == 0).all() and (words[:, 1] > 0).all()
    for wrong in ([], [2, 9], [0]):
        with pytest.raises(ValueError, match=r"1…8 alternatives"):
            CategoricalReader(6, wrong, values=8)


def test_words_that_are_tokens_are_read_from_a_state_that_holds_the_token() -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(12, 64)
    reader = CategoricalReader(64, [3, 8, 5], values=8, tokens=[None, 4, 0])
    words = reader(torch.stack([8 * embeddings[3], 8 * embeddings[9]]), embeddings)
    assert words.shape == (2, 3, 8) and torch.allclose(words.sum(-1), torch.ones(2, 3))
    assert (words[:, 0, 3:] == 0).all() and (words[:, 2, 5:] == 0).all()
    assert words[0, 2].argmax() == 3 and words[1, 1].argmax() == 9 - 4
    with pytest.raises(ValueError, match="pass the embeddings"):
        reader(torch.randn(2, 64))
    with pytest.raises(ValueError, match="one entry for each of 3 words"):
        CategoricalReader(64, [3, 8, 5], values=8, tokens=[0])


def test_twins_of_earlier_samples_do_not_count() -> None:
    drawn = torch.tensor([[[1, 2], [3, 3]], [[2, 1], [3, 3]], [[1, 2], [1, 2]], [[1, 2], [3, 3]]])
    assert _seen_before(drawn).tolist() == [[False, False], [False, True], [True, False], [True, True]]


def test_the_head_is_linear_in_the_results(head: ResultHead) -> None:
    results = torch.randn(3, 2, 8, dtype=torch.float64).softmax(-1)
    tokens = head(results)
    assert torch.allclose(tokens.sum(-1), torch.ones(3, 2, dtype=torch.float64))
    expected = tokens.gather(-1, ANSWERS[..., None])[..., 0].log().sum(-1)
    assert torch.allclose(head.likelihood(results, ANSWERS), expected)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_certain_words_give_the_exact_result(call: CategoricalCall, head: ResultHead, estimator: Any) -> None:
    words = torch.tensor([[1, 2], [3, 3], [0, 1]])
    results = call(one_hot(words, 8).double(), 2, estimator, samples=3)
    expected = call.answers(words, 2)
    assert expected.tolist() == [[3, 2], [6, 4], [1, 1]]
    alone = head.likelihood(one_hot(expected, 8).double(), ANSWERS)
    assert torch.allclose(results.log_likelihood(head, ANSWERS), alone)


def test_marginal_is_the_likelihood_where_all_pairs_are_drawn(call: CategoricalCall, head: ResultHead) -> None:
    logits, words = soft_words()
    found = call(words, 2, "marginal", samples=1_000, generator=torch.Generator().manual_seed(0))
    expected = enumerated(words, head, ANSWERS)
    assert (found.log_weights > -1e8).sum(0).tolist() == [16, 16, 16]
    assert torch.allclose(found.log_likelihood(head, ANSWERS), expected)
    gradient, right = (
        torch.autograd.grad(x.sum(), logits, retain_graph=True)[0]
        for x in (found.log_likelihood(head, ANSWERS), expected)
    )
    assert torch.allclose(gradient, right)


def test_dense_and_counterfactual_have_the_likelihood_of_results_that_share_no_word(
    call: CategoricalCall, head: ResultHead
) -> None:
    # The sum alone: each word is read once, so the superposition is the expectation.
    logits, words = soft_words()
    expected = enumerated(words, head, ANSWERS[:, :1])
    (right,) = torch.autograd.grad(expected.sum(), logits, retain_graph=True)
    for estimator, tolerance in (("dense", 1e-9), ("counterfactual", 0.1)):
        results = call(words, 1, estimator, samples=1_000, generator=torch.Generator().manual_seed(0))
        found = results.log_likelihood(head, ANSWERS[:, :1])
        assert torch.allclose(found, expected, atol=tolerance)
        (gradient,) = torch.autograd.grad(found.sum(), logits, retain_graph=True)
        assert torch.allclose(gradient, right, atol=tolerance)


def test_adjoint_goes_straight_through_with_the_gradient_of_dense_at_the_sample(
    call: CategoricalCall, head: ResultHead
) -> None:
    words = one_hot(torch.tensor([[1, 2], [3, 3], [0, 1]]), 8).double().requires_grad_()
    gradients = []
    for estimator in ("adjoint", "dense"):
        found = call(words, 2, estimator, samples=1).log_likelihood(head, ANSWERS)
        (gradient,) = torch.autograd.grad(found.sum(), words)
        gradients.append(gradient - (gradient * words.detach()).sum(-1, keepdim=True))
    assert gradients[0].abs().max() > 0.1
    assert torch.allclose(*gradients)


def test_circuits_learn_as_tables_do_from_certain_words(head: ResultHead) -> None:
    words = one_hot(torch.tensor([[1, 2], [3, 3], [0, 1]]), 8).double()
    found = [
        CategoricalCall(CODE, SMALL, [0, 1], [2, 3], arithmetic=unit)(words, 2, "dense").words
        for unit in ("tables", "circuits")
    ]
    assert torch.allclose(*found)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_immediates_are_learned_too(head: ResultHead, estimator: Any) -> None:
    call = CategoricalCall(CODE, SMALL, [0, 1], [3, 2], immediates=[3])
    assert call.answers(torch.tensor([[1, 2]]), 1, torch.tensor([3])).tolist() == [[4]]
    logits = torch.zeros(1, 8, dtype=torch.float64, requires_grad=True)
    words = one_hot(torch.tensor([[1, 2], [2, 2], [0, 3]]), 8).double()
    answers = torch.tensor([[3], [4], [2]])  # memory[0] + 2
    found = call(
        words, 1, estimator, samples=64, generator=torch.Generator().manual_seed(0), immediates=logits.softmax(-1)
    )
    (gradient,) = torch.autograd.grad(found.log_likelihood(head, answers).sum(), logits)
    assert int(gradient.argmax()) == 2


def test_what_does_not_fit_is_refused(call: CategoricalCall) -> None:
    words = torch.full((3, 2, 8), 0.125)
    with pytest.raises(MachineError, match="words must have shape"):
        call(words[:, :, :2], 1, "dense")
    with pytest.raises(MachineError, match=r"1…2 results"):
        call(words, 3, "dense")
    with pytest.raises(MachineError, match="estimator must be one of"):
        call(words, 1, "guess")  # type: ignore[arg-type]
    with pytest.raises(MachineError, match="immediates must have shape"):
        call(words, 1, "dense", immediates=torch.ones(1, 8))
    for estimator in ("dense", "adjoint", "counterfactual", "marginal"):
        for wrong, reason in ((float("nan"), "not finite"), (-0.125, "negative"), (0.5, "sum to 1")):
            broken = words.clone()
            broken[1, 0, 3] = wrong
            with pytest.raises(GradientError, match=f"words .*{reason}"):
                call(broken, 1, estimator)  # type: ignore[arg-type]
    with pytest.raises(MachineError, match=r"addresses 0…3"):
        CategoricalCall(CODE, SMALL, [0, 4], [2])


# The benchmarks


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def named(name: str) -> ModuleType:
        return importlib.import_module(name)

    return named


def test_the_programs_of_the_experiments_are_right(benchmarks: Any) -> None:
    paper = benchmarks("paper")
    generator = torch.Generator().manual_seed(0)
    for task, sizes in (
        (paper.Arithmetic3(32), [1]),
        (paper.Recursion(6, 32), [1]),
        (paper.Sorting(16), [1, 3, 8, 64]),
    ):
        for size in sizes:
            batch = task.batch(20, size, True, generator)
            length = batch.answers.shape[1]
            assert torch.equal(task.execute(batch.calls, length), batch.answers)
            for call in (task.call("tables", size if size in task.sizes else None), task.call("tables", None)):
                assert torch.equal(call.answers(batch.words, length), batch.answers)


def test_training_never_sees_what_is_held_out(benchmarks: Any) -> None:
    task = benchmarks("paper").Arithmetic3(8)
    generator = torch.Generator().manual_seed(0)
    parts = [
        {tuple(row) for row in task.batch(count, 1, tested, generator).words.tolist()}
        for tested, count in ((True, 1_000), (False, 4_000))
    ]
    assert not parts[0] & parts[1]
    assert len(parts[0] | parts[1]) == 3 * 8 * 8
    assert 20 <= len(parts[0]) <= 60


def test_the_small_problems_are_solved_by_what_they_hide(benchmarks: Any) -> None:
    which = benchmarks("which_gradient")
    head = ResultHead(32, 32, range(32))
    sort, repair = which.sort(0), which.repair(0)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(8, generator=generator)
    assert which.accuracy(sort, one_hot(order, 8).float(), head) == 1.0
    right = torch.tensor(list(which.CONSTANTS.values()))
    assert which.accuracy(repair, one_hot(right, 32).float(), head) == 1.0
    assert which.accuracy(repair, repair.logits(generator), head) < 0.9
    x, z = repair.inputs.unbind(1)
    less = torch.where((x ^ 16) < (z ^ 16), 2 * z + 5, 0)
    assert torch.equal(repair.answers, torch.stack([4 * x + 3 - less, 2 * z + 5], dim=1) % 32)


def test_a_small_problem_is_learned(benchmarks: Any) -> None:
    which = benchmarks("which_gradient")
    trial = which.learn(which.repair(0), 0, "counterfactual", 0.1, seconds=30.0)
    assert trial.solved and trial.examples > 0


@pytest.mark.parametrize("start", ["copying", "random"])
def test_every_learner_trains(benchmarks: Any, start: str) -> None:
    small = benchmarks("small_llama")
    task = benchmarks("paper").Arithmetic3(8)
    for learner in (*small.ESTIMATORS, *small.CONTROLS, *small.BASELINES):
        model, run = small.train(task, learner, 0, 0.05, width=16, batch=4, start=start)
        assert run["examples"] >= 4 and np.isfinite(run["loss"])
        found = small.test(model, task, 1, 10)
        assert 0 <= found["accuracy"] <= 1
        if "reading" in found:
            assert found["accuracy"] + found["selecting"] + found["reading"] + found["executing"] == pytest.approx(1)


def test_marginal_is_an_estimate_of_the_enumerated_likelihood(benchmarks: Any) -> None:
    small = benchmarks("small_llama")
    task = benchmarks("paper").Arithmetic3(8)
    generator = torch.Generator().manual_seed(0)
    batch = task.batch(8, 1, False, generator)
    losses = []
    for learner in ("enumerated", "marginal"):
        torch.manual_seed(0)
        model = small.WithComputer(task, learner, 16, generator, "copying")
        model.samples = 4_000  # of 192 readings
        losses.append(model.loss(batch, 1))
    assert torch.allclose(*losses, atol=1e-2)


def test_arithmetic_is_learned_from_answers_alone(benchmarks: Any) -> None:
    small = benchmarks("small_llama")
    task = benchmarks("paper").Arithmetic3(16)
    model, _ = small.train(task, "enumerated", 0, 4.0, rate=4e-3)
    assert small.test(model, task, 1, 100)["accuracy"] > 0.5


def test_the_experiments_of_the_paper_run(benchmarks: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    paper, output = benchmarks("paper"), tmp_path / "figures.json"
    flags = "recursion --depths 2 3 --learners shown --seeds 2 --seconds 0.1 --count 10 --rates 1e-3 2e-3"
    monkeypatch.setattr(sys, "argv", ["paper.py", *flags.split(), "--output", str(output)])
    paper.main()
    report = json.loads(output.read_text())
    assert [(row["task"], row["learner"]) for row in report["rows"]] == [("depth 2", "shown"), ("depth 3", "shown")]
    assert all(0 <= row["accuracy"]["1"]["worst"] <= row["accuracy"]["1"]["best"] <= 1 for row in report["rows"])
