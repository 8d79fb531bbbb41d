"""Training on cached features: what is cached is what the model computes, and the two paths have one loss."""

from __future__ import annotations

import copy
import dataclasses
import errno
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_tokenizer
from neurallib.modeling_neurallib.coverage import expected_coverage
from neurallib.modeling_neurallib.objective import CallBatch, MarginalObjective, Pooled, lengthened, pieces_text
from neurallib.modeling_neurallib.selector import UNSEEN
from neurallib.trainer import features
from neurallib.trainer.arguments import TrainingArgumentsError
from neurallib.trainer.checkpoints import MADE_WITH, CheckpointError, SavingError
from neurallib.trainer.dialogues import Dialogue
from neurallib.trainer.features import FeatureCache, backbone_hash, lower_layers_alone, multiplies_bf16
from neurallib.trainer.lessons import FRAMED, PLAIN, Lessons, LessonWriter, collate, conversations
from neurallib.trainer.outcomes import decided
from neurallib.trainer.recipe import Recipe, RecipeError
from neurallib.trainer.shipping import NeuralLibError, load_heads
from neurallib.trainer.tasks import Example
from neurallib.trainer.training import NeuralLibTrainer
from test_trainer_on_rows import fresh
from transformers import TrainingArguments

from neurallib import NeuralLibForCausalLM, NeuralLibTrainingArguments

EXAMPLES = [
    Example("Add 12 and 30", "42", "add", ("12", "30"), (((4, 6),), ((11, 13),)), "add:0"),
    Example("the sum of 5, 6 please", "11", "add", ("5", "6"), (((11, 12),), ((14, 15),)), "add:1"),
    Example("Turn strawberry around", "yrrebwarts", "reverse", ("strawberry",), (((5, 15),),), "reverse:0"),
    Example("Who was Ada?", None, None, (), (), "general:0"),
]
FIRST, SECOND = (Dialogue.from_example(example) for example in EXAMPLES[:2])
DIALOGUES = [
    *map(Dialogue.from_example, EXAMPLES),
    Dialogue(
        ("Add 12 and 30. Also turn strawberry around",),
        (
            FIRST.steps[0],
            dataclasses.replace(Dialogue.from_example(EXAMPLES[2]).steps[0], spans=(((0, 25, 35),),)),
        ),
        "several",
        "{} and {}.",
    ),
    Dialogue(
        ("Add 12 and 30. Then turn strawberry around",),
        (
            FIRST.steps[0],
            dataclasses.replace(Dialogue.from_example(EXAMPLES[2]).steps[0], spans=(((0, 25, 35),),)),
        ),
        "a call after another",
        "{}\n{}",
    ),
    Dialogue(
        ("Add 12 and 30", "42", "now add 100 to that"),
        (
            dataclasses.replace(
                FIRST.steps[0], arguments=("42", "100"), answer="142", spans=(((1, 0, 2),), ((2, 8, 11),))
            ),
        ),
        "follow-up",
    ),
]


@pytest.fixture
def lessons(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path) -> Lessons:
    writer = LessonWriter(tiny_model, tiny_tokenizer, Recipe(sentence_share=0.0))
    found = [writer.lesson(dialogue, writer.conversation(dialogue, None), labelled=False) for dialogue in DIALOGUES]
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


def test_only_what_something_is_decided_from_is_computed(
    lessons: Lessons, tiny_model: NeuralLibForCausalLM, tmp_path: Path
) -> None:
    """Where one call's result is the whole reply, features of the prompt give the likelihood, and the gradient, of the whole."""
    computer, end = tiny_model.computer.eval(), tiny_model.config.end_of_turn_token_id
    computer.selector.no_call.bias.data.zero_()
    computer.alone_weight = 0.0
    told = [dataclasses.replace(lesson, alone=False) for lesson in lessons.lessons]
    cut = [lesson.heard(end) != lesson.conversation for lesson in told]
    single = [len(lesson.dialogue.steps) == 1 for lesson in told]
    assert any(cut) and not all(single) and all(one >= other for one, other in zip(single, cut, strict=True))
    assert all(lesson.heard(end) == lesson.conversation for lesson in lessons.lessons), "the backbone's words count there"
    cache = FeatureCache(tiny_model, tmp_path / "heard")
    passes, layers = [], tiny_model.config.num_hidden_layers
    watch = tiny_model.model.layers[-1].register_forward_hook(lambda *_: passes.append(1))
    tiny_model.config.feature_layers, chosen = [0], tiny_model.config.feature_layers
    with lower_layers_alone(tiny_model):
        tiny_model.model(torch.tensor([[3, 4]]), decide_calls=False)
    tiny_model.config.feature_layers = chosen
    watch.remove()
    assert not passes and tiny_model.config.num_hidden_layers == layers
    cache.fill([lesson.heard(end) for lesson in told])
    found = []
    for each in (lessons, Lessons(told, cache, computer)):
        batch = collate([each[i] for i in range(len(each))])["batch"]
        computer.zero_grad(set_to_none=True)
        likelihoods, _ = MarginalObjective(computer).score(batch)
        likelihoods.sum().backward()
        assert computer.selector.query.weight.grad is not None and computer.reader.scores.weight.grad is not None
        found.append((likelihoods.detach(), computer.selector.query.weight.grad, computer.reader.scores.weight.grad))
    for whole, heard in zip(*found, strict=True):
        torch.testing.assert_close(heard, whole, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("multiplied", [True, False])
def test_bfloat16_is_for_processors_that_multiply_it(
    tiny_model: NeuralLibForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, multiplied: bool
) -> None:
    monkeypatch.setattr(features, "multiplies_bf16", lambda device: multiplied)
    cache = FeatureCache(tiny_model, tmp_path, bf16=True)
    assert cache.bf16 is multiplied and cache.directory.name.endswith("-bf16") is multiplied
    assert multiplies_bf16(torch.device("cuda"))


def test_features_belong_to_one_backbone(tiny_model: NeuralLibForCausalLM) -> None:
    whole = backbone_hash(tiny_model)
    tiny_model.computer.offsets.data += 1
    assert backbone_hash(tiny_model) == whole, "the heads are not of the backbone"
    for change in ("weight", "rope", "layers", "eps"):
        other = fresh(tiny_model)
        assert backbone_hash(other) == whole
        if change == "weight":
            other.get_input_embeddings().weight.data[7, 3] += 1e-3
        elif change == "rope":
            other.config.rope_parameters = {**other.config.rope_parameters, "rope_theta": 20_000.0}
        elif change == "layers":
            other.config.feature_layers = [1]
        else:
            other.config.rms_norm_eps *= 2
        assert backbone_hash(other) != whole, change


def test_a_checkpoint_goes_on_only_with_what_it_was_made_with(
    lessons: Lessons, tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    def trainer(model: NeuralLibForCausalLM, steps: int) -> NeuralLibTrainer:
        told = NeuralLibTrainingArguments(
            str(tmp_path / "run"), max_steps=steps, save_steps=2, use_cpu=True, report_to=[], disable_tqdm=True, sample_size=0,
            per_device_train_batch_size=2,
        )  # fmt: skip
        return NeuralLibTrainer(model, told, train_dataset=lessons, processing_class=tiny_tokenizer)

    trainer(fresh(tiny_model), 2).train()
    other = fresh(tiny_model)
    other.get_input_embeddings().weight.data[7, 3] += 1e-3
    with pytest.raises(CheckpointError, match=r"checkpoint-2 was made with another backbone \(\w+, now \w+\): give the run"):
        trainer(other, 4).train(resume_from_checkpoint=True)
    changed = fresh(tiny_model)
    changed.config.libraries[0]["fingerprint"] = "0" * 64
    before = {name: value.clone() for name, value in changed.computer.state_dict().items()}
    with pytest.raises(CheckpointError, match="made with another library 'tiny_programs'"):
        trainer(changed, 4).train(resume_from_checkpoint=True)
    assert all(torch.equal(value, before[name]) for name, value in changed.computer.state_dict().items())
    same = trainer(fresh(tiny_model), 4)
    same.train(resume_from_checkpoint=True)
    assert same.state.global_step == 4
    (tmp_path / "run" / "checkpoint-4" / MADE_WITH).unlink()  # as earlier releases left it
    trainer(changed, 5).train(resume_from_checkpoint=True)


def test_features_are_whole_or_not_there(
    lessons: Lessons, tiny_model: NeuralLibForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed process of the same number left is no obstacle; a full disk is said before anything is mapped onto it."""
    conversations = [lesson.conversation for lesson in lessons.lessons]
    cache = FeatureCache(tiny_model, tmp_path / "other")
    full = OSError(errno.ENOSPC, "No space left on device")

    def no_place(*_: Any) -> None:
        raise full

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", no_place, raising=False)
        with pytest.raises(OSError, match="No space left"):
            cache.fill(conversations)
        rows = [{"prompt": "Add 12 and 30", "completion": "42"}]
        told = NeuralLibTrainingArguments(str(tmp_path / "run"), use_cpu=True, report_to=[], disable_tqdm=True)
        tokenizer = make_tokenizer()
        with pytest.raises(SavingError, match="no space left for features of the backbone"):
            NeuralLibTrainer(tiny_model, told, train_dataset=rows, processing_class=tokenizer)
    assert not list(cache.directory.iterdir()) and conversations[0] not in cache
    cache.fill(conversations)
    (whole,) = cache.directory.iterdir()
    stale = whole.rename(whole.with_name(f".{whole.name}.{os.getpid()}"))
    FeatureCache(tiny_model, tmp_path / "other").fill(conversations)
    assert whole.is_dir() and not stale.exists()


def test_search_finds_the_true_calls(lessons: Lessons, tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any) -> None:
    writer = LessonWriter(tiny_model, tiny_tokenizer, Recipe())
    for lesson in lessons.lessons:
        truth = writer.truth(lesson.dialogue, lesson.conversation)
        assert len(truth) == len(lesson.dialogue.steps)
        assert set(truth) <= {dataclasses.replace(one, candidates=1) for one in lesson.explanations}


def test_what_the_last_message_explains_by_chance_does_not_hide_the_call(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any
) -> None:
    writer = LessonWriter(tiny_model, tiny_tokenizer, Recipe())
    twice = dataclasses.replace(
        FIRST.steps[0], program="double", arguments=("42",), answer="84", spans=(((1, 0, 2),),)
    )
    dialogue = Dialogue(("Add 12 and 30", "42", "Now twice that, not 48"), (twice,), "follow-up")
    lesson = writer.lesson(dialogue, writer.conversation(dialogue, None), labelled=False)
    assert lesson is not None
    text = writer.table.characters(lesson.conversation.tokens).text()
    found = {
        (tiny_model.computer.programs[one.program], *(pieces_text(text, argument) for argument in one.pieces))
        for one in lesson.explanations
    }
    assert {("double", "42"), ("reverse", "48")} <= found


def test_what_was_asked_about_two_turns_ago_is_searched(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any) -> None:
    """Two turns are looked back on, as far as the pieces of an argument lie apart from what is asked; three are not."""
    writer = LessonWriter(tiny_model, tiny_tokenizer, Recipe())
    step = dataclasses.replace(FIRST.steps[0], program="double", arguments=("4012",), answer="8024", spans=(((0, 7, 11),),))
    first, again = ("Number 4012, and 7", "go on"), ("what now, then", "nothing yet")
    for turns in (1, 2, 3):
        dialogue = Dialogue((*first, *(turns - 1) * again, "the first number twice"), (step,), "again")
        lesson = writer.lesson(dialogue, writer.conversation(dialogue, None), labelled=False)
        (truth,) = writer.truth(dialogue, writer.conversation(dialogue, None))
        found = set() if lesson is None else {dataclasses.replace(one, candidates=1) for one in lesson.explanations}
        assert (truth in found) == (turns < 3), turns


def test_both_paths_have_one_likelihood(lessons: Lessons, tiny_model: NeuralLibForCausalLM) -> None:
    batch = collate([lessons[i] for i in range(len(lessons))])["batch"]
    cached, _ = MarginalObjective(tiny_model.computer.eval()).score(batch)
    for row, lesson in enumerate(lessons.lessons):
        if not lesson.dialogue.steps:
            continue
        tokens = torch.tensor([lesson.conversation.tokens])
        labels = tokens.clone()
        labels[:, : lesson.conversation.prompt] = -100
        output = tiny_model(tokens, labels=labels)
        assert float(output.log_likelihoods[0]) == pytest.approx(float(cached[row]), abs=0.05)


def by_enumeration(model: NeuralLibForCausalLM, batch: CallBatch, row: int) -> float:
    """The likelihood of a reply as a sum over all sequences of calls, one after the other by the definition."""
    computer = model.computer
    objective = MarginalObjective(computer)
    states = computer.projection(batch.features)
    later = torch.ones(states.shape[1], states.shape[1], dtype=torch.bool).triu(1)
    weights = batch.weights[:, None].masked_fill(later, UNSEEN)
    memory = computer.selector.remember(states)
    pooled = computer.selector.pool(states, memory, weights)
    plain = computer.selector(pooled, computer.keys(), computer.allowed())[row]
    read = pooled.clone()
    for owner, found in enumerate(batch.explanations):
        before, after = expected_coverage(found, batch.characters[owner].tokens, states.shape[1])
        for target, coverage in ((pooled, before), (read, before), (read, after)):
            for at, covered in coverage.items():
                if at < states.shape[1]:
                    one = slice(owner, owner + 1), slice(at, at + 1)
                    covers = torch.tensor(covered)[None, None]
                    target[one] = computer.selector.pool(states[one], memory[one[0]], weights[one], covers)
    choices = computer.selector(pooled, computer.keys(), computer.allowed())[row]
    leads, ends = computer.writer.lead_scores(pooled)[row], computer.writer.end_scores(read)[row]
    flat = [(owner, x) for owner, found in enumerate(batch.explanations) for x in found]
    labellings = objective._labellings(batch, Pooled(pooled, pooled, read), computer.keys(), flat)
    calls = [(x, float(value)) for (owner, x), value in zip(flat, labellings, strict=True) if owner == row]
    columns = batch.decisions[row].nonzero().flatten().tolist()
    final = columns[-1] + 1

    def rest(at: int, behind: bool = False) -> float:
        """Probability of what follows token ``at``, the last of a result or not."""
        if at == final:
            return 1.0
        quiet = choices[at, 0] if behind else plain[at, 0]
        total = math.exp(float(batch.base[row, at])) * rest(at + 1) * math.exp(float(quiet))
        for x, labelling in calls:
            if x.start != at:
                continue
            weight = math.exp(float(choices[at, 1 + x.program]) + labelling + float(leads[at, x.lead]))
            end = at + x.length
            if end + 1 == batch.ends[row]:
                total += weight * math.exp(float(ends[at, 0]))
            else:
                total += weight * math.exp(float(ends[at, 1])) * rest(end, behind=True)
        return total

    return math.log(rest(columns[0]))


@pytest.mark.parametrize("cost", [0.05, 12.0])
def test_the_likelihood_sums_over_all_ways_to_call(
    lessons: Lessons, tiny_model: NeuralLibForCausalLM, cost: float
) -> None:
    torch.manual_seed(3)
    for parameter in tiny_model.computer.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    tiny_model.computer.selector.no_call.bias.data.zero_()
    for weight in (tiny_model.computer.selector.covered, tiny_model.computer.selector.no_call.weight):
        weight.data.normal_(std=2.0)
    batch = collate([lessons[i] for i in range(len(lessons))])["batch"]
    # Where the backbone's words are cheap it explains the reply by itself, where they are dear several calls do.
    batch = dataclasses.replace(batch, base=batch.base * cost)
    found, _ = MarginalObjective(tiny_model.computer.eval()).score(batch)
    for row, lesson in enumerate(lessons.lessons):
        if lesson.dialogue.steps:
            assert float(found[row]) == pytest.approx(by_enumeration(tiny_model, batch, row), abs=1e-3, rel=1e-5)


def test_what_is_covered_is_learned_where_calls_follow_one_another(
    lessons: Lessons, tiny_model: NeuralLibForCausalLM
) -> None:
    """The reader's part where one call stands behind another, the selector's behind every call; neither where nothing is called."""
    computer = tiny_model.computer.eval()
    computer.selector.no_call.bias.data.zero_()
    computer.alone_weight = 0.0
    for number, expected in ((3, (False, False)), (0, (True, False)), (5, (True, True))):
        computer.zero_grad()
        MarginalObjective(computer).score(collate([lessons[number]])["batch"])[0].sum().backward()
        grads = computer.selector.covered.grad, computer.reader.covered.grad
        assert tuple(grad is not None and bool(grad.any()) for grad in grads) == expected


def test_lists_are_lengthened_in_half_of_the_rows(lessons: Lessons) -> None:
    batch = collate([lessons[i] for i in range(len(lessons))])["batch"]
    torch.manual_seed(0)
    drawn = [lengthened(batch, 10.0) for _ in range(20)]
    heavier = torch.stack([one.weights - batch.weights for one in drawn])
    moved = torch.stack([one.features - batch.features for one in drawn])
    assert heavier.min() >= 0 and 0 < heavier.max() <= math.log(10.0) + 1e-6
    assert not heavier[:, batch.weights <= UNSEEN].any() and not moved[:, batch.weights <= UNSEEN].any()
    assert not heavier[:, 3].any() and not moved[:, 3].any(), "a conversation without a number has nothing to lengthen"
    assert moved.abs().amax() > 0 and bool(((heavier > 0).any(-1) | ~moved.any(-1).any(-1)).all())
    # The states of a row's numbers are all moved alike, and by no more than to the mean of another row's.
    for one in moved[:, 0]:
        touched = one[one.any(-1)]
        torch.testing.assert_close(touched, touched[:1].expand_as(touched))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_backbone_alone_counts_as_told(lessons: Lessons, tiny_model: NeuralLibForCausalLM, share: float) -> None:
    """p(reply) = p(calls) + alone_weight · p(backbone alone) where calls explain it, and is as it was elsewhere."""
    computer = tiny_model.computer.eval()
    computer.selector.no_call.bias.data.zero_()
    batch = collate([lessons[i] for i in range(len(lessons))])["batch"]
    plain, parts = MarginalObjective(computer).score(batch)
    computer.alone_weight = share
    found, _ = MarginalObjective(computer).score(batch)
    explained = torch.tensor([bool(one) for one in batch.explanations])
    torch.testing.assert_close(found[~explained], plain[~explained])
    expected = (plain.double().exp() - (1 - share) * parts["alone"].double().exp())[explained]
    torch.testing.assert_close(found.double().exp()[explained], expected, rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("frame", sorted(set(PLAIN)))
def test_a_message_without_the_chat_template_is_explained(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, frame: str
) -> None:
    writer = LessonWriter(tiny_model, tiny_tokenizer, Recipe())
    conversation = writer.conversation(FIRST, None, frame)
    text = writer.table.characters(conversation.tokens[: conversation.prompt]).text()
    assert text == frame.replace("{}", FIRST.messages[0])
    reply = writer.table.characters(conversation.tokens[conversation.prompt :]).text()
    assert reply == ("42" if text.endswith("\n") else " 42") and conversation.tokens[-1] == writer.end
    lesson = writer.lesson(FIRST, conversation, labelled=False)
    (truth,) = writer.truth(FIRST, conversation)
    assert lesson is not None and truth in {dataclasses.replace(one, candidates=1) for one in lesson.explanations}


@pytest.mark.parametrize("within", FRAMED)
def test_a_message_within_a_frame_is_explained(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, within: str
) -> None:
    writer = LessonWriter(tiny_model, tiny_tokenizer, Recipe())
    conversation = writer.conversation(FIRST, None, within=within)
    text = writer.table.characters(conversation.tokens[: conversation.prompt]).text()
    assert within.replace("{}", FIRST.messages[0]) in text
    lesson = writer.lesson(FIRST, conversation, labelled=False)
    (truth,) = writer.truth(FIRST, conversation)
    assert lesson is not None and truth in {dataclasses.replace(one, candidates=1) for one in lesson.explanations}


def test_some_single_messages_stand_in_a_frame(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    def prompts(share: float) -> list[tuple[int, str, str]]:
        recipe = Recipe(sentence_share=0.0, framed_share=share, shares={"general": 0.3, "follow_up": 0.3})
        writer = LessonWriter(tiny_model, tiny_tokenizer, recipe)
        pairs = conversations(writer, "train", 40, tmp_path)
        return [(len(d.messages), d.messages[0], tiny_tokenizer.decode(c.tokens[: c.prompt])) for d, c in pairs]

    for (messages, message, none), (_, _, every) in zip(prompts(0.0), prompts(1.0), strict=True):
        assert (none != every) == (messages == 1 and message[-1:] not in ":>=→")
        assert none == every or any(within.replace("{}", message) in every for within in FRAMED)


def test_only_single_messages_stand_without_the_chat_template(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    def prompts(share: float) -> list[tuple[int, str]]:
        recipe = Recipe(sentence_share=0.0, plain_share=share, shares={"general": 0.2, "several": 0.2, "follow_up": 0.2})
        writer = LessonWriter(tiny_model, tiny_tokenizer, recipe)
        pairs = conversations(writer, "train", 40, tmp_path)
        return [(len(dialogue.messages), tiny_tokenizer.decode(c.tokens[: c.prompt])) for dialogue, c in pairs]

    none, some, every = prompts(0.0), prompts(0.5), prompts(1.0)
    assert [messages for messages, _ in none] == [messages for messages, _ in every]
    changed = [one != other for one, other in zip(none, every, strict=True)]
    assert changed == [messages == 1 for messages, _ in none]
    assert set(some) <= {*none, *every} and some not in (none, every)


def test_where_nothing_is_read_candidates_count_alike(lessons: Lessons, tiny_model: NeuralLibForCausalLM) -> None:
    """A reading weight near 0 has the limit that is computed without the reader, and what choosing learns is the same."""
    computer, objective = tiny_model.computer.eval(), MarginalObjective(tiny_model.computer)
    computer.selector.no_call.bias.data.zero_()
    batch = collate([lessons[i] for i in range(len(lessons))])["batch"]
    found = []
    for weight in (1e-6, 0.0):
        computer.zero_grad(set_to_none=True)
        computer.reading_weight = weight
        likelihoods, parts = objective.score(batch)
        likelihoods.sum().backward()
        found.append((likelihoods.detach(), computer.selector.query.weight.grad, computer.reader.scores.weight.grad))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-3, rtol=1e-2)
    assert found[0][2] is not None and found[1][2] is None
    assert not parts["prompt_no_call"].any()
    # Thrice the candidates, a third of the chance that one of them read at random is right.
    computer.alone_weight = 0.0
    rows = [[dataclasses.replace(x, candidates=3 * x.candidates) for x in one] for one in batch.explanations]
    with torch.no_grad():
        once, thrice = (
            objective.score(each)[0] for each in (batch, dataclasses.replace(batch, explanations=rows))
        )
    for row, dialogue in enumerate(DIALOGUES):
        if len(dialogue.steps) < 2:
            assert float(once[row] - thrice[row]) == pytest.approx(math.log(3) * len(dialogue.steps), abs=1e-4)


def watched_scores(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float, float]]:
    """How each batch from now on is weighed: ``reading_weight``, ``alone_weight``, ``stretch``."""
    found: list[tuple[float, float, float]] = []
    score = MarginalObjective.score

    def watched(self: MarginalObjective, batch: CallBatch) -> Any:
        found.append((self.computer.reading_weight, self.computer.alone_weight, self.computer.stretch))
        return score(self, batch)

    monkeypatch.setattr(MarginalObjective, "score", watched)
    return found


@pytest.mark.parametrize("ending", ["the last step", "an error", "evaluation"])
def test_training_leaves_no_weights_on_the_model(
    lessons: Lessons, tiny_model: NeuralLibForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    computer = tiny_model.computer
    computer.alone_weight = 0.5  # whoever set it keeps it
    arguments = NeuralLibTrainingArguments(
        output_dir=str(tmp_path / "run"), max_steps=2, reading_share=0.4, alone_weight=0.0, stretch=3.0, report_to=[],
        use_cpu=True, disable_tqdm=True, save_strategy="no", sample_size=0,
    )  # fmt: skip
    weighed = watched_scores(monkeypatch)
    trainer = NeuralLibTrainer(tiny_model, arguments, train_dataset=lessons, eval_dataset=lessons)
    if ending == "evaluation":
        trainer.evaluate()
    elif ending == "an error":
        monkeypatch.setattr(MarginalObjective, "_choices", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            trainer.train()
    else:
        trainer.train()
    assert set(weighed) == {(1.0, 1.0, 3.0) if ending == "evaluation" else (0.0, 0.0, 3.0)}
    assert (computer.reading_weight, computer.alone_weight, computer.stretch) == (1.0, 0.5, 1.0)


def test_reading_is_learned_in_its_share_of_the_steps(
    lessons: Lessons, tiny_model: NeuralLibForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = NeuralLibTrainingArguments(
        output_dir=str(tmp_path / "run"), max_steps=8, reading_share=0.25, report_to=[], use_cpu=True, disable_tqdm=True,
        save_strategy="no", sample_size=0,
    )  # fmt: skip
    weighed = watched_scores(monkeypatch)
    NeuralLibTrainer(tiny_model, arguments, train_dataset=lessons).train()
    assert [reading > 0 for reading, _, _ in weighed] == [False, False, False, True] * 2
    with pytest.raises(TrainingArgumentsError, match=r"reading_share is greater than 0 and at most 1, found 0"):
        NeuralLibTrainingArguments(output_dir=str(tmp_path), reading_share=0.0)


def test_a_computer_that_trains_stretches_what_it_scores(
    lessons: Lessons, tiny_model: NeuralLibForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computer, objective = tiny_model.computer, MarginalObjective(tiny_model.computer)
    computer.selector.no_call.bias.data.zero_()
    batch = collate([lessons[i] for i in range(len(lessons))])["batch"]
    plain, _ = objective.score(batch)
    computer.stretch = 10.0
    assert torch.equal(computer.eval() and objective.score(batch)[0], plain), "what answers is not stretched"
    computer.training = True  # and its parts as they answer: without dropout
    torch.manual_seed(1)
    longer = lengthened(batch, 10.0)
    changed = (longer.weights != batch.weights).any(1)
    assert changed.any() and not changed.all()
    torch.manual_seed(1)
    found, _ = objective.score(batch)
    computer.stretch = 1.0
    expected, _ = objective.score(longer)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found[~changed], plain[~changed])
    assert (found - plain)[changed].abs().min() > 0

    arguments = NeuralLibTrainingArguments(
        output_dir=str(tmp_path / "run"), max_steps=1, stretch=3.0, report_to=[], use_cpu=True, disable_tqdm=True,
        save_strategy="no", sample_size=0,
    )  # fmt: skip
    weighed = watched_scores(monkeypatch)
    NeuralLibTrainer(tiny_model, arguments, train_dataset=lessons).train()
    assert {stretch for _, _, stretch in weighed} == {3.0}


def test_the_trainer_learns_and_resumes_to_the_bit(
    lessons: Lessons, tiny_model: NeuralLibForCausalLM, tmp_path: Path
) -> None:
    # An open gate, so that there is something to learn from the first step on.
    tiny_model.computer.selector.no_call.bias.data.zero_()
    start = {name: tensor.clone() for name, tensor in tiny_model.computer.state_dict().items()}

    def run(steps: int, folder: str, resume: bool = False) -> tuple[dict[str, torch.Tensor], list[float]]:
        arguments = TrainingArguments(
            output_dir=str(tmp_path / folder),
            max_steps=steps,
            per_device_train_batch_size=2,
            learning_rate=5e-3,
            lr_scheduler_type="constant",
            save_steps=14,  # within an epoch of 4 steps, two before its end
            logging_steps=4,
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
        return {name: tensor.clone() for name, tensor in tiny_model.computer.state_dict().items()}, losses

    straight, losses = run(32, "straight")
    run(14, "halved")
    resumed, _ = run(32, "halved", resume=True)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert losses[-1] < losses[0]
    tiny_model.computer.eval()
    assert set(decided(lessons)) == {
        "exact", "selected", "read", "quiet", "programs", "confused",
    }  # fmt: skip


def test_recipes(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("epochs: 3\nsupervision: answers\n")
    assert Recipe.load(path, ["learning_rate=0.01"]).learning_rate == 0.01
    assert Recipe.load(path, ["learning_rate=5e-4"]).learning_rate == 5e-4, "text to YAML"
    with pytest.raises(RecipeError, match="learning_rate must be int or float, found 'nan'"):
        Recipe.load(path, ["learning_rate=nan"])
    with pytest.raises(RecipeError, match="did you mean 'epochs'"):
        Recipe.load(path, ["epoch=3"])
    with pytest.raises(RecipeError, match="key=value"):
        Recipe.load(path, ["epochs"])
    with pytest.raises(RecipeError, match="must be int"):
        Recipe.load(path, ["examples=many"])
    with pytest.raises(RecipeError, match="cannot be read"):
        Recipe.load(tmp_path / "none.yaml")
    told = Recipe.load(path, ["backbone_learning_rate=5e-4", "max_grad_norm=1e-1", "retention=2", "lr_scheduler_type=linear"])
    assert told.arguments == {
        "backbone_learning_rate": 5e-4, "max_grad_norm": 0.1, "retention": 2, "lr_scheduler_type": "linear",
    }  # fmt: skip
    for override, message in [
        ("gradient_accumulation_steps=two", "gradient_accumulation_steps must be int, found 'two'"),
        ("max_steps=1.5", "max_steps must be int, found 1.5"),
        ("bf16_features=maybe", "bf16_features must be bool, found 'maybe'"),
        ("retention=much", "retention must be float, found 'much'"),
        ("tuned_programs=add", "tuned_programs must be list, found 'add'"),
    ]:
        with pytest.raises(RecipeError, match=message):
            Recipe.load(path, [override])


def test_heads_that_are_not_there(tiny_base: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(NeuralLibError, match="no trained heads"):
        load_heads(tiny_base, tiny_tokenizer, tmp_path)


def test_generated_requests_want_a_chat_format(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(RecipeError, match="no chat template"):
        LessonWriter(tiny_model, tokenizer, Recipe())
