"""Evaluation: tasks from anywhere, replies that do not depend on batches or interruptions, and reports that are right."""

from __future__ import annotations

import csv
import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import pytest
import torch
from conftest import opened
from neurallib.trainer import evaluation
from neurallib.trainer.adapters import adapted
from neurallib.trainer.evaluation import EvaluationError, Example, Task, compared, evaluate, load, verdict
from neurallib.trainer.wording import TaskError
from typer.testing import CliRunner

from neurallib import command_line
from neurallib.command_line import app

if TYPE_CHECKING:
    from click.testing import Result

    from neurallib import NeuralLibForCausalLM

ROWS: list[dict[str, Any]] = [
    {"prompt": "Add 1, 2", "answer": "3", "program": "add", "arguments": ["1", "2"]},
    {"prompt": "Turn hello around, please", "answer": "olleh", "program": "reverse", "arguments": ["hello"]},
    {"prompt": "How many numbers are in 4 8 15?", "answer": "3", "program": "count", "arguments": ["4, 8, 15"]},
    {"prompt": "Twice 21", "answer": "42", "program": "double", "arguments": ["21"]},
    {
        "prompt": "And 12 and 30, what do they make together?",
        "answer": "42",
        "program": "add",
        "arguments": ["12", "30"],
    },
]
GENERAL = [{"prompt": text, "calls": []} for text in ("Who was Ada?", "Good morning!", "Tell me a story about a fox")]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    return written(tmp_path / "requests.jsonl", ROWS)


@pytest.fixture
def general(tmp_path: Path) -> Path:
    return written(tmp_path / "general.jsonl", GENERAL)


@pytest.fixture
def caller(tiny_model: NeuralLibForCausalLM) -> NeuralLibForCausalLM:
    """Calls something wherever it can."""
    return opened(tiny_model)


@pytest.fixture
def asked(caller: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(command_line, "_evaluated_model", lambda source: (caller, tiny_tokenizer))
    return caller


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "examples.jsonl").read_text().splitlines()]


def said(records: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What does not depend on time."""
    return sorted((r["who"], r["task"], r["index"], r["reply"], tuple(r["tokens"])) for r in records)


# Tasks


def test_every_kind_of_file_gives_the_same_task(tmp_path: Path, requests: Path) -> None:
    bare = [{"prompt": row["prompt"], "answer": row["answer"]} for row in ROWS]
    datasets.Dataset.from_list(bare).to_parquet(tmp_path / "a.parquet")
    for name, dialect in (("a.csv", "excel"), ("a.tsv", "excel-tab")):
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, ["prompt", "answer"], dialect=dialect)
            writer.writeheader()
            writer.writerows(bare)
    turns = [
        {
            "messages": [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["answer"]},
            ]
        }
        for row in bare
    ]
    written(tmp_path / "messages.jsonl", turns)
    (tmp_path / "list.json").write_text(json.dumps(turns, indent=2))
    with gzip.open(tmp_path / "packed.jsonl.gz", "wt") as packed:
        packed.write((tmp_path / "messages.jsonl").read_text())
    datasets.Dataset.from_list(turns).save_to_disk(tmp_path / "saved")
    names = ("a.csv", "a.tsv", "messages.jsonl", "list.json", "packed.jsonl.gz", "saved/data-00000-of-00001.arrow")
    (one,) = load(str(tmp_path / "a.parquet"))
    for name in names:
        assert load(str(tmp_path / name))[0].examples == one.examples, name
    assert [example.answers for example in one.examples] == [(row["answer"],) for row in ROWS]
    assert one.examples[0].calls is None
    (labelled,) = load(str(requests), count=2)
    assert labelled.examples[1].calls == ({"program": "reverse", "arguments": ["hello"]},)
    assert len(labelled.examples) == 2


def test_text_that_looks_like_a_number_stays_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,answer\nreverse 700,007\nreverse NA,AN\nreverse lun,nul\n,\n")
    with pytest.raises(EvaluationError, match="row 3: there is no prompt"):
        load(str(tmp_path / "a.csv"))
    (task,) = load(str(tmp_path / "a.csv"), count=3)
    assert [example.answers[0] for example in task.examples] == ["007", "AN", "nul"]


def test_rows_of_json_stay_as_they_are(tmp_path: Path) -> None:
    rows = [{"prompt": "the day after 2024-02-29", "answer": "2024-03-01"}, {"prompt": "2024-03-01", "answer": 61}]
    for name, text in (("a.json", json.dumps(rows)), ("a.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")):
        (tmp_path / name).write_text(text)
        (task,) = load(str(tmp_path / name))
        assert [(e.messages[0]["content"], e.answers) for e in task.examples] == [
            ("the day after 2024-02-29", ("2024-03-01",)),
            ("2024-03-01", ("61",)),
        ]


def test_calls_are_labelled_as_in_training_data(tmp_path: Path) -> None:
    add = {"program": "add", "arguments": ["1", "2"]}
    labels = [
        {"calls": [{"program": "add", "arguments": [1, "2"], "answer": 3}]},
        {"calls": json.dumps([add])},
        {"program": "add", "arguments": '["1", "2"]'},
        {"calls": [{"program": "today", "arguments": []}]},
        {"calls": "", "program": "", "arguments": ""},
    ]
    (task,) = load(str(written(tmp_path / "a.jsonl", [{"prompt": "a", "answer": "3", **label} for label in labels])))
    assert [e.calls for e in task.examples] == [
        ({**add, "answer": "3"},),
        (add,),
        (add,),
        ({"program": "today", "arguments": []},),
        None,
    ]
    assert verdict(task.examples[3], record("4", ("today", [], "5"))) == "executing"


def test_configurations_are_tasks() -> None:
    tasks = load("numbers", count=3)
    assert [task.name for task in tasks] == ["numbers:digits_1_4", "numbers:digits_5_12", "numbers:digits_40"]
    assert {example.length for example in tasks[2].examples} == {40}
    (general_task,) = load("general:train", count=2, seed=1)
    assert [example.calls for example in general_task.examples] == [(), ()]
    assert general_task.fingerprint == load("general:train", count=2, seed=1)[0].fingerprint
    assert general_task.fingerprint != load("general:train", count=2, seed=2)[0].fingerprint


BAD_ROWS = {
    "there is no prompt; expected a column messages, or one of prompt, request, question; found text": {"text": "a"},
    "messages must be a list with the texts role and content": {"messages": [{"content": "a"}]},
    "there is no user's message": {"messages": [{"role": "assistant", "content": "a"}]},
    "answers must be a list of texts that are not empty": {"prompt": "a", "answers": [""]},
    "a call must have the text program": {"prompt": "a", "answer": "b", "calls": [{"program": "add"}]},
    "a call must have the text program and the list of texts": {
        "prompt": "a",
        "calls": {"program": "a", "arguments": []},
    },
    "its text holds half of a surrogate pair": {"prompt": "a", "answer": "\udc80"},
    "length must be an integer": {"prompt": "a", "answer": "b", "length": "long"},
}


@pytest.mark.parametrize("message", BAD_ROWS)
def test_a_bad_row_is_named(message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "bad.jsonl", [BAD_ROWS[message]])
    with pytest.raises(EvaluationError, match=r"bad\.jsonl, row 0: ") as raised:
        load(str(path))
    assert message in str(raised.value)


def test_tasks_that_there_are_not(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "half.jsonl").write_text('{"prompt": "a", "answ')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "text.json").write_text('["a"]')
    (tmp_path / "no.parquet").write_text("prompt,answer")
    for spec, message in {
        "sums": "'sums' is no task and no file; tasks are requests, dialogues",
        str(tmp_path / "no.jsonl"): "is no file",
        str(tmp_path / "a.txt"): "a file's name ends with .jsonl",
        str(tmp_path / "half.jsonl"): "cannot be read: line 1 is no JSON: ",
        str(tmp_path / "text.json"): "row 0: it is a str, expected columns",
        str(tmp_path / "no.parquet"): "no.parquet cannot be read: ",
        str(tmp_path / "empty.jsonl"): "empty.jsonl has no rows",
    }.items():
        with pytest.raises(EvaluationError) as raised:
            load(spec)
        assert message in str(raised.value) and "\n" not in str(raised.value)
    with pytest.raises(TaskError, match="no split 'test'"):
        load("requests:test")


# Replies


def test_replies_are_those_of_the_model_asked_alone(
    caller: NeuralLibForCausalLM, tiny_tokenizer: Any, requests: Path, tmp_path: Path
) -> None:
    # As many tokens for all, whatever the batch: more than the longest answer would be given.
    evaluate(caller, tiny_tokenizer, load(str(requests)), tmp_path / "out", batch_size=3, new_tokens=48)
    records = {record["index"]: record for record in lines(tmp_path / "out")}
    assert sorted(records) == list(range(len(ROWS)))
    called = 0
    for index, row in enumerate(ROWS):
        turns = [{"role": "user", "content": row["prompt"]}]
        prompt = tiny_tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = caller.generate(**prompt, max_new_tokens=48, do_sample=False, return_dict_in_generate=True)
        length = prompt["input_ids"].shape[1]
        assert records[index]["tokens"] == output.sequences[0, length:].tolist()
        calls = [one for one in output.calls[0] if one.start >= length]
        made = [(c["program"], tuple(c["arguments"]), c["result"]) for c in records[index]["calls"]]
        assert made == [(c.program, c.arguments, c.result) for c in calls]
        called += bool(calls)
    assert called


def test_the_base_is_the_backbone_itself(
    caller: NeuralLibForCausalLM, tiny_base: Any, tiny_tokenizer: Any, general: Path, tmp_path: Path
) -> None:
    tasks = load(str(general))
    report = evaluate(caller, tiny_tokenizer, tasks, tmp_path / "self", (caller, tiny_tokenizer), new_tokens=10)
    evaluate(tiny_base, tiny_tokenizer, tasks, tmp_path / "base", new_tokens=10)
    alone = [one for one in lines(tmp_path / "self") if one["who"] == "base"]
    assert [one[3:] for one in said(alone)] == [one[3:] for one in said(lines(tmp_path / "base"))]
    # The gate is open, so the model calls where its base would talk.
    (found,) = report["tasks"].values()
    assert found["calls"]["quiet"] == 0.0 and found["retention"]["identical"] < 1.0
    assert found["retention"]["count"] == len(GENERAL)
    opened_again = evaluate(tiny_base, tiny_tokenizer, tasks, tmp_path / "same", (tiny_base, tiny_tokenizer))
    (same,) = opened_again["tasks"].values()
    assert (same["retention"]["identical"], same["retention"]["agreement"]) == (1.0, 1.0)
    assert "calls" not in same


def test_an_adapted_model_is_asked_with_its_calls(
    caller: NeuralLibForCausalLM, tiny_tokenizer: Any, requests: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig

    tasks = load(str(requests), count=2)
    before = evaluation.identity(caller)
    # A LoRA that nothing has trained changes no reply.
    wrapped = adapted(caller, LoraConfig(r=2, target_modules=["q_proj"]))
    report = evaluate(wrapped, tiny_tokenizer, tasks, tmp_path / "out", (wrapped, tiny_tokenizer), new_tokens=8)
    calls = {who: [r["calls"] for r in lines(tmp_path / "out") if r["who"] == who] for who in ("model", "base")}
    assert all(calls["model"]) and not any(calls["base"])
    assert report["tasks"]["requests.jsonl"]["calls"]["recall"] == 1.0
    assert report["settings"]["identity"] != before


def test_a_reply_ends_where_generate_ends_it(tiny_base: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    tasks = load(str(written(tmp_path / "a.jsonl", ROWS[:1])))
    evaluate(tiny_base, tiny_tokenizer, tasks, tmp_path / "long", new_tokens=12)
    (whole,) = lines(tmp_path / "long")
    third = whole["tokens"][2]
    tiny_base.generation_config.eos_token_id = [tiny_tokenizer.eos_token_id, third]
    evaluate(tiny_base, tiny_tokenizer, tasks, tmp_path / "short", new_tokens=12)
    (short,) = lines(tmp_path / "short")
    assert short["tokens"] == whole["tokens"][: whole["tokens"].index(third) + 1]


def test_a_prompt_without_room_has_no_reply(caller: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    rows = [{"prompt": "7 " * 600, "answer": "3"}, ROWS[0]]
    report = evaluate(caller, tiny_tokenizer, load(str(written(tmp_path / "a.jsonl", rows))), tmp_path / "out")
    (found,) = report["tasks"].values()
    assert found["without_reply"]["count"] == 1 and "context holds 512" in found["without_reply"]["first"]
    assert found["exact_match"]["count"] == 2


# Going on


def test_what_was_answered_is_not_asked_again(
    caller: NeuralLibForCausalLM, tiny_tokenizer: Any, requests: Path, general: Path, tmp_path: Path
) -> None:
    tasks = [*load(str(requests)), *load(str(general))]
    whole = evaluate(caller, tiny_tokenizer, tasks, tmp_path / "whole", batch_size=2, new_tokens=8)
    # What a kill leaves: some lines, the last of them half written.
    (tmp_path / "cut").mkdir()
    kept = (tmp_path / "whole" / "examples.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "cut" / "examples.jsonl").write_bytes(b"".join(kept[:3]) + kept[3][:40])
    batches = []
    stock = caller.generate

    def counted(*args: Any, **kwargs: Any) -> Any:
        batches.append(len(kwargs["input_ids"]))
        return stock(*args, **kwargs)

    caller.generate = counted  # type: ignore[method-assign]
    again = evaluate(caller, tiny_tokenizer, tasks, tmp_path / "cut", batch_size=2, new_tokens=8)
    # Five requests in batches of 2, 2, 1, the first of them whole; three general ones in 2, 1.
    assert batches == [2, 1, 2, 1]
    assert (tmp_path / "cut" / "examples.jsonl").read_bytes().startswith(b"".join(kept[:3]))
    assert said(lines(tmp_path / "cut")) == said(lines(tmp_path / "whole"))
    for report in (whole, again):
        for task in report["tasks"].values():
            task.pop("seconds")
    assert again == whole
    evaluate(caller, tiny_tokenizer, tasks, tmp_path / "cut", batch_size=2, new_tokens=8)
    assert len(batches) == 4
    # Another setting, or other weights, are another evaluation.
    evaluate(caller, tiny_tokenizer, tasks[1:], tmp_path / "cut", batch_size=2, new_tokens=9)
    assert len(batches) == 6
    caller.computer.selector.no_call.bias.data.fill_(50.0)
    evaluate(caller, tiny_tokenizer, tasks[1:], tmp_path / "cut", batch_size=2, new_tokens=9)
    assert len(batches) == 8


def test_a_killed_run_goes_on(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    opened(tiny_model).save_pretrained(model)
    tiny_tokenizer.save_pretrained(model)
    # Each takes far longer than the pause between two looks at the file.
    tasks = written(tmp_path / "many.jsonl", [{"prompt": f"Add {n}, 2", "answer": str(n + 2)} for n in range(16)])
    settings = [
        "--tasks",
        tasks,
        "--model",
        model,
        "--batch-size",
        "1",
        "--max-new-tokens",
        "4",
        "--output",
        tmp_path / "out",
    ]
    command = [Path(sys.executable).with_name("neurallib"), "evaluate", *settings]
    kept = tmp_path / "out" / "examples.jsonl"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 600
            while not (kept.exists() and kept.read_bytes().count(b"\n") >= 2):
                assert process.poll() is None, "it ended before it was killed"
                assert time.monotonic() < deadline, "it answers nothing"
                time.sleep(0.01)
        finally:
            process.send_signal(signal.SIGKILL)
    left = kept.read_bytes()
    count = left.count(b"\n")
    assert 2 <= count < 16 and not (tmp_path / "out" / "report.json").exists()
    asked_for = []
    stock = evaluation.Answerer._batch
    monkeypatch.setattr(
        evaluation.Answerer, "_batch", lambda self, *given: asked_for.append(given) or stock(self, *given)
    )
    result = call(*settings, "--json")
    assert result.exit_code == 0, result.output
    assert len(asked_for) == 16 - count
    assert kept.read_bytes().startswith(left[: left.rindex(b"\n") + 1])
    assert sorted(one["index"] for one in lines(tmp_path / "out")) == list(range(16))
    assert json.loads(result.stdout)["tasks"]["many.jsonl"]["examples"] == 16


# Metrics


def record(reply: str, *calls: tuple[str, list[str], str | None]) -> dict[str, Any]:
    made = [{"program": p, "arguments": a, "result": r} for p, a, r in calls]
    return {"reply": reply, "tokens": [1], "calls": made, "seconds": 0.5}


ADD = Example(
    ({"role": "user", "content": "1, 2"},), ("3",), ({"program": "add", "arguments": ["1", "2"]},), "add", 1, "digits"
)


def test_an_error_is_where_the_reply_went_wrong_first() -> None:
    assert verdict(ADD, record("3.")) == "exact"
    assert verdict(ADD, record("4")) == "calling"
    assert verdict(ADD, record("4", ("double", ["1"], "2"))) == "selecting"
    assert verdict(ADD, record("4", ("add", ["1", "3"], "4"))) == "reading"
    assert verdict(ADD, record("4", ("add", ["1", "2"], "4"))) == "executing"
    assert verdict(ADD, record("4", ("add", ["1", "2"], None))) == "executing"
    assert verdict(ADD, record("3 and more", ("add", ["1", "2"], "3"))) == "writing"
    assert verdict(Example(ADD.messages, ("3",)), record("4")) == "writing"


def test_the_metrics_of_a_task() -> None:
    quiet = Example(({"role": "user", "content": "hi"},), (), ())
    records = [
        record("3", ("add", ["1", "2"], "3")),
        record("It is 3", ("add", ["1", "5"], "6")),
        record("no idea"),
        record("6", ("double", ["3"], "6")),
    ]
    found = evaluation.measured([ADD, ADD, ADD, quiet], records)
    assert (found["exact_match"]["share"], found["exact_match"]["count"]) == (1 / 3, 3)
    assert found["stated"]["share"] == 2 / 3
    assert found["errors"] == {"reading": 1, "calling": 1}
    assert (found["calls"]["precision"], found["calls"]["recall"], found["calls"]["quiet"]) == (2 / 3, 2 / 3, 0.0)
    assert (found["selection_accuracy"]["share"], found["reading_accuracy"]["share"]) == (1.0, 0.5)
    assert found["programs"]["add"]["count"] == 3 and found["seconds"] == 2.0
    assert "calls" not in evaluation.measured([ADD], [record("3")], calls=False)


def test_curves_by_measure() -> None:
    long = Example(ADD.messages, ("9",), None, "add", 40, "digits")
    lists = Example(ADD.messages, ("9",), None, "mean", 3, "numbers")
    drawn = evaluation.curves([ADD, long, lists], [record("3"), record("8"), record("9")])
    assert {m: [(p["most"], p["share"]) for p in curve] for m, curve in drawn.items()} == {
        "digits": [(4, 1.0), (64, 0.0)]
    }


def test_changes_since_another_run() -> None:
    tasks = [Task("a", "a", (ADD,) * 40)]

    def report(right: int) -> dict[str, Any]:
        found = evaluation.measured(tasks[0].examples, [record("3")] * right + [record("4")] * (40 - right))
        return {"tasks": {"a": {"fingerprint": tasks[0].fingerprint, **found}}}

    change = compared(report(36), report(20))["a"]
    assert change["same_examples"] and change["exact_match"]["difference"] == pytest.approx(0.4)
    assert 0 < change["exact_match"]["low"] < 0.4 < change["exact_match"]["high"]
    assert compared(report(36), {"tasks": {}}) == {}


# The command


def test_the_command_prints_tables_and_writes_a_report(
    asked: Any, requests: Path, general: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = call("--tasks", f"{requests},{general}", "--base", "self", "--output", out, "--max-new-tokens", "6")
    assert result.exit_code == 0, result.output
    for words in ("replies examples exact match", "calls precision recall", "requests.jsonl 5 ", "general.jsonl 3 – –"):
        assert words in " ".join(result.stdout.split())
    report = json.loads((out / "report.json").read_text())
    assert set(report["tasks"]) == {"requests.jsonl", "general.jsonl"}
    assert report["tasks"]["general.jsonl"]["retention"]["count"] == 3
    assert "exact_match" in report["tasks"]["requests.jsonl"]["base"]
    renamed = requests.rename(tmp_path / "one, two.jsonl")
    assert call("-t", renamed, "-o", tmp_path / "renamed", "--max-new-tokens", "6").exit_code == 0
    requests = renamed.rename(requests)
    again = call("-t", requests, "-o", tmp_path / "again", "--compare", out, "--max-new-tokens", "6", "--json")
    changes = json.loads(again.stdout)["changes"]
    assert changes["requests.jsonl"]["same_examples"]
    assert changes["requests.jsonl"]["exact_match"]["difference"] == 0.0


def test_without_matplotlib_all_but_the_plot_is_there(
    asked: Any, requests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    result = call("-t", requests, "-o", tmp_path / "out", "--max-new-tokens", "4", "--json")
    assert result.exit_code == 0 and "requests.jsonl" in json.loads(result.stdout)["tasks"]
    assert "no plot was drawn: the package matplotlib is not installed; pip install 'neurallib[plot]'" in result.stderr


def test_the_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    shares = evaluation.measured([ADD] * 4, [record("3")] * 3 + [record("4")])
    curve = [{"least": 1, "most": 4, **shares["exact_match"]}, {"least": 5, "most": 8, **shares["exact_match"]}]
    report = {"tasks": {"a": shares | {"base": shares}}, "length_generalisation": {"a": {"digits": curve}}}
    evaluation.plot(report, tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    # Of a share of 0 the interval's lower end is rounded to above it.
    none = evaluation.measured([ADD] * 7, [record("4")] * 7)
    assert none["exact_match"]["low"] > 0
    evaluation.plot({"tasks": {"a": none}, "length_generalisation": {}}, tmp_path / "report.png")
    evaluation.plot({"tasks": {"a": {"examples": 1}}, "length_generalisation": {}}, tmp_path / "report.png")
    assert not (tmp_path / "report.png").exists(), "a picture of another report"


def test_an_interrupted_command_says_how_to_go_on(
    asked: Any, requests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation.Answerer, "_batch", interrupted)
    result = call("-t", requests, "-o", tmp_path / "out")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1].startswith("neurallib: interrupted; the same command goes on")


def test_bad_input_is_one_line(asked: Any, requests: Path, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"format": 7}')
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "examples.jsonl").write_text("notes\n")
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    other = written(tmp_path / "other" / requests.name, ROWS[:1])
    for arguments, message in (
        (["-t", "sums"], "'sums' is no task and no file"),
        (["-t", requests, "-t", requests], "is given twice"),
        (["-t", requests, "-t", other], "requests.jsonl stands for different examples: rename one"),
        (["-t", ","], "there is no task"),
        (["-t", requests, "--compare", tmp_path / "report.json"], "is no report of an evaluation of this version"),
        (["-t", requests, "--compare", tmp_path / "gone"], "No such file"),
        (["-t", requests, "-o", tmp_path / "out"], "line 1 is no reply of an evaluation"),
        (["-t", requests, "-o", tmp_path / "file"], "File exists"),
    ):
        result = call(*arguments, *([] if "-o" in arguments else ["-o", tmp_path / "new"]))
        assert result.exit_code == 1, (arguments, result.output, result.exception)
        assert result.stdout == ""
        (line,) = [line for line in result.stderr.splitlines() if line.strip()]
        assert line.startswith("neurallib: ") and message in line


def test_a_model_that_there_is_not(tmp_path: Path, requests: Path) -> None:
    (tmp_path / "model").mkdir()
    result = call("-t", requests, "-m", tmp_path / "model", "-o", tmp_path / "out")
    assert (
        result.exit_code == 1 and result.stderr.startswith("neurallib: the model ") and result.stderr.count("\n") == 1
    )


def test_a_models_identity_is_that_of_its_weights(tiny_model: Any) -> None:
    before = evaluation.identity(tiny_model)
    with torch.no_grad():
        tiny_model.lm_head.weight += 1
    changed = evaluation.identity(tiny_model)
    tiny_model.config.disabled_programs = ["add"]
    assert len({before, changed, evaluation.identity(tiny_model)}) == 3
