"""Coverage: what earlier calls of a reply have read, in generation, in training and in an explanation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from conftest import opened
from neurallib.modeling_neurallib.call import Call, CallLayer, Place, Row
from neurallib.modeling_neurallib.coverage import expected_coverage
from neurallib.modeling_neurallib.explanation import Reply
from neurallib.modeling_neurallib.explanation import explained as explain
from neurallib.modeling_neurallib.objective import Explanation
from test_generation import MODES, greedy, uncached

from neurallib import NeuralLibForCausalLM

QUESTION = "Add 12 and 30. Turn strawberry around. Is 7 prime?"
OWNERS = np.array([0, 1, 1, 2, 3, 3, 3, 4, 5])


def called(
    start: int, length: int, *pieces: tuple[int, int], candidates: int = 1, part: float | None = None
) -> Explanation:
    return Explanation(start, 0, (pieces,), 0, length, part=part)


def test_a_chain_covers_what_its_calls_have_read() -> None:
    first, second, apart = called(9, 2, (0, 1), (3, 4)), called(11, 1, (4, 7)), called(14, 1, (1, 3))
    before, after = expected_coverage([second, apart, first], OWNERS, 16)
    assert {at: np.flatnonzero(covered).tolist() for at, covered in before.items()} == {
        11: [0, 2],
        12: [0, 2, 3],
        15: [1],
    }
    assert {at: np.flatnonzero(covered).tolist() for at, covered in after.items()} == {
        9: [0, 2],
        11: [0, 2, 3],
        14: [1],
    }


@pytest.mark.parametrize(
    ("parts", "expected"),
    [((0.9, 0.1), (0.9, 0.1)), ((0.0, 0.0), (0.5, 0.5)), ((None, None), (0.0, 0.0)), ((0.9, None), (0.0, 0.0))],
)
def test_explanations_that_differ_cover_by_their_part(
    parts: tuple[float | None, ...], expected: tuple[float, ...]
) -> None:
    """And where one of them was not weighed, what all of them have read is covered alone."""
    one, other = called(9, 2, (0, 1), (7, 8), part=parts[0]), called(9, 2, (3, 4), (7, 8), part=parts[1])
    before, after = expected_coverage([one, other], OWNERS, 12)
    assert before[11].tolist() == after[9].tolist()
    assert before[11].tolist() == pytest.approx([expected[0], 0, expected[1], 0, 1] + [0] * 7)


def test_only_results_that_stand_one_behind_the_other_and_end_here_cover() -> None:
    first = Call(3, "add", "", ("1", "2"), result="3", tokens=(7, 8), read=(0, 2))
    second = Call(5, "add", "", ("4", "5"), result="9", tokens=(9,), read=(1,))
    fault = Call(6, "add", "", ("", ""), fault="argument 1 of add was not found in the text")
    text = [0, 1, 2, 7, 8, 9]
    assert Row(text, [first, second]).covered() == {0, 1, 2} == Row(text, [first, second, fault]).covered()
    assert Row(text[:5], [first]).covered() == {0, 2}
    assert not Row(text[:4], [first]).covered(), "its result is still being written"
    assert not Row([*text, 4], [first, second]).covered(), "the text has gone on"
    assert not Row([*text[:-1], 4], [first, second]).covered(), "the text has departed from it"
    assert Row([0, 1, 2, 7, 4, 9], [first, second]).covered() == {1}, "the text departed from the first"


@pytest.fixture
def answering(tiny_model: NeuralLibForCausalLM) -> NeuralLibForCausalLM:
    """A model that calls one program after the other, and whose choices depend on what is covered."""
    computer = opened(tiny_model).computer
    torch.manual_seed(5)
    for weight in (computer.reader.scores.weight, computer.writer.end.weight):
        weight.data.normal_(std=1.0)
    for vector in (computer.selector.covered, computer.reader.covered):
        vector.data.normal_(std=3.0)
    computer.writer.end.bias.data = torch.tensor([-4.0, 4.0])
    return tiny_model


def answered(model: NeuralLibForCausalLM, tokenizer: Any) -> Reply:
    tokens = tokenizer(QUESTION, return_tensors="pt").input_ids
    output = model.generate(tokens, max_new_tokens=24, do_sample=False, return_dict_in_generate=True)
    written = output.sequences[0].tolist()
    return Reply([], written, tokens.shape[1], "", output.calls[0])


def test_what_is_covered_changes_the_calls_that_follow_and_nothing_before(
    answering: NeuralLibForCausalLM, tiny_tokenizer: Any
) -> None:
    computer = answering.computer
    with_coverage = answered(answering, tiny_tokenizer).calls
    computer.selector.covered.data.zero_()
    computer.reader.covered.data.zero_()
    without = answered(answering, tiny_tokenizer).calls
    first, chained = with_coverage[0], with_coverage[1]
    assert chained.start == first.start + len(first.tokens) and first.read
    assert (first.program, first.arguments, first.probability) == (
        without[0].program,
        without[0].arguments,
        without[0].probability,
    )
    assert chained != without[1] or chained.probability != without[1].probability


def test_what_a_call_reads_has_a_say_in_whether_the_turn_ends_with_it(
    answering: NeuralLibForCausalLM, tiny_tokenizer: Any
) -> None:
    """Of the first call, before which nothing is covered, all else stays as it is."""
    computer = answering.computer
    computer.writer.end.bias.data.zero_()
    first = []
    for seed in range(8):
        torch.manual_seed(seed)
        computer.selector.covered.data.normal_(std=6.0)
        first.append(answered(answering, tiny_tokenizer).calls[0])
    assert len({(call.start, call.program, call.arguments, call.probability) for call in first}) == 1
    assert {call.ends_turn for call in first} == {True, False}


def test_an_explanation_tells_the_choices_that_were_made(answering: NeuralLibForCausalLM, tiny_tokenizer: Any) -> None:
    reply = answered(answering, tiny_tokenizer)
    before = [Row(reply.tokens[: call.start], list(reply.calls[:number])) for number, call in enumerate(reply.calls)]
    assert any(row.covered() for row in before)
    told = explain(answering, tiny_tokenizer, reply)
    for call, found in zip(reply.calls, told["calls"], strict=True):
        named = {choice["program"]: choice["probability"] for choice in found["choices"]}
        assert named[call.program] == pytest.approx(call.probability, abs=1e-4)
        assert [argument["text"] for argument in found["arguments"]] == list(call.arguments)


def test_the_tokens_read_are_those_of_the_arguments(answering: NeuralLibForCausalLM, tiny_tokenizer: Any) -> None:
    table = answering.computer.table
    reply = answered(answering, tiny_tokenizer)
    assert any(call.read for call in reply.calls)
    for call in reply.calls:
        spelt = table.characters([reply.tokens[token] for token in call.read]).text()
        assert sorted(call.read) == list(call.read) and all(token < call.start for token in call.read)
        assert set("".join(call.arguments).replace(" ", "")) <= set(spelt) | {"-"}


def test_a_position_with_nothing_covered_is_considered_as_it_was(
    answering: NeuralLibForCausalLM, tiny_tokenizer: Any
) -> None:
    computer = answering.computer.eval()
    tokens = tiny_tokenizer("Add 12 and 30", return_tensors="pt").input_ids
    with torch.no_grad():
        output = answering.model(tokens, decide_calls=False, output_hidden_states=True)
        features, layer = answering.model.features(output.hidden_states), CallLayer()
        pooled, choices, _ = computer.consider(layer, tokens, torch.ones_like(tokens, dtype=torch.bool), features)
        last = tokens.shape[1] - 1
        place = Place(0, last, features[0, last], frozenset())
        torch.testing.assert_close(computer.consider_again(layer, place), (pooled[0, last], choices[0, last]))
        covered = Place(0, last, features[0, last], frozenset({1}))
        assert not torch.allclose(computer.consider_again(layer, covered)[1], choices[0, last])


def test_a_call_is_recorded_without_the_tokens_that_it_read(
    answering: NeuralLibForCausalLM, tiny_tokenizer: Any
) -> None:
    call = next(call for call in answered(answering, tiny_tokenizer).calls if call.read)
    assert call.record() == {name: value for name, value in vars(call).items() if name != "read"}


def chained(calls: Sequence[Call]) -> bool:
    return any(call.start == before.start + len(before.tokens) and before.read for before, call in pairwise(calls))


@pytest.mark.parametrize("mode", MODES, ids=lambda name: name.replace(" ", "_"))
def test_chains_are_the_uncached_runs(answering: NeuralLibForCausalLM, tiny_tokenizer: Any, mode: str) -> None:
    tokens = tiny_tokenizer(QUESTION, return_tensors="pt").input_ids
    expected = uncached(answering, tokens)
    output = greedy(answering, tokens, **MODES[mode], return_dict_in_generate=True)
    assert output.sequences[0].tolist()[: len(expected)] == expected
    assert chained(output.calls[0])
    whole = answering.model(torch.tensor([expected]), use_cache=False).calls[0]
    made = [call for call in whole if tokens.shape[1] <= call.start < len(expected)]
    assert list(output.calls[0])[: len(made)] == made


def test_chains_in_a_padded_batch_are_those_of_each_alone(answering: NeuralLibForCausalLM, tiny_tokenizer: Any) -> None:
    texts = [QUESTION, "Add 1 and 2. Add 3 and 4.", "5"]
    batch = tiny_tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    output = answering.generate(**batch, max_new_tokens=24, do_sample=False, return_dict_in_generate=True)
    assert any(map(chained, output.calls))
    for row, text in enumerate(texts):
        single = tiny_tokenizer(text, return_tensors="pt").input_ids
        alone = answering.generate(single, max_new_tokens=24, do_sample=False, return_dict_in_generate=True)
        assert output.calls[row] == alone.calls[0]


def test_a_chain_that_begins_in_the_prompt_is_explained(answering: NeuralLibForCausalLM, tiny_tokenizer: Any) -> None:
    reply = answered(answering, tiny_tokenizer)
    first, second = reply.calls[:2]
    assert chained(reply.calls[:2])
    later = Reply([], reply.tokens, second.start, "", tuple(call for call in reply.calls if call.start >= second.start))
    told = explain(answering, tiny_tokenizer, later)["calls"][0]
    named = {choice["program"]: choice["probability"] for choice in told["choices"]}
    assert named[second.program] == pytest.approx(second.probability, abs=1e-4)
    assert [argument["text"] for argument in told["arguments"]] == list(second.arguments)
    assert told["arguments"] and first.start < later.start
