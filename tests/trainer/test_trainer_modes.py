"""The Trainer in every mode that its arguments name: the dense estimator, shares of labels, streams, reports, checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_HEADS
from datasets import Dataset, IterableDataset
from neurallib.modeling_neurallib.compiler.compiling import compile_source
from neurallib.modeling_neurallib.dense_objective import DenseObjectiveError
from neurallib.trainer.own_data import FileRows, RowReader, StreamedLessons, load_rows
from test_trainer_on_rows import PARTS, ROWS, arguments, fresh, lora, weights
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from neurallib import NeuralLibForCausalLM, NeuralLibTrainer, standard_library

# The dense estimator

SMALL = {"values": 128, "memory": 40, "registers": 16, "call_depth": 4, "max_steps": 40}
FIRST = '''
def first(text: str) -> str:
    """The first character."""
    return text[0]
'''
LETTERS = [{"prompt": f"say {word}", "completion": word[0]} for word in ("abc", "xyz", "hut", "dog")]


@pytest.fixture
def dense_model(tiny_base: Any, tiny_tokenizer: Any) -> NeuralLibForCausalLM:
    torch.manual_seed(2)
    heads = {**TINY_HEADS, "dense_machine": SMALL}
    model = NeuralLibForCausalLM.from_llama(tiny_base, compile_source(FIRST, name="letters"), tiny_tokenizer, heads=heads)
    model.computer.selector.no_call.bias.data.fill_(-2.0)
    return model


@pytest.mark.parametrize("trained", ["heads", "all", "heads+lora"])
def test_the_dense_estimator_trains_what_is_asked_for(
    dense_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path, trained: str
) -> None:
    trainer = NeuralLibTrainer(
        dense_model,
        arguments(tmp_path, train=trained, estimator="dense", max_steps=4, learning_rate=1e-2, sample_size=4),
        train_dataset=LETTERS,
        eval_dataset=LETTERS,
        processing_class=tiny_tokenizer,
        peft_config=lora() if trained.endswith("lora") else None,
    )
    before = weights(trainer.model)
    trainer.train()
    assert not trainer.cached and dense_model.config.estimator == "dense"
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.1
    assert not PARTS & set(trainer.state.log_history[0]), "the parts are those of the marginal estimator"
    changed = {name for name, value in weights(trainer.model).items() if not torch.equal(value, before[name])}
    assert any(".reader." in name for name in changed), "the run is differentiated down to what was read"
    assert any(".computer." not in name for name in changed) == (trained != "heads")
    found = trainer.evaluate()
    assert 0 < found["eval_loss"] < losses[0] and 0 <= found["eval_exact"] <= 1


def test_the_dense_estimator_refuses_what_it_is_too_small_for(
    tiny_base: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    model = NeuralLibForCausalLM.from_llama(tiny_base, standard_library(), tiny_tokenizer, heads=TINY_HEADS)
    with pytest.raises(DenseObjectiveError, match="load a smaller library, or use the estimator 'marginal'"):
        NeuralLibTrainer(model, arguments(tmp_path, estimator="dense"), None, "nowhere/at_all", None, tiny_tokenizer)


# Supervision


BOTH_WAYS = {
    "prompt": "Add 12 and 30, or 30 and 12",
    "completion": "42",
    "calls": [{"program": "add", "arguments": ["12", "30"]}],
}


@pytest.mark.parametrize("cached", [True, False])
def test_a_share_of_the_labels_counts(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path, cached: bool
) -> None:
    def labelled(supervision: str | float, seed: int = 0) -> set[int]:
        """The rows of which nothing but the labelled call counts."""
        settings = arguments(tmp_path, supervision=supervision, seed=seed, cached_features=cached)
        rows = [{**BOTH_WAYS, "prompt": f"{BOTH_WAYS['prompt']}, {word}"} for word in "abcdefghijklmnopqrst"]
        trainer = NeuralLibTrainer(fresh(tiny_model), settings, None, rows, None, tiny_tokenizer)
        trainer.train()
        assert trainer.cached == cached and trainer.state.log_history[0]["call_loss"] > 0
        explained = [len(lesson.explanations) for lesson in trainer.train_dataset.lessons]
        assert len(set(explained)) == 1 + (supervision == 0.3), "some rows are labelled, others are searched"
        alone = 4  # each number stands at two places
        return {number for number, count in enumerate(explained) if count == alone}

    some = labelled(0.3)
    assert 1 <= len(some) <= 12 and some != labelled(0.3, seed=1)
    assert labelled("answers") == set() and labelled("calls") == set(range(20))


def test_labels_are_learned_alike_on_both_paths(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    """Where calls are given the backbone alone explains no answer, be its features remembered or not."""
    tiny_model.computer.selector.no_call.bias.data.fill_(9.0)
    found = []
    for cached, supervision in ((True, "calls"), (False, "calls"), (False, "answers")):
        settings = arguments(tmp_path, supervision=supervision, cached_features=cached)
        trainer = NeuralLibTrainer(fresh(tiny_model), settings, None, [BOTH_WAYS], None, tiny_tokenizer)
        trainer.train()
        found.append(trainer.state.log_history[0]["answer_loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-3) and found[2] < found[1] - 0.1


# Streams


def streamed(rows: list[dict[str, Any]]) -> IterableDataset:
    return Dataset.from_list(rows).to_iterable_dataset(num_shards=2).shuffle(seed=3, buffer_size=2)


def test_a_stream_of_datasets_trains_and_is_reported(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    rows = [*ROWS, {"prompt": "Add 1 and 2", "completion": ""}]
    settings = arguments(tmp_path, max_steps=5, per_device_train_batch_size=2, on_bad_row="skip", sample_size=4)
    trainer = NeuralLibTrainer(
        tiny_model,
        settings,
        train_dataset=streamed(rows),
        eval_dataset=IterableDataset.from_generator(lambda: iter(ROWS)),
        processing_class=tiny_tokenizer,
    )
    before = weights(tiny_model.computer)
    trainer.train()
    assert any(not torch.equal(value, before[name]) for name, value in weights(tiny_model.computer).items())
    report = trainer.data_reports["train"]
    assert not trainer.cached and trainer.state.global_step == 5 and trainer.state.epoch > 1
    assert report.rows and [reason for _, reason in report.bad] == ["its answer is empty"]
    found = trainer.evaluate()
    assert found["eval_loss"] > 0 and 0 <= found["eval_exact"] <= 1 and trainer.data_reports["evaluation"].rows == 4


@pytest.mark.parametrize("kind", ["a file", "datasets"])
def test_workers_share_a_stream(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path, kind: str
) -> None:
    Dataset.from_list(ROWS).to_parquet(tmp_path / "rows.parquet")
    rows = load_rows(tmp_path / "rows.parquet", streaming=True)
    assert isinstance(rows, FileRows)
    if kind == "datasets":
        rows = Dataset.from_list(ROWS).to_iterable_dataset(num_shards=1)  # of which the second worker gets nothing
    stream = StreamedLessons(rows, RowReader(tiny_model, tiny_tokenizer))
    texts = [lesson.dialogue.messages[0] for lesson in DataLoader(stream, batch_size=None, num_workers=2)]
    assert sorted(texts) == sorted(row["prompt"] for row in ROWS)


# Reports


def test_what_is_reported_has_all_that_is_logged(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    class Reporter(TrainerCallback):  # type: ignore[misc]
        """Stands for a tracker's integration in transformers."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            seen.append(dict(logs))

    tiny_model.computer.selector.no_call.bias.data.zero_()  # so that there are calls to tell of
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "ours", Reporter)
    more = dict(max_steps=4, sample_size=4, sample_steps=2, eval_strategy="steps", eval_steps=2, report_to=["ours"])
    trainer = NeuralLibTrainer(tiny_model, arguments(tmp_path, **more), None, ROWS, ROWS, tiny_tokenizer)
    trainer.train()
    training = [logs for logs in seen if "loss" in logs]
    assert len(training) == 4 and all(set(logs) >= PARTS | {"grad_norm", "learning_rate"} for logs in training)
    assert ["sample_exact" in logs for logs in training] == [False, True, False, True]
    evaluated = [logs for logs in seen if "eval_loss" in logs]
    assert len(evaluated) == 2 and "train_runtime" in seen[-1]
    for name in ("exact", "quiet", "call_rate", "selector_errors", "reader_errors", "execution_errors", "steps_per_call"):
        assert all(f"eval_{name}" in logs for logs in evaluated), name
        assert f"sample_{name}" in training[1], name


# Checkpoints


MODES: dict[str, dict[str, Any]] = {
    "library keys": {"train": "library_keys", "weight_decay": 0.1},
    "some library keys": {"train": "library_keys", "tuned_programs": ["add", "count"], "cached_features": False},
    "remembered features, accumulated": {"gradient_accumulation_steps": 2},
    "through the model, accumulated": {"gradient_accumulation_steps": 2, "cached_features": False},
    "everything": {"train": "all", "redescribe_steps": 2, "backbone_learning_rate": 1e-3},
    "a stream": {"on_unexplained": "skip"},
    "LoRA, accumulated": {"gradient_accumulation_steps": 2, "peft": "lora"},
    "IA3": {"peft": "ia3"},
    "keys from descriptions": {"keys_from_descriptions": True},
    "tempered reading": {"tempering": 0.8, "reading_share": 0.5, "lr_scheduler_type": "cosine"},
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_resumes_to_the_bit(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path, mode: str
) -> None:
    from peft import IA3Config

    tiny_model.computer.selector.no_call.bias.data.zero_()
    settings = dict(MODES[mode])
    adapter = settings.pop("peft", None)
    ia3 = {"target_modules": ["q_proj", "down_proj"], "feedforward_modules": ["down_proj"], "task_type": "CAUSAL_LM"}

    def run(steps: int, folder: str, resume: bool = False) -> tuple[dict[str, torch.Tensor], list[float]]:
        torch.manual_seed(7)
        # A schedule is one of all steps: the run that is cut short is stopped amid one of six.
        more = dict(max_steps=6, per_device_train_batch_size=2, save_strategy="steps", save_steps=3, **settings)
        trainer = NeuralLibTrainer(
            fresh(tiny_model, dropout=0.1),
            arguments(tmp_path / folder, **more),
            train_dataset=streamed([*ROWS, *ROWS]) if mode == "a stream" else ROWS,
            processing_class=tiny_tokenizer,
            peft_config={None: None, "lora": lora(lora_dropout=0.1), "ia3": IA3Config(**ia3)}[adapter],
            callbacks=[StopsAt(steps)],
        )
        before = weights(trainer.model)
        trainer.train(resume_from_checkpoint=resume or None)
        assert trainer.state.global_step == steps
        after = weights(trainer.model)
        assert resume or any(not torch.equal(after[name], value) for name, value in before.items())
        return after, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    straight, losses = run(6, "straight")
    run(3, "halved")
    assert {path.name for path in (tmp_path / "halved").glob("checkpoint-*")} == {"checkpoint-3"}
    resumed, again = run(6, "halved", resume=True)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert again == losses and len(set(losses)) > 1


class StopsAt(TrainerCallback):  # type: ignore[misc]
    """Ends a run after some of its steps."""

    def __init__(self, steps: int):
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step >= self.steps
