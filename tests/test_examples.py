"""The examples, run as they stand on a tiny model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY_HEADS, make_base, opened
from safetensors.torch import load_file

from neurallib import NeuralLibForCausalLM, NeuralLibrary

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str, *arguments: str | Path, home: Path) -> str:
    """What an example prints."""
    command = [sys.executable, EXAMPLES / f"{name}.py", *map(str, arguments)]
    environment = {**os.environ, "HF_HOME": str(home / "home"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any, tiny_library: NeuralLibrary) -> Path:
    """A tiny model that calls something wherever it can, saved with its tokenizer."""
    import torch

    torch.manual_seed(1)
    base = make_base(tiny_tokenizer)
    model = NeuralLibForCausalLM.from_llama(base, library=tiny_library, tokenizer=tiny_tokenizer, heads=TINY_HEADS)
    model.computer.reader.scores.weight.data.normal_()
    place = tmp_path_factory.mktemp("model")
    opened(model).save_pretrained(place)
    tiny_tokenizer.save_pretrained(place)
    return place


def test_there_are_at_most_four_and_they_are_short() -> None:
    scripts = sorted(EXAMPLES.glob("*.py"))
    tested = {"add_a_library.py", "compile_and_share.py", "fine_tune.py", "look_inside.py"}
    assert {path.name for path in scripts} == tested
    assert all(len(path.read_text().splitlines()) <= 60 for path in scripts)


def test_compile_and_share_then_add_a_library(folder: Path, tmp_path: Path) -> None:
    text = example("compile_and_share", tmp_path / "library", home=tmp_path)
    assert text.startswith("LLM 35\n") and "initials, digit_sum" in text
    library = NeuralLibrary.from_pretrained(tmp_path / "library")
    assert library.fingerprint in text and library.run("initials", "of a thing") == "OAT"
    told = example("add_a_library", folder, tmp_path / "library", "The initials of one two three?", home=tmp_path)
    assert "libraries: tiny_programs, my_algorithms" in told
    assert "called " in told and "my_algorithms" in told and "without any program: " in told


def test_fine_tune(folder: Path, tmp_path: Path) -> None:
    text = example("fine_tune", folder, tmp_path / "tuned", "--rows", "16", "--epochs", "1", home=tmp_path)
    assert "[" in text.splitlines()[-1]
    before, after = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "tuned"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed and all(".computer." in name for name in changed), "the heads learn, the backbone stays"


def test_look_inside(folder: Path, tmp_path: Path) -> None:
    text = example("look_inside", tmp_path / "page.html", "Reverse 1 2 3", "--model", folder, home=tmp_path)
    assert "no call 0.000" in text and "step 1:" in text
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Reverse 1 2 3" in page and page.endswith("</html>\n")
