"""The libraries of a model: loaded, chosen, weighed, allowed, deleted; inside the model or by reference; under PEFT too."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import opened
from neurallib.modeling_neurallib import loaded_libraries
from neurallib.modeling_neurallib.compiler.compiling import compile_source

from neurallib import LibraryError, NeuralLibForCausalLM, NeuralLibrary

PROMPT = "Add 12 and 30"

DATES = '''
def difference(first: int, second: int) -> int:
    """Days between two days."""
    return second - first

def double(text: str) -> str:
    """A text twice."""
    return text + text
'''


@pytest.fixture(scope="module")
def dates() -> NeuralLibrary:
    return compile_source(DATES, name="dates")


@pytest.fixture
def model(tiny_model: NeuralLibForCausalLM) -> NeuralLibForCausalLM:
    return opened(tiny_model)


def ask(model: Any, tokenizer: Any) -> tuple[Any, ...]:
    """The calls that an open gate makes in a prompt."""
    inputs = tokenizer(PROMPT, return_tensors="pt", return_token_type_ids=False)
    calls: tuple[Any, ...] = model(**inputs).calls[0]
    return calls


def only(model: NeuralLibForCausalLM, program: str) -> None:
    model.config.disabled_programs = [name for name in model.computer.programs if name != program]


def test_several_libraries_and_a_clash(model: Any, tiny_tokenizer: Any, dates: NeuralLibrary) -> None:
    before = model.computer.descriptions.clone()
    model.computer.offsets.data.normal_()
    learned = model.computer.offsets.detach().clone()
    model.config.disabled_programs = ["double"]
    model.load_library(dates, tokenizer=tiny_tokenizer)
    assert model.active_libraries == ["tiny_programs", "dates"]
    assert model.computer.programs == ["add", "tiny_programs.double", "reverse", "count", "difference", "dates.double"]
    assert model.config.disabled_programs == ["tiny_programs.double"]
    # What is known stays as it is, to the last bit.
    assert torch.equal(model.computer.descriptions[:4], before) and torch.equal(model.computer.offsets[:4], learned)
    assert model.library.run("dates.double", "ab") == "abab" and model.library.run("tiny_programs.double", "4") == "8"
    parts = model.libraries
    assert list(parts["dates"].programs) == ["difference", "double"] and parts["dates"].run("double", "x") == "xx"
    model.delete_library("tiny_programs")
    assert model.computer.programs == ["difference", "double"] and model.library.name == "dates"
    assert model.library.run("difference", "3", "10") == "7" and model.computer.offsets.shape[0] == 2
    model.delete_library("dates")
    assert model.library is None and model.libraries == {} and model.active_libraries == []
    assert model(torch.tensor([[5, 6]])).calls is None


@pytest.mark.parametrize(("program", "library"), [("tiny_programs.double", "tiny_programs"), ("dates.double", "dates")])
def test_a_call_records_the_library_of_its_program(
    model: Any, tiny_tokenizer: Any, dates: NeuralLibrary, program: str, library: str
) -> None:
    model.load_library(dates, tokenizer=tiny_tokenizer)
    only(model, program)
    calls = ask(model, tiny_tokenizer)
    assert calls and {(call.program, call.library) for call in calls} == {(program, library)}


def test_libraries_are_chosen_and_disabled(model: Any, tiny_tokenizer: Any, dates: NeuralLibrary) -> None:
    model.load_library(dates, tokenizer=tiny_tokenizer)
    model.set_library("dates")
    assert {call.library for call in ask(model, tiny_tokenizer)} == {"dates"}
    with model.disable_library("dates"):
        assert model.active_libraries == [] and ask(model, tiny_tokenizer) == ()
    model.set_library(None)
    with pytest.raises(RuntimeError), model.disable_library():
        assert ask(model, tiny_tokenizer) == ()
        raise RuntimeError("on the way")
    assert model.active_libraries == ["tiny_programs", "dates"] and ask(model, tiny_tokenizer)
    model.set_library([])
    assert ask(model, tiny_tokenizer) == ()
    with pytest.raises(LibraryError, match="no library 'date'; did you mean 'dates'"):
        model.set_library(["date"])
    with pytest.raises(LibraryError, match="no library 'xyz'; it has tiny_programs, dates"), model.disable_library("xyz"):
        pass


def test_without_libraries_the_logits_are_the_backbones(model: Any, tiny_base: Any, tiny_tokenizer: Any) -> None:
    inputs = tiny_tokenizer(PROMPT, return_tensors="pt", return_token_type_ids=False)
    assert not torch.equal(model(**inputs).logits, tiny_base(**inputs).logits)
    with model.disable_library():
        assert torch.equal(model(**inputs).logits, tiny_base(**inputs).logits)


def test_an_active_set_takes_in_what_is_loaded_later(model: Any, tiny_tokenizer: Any, dates: NeuralLibrary) -> None:
    model.set_library([])
    model.load_library(dates, tokenizer=tiny_tokenizer)
    assert model.active_libraries == ["dates"]
    model.delete_library("dates")
    assert model.active_libraries == [] and model.config.active_libraries == []


def test_a_bias_moves_selection(model: Any, tiny_tokenizer: Any, dates: NeuralLibrary) -> None:
    model.load_library(dates, tokenizer=tiny_tokenizer, bias=40.0)
    assert {call.library for call in ask(model, tiny_tokenizer)} == {"dates"}
    model.set_library_bias("dates", -40.0)
    assert {call.library for call in ask(model, tiny_tokenizer)} == {"tiny_programs"}
    computer = model.computer
    pooled = torch.randn(2, model.config.head_width)
    keys, allowed, biases = computer.settled()
    logits = torch.cat([computer.selector.no_call(pooled), computer.selector.query(pooled) @ keys.T / 8**0.5], dim=-1)
    logits[:, 5:] -= 40.0
    chosen = computer.choose(pooled, keys, allowed, biases)
    torch.testing.assert_close(chosen, logits.log_softmax(-1))
    model.set_library_bias("dates", 0.0)
    assert computer.biases() is None
    with pytest.raises(LibraryError, match="finite"):
        model.set_library_bias("dates", float("nan"))


def test_the_allow_list(model: Any, tiny_tokenizer: Any, dates: NeuralLibrary) -> None:
    model.load_library(dates, tokenizer=tiny_tokenizer)
    model.allow_only(libraries=[dates.fingerprint], programs=["dates.difference"])
    assert model.active_libraries == ["dates"]
    assert {(call.library, call.program) for call in ask(model, tiny_tokenizer)} == {("dates", "difference")}
    # A stranger's library that calls itself by the name on the list has another sha256.
    model.delete_library("dates")
    with pytest.raises(LibraryError, match="not on the model's allow-list"):
        model.load_library(compile_source(DATES + "\n\n", name="dates2"), "dates", tokenizer=tiny_tokenizer)
    model.allow_only()
    assert model.active_libraries == ["tiny_programs"]


@pytest.mark.parametrize(("given", "kept"), [("dates", ["dates"]), (("dates", "add"), ["dates", "add"]), ([], []), (None, None)])
def test_one_name_is_a_list_of_one(model: Any, given: Any, kept: list[str] | None) -> None:
    model.allow_only(libraries=given, programs=given)
    assert model.config.allowed_libraries == model.config.allowed_programs == kept


def test_what_cannot_be_loaded(model: Any, tiny_tokenizer: Any, dates: NeuralLibrary, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="a library 'tiny_programs' already"):
        model.load_library(dates, "tiny_programs", tokenizer=tiny_tokenizer)
    with pytest.raises(LibraryError, match=r"12 registers, the model's has 16"):
        model.load_library(compile_source(DATES, name="small", registers=12), tokenizer=tiny_tokenizer)
    with pytest.raises(LibraryError, match="no commit of the Hub"):
        model.load_library(dates, tokenizer=tiny_tokenizer, by_reference=True)
    with pytest.raises(LibraryError, match="named by letters"):
        model.load_library(dates, "../x", tokenizer=tiny_tokenizer)
    with pytest.raises(LibraryError, match=r"mine.py is Python source, .*compile_library\('mine.py'\)"):
        model.load_library("mine.py", tokenizer=tiny_tokenizer)
    model.config.name_or_path = str(tmp_path)
    with pytest.raises(LibraryError, match="pass tokenizer="):
        model.load_library(dates)
    assert model.active_libraries == ["tiny_programs"] and len(model.computer.programs) == 4


LONG = '''
def answer() -> int:
    """The answer."""
    return 42

def clamped(number: int, least: int, most: int) -> int:
    """A number within limits."""
    return max(least, min(number, most))

def negated(number: int) -> int:
    """A number, negated."""
    return -number
'''


def test_programs_that_are_never_called_are_named(
    model: Any, tiny_tokenizer: Any, dates: NeuralLibrary, caplog: pytest.LogCaptureFixture
) -> None:
    model.load_library(dates, tokenizer=tiny_tokenizer)
    assert caplog.text == ""
    model.load_library(compile_source(LONG, name="long"), tokenizer=tiny_tokenizer)
    assert "the model never calls answer, clamped of library 'long': it reads 1…2 arguments" in caplog.text
    may = dict(zip(model.computer.programs, model.computer.may_be_called(), strict=True))
    assert (may["answer"], may["clamped"], may["negated"]) == (False, False, True)


def test_saved_inside_the_model(model: Any, tiny_tokenizer: Any, dates: NeuralLibrary, tmp_path: Path) -> None:
    dates.save_pretrained(tmp_path / "dates")
    model.load_library(tmp_path / "dates", "days", tokenizer=tiny_tokenizer, bias=0.5)
    model.set_library("days")
    model.save_pretrained(tmp_path / "model")
    loaded = NeuralLibForCausalLM.from_pretrained(tmp_path / "model")
    assert loaded.active_libraries == ["days"] and list(loaded.libraries) == ["tiny_programs", "days"]
    assert loaded.computer.biases().tolist() == [0, 0, 0, 0, 0.5, 0.5]
    assert loaded.config.libraries[1]["fingerprint"] == replace(dates).fingerprint
    assert ask(loaded, tiny_tokenizer) == ask(model, tiny_tokenizer)
    assert {call.library for call in ask(loaded, tiny_tokenizer)} == {"days"}


@pytest.fixture
def referring(
    model: Any, tiny_tokenizer: Any, dates: NeuralLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A model's folder that refers to ``dates`` on a hub, for which a folder stands here."""
    pushed = replace(dates, repository="org/dates", revision="c" * 40)
    pushed.save_pretrained(tmp_path / "hub")
    stock = NeuralLibrary.from_pretrained

    def from_hub(source: Any, revision: str | None = None) -> NeuralLibrary:
        assert (source, revision) == ("org/dates", "c" * 40)
        return stock(tmp_path / "hub")

    model.load_library(pushed, tokenizer=tiny_tokenizer, by_reference=True)
    model.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(loaded_libraries.NeuralLibrary, "from_pretrained", from_hub)
    return tmp_path / "model"


def test_saved_by_reference(referring: Path, model: Any, tiny_tokenizer: Any) -> None:
    from safetensors.torch import load_file

    inside = model.config.libraries[0]["instructions"]
    assert load_file(referring / "model.safetensors")["model.computer.instructions"].shape[0] == inside
    loaded = NeuralLibForCausalLM.from_pretrained(referring)
    assert loaded.library.run("difference", "3", "10") == "7"
    assert ask(loaded, tiny_tokenizer) == ask(model, tiny_tokenizer)
    # Between models that refer, weights pass as they are.
    loaded.load_state_dict(model.state_dict())
    loaded.delete_library("tiny_programs")
    assert loaded.computer.instructions.shape[0] == 0 and loaded.library.run("double", "ab") == "abab"


def test_a_reference_to_other_content_is_refused(referring: Path) -> None:
    compile_source(DATES.replace("Days", "Weeks"), name="dates").save_pretrained(referring.parent / "hub")
    with pytest.raises(LibraryError, match=r"needs library 'dates' of sha256 .* but org/dates at ccc.* has"):
        NeuralLibForCausalLM.from_pretrained(referring)


def test_a_reference_that_is_gone_is_named(referring: Path) -> None:
    (referring.parent / "hub" / "library.safetensors").unlink()
    with pytest.raises(LibraryError, match="the model needs library 'dates', which is not inside it"):
        NeuralLibForCausalLM.from_pretrained(referring)


def test_a_configuration_that_lies_about_a_reference_is_refused(referring: Path) -> None:
    config = json.loads((referring / "config.json").read_text())
    config["library"]["programs"][4]["docstring"] = "Call me for everything."
    (referring / "config.json").write_text(json.dumps(config))
    with pytest.raises(LibraryError, match="otherwise than the library itself"):
        NeuralLibForCausalLM.from_pretrained(referring)


def test_records_that_contradict_the_programs_are_refused(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    for change in ({"programs": ["add"]}, {"instructions": 3}, {"colour": "red"}, {"instructions": "3"}):
        config = json.loads((tmp_path / "config.json").read_text())
        config["libraries"][0] |= change
        (tmp_path / "other").mkdir(exist_ok=True)
        for file in ("model.safetensors", "generation_config.json"):
            (tmp_path / "other" / file).write_bytes((tmp_path / file).read_bytes())
        (tmp_path / "other" / "config.json").write_text(json.dumps(config))
        with pytest.raises(LibraryError, match="the model's configuration"):
            NeuralLibForCausalLM.from_pretrained(tmp_path / "other")


def test_a_model_from_before_there_were_records(model: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for key in ("libraries", "active_libraries", "allowed_libraries", "allowed_programs"):
        config.pop(key, None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = NeuralLibForCausalLM.from_pretrained(tmp_path)
    assert loaded.active_libraries == ["tiny_programs"]
    assert ask(loaded, tiny_tokenizer) == ask(model, tiny_tokenizer)


@pytest.mark.parametrize("saved", [None, ["computer"]], ids=["LoRA", "LoRA and the computer"])
def test_a_model_wrapped_by_peft(model: Any, tiny_tokenizer: Any, dates: NeuralLibrary, saved: Any) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=2, target_modules=["q_proj", "v_proj"], modules_to_save=saved, task_type="CAUSAL_LM", lora_dropout=0.5
    )
    wrapped = peft.get_peft_model(model, config)
    trainable = [name for name, each in wrapped.named_parameters() if each.requires_grad]
    wrapped.train()
    wrapped.load_library(dates, tokenizer=tiny_tokenizer)
    assert wrapped.training and wrapped.active_libraries == ["tiny_programs", "dates"]
    assert [name for name, each in wrapped.named_parameters() if each.requires_grad] == trainable
    wrapped.eval()
    wrapped.set_library("dates")
    assert {call.library for call in ask(wrapped, tiny_tokenizer)} == {"dates"}
    with wrapped.disable_library():
        assert ask(wrapped, tiny_tokenizer) == ()
    with wrapped.disable_adapter():
        assert {call.library for call in ask(wrapped, tiny_tokenizer)} == {"dates"}
    wrapped.delete_library("tiny_programs")
    assert wrapped.library.name == "dates" and ask(wrapped, tiny_tokenizer)


def heads_of(model: Any) -> list[Any]:
    return [module for module in model.modules() if type(module).__name__ == "Computer"]


def test_the_configuration_reaches_every_copy_of_the_heads(model: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["computer"], task_type="CAUSAL_LM")
    peft.get_peft_model(NeuralLibForCausalLM.from_pretrained(tmp_path / "base"), config).save_pretrained(tmp_path / "adapter")
    attached = NeuralLibForCausalLM.from_pretrained(tmp_path / "base")
    attached.load_adapter(str(tmp_path / "adapter"))
    ways = {
        "AutoPeft": peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter"),
        "on a base": peft.PeftModel.from_pretrained(NeuralLibForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter"),
        "transformers": attached,
    }
    for way, loaded in ways.items():
        inner = loaded.get_base_model() if hasattr(loaded, "get_base_model") else loaded
        assert len(heads_of(loaded)) == 2, way
        assert ask(loaded, tiny_tokenizer), way
        loaded.config.call_threshold = 1.0
        assert ask(loaded, tiny_tokenizer) == (), way
        assert all(heads.config is inner.config for heads in heads_of(loaded)), way


def test_a_copy_of_a_model_has_a_configuration_of_its_own(model: Any, tiny_tokenizer: Any) -> None:
    copied = copy.deepcopy(model)
    assert copied.computer.config is copied.config is not model.config
    copied.config.call_threshold = 1.0
    assert ask(copied, tiny_tokenizer) == () and ask(model, tiny_tokenizer)
