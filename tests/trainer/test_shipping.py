"""Heads as files, with what was trained of the backbone beside them: what is loaded computes what was trained."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_HEADS, make_base
from neurallib.trainer import runs
from neurallib.trainer.adapters import adapted
from neurallib.trainer.recipe import Recipe
from neurallib.trainer.record import write_record
from neurallib.trainer.shipping import (
    LOW_RANK,
    SHIPPED,
    NeuralLibError,
    load_heads,
    merge_low_rank,
    save_heads,
    save_low_rank,
)
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM
from transformers.utils import logging
from typer.testing import CliRunner

from neurallib import NeuralLibForCausalLM, standard_library
from neurallib.command_line import app

KINDS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": ["q_proj", "v_proj"]},
    "every layer of the blocks": {"target_modules": "all-linear", "lora_alpha": 3, "lora_dropout": 0.3},
    "scaled by the root of the rank": {"target_modules": ["o_proj", "down_proj"], "use_rslora": True},
    "one block": {"target_modules": ["up_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
}


def with_adapter(model: NeuralLibForCausalLM, **kind: Any) -> Any:
    """The model with an adapter that changes what the backbone says."""
    from peft import LoraConfig

    found = adapted(model, LoraConfig(r=2, task_type="CAUSAL_LM", **kind)).eval()
    torch.manual_seed(3)
    for name, parameter in found.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3)
    return found


def tokens() -> torch.Tensor:
    return torch.randint(3, 400, (2, 12), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def backbone(model: Any) -> torch.Tensor:
    """Logits without calls."""
    own = {"decide_calls": False} if isinstance(model, NeuralLibForCausalLM) else {}
    logits: torch.Tensor = model.lm_head(model.model(tokens(), **own).last_hidden_state)
    return logits


@pytest.mark.parametrize("kind", KINDS, ids=lambda name: name.replace(" ", "_"))
def test_low_rank_weights_are_what_peft_merges(
    tiny_model: NeuralLibForCausalLM, tiny_base: LlamaForCausalLM, tmp_path: Path, kind: str
) -> None:
    base = copy.deepcopy(tiny_base)  # the model has the weights of its base, not copies
    unchanged = backbone(base)
    model = with_adapter(tiny_model, **KINDS[kind])
    save_low_rank(model, tmp_path / "heads")
    wanted = backbone(model.merge_and_unload())
    tensors = load_file(str(tmp_path / "heads" / LOW_RANK))
    assert all(tensor.dtype == torch.float16 for tensor in tensors.values())
    merge_low_rank(base, tensors)
    found = backbone(base)
    assert (wanted - unchanged).abs().max() > 0.05, "the adapter says something else"
    # Each weight is off by half a unit in the last of eleven bits, in both factors.
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=2e-3)
    assert [path.name for path in (tmp_path / "heads").iterdir()] == [LOW_RANK]


def test_low_rank_weights_of_another_backbone_are_refused(
    tiny_model: NeuralLibForCausalLM, tiny_base: LlamaForCausalLM, tmp_path: Path
) -> None:
    save_low_rank(with_adapter(tiny_model, target_modules=["q_proj", "up_proj"]), tmp_path)
    tensors = load_file(str(tmp_path / LOW_RANK))

    def other(**changes: Any) -> LlamaForCausalLM:
        config = copy.deepcopy(tiny_base.config)
        for name, value in changes.items():
            setattr(config, name, value)
        return LlamaForCausalLM(config)

    with pytest.raises(
        NeuralLibError, match=r"for a backbone with model\.layers\.1\.mlp\.up_proj, which this one lacks"
    ):
        merge_low_rank(other(num_hidden_layers=1), tensors)
    with pytest.raises(NeuralLibError, match=r"layers\.0\.mlp\.up_proj are for 64 × 32 weights, found \(96, 32\)"):
        merge_low_rank(other(intermediate_size=96), tensors)


def test_heads_are_loaded_with_what_was_trained_of_the_backbone(
    tiny_base: LlamaForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    base = copy.deepcopy(tiny_base)
    model = NeuralLibForCausalLM.from_llama(tiny_base, standard_library(), tokenizer=tiny_tokenizer, heads=TINY_HEADS)
    model = with_adapter(model, target_modules=["q_proj", "v_proj"])
    active = model.get_base_model().computer.modules_to_save["default"]
    for parameter in active.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    save_low_rank(model, tmp_path)
    whole = model.merge_and_unload().eval()
    save_heads(whole, tmp_path, {"validation": {}})
    loaded = load_heads(base, tiny_tokenizer, tmp_path).eval()
    torch.testing.assert_close(backbone(loaded), backbone(whole), atol=2e-3, rtol=2e-3)
    for name, value in whole.computer.state_dict().items():
        # What was trained comes back in float16, the library and the vocabulary to the bit.
        torch.testing.assert_close(loaded.computer.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    assert torch.equal(loaded.computer.instructions, whole.computer.instructions)


def test_a_recipe_goes_on_from_heads_of_another_run(
    tiny_base: LlamaForCausalLM, tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = NeuralLibForCausalLM.from_llama(tiny_base, standard_library(), tokenizer=tiny_tokenizer, heads=TINY_HEADS)
    model = with_adapter(model, target_modules=["q_proj", "v_proj"])
    save_low_rank(model, tmp_path)
    whole = model.merge_and_unload().eval()
    save_heads(whole, tmp_path, {})
    monkeypatch.setattr(runs, "load_base", lambda base: (make_base(tiny_tokenizer), tiny_tokenizer))
    found, _ = runs.model_of(Recipe(start_from=str(tmp_path)))
    torch.testing.assert_close(backbone(found.eval()), backbone(whole), atol=2e-3, rtol=2e-3)
    with pytest.raises(NeuralLibError, match="no trained heads"):
        runs.model_of(Recipe(start_from=str(tmp_path / "nothing")))


def test_heads_of_a_second_run_tell_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "training_record", lambda trainer: {"steps": trainer, "metrics": {}, "sample_size": 32})
    measured = {"exact": 0.5, "quiet": 1.0, "confused": {}}
    steps = []
    for number, trainer in enumerate((3, 4, 5)):
        recipe = Recipe(start_from=None if number == 0 else str(tmp_path / str(number - 1)))
        (tmp_path / str(number)).mkdir()
        write_record(tmp_path / str(number), runs._record(trainer, recipe, measured))  # type: ignore[arg-type]
        told = json.loads((tmp_path / str(number) / "training_record.json").read_text())
        assert (told["metrics"], told["sample_size"]) == ({"exact": 0.5, "quiet": 1.0}, 0)
        steps.append((told["steps"], told.get("steps_before")))
    assert steps == [(3, None), (4, 3), (5, 7)]


def test_an_adapter_of_another_kind_is_not_shipped_as_low_rank_weights(
    tiny_base: LlamaForCausalLM, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    from peft import IA3Config

    model = NeuralLibForCausalLM.from_llama(tiny_base, standard_library(), tokenizer=tiny_tokenizer, heads=TINY_HEADS)
    kind = IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])
    with pytest.raises(NeuralLibError, match="plain LoRA"):
        save_low_rank(adapted(model, kind), tmp_path)
    assert not (tmp_path / LOW_RANK).exists()


@pytest.fixture
def heads(tiny_base: LlamaForCausalLM, tiny_tokenizer: Any, tmp_path: Path) -> Path:
    """A folder of heads for the tiny Llama."""
    model = NeuralLibForCausalLM.from_llama(tiny_base, standard_library(), tokenizer=tiny_tokenizer, heads=TINY_HEADS)
    save_heads(model, tmp_path / "heads", {})
    return tmp_path / "heads"


def halved(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def described(folder: Path, **changes: Any) -> None:
    """Heads that say otherwise."""
    file = folder / "heads_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


PROGRAMS = list(standard_library().programs)
HERE = standard_library().fingerprint

REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a newer format": (
        lambda folder: described(folder, format_version=3),
        "have format version 3, this neurallib reads versions up to 2: upgrade neurallib",
    ),
    "a newer format, other files": (
        lambda folder: (described(folder, format_version=3), (folder / "heads.safetensors").unlink()),
        "have format version 3",
    ),
    "no format": (lambda folder: described(folder, format_version="1"), "describes no heads; get them again"),
    "no heads": (lambda folder: (folder / "heads_config.json").write_text("[]"), "describes no heads; get them again"),
    "another program": (
        lambda folder: described(folder, programs=["sum", *PROGRAMS[1:]]),
        "trained for the program sum where the standard library has add: use the neurallib that they were trained with, or train",
    ),
    "another order": (
        lambda folder: described(folder, programs=[*PROGRAMS[1:], PROGRAMS[0]]),
        "trained for the program subtract where the standard library has add: ",
    ),
    "fewer programs": (
        lambda folder: described(folder, programs=PROGRAMS[:-1]),
        "trained for the program none where the standard library has percentage: ",
    ),
    "another version of the library": (
        lambda folder: described(folder, libraries={"standard_library": "0" * 64}),
        f"trained with standard_library of sha256 {'0' * 64}, the present library is standard_library of sha256 {HERE}: use",
    ),
    "half a description": (lambda folder: halved(folder / "heads_config.json"), "are cut short or corrupt"),
    "half the weights": (lambda folder: halved(folder / "heads.safetensors"), "are cut short or corrupt"),
    "half the low rank": (lambda folder: (folder / LOW_RANK).write_bytes(b"\x08"), "are cut short or corrupt"),
}


@pytest.mark.parametrize("name", REFUSED, ids=lambda name: name.replace(" ", "_"))
def test_heads_that_are_refused(
    heads: Path, tiny_base: LlamaForCausalLM, tiny_tokenizer: Any, tmp_path: Path, name: str
) -> None:
    change, message = REFUSED[name]
    change(heads)
    with pytest.raises(NeuralLibError, match=re.escape(message)):
        load_heads(tiny_base, tiny_tokenizer, heads)
    tiny_base.save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    words = ["assemble", "--base", str(tmp_path / "base"), "--heads", str(heads), "--output", str(tmp_path / "model")]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, done.stdout) == (1, "") and done.stderr.count("\n") == 1
    assert done.stderr.startswith("neurallib: ") and message in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"heads", "base"}, "no half of a model is left"


def test_a_training_goes_on_from_heads_of_a_library_compiled_since(
    heads: Path, tiny_base: LlamaForCausalLM, tiny_tokenizer: Any, caplog: Any
) -> None:
    described(heads, libraries={"standard_library": "0" * 64})
    logging.enable_propagation()
    try:
        model = load_heads(tiny_base, tiny_tokenizer, heads, to_go_on=True)
    finally:
        logging.disable_propagation()
    assert model.computer.programs == PROGRAMS
    assert f"sha256 {'0' * 64}; they go on with standard_library of sha256 {HERE}" in caplog.text
    described(heads, programs=["sum", *PROGRAMS[1:]])
    with pytest.raises(NeuralLibError, match="trained for the program sum"):
        load_heads(tiny_base, tiny_tokenizer, heads, to_go_on=True)


def test_a_training_goes_on_where_the_library_has_got_more_programs(
    heads: Path, tiny_base: LlamaForCausalLM, tiny_tokenizer: Any, caplog: Any
) -> None:
    """What was trained stays; the new programs' keys are those of their docstrings. As they are, such heads are refused."""
    tensors = load_file(str(heads / "heads.safetensors"))
    whole = load_heads(copy.deepcopy(tiny_base), tiny_tokenizer, heads).computer
    tensors["offsets"] = torch.randn(len(PROGRAMS) - 2, tensors["offsets"].shape[1]).half()
    tensors["descriptions"] = tensors["descriptions"][:-2].contiguous()
    save_file(tensors, str(heads / "heads.safetensors"))
    described(heads, programs=PROGRAMS[:-2], libraries={"standard_library": "0" * 64})
    with pytest.raises(NeuralLibError, match=f"the program none where the standard library has {PROGRAMS[-2]}"):
        load_heads(copy.deepcopy(tiny_base), tiny_tokenizer, heads)
    logging.enable_propagation()
    try:
        computer = load_heads(tiny_base, tiny_tokenizer, heads, to_go_on=True).computer
    finally:
        logging.disable_propagation()
    assert f"which has {', '.join(PROGRAMS[-2:])} besides" in caplog.text
    assert computer.programs == PROGRAMS
    torch.testing.assert_close(computer.offsets[:-2], tensors["offsets"].float())
    assert not computer.offsets[-2:].any()
    torch.testing.assert_close(computer.descriptions, whole.descriptions, atol=2e-3, rtol=2e-3)


def test_heads_of_another_backbone_are_refused(heads: Path, tiny_base: LlamaForCausalLM, tiny_tokenizer: Any) -> None:
    config = copy.deepcopy(tiny_base.config)
    config.hidden_size = 48
    config.head_dim = 12
    with pytest.raises(NeuralLibError, match=r"their descriptions is \[32, 64\], expected \[32, 96\]; use the base that"):
        load_heads(LlamaForCausalLM(config), tiny_tokenizer, heads)


def test_heads_from_before_the_librarys_sha256_was_kept_are_loaded(
    heads: Path, tiny_base: LlamaForCausalLM, tiny_tokenizer: Any
) -> None:
    told = json.loads((heads / "heads_config.json").read_text())
    assert told.pop("libraries") == {"standard_library": HERE}
    (heads / "heads_config.json").write_text(json.dumps(told))
    assert load_heads(tiny_base, tiny_tokenizer, heads).computer.programs == PROGRAMS


def test_the_shipped_heads_are_for_the_library_that_is_shipped() -> None:
    told = json.loads((SHIPPED / "heads_config.json").read_text())
    assert (told["format_version"], told["programs"], told["libraries"]) == (2, PROGRAMS, {"standard_library": HERE})


def test_heads_from_before_there_was_coverage_have_read_nothing_before(
    heads: Path, tiny_base: LlamaForCausalLM, tiny_tokenizer: Any
) -> None:
    tensors = load_file(str(heads / "heads.safetensors"))
    old = {name: tensor for name, tensor in tensors.items() if not name.endswith(".covered")}
    assert len(tensors) - len(old) == 2
    save_file(old, str(heads / "heads.safetensors"))
    with pytest.raises(NeuralLibError, match=r"their reader\.covered is missing"):
        load_heads(copy.deepcopy(tiny_base), tiny_tokenizer, heads)
    described(heads, format_version=1)
    computer = load_heads(tiny_base, tiny_tokenizer, heads).computer
    assert not computer.selector.covered.any() and not computer.reader.covered.any()
