"""The command line: what it prints for people and for machines; whatever goes wrong is one line and an exit code."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import TINY_PROGRAMS, make_base, opened
from neurallib.trainer import runs, shipping
from typer.testing import CliRunner

from neurallib import command_line, standard_library
from neurallib.command_line import app, explain, shown

if TYPE_CHECKING:
    from click.testing import Result

    from neurallib import NeuralLibForCausalLM, NeuralLibrary

PROMPT = "Add 1, 2"


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def printed(*arguments: str | Path) -> str:
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def complaint(*arguments: str | Path, code: int = 1) -> str:
    """The one line that a failing command prints."""
    result = call(*arguments)
    assert result.exit_code == code, (result.output, result.exception)
    assert result.stdout == ""
    assert isinstance(result.exception, SystemExit | type(None))
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("neurallib: ")
    return lines[0]


@pytest.fixture(scope="module")
def library_folder(tmp_path_factory: pytest.TempPathFactory, tiny_library: NeuralLibrary) -> Path:
    folder = tmp_path_factory.mktemp("library")
    tiny_library.save_pretrained(folder)
    return folder


@pytest.fixture
def asked(
    tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> NeuralLibForCausalLM:
    """The tiny model, its gate open, in the place of the one that ships."""
    monkeypatch.setattr(command_line, "_language_model", lambda source: (opened(tiny_model), tiny_tokenizer))
    return tiny_model


# Real processes


def test_help_is_quick_and_names_every_command() -> None:
    script = "import sys, time; t = time.perf_counter(); from neurallib.command_line import app\n"
    script += "try: app(['--help'])\nexcept SystemExit: pass\n"
    script += "print(time.perf_counter() - t, 'torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    *lines, last = done.stdout.splitlines()
    for command in ("ask", "run", "compile", "inspect", "assemble", "train"):
        assert any(f" {command} " in line for line in lines)
    seconds, *heavy = last.split()
    assert heavy == ["False", "False"]
    # 0.3 s alone on a core; machines that run tests are busy.
    assert float(seconds) < 2


def test_the_installed_command_runs_a_program_and_reports_an_error(library_folder: Path) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        command = [Path(sys.executable).with_name("neurallib"), "run", *arguments, "--library", library_folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    assert run("add", "-5", "12") == (0, "7\n", "")
    assert run("ad", "1", "2") == (
        1,
        "",
        "neurallib: library 'tiny_programs' has no program 'ad'; did you mean 'add'?\n",
    )


def test_a_hub_that_cannot_be_reached_is_asked_once(tmp_path: Path) -> None:
    # A port of this machine on which nothing listens stands for a network that refuses.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    kept = {name: value for name, value in os.environ.items() if not name.lower().startswith(("hf_", "no_proxy"))}
    proxies = {name: nowhere for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")}
    command = [Path(sys.executable).with_name("neurallib"), "ask", "--model", "org/name", PROMPT]
    began = time.perf_counter()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=kept | proxies | {"HF_HOME": str(tmp_path)},
    )
    seconds = time.perf_counter() - began
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("neurallib: the model org/name cannot be loaded: ") and done.stderr.count("\n") == 1
    assert "the Hub does not answer" in done.stderr
    # Retries wait for 31 s; without them it takes 2 s, on a busy machine several times that.
    assert seconds < 25


# run, compile, inspect


def test_run_prints_the_result_alone() -> None:
    assert printed("run", "reverse", "desserts", "--library", TINY_PROGRAMS) == "stressed\n"


def test_run_of_the_standard_library() -> None:
    assert printed("run", "multiply", "123", "45") == "5535\n"


def test_an_error_of_the_domain_is_a_result() -> None:
    assert printed("run", "divide", "1", "0") == "division by zero\n"


def test_run_as_json(library_folder: Path) -> None:
    record = json.loads(printed("run", "reverse", "ab", "--library", library_folder, "--json", "--trace"))
    assert record["result"] == "ba" and record["engine"] == "exact" and record["library"] == "tiny_programs"
    assert len(record["trace"]) == record["steps"]
    assert record["trace"][0]["function"] == "entry of reverse" and record["trace"][-1]["instruction"] == "halt"


def test_run_with_a_trace_shows_every_instruction(library_folder: Path) -> None:
    text = printed("run", "reverse", "ab", "--library", library_folder, "--trace")
    assert "entry of reverse" in text and "memory[" in text and text.endswith("ba\n")


@pytest.mark.parametrize(("arguments", "expected"), [
    (("add", "12", "30"), "42"), (("subtract", "5", "12"), "-7"), (("compare", "5", "7"), "less"),
    (("maximum", "3 9 4"), "9"), (("reverse_text", "hello"), "olleh"),
])  # fmt: skip
def test_the_dense_engine_gives_the_same_result(arguments: tuple[str, ...], expected: str) -> None:
    exact, dense = (json.loads(printed("run", *arguments, "--engine", each, "--json")) for each in ("exact", "dense"))
    assert dense["result"] == exact["result"] == expected
    assert dense["steps"] == exact["steps"] and dense["engine"] == "dense"


def test_a_dense_machine_is_as_small_as_it_can_be() -> None:
    library = standard_library()

    def shape(program: str, *arguments: str) -> tuple[int, int]:
        config = command_line._dense_shape(library.extract([program]), program, list(arguments))
        return config.values, config.memory

    assert shape("reverse_text", "ab") == (128, 32)
    assert shape("add", "2", "3") == (128, 64)
    assert shape("add", "1" * 12, "2" * 12) == (128, 128)
    # Letters are constants that need more values; so are characters that are no ASCII.
    assert shape("add", "x", "3")[0] == 256
    assert shape("reverse_text", "é")[0] == 256


def test_what_no_dense_machine_can_run(library_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(*arguments: str | Path) -> str:
        line = complaint("run", *arguments, "--engine", "dense")
        assert "at most 256 values" in line and "use --engine exact" in line
        return line

    assert "300 characters" in refusal("reverse", "x" * 300, "--library", library_folder)
    assert "constants that need 32,768 values" in refusal("evaluate", "2 + 3")
    assert "overflow" in refusal("fibonacci", "200")
    monkeypatch.setattr(command_line, "DENSE_INSTRUCTIONS", 50)
    assert "more than 50" in refusal("add", "1", "2")
    # What fails on every machine is not blamed on the dense one.
    (tmp_path / "wrong.py").write_text("def wrong(text: str) -> str:\n    return text[5]\n")
    line = complaint("run", "wrong", "ab", "--library", tmp_path / "wrong.py", "--engine", "dense")
    assert "wrong was stopped after" in line


def test_compile_then_inspect(tmp_path: Path) -> None:
    text = printed("compile", TINY_PROGRAMS, "--output", tmp_path / "library", "--name", "tiny")
    assert "tiny: 4 programs" in text and "Twice an integer." in text
    assert {path.name for path in (tmp_path / "library").iterdir()} == {
        "README.md",
        "library.safetensors",
        "library_config.json",
    }
    listed = json.loads(printed("inspect", tmp_path / "library", "--json"))
    assert [program["name"] for program in listed["programs"]] == ["add", "double", "reverse", "count"]
    assert "reverse(text: str) -> str" in printed("inspect", tmp_path / "library")
    shown_program = printed("inspect", tmp_path / "library", "double")
    assert "return number + number" in shown_program and "halt" in shown_program
    assert "halt" in json.loads(printed("inspect", tmp_path / "library", "double", "--json"))["disassembly"]


def test_a_library_takes_the_place_of_one_and_of_nothing_else(tmp_path: Path, library_folder: Path) -> None:
    model, notes = tmp_path / "model", tmp_path / "notes"
    for name, folder in (("config.json", model), ("README.md", model), ("README.md", notes)):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    for folder in (model, notes):
        refused = complaint("compile", TINY_PROGRAMS, "--output", folder)
        assert "README.md" in refused and "choose another --output" in refused
        assert (folder / "README.md").read_text() == "mine" and not (folder / "library_config.json").exists()
    assert "is no folder" in complaint("compile", TINY_PROGRAMS, "--output", model / "config.json")
    (tmp_path / "fresh" / ".git").mkdir(parents=True)
    for _ in range(2):
        printed("compile", TINY_PROGRAMS, "--output", tmp_path / "fresh")
    assert (tmp_path / "fresh" / "README.md").is_file()


def test_training_is_told_in_a_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured = {"exact": 0.95, "programs": {"add": 1.0}}
    report = {"training": measured, "validation": measured | {"quiet": 1.0}, "recipe": {"output": "runs/x", "seed": 7}}
    monkeypatch.setattr(runs, "train", lambda *_: report)
    said = printed("train", tmp_path / "recipe.yaml")
    assert "exact" in said and "0.95" in said and "written to runs/x" in said and "seed" not in said
    assert json.loads(printed("train", tmp_path / "recipe.yaml", "--json")) == report


# ask


def test_ask_prints_the_answer(asked: Any, tiny_tokenizer: Any) -> None:
    assert printed("ask", PROMPT, "--max-new-tokens", "6").count("\n") == 1


def test_ask_with_a_trace_shows_calls_as_they_were_read(asked: Any) -> None:
    text = printed("ask", PROMPT, "--trace", "--max-new-tokens", "6")
    assert PROMPT in text
    for heading in ("program", "arguments as read", "result", "steps", "time"):
        assert heading in text
    assert "tiny_programs: " in text


def test_ask_as_json_has_calls_and_the_base_answer(
    asked: Any, tiny_base: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "load_base", lambda base: (make_base(tiny_tokenizer), tiny_tokenizer))
    record = json.loads(printed("ask", PROMPT, "--json", "--compare", "--max-new-tokens", "6"))
    assert record["prompt"] == PROMPT and record["calls"][0]["library"] == "tiny_programs"
    messages = [{"role": "user", "content": PROMPT}]
    inputs = tiny_tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = tiny_base.generate(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=6, do_sample=False
    )
    alone = tiny_tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert record["base_answer"] == alone.strip()
    # The comparison leaves the model as it was.
    assert asked.config.disabled_programs is None


def test_several_prompts_are_several_lines_of_json(asked: Any) -> None:
    lines = printed("ask", "Add 3, 4", PROMPT, "--json", "--max-new-tokens", "2").splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == ["Add 3, 4", PROMPT]


def test_ask_calls_another_library_too(asked: Any, tmp_path: Path) -> None:
    (tmp_path / "more.py").write_text('def shout(text: str) -> str:\n    """Louder."""\n    return text + "!"\n')
    printed("ask", PROMPT, "--library", tmp_path / "more.py", "--max-new-tokens", "2")
    assert asked.computer.programs == ["add", "double", "reverse", "count", "shout"]


def test_prompts_that_cannot_be_answered(asked: Any) -> None:
    assert "the prompt is empty" in complaint("ask", "  ")
    assert "the prompt is not UTF-8" in complaint("ask", os.fsdecode(b"caf\xe9"))
    assert "the model's context holds 512" in complaint("ask", "1 2 3 4 5 6 7 8 9 " * 40)


def test_a_page_that_cannot_be_written_is_said_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_line, "_language_model", lambda source: pytest.fail("the model was loaded"))
    assert "is no folder" in complaint("ask", PROMPT, "--explain", tmp_path / "none" / "x.html")
    assert f"{tmp_path} cannot be written" in complaint("ask", PROMPT, "--explain", tmp_path)
    command_line._check_page(tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


# assemble


def test_assemble_then_ask(tmp_path: Path, tiny_base: Any, tiny_tokenizer: Any) -> None:
    base, output = tmp_path / "base", tmp_path / "model"
    tiny_base.save_pretrained(base)
    tiny_tokenizer.save_pretrained(base)
    record = json.loads(printed("assemble", "--base", base, "--library", TINY_PROGRAMS, "--output", output, "--json"))
    assert record["programs"] == ["add", "double", "reverse", "count"]
    assert {"README.md", "config.json", "model.safetensors", "modeling_neurallib.py", "tokenizer.json"} <= set(
        record["files"]
    )
    # Nothing is left beside it, and nothing of this machine is in it.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "model"]
    for path in output.glob("*.json"):
        assert str(tmp_path) not in path.read_text()
    assert "untrained" in (output / "README.md").read_text()
    # Untrained, so it answers as its base does.
    answer = json.loads(printed("ask", PROMPT, "--model", output, "--compare", "--json", "--max-new-tokens", "6"))
    assert answer["calls"] == [] and answer["answer"] == answer["base_answer"]
    assert "exists already" in complaint("assemble", "--base", base, "--output", output)
    assert "without a computer" in complaint("ask", PROMPT, "--model", base)


def test_an_interrupted_assembly_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Any
) -> None:
    class Broken:
        def save_pretrained(self, folder: Path) -> None:
            raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(command_line, "_assembled", lambda *_: (tiny_model, Broken()))
    said = complaint("assemble", "--base", "x", "--output", tmp_path / "model")
    assert said == f"neurallib: {tmp_path / 'model'} cannot be written: No space left on device"
    assert list(tmp_path.iterdir()) == []


def test_bases_that_cannot_be_used(tmp_path: Path) -> None:
    output = tmp_path / "model"
    assert "cannot be loaded" in complaint("assemble", "--base", "no/such-model", "--output", output)
    assert "cannot be loaded" in complaint("assemble", "--base", tmp_path / "no.gguf", "--output", output)
    assert "there is no folder" in complaint("assemble", "--base", tmp_path / "nowhere", "--output", output)
    source = tmp_path / "programs.py"
    source.write_text("")
    assert f"{source} is a file; a model is a folder" in complaint("assemble", "--base", source, "--output", output)
    assert f"{source} is a file; a model is a folder" in complaint("ask", PROMPT, "--model", source)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "no-such-type"}')
    assert "cannot be loaded" in complaint("assemble", "--base", tmp_path / "other", "--output", output)
    assert not output.exists()


# Everything else that goes wrong


def test_wrong_input_is_one_line(tmp_path: Path, library_folder: Path) -> None:
    assert "takes 2 arguments (first, second), found 1" in complaint("run", "add", "1", "--library", library_folder)
    assert "/none" in complaint("run", "add", "1", "2", "--library", tmp_path / "none")
    assert "is no file" in complaint("run", "add", "1", "2", "--library", "none.py")
    assert "is no file" in complaint("compile", "none.py", "--output", tmp_path / "out")
    assert "recipe" in complaint("train", tmp_path / "none.yaml")
    assert "cannot be loaded" in complaint("ask", PROMPT, "--model", tmp_path / "none")
    assert not (tmp_path / "out").exists()


def test_a_library_cut_short_is_one_line(tmp_path: Path, tiny_library: Any) -> None:
    tiny_library.save_pretrained(tmp_path)
    tensors = tmp_path / "library.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:100])
    assert "library.safetensors" in complaint("inspect", tmp_path)


def test_a_compile_error_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def f(x: int) -> int:\n    return {x: 1}[x]\n")
    assert "bad.py:2: " in complaint("compile", tmp_path / "bad.py", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_fault_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(
        "def endless(text: str) -> str:\n    while True:\n        text = text\n    return text\n"
    )
    line = complaint("run", "endless", "x", "--library", tmp_path / "endless.py")
    assert "endless was stopped after" in line
    (tmp_path / "large.py").write_text("def large(size: int) -> int:\n    return len([0] * size)\n")
    assert "asks at once for more memory" in complaint("run", "large", "70000", "--library", tmp_path / "large.py")


def test_wrong_usage_exits_with_2() -> None:
    for arguments in (["run", "add", "1", "2", "--engine", "quick"], ["shout"], ["compile"], ["ask"]):
        assert call(*arguments).exit_code == 2


def test_errors_that_are_explained() -> None:
    assert explain(ModuleNotFoundError("No module named 'peft'", name="peft")) == (
        "the package peft is not installed; pip install 'neurallib[train]'"
    )
    assert explain(FileNotFoundError(2, "No such file or directory", "x.yaml")) == "x.yaml: No such file or directory"
    # A mistake of ours is not dressed up as one of the user's.
    assert explain(ValueError("bug")) is None and explain(KeyError("bug")) is None
    assert explain(ModuleNotFoundError("No module named 'neurallib.x'", name="neurallib.x")) is None


def test_a_strangers_text_cannot_steer_the_terminal() -> None:
    assert shown("a\x1b[2Jb\nc\u202ed") == "a\\x1b[2Jb\\nc\\u202ed"
    assert shown("a\nb", lines=True) == "a\nb"
