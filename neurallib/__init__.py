"""neurallib: a differentiable computer inside a LLaMA.

    from neurallib import NeuralLibForCausalLM, NeuralLibrary, NeuralLibTrainer, compile_library

Names are loaded when they are first used, so ``import neurallib`` itself needs neither torch nor transformers. The
first use of a model class also registers the model type with the Auto classes of transformers.
"""

# ruff: noqa: F401 - the imports below are for type checkers and editors; they find here what _HOMES loads.

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration.configuration_neurallib import NeuralLibConfig
    from .configuration.machine_config import MachineConfig, MachineConfigError
    from .configuration.remote_code import RemoteCodeError
    from .model_cards.explanation_page import PageError, explanation_page
    from .modeling_neurallib.call import Call
    from .modeling_neurallib.characters import TokenizerError
    from .modeling_neurallib.compiler.compiling import compile_library
    from .modeling_neurallib.compiler.errors import CompileError
    from .modeling_neurallib.explanation import ExplanationError
    from .modeling_neurallib.library import NeuralLibrary
    from .modeling_neurallib.library_errors import LibraryError, ProgramFault
    from .modeling_neurallib.machine.state import MachineError, RunResult
    from .modeling_neurallib.modeling_neurallib import NeuralLibError, NeuralLibForCausalLM, NeuralLibModel
    from .modeling_neurallib.programs import standard_library
    from .modeling_neurallib.sharing import AdapterError, PublishError
    from .trainer.arguments import NeuralLibTrainingArguments, TrainingArgumentsError
    from .trainer.collator import DataCollatorForCalls
    from .trainer.metrics import load_metric
    from .trainer.own_data import TrainingDataError
    from .trainer.task_builder import TaskBuilder, load_tasks
    from .trainer.training import NeuralLibTrainer

__version__ = "0.1.0"

# Name → module, relative to this package.
_HOMES = {
    "AdapterError": ".modeling_neurallib.sharing",
    "Call": ".modeling_neurallib.call",
    "CompileError": ".modeling_neurallib.compiler.errors",
    "DataCollatorForCalls": ".trainer.collator",
    "ExplanationError": ".modeling_neurallib.explanation",
    "LibraryError": ".modeling_neurallib.library_errors",
    "MachineConfig": ".configuration.machine_config",
    "MachineConfigError": ".configuration.machine_config",
    "MachineError": ".modeling_neurallib.machine.state",
    "NeuralLibConfig": ".configuration.configuration_neurallib",
    "NeuralLibError": ".modeling_neurallib.modeling_neurallib",
    "NeuralLibForCausalLM": ".modeling_neurallib.modeling_neurallib",
    "NeuralLibModel": ".modeling_neurallib.modeling_neurallib",
    "NeuralLibTrainer": ".trainer.training",
    "NeuralLibTrainingArguments": ".trainer.arguments",
    "NeuralLibrary": ".modeling_neurallib.library",
    "PageError": ".model_cards.explanation_page",
    "ProgramFault": ".modeling_neurallib.library_errors",
    "PublishError": ".modeling_neurallib.sharing",
    "RemoteCodeError": ".configuration.remote_code",
    "RunResult": ".modeling_neurallib.machine.state",
    "TaskBuilder": ".trainer.task_builder",
    "TokenizerError": ".modeling_neurallib.characters",
    "TrainingArgumentsError": ".trainer.arguments",
    "TrainingDataError": ".trainer.own_data",
    "compile_library": ".modeling_neurallib.compiler.compiling",
    "explanation_page": ".model_cards.explanation_page",
    "load_metric": ".trainer.metrics",
    "load_tasks": ".trainer.task_builder",
    "standard_library": ".modeling_neurallib.programs",
}

# Names whose first use makes the model type known to the Auto classes.
_REGISTERED = {"NeuralLibConfig", "NeuralLibForCausalLM", "NeuralLibModel", "NeuralLibTrainer", "DataCollatorForCalls"}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _REGISTERED:
        importlib.import_module(".registration", __name__)
    value = getattr(importlib.import_module(home, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
