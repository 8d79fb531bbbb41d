"""The tasks as a builder of ``datasets``: the same rows from every process, splits that keep apart, rows that are true."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from huggingface_hub import DatasetCard
from neurallib.trainer import task_builder
from neurallib.trainer.dialogues import DialogueGenerator, DialogueShares
from neurallib.trainer.task_builder import HELD_OUT, LISTS, TaskBuilder, data_card, load_tasks, row
from neurallib.trainer.wording import GENERAL, PARAMETERS, TaskError, is_validation, wordings

NAMES = [config.name for config in TaskBuilder.BUILDER_CONFIGS]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    cache = tmp_path_factory.mktemp("cache")
    return {name: load_tasks(name, cache_dir=cache, examples=140, seed=4) for name in NAMES}


def check(example: dict[str, Any]) -> None:
    *earlier, last = example["messages"]
    assert [m["role"] for m in example["messages"]] == ["user", "assistant"] * (
        len(earlier) // 2 + len(earlier) % 2
    ) + ([] if example["calls"] else ["user"])
    assert example["answers"] == [call["answer"] for call in example["calls"]]
    for call in example["calls"]:
        assert call["answer"] in last["content"]
        for argument, pieces in zip(call["arguments"], call["spans"], strict=True):
            texts = [example["messages"][p["message"]]["content"][p["start"] : p["end"]] for p in pieces]
            assert ", ".join(texts) == argument
    assert example["program"] == (example["calls"][0]["program"] if example["calls"] else "")
    assert (example["length"] > 0) == bool(example["calls"])


def test_every_row_is_true(built: dict[str, Any]) -> None:
    for splits in built.values():
        for split in splits.values():
            assert len(split) == 140
            for example in split:
                check(example)
    assert not any(example["calls"] for example in built["general"]["validation"])
    assert any(len(example["calls"]) > 1 for example in built["dialogues"]["train"])


def test_splits_by_phrasing_by_length_and_by_program(built: dict[str, Any]) -> None:
    for name in ("requests", "general", "programs"):
        for split in ("train", "validation"):
            for wording in built[name][split]["wording"]:
                program, _, number = wording.partition(":")
                assert is_validation(wordings(program)[int(number)]) == (split == "validation")
    lengths = {
        name: {split: set(rows["length"]) for split, rows in built[name].items()} for name in ("numbers", "lists")
    }
    assert lengths["numbers"]["digits_1_4"] <= set(range(1, 5))
    assert lengths["numbers"]["digits_5_12"] <= set(range(5, 13))
    assert lengths["numbers"]["digits_40"] == {40}
    assert lengths["lists"] == {"length_2_8": set(range(2, 9)), "length_16": {16}, "length_64": {64}}
    assert set(built["lists"]["length_16"]["program"]) == set(LISTS)
    assert set(built["programs"]["held_out"]["program"]) == set(HELD_OUT)
    for split in ("train", "validation"):
        assert set(built["programs"][split]["program"]) == set(PARAMETERS) - set(HELD_OUT)
    assert len(HELD_OUT) >= 6


def test_workers_streaming_and_other_processes_give_the_same_rows(built: dict[str, Any], tmp_path: Path) -> None:
    expected = built["dialogues"]["validation"].to_list()
    shared_out = load_tasks("dialogues", "validation", num_proc=2, cache_dir=tmp_path, examples=140, seed=4)
    assert shared_out.to_list() == expected
    builder = TaskBuilder("dialogues", cache_dir=str(tmp_path / "streamed"), examples=140, seed=4)
    streamed = builder.as_streaming_dataset(split="validation")
    assert streamed.num_shards == 2
    assert list(streamed) == expected
    code = (
        "import json, sys\n"
        "from neurallib import load_tasks\n"
        f"rows = load_tasks('dialogues', 'validation', cache_dir={str(tmp_path / 'other')!r}, examples=140, seed=4)\n"
        "print(json.dumps(rows.to_list()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=300)
    assert json.loads(done.stdout.splitlines()[-1]) == expected


def test_rows_are_those_of_the_generators(built: dict[str, Any]) -> None:
    made = DialogueGenerator(4, "train").dialogues(20, DialogueShares(), start=120)
    assert [row(dialogue) for dialogue in made] == built["dialogues"]["train"].to_list()[120:]


def test_seeds_and_fields_make_other_data_sets(built: dict[str, Any], tmp_path: Path) -> None:
    other = load_tasks("requests", "train[:20]", cache_dir=tmp_path, examples=140, seed=5)
    assert other.to_list() != built["requests"]["train"].to_list()[:20]
    mixed = load_tasks("requests", "train", cache_dir=tmp_path, examples=40, general_share=0.5)
    assert sum(wording.startswith(GENERAL) for wording in mixed["wording"]) == 20


def test_what_was_built_is_read_again_until_the_generators_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = TaskBuilder("general", cache_dir=str(tmp_path), examples=3)
    first.download_and_prepare()
    monkeypatch.setattr(TaskBuilder, "_generate_examples", lambda *_, **__: pytest.fail("built again"))
    assert len(load_tasks("general", "train", cache_dir=tmp_path, examples=3)) == 3
    monkeypatch.setattr(task_builder, "generator_hash", lambda: "0" * 16)
    assert TaskBuilder("general", cache_dir=str(tmp_path), examples=3).cache_dir != first.cache_dir


def test_what_there_is_not_is_said(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no configuration 'request'; there are requests, dialogues"):
        TaskBuilder("request", cache_dir=str(tmp_path))
    with pytest.raises(TaskError, match="no field 'example'; did you mean 'examples'"):
        load_tasks("requests", cache_dir=tmp_path, example=3)
    with pytest.raises(TaskError, match="examples ≥ 1"):
        load_tasks("requests", cache_dir=tmp_path, examples=0)
    with pytest.raises(TaskError, match="kind must be one of requests, dialogues, general, found 'dialogue'"):
        TaskBuilder("requests", cache_dir=str(tmp_path), kind="dialogue")
    with pytest.raises(TaskError, match="general_share is of configurations of kind 'requests'; dialogues is of kind"):
        TaskBuilder("dialogues", cache_dir=str(tmp_path), general_share=0.2)
    with pytest.raises(
        TaskError, match="shares is of configurations of kind 'dialogues'; general is of kind 'general'"
    ):
        TaskBuilder("general", cache_dir=str(tmp_path), shares=DialogueShares())
    with pytest.raises(TaskError, match="cannot give the split 'test'; it has train, validation"):
        load_tasks("general", "test", cache_dir=tmp_path, examples=2)


def test_the_data_card_needs_no_editing(tmp_path: Path) -> None:
    card = data_card(seed=3, examples=50)
    card.save(tmp_path / "README.md")
    read = DatasetCard.load(tmp_path / "README.md")
    assert [config["config_name"] for config in read.data.configs] == NAMES
    for config in TaskBuilder.BUILDER_CONFIGS:
        for split in config.splits:
            assert f"| {config.name} | {split} |" in read.text
    for column in datasets.Features(TaskBuilder("requests", cache_dir=str(tmp_path)).info.features):
        assert f"| {column} |" in read.text
    assert "seed 3, 50 examples" in read.text and "{{" not in read.text
