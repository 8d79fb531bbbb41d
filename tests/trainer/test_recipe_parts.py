"""Recipes of several runs, and explanations that remember how a reader read them."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from conftest import TINY_HEADS, make_base, make_tokenizer
from neurallib.modeling_neurallib import objective as objective_module
from neurallib.modeling_neurallib.objective import EVEN, CallBatch, Explanation, MarginalObjective
from neurallib.trainer import runs
from neurallib.trainer.features import Conversation
from neurallib.trainer.lessons import Lesson, Lessons, collate, weighed
from neurallib.trainer.recipe import Recipe, RecipeError
from test_training import lessons  # noqa: F401  (a fixture)
from typer.testing import CliRunner

from neurallib import NeuralLibForCausalLM
from neurallib.command_line import app

THEN = [
    {"epochs": 2, "weigh_explanations": True, "reading_share": 0.3, "learning_rate": 5e-4},
    {"epochs": 1, "reading_share": 1.0, "tempering": 0.0},
]
HEADS = {**TINY_HEADS, "head_dropout": 0.3, "reader_dropout": 0.0}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    tokenizer = make_tokenizer()
    make_base(tokenizer).save_pretrained(folder / "llama")
    tokenizer.save_pretrained(folder / "llama")
    told = {
        "base": str(folder / "llama"), "examples": 12, "validation": 6, "replies": 2, "reply_tokens": 4, "sentence_share": 0,
        "budget": 60, "batch_size": 4, "epochs": 1, "tempering": 0.3, "heads": HEADS, "use_cpu": True,
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
    assert told["then"] == THEN and told["heads"] == HEADS, "the heads tell the whole recipe"
    for folder in (whole / "part-1", whole / "part-2", whole):
        shape = json.loads((folder / "heads" / "heads_config.json").read_text())["heads"]
        assert {name: shape[name] for name in HEADS} == HEADS, "later runs drop out as much as the first"
    assert not list((whole / "part-1").glob("features")), "what the runs share is there once"


def test_runs_that_are_made_are_not_made_again(recipe: Path, whole: Path) -> None:
    wanted, made = heads(whole), (whole / "part-1" / "heads").stat().st_ino
    for file in (whole / "part-2" / "heads").iterdir():
        file.unlink()
    (whole / "part-2" / "heads").rmdir()
    runs.train(
        recipe / "three.yaml", [f"output={whole}", "logging_steps=3", "save_total_limit=3", "disable_tqdm=false"]
    )
    assert heads(whole) == wanted
    assert (whole / "part-1" / "heads").stat().st_ino == made


def test_runs_go_on_from_the_heads_that_they_began_from(
    recipe: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the first run is another, what came after it is not taken for made, and its checkpoints are not gone on from."""
    followed: list[str] = []

    def follow(part: Recipe, *_: Any) -> dict[str, Any]:
        followed.append(Path(part.output).name)
        shutil.copytree(whole / "part-1" / "heads", Path(part.output) / "heads", dirs_exist_ok=True)
        return {}

    monkeypatch.setattr(runs, "_follow", follow)
    copied = shutil.copytree(whole, tmp_path / "copied")
    told = [f"output={copied}"]
    runs.train(recipe / "three.yaml", told)
    assert followed == ["copied"], "a folder may be moved"
    shutil.copy(whole / "part-2" / "heads" / "heads.safetensors", copied / "part-1" / "heads")
    why = r"was begun by another recipe \(differing: the heads that it starts from\): remove it, or choose"
    with pytest.raises(RecipeError, match=rf"copied/part-2 {why}"):
        runs.train(recipe / "three.yaml", told)
    shutil.rmtree(copied / "part-2")
    with pytest.raises(RecipeError, match=rf"copied/checkpoints {why}"):
        runs.train(recipe / "three.yaml", told)
    assert followed == ["copied", "part-2"]


def test_what_another_recipe_began_is_not_taken_up(recipe: Path, whole: Path, tmp_path: Path) -> None:
    for told, place, why in [
        (["weight_decay=0.5"], "part-1", "differing: weight_decay"),
        ([f"then={json.dumps([{**THEN[0], 'epochs': 3}, THEN[1]])}"], "part-2", "differing: epochs"),
        ([f"then={json.dumps([THEN[0], {**THEN[1], 'epochs': 3}])}"], "whole/checkpoints", "differing: epochs"),
        (["then=[]"], "whole/checkpoints", "differing: "),
    ]:
        with pytest.raises(
            RecipeError, match=rf"{place} was begun by another recipe \({why}.*remove it, or choose another"
        ):
            runs.train(recipe / "three.yaml", [f"output={whole}", *told])
    (tmp_path / "plain" / "checkpoints" / "checkpoint-2").mkdir(parents=True)
    (tmp_path / "older" / "part-1" / "heads").mkdir(parents=True)
    (tmp_path / "older" / "part-1" / "heads" / "heads_config.json").write_text('{"report": {}}')
    for name, place in [("plain", "plain/checkpoints"), ("older", "older/part-1")]:
        with pytest.raises(
            RecipeError, match=rf"{place} was begun by another recipe \(it has no begun_with.json\): remove"
        ):
            runs.train(recipe / "three.yaml", [f"output={tmp_path / name}"])
        assert not list(tmp_path.rglob("begun_with.json")), "nothing was written"
    alone = Recipe(output=str(tmp_path / "plain"))
    runs._check_begun(alone, alone)  # a recipe of one run takes up what does not say


def test_what_is_not_yaml_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"output: caf\xe9\n")
    (tmp_path / "good.yaml").write_text("output: caf\u00e9\n", encoding="utf-8")
    for name, override, message in (("latin", "seed=1", "is not YAML: 'utf-8'"), ("good", "seed=[", "'seed=[' is not YAML: ")):
        with pytest.raises(RecipeError) as raised:
            Recipe.load(tmp_path / f"{name}.yaml", [override])
        assert message in str(raised.value) and "\n" not in str(raised.value)
    assert Recipe.load(tmp_path / "good.yaml").output == "caf\u00e9"


@pytest.mark.parametrize("made", [0, 1, 2])
def test_an_interruption_says_which_run_goes_on(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: int
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "train", stop)
    folders = [tmp_path / "part-1", tmp_path / "part-2", tmp_path]
    for folder in folders[:made]:
        (folder / "heads").mkdir(parents=True)
        (folder / "heads" / "heads_config.json").write_text("{}")
    command = ["train", str(recipe / "three.yaml"), f"output={tmp_path}"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 130
    assert f"begins run {made + 1} of 3 again: no checkpoint was saved yet" in result.stderr
    (folders[made] / "checkpoints" / "checkpoint-4").mkdir(parents=True)
    assert f"goes on from checkpoint-4, run {made + 1} of 3" in CliRunner().invoke(app, command).stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"examples": 3}, r"then, run 2: 'examples' is the same in all runs; they differ in epochs, "),
        ({"heads": {}}, r"then, run 2: 'heads' is the same in all runs"),
        ({"epoch": 3}, r"no key 'epoch'; did you mean 'epochs'"),
        ({"epochs": "many"}, r"then, run 2: epochs must be int or float, found 'many'"),
        ({"arguments": 3}, r"then, run 2: arguments must be a mapping of keys to values, found 3"),
        (3, r"then, run 2: must be a mapping of keys to values, found 3"),
        (None, r"then, run 2: must be a mapping of keys to values, found None"),
        ("epochs=1", r"then, run 2: must be a mapping of keys to values, found 'epochs=1'"),
        ({"train": "all"}, r"heads of a frozen backbone .* ruled out by train$"),
        (
            {"estimator": "dense", "cached_features": False, "stretch": 1.0, "tempering": 0.0},
            r"ruled out by estimator, cached_features$",
        ),
        ({"retention": 0.5, "backbone_learning_rate": 0.1}, r"ruled out by backbone_learning_rate, retention$"),
        ({"estimator": "margin"}, r"the recipe cannot be followed: estimator cannot be 'margin'"),
        ({"stretch": 0.5}, r"the recipe cannot be followed: stretch is at least 1"),
    ],
)
def test_what_cannot_come_after(recipe: Path, changes: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        runs.train(recipe / "one.yaml", [f"output={recipe / 'none'}", f"then={json.dumps([changes])}"])
    assert not (recipe / "none").exists()


def test_what_is_for_heads_alone_is_refused_elsewhere(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "neurallib"}')
    output = f"output={recipe / 'none'}"
    with pytest.raises(RecipeError, match="weigh_explanations asks the heads of start_from, and there is none"):
        runs.train(recipe / "one.yaml", [output, "weigh_explanations=true"])
    for told, key in [
        ("peft={r: 2, target_modules: [q_proj]}", "peft"),
        ("data=rows.jsonl", "data"),
        (f"base={tmp_path}", "base"),
    ]:
        with pytest.raises(RecipeError, match=f"for the heads of a frozen backbone .* ruled out by {key}$"):
            runs.train(recipe / "three.yaml", [output, told])
        alone = [output, told, "heads={}", f"start_from={tmp_path}", "weigh_explanations=true"]
        with pytest.raises(RecipeError, match=f"for the heads of a frozen backbone .* ruled out by {key}$"):
            runs.train(recipe / "one.yaml", alone)
    with pytest.raises(RecipeError, match=r"ruled out by library$"):
        runs.train(recipe / "one.yaml", [output, "then=[{epochs: 1}]", "library=mine", "heads={}"])
    assert not (recipe / "none").exists()
    assert Recipe.load(recipe / "one.yaml").parts() == [Recipe.load(recipe / "one.yaml")]


def test_a_key_of_a_later_run_goes_before_an_argument_of_the_first(recipe: Path) -> None:
    first = ["num_train_epochs=3", "max_steps=7", "per_device_train_batch_size=2", "warmup_steps=9", "adam_beta1=0.8"]
    then = [{"epochs": 1, "batch_size": 5, "warmup": 0.5, "learning_rate": 0.25}, {"num_train_epochs": 2, "epochs": 1}]
    told = [*first, "arguments={learning_rate: 0.125}", f"then={json.dumps(then)}"]
    names = (
        "num_train_epochs", "max_steps", "per_device_train_batch_size", "warmup_steps", "learning_rate", "adam_beta1",
    )  # fmt: skip
    parts = [part.training_arguments("none") for part in Recipe.load(recipe / "one.yaml", told).parts()]
    assert [[getattr(part, name) for name in names] for part in parts] == [
        [3, 7, 2, 9, 0.125, 0.8],
        [1, -1, 5, 0.5, 0.25, 0.8],
        [2, -1, 2, 9, 0.125, 0.8],
    ]


def readings(objective: MarginalObjective, batch: CallBatch) -> list[list[float]]:
    """Log-probability with which the reader reads each explanation of each row, if its program is called there."""
    flat = [(row, one) for row, found in enumerate(batch.explanations) for one in found]
    with torch.no_grad():
        pooled = objective._pooled(batch, batch.decisions)
        read = iter(objective._labellings(batch, pooled, objective.computer.keys(), flat).tolist())
    return [[next(read) for _ in found] for found in batch.explanations]


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
    ((*read,),) = readings(MarginalObjective(computer), batch)
    told = dict(zip(lessons.lessons[number].explanations, read, strict=True))
    for one in found[number]:
        share = (1 - EVEN) * math.exp(told[dataclasses.replace(one, read=None, part=None)]) + EVEN / one.candidates
        assert one.read == pytest.approx(math.log(share), abs=1e-4)


def test_what_the_heads_never_learned_they_do_not_leave_out(
    lessons: Lessons,  # noqa: F811
    tiny_model: NeuralLibForCausalLM,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The explanations by such a program stay as they are; of the others those are left that would be left without it."""
    monkeypatch.setattr(objective_module, "NEGLIGIBLE", 1.0)  # all but the best
    usual, program = dict(weighed(lessons)), tiny_model.computer.programs.index("add")
    found = dict(weighed(lessons, unknown={program}))
    own = 0
    for number, explanations in found.items():
        asked = [one for one in lessons.lessons[number].explanations if one.program == program]
        assert [one for one in explanations if one.program == program] == asked
        assert all(one.read is None for one in asked)
        others = [one for one in usual[number] if one.program != program]
        assert [dataclasses.replace(one, read=None, part=None) for one in explanations if one.program != program] == [
            dataclasses.replace(one, read=None, part=None) for one in others
        ]
        own += len(asked)
    assert own > sum(one.program == program for explanations in usual.values() for one in explanations) > 0


def test_of_programs_that_the_heads_are_not_trusted_about_nothing_is_left_out(
    lessons: Lessons,  # noqa: F811
    tiny_model: NeuralLibForCausalLM,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their explanations stay, as the heads read them; of the others those are left that would be left without it."""
    monkeypatch.setattr(objective_module, "NEGLIGIBLE", 0.0)
    everything = dict(weighed(lessons))
    monkeypatch.setattr(objective_module, "NEGLIGIBLE", 1.0)
    usual, program = dict(weighed(lessons)), tiny_model.computer.programs.index("add")
    found = dict(weighed(lessons, kept={program}))
    for number, explanations in found.items():
        assert [one for one in explanations if one.program == program] == [
            one for one in everything[number] if one.program == program
        ]
        assert [one for one in explanations if one.program != program] == [
            one for one in usual[number] if one.program != program
        ]
    assert sum(map(len, found.values())) > sum(map(len, usual.values()))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("keep_explanations=[substract]", "did you mean 'subtract'"),
        ("framed_share=1.5", "expected 0…1"),
        ("plain_share=-0.1", "expected 0…1"),
        ("mistyped_share=2", "expected 0…1"),
    ],
)
def test_programs_and_shares_that_there_are_not_are_refused(tmp_path: Path, override: str, said: str) -> None:
    (tmp_path / "recipe.yaml").write_text("base: smollm2-135m\n")
    with pytest.raises(RecipeError, match=said):
        Recipe.load(tmp_path / "recipe.yaml", [override])


def test_programs_that_the_library_has_got_since_are_unknown_to_heads(
    tiny_model: NeuralLibForCausalLM, tmp_path: Path
) -> None:
    names = tiny_model.computer.programs
    for known, unknown in ((names, set()), (names[:-1], {len(names) - 1}), (None, set())):
        (tmp_path / "heads_config.json").write_text(json.dumps({} if known is None else {"programs": known}))
        assert runs.unknown_programs(Recipe(start_from=str(tmp_path)), tiny_model) == unknown
    assert runs.unknown_programs(Recipe(), tiny_model) == set()


def test_a_lesson_keeps_its_features_when_explanations_are_left_out() -> None:
    """What is left may explain the whole reply, of which the prompt alone would be heard, had there been no others."""
    whole, part = (Explanation(2, 0, (((0, 1),),), 0, length) for length in (2, 1))
    lesson = Lesson(SimpleNamespace(), Conversation((5, 6, 7, 8, 8, 9), 3), (whole, part), alone=False)  # type: ignore[arg-type]
    assert lesson.heard(9) == lesson.conversation
    assert dataclasses.replace(lesson, explanations=(whole,)).heard(9).tokens == (5, 6, 7)
    left = lesson.with_explanations((whole,), 9)
    assert left.explanations == (whole,) and left.heard(9) == lesson.conversation


def test_explanations_that_are_left_out_are_negligible(
    lessons: Lessons,  # noqa: F811
    tiny_model: NeuralLibForCausalLM,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By what each of them has to do with the likelihood, found by leaving it out."""
    monkeypatch.setattr(objective_module, "NEGLIGIBLE", 0.2)
    computer, objective = tiny_model.computer.eval(), MarginalObjective(tiny_model.computer)
    computer.selector.no_call.bias.data.zero_()
    computer.reading_weight = 0.0
    try:
        dropped = 0
        for number, kept in weighed(lessons):
            batch = collate([lessons[number]])["batch"]
            ((*read,),) = readings(objective, batch)
            all_of_them = [
                dataclasses.replace(one, read=math.log((1 - EVEN) * math.exp(said) + EVEN / one.candidates))
                for one, said in zip(batch.explanations[0], read, strict=True)
            ]

            def likelihood(explanations: list[Explanation], batch: CallBatch = batch) -> float:
                with torch.no_grad():
                    return float(objective.score(dataclasses.replace(batch, explanations=[explanations]))[0].double())

            if len(all_of_them) == 1:
                assert len(kept) == 1
                continue
            whole = likelihood(all_of_them)
            parts = [1 - math.exp(likelihood([o for o in all_of_them if o != one]) - whole) for one in all_of_them]
            names = {dataclasses.replace(one, read=None, part=None) for one in kept}
            for one, part in zip(all_of_them, parts, strict=True):
                if abs(part - 0.2 * max(parts)) > 0.01:
                    assert (dataclasses.replace(one, read=None) in names) == (part > 0.2 * max(parts))
                    dropped += part < 0.2 * max(parts)
        assert dropped
    finally:
        computer.reading_weight = 1.0


def test_where_nothing_is_read_the_remembered_reading_counts(
    lessons: Lessons,  # noqa: F811
    tiny_model: NeuralLibForCausalLM,
) -> None:
    """With a reading's exact log-probabilities the likelihood is the one in which all is read."""
    computer, objective = tiny_model.computer.eval(), MarginalObjective(tiny_model.computer)
    computer.selector.no_call.bias.data.zero_()
    batch = collate([lessons[i] for i in range(len(lessons))])["batch"]
    rows = [
        [dataclasses.replace(one, read=read) for one, read in zip(row, read_row, strict=True)]
        for row, read_row in zip(batch.explanations, readings(objective, batch), strict=True)
    ]
    with torch.no_grad():
        computer.reading_weight = 1.0
        wanted, _ = objective.score(batch)
        computer.reading_weight = 0.0
        found, _ = objective.score(dataclasses.replace(batch, explanations=rows))
        even, _ = objective.score(batch)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-5)
    assert not torch.allclose(even, wanted, atol=1e-2)
