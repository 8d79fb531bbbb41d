"""Programs that a recipe holds out are never asked for nor called while training; a few keys can be tuned later, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from neurallib.modeling_neurallib.loaded_libraries import program_text
from neurallib.modeling_neurallib.objective import MarginalObjective
from neurallib.modeling_neurallib.programs import standard_library
from neurallib.modeling_neurallib.selector import Selector
from neurallib.trainer import wording
from neurallib.trainer.descriptions import texts_of
from neurallib.trainer.dialogues import Dialogue
from neurallib.trainer.lessons import LessonWriter, Pair, _search_hash, conversations
from neurallib.trainer.recipe import Recipe, RecipeError
from neurallib.trainer.runs import model_of

from neurallib import (
    NeuralLibForCausalLM,
    NeuralLibrary,
    NeuralLibTrainer,
    NeuralLibTrainingArguments,
    TrainingArgumentsError,
)

HELD_OUT = ["subtract", "minimum", "sort_descending", "is_prime", "text_length"]
SHARES = {"general": 0.1, "later": 0.25, "follow_up": 0.25, "several": 0.25}
ROWS = [
    {"prompt": "Add 12 and 30", "completion": "42"},
    {"prompt": "Twice 21", "completion": "42"},
    {"prompt": "Turn strawberry around", "completion": "yrrebwarts"},
]


def drawn(model: NeuralLibForCausalLM, tokenizer: Any, held_out: list[str], folder: Path, split: str) -> list[Pair]:
    recipe = Recipe(held_out_programs=held_out, shares=SHARES, sentence_share=0.0)
    return conversations(LessonWriter(model, tokenizer, recipe), split, 400, folder)


def asked(dialogue: Dialogue) -> Iterator[str]:
    """The programs that a conversation asks for, in earlier turns too."""
    yield from (step.program for step in dialogue.steps)
    for name in dialogue.wording.split():
        file, _, number = name.partition(":")
        if file in wording.PARAMETERS:
            yield file
        elif file in ("follow_ups", "several"):
            text = (wording.PHRASINGS / f"{file}.txt").read_text(encoding="utf-8").splitlines()
            line = [row.strip() for row in text if row.strip() and not row.startswith("# ")][int(number)]
            yield from set(line.partition(":")[0].split()) & set(wording.PARAMETERS)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_conversations_never_ask_for_them(
    tiny_model: NeuralLibForCausalLM,
    tiny_tokenizer: Any,
    tmp_path: Path,
    split: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LessonWriter, "conversation", lambda *_: None)
    whole = [dialogue for dialogue, _ in drawn(tiny_model, tiny_tokenizer, [], tmp_path, split)]
    assert {name for dialogue in whole for name in asked(dialogue)} == set(wording.PARAMETERS)
    found = [dialogue for dialogue, _ in drawn(tiny_model, tiny_tokenizer, HELD_OUT, tmp_path, split)]
    assert {name for dialogue in found for name in asked(dialogue)} == set(wording.PARAMETERS) - set(HELD_OUT)
    for kind in (
        lambda one: not one.steps,
        lambda one: len(one.messages) > 1,
        lambda one: "follow_ups" in one.wording,
        lambda one: len(one.steps) > 1,
    ):
        assert any(map(kind, found))


def test_they_cannot_be_called(
    tiny_base: Any,
    tiny_tokenizer: Any,
    tiny_library: NeuralLibrary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for part in (tiny_base, tiny_tokenizer):
        part.save_pretrained(tmp_path / "base")
    tiny_library.save_pretrained(tmp_path / "library")
    begun: list[torch.Tensor] = []
    monkeypatch.setattr(Selector, "begin_from", lambda self, descriptions: begun.append(descriptions.clone()))
    heads = {"head_width": 24, "head_heads": 2, "key_width": 16}
    recipe = Recipe(
        str(tmp_path / "base"), library=str(tmp_path / "library"), heads=heads, held_out_programs=["double"]
    )
    model, tokenizer = model_of(recipe)
    computer = model.computer
    assert computer.programs == ["add", "double", "reverse", "count"]
    assert computer.allowed().tolist() == [True, False, True, True]
    assert torch.equal(begun[-1], computer.descriptions[[0, 2, 3]])
    assert [name for _, name, _ in MarginalObjective(computer).programs()] == ["add", "reverse", "count"]

    writer = LessonWriter(model, tokenizer, recipe)
    # Only ``double`` makes 42 of 21.
    dialogue = Dialogue(("Twice 21",), (), "")
    prompt = writer.prompt(dialogue.messages, None)
    tokens = torch.tensor([[*prompt, *tiny_tokenizer.encode("42", add_special_tokens=False), writer.end]])
    characters = computer.table.characters(tokens[0].tolist())
    decisions = list(range(len(prompt) - 1, tokens.shape[1] - 1))
    assert not writer.objective.explain(tokens[0].tolist(), decisions, characters)
    model.config.disabled_programs = None
    assert {one.program for one in writer.objective.explain(tokens[0].tolist(), decisions, characters)} == {1}

    model.config.disabled_programs = ["double"]
    labels = tokens.clone()
    labels[:, : len(prompt)] = -100
    model(tokens, labels=labels).loss.backward()
    assert not computer.offsets.grad[1].any()


def test_searches_with_and_without_them_are_remembered_apart(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any
) -> None:
    names = [
        _search_hash(LessonWriter(tiny_model, tiny_tokenizer, Recipe(held_out_programs=held_out)), [], [])
        for held_out in ([], ["add"], ["add", "minimum"], ["minimum", "add"])
    ]
    assert len(set(names)) == 3 and names[2] == names[3]


def test_programs_that_there_are_not(tmp_path: Path, tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any) -> None:
    with pytest.raises(RecipeError, match="'minimun', for which no requests are generated; did you mean 'minimum'"):
        Recipe(held_out_programs=["minimun"]).asked_programs()
    with pytest.raises(RecipeError, match="leaves no program"):
        Recipe(held_out_programs=list(wording.PARAMETERS)).asked_programs()
    tiny_model.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="'revers', which the library lacks; did you mean 'reverse'"):
        model_of(Recipe(str(tmp_path), held_out_programs=["revers"]))
    (tmp_path / "recipe.yaml").write_text("held_out_programs: minimum\n")
    with pytest.raises(RecipeError, match="held_out_programs must be list"):
        Recipe.load(tmp_path / "recipe.yaml")


def tuning(folder: Path, **more: Any) -> NeuralLibTrainingArguments:
    settings: dict[str, Any] = dict(
        output_dir=str(folder), train="library_keys", max_steps=3, weight_decay=0.1, learning_rate=0.01, save_strategy="no",
        report_to=[], use_cpu=True, disable_tqdm=True, sample_size=0,
    )  # fmt: skip
    return NeuralLibTrainingArguments(**{**settings, **more})


@pytest.mark.parametrize("cached", [True, False])
def test_only_the_keys_asked_for_are_tuned(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path, cached: bool
) -> None:
    offsets = tiny_model.computer.offsets
    torch.nn.init.normal_(offsets)
    before = {name: value.detach().clone() for name, value in tiny_model.named_parameters()}
    arguments = tuning(tmp_path, tuned_programs=["double", "count"], cached_features=cached)
    NeuralLibTrainer(tiny_model, arguments, train_dataset=ROWS, processing_class=tiny_tokenizer).train()
    key = "model.computer.offsets"
    assert (offsets != before[key]).any(1).tolist() == [False, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in tiny_model.named_parameters() if name != key)


def test_keys_that_cannot_be_tuned(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(TrainingArgumentsError, match="tuned_programs cannot be 'doubel'; did you mean 'double'"):
        NeuralLibTrainer(
            tiny_model, tuning(tmp_path, tuned_programs=["doubel"]), train_dataset=ROWS, processing_class=tiny_tokenizer
        )
    with pytest.raises(TrainingArgumentsError, match="train the keys alone"):
        tuning(tmp_path, train="heads", tuned_programs=["double"])


def test_descriptions_of_the_standard_library(tiny_library: NeuralLibrary) -> None:
    library = standard_library()
    for name in wording.PARAMETERS:
        program = library.program(name)
        (first, *others), requests = texts_of(program)
        assert first == program_text(name, program.docstring) and len({first, *others}) == len(others) + 1 > 8
        assert len(set(requests)) > 24
    assert any("a times b" in text for text in texts_of(library.program("multiply"))[1])
    own = ("add: Add two integers.",)
    assert texts_of(tiny_library.program("add")) == (own, own), "another program of this name"


@pytest.mark.parametrize("cached", [True, False])
def test_keys_are_learned_from_descriptions(tiny_base: Any, tiny_tokenizer: Any, tmp_path: Path, cached: bool) -> None:
    torch.manual_seed(0)
    heads = {"head_width": 24, "head_heads": 2, "key_width": 16}
    model = NeuralLibForCausalLM.from_llama(tiny_base, standard_library(), tokenizer=tiny_tokenizer, heads=heads)
    computer = model.computer
    before, descriptions = (
        {n: p.detach().clone() for n, p in computer.named_parameters()},
        computer.descriptions.clone(),
    )
    arguments = tuning(tmp_path, train="heads", keys_from_descriptions=True, cached_features=cached)
    trainer = NeuralLibTrainer(model, arguments, train_dataset=ROWS[::2], processing_class=tiny_tokenizer)
    seen: list[torch.Tensor] = []
    computer.selector.key.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    trainer.train()
    assert not torch.equal(seen[0], seen[1]) and seen[0].shape == descriptions.shape
    number = computer.programs.index("maximum")
    assert any(
        torch.allclose(seen[0][number], one, atol=1e-4)
        for texts in texts_of(model.library.program("maximum"))
        for one in model._describe(tiny_tokenizer, texts)
    )
    assert torch.equal(computer.offsets, before["offsets"]) and torch.equal(computer.descriptions, descriptions)
    assert not torch.equal(computer.selector.key.weight, before["selector.key.weight"])
    computer.train()
    assert torch.equal(computer.keys(), computer.selector.keys(descriptions, computer.offsets)), (
        "nothing is drawn any more"
    )


def test_keys_that_nothing_could_tune(tmp_path: Path) -> None:
    with pytest.raises(TrainingArgumentsError, match="choose one of them"):
        tuning(tmp_path, keys_from_descriptions=True)
