"""What was evaluated stands in the card: as a table, as ``model-index``, and as evaluation results of the Hub's benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi, ModelCard, parse_eval_result_entries
from neurallib.model_cards.adapter_card import adapter_card
from neurallib.trainer.publishing import describe, upload
from test_evaluation import GENERAL, ROWS, asked, call, caller, written  # noqa: F401 - two of them are fixtures

from neurallib import NeuralLibForCausalLM

RESULTS = ".eval_results/org_sums_default.yaml"


@pytest.fixture
def folder(asked: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path) -> Path:  # noqa: F811
    """A saved model, and tasks beside it."""
    asked.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    written(tmp_path / "sums.jsonl", ROWS)
    written(tmp_path / "talk.jsonl", GENERAL)
    return tmp_path / "model"


def evaluated(folder: Path, *words: str) -> dict[str, Any]:
    """The tasks of a report that was left in the model's folder."""
    tasks = [word for name in ("sums.jsonl", "talk.jsonl") for word in ("-t", folder.parent / name)]
    more = ("-o", folder.parent / "out", "--max-new-tokens", "6", "--base", "self", "--card", *words, "--json")
    done = call(*tasks, "-m", folder, *more)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)["tasks"]
    return found


def test_an_evaluated_model_is_published_with_its_figures(folder: Path) -> None:
    tasks = evaluated(folder, "--benchmark", "sums.jsonl=org/sums")
    published = describe(folder, "org/name")
    card = ModelCard(published.card)
    assert {result.metric_type for result in card.data.eval_results} > {"exact_match", "stated", "call_precision", "quiet"}
    assert card.data.model_name == "org/name"
    pairs = {(result.dataset_name, result.metric_type) for result in card.data.eval_results}
    assert ("talk.jsonl", "quiet") in pairs and ("sums.jsonl", "quiet") not in pairs, "a share of nothing says nothing"
    for result in card.data.eval_results:
        task = tasks[result.dataset_name]
        wanted = {
            "exact_match": lambda task: task["exact_match"]["share"],
            "call_precision": lambda task: task["calls"]["precision"],
            "quiet": lambda task: task["calls"]["quiet"],
            "identical_to_base": lambda task: task["retention"]["identical"],
        }.get(result.metric_type)
        if wanted is not None:
            assert result.metric_value == pytest.approx(wanted(task), abs=1e-4), result
    row = next(line for line in published.card.splitlines() if line.startswith("| talk.jsonl | 3 |"))
    share = 100 * tasks["talk.jsonl"]["calls"]["quiet"]
    assert f"| {share:.1f} |" in row and "| – |" in row, "there is no exact match where nothing is asked"
    assert "| sums.jsonl | 5 |" in published.card and "exact match, base" in published.card
    (entry,) = parse_eval_result_entries(yaml.safe_load(published.replaced[RESULTS]))
    assert (entry.dataset_id, entry.task_id) == ("org/sums", "default")
    assert entry.value == round(100 * tasks["sums.jsonl"]["exact_match"]["share"], 2) and "programs" in str(entry.notes)
    assert published.hashes[RESULTS] in published.card and "evaluation_record.json" in published.files
    assert str(folder.parent) not in (folder / "evaluation_record.json").read_text(), "no place on this machine is told"


def test_the_results_file_goes_up_with_the_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated(folder, "--benchmark", "sums.jsonl=org/sums:addition")
    sent: dict[str, Any] = {}
    monkeypatch.setattr(HfApi, "create_repo", lambda self, *args, **kwargs: None)
    monkeypatch.setattr(HfApi, "create_commit", lambda self, **kwargs: sent.update(kwargs))
    upload(describe(folder, "org/name"))
    files = {operation.path_in_repo: operation for operation in sent["operations"]}
    with files[".eval_results/org_sums_addition.yaml"].as_file() as file:
        (entry,) = parse_eval_result_entries(yaml.safe_load(file.read()))
    assert (entry.dataset_id, entry.task_id) == ("org/sums", "addition")
    assert {"evaluation_record.json", "README.md", "model.safetensors"} <= set(files)


def test_without_a_benchmark_there_is_no_results_file(folder: Path) -> None:
    evaluated(folder)
    published = describe(folder, "org/name")
    assert "## Evaluation of whole replies" in published.card and not published.replaced


def test_figures_of_other_weights_are_not_told(folder: Path, tiny_model: NeuralLibForCausalLM) -> None:
    evaluated(folder, "--benchmark", "sums.jsonl=org/sums")
    tiny_model.computer.offsets.data += 1
    tiny_model.save_pretrained(folder)
    published = describe(folder, "org/name")
    assert "Evaluation of whole replies" not in published.card and "model-index" not in published.card
    assert not published.replaced


def test_an_adapters_card_has_them_too(folder: Path) -> None:
    record = {"tasks": evaluated(folder)}
    config = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "revision": "c" * 40}
    card = adapter_card("org/adapter", config, evaluation=record)
    assert "| sums.jsonl | 5 |" in card.content
    found = {(each.dataset_name, each.metric_type) for each in ModelCard(card.content).data.eval_results}
    assert {("sums.jsonl", "exact_match"), ("talk.jsonl", "quiet")} <= found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--card",), "give that folder with --model"),
        (("--card", "-m", "out"), "out is no folder of a model or an adapter"),
        (("--benchmark", "sums.jsonl=org/sums"), "give --card too"),
        (("--card", "-m", "model", "--benchmark", "sums.jsonl=sums"), "given as TASK=org/name:task_id, found"),
        (("--card", "-m", "model", "--benchmark", "sum.jsonl=org/sums"), "'sum.jsonl' is none of the tasks: sums.jsonl"),
    ],
)
def test_what_cannot_be_left_is_said_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(folder.parent)
    done = call("-t", "sums.jsonl", *words)
    assert done.exit_code == 1 and message in done.stderr and done.stderr.count("\n") == 1
    assert not Path("evaluation").exists(), "nothing was asked"
