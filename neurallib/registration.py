"""Makes the model type ``neurallib`` known to the Auto classes of transformers, for this process, and the standard library to
explanations.

Not in the modeling file, which also runs as remote code: there the Auto classes find everything through ``auto_map``.
"""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from .configuration.configuration_neurallib import NeuralLibConfig
from .modeling_neurallib.explanation import LENDERS
from .modeling_neurallib.modeling_neurallib import NeuralLibForCausalLM, NeuralLibModel
from .modeling_neurallib.programs import standard_library

LENDERS.append(standard_library)
AutoConfig.register(NeuralLibConfig.model_type, NeuralLibConfig, exist_ok=True)
AutoModel.register(NeuralLibConfig, NeuralLibModel, exist_ok=True)
AutoModelForCausalLM.register(NeuralLibConfig, NeuralLibForCausalLM, exist_ok=True)
