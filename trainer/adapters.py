"""Adapters of PEFT around a model that calls programs: LoRA and other kinds, with the heads saved beside them."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from torch import nn
from transformers.utils import find_adapter_config_file, logging

from ..modeling_neurallib.modeling_neurallib import NeuralLibForCausalLM
from ..modeling_neurallib.sharing import AdapterError, base_revision
from .arguments import TrainingArgumentsError

logger = logging.get_logger(__name__)

HEADS = "computer"
"""Name of the module that holds the heads."""

OUTSIDE = rf".*\.{HEADS}\..*"
"""What an adapter leaves alone: the heads are trained whole."""


def is_adapted(model: nn.Module) -> bool:
    """Whether the model is wrapped by PEFT."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def language_model_of(model: nn.Module) -> NeuralLibForCausalLM:
    """The model that calls programs, itself or within an adapter.

    Raises:
        TrainingArgumentsError: there is none.
    """
    inner = model.get_base_model() if is_adapted(model) else model  # type: ignore[operator]
    if getattr(getattr(inner, "config", None), "model_type", None) != "neurallib":
        raise TrainingArgumentsError(
            f"the model is a {type(inner).__name__}, expected a NeuralLibForCausalLM: NeuralLibForCausalLM.from_llama(…) "
            "puts a library into a Llama"
        )
    found: NeuralLibForCausalLM = inner  # type: ignore[assignment]
    return found


def adapted(model: NeuralLibForCausalLM, peft_config: Any, heads: bool = True) -> Any:
    """The model with a new adapter on its backbone, which records the base's place and, if that is the Hub, its commit.

    It is PEFT's own model but for its ``push_to_hub``: see :class:`~.adapted_model.AdaptedModel`.

    Args:
        peft_config: of LoRA, IA³, LoHa or another kind with target modules; it is not changed.
        heads: train the heads too. They are saved with the adapter (``modules_to_save``), and ``disable_adapter()`` gives back
            those that the model had before.
    Raises:
        TrainingArgumentsError: another ``task_type`` than CAUSAL_LM, or a prompt that is learned.
    """
    from peft import get_peft_model

    from .adapted_model import AdaptedModel

    config = copy.deepcopy(peft_config)
    if config.task_type is None:
        config.task_type = "CAUSAL_LM"
    if str(getattr(config.task_type, "value", config.task_type)) != "CAUSAL_LM":
        raise TrainingArgumentsError(f"task_type of the peft_config is {config.task_type!r}, expected 'CAUSAL_LM'")
    if getattr(config, "is_prompt_learning", False):
        raise TrainingArgumentsError(
            f"{type(config).__name__} puts learned embeddings before the text, which have no characters to read arguments "
            "from: choose LoRA or another kind that changes weights"
        )
    if heads:
        config.modules_to_save = sorted({*(config.modules_to_save or ()), HEADS})
    if getattr(config, "exclude_modules", OUTSIDE) is None:
        config.exclude_modules = OUTSIDE
    config.revision = base_revision(model.config) or config.revision
    if not model.name_or_path:
        logger.warning(
            "the adapter's base was put together in memory, so that nobody can load the adapter alone: save the base "
            "(save_pretrained or push_to_hub), and train on what is loaded from there"
        )
    elif _kind_of_base(model.config) not in (None, model.config.model_type):
        logger.warning(
            f"the adapter's base will be recorded as {model.name_or_path}, a model without a computer, so that the adapter alone "
            "loads without its calls: save what this model is (model.save_pretrained(folder), model.push_to_hub('org/base', "
            "tokenizer=tokenizer) or `neurallib assemble`), and train on what is loaded from there"
        )
    wrapped = get_peft_model(model, config)
    # PEFT takes no class of others, and looks its own up by the task.
    wrapped.__class__ = AdaptedModel
    return wrapped


def _kind_of_base(config: Any) -> str | None:
    """The type of the model at the place from which a model came; None if that is neither here nor in the client's cache."""
    found: Any = Path(config.name_or_path, "config.json")
    try:
        if not found.is_file():
            found = try_to_load_from_cache(config.name_or_path, "config.json", revision=base_revision(config))
        return str(json.loads(Path(found).read_bytes()).get("model_type"))
    except (OSError, TypeError, ValueError, AttributeError):
        return None


def base_of(source: str) -> tuple[str, str] | None:
    """Place and revision of an adapter's base; None if the source is no adapter.

    Args:
        source: a folder, or ``org/name`` on the Hub.
    Raises:
        AdapterError: it does not say what it is for.
    """
    found = find_adapter_config_file(source)
    if found is None:
        return None
    try:
        config = json.loads(Path(found).read_bytes())
        base, revision = config["base_model_name_or_path"], config.get("revision")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise AdapterError(
            f"{source}: adapter_config.json is no configuration of PEFT; get the adapter again"
        ) from None
    if not base:
        raise AdapterError(
            f"the adapter {source} names no base, as it was trained on a model that was put together in memory: write the "
            "base's folder or org/name into base_model_name_or_path of its adapter_config.json"
        )
    return str(base), str(revision or "main")


def has_heads(source: str) -> bool:
    """Whether an adapter holds heads.

    Args:
        source: as for :func:`base_of`, which has read its configuration.
    """
    return HEADS in (json.loads(Path(str(find_adapter_config_file(source))).read_bytes()).get("modules_to_save") or ())


def merged(base: NeuralLibForCausalLM, source: str) -> NeuralLibForCausalLM:
    """One model of a base and an adapter, heads included. The base is used up.

    Args:
        source: a folder, or ``org/name`` on the Hub.
    Raises:
        AdapterError: the adapter is for another model, or of a kind that does not change weights.
    """
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries about each other
        try:
            adapter = PeftModel.from_pretrained(base, source)
        except KeyError as error:
            raise AdapterError(
                f"the adapter {source} has no {error.args[0]}: it was made by another version of neurallib; train it again"
            ) from error
        if not hasattr(adapter.base_model, "merge_and_unload"):
            kind = getattr(adapter.active_peft_config.peft_type, "value", "kind not recorded")
            raise AdapterError(
                f"the adapter {source} ({kind}) cannot be merged into its base: use one that changes weights, such as LoRA"
            )
        found: NeuralLibForCausalLM = adapter.merge_and_unload()
    return found.eval()
