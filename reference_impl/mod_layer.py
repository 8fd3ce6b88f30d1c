"""The decoder layer that routes: gates its input, decides which tokens are kept, and runs only those.

In: hidden states (B, T, D) and the cache, as a Hugging Face decoder layer gets them. Out: hidden states (B, T, D).
A family (hf_families.py) adds its stock layer class and the two branches; executions.py says how a decision becomes work.

Shapes: B batch, T tokens, D model dim, K keys that the mask covers.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer

from reference_impl.attention import resolve_backend
from reference_impl.config import ModConfig
from reference_impl.errors import UnsupportedModelError
from reference_impl.executions import EXECUTIONS, LayerCall
from reference_impl.router import Router
from reference_impl.routing import Routing


class RoutedLayer(nn.Module):
    """Mixin before a stock decoder layer class; `convert` swaps it in, so parameter names stay as they were.

    Attributes set by `route_layers`: `router`, `routing`, `attention_backend` (a name, or auto).
    """

    router: Router
    routing: Routing
    attention_backend: str
    self_attn: Any

    def attention_branch(self, hidden_BTD: Tensor, **attention_kwargs: Any) -> Tensor:
        """What the stock layer adds to the residual stream first: norm and attention. Set by the family."""
        raise NotImplementedError

    def mlp_branch(self, hidden_BTD: Tensor) -> Tensor:
        """What the stock layer adds second: norm and MLP. Set by the family."""
        raise NotImplementedError

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = False,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Hidden states (B, T, D) -> (B, T, D); skipped tokens come back unchanged and leave nothing in the cache."""
        assert position_embeddings is not None, "the decoder passes rotary tables to each layer"
        execution = EXECUTIONS[self.routing.config.operator]
        layer_idx: int = self.self_attn.layer_idx
        cache_layer = _cache_slot(past_key_values, layer_idx, execution.cache_class)
        num_tokens = hidden_states.shape[1]
        gate_BT, keep_BT = self.routing.decide(
            layer_idx,
            self.router,
            hidden_states,
            valid_tokens(attention_mask, num_tokens),
            position_ids,
            0 if cache_layer is None else cache_layer.get_seq_length(),
        )
        backend = resolve_backend(self.attention_backend, hidden_states.device, hidden_states.dtype)
        call = LayerCall(position_embeddings, past_key_values, cache_layer, backend)
        return execution.run(self, hidden_states, gate_BT, keep_BT, call)

    def gated(self, hidden_BTD: Tensor, gate_BT1: Tensor, **attention_kwargs: Any) -> Tensor:
        """x + g * attention(x), then the same with the MLP; g is one shared gate, or 1 (`gate: unit`)."""
        attention_BTD = self.attention_branch(hidden_BTD, **attention_kwargs)
        if self.routing.config.gate == "unit":
            hidden_BTD = hidden_BTD + attention_BTD
            return hidden_BTD + self.mlp_branch(hidden_BTD)
        gate_BT1 = gate_BT1.to(hidden_BTD.dtype)
        hidden_BTD = torch.addcmul(hidden_BTD, attention_BTD, gate_BT1)
        return torch.addcmul(hidden_BTD, self.mlp_branch(hidden_BTD), gate_BT1)


def route_layers(
    layers: nn.ModuleList, layer_class: type[RoutedLayer], config: ModConfig, hidden_size: int, attention: str
) -> Routing:
    """Swap the class of the routed layers and give each a router; weights stay where they are.

    Raises:
        ModConfigError: a routed layer is beyond the model.
        UnsupportedModelError: the attention backend is not there.
    """
    routing = Routing(config)
    for index in config.resolve_layers(len(layers)):
        layer: Any = layers[index]
        parameter = next(layer.parameters())
        if parameter.device.type != "meta":  # while a checkpoint loads, the device is not known yet
            resolve_backend(attention, parameter.device, parameter.dtype)
        attention_config = copy.copy(layer.self_attn.config)
        attention_config._attn_implementation = EXECUTIONS[config.operator].attention
        layer.__class__ = layer_class
        layer.router = Router(hidden_size, config.router_bias, config.router_std, parameter.device)
        layer.routing = routing
        layer.attention_backend = attention
        layer.self_attn.config = attention_config
    return routing


def valid_tokens(attention_mask: Tensor | None, num_tokens: int) -> Tensor | None:
    """Which of the last `num_tokens` tokens are not padding, (1 or B, T) bool; None where nothing is padded.

    Takes every form a decoder layer is handed: 2-D (B, K), or 4-D (B, 1, T, K) as booleans or as additive floats, where a
    token that may not see its own key is padding.
    """
    if attention_mask is None:
        return None
    if attention_mask.dim() == 2:
        return attention_mask[:, -num_tokens:].bool()
    offset = attention_mask.shape[-1] - num_tokens
    own_key_BT = torch.diagonal(attention_mask[:, 0], offset=offset, dim1=-2, dim2=-1)
    return own_key_BT if own_key_BT.dtype == torch.bool else own_key_BT == 0


def _cache_slot(cache: Cache | None, layer_idx: int, wanted: type[CacheLayerMixin]) -> CacheLayerMixin | None:
    """The layer's cache slot, replaced by the class the operator needs while it is still empty.

    Raises:
        UnsupportedModelError: the slot holds tokens already, or belongs to a cache that stores one entry per token.
    """
    if cache is None:
        return None
    while len(cache.layers) <= layer_idx and cache.layer_class_to_replicate is not None:
        cache.layers.append(cache.layer_class_to_replicate())
    slot = cache.layers[layer_idx]
    if isinstance(slot, wanted):
        return slot
    if type(slot) is not DynamicLayer or slot.get_seq_length() > 0 or cache.offloading:
        raise UnsupportedModelError(
            f"past_key_values: layer {layer_idx} is routed and got a {type(slot).__name__}; "
            "expected a new dynamic cache: leave past_key_values and cache_implementation out"
        )
    cache.layers[layer_idx] = wanted()
    return cache.layers[layer_idx]
