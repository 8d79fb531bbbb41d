"""Adapters of PEFT: several kinds train, are saved with the heads, loaded, switched off, merged, and generate alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import opened
from neurallib.trainer.adapters import adapted

from neurallib import (
    AdapterError,
    NeuralLibForCausalLM,
    NeuralLibrary,
    NeuralLibTrainer,
    NeuralLibTrainingArguments,
    TrainingArgumentsError,
)

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
    assert not torch.equal(heads.reader.roles.weight, base.computer.reader.roles.weight), "the heads are trained"
    assert not torch.equal(backbone(model, inputs), backbone(base, inputs)), "the adapter is trained"

    loaded = AutoPeftModelForCausalLM.from_pretrained(folder.parent / "adapter")
    assert torch.equal(loaded.get_base_model().computer.reader.roles.weight, heads.reader.roles.weight)
    torch.testing.assert_close(backbone(loaded, inputs), backbone(model, inputs))
    torch.testing.assert_close(logits(loaded, inputs), logits(model, inputs))

    with model.disable_adapter():
        assert torch.equal(backbone(model, inputs), backbone(base, inputs))
        assert torch.equal(logits(model, inputs), logits(base, inputs)), "and so are the heads it had before"
    torch.testing.assert_close(logits(loaded, inputs), logits(model, inputs))

    merged = loaded.merge_and_unload()
    assert isinstance(merged, NeuralLibForCausalLM)
    torch.testing.assert_close(backbone(merged, inputs), backbone(model, inputs), atol=1e-4, rtol=1e-4)
    assert torch.equal(merged.computer.reader.roles.weight, heads.reader.roles.weight)
    merged.save_pretrained(folder.parent / "merged")
    again = NeuralLibForCausalLM.from_pretrained(folder.parent / "merged")
    torch.testing.assert_close(logits(again, inputs), logits(merged, inputs))


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
        # Without a cache the last token is read as well, and one more call may open at it.
        assert cached and uncached[: len(cached)] == cached and len(uncached) <= len(cached) + 1


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


def test_learned_prompts_are_refused(folder: Path, tiny_tokenizer: Any) -> None:
    from peft import PromptTuningConfig

    model = NeuralLibForCausalLM.from_pretrained(folder)
    arguments = NeuralLibTrainingArguments(output_dir=str(folder.parent / "run"), use_cpu=True, report_to=[])
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(TrainingArgumentsError, match="no characters to read"):
        NeuralLibTrainer(model, arguments, None, ROWS, None, tiny_tokenizer, config)
