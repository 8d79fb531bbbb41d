"""Where a model comes from: bases in folders and on the Hub, and the commit that is remembered of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import TINY_HEADS
from neurallib.modeling_neurallib import modeling_neurallib
from neurallib.modeling_neurallib.sharing import base_revision, commit_of
from transformers import AutoModelForCausalLM

from neurallib import NeuralLibForCausalLM

COMMITS = ("a" * 40, "b" * 40)


def test_a_base_in_a_folder(tiny_base: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    """A path is no string, and with ``subfolder`` the tokenizer lies beside the weights."""
    tiny_base.save_pretrained(tmp_path / "inner")
    tiny_tokenizer.save_pretrained(tmp_path / "inner")
    model = NeuralLibForCausalLM.from_llama(tmp_path / "inner", heads=TINY_HEADS)
    assert model.config.name_or_path == str(tmp_path / "inner")
    again = NeuralLibForCausalLM.from_llama(tmp_path, heads=TINY_HEADS, subfolder="inner")
    assert again.computer.table.characters([5, 6, 7]).text() == model.computer.table.characters([5, 6, 7]).text()


def test_the_tokenizer_comes_from_where_the_base_comes_from(
    tiny_base: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: dict[str, dict[str, Any]] = {}

    def told(name: str, found: Any) -> Any:
        def from_pretrained(source: str, **kwargs: Any) -> Any:
            heard[name] = kwargs
            return found

        return from_pretrained

    monkeypatch.setattr(modeling_neurallib.AutoTokenizer, "from_pretrained", told("tokenizer", tiny_tokenizer))
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", told("model", tiny_base))
    where = {"token": "hf_mine", "revision": "v1", "cache_dir": "here", "local_files_only": True, "subfolder": "inner"}
    NeuralLibForCausalLM.from_llama("org/gated", heads=TINY_HEADS, attn_implementation="eager", **where)
    assert heard["tokenizer"] == where, "and not what is the model's alone"
    assert heard["model"].items() >= {**where, "attn_implementation": "eager"}.items()


@pytest.fixture
def cache(tiny_model: NeuralLibForCausalLM, tmp_path: Path) -> Path:
    """The client's cache of org/base: one model at its top at one commit, one in a subfolder at another."""
    folder = tmp_path / "models--org--base"
    for commit, inside, branch in zip(COMMITS, (".", "inner"), ("main", "nested"), strict=True):
        tiny_model.save_pretrained(folder / "snapshots" / commit / inside)
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / branch).write_text(commit)
    return tmp_path


def test_the_commit_of_a_model_in_a_subfolder(cache: Path) -> None:
    assert commit_of("org/base", cache=cache) == COMMITS[0]
    assert commit_of("org/base", "nested", cache) is None
    assert commit_of("org/base", "nested", cache, "inner") == COMMITS[1]
    found = NeuralLibForCausalLM.from_pretrained("org/base", revision="nested", cache_dir=cache, subfolder="inner")
    assert base_revision(found.config) == COMMITS[1]


def test_a_commit_that_is_not_found_is_said(
    cache: Path, tiny_model: NeuralLibForCausalLM, caplog: pytest.LogCaptureFixture
) -> None:
    top = cache / "models--org--base" / "snapshots" / COMMITS[0]
    config = tiny_model.config
    (top / "config.json").unlink()
    NeuralLibForCausalLM.from_pretrained("org/base", config=config, cache_dir=cache)
    assert "the commit at which org/base was loaded is not known" in caplog.text
    caplog.clear()
    config._commit_hash = COMMITS[0]
    known = NeuralLibForCausalLM.from_pretrained("org/base", config=config, cache_dir=cache)
    assert base_revision(known.config) == COMMITS[0], "what was known stays"
    assert caplog.text == ""
