"""Your own data: rows as people have them become lessons; what is wrong with a row is said with its index."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from neurallib.modeling_neurallib.compiler.compiling import compile_source
from neurallib.modeling_neurallib.objective import Explanation, call_labels, explanations_of, pieces_text
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


def test_packing_is_refused(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any) -> None:
    with pytest.raises(TrainingArgumentsError, match="read from other conversations"):
        DataCollatorForCalls(tiny_tokenizer, tiny_model, packing=True)
    packed = {"input_ids": [5, 6], "labels": [-100, 6], "position_ids": [0, 0]}
    with pytest.raises(TrainingArgumentsError, match="position_ids"):
        DataCollatorForCalls(tiny_tokenizer, tiny_model)([packed])
    with pytest.raises(TrainingArgumentsError, match="did you mean 'right'"):
        DataCollatorForCalls(tiny_tokenizer, tiny_model, padding_side="rigth")
