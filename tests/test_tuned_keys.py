"""Keys that were tuned travel with their library: saved, validated, loaded by the heads that they are for, and told in its card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from neurallib.modeling_neurallib import library_files
from neurallib.modeling_neurallib.compiler.compiling import compile_source
from neurallib.modeling_neurallib.library_records import TunedKeys
from typer.testing import CliRunner

from neurallib import LibraryError, NeuralLibForCausalLM, NeuralLibrary, NeuralLibTrainer, NeuralLibTrainingArguments
from neurallib.command_line import app

SOURCE = '''
def shout(text: str) -> str:
    """Louder."""
    return text + "!"

def whisper(text: str) -> str:
    """Quieter."""
    return "(" + text + ")"
'''
ROWS = [{"prompt": "shout hello", "completion": "hello!"}, {"prompt": "whisper hello", "completion": "(hello)"}]


@pytest.fixture(scope="module")
def voices() -> NeuralLibrary:
    return compile_source(SOURCE, name="voices")


@pytest.fixture
def home(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path) -> Path:
    """A saved model without the library ``voices``."""
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def tuned(home: Path, voices: NeuralLibrary, tokenizer: Any) -> tuple[NeuralLibrary, torch.Tensor]:
    """The library after its keys alone were tuned on the model, and the offsets that they came to."""
    model = NeuralLibForCausalLM.from_pretrained(home)
    model.load_library(voices, tokenizer=tokenizer)
    model.config.name_or_path, model.config._commit_hash = "org/base", "c" * 40
    arguments = NeuralLibTrainingArguments(
        str(home.parent / "run"), train="library_keys", tuned_programs=["shout", "whisper"], max_steps=3, learning_rate=0.1,
        report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no", sample_size=0,
    )  # fmt: skip
    NeuralLibTrainer(model, arguments, train_dataset=ROWS, processing_class=tokenizer).train()
    offsets = model.computer.offsets.detach().clone()
    assert not offsets[:4].any() and offsets[4:].any(1).all()
    return model.tuned_library("voices"), offsets[4:]


def test_tuned_keys_travel_with_the_library(
    home: Path, voices: NeuralLibrary, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    library, offsets = tuned(home, voices, tiny_tokenizer)
    assert library.fingerprint != voices.fingerprint and library.origins == voices.origins, "its sources are still there"
    library.save_pretrained(tmp_path / "voices")
    loaded = NeuralLibrary.from_pretrained(tmp_path / "voices")
    assert loaded.fingerprint == library.fingerprint
    model = NeuralLibForCausalLM.from_pretrained(home)
    model.load_library(loaded, tokenizer=tiny_tokenizer)
    assert torch.equal(model.computer.offsets[4:], offsets) and not model.computer.offsets[:4].any()
    model.save_pretrained(tmp_path / "with")  # a model has them as its own, and of its library no others
    again = NeuralLibForCausalLM.from_pretrained(tmp_path / "with")
    assert torch.equal(again.computer.offsets[4:], offsets) and "keys" not in again.config.library
    other = NeuralLibForCausalLM.from_pretrained(home)
    other.computer.selector.query.weight.data += 1e-3
    other.load_library(loaded, tokenizer=tiny_tokenizer)
    assert not other.computer.offsets.any(), "for other heads they mean nothing"
    other.computer.offsets.data += 1
    both = other.tuned_library("voices")
    assert [keys.base for keys in both.keys] == ["org/base", ""] and np.array_equal(both.keys[0].offsets, offsets)
    assert len(model.tuned_library("voices").keys) == 1, "anew for the same heads"


def test_the_card_names_the_models_that_keys_were_tuned_for(
    home: Path, voices: NeuralLibrary, tiny_tokenizer: Any
) -> None:
    library, _ = tuned(home, voices, tiny_tokenizer)
    card = library.card("org/voices")
    row = next(line for line in card.splitlines() if line.startswith("| org/base |"))
    assert f"<code>{'c' * 40}</code>" in row and library.keys[0].heads in row
    hostile = replace(library, keys=(replace(library.keys[0], base="<b>|x", revision=""),)).card()
    assert "| &#60;b&#62;&#124;x | – |" in hostile
    assert "tuned" not in voices.card("org/voices")
    library.save_pretrained(home.parent / "voices")
    shown, told = (
        CliRunner().invoke(app, ["inspect", str(home.parent / "voices"), *more]).stdout for more in ([], ["--json"])
    )
    assert f"keys tuned for org/base at {'c' * 40}, heads {library.keys[0].heads}" in shown
    assert json.loads(told)["keys"] == [{"base": "org/base", "revision": "c" * 40, "heads": library.keys[0].heads}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offsets": np.zeros((3, 8), np.float32)}, r"there must be floats \[2, ·\], found \[3, 8\]"),
        ({"offsets": np.zeros((2, 8), np.int64)}, r"there must be floats"),
        ({"offsets": np.full((2, 8), np.nan, np.float32)}, "must be finite numbers of at most 1000"),
        ({"offsets": np.full((2, 8), -2e3, np.float32)}, "must be finite numbers of at most 1000"),
        ({"base": "x" * 1_000}, "base, revision and heads must be short texts"),
    ],
)
def test_keys_of_strangers_are_validated(voices: NeuralLibrary, changes: dict[str, Any], message: str) -> None:
    keys = TunedKeys("org/base", "", "f" * 64, np.zeros((2, 8), np.float32))
    with pytest.raises(LibraryError, match=message):
        replace(voices, keys=(replace(keys, **changes),))


def test_keys_without_their_numbers_are_refused(voices: NeuralLibrary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = TunedKeys("org/base", "", "f" * 64, np.zeros((2, 8), np.float32))
    library = replace(voices, keys=(keys,))
    monkeypatch.setattr(library_files, "_key_tensors", lambda library: {})
    library.save_pretrained(tmp_path)
    with pytest.raises(LibraryError, match=r"tensor 'keys.0' is missing"):
        NeuralLibrary.from_pretrained(tmp_path)


def test_keys_of_another_width_are_left_alone(
    tiny_model: NeuralLibForCausalLM, voices: NeuralLibrary, tiny_tokenizer: Any
) -> None:
    tiny_model.load_library(voices, tokenizer=tiny_tokenizer)
    heads = tiny_model.tuned_library("voices").keys[0].heads
    tiny_model.delete_library("voices")
    keys = TunedKeys("", "", heads, np.ones((2, 5), np.float32))
    tiny_model.load_library(replace(voices, keys=(keys,)), tokenizer=tiny_tokenizer)
    assert not tiny_model.computer.offsets.any()
