"""Adapters of PEFT: several kinds train, are saved with the heads, loaded, switched off, merged, and generate alike."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_HEADS, opened
from neurallib.modeling_neurallib.compiler.compiling import compile_source
from neurallib.modeling_neurallib.explanation import reply
from neurallib.trainer import adapters
from neurallib.trainer.adapters import adapted
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from neurallib import (
    AdapterError,
    NeuralLibForCausalLM,
    NeuralLibrary,
    NeuralLibTrainer,
    NeuralLibTrainingArguments,
    TrainingArgumentsError,
)
from neurallib.command_line import app

ROWS = [
    {"prompt": "Add 12 and 30", "completion": "42"},
    {"prompt": "the sum of 5, 6 please", "completion": "11"},
    {"prompt": "Turn strawberry around", "completion": "yrrebwarts"},
]
PROMPTS = ["Add 12 and 30", "Please turn strawberry around"]
KINDS = ["lora", "dora", "ia3", "loha"]


def configuration(kind: str) -> Any:
    from peft import IA3Config, LoHaConfig, LoraConfig

    on = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj", "v_proj", "down_proj"]}
    return {
        "lora": lambda: LoraConfig(r=2, **on),
        "dora": lambda: LoraConfig(r=2, use_dora=True, **on),
        "ia3": lambda: IA3Config(feedforward_modules=["down_proj"], **on),
        "loha": lambda: LoHaConfig(r=2, **on),
    }[kind]()


@pytest.fixture
def folder(tiny_model: NeuralLibForCausalLM, tiny_tokenizer: Any, tmp_path: Path) -> Path:
    """A saved model that calls wherever it can, which adapters name as their base."""
    opened(tiny_model).save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def trained(folder: Path, tokenizer: Any, kind: str) -> Any:
    arguments = NeuralLibTrainingArguments(
        output_dir=str(folder.parent / "run"), max_steps=3, learning_rate=0.05, per_device_train_batch_size=3,
        report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no", sample_size=0,
    )  # fmt: skip
    trainer = NeuralLibTrainer(
        NeuralLibForCausalLM.from_pretrained(folder), arguments, None, ROWS, None, tokenizer, configuration(kind)
    )
    trainer.train()
    trainer.save_model(str(folder.parent / "adapter"))
    return trainer.model.eval()


def prompts(tokenizer: Any) -> dict[str, torch.Tensor]:
    turns = [[{"role": "user", "content": text}] for text in PROMPTS]
    return dict(
        tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
    )


def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(**inputs, use_cache=False).logits
    return found


def backbone(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the decoder says, calls left out."""
    with torch.no_grad():
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        found: torch.Tensor = inner.model(**inputs, use_cache=False, decide_calls=False).last_hidden_state
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_are_saved_loaded_switched_off_and_merged(folder: Path, tiny_tokenizer: Any, kind: str) -> None:
    from peft import AutoPeftModelForCausalLM

    model, inputs = trained(folder, tiny_tokenizer, kind), prompts(tiny_tokenizer)
    base = NeuralLibForCausalLM.from_pretrained(folder)
    heads = model.get_base_model().computer
    assert not torch.equal(heads.reader.scores.weight, base.computer.reader.scores.weight), "the heads are trained"
    assert not torch.equal(backbone(model, inputs), backbone(base, inputs)), "the adapter is trained"

    loaded = AutoPeftModelForCausalLM.from_pretrained(folder.parent / "adapter")
    assert torch.equal(loaded.get_base_model().computer.reader.scores.weight, heads.reader.scores.weight)
    torch.testing.assert_close(backbone(loaded, inputs), backbone(model, inputs))
    torch.testing.assert_close(logits(loaded, inputs), logits(model, inputs))

    with model.disable_adapter():
        assert torch.equal(backbone(model, inputs), backbone(base, inputs))
        assert torch.equal(logits(model, inputs), logits(base, inputs)), "and so are the heads it had before"
    torch.testing.assert_close(logits(loaded, inputs), logits(model, inputs))

    merged = loaded.merge_and_unload()
    assert isinstance(merged, NeuralLibForCausalLM)
    torch.testing.assert_close(backbone(merged, inputs), backbone(model, inputs), atol=1e-4, rtol=1e-4)
    assert torch.equal(merged.computer.reader.scores.weight, heads.reader.scores.weight)
    merged.save_pretrained(folder.parent / "merged")
    again = NeuralLibForCausalLM.from_pretrained(folder.parent / "merged")
    torch.testing.assert_close(logits(again, inputs), logits(merged, inputs))


def test_an_adapter_that_lacks_a_part_of_the_heads_is_refused(folder: Path, tiny_tokenizer: Any) -> None:
    trained(folder, tiny_tokenizer, "lora")
    file = folder.parent / "adapter" / "adapter_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(file).items() if not name.endswith(".covered")}, file)
    with pytest.raises(AdapterError, match=r"has no .*covered: it was made by another version of neurallib"):
        adapters.merged(NeuralLibForCausalLM.from_pretrained(folder), str(folder.parent / "adapter"))


VOICES = '''
def shout(text: str) -> str:
    """Louder."""
    return text + "!"
'''


@pytest.mark.parametrize("kind", ["lora", "ia3", "loha"])
def test_an_adapter_and_a_loaded_library_stack(folder: Path, tiny_tokenizer: Any, kind: str) -> None:
    from peft import PeftModel

    def called(model: Any) -> set[tuple[str, str]]:
        with torch.no_grad():
            found = model(**inputs).calls
        assert all(found)
        return {(call.library, call.program) for calls in found for call in calls}

    voices = compile_source(VOICES, name="voices")
    model, inputs = trained(folder, tiny_tokenizer, kind), prompts(tiny_tokenizer)
    before = logits(model, inputs)
    model.load_library(voices, tokenizer=tiny_tokenizer)
    assert model.active_libraries == ["tiny_programs", "voices"]
    model.set_library("voices")
    assert called(model) == {("voices", "shout")}, "the adapter's heads call it"
    with model.disable_adapter():
        assert called(model) == {("voices", "shout")}, "and so do those of the base"
    with model.disable_library():
        assert not any(model(**inputs).calls)
    model.set_library("tiny_programs")
    torch.testing.assert_close(logits(model, inputs), before)  # what was trained is as it was

    # In the other order: the adapter is saved with the library's keys, for a base that has loaded it too.
    model.save_pretrained(folder.parent / "both")
    base = NeuralLibForCausalLM.from_pretrained(folder)
    base.load_library(voices, tokenizer=tiny_tokenizer)
    loaded = PeftModel.from_pretrained(base, folder.parent / "both").eval()
    model.set_library(None)
    torch.testing.assert_close(logits(loaded, inputs), logits(model, inputs))
    loaded.set_library("voices")
    whole = loaded.merge_and_unload()
    whole.save_pretrained(folder.parent / "whole")
    again = NeuralLibForCausalLM.from_pretrained(folder.parent / "whole")
    assert called(again) == {("voices", "shout")} and list(again.libraries) == ["tiny_programs", "voices"]
    torch.testing.assert_close(backbone(again, inputs), backbone(model, inputs), atol=1e-4, rtol=1e-4)
    again.delete_library("voices")
    assert list(again.libraries) == ["tiny_programs"] and not again.active_libraries


@pytest.mark.parametrize("how", [{}, {"num_beams": 3}])
def test_an_adapted_model_generates_as_without_a_cache(folder: Path, tiny_tokenizer: Any, how: dict[str, Any]) -> None:
    model, inputs = trained(folder, tiny_tokenizer, "lora"), prompts(tiny_tokenizer)
    runs = [
        model.generate(
            **inputs, max_new_tokens=8, do_sample=False, use_cache=cache, return_dict_in_generate=True, **how
        )
        for cache in (True, False)
    ]
    assert torch.equal(runs[0].sequences, runs[1].sequences)
    for cached, uncached in zip(runs[0].calls, runs[1].calls, strict=True):
        assert cached and cached == uncached


def test_what_is_switched_off_is_off_in_the_trained_heads(folder: Path, tiny_tokenizer: Any) -> None:
    model, inputs = trained(folder, tiny_tokenizer, "lora"), prompts(tiny_tokenizer)
    with torch.no_grad():
        assert all(model(**inputs).calls)
        inner = model.get_base_model()
        inner.config.disabled_programs = list(inner.computer.programs)
        assert not any(model(**inputs).calls)


def test_an_adapter_of_another_model_is_refused(folder: Path, tiny_tokenizer: Any, tiny_library: NeuralLibrary) -> None:
    from peft import PeftModel

    adapter = folder.parent / "adapter"
    adapted(NeuralLibForCausalLM.from_pretrained(folder), configuration("lora")).save_pretrained(adapter)
    more, other, later = (NeuralLibForCausalLM.from_pretrained(folder) for _ in range(3))
    more.load_library(tiny_library.extract(["add"]), name="more", tokenizer=tiny_tokenizer)
    with pytest.raises(
        AdapterError, match=r"another shape: .* is \[4, .*, this model's is \[5, .* with the libraries that it had"
    ):
        PeftModel.from_pretrained(more, adapter)
    other.computer.instructions[0, -1] += 1
    with pytest.raises(AdapterError, match="other programs than this model has; load it on the base"):
        PeftModel.from_pretrained(other, adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": "org/base", "revision": "a" * 40}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    later.config.name_or_path, later.config._commit_hash = "org/base", "b" * 40
    with pytest.raises(
        AdapterError, match=f"made for org/base at revision {'a' * 40}, this model is its revision {'b' * 40}"
    ):
        PeftModel.from_pretrained(later, adapter)
    same = NeuralLibForCausalLM.from_pretrained(folder)
    same.config.name_or_path, same.config._commit_hash = "org/base", "a" * 40
    inputs = prompts(tiny_tokenizer)
    assert logits(PeftModel.from_pretrained(same, adapter), inputs).shape[0] == len(PROMPTS)


@pytest.mark.parametrize("on_the_hub", [False, True])
def test_an_adapter_of_a_plain_llama_says_so_and_is_not_lost(
    tiny_base: Any,
    tiny_tokenizer: Any,
    tiny_library: NeuralLibrary,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    on_the_hub: bool,
) -> None:
    from peft import PeftModel

    llama, adapter, whole = tmp_path / "llama", tmp_path / "adapter", tmp_path / "whole"
    tiny_base.save_pretrained(llama)
    tiny_tokenizer.save_pretrained(llama)

    def made() -> NeuralLibForCausalLM:
        model = NeuralLibForCausalLM.from_llama(str(llama), library=tiny_library, tokenizer=tiny_tokenizer, heads=TINY_HEADS)
        if on_the_hub:
            model.config.name_or_path = "org/llama"
        return opened(model)

    if on_the_hub:
        monkeypatch.setattr(adapters, "try_to_load_from_cache", lambda *_, **__: str(llama / "config.json"))
    wrapped = adapted(made(), configuration("lora")).eval()
    assert "recorded as" in caplog.text and "a model without a computer" in caplog.text and "push_to_hub" in caplog.text
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            parameter.data += 0.01 * torch.randn_like(parameter)
    heard = logging.getLogger("transformers.configuration_utils")
    heard.addHandler(caplog.handler)
    try:
        wrapped.save_pretrained(adapter)
    finally:
        heard.removeHandler(caplog.handler)
    assert "You are using a model of type" not in caplog.text
    if not on_the_hub:
        refused = complaint("ask", PROMPTS[0], "--model", adapter)
        assert f"PeftModel.from_pretrained(NeuralLibForCausalLM.from_llama('{llama}', library=…, heads=…)" in refused
    PeftModel.from_pretrained(made(), adapter).merge_and_unload().save_pretrained(whole)
    caplog.clear()
    kept = NeuralLibForCausalLM.from_pretrained(whole)
    inputs = prompts(tiny_tokenizer)
    torch.testing.assert_close(logits(kept, inputs), logits(wrapped, inputs))
    answers = [reply(one, tiny_tokenizer, PROMPTS[0], 8) for one in (kept, wrapped.merge_and_unload())]
    first, second = ([(call.program, call.arguments, call.result) for call in one.calls] for one in answers)
    assert first == second != []
    if not on_the_hub:
        adapted(kept, configuration("lora"))
        assert caplog.text == ""


def test_learned_prompts_are_refused(folder: Path, tiny_tokenizer: Any) -> None:
    from peft import PromptTuningConfig

    model = NeuralLibForCausalLM.from_pretrained(folder)
    arguments = NeuralLibTrainingArguments(output_dir=str(folder.parent / "run"), use_cpu=True, report_to=[])
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(TrainingArgumentsError, match="no characters to read"):
        NeuralLibTrainer(model, arguments, None, ROWS, None, tiny_tokenizer, config)


# The command line


def said(*words: str | Path) -> dict[str, Any]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def complaint(*words: str | Path) -> str:
    """The one line that a failing command prints."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert (result.exit_code, result.stdout) == (1, ""), (result.output, result.exception)
    (line,) = result.stderr.splitlines()
    assert line.startswith("neurallib: ")
    return str(line)


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_an_adapter_is_asked_like_a_whole_model(folder: Path, tiny_tokenizer: Any, kind: str) -> None:
    model = trained(folder, tiny_tokenizer, kind).merge_and_unload()
    adapter = folder.parent / "adapter"
    assert (adapter / "tokenizer_config.json").is_file()
    asked = said("ask", PROMPTS[0], "--model", adapter, "--max-new-tokens", "8", "--json")
    expected, before = (
        reply(one, tiny_tokenizer, PROMPTS[0], 8) for one in (model, NeuralLibForCausalLM.from_pretrained(folder))
    )
    assert asked["answer"] == expected.text
    made = [(call["program"], tuple(call["arguments"]), call["result"], call["fault"]) for call in asked["calls"]]
    assert made == [(call.program, call.arguments, call.result, call.fault) for call in expected.calls]
    probabilities = [call["probability"] for call in asked["calls"]]
    assert probabilities and probabilities == pytest.approx([call.probability for call in expected.calls], abs=1e-4)
    assert probabilities[0] != pytest.approx(before.calls[0].probability, abs=1e-4), "the adapter was trained"
    # An adapter that PEFT itself saved has no tokenizer: its base's serves.
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (adapter / name).unlink()
    assert said("ask", PROMPTS[0], "--model", adapter, "--max-new-tokens", "8", "--json")["answer"] == expected.text


def test_an_adapter_is_evaluated_against_its_base(folder: Path, tiny_tokenizer: Any, tmp_path: Path) -> None:
    trained(folder, tiny_tokenizer, "lora")
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    words = ("--tasks", tasks, "--base", folder, "--output", tmp_path / "out", "--max-new-tokens", "8", "--json")
    found = said("evaluate", "--model", folder.parent / "adapter", *words)["tasks"]["tasks.jsonl"]
    assert found["examples"] == found["base"]["examples"] == 3
    records = [json.loads(line) for line in (tmp_path / "out" / "examples.jsonl").read_text().splitlines()]
    first = {record["who"]: record["calls"][0]["probability"] for record in records if record["index"] == 0}
    assert first["model"] != pytest.approx(first["base"], abs=1e-4)


def test_adapters_that_cannot_be_asked_are_one_line(folder: Path, tiny_base: Any, tiny_library: Any) -> None:
    adapter, plain = folder.parent / "adapter", folder.parent / "plain"
    adapted(NeuralLibForCausalLM.from_pretrained(folder), configuration("lora")).save_pretrained(adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    tiny_base.save_pretrained(plain)
    other = NeuralLibForCausalLM.from_pretrained(folder)
    other.computer.instructions[0, -1] += 1
    other.save_pretrained(folder.parent / "other")
    for base, message in {
        plain: f"{adapter} is an adapter for {plain}, a model of type 'llama' without a computer; its heads belong to",
        folder.parent / "other": "the adapter was made for other programs than this model has",
        folder.parent / "gone": f"the base {folder.parent / 'gone'} of the adapter {adapter} cannot be loaded: ",
        None: f"the adapter {adapter} names no base, as it was trained on a model that was put together in memory",
    }.items():
        told = config | {"base_model_name_or_path": base and str(base)}
        (adapter / "adapter_config.json").write_text(json.dumps(told))
        assert message in complaint("ask", "Add 1, 2", "--model", adapter)
    (adapter / "adapter_config.json").write_text("[]")
    assert "adapter_config.json is no configuration of PEFT" in complaint("ask", "Add 1, 2", "--model", adapter)
