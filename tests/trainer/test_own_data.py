"""Your own data: rows as people have them become lessons; what is wrong with a row is said with its index."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from neurallib.modeling_neurallib.compiler.compiling import compile_source
from neurallib.modeling_neurallib.objective import (
    SEARCHED_STEPS,
    Explanation,
    call_labels,
    explanations_of,
    given_rows,
    pieces_text,
)
from neurallib.modeling_neurallib.writer import LEADS
from neurallib.trainer.collator import IGNORED, DataCollatorForCalls
from neurallib.trainer.lessons import Lesson
from neurallib.trainer.own_data import (
    RowError,
    RowReader,
    StreamedLessons,
    TrainingDataError,
    load_rows,
    occurrences,
    read_rows,
)

from neurallib import NeuralLibForCausalLM, TrainingArgumentsError


def asked(prompt: str, completion: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, **more}


SUM = asked("Add 12 and 30", "42")
SENTENCE = asked("Turn strawberry around, and add 12 and 30", "yrrebwarts, and the sum is 42.")
TALK = asked("Who was Ada?", "A mathematician.")


@pytest.fixture
def reader(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any) -> Callable[..., RowReader]:
    return lambda **how: RowReader(tiny_model, tiny_tokenizer, **how)


def calls_of(lesson: Lesson, reader: RowReader) -> set[tuple[str, tuple[str, ...]]]:
    text = reader.table.characters(lesson.conversation.tokens).text()
    names = {index: name for index, name, _ in reader.programs}
    return {(names[x.program], tuple(pieces_text(text, p) for p in x.pieces)) for x in lesson.explanations}


def test_rows_of_every_form_are_one_lesson(reader: Callable[..., RowReader]) -> None:
    user, reply = {"role": "user", "content": "Add 12 and 30"}, {"role": "assistant", "content": "42"}
    rows = [SUM, {"messages": [user, reply]}, {"prompt": [user], "completion": [reply]}, {**SUM, "messages": None}]
    lessons = [reader().lesson(row)[0] for row in rows]
    assert all(
        (one.conversation, one.explanations) == (lessons[0].conversation, lessons[0].explanations) for one in lessons
    )
    assert ("add", ("12", "30")) in calls_of(lessons[0], reader())


def test_results_are_found_within_a_sentence(reader: Callable[..., RowReader], tiny_tokenizer: Any) -> None:
    lesson, remark = reader().lesson(SENTENCE)
    assert remark == "" and {("reverse", ("strawberry",)), ("add", ("12", "30"))} <= calls_of(lesson, reader())
    tokens, prompt = lesson.conversation.tokens, lesson.conversation.prompt
    assert tiny_tokenizer.decode(tokens[prompt:-1]) == SENTENCE["completion"]
    for one in lesson.explanations:
        written = tiny_tokenizer.decode(tokens[one.start + 1 : one.start + 1 + one.length])
        assert written in ("yrrebwarts", " 42")


@pytest.mark.parametrize("arguments", [["12", "30"], [12, 30]])
def test_labels_of_calls_are_used(reader: Callable[..., RowReader], arguments: list[Any]) -> None:
    row = asked("Add 12 and 30, or 30 and 12", "42", calls=[{"program": "add", "arguments": arguments}])
    lesson, _ = reader(supervision="calls").lesson(row)
    assert calls_of(lesson, reader()) == {("add", ("12", "30"))}
    assert len(lesson.explanations) == 4, "each number stands at two places"
    assert len(calls_of(reader().lesson(row)[0], reader())) > 1, "without the labels both orders explain it"
    empty, remark = reader(supervision="calls").lesson({**row, "calls": "[]"})
    assert (empty.explanations, remark) == ((), "")


def test_results_on_lines_are_cut_as_those_of_generated_lessons(reader: Callable[..., RowReader]) -> None:
    row = asked("Turn strawberry around, and add 12 and 30", "yrrebwarts\n42\nThat is all.")
    lesson, _ = reader().lesson(row)
    table, tokens = reader().table, lesson.conversation.tokens
    found = {(x.lead, table.characters(tokens[x.start + 1 : x.start + 1 + x.length]).text()) for x in lesson.explanations}
    assert found == {(0, "yrrebwarts"), (LEADS.index("\n"), "\n42")}


def test_a_share_of_labels_depends_on_what_a_row_says(reader: Callable[..., RowReader]) -> None:
    rows = [
        asked(f"Add {n} and 30, or 30 and {n}", str(n + 30), calls=[{"program": "add", "arguments": [str(n), "30"]}])
        for n in range(41, 61)
    ]
    half = reader(supervision=0.5)

    def labelled(order: list[dict[str, Any]]) -> set[str]:
        lessons, _ = read_rows(order, half)
        return {one.dialogue.messages[0] for one in lessons if not one.alone}

    some = labelled(rows)
    assert 3 <= len(some) <= 17 and labelled(rows[::-1]) == some
    assert {row["prompt"] for row in rows if not half.lesson(row)[0].alone} == some, "and not on where it stands"


def test_lists_are_found_piece_by_piece() -> None:
    assert occurrences("sort 5, 12 and 112", "5, 12, 112", 0) == [((5, 6), (8, 10), (15, 18))]
    assert occurrences("12 or 112", "12", 0) == [((0, 2),)]
    assert occurrences("12 or 112", "13", 0) == []


BAD = [
    ({"messages": [{"role": "user", "content": "hi"}]}, "no answer: its last message is the user's"),
    ({"prompt": "hi"}, "completion is missing"),
    ({"prompt": "hi", "completion": " "}, "answer is empty"),
    ({"text": "hi"}, "neither messages nor prompt"),
    ({"messages": "hi"}, "expected a list of messages"),
    ({"messages": [{"role": "robot", "content": "hi"}]}, "role 'robot'"),
    ({"messages": [{"role": "assistant", "content": "hi"}]}, "no prompt"),
    ({"prompt": "a \ud83d", "completion": "hi"}, "message 0 of prompt holds half of a surrogate pair"),
    (7, "expected columns"),
]
BAD_LABELS = [
    ([{"program": "ad", "arguments": ["12", "30"]}], "did you mean 'add'"),
    ([{"program": "xyz", "arguments": ["12", "30"]}], "'xyz', of which the model has 0; it has add, double"),
    ([{"program": "add", "arguments": ["12"]}], "takes 2"),
    ([{"program": "add", "arguments": ["12", "31"]}], "'31' of its call of add does not stand in the prompt"),
    ([{"program": "double", "arguments": ["12"]}], "gives '24', which its answer lacks"),
    ([{"program": "add", "arguments": ["12", "12"]}], "only one within the other"),
    ("{", "not a list of program and arguments"),
    (None, "it has no calls"),
]


@pytest.mark.parametrize(("row", "reason"), BAD)
def test_bad_rows_say_why(reader: Callable[..., RowReader], row: Any, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        reader().lesson(row)


@pytest.mark.parametrize(("calls", "reason"), BAD_LABELS)
def test_bad_labels_say_why(reader: Callable[..., RowReader], calls: Any, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        reader(supervision="calls").lesson({**SUM, "calls": calls})


DIGITS = '''
def count_to(number: int) -> int:
    """Count to a number."""
    counted = 0
    for _ in range(number):
        counted += 1
    return counted


def sixth(text: str) -> str:
    """The sixth character."""
    return text[5]


def nothing(text: str) -> str:
    """No text."""
    return ""
'''


def test_labelled_runs_end_where_those_of_the_model_end(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_model.load_library(compile_source(DIGITS, name="digits"), tokenizer=tiny_tokenizer)

    def lesson(program: str, argument: str, answer: str) -> Lesson:
        calls = [{"program": program, "arguments": [argument]}]
        reader = RowReader(tiny_model, tiny_tokenizer, supervision="calls")
        return reader.lesson(asked(f"Of {argument}", answer, calls=calls))[0]

    run = tiny_model.computer.library.call("count_to", ["90000"])
    assert run.text == "90000" and run.steps > SEARCHED_STEPS
    assert len(lesson("count_to", "90000", "90000").explanations) == 1
    with pytest.raises(RowError, match=r"its call sixth\(ab\) ends with the fault index_out_of_range after \d+ steps"):
        lesson("sixth", "ab", "b")
    with pytest.raises(RowError, match=r"its call nothing\(ab\) gives an empty text, .* leave the call out"):
        lesson("nothing", "ab", "b")
    monkeypatch.setitem(tiny_model.config.machine, "max_steps", 1_000)
    with pytest.raises(RowError, match="ends with the fault out_of_steps after 1000 steps"):
        lesson("count_to", "90000", "90000")
    monkeypatch.setitem(tiny_model.config.machine, "memory", 64)
    with pytest.raises(RowError, match=r"its call sixth\(b+\) cannot be run"):
        lesson("sixth", "b" * 100, "b")


def test_bad_rows_are_refused_or_skipped_with_their_index(reader: Callable[..., RowReader]) -> None:
    rows = [SUM, {"prompt": "hi"}, TALK, {"text": ""}]
    with pytest.raises(TrainingDataError, match=r"2 of 4 rows .*row 1: .*row 3: .*on_bad_row='skip'"):
        read_rows(rows, reader())
    lessons, report = read_rows(rows, reader(), on_bad_row="skip")
    assert [index for index, _ in report.bad] == [1, 3] and report.unexplained == [2]
    assert [bool(lesson.explanations) for lesson in lessons] == [True, False]
    with pytest.raises(TrainingDataError, match=r"1 of 4 answers .*no program .*'tiny_programs'.*rows 2"):
        read_rows(rows, reader(), on_bad_row="skip", on_unexplained="refuse")
    with pytest.raises(TrainingDataError, match="no row is left"):
        read_rows([TALK], reader(), on_unexplained="skip")
    with pytest.raises(TrainingDataError, match="max_length=4"):
        read_rows([SUM], reader(max_length=4))


def test_streams_are_read_while_training(reader: Callable[..., RowReader]) -> None:
    seen: list[int] = []

    class Rows:
        def __iter__(self) -> Any:
            for number, row in enumerate([SUM, {"prompt": "hi"}, TALK]):
                seen.append(number)
                yield row

    stream = StreamedLessons(Rows(), reader(), on_bad_row="skip")
    assert seen == [] and len(list(stream)) == len(list(stream)) == 2
    assert stream.report.rows == 3 and [index for index, _ in stream.report.bad] == [1]
    with pytest.raises(TrainingDataError, match="row 1 cannot be trained on"):
        list(StreamedLessons(Rows(), reader()))


def test_files(tmp_path: Path, reader: Callable[..., RowReader]) -> None:
    from datasets import Dataset

    lines = [json.dumps(SUM), "", '{"prompt": ', json.dumps(TALK)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    Dataset.from_list([SUM, TALK]).to_parquet(tmp_path / "rows.parquet")
    assert load_rows(tmp_path / "rows.parquet") == [SUM, TALK]
    rows = load_rows(tmp_path)
    assert len(rows) == 5 and list(load_rows(tmp_path, streaming=True))[2:] == rows[2:]
    _, report = read_rows(rows, reader(), on_bad_row="skip")
    assert [index for index, _ in report.bad] == [1] and "not JSON" in report.bad[0][1]
    (tmp_path / "latin.jsonl").write_bytes(json.dumps(SUM).encode() + b'\n{"prompt": "caf\xe9", "completion": "1"}\n')
    _, report = read_rows(load_rows(tmp_path / "latin.jsonl"), reader(), on_bad_row="skip")
    assert [index for index, _ in report.bad] == [1] and "not JSON in UTF-8" in report.bad[0][1]
    for name, reason in (("none.jsonl", "is not there"), ("nowhere/at_all", "neither a file")):
        with pytest.raises(TrainingDataError, match=reason):
            load_rows(tmp_path / name)
    (tmp_path / "broken").mkdir()
    with pytest.raises(TrainingDataError, match="holds no file"):
        load_rows(tmp_path / "broken")
    (tmp_path / "broken" / "rows.parquet").write_text("no")
    with pytest.raises(TrainingDataError, match="not a Parquet file"):
        load_rows(tmp_path / "broken")


def test_all_libraries_are_named(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, reader: Callable[..., RowReader]
) -> None:
    more = compile_source('def shout(text: str) -> str:\n    """Louder."""\n    return text + "!"\n', name="voices")
    tiny_model.load_library(more, tokenizer=tiny_tokenizer)
    with pytest.raises(TrainingDataError, match="no program of the libraries 'tiny_programs', 'voices'"):
        read_rows([TALK], reader(), on_unexplained="refuse")


def test_call_labels_are_explanations_as_a_tensor() -> None:
    rows = [
        [Explanation(5, 2, (((0, 2), (3, 4)), ((7, 9),)), 1, 3), Explanation(6, 0, (((1, 2),),), 0, 1)],
        [],
        None,
    ]
    assert call_labels(rows).shape == (3, 4, 9) and explanations_of(call_labels(rows)) == rows
    assert given_rows(call_labels(rows)) == frozenset()
    told = call_labels(rows, given=[0])
    assert given_rows(told) == {0} and explanations_of(told) == rows


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_likelihood(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, side: str) -> None:
    collator = DataCollatorForCalls(tiny_tokenizer, tiny_model, padding_side=side, pad_to_multiple_of=8)
    batch = collator([SENTENCE, SUM, TALK])
    assert batch["input_ids"].shape[1] % 8 == 0
    for row, mask in zip(batch["labels"], batch["attention_mask"], strict=True):
        assert (row[mask == 0] == IGNORED).all() and (row != IGNORED).any()
    decoded = tiny_tokenizer.decode(batch["labels"][1][batch["labels"][1] != IGNORED])
    assert decoded == "42<|im_end|>"
    together = tiny_model(**batch).log_likelihoods
    for row, item in enumerate([SENTENCE, SUM, TALK]):
        alone = tiny_model(**collator([item])).log_likelihoods
        torch.testing.assert_close(together[row], alone[0], atol=2e-3, rtol=1e-4)
    # Without the labels of calls the model searches for them itself.
    searched = tiny_model(**{name: tensor for name, tensor in batch.items() if name != "call_targets"})
    torch.testing.assert_close(searched.log_likelihoods[1:], together[1:], atol=1e-4, rtol=1e-5)


def test_where_calls_were_given_nothing_else_explains_an_answer(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any
) -> None:
    tiny_model.computer.selector.no_call.bias.data.fill_(9.0)  # calls are unlikely beside the backbone's words
    rows = [{**SUM, "calls": [{"program": "add", "arguments": ["12", "30"]}]}, {**TALK, "calls": []}]
    output = tiny_model(**DataCollatorForCalls(tiny_tokenizer, tiny_model, supervision="calls")(rows))
    found, calls, alone = (one.tolist() for one in (output.log_likelihoods, output.parts["calls"], output.parts["alone"]))
    assert found[0] == pytest.approx(calls[0], abs=1e-4) and alone[0] > calls[0]
    assert found[1] == pytest.approx(alone[1])
    searched = tiny_model(**DataCollatorForCalls(tiny_tokenizer, tiny_model)(rows))
    assert searched.log_likelihoods[0].item() >= alone[0]


def test_the_collator_draws_labels_row_by_row(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any) -> None:
    calls = [{"program": "add", "arguments": ["12", "30"]}]
    rows = [asked(f"Add 12 and 30, or 30 and 12, {word}", "42", calls=calls) for word in "abcdefghijklmnopqrst"]
    batch = DataCollatorForCalls(tiny_tokenizer, tiny_model, supervision=0.5)(rows)
    counts = [len(found or ()) for found in explanations_of(batch["call_targets"])]
    assert 3 <= counts.count(4) <= 17 and len(set(counts)) == 2, "each number stands at two places"
    assert given_rows(batch["call_targets"]) == {row for row, count in enumerate(counts) if count == 4}


def test_a_row_with_too_many_explanations_says_nothing(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any) -> None:
    collator = DataCollatorForCalls(tiny_tokenizer, tiny_model, padding_side="left", most_explanations=1)
    ambiguous = asked("Add 12 and 30, or 30 and 12, then turn strawberry around, and talk of it", "42")
    assert collator.reader.lesson(ambiguous)[1] == "ambiguous"

    def learned(rows: list[Any]) -> dict[str, torch.Tensor]:
        output = tiny_model(**collator(rows))
        tiny_model.zero_grad()
        (output.log_likelihoods.sum() + output.parts["prompt_no_call"].sum()).backward()
        return {name: one.grad.clone() for name, one in tiny_model.named_parameters() if one.grad is not None}

    batch = collator([ambiguous, TALK])
    assert (batch["labels"][0] == IGNORED).all() and (batch["labels"][1] != IGNORED).any()
    both, talk = learned([ambiguous, TALK]), learned([TALK])
    for name, gradient in both.items():
        torch.testing.assert_close(gradient, talk.get(name, torch.zeros_like(gradient)), atol=1e-4, rtol=1e-3)
    assert not any(gradient.any() for gradient in learned([ambiguous]).values())


def test_packing_is_refused(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any) -> None:
    with pytest.raises(TrainingArgumentsError, match="read from other conversations"):
        DataCollatorForCalls(tiny_tokenizer, tiny_model, packing=True)
    packed = {"input_ids": [5, 6], "labels": [-100, 6], "position_ids": [0, 0]}
    with pytest.raises(TrainingArgumentsError, match="position_ids"):
        DataCollatorForCalls(tiny_tokenizer, tiny_model)([packed])
    with pytest.raises(TrainingArgumentsError, match="did you mean 'right'"):
        DataCollatorForCalls(tiny_tokenizer, tiny_model, padding_side="rigth")
