"""convert: a dense Hugging Face model becomes a Mixture-of-Depths model, in place. In: model, ModConfig. Out: the same object.

Only routers are added; weights are neither copied nor renamed, so checkpoints, sharding plans and LoRA targets keep working.
"""

import copy
from typing import Any

from transformers import PreTrainedModel

from reference_impl.attention import resolve_backend
from reference_impl.config import ModConfig
from reference_impl.errors import UnsupportedModelError
from reference_impl.executions import EXECUTIONS
from reference_impl.hf_families import decoder_layers, family_of
from reference_impl.mod_layer import RoutedLayer
from reference_impl.mod_model import ModModel
from reference_impl.ragged_attention import VARLEN_ATTENTION
from reference_impl.router import Router
from reference_impl.routing import Routing


def routed_attention(model: PreTrainedModel) -> str:
    """The attention that the routed layers of a converted model really use: a varlen backend, or sdpa for `masked`."""
    layer = next(layer for layer in decoder_layers(model) if isinstance(layer, RoutedLayer))
    execution = EXECUTIONS[layer.routing.config.operator]
    return f"{layer.attention_backend} per row" if execution.attention == VARLEN_ATTENTION else execution.attention


def convert(model: PreTrainedModel, config: ModConfig | None = None, attention: str = "auto") -> PreTrainedModel:
    """Turn `model` into a Mixture-of-Depths model, in place.

    Args:
        model: a stock causal language model of a supported family (hf_families.FAMILIES).
        config: the settings; default `ModConfig()`.
        attention: varlen backend of the routed layers: auto, sdpa, flash_attn or torch_varlen (attention.py).

    Returns:
        The same object, its class now `Mod<stock class>`.

    Raises:
        UnsupportedModelError: another family, a model that is converted already, or a backend that is not there.
        ModConfigError: a routed layer is beyond the model.
    """
    config = config or ModConfig()
    if isinstance(model, ModModel):
        raise UnsupportedModelError(f"model: {type(model).__name__} is converted already; load the dense model anew")
    family = family_of(model)
    layers = decoder_layers(model)
    routed = config.resolve_layers(len(layers))
    routing = Routing(config)
    execution = EXECUTIONS[config.operator]
    for index in routed:
        layer: Any = layers[index]
        parameter = next(layer.parameters())
        attention_config = copy.copy(layer.self_attn.config)
        attention_config._attn_implementation = execution.attention
        layer.__class__ = family.mod_layer
        assert isinstance(layer, RoutedLayer), "the routed class was just set"
        layer.router = Router(model.config.hidden_size, config.router_bias, config.router_std, parameter.device)
        layer.routing = routing
        layer.attention_backend = resolve_backend(attention, parameter.device, parameter.dtype)
        layer.self_attn.config = attention_config
    model.__class__ = family.mod_model
    assert isinstance(model, ModModel), "the MoDified class was just set"
    model.routing = routing
    model.routed_layers = routed
    return model
