"""Makes the model type ``neurallib`` known to the Auto classes of transformers, for this process.

Not in the modeling file, which also runs as remote code: there the Auto classes find everything through ``auto_map``.
"""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from .configuration.configuration_neurallib import NeuralLibConfig
from .modeling_neurallib.modeling_neurallib import NeuralLibForCausalLM, NeuralLibModel

AutoConfig.register(NeuralLibConfig.model_type, NeuralLibConfig, exist_ok=True)
AutoModel.register(NeuralLibConfig, NeuralLibModel, exist_ok=True)
AutoModelForCausalLM.register(NeuralLibConfig, NeuralLibForCausalLM, exist_ok=True)
