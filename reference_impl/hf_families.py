"""The only file that names Hugging Face internals: which families can be converted, and how their layers are laid out.

In: a stock model. Out: its `Family`: the stock and the MoDified model class. Importing this registers the latter with Auto classes.
A family with the same layout (norm, attention, add; norm, MLP, add) is three small classes and one line of `FAMILIES`.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from reference_impl.errors import UnsupportedModelError
from reference_impl.mod_layer import RoutedLayer
from reference_impl.mod_model import ModModel


class _PreNormLayer(RoutedLayer):
    input_layernorm: nn.Module
    post_attention_layernorm: nn.Module
    mlp: nn.Module

    def attention_branch(self, hidden_BTD: Tensor, **attention_kwargs: Any) -> Tensor:
        """Attention of the normed input."""
        return self.self_attn(hidden_states=self.input_layernorm(hidden_BTD), **attention_kwargs)[0]

    def mlp_branch(self, hidden_BTD: Tensor) -> Tensor:
        """MLP of the normed input."""
        return self.mlp(self.post_attention_layernorm(hidden_BTD))


class ModLlamaDecoderLayer(_PreNormLayer, LlamaDecoderLayer):
    """A Llama layer that routes."""


class ModQwen2DecoderLayer(_PreNormLayer, Qwen2DecoderLayer):
    """A Qwen2 layer that routes."""


class ModQwen3DecoderLayer(_PreNormLayer, Qwen3DecoderLayer):
    """A Qwen3 layer that routes."""


class ModLlamaConfig(LlamaConfig):
    """A Llama configuration with the settings of its routed layers under `modification`."""

    model_type = "mod_llama"
    modification: dict | None = None


class ModLlamaForCausalLM(ModModel, LlamaForCausalLM):
    """A Llama with routed layers."""

    config_class = ModLlamaConfig
    mod_config_class = ModLlamaConfig
    mod_layer_class = ModLlamaDecoderLayer
    _no_split_modules = ["LlamaDecoderLayer", "ModLlamaDecoderLayer"]  # noqa: RUF012 (as the stock class)


class ModQwen2Config(Qwen2Config):
    """A Qwen2 configuration with the settings of its routed layers under `modification`."""

    model_type = "mod_qwen2"
    modification: dict | None = None


class ModQwen2ForCausalLM(ModModel, Qwen2ForCausalLM):
    """A Qwen2 with routed layers."""

    config_class = ModQwen2Config
    mod_config_class = ModQwen2Config
    mod_layer_class = ModQwen2DecoderLayer
    _no_split_modules = ["Qwen2DecoderLayer", "ModQwen2DecoderLayer"]  # noqa: RUF012 (as the stock class)


class ModQwen3Config(Qwen3Config):
    """A Qwen3 configuration with the settings of its routed layers under `modification`."""

    model_type = "mod_qwen3"
    modification: dict | None = None


class ModQwen3ForCausalLM(ModModel, Qwen3ForCausalLM):
    """A Qwen3 with routed layers."""

    config_class = ModQwen3Config
    mod_config_class = ModQwen3Config
    mod_layer_class = ModQwen3DecoderLayer
    _no_split_modules = ["Qwen3DecoderLayer", "ModQwen3DecoderLayer"]  # noqa: RUF012 (as the stock class)


@dataclass(frozen=True)
class Family:
    """A supported architecture: the stock model class and the MoDified one, which names its layer and config classes."""

    model: type[PreTrainedModel]
    mod_model: type[PreTrainedModel]


FAMILIES = {
    "llama": Family(LlamaForCausalLM, ModLlamaForCausalLM),
    "qwen2": Family(Qwen2ForCausalLM, ModQwen2ForCausalLM),
    "qwen3": Family(Qwen3ForCausalLM, ModQwen3ForCausalLM),
}


def family_of(model: PreTrainedModel) -> Family:
    """The family of a stock model.

    Raises:
        UnsupportedModelError: another family or head class, or sliding-window layers.
    """
    family = FAMILIES.get(model.config.model_type)
    if family is None or type(model) is not family.model:
        allowed = ", ".join(family.model.__name__ for family in FAMILIES.values())
        raise UnsupportedModelError(f"model: got {type(model).__name__}; supported: {allowed}")
    if "sliding_attention" in (getattr(model.config, "layer_types", None) or ()):
        raise UnsupportedModelError("model: it has sliding-window layers; supported: full attention in every layer")
    return family


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder layers of a stock or converted model, in order."""
    return model.get_decoder().layers


def remove_layers(model: PreTrainedModel, removed: tuple[int, ...]) -> None:
    """Take decoder layers out in place; the others are renumbered, so a cache has one slot per remaining layer."""
    kept: list[Any] = [layer for index, layer in enumerate(decoder_layers(model)) if index not in removed]
    for index, layer in enumerate(kept):
        layer.self_attn.layer_idx = index
    model.get_decoder().layers = nn.ModuleList(kept)
    model.config.num_hidden_layers = len(kept)
    layer_types = getattr(model.config, "layer_types", None)
    if layer_types is not None:
        model.config.layer_types = [kind for index, kind in enumerate(layer_types) if index not in removed]


for _family in FAMILIES.values():
    AutoConfig.register(_family.mod_model.mod_config_class.model_type, _family.mod_model.mod_config_class)
    AutoModelForCausalLM.register(_family.mod_model.mod_config_class, _family.mod_model)
