"""The only file that names Hugging Face internals: which families can be converted, and how their layers are laid out.

In: a stock model. Out: its `Family`: the stock and the MoDified model class. Importing this registers the latter with Auto classes.
A family whose layer is laid out like one of the four below is one line of `FAMILIES`.
"""

import sys
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    LlamaForCausalLM,
    MistralForCausalLM,
    Olmo2ForCausalLM,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
)
from transformers.models.gemma2.modeling_gemma2 import Gemma2DecoderLayer
from transformers.models.gemma3.modeling_gemma3 import Gemma3DecoderLayer
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer
from transformers.models.olmo2.modeling_olmo2 import Olmo2DecoderLayer
from transformers.models.phi3.modeling_phi3 import Phi3DecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from reference_impl.errors import UnsupportedModelError
from reference_impl.mod_layer import MODEL_TYPE_PREFIX, RoutedLayer
from reference_impl.mod_model import ModModel


class PreNormLayer(RoutedLayer):
    """Norm, attention, add; norm, MLP, add: Llama and most others."""

    input_layernorm: nn.Module
    post_attention_layernorm: nn.Module

    def before_attention(self, hidden_BTD: Tensor) -> Tensor:
        """The first norm."""
        return self.input_layernorm(hidden_BTD)

    def before_mlp(self, hidden_BTD: Tensor) -> Tensor:
        """The second norm."""
        return self.post_attention_layernorm(hidden_BTD)


class DropoutPreNormLayer(PreNormLayer):
    """The same with a dropout behind each branch: Phi-3."""

    resid_attn_dropout: nn.Module
    resid_mlp_dropout: nn.Module

    def after_attention(self, attention_BTD: Tensor) -> Tensor:
        """Dropout."""
        return self.resid_attn_dropout(attention_BTD)

    def after_mlp(self, mlp_BTD: Tensor) -> Tensor:
        """Dropout."""
        return self.resid_mlp_dropout(mlp_BTD)


class PostNormLayer(RoutedLayer):
    """Attention, norm, add; MLP, norm, add: OLMo-2."""

    post_attention_layernorm: nn.Module
    post_feedforward_layernorm: nn.Module

    def before_attention(self, hidden_BTD: Tensor) -> Tensor:
        """Nothing."""
        return hidden_BTD

    def after_attention(self, attention_BTD: Tensor) -> Tensor:
        """The first norm."""
        return self.post_attention_layernorm(attention_BTD)

    def before_mlp(self, hidden_BTD: Tensor) -> Tensor:
        """Nothing."""
        return hidden_BTD

    def after_mlp(self, mlp_BTD: Tensor) -> Tensor:
        """The second norm."""
        return self.post_feedforward_layernorm(mlp_BTD)


class SandwichNormLayer(RoutedLayer):
    """Norm, attention, norm, add; norm, MLP, norm, add: Gemma-2 and Gemma-3."""

    input_layernorm: nn.Module
    post_attention_layernorm: nn.Module
    pre_feedforward_layernorm: nn.Module
    post_feedforward_layernorm: nn.Module

    def before_attention(self, hidden_BTD: Tensor) -> Tensor:
        """The first norm."""
        return self.input_layernorm(hidden_BTD)

    def after_attention(self, attention_BTD: Tensor) -> Tensor:
        """The second norm."""
        return self.post_attention_layernorm(attention_BTD)

    def before_mlp(self, hidden_BTD: Tensor) -> Tensor:
        """The third norm."""
        return self.pre_feedforward_layernorm(hidden_BTD)

    def after_mlp(self, mlp_BTD: Tensor) -> Tensor:
        """The fourth norm."""
        return self.post_feedforward_layernorm(mlp_BTD)


@dataclass(frozen=True)
class Family:
    """A supported architecture: the stock model class and the MoDified one, which names its layer and config classes."""

    model: type[PreTrainedModel]
    mod_model: type[PreTrainedModel]


def _define(name: str, bases: tuple[type, ...], **attributes: Any) -> Any:
    """A class of this module under its own name, so that it pickles and shows up in messages as if written out."""
    defined = type(name, bases, {"__module__": __name__, **attributes})
    setattr(sys.modules[__name__], name, defined)
    return defined


def _family(model: type[PreTrainedModel], layer: type[nn.Module], layout: type[RoutedLayer]) -> Family:
    """The family of a stock model and layer class: `Mod<layer>`, `Mod<config>` and `Mod<model>`."""
    stock_config: Any = model.config_class
    mod_layer = _define(
        f"Mod{layer.__name__}", (layout, layer), __doc__=f"A {layer.__name__} that routes: {layout.__doc__}"
    )
    mod_config = _define(
        f"Mod{stock_config.__name__}",
        (stock_config,),
        __doc__=f"A {stock_config.__name__} with the settings of its routed layers under `modification`.",
        __annotations__={"modification": dict | None},
        model_type=MODEL_TYPE_PREFIX + stock_config.model_type,
        modification=None,
    )
    mod_model = _define(
        f"Mod{model.__name__}",
        (ModModel, model),
        __doc__=f"A {model.__name__} with routed layers.",
        config_class=mod_config,
        mod_config_class=mod_config,
        mod_layer_class=mod_layer,
        _no_split_modules=[layer.__name__, mod_layer.__name__],
    )
    AutoConfig.register(mod_config.model_type, mod_config)
    AutoModelForCausalLM.register(mod_config, mod_model)
    return Family(model, mod_model)


FAMILIES = {
    "llama": _family(LlamaForCausalLM, LlamaDecoderLayer, PreNormLayer),
    "mistral": _family(MistralForCausalLM, MistralDecoderLayer, PreNormLayer),
    "qwen2": _family(Qwen2ForCausalLM, Qwen2DecoderLayer, PreNormLayer),
    "qwen3": _family(Qwen3ForCausalLM, Qwen3DecoderLayer, PreNormLayer),
    "phi3": _family(Phi3ForCausalLM, Phi3DecoderLayer, DropoutPreNormLayer),
    "olmo2": _family(Olmo2ForCausalLM, Olmo2DecoderLayer, PostNormLayer),
    "gemma2": _family(Gemma2ForCausalLM, Gemma2DecoderLayer, SandwichNormLayer),
    "gemma3_text": _family(Gemma3ForCausalLM, Gemma3DecoderLayer, SandwichNormLayer),
}


def family_of(model: PreTrainedModel) -> Family:
    """The family of a stock model.

    Raises:
        UnsupportedModelError: another family or head class.
    """
    family = FAMILIES.get(model.config.model_type)
    if family is None or type(model) is not family.model:
        allowed = ", ".join(family.model.__name__ for family in FAMILIES.values())
        raise UnsupportedModelError(f"model: got {type(model).__name__}; supported: {allowed}")
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
