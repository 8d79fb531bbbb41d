"""Heads that are kept blind to how a backbone's states drift along lists."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from neurallib.trainer import drift
from test_trainer_on_rows import ROWS, arguments, fresh, lora
from torch import Tensor

from neurallib import DataCollatorForCalls, NeuralLibForCausalLM, NeuralLibTrainer, TrainingArgumentsError


def seen(computer: Any, directions: Tensor) -> list[float]:
    """The largest cosine between a row and a direction, of the selector's and the reader's projection."""
    weights = (part.projection.linear.weight.detach() for part in (computer, computer.reader))
    return [float((torch.nn.functional.normalize(each, dim=1) @ directions.T).abs().max()) for each in weights]


def test_a_planted_drift_is_found(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any) -> None:
    """States that move along one direction with a token's place, beside noise: that direction comes first."""
    draw = torch.Generator().manual_seed(3)
    planted = torch.nn.functional.normalize(torch.randn(12, generator=draw), dim=0)

    def backbone(tokens: Tensor, **_: Any) -> SimpleNamespace:
        places = torch.arange(tokens.shape[1], dtype=torch.float32)[None, :, None]
        noise = torch.randn(1, tokens.shape[1], 12, generator=draw)
        return SimpleNamespace(hidden_states=0.05 * places * planted + noise)

    backbone.features = lambda states: states  # type: ignore[attr-defined]
    model: Any = SimpleNamespace(
        model=backbone, computer=tiny_model.computer, device="cpu", config=SimpleNamespace(max_position_embeddings=4096)
    )
    directions = drift.drift_directions(model, tiny_tokenizer, 3)
    assert directions.shape == (3, 12)
    torch.testing.assert_close(directions @ directions.T, torch.eye(3), atol=1e-5, rtol=0)
    assert abs(float(directions[0] @ planted)) > 0.99 > abs(float(directions[1] @ planted)) + 0.5


def test_what_is_measured_is_behind_numbers(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any) -> None:
    """A drift that only the digits within a number have, after its first token, is none: such tokens are not read by themselves."""
    within = torch.eye(12)[0]

    def backbone(tokens: Tensor, **_: Any) -> SimpleNamespace:
        goes_on = tiny_model.computer.table.goes_on(tokens.numpy(), np.array([-1]))
        places = torch.arange(tokens.shape[1], dtype=torch.float32)[None, :, None]
        states = 0.01 * places * torch.eye(12)[1] + places * torch.from_numpy(goes_on)[..., None] * within
        return SimpleNamespace(hidden_states=states)

    backbone.features = lambda states: states  # type: ignore[attr-defined]
    model: Any = SimpleNamespace(
        model=backbone, computer=tiny_model.computer, device="cpu", config=SimpleNamespace(max_position_embeddings=4096)
    )
    first = drift.drift_directions(model, tiny_tokenizer, 1)[0]
    torch.testing.assert_close(first.abs(), torch.eye(12)[1], atol=1e-5, rtol=0)


def test_what_stands_behind_a_list_drifts_with_its_length(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers move along one direction with their place, what the chat template puts behind them along another one."""
    draw = torch.Generator().manual_seed(5)

    def backbone(tokens: Tensor, **_: Any) -> SimpleNamespace:
        digits = tiny_model.computer.table.characters(tokens[0].tolist())
        last = int(digits.tokens[digits.digits][-1])
        places = torch.arange(tokens.shape[1], dtype=torch.float32)[None, :, None]
        behind = (places > last).float()
        states = 0.1 * places * (1 - behind) * torch.eye(12)[1] + 0.05 * last * behind * torch.eye(12)[4]
        return SimpleNamespace(hidden_states=states + torch.randn(1, tokens.shape[1], 12, generator=draw))

    backbone.features = lambda states: states  # type: ignore[attr-defined]
    model: Any = SimpleNamespace(
        model=backbone, computer=tiny_model.computer, device="cpu", config=SimpleNamespace(max_position_embeddings=4096)
    )
    assert len(drift.drift_directions(model, tiny_tokenizer, 1)) == 1
    directions = drift.drift_directions(model, tiny_tokenizer, 1, 1)
    torch.testing.assert_close(directions @ directions.T, torch.eye(2), atol=1e-5, rtol=0)
    assert abs(float(directions[0, 1])) > 0.99 and abs(float(directions[1, 4])) > 0.99
    assert abs(float(drift.drift_directions(model, tiny_tokenizer, 0, 1)[0, 4])) > 0.99
    all_of_them = drift.drift_directions(model, tiny_tokenizer, 8, 8)
    torch.testing.assert_close(all_of_them @ all_of_them.T, torch.eye(12), atol=1e-5, rtol=0)
    lengths = sorted(len(drift._tokens(tiny_tokenizer, text)) for text in drift.random_lists())
    model.config.max_position_embeddings = lengths[-1] - 1  # the longest lists are cut, and say nothing of what is behind them
    assert abs(float(drift.drift_directions(model, tiny_tokenizer, 1, 1)[1, 4])) > 0.99
    model.config.max_position_embeddings = lengths[0] - 1
    with pytest.raises(TrainingArgumentsError, match=r"end_drift_directions: a context of .* holds no list of 48 numbers"):
        drift.drift_directions(model, tiny_tokenizer, 1, 1)
    model.config.max_position_embeddings = 4096
    monkeypatch.setattr(tiny_tokenizer, "chat_template", None)
    assert len(drift.drift_directions(model, tiny_tokenizer, 2, 3)) == 2


@pytest.mark.parametrize("adapter", [False, True], ids=["heads", "heads+lora"])
def test_the_heads_stay_blind_while_they_learn(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path, adapter: bool
) -> None:
    model = fresh(tiny_model)
    model.computer.selector.no_call.bias.data.zero_()
    directions = drift.drift_directions(model, tiny_tokenizer, 3, 2)
    assert directions.shape == (5, model.computer.reader.projection.linear.in_features)
    before = model.computer.projection.linear.weight.detach().clone()
    assert min(seen(model.computer, directions)) > 0.01

    def run(count: int, ends: int) -> Any:
        trainer = NeuralLibTrainer(
            fresh(model), arguments(tmp_path / f"{count} {ends}", max_steps=4, drift_directions=count, end_drift_directions=ends),
            None, ROWS, None, tiny_tokenizer, lora() if adapter else None,
        )  # fmt: skip
        trainer.train()
        return trainer.language_model.computer

    trained = run(3, 2)
    assert max(seen(trained, directions)) < 1e-6
    blind = before - (before @ directions.T) @ directions
    assert (trained.projection.linear.weight - blind).abs().max() > 1e-4, "it has learned nothing"
    assert min(seen(run(0, 0), directions)) > 0.01


def test_a_run_that_goes_on_has_the_same_heads(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    def run(steps: int, folder: str, resume: bool = False) -> dict[str, Tensor]:
        torch.manual_seed(7)
        more = dict(
            max_steps=steps, per_device_train_batch_size=2, save_strategy="steps", save_steps=3, drift_directions=4
        )
        trainer = NeuralLibTrainer(
            fresh(tiny_model), arguments(tmp_path / folder, **more), None, ROWS, None, tiny_tokenizer
        )
        trainer.train(resume_from_checkpoint=resume or None)
        return {name: value.clone() for name, value in trainer.language_model.computer.state_dict().items()}

    straight = run(6, "straight")
    run(3, "halved")
    resumed = run(6, "halved", resume=True)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_what_cannot_be(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path) -> None:
    def start(**more: Any) -> None:
        NeuralLibTrainer(tiny_model, arguments(tmp_path, **more), None, ROWS, None, tiny_tokenizer)

    with pytest.raises(TrainingArgumentsError, match="drift_directions is at least 0, found -1"):
        start(drift_directions=-1)
    with pytest.raises(TrainingArgumentsError, match="end_drift_directions is at least 0, found -2"):
        start(end_drift_directions=-2)
    with pytest.raises(TrainingArgumentsError, match="that train='library_keys' leaves as they are"):
        start(train="library_keys", drift_directions=2)
    with pytest.raises(TrainingArgumentsError, match="drift_directions and end_drift_directions need the tokenizer"):
        collator = DataCollatorForCalls(tiny_tokenizer, tiny_model)
        NeuralLibTrainer(
            tiny_model, arguments(tmp_path, drift_directions=2), collator, [{"input_ids": [1], "labels": [1]}]
        )
    short = fresh(tiny_model)
    short.config.max_position_embeddings = 8
    with pytest.raises(TrainingArgumentsError, match="a context of 8 tokens holds no list"):
        NeuralLibTrainer(short, arguments(tmp_path, drift_directions=2), None, ROWS, None, tiny_tokenizer)
