"""What is checked before a folder is published, and how a library is shown: no network, no pickles, no tricks."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import opened
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
from neurallib.modeling_neurallib.compiler.compiling import compile_source
from neurallib.trainer import publishing
from neurallib.trainer.publishing import PublishError, prepare
from neurallib.trainer.record import write_record
from typer.testing import CliRunner

from neurallib import LibraryError, NeuralLibTrainer, NeuralLibTrainingArguments, TrainingArgumentsError
from neurallib.command_line import app


@pytest.fixture
def library_folder(tmp_path: Path, tiny_library: Any) -> Path:
    tiny_library.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def model_folder(tmp_path: Path, tiny_model: Any, tiny_tokenizer: Any) -> Path:
    opened(tiny_model).save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def half(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])


def linked_file(folder: Path) -> None:
    (folder / "notes.txt").symlink_to(folder / "config.json")


MODELS: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "pickled weights",
        lambda f: (f / "pytorch_model.bin").write_bytes(pickle.dumps({})),
        "pytorch_model.bin is a pickle",
    ),
    ("pickle in a folder", lambda f: ((f / "a").mkdir(), (f / "a" / "b.pkl").write_bytes(b"")), "a/b.pkl is a pickle"),
    ("a kind unknown", lambda f: (f / "run.sh").write_text("rm"), "run.sh is of no kind"),
    ("a link", linked_file, "notes.txt is a link"),
    ("weights cut short", lambda f: half(f, "model.safetensors"), "model.safetensors is cut short or corrupt"),
    ("tokenizer cut short", lambda f: half(f, "tokenizer.json"), "tokenizer.json is not JSON"),
    ("no tokenizer", lambda f: (f / "tokenizer_config.json").unlink(), "tokenizer_config.json is missing"),
    ("no code", lambda f: (f / "modeling_neurallib.py").unlink(), "modeling_neurallib.py is missing"),
    ("no weights", lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
    ("a plain Llama", lambda f: (f / "config.json").write_text('{"model_type": "llama"}'), "of type 'llama'"),
    ("a card with a bad head", lambda f: (f / "README.md").write_text("---\n[\n---\n"), "front matter"),
]


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in MODELS], ids=[case[0] for case in MODELS])
def test_models_that_are_refused(model_folder: Path, change: Callable[[Path], object], message: str) -> None:
    change(model_folder)
    result = CliRunner().invoke(app, ["publish", str(model_folder), "org/name", "--dry-run"])
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.startswith("neurallib: ") and result.stderr.count("\n") == 1 and message in result.stderr


def test_folders_and_names_that_are_refused(tmp_path: Path, library_folder: Path) -> None:
    for folder, name, message in (
        (tmp_path / "none", "org/name", "there is no folder"),
        (tmp_path, "org/name", "neither a library"),
        (library_folder, "name", "give org/name"),
        (library_folder, "a/b/c", "a/b/c"),
        (library_folder, "../x/y", "y"),
    ):
        with pytest.raises(PublishError, match=message):
            prepare(folder, name)
    (library_folder / "more.txt").write_text("")
    with pytest.raises(PublishError, match=r"is a library, but holds more.txt too"):
        prepare(library_folder, "org/name")
    (library_folder / "more.txt").unlink()
    half(library_folder, "library_config.json")
    with pytest.raises(PublishError, match=r"library_config.json is not JSON"):
        prepare(library_folder, "org/name")


def test_a_library_that_is_no_library_is_refused(library_folder: Path) -> None:
    config = json.loads((library_folder / "library_config.json").read_text())
    config["programs"][0]["entry"] = 10**9
    (library_folder / "library_config.json").write_text(json.dumps(config))
    with pytest.raises(LibraryError, match="outside the code"):
        prepare(library_folder, "org/name")


def test_an_interruption_while_a_folder_is_checked_is_one_line(
    library_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(publishing, "sha256", interrupted)
    done = CliRunner().invoke(app, ["publish", str(library_folder), "org/name"])
    assert (done.exit_code, done.stdout) == (130, "") and done.stderr.count("\n") == 1
    assert done.stderr.startswith("neurallib: interrupted; org/name is as it was")


def test_checkpoints_stay_at_home(tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    arguments = NeuralLibTrainingArguments(
        str(tmp_path), push_to_hub=True, hub_strategy="checkpoint", use_cpu=True, report_to=[]
    )
    rows = [{"prompt": "Add 12 and 30", "completion": "42"}]
    with pytest.raises(TrainingArgumentsError, match=r"is a pickle .*: choose 'every_save'"):
        NeuralLibTrainer(tiny_model, arguments, None, rows, None, tiny_tokenizer)


def test_evaluation_results_are_those_of_the_hub(model_folder: Path) -> None:
    results = model_folder / ".eval_results"
    results.mkdir()
    entries = [EvalResultEntry(dataset_id="org/sums", task_id="default", value=0.9)]
    (results / "sums.yaml").write_text(yaml.dump(eval_result_entries_to_yaml(entries)))
    assert ".eval_results/sums.yaml" in prepare(model_folder, "org/name").files
    (results / "sums.yaml").write_text("- value: 0.9\n")
    with pytest.raises(PublishError, match=r"sums.yaml holds no evaluation results"):
        prepare(model_folder, "org/name")


def test_a_record_of_other_weights_is_not_told(model_folder: Path) -> None:
    write_record(model_folder, {"trained": "heads", "supervision": "calls", "steps": 7, "base_model": "org/base"})
    card = prepare(model_folder, "org/name").card
    assert "the heads (selector, reader, writer) were trained with labels of the calls: 7 steps." in card
    assert "base_model: org/base" in card and "base with a computer inside" in card
    record = json.loads((model_folder / "training_record.json").read_text())
    record["weights"]["model.safetensors"] = "0" * 64
    (model_folder / "training_record.json").write_text(json.dumps(record))
    card = prepare(model_folder, "org/name").card
    assert "## Training" not in card and "org/base" not in card


def test_a_card_that_somebody_wrote_is_kept(model_folder: Path) -> None:
    (model_folder / "README.md").write_text(
        '---\nlicense: mit\nbase_model: org/base\n---\n\n# Mine\n\nfrom_pretrained("model")\n'
    )
    first = prepare(model_folder, "org/name").card
    assert "# Mine" in first and 'from_pretrained("org/name")' in first and "license: mit" in first
    (model_folder / "README.md").write_text(first)
    (model_folder / "generation_config.json").unlink()
    second = prepare(model_folder, "org/name", license="apache-2.0").card
    assert second.count("## Files") == 1 and "generation&#95;config" not in second
    assert "license: apache-2.0" in second and "base_model: org/base" in second


def test_the_license_of_a_library_is_kept(library_folder: Path, tiny_library: Any) -> None:
    (library_folder / "README.md").write_text(tiny_library.card(license="mit"))
    publication = prepare(library_folder, "org/name")
    assert "license: mit" in publication.card and 'from_pretrained("org/name")' in publication.card
    assert set(publication.hashes) == {"README.md", "library_config.json", "library.safetensors"}


def test_inspect_shows_source_beside_instructions(library_folder: Path) -> None:
    text = CliRunner().invoke(app, ["inspect", str(library_folder), "double"]).stdout
    row = next(line for line in text.splitlines() if "return number + number" in line)
    assert "r" in row.split("return number + number")[1]
    assert "add " in text and "halt" in text


def test_a_strangers_library_is_shown_as_text(tmp_path: Path) -> None:
    hostile = "def f(a: str) -> str:\n    '''[bold]x[/bold] \x1b[2J <script> | `y`'''\n    return a  # \u202e[red]\n"
    library = compile_source(hostile, name="stranger")
    library.save_pretrained(tmp_path)
    for arguments in ([], ["f"]):
        text = CliRunner().invoke(app, ["inspect", str(tmp_path), *arguments]).stdout
        assert "[bold]x[/bold]" in text and "\x1b" not in text and "\u202e" not in text
    card = library.card("org/stranger")
    assert "<script>" not in card and "\x1b" not in card and "[bold]" not in card
