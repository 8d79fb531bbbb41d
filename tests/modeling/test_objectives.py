"""The loss: it reaches selector and reader, through the exact engine's candidates and through the dense engine itself."""

from __future__ import annotations

from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from hypothesis import given, settings
from hypothesis import strategies as st
from neurallib.modeling_neurallib.dense_objective import DenseObjectiveError, soft_copy
from neurallib.modeling_neurallib.labelling import argument_texts
from neurallib.modeling_neurallib.modeling_neurallib import NeuralLibError
from neurallib.modeling_neurallib.objective import (
    decimal_pieces,
    grouped_pieces,
    longer_numbers,
    number_pieces,
    pieces_text,
    proposals,
    result_spans,
    search,
)
from neurallib.trainer.collator import DataCollatorForCalls
from torch.nn.functional import one_hot
from transformers import LlamaForCausalLM, Trainer, TrainingArguments

from neurallib import (
    NeuralLibConfig,
    NeuralLibForCausalLM,
    NeuralLibTrainingArguments,
    TrainingArgumentsError,
    compile_library,
)

HEADS = {"head_width": 16, "head_heads": 2, "key_width": 8, "reader_layers": 1}
SMALL = {"values": 128, "memory": 40, "registers": 16, "call_depth": 4, "max_steps": 60}

KEEP = '''
def keep(text: str) -> str:
    """The same text."""
    return text


def rest(text: str) -> str:
    """The text without its first character."""
    return text[1:]
'''


@pytest.fixture(scope="module")
def small_library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = tmp_path_factory.mktemp("source") / "keep.py"
    source.write_text(KEEP)
    return compile_library(str(source))


@pytest.fixture
def dense_model(tiny_base: LlamaForCausalLM, tiny_tokenizer: Any, small_library: Any) -> NeuralLibForCausalLM:
    torch.manual_seed(2)
    heads = {**HEADS, "estimator": "dense", "dense_machine": SMALL}
    model = NeuralLibForCausalLM.from_llama(tiny_base, small_library, tokenizer=tiny_tokenizer, heads=heads).double()
    model.computer.selector.no_call.bias.data.fill_(-2.0)
    model.computer.reader.scores.weight.data.normal_(std=0.5)
    return model


def example(tokenizer: Any, request: str, reply: str) -> tuple[torch.Tensor, torch.Tensor]:
    prompt = tokenizer(request).input_ids
    tokens = prompt + tokenizer(reply).input_ids
    labels = [-100] * len(prompt) + tokens[len(prompt) :]
    return torch.tensor([tokens]), torch.tensor([labels])


def test_dense_loss_reaches_selector_and_reader_and_matches_finite_differences(
    dense_model: NeuralLibForCausalLM, tiny_tokenizer: Any
) -> None:
    tokens, labels = example(tiny_tokenizer, "say ab", "ab")
    weights = {
        "selector": dense_model.computer.selector.query.weight,
        "gate": dense_model.computer.selector.no_call.bias,
        "reader": dense_model.computer.reader.scores.weight,
        "projection": dense_model.computer.projection.linear.weight,
        "backbone": dense_model.model.layers[0].mlp.up_proj.weight,
    }
    loss = dense_model(tokens, labels=labels).loss
    gradients = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
    generator = torch.Generator().manual_seed(0)
    for name, weight in weights.items():
        direction = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        direction /= direction.norm()
        # The backbone's norms compute in float32 whatever its weights are, so its differences need a longer step.
        size, tolerance = (1e-2, 0.05) if name == "backbone" else (1e-5, 1e-4)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight += sign * size * direction
                values.append(dense_model(tokens, labels=labels).loss.item())
                weight -= sign * size * direction
        expected = (values[0] - values[1]) / (2 * size)
        found = float((gradients[name] * direction).sum())
        assert gradients[name].abs().sum() > 0, f"no gradient reaches the {name}"
        assert found == pytest.approx(expected, rel=tolerance, abs=1e-8), name


def test_dense_learns_what_to_read_from_the_answer(dense_model: NeuralLibForCausalLM, tiny_tokenizer: Any) -> None:
    tokens, labels = example(tiny_tokenizer, "say ab", "ab")
    heads = list(dense_model.computer.parameters())
    optimizer = torch.optim.Adam(heads, lr=0.002)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = dense_model(tokens, labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


def test_dense_refuses_a_library_that_is_too_large(tiny_base: LlamaForCausalLM, tiny_tokenizer: Any) -> None:
    from neurallib import standard_library

    heads = {**HEADS, "estimator": "dense"}
    model = NeuralLibForCausalLM.from_llama(tiny_base, standard_library(), tokenizer=tiny_tokenizer, heads=heads)
    tokens, labels = example(tiny_tokenizer, "say ab", "ab")
    with pytest.raises(DenseObjectiveError, match="marginal"):
        model(tokens, labels=labels)


def test_marginal_loss_learns_from_the_answer_alone(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any) -> None:
    tokens, labels = example(tiny_tokenizer, "Add 12 and 30", "42")
    optimizer = torch.optim.Adam(tiny_model.computer.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        loss = tiny_model(tokens, labels=labels).loss
        loss.backward()
        optimizer.step()
    prompt = tokens[:, labels[0] == -100]
    output = tiny_model.generate(prompt, max_new_tokens=2, do_sample=False, return_dict_in_generate=True)
    call = next(call for call in output.calls[0] if call.start == prompt.shape[1])
    assert (call.program, call.result) == ("add", "42")
    assert sorted(call.arguments) == ["12", "30"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_soft_copy_is_the_mean_of_hard_copies(chances: list[float], longest: int) -> None:
    words = one_hot(torch.arange(1, len(chances) + 1), 8).double()
    cells, lengths = soft_copy(torch.tensor(chances, dtype=torch.double), words, longest)
    expected = torch.zeros(longest, 8, dtype=torch.double)
    expected_lengths = torch.zeros(longest + 1, dtype=torch.double)
    for outcome in np.ndindex(*(2,) * len(chances)):
        weight = float(np.prod([p if taken else 1 - p for p, taken in zip(chances, outcome, strict=True)]))
        copied = [i + 1 for i, taken in enumerate(outcome) if taken][:longest]
        expected_lengths[len(copied)] += weight
        for cell in range(longest):
            expected[cell, copied[cell] if cell < len(copied) else 0] += weight
    torch.testing.assert_close(cells, expected)
    torch.testing.assert_close(lengths, expected_lengths)


def test_pieces_with_gaps_are_joined_by_one_space() -> None:
    text = "mon 52, tue -7 (x)"
    points = np.array([ord(c) for c in text])
    labelling = np.zeros(len(text), dtype=np.int64)
    for start, end in number_pieces(text):
        labelling[start:end] = 1
    assert argument_texts(labelling, points, np.zeros(len(text), dtype=bool), 1) == ["52 -7"]


def test_search_finds_the_call_and_the_spurious_one(tiny_library: Any) -> None:
    text = "Add 2 and 2"
    programs = [(i, name, len(p.parameters)) for i, (name, p) in enumerate(tiny_library.programs.items())]
    found = {
        (tiny_library.name, list(tiny_library.programs)[one.program])
        for one in search(tiny_library, programs, text, "4", 500)
    }
    assert found == {(tiny_library.name, "add"), (tiny_library.name, "double")}


def test_a_small_budget_is_spent_on_the_numbers_of_all_programs(tiny_library: Any) -> None:
    """Spans of the first program's are left out before the numbers of the last one's."""
    text = "In the long story of the two old kings and their many sheep, add 12, 30, 4, 8, 15, 16, 23, 42, 77 and 99 to it"
    programs = [(i, name, len(p.parameters)) for i, (name, p) in enumerate(tiny_library.programs.items())]
    wanted = str(2 * 42)
    ordered = [*sorted(programs, key=lambda program: program[1] == "double")]
    found = search(tiny_library, ordered, text, wanted, budget=250)
    assert any(list(tiny_library.programs)[one.program] == "double" for one in found)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("max(12,-7)", ["12", "-7"]),
        ("{-892,4769,-1}", ["-892", "4769", "-1"]),
        ("8-3 = 5 -2", ["8", "3", "5", "-2"]),
        ("(4)-2 and 3.-4.", ["4", "2", "3", "4"]),
    ],
)
def test_a_sign_belongs_to_a_number_that_it_begins(text: str, pieces: list[str]) -> None:
    assert [text[start:end] for start, end in number_pieces(text)] == pieces


@pytest.mark.parametrize("text", [" 4 9 7\n2487", " 12 ", "\n7\n", "The sum is 12.", " 3, 4 and 5"])
def test_results_have_no_white_space_at_their_edges(text: str) -> None:
    spans = result_spans(text)
    assert spans and all(text[start:end] == text[start:end].strip() != "" for start, end in spans)
    assert text.split("\n")[0].strip() in {text[start:end] for start, end in spans} | {""}


@pytest.mark.parametrize(
    ("text", "longer"),
    [
        ("9.11 and 1,234,567 or 12.", ["9.11", "1,234,567"]),
        ("-9.5 < 9.6, 3", ["-9.5", "9.6"]),
        ("1, 2. 3 v1.2", ["1.2"]),
        ("12,45", ["12,45"]),
        ("7", []),
        ("", []),
    ],
)
def test_points_and_commas_make_longer_numbers(text: str, longer: list[str]) -> None:
    assert [text[start:end] for start, end in longer_numbers(text, number_pieces(text))] == longer


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("4.50, -3.2 and 7.", ["4.50", "-3.2", "7"]),
        ("1,250 v1.2.3", ["1", "250", "1.2.3"]),
        ("2. 5", ["2", "5"]),
        ("", []),
    ],
)
def test_a_point_joins_the_digits_at_its_sides(text: str, pieces: list[str]) -> None:
    assert [text[start:end] for start, end in decimal_pieces(text, number_pieces(text))] == pieces


def test_lists_of_decimals_are_searched() -> None:
    """Programs of one argument are offered numbers with their decimals, in runs and alone, and what stands at their points."""
    singles, runs, *_ = proposals("of 2.5, 3.1 and 4", 1)
    told = [[pieces_text("of 2.5, 3.1 and 4", labelling[0]) for labelling in kind] for kind in (singles, runs)]
    assert told[0] == ["2.5", "3.1", "4", "2", "5", "3", "1"]
    assert told[1] == ["2.5 3.1 4", "2.5 3.1", "3.1 4"]
    text = " 1.5 2.25 3\n"
    assert {"1.5 2.25 3", "1.5", "2.25"} <= {text[start:end] for start, end in result_spans(text)}


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("1,250 and 3,400.5", ["1,250", "3,400.5"]),
        ("-1,234,567; 8", ["-1,234,567", "8"]),
        ("1,25 0,125 1250,300", ["1", "25", "0", "125", "1250", "300"]),
        ("1, 250 1.250", ["1", "250", "1.250"]),
        ("1250,300,400 1,250,3", ["1250", "300", "400", "1", "250", "3"]),
        ("1,250,300 7", ["1,250,300", "7"]),
        ("", []),
    ],
)
def test_commas_join_groups_of_three_digits(text: str, pieces: list[str]) -> None:
    assert [text[start:end] for start, end in grouped_pieces(text, decimal_pieces(text, number_pieces(text)))] == pieces


def test_lists_are_searched_with_groups_and_without() -> None:
    _, runs, *_ = proposals("1,250, 7 8", 1)
    told = [pieces_text("1,250, 7 8", labelling[0]) for labelling in runs]
    assert told == ["1 250 7 8", "1 250 7", "1 250", "250 7 8", "250 7", "7 8", "1,250 7 8", "1,250 7"]


def test_longer_numbers_are_searched(tiny_library: Any) -> None:
    """The number "1,200" as a whole, beside 1 and 200: a program of two arguments is offered both."""
    pairs = {
        tuple(pieces_text("1,200 + 3", one) for one in labelling)
        for kind in proposals("1,200 + 3", 2)
        for labelling in kind
    }
    assert ("1,200", "3") in pairs and ("200", "1") in pairs
    assert ("1,200", "200") not in pairs


@given(st.lists(st.integers(0, 99), min_size=1, max_size=5), st.integers(0, 198))
@settings(max_examples=40, deadline=None)
def test_the_search_tells_how_many_labellings_it_ran(tiny_library: Any, numbers: list[int], wanted: int) -> None:
    """So the share of them that give an answer is how often the program gives it by chance."""
    text = " then ".join(map(str, numbers))
    found = search(tiny_library, [(0, "add", 2)], text, str(wanted), 10_000)
    pairs = list(permutations(range(len(numbers)), 2))
    right = [(i, j) for i, j in pairs if numbers[i] + numbers[j] == wanted]
    assert len(found) == len(right)
    assert all(one.candidates == len(pairs) for one in found)


@given(st.text(alphabet="ab 12,-(", max_size=12), st.sampled_from([1, 2]))
@settings(max_examples=60, deadline=None)
def test_proposals_stay_in_the_text_and_do_not_overlap(text: str, arity: int) -> None:
    labellings = [labelling for kind in proposals(text, arity) for labelling in kind]
    assert len(set(labellings)) == len(labellings)
    for arguments in labellings:
        assert len(arguments) == arity
        pieces = sorted(piece for argument in arguments for piece in argument)
        assert all(0 <= start < end <= len(text) for start, end in pieces)
        assert all(a[1] <= b[0] for a, b in pairwise(pieces))
        assert all(pieces_text(text, argument) for argument in arguments)


# What is refused


def test_an_estimator_that_does_not_exist_is_refused(tiny_model: NeuralLibForCausalLM) -> None:
    with pytest.raises(StrictDataclassFieldValidationError, match="expected one of 'marginal', 'dense'"):
        NeuralLibConfig(estimator="margnal")
    with pytest.raises(StrictDataclassFieldValidationError, match="margnal"):
        tiny_model.config.estimator = "margnal"
    tiny_model.config.estimator = "dense"
    assert tiny_model.config.to_dict()["estimator"] == "dense"


@pytest.mark.parametrize(
    ("name", "value"),
    [("supervision", "calls"), ("prompt_weight", 0.5), ("stretch", 2.0), ("alone_weight", 0.5), ("tempering", 0.5),
     ("reading_share", 0.5)],
)  # fmt: skip
def test_dense_refuses_arguments_that_weigh_calls(tmp_path: Path, name: str, value: Any) -> None:
    NeuralLibTrainingArguments(str(tmp_path), **{name: value})
    NeuralLibTrainingArguments(str(tmp_path), estimator="dense")
    with pytest.raises(TrainingArgumentsError, match=f"the estimator 'dense' .* has no {name}: leave that out"):
        NeuralLibTrainingArguments(str(tmp_path), estimator="dense", **{name: value})


@pytest.mark.parametrize(
    ("prompt", "padding", "reply", "missing"),
    [("say ab", 0, "", "no reply"), ("", 0, "ab", "no prompt before"), ("", 2, "ab", "no prompt before")],
)
def test_dense_refuses_rows_without_a_prompt_or_a_reply(
    dense_model: NeuralLibForCausalLM, tiny_tokenizer: Any, prompt: str, padding: int, reply: str, missing: str
) -> None:
    tokens, labels = example(tiny_tokenizer, prompt, reply)
    empty = torch.zeros(1, padding, dtype=torch.int64)
    tokens, labels, mask = (
        torch.cat([rest, each], dim=1)
        for rest, each in ((empty, tokens), (empty - 100, labels), (empty, torch.ones_like(tokens)))
    )
    with pytest.raises(DenseObjectiveError, match=f"row 0 of the batch has {missing}"):
        dense_model(tokens.long(), attention_mask=mask.long(), labels=labels.long())


# Which loss, and of what size


def test_labels_without_calls_have_the_loss_of_the_backbone(
    tiny_base: LlamaForCausalLM, tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any
) -> None:
    tokens, labels = example(tiny_tokenizer, "Add 12 and 30", "42")
    output = tiny_model(tokens, labels=labels, decide_calls=False)
    assert output.log_likelihoods is None
    assert torch.equal(output.loss, tiny_base(tokens, labels=labels).loss)
    embeddings = tiny_model.get_input_embeddings()(tokens)
    alone = tiny_model(inputs_embeds=embeddings, labels=labels, decide_calls=False)
    assert torch.equal(alone.loss, output.loss)


def test_labels_with_embeddings_are_refused(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any) -> None:
    tokens, labels = example(tiny_tokenizer, "Add 12 and 30", "42")
    with pytest.raises(NeuralLibError, match="labels were given with inputs_embeds"):
        tiny_model(inputs_embeds=tiny_model.get_input_embeddings()(tokens), labels=labels)


def test_the_stock_trainer_sees_the_loss_of_the_model(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    """A mean per sequence, while it trains and when it evaluates, however many batches make a step."""
    rows = [{"prompt": "Add 12 and 30", "completion": "42"}, {"prompt": "Turn strawberry around", "completion": "yrrebwarts"}]
    collator = DataCollatorForCalls(tiny_tokenizer, tiny_model)
    wanted = tiny_model(**collator(rows)).loss.item()
    for size, batches in ((2, 1), (1, 2)):
        arguments = TrainingArguments(
            str(tmp_path), max_steps=1, learning_rate=0.0, per_device_train_batch_size=size, gradient_accumulation_steps=batches,
            per_device_eval_batch_size=2, report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no", logging_steps=1,
            remove_unused_columns=False,
        )  # fmt: skip
        trainer = Trainer(tiny_model, arguments, collator, rows, rows)
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        assert losses == [pytest.approx(wanted, rel=0.1)], "the reader's dropout aside"
        assert trainer.evaluate()["eval_loss"] == pytest.approx(wanted, rel=1e-4)
