"""Recipes of several runs, and explanations that remember how a reader read them."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import TINY_HEADS, make_base, make_tokenizer
from neurallib.modeling_neurallib.objective import MarginalObjective
from neurallib.trainer import runs
from neurallib.trainer.lessons import EVEN, Lessons, collate, weighed
from neurallib.trainer.recipe import Recipe, RecipeError
from test_training import lessons  # noqa: F401  (a fixture)

from neurallib import NeuralLibForCausalLM

THEN = [
    {"epochs": 2, "weigh_explanations": True, "reading_share": 0.3, "learning_rate": 5e-4},
    {"epochs": 1, "reading_share": 1.0, "tempering": 0.0},
]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    tokenizer = make_tokenizer()
    make_base(tokenizer).save_pretrained(folder / "llama")
    tokenizer.save_pretrained(folder / "llama")
    told = {
        "base": str(folder / "llama"), "examples": 12, "validation": 6, "replies": 2, "reply_tokens": 4, "sentence_share": 0,
        "budget": 60, "batch_size": 4, "epochs": 1, "tempering": 0.3, "heads": TINY_HEADS, "use_cpu": True,
        "disable_tqdm": True, "save_steps": 2, "sample_size": 0,
    }  # fmt: skip
    (folder / "one.yaml").write_text(yaml.safe_dump(told))
    (folder / "three.yaml").write_text(yaml.safe_dump({**told, "then": THEN}))
    return folder


@pytest.fixture(scope="module")
def whole(recipe: Path) -> Path:
    runs.train(recipe / "three.yaml", [f"output={recipe / 'whole'}"])
    return recipe / "whole"


def heads(folder: Path) -> bytes:
    return (folder / "heads" / "heads.safetensors").read_bytes()


def test_a_recipe_of_three_runs_is_three_recipes_one_after_another(recipe: Path, whole: Path) -> None:
    before: list[str] = []
    for number, changes in enumerate([{}, *THEN]):
        told = [*before, *(f"{key}={value}" for key, value in changes.items())]
        runs.train(recipe / "one.yaml", [f"output={recipe / f'run {number}'}", *told])
        before = ["heads={}", f"start_from={recipe / f'run {number}' / 'heads'}"]
    for number, folder in enumerate((whole / "part-1", whole / "part-2", whole)):
        assert heads(folder) == heads(recipe / f"run {number}")
    assert len({heads(folder) for folder in (whole / "part-1", whole / "part-2", whole)}) == 3
    told = json.loads((whole / "heads" / "heads_config.json").read_text())["report"]["recipe"]
    assert told["then"] == THEN and told["heads"] == TINY_HEADS, "the heads tell the whole recipe"
    assert not list((whole / "part-1").glob("features")), "what the runs share is there once"


def test_runs_that_are_made_are_not_made_again(recipe: Path, whole: Path) -> None:
    wanted, made = heads(whole), (whole / "part-1" / "heads").stat().st_ino
    for file in (whole / "part-2" / "heads").iterdir():
        file.unlink()
    (whole / "part-2" / "heads").rmdir()
    runs.train(recipe / "three.yaml", [f"output={whole}"])
    assert heads(whole) == wanted
    assert (whole / "part-1" / "heads").stat().st_ino == made
    with pytest.raises(RecipeError, match=r"part-1 was trained by another recipe: remove it, or choose another output"):
        runs.train(recipe / "three.yaml", [f"output={whole}", "weight_decay=0.5"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"examples": 3}, r"then, run 2: 'examples' is the same in all runs; they differ in epochs, "),
        ({"heads": {}}, r"then, run 2: 'heads' is the same in all runs"),
        ({"epoch": 3}, r"no key 'epoch'; did you mean 'epochs'"),
        ({"epochs": "many"}, r"epochs must be int or float, found 'many'"),
    ],
)
def test_what_cannot_come_after(recipe: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        runs.train(recipe / "one.yaml", [f"output={recipe / 'none'}", f"then={json.dumps([changes])}"])
    assert not (recipe / "none").exists()


def test_what_is_for_heads_alone_is_refused_elsewhere(recipe: Path) -> None:
    with pytest.raises(RecipeError, match="weigh_explanations asks the heads of start_from, and there is none"):
        runs.train(recipe / "one.yaml", [f"output={recipe / 'none'}", "weigh_explanations=true"])
    with pytest.raises(RecipeError, match="then and weigh_explanations are for the heads of a frozen backbone"):
        runs.train(recipe / "three.yaml", [f"output={recipe / 'none'}", "peft={r: 2, target_modules: [q_proj]}"])
    assert Recipe.load(recipe / "one.yaml").parts() == [Recipe.load(recipe / "one.yaml")]


def test_explanations_are_weighed_by_the_reader(lessons: Lessons, tiny_model: NeuralLibForCausalLM) -> None:  # noqa: F811
    """The shares are the reader's probabilities, with a part of an even reading; two processes divide the work."""
    computer = tiny_model.computer
    found = dict(weighed(lessons, batch_size=3))
    halves = [pair for process in (0, 1) for pair in weighed(lessons, process, 2, batch_size=2)]
    assert sorted(found) == sorted(number for number, _ in halves)
    assert sorted(found) == [number for number, lesson in enumerate(lessons.lessons) if lesson.explanations]
    for number, explanations in halves:
        assert [one.read for one in explanations] == pytest.approx([one.read for one in found[number]], abs=1e-4)
    computer.eval()
    number = next(number for number in found if len(found[number]) > 1)
    batch = collate([lessons[number]])["batch"]
    (readings,) = MarginalObjective(computer).readings(batch)
    for one, read in zip(found[number], readings, strict=True):
        assert one.read == pytest.approx(math.log((1 - EVEN) * math.exp(read) + EVEN / one.candidates), abs=1e-4)
        assert dataclasses.replace(one, read=None) in lessons.lessons[number].explanations


def test_where_nothing_is_read_the_remembered_reading_counts(
    lessons: Lessons,  # noqa: F811
    tiny_model: NeuralLibForCausalLM,
) -> None:
    """With a reading's exact log-probabilities the likelihood is the one in which all is read."""
    computer, objective = tiny_model.computer.eval(), MarginalObjective(tiny_model.computer)
    computer.selector.no_call.bias.data.zero_()
    batch = collate([lessons[i] for i in range(len(lessons))])["batch"]
    readings = objective.readings(batch)
    rows = [
        [dataclasses.replace(one, read=read) for one, read in zip(row, read_row, strict=True)]
        for row, read_row in zip(batch.explanations, readings, strict=True)
    ]
    with torch.no_grad():
        computer.reading_weight = 1.0
        wanted, _ = objective.score(batch)
        computer.reading_weight = 0.0
        found, _ = objective.score(dataclasses.replace(batch, explanations=rows))
        even, _ = objective.score(batch)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-5)
    assert not torch.allclose(even, wanted, atol=1e-2)
