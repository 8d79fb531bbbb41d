"""Heads that learn in whitened features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from neurallib.trainer import drift
from neurallib.trainer.checkpoints import CheckpointError
from neurallib.trainer.whitening import Whitened, whitened, whitening_of
from test_drift import seen
from test_trainer_on_rows import ROWS, arguments, fresh, lora
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import TrainerCallback

from neurallib import NeuralLibForCausalLM, NeuralLibTrainer, TrainingArgumentsError


def stretched(layers: int, size: int, seed: int) -> Tensor:
    """Features of which some directions are a thousand times as long as others, with a mean that is not 0."""
    draw = torch.Generator().manual_seed(seed)
    parts = []
    for _ in range(layers):
        mixed = torch.linalg.qr(torch.randn(size, size, generator=draw)).Q * torch.logspace(-1, 2, size)[:, None]
        parts.append(torch.randn(4_000, size, generator=draw) @ mixed + torch.randn(size, generator=draw))
    return torch.cat(parts, dim=1)


@given(st.integers(1, 3), st.integers(2, 9), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_what_it_makes_of_features_is_white(layers: int, size: int, seed: int) -> None:
    features = stretched(layers, size, seed)
    maps = whitening_of(features, layers, ridge=1e-9)
    assert maps.shape == (layers, size, size)
    white = torch.einsum("nlh,lhk->nlk", features.unflatten(1, (layers, size)), maps)
    moments = torch.einsum("nlh,nlk->lhk", white, white) / len(white)
    torch.testing.assert_close(moments, torch.eye(size).expand(layers, -1, -1), atol=0.05, rtol=0)


def test_a_ridge_leaves_short_directions_alone() -> None:
    features = torch.randn(5_000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([10.0, 1e-4])
    scales = whitening_of(features, 1, ridge=0.1)[0].diagonal()
    torch.testing.assert_close(scales, torch.tensor([105.0, 5.0]).rsqrt(), rtol=0.05, atol=0)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_function_stays_the_same_and_steps_follow_the_white_features(seed: int) -> None:
    features = stretched(2, 6, seed)
    torch.manual_seed(seed)
    linear = nn.Linear(12, 3)
    weight, parameter = linear.weight.detach().clone(), linear.weight
    maps = whitening_of(features, 2, 0.01)
    with whitened([linear], maps):
        torch.testing.assert_close(linear.weight.detach(), weight, atol=1e-4, rtol=1e-4)
        linear(features[:50]).square().sum().backward()
        learned = linear.parametrizations.weight.original  # type: ignore[union-attr,index]
        white = torch.einsum("nlh,lhk->nlk", features[:50].unflatten(1, (2, 6)), maps).flatten(1)
        expected = torch.autograd.grad((white @ learned.T + linear.bias).square().sum(), learned)[0]
        torch.testing.assert_close(learned.grad, expected, atol=1e-2, rtol=1e-3)
        with torch.no_grad():
            learned += 1
            changed = linear.weight.detach().clone()
    torch.testing.assert_close(linear.weight, changed)
    assert isinstance(linear.weight, nn.Parameter) and type(linear) is nn.Linear and parameter.requires_grad
    assert set(linear.state_dict()) == {"weight", "bias"}


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_what_is_not_to_be_seen_is_not_seen(seed: int) -> None:
    """Whatever is learned; and where nothing is, only that is taken from the weight."""
    torch.manual_seed(seed)
    unseen = torch.linalg.qr(torch.randn(12, 3)).Q.T
    linear = nn.Linear(12, 4)
    expected = linear.weight.detach() - (linear.weight.detach() @ unseen.T) @ unseen
    with whitened([linear], whitening_of(stretched(2, 6, seed), 2, 0.01), unseen):
        torch.testing.assert_close(linear.weight.detach(), expected, atol=1e-4, rtol=1e-4)
        with torch.no_grad():
            linear.parametrizations.weight.original += torch.randn(4, 12)  # type: ignore[union-attr,index]
    assert (linear.weight @ unseen.T).abs().max() < 1e-4 * linear.weight.abs().max()


def test_an_error_leaves_a_plain_weight() -> None:
    linear = nn.Linear(4, 2)
    with pytest.raises(KeyError), whitened([linear], torch.eye(4)[None]):
        assert isinstance(linear.parametrizations.weight[0], Whitened)  # type: ignore[union-attr,index]
        raise KeyError
    assert set(linear.state_dict()) == {"weight", "bias"}


def run(model: NeuralLibForCausalLM, tokenizer: Any, folder: Path, resume: bool = False, **more: Any) -> Any:
    torch.manual_seed(7)
    given = dict(per_device_train_batch_size=2, save_strategy="steps", save_steps=3) | more
    model = fresh(model)
    model.computer.selector.no_call.bias.data.zero_()
    trainer = NeuralLibTrainer(model, arguments(folder, **given), None, ROWS, None, tokenizer)
    trainer.train(resume_from_checkpoint=resume or None)
    return trainer.language_model.computer


def test_the_trainer_learns_and_leaves_plain_heads(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    plain = run(tiny_model, tiny_tokenizer, tmp_path / "plain", max_steps=4)
    white = run(tiny_model, tiny_tokenizer, tmp_path / "white", max_steps=4, whitening=0.1)
    assert plain.state_dict().keys() == white.state_dict().keys()
    was, one, other = (each.projection.linear.weight for each in (tiny_model.computer, plain, white))
    assert not torch.allclose(one, other, atol=1e-4), "whitening changes nothing"
    assert not torch.allclose(was, other, atol=1e-4), "it has learned nothing"


def test_what_is_saved_in_the_middle_of_training_is_plain(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    then = []

    class Save(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            trainer.save_model(str(tmp_path / "model"))
            then.append(trainer.language_model.computer.projection.linear.weight.detach().clone())

    model = fresh(tiny_model)
    trainer = NeuralLibTrainer(
        model, arguments(tmp_path / "run", max_steps=1, whitening=0.1), None, ROWS, None, tiny_tokenizer, callbacks=[Save()]
    )
    trainer.train()
    loaded = NeuralLibForCausalLM.from_pretrained(str(tmp_path / "model"))
    assert torch.equal(loaded.computer.projection.linear.weight, then[0])
    assert loaded.state_dict().keys() == model.state_dict().keys()


def test_features_that_are_dropped_are_not_whitened(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    model = fresh(tiny_model)
    selector, reader = model.computer.projection, model.computer.reader.projection
    found = []

    class Look(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            found.append([parametrize.is_parametrized(part.linear) for part in (selector, reader)])

    for share, whitened_ones in ((0.1, [True, False]), (0.0, [True, True])):
        reader.dropout.share = share
        more: Any = dict(max_steps=1, whitening=0.1)
        trainer = NeuralLibTrainer(
            model, arguments(tmp_path / str(share), **more), None, ROWS, None, tiny_tokenizer, callbacks=[Look()]
        )
        trainer.train()
        assert found.pop() == whitened_ones
    selector.dropout.share = reader.dropout.share = 0.1
    with pytest.raises(TrainingArgumentsError, match="whitening needs a head_dropout or a reader_dropout of 0"):
        NeuralLibTrainer(model, arguments(tmp_path, **more), None, ROWS, None, tiny_tokenizer)


def test_blindness_to_drift_and_whitening_go_together(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    model = fresh(tiny_model)
    directions = drift.drift_directions(model, tiny_tokenizer, 5)
    trained = run(model, tiny_tokenizer, tmp_path, max_steps=4, whitening=0.1, drift_directions=5)
    assert max(seen(trained, directions)) < 1e-5


def test_a_run_that_goes_on_has_the_same_heads(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    straight = run(tiny_model, tiny_tokenizer, tmp_path / "straight", max_steps=6, whitening=0.1).state_dict()
    run(tiny_model, tiny_tokenizer, tmp_path / "halved", max_steps=3, whitening=0.1)
    halved = run(tiny_model, tiny_tokenizer, tmp_path / "halved", True, max_steps=6, whitening=0.1).state_dict()
    assert all(torch.equal(straight[name], halved[name]) for name in straight)
    with pytest.raises(CheckpointError, match=r"made with another whitening \(0.1, now none\)"):
        run(tiny_model, tiny_tokenizer, tmp_path / "halved", True, max_steps=7)


def test_what_cannot_be(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path) -> None:
    def start(peft: Any = None, **more: Any) -> None:
        NeuralLibTrainer(fresh(tiny_model), arguments(tmp_path, **more), None, ROWS, None, tiny_tokenizer, peft)

    with pytest.raises(TrainingArgumentsError, match="whitening is at least 0, found -1"):
        start(whitening=-1)
    for more in ({"train": "library_keys"}, {"cached_features": False}, {"train": "all"}, {"peft": lora()}):
        with pytest.raises(TrainingArgumentsError, match="whitening is of remembered features"):
            start(whitening=0.1, **more)
