"""Training on cached features: what is cached is what the model computes, and the two paths have one loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from neurallib.trainer.features import Conversation, FeatureCache
from neurallib.trainer.shipping import NeuralLibError, load_heads
from neurallib.trainer.tasks import Example
from neurallib.trainer.training import (
    Lessons,
    LessonWriter,
    NeuralLibTrainer,
    Recipe,
    RecipeError,
    collate,
    decided,
)
from transformers import TrainingArguments

from neurallib import NeuralLibForCausalLM

REQUESTS = [
    Example("Add 12 and 30", "42", "add", ("12", "30"), (((4, 6),), ((11, 13),)), "add:0"),
    Example("the sum of 5, 6 please", "11", "add", ("5", "6"), (((11, 12),), ((14, 15),)), "add:1"),
    Example("Turn strawberry around", "yrrebwarts", "reverse", ("strawberry",), (((5, 15),),), "reverse:0"),
    Example("Who was Ada?", None, None, (), (), "general:0"),
]


@pytest.fixture
def lessons(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path) -> Lessons:
    writer = LessonWriter(tiny_model, tiny_tokenizer, Recipe(sentence_share=0.0))
    found = []
    for example in REQUESTS:
        prompt = writer.prompt(example.prompt, None)
        reply = [] if example.answer is None else [*tiny_model.computer.table.cut(example.answer), writer.end]
        found.append(writer.lesson(example, Conversation((*prompt, *reply), len(prompt)), labelled=False))
    assert all(lesson is not None for lesson in found)
    cache = FeatureCache(tiny_model, tmp_path)
    cache.fill([lesson.conversation for lesson in found if lesson], batch_tokens=64)
    return Lessons([lesson for lesson in found if lesson], cache, tiny_model.computer)


def test_cached_features_are_the_models(lessons: Lessons, tiny_model: NeuralLibForCausalLM, tmp_path: Path) -> None:
    reopened = FeatureCache(tiny_model, tmp_path)
    for lesson in lessons.lessons:
        tokens = torch.tensor([lesson.conversation.tokens])
        with torch.no_grad():
            output = tiny_model.model(tokens, decide_calls=False, output_hidden_states=True)
            expected = tiny_model.model.features(output.hidden_states)[0]
            scores = tiny_model.lm_head(output.last_hidden_state)[0].log_softmax(-1)
        features, base = reopened[lesson.conversation]
        torch.testing.assert_close(torch.from_numpy(features).float(), expected, atol=3e-3, rtol=3e-3)
        for position in range(lesson.conversation.prompt - 1, tokens.shape[1] - 1):
            assert base[position] == pytest.approx(float(scores[position, tokens[0, position + 1]]), abs=1e-3)


def test_search_explains_answers(lessons: Lessons, tiny_model: NeuralLibForCausalLM) -> None:
    computer = tiny_model.computer
    for lesson in lessons.lessons[:3]:
        programs = {computer.programs[e.program] for e in lesson.explanations}
        assert lesson.example.program in programs
        truth = tuple(tuple((s + lesson.offset, e + lesson.offset) for s, e in a) for a in lesson.example.spans)
        assert truth in {e.pieces for e in lesson.explanations}


def test_both_paths_have_one_likelihood(lessons: Lessons, tiny_model: NeuralLibForCausalLM) -> None:
    from neurallib.modeling_neurallib.objective import MarginalObjective

    batch = collate([lessons[i] for i in range(3)])["batch"]
    cached, _ = MarginalObjective(tiny_model.computer.eval()).score(batch)
    for row, lesson in enumerate(lessons.lessons[:3]):
        tokens = torch.tensor([lesson.conversation.tokens])
        labels = tokens.clone()
        labels[:, : lesson.conversation.prompt] = -100
        output = tiny_model(tokens, labels=labels)
        assert float(output.log_likelihoods[0]) == pytest.approx(float(cached[row]), abs=0.05)


def test_the_trainer_learns_and_resumes_to_the_bit(
    lessons: Lessons, tiny_model: NeuralLibForCausalLM, tmp_path: Path
) -> None:
    start = {name: tensor.clone() for name, tensor in tiny_model.computer.state_dict().items()}

    def run(steps: int, folder: str, resume: bool = False) -> tuple[dict[str, torch.Tensor], float]:
        arguments = TrainingArguments(
            output_dir=str(tmp_path / folder),
            max_steps=steps,
            per_device_train_batch_size=2,
            learning_rate=5e-3,
            lr_scheduler_type="constant",
            save_steps=15,
            logging_steps=5,
            remove_unused_columns=False,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        if not resume:
            tiny_model.computer.load_state_dict(start)
        trainer = NeuralLibTrainer(tiny_model, args=arguments, train_dataset=lessons)
        trainer.train(resume_from_checkpoint=resume or None)
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return {name: tensor.clone() for name, tensor in tiny_model.computer.state_dict().items()}, losses[-1]

    straight, loss = run(30, "straight")
    run(15, "halved")
    resumed, _ = run(30, "halved", resume=True)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert loss < 20
    assert set(decided(tiny_model.computer.eval(), lessons)) == {"selected", "read", "exact", "quiet"}


def test_recipes(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("epochs: 3\nsupervision: answers\n")
    assert Recipe.load(path, ["learning_rate=0.01"]).learning_rate == 0.01
    with pytest.raises(RecipeError, match="did you mean 'epochs'"):
        Recipe.load(path, ["epoch=3"])
    with pytest.raises(RecipeError, match="key=value"):
        Recipe.load(path, ["epochs"])
    with pytest.raises(RecipeError, match="must be int"):
        Recipe.load(path, ["examples=many"])
    with pytest.raises(RecipeError, match="cannot be read"):
        Recipe.load(tmp_path / "none.yaml")


def test_heads_that_are_not_there(tiny_base: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(NeuralLibError, match="no trained heads"):
        load_heads(tiny_base, tiny_tokenizer, tmp_path)
