"""convert: a dense Hugging Face model becomes a Mixture-of-Depths model, in place; load: a saved one comes back.

In: a model and a ModConfig, or a folder. Out: the same object, or a new one.

Only routers are added; weights are neither copied nor renamed, so checkpoints, sharding plans and LoRA targets keep working.
"""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from reference_impl.attention import resolve_backend
from reference_impl.config import ModConfig
from reference_impl.errors import ModConfigError, UnsupportedModelError
from reference_impl.hf_families import FAMILIES, decoder_layers, family_of
from reference_impl.mod_layer import MODEL_TYPE_PREFIX, RoutedLayer
from reference_impl.mod_model import ModModel
from reference_impl.ragged_attention import VARLEN_ATTENTION


def routed_attention(model: PreTrainedModel) -> str:
    """The attention that the routed layers of a converted model really use: varlen backends, or a stock one for `masked`."""
    names: dict[str, None] = {}  # in order, each once
    for layer in decoder_layers(model):
        if isinstance(layer, RoutedLayer):
            name = layer.self_attn.config._attn_implementation
            if name == VARLEN_ATTENTION:
                parameter = next(layer.parameters())
                backend = resolve_backend(layer.attention_backend, parameter.device, parameter.dtype, layer.needs)
                name = f"{backend} per row"
            names[name] = None
    return ", ".join(names)


def set_routed_attention(model: PreTrainedModel, attention: str) -> None:
    """Let the routed layers of a converted model attend with this varlen backend, as `convert` does; on the model's device.

    Raises:
        UnsupportedModelError: the backend is not there.
    """
    for layer in decoder_layers(model):
        if isinstance(layer, RoutedLayer):
            parameter = next(layer.parameters())
            resolve_backend(attention, parameter.device, parameter.dtype, layer.needs)
            layer.attention_backend = attention


def convert(model: PreTrainedModel, config: ModConfig | None = None, attention: str = "auto") -> PreTrainedModel:
    """Turn `model` into a Mixture-of-Depths model, in place.

    Args:
        model: a stock causal language model of a supported family (hf_families.FAMILIES).
        config: the settings; default `ModConfig()`.
        attention: varlen backend of the routed layers: auto, sdpa, eager, flash_attn or torch_varlen (attention.py).

    Returns:
        The same object, its class now `Mod<stock class>`.

    Raises:
        UnsupportedModelError: another family, a model that is converted already or dispatched by a device_map, or a backend
            that is not there.
        ModConfigError: a routed layer is beyond the model.
    """
    config = config or ModConfig()
    if isinstance(model, ModModel):
        raise UnsupportedModelError(f"model: {type(model).__name__} is converted already; load the dense model anew")
    family = family_of(model)
    # a forward among a module's own attributes would go on calling the stock class
    if any("forward" in vars(module) for module in (model, *decoder_layers(model))):
        raise UnsupportedModelError(
            "model: its forward was replaced, as a device_map over several places does; convert it on one device, save it, and "
            "load that with device_map"
        )
    stock_class, model.__class__ = type(model), family.mod_model
    assert isinstance(model, ModModel), "the MoDified class was just set"
    try:
        model.route(config, attention)
    except (ModConfigError, UnsupportedModelError):
        model.__class__ = stock_class
        raise
    return model


def load(path: str | Path, **kwargs: Any) -> PreTrainedModel:
    """Load a saved Mixture-of-Depths model: `AutoModelForCausalLM.from_pretrained` with safetensors only.

    Args:
        path: a folder that `save_pretrained` of a converted model wrote.
        kwargs: of `from_pretrained`, such as dtype or device_map.

    Raises:
        UnsupportedModelError: the folder holds another model type, or router weights are missing or alien.
    """
    model_type = AutoConfig.from_pretrained(path).model_type
    if model_type.removeprefix(MODEL_TYPE_PREFIX) not in FAMILIES or not model_type.startswith(MODEL_TYPE_PREFIX):
        allowed = ", ".join(MODEL_TYPE_PREFIX + name for name in FAMILIES)
        raise UnsupportedModelError(f"{path}: got model_type {model_type!r}; expected one of {allowed}")
    return AutoModelForCausalLM.from_pretrained(path, use_safetensors=True, **kwargs)
