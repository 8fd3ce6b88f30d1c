"""The decoder layer that routes: gates its input, decides which tokens are kept, and runs only those.

In: hidden states (B, T, D) and the cache, as a Hugging Face decoder layer gets them. Out: hidden states (B, T, D).
A family (hf_families.py) adds its stock layer class and where its norms stand; executions.py says how a decision becomes work.

Shapes: B batch, T tokens, D model dim, K keys that the mask covers.
"""

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

from reference_impl.attention import AttentionNeeds, resolve_backend
from reference_impl.chunked_layer import MaskedLayer
from reference_impl.config import ModConfig
from reference_impl.errors import UnsupportedModelError
from reference_impl.executions import EXECUTIONS, LayerCall, run_straight_through
from reference_impl.packing import packed_sequence_lengths
from reference_impl.ragged_layer import RaggedLayer
from reference_impl.ranges import ATTENTION, MLP, ROUTER, named_range
from reference_impl.router import Router
from reference_impl.routing import Routing

MODEL_TYPE_PREFIX = "mod_"
WINDOW_IN_EVERY_LAYER = ("mistral", "phi3")  # their configurations have no `layer_types`


class RoutedLayer(nn.Module):
    """Mixin before a stock decoder layer class; `convert` swaps it in, so parameter names stay as they were.

    Attributes set by `route_layers`: `router`, `routing`, `attention_backend` (a name, or auto), `window` (tokens of a sliding
    window, or None), `needs` (what the attention must be able to do).
    """

    router: Router
    routing: Routing
    attention_backend: str
    window: int | None
    needs: AttentionNeeds
    self_attn: Any
    mlp: Any

    def before_attention(self, hidden_BTD: Tensor) -> Tensor:
        """Residual stream -> input of the attention module. Set by the family."""
        raise NotImplementedError

    def after_attention(self, attention_BTD: Tensor) -> Tensor:
        """Output of the attention module -> what is added to the residual stream."""
        return attention_BTD

    def before_mlp(self, hidden_BTD: Tensor) -> Tensor:
        """Residual stream -> input of the MLP. Set by the family."""
        raise NotImplementedError

    def after_mlp(self, mlp_BTD: Tensor) -> Tensor:
        """Output of the MLP -> what is added to the residual stream."""
        return mlp_BTD

    @torch.compiler.disable(reason="how many tokens are kept is known only to the device")
    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = False,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        packed_sequences: list[int] | Literal["unchecked"] | None = "unchecked",
        **kwargs: Any,
    ) -> Tensor:
        """Hidden states (B, T, D) -> (B, T, D); skipped tokens come back unchanged and leave nothing in the cache.

        `packed_sequences` gives the lengths of the sequences that fill the rows, where a row holds several; `ModModel` finds them
        once for all layers, and a decoder that is called without it leaves that to each layer.
        """
        assert position_embeddings is not None, "the decoder passes rotary tables to each layer"
        execution = EXECUTIONS[self.routing.config.operator]
        layer_idx: int = self.self_attn.layer_idx
        cache_layer = None
        if past_key_values is not None:
            cache_layer = fit_slot(past_key_values, layer_idx, execution.cache_class, self.window)
        num_tokens = hidden_states.shape[1]
        valid_BT = valid_tokens(attention_mask, num_tokens)
        if packed_sequences == "unchecked":
            packed_sequences = None
            if past_key_values is None and (valid_BT is None or bool(valid_BT.all())):
                batch = hidden_states.shape[0]
                packed_sequences = packed_sequence_lengths(position_ids, batch, starts_at_jumps=True)
        if packed_sequences is not None:
            valid_BT = None
            if not execution.packs_sequences:
                raise UnsupportedModelError(
                    f"position_ids: they restart within a row; operator {self.routing.config.operator} takes one sequence per row"
                )
        num_seen = 0 if cache_layer is None else cache_layer.get_seq_length()
        with named_range(ROUTER):
            gate_BT, keep_BT = self.routing.decide(
                layer_idx, self.router, hidden_states, valid_BT, position_ids, num_seen
            )
        backend = resolve_backend(self.attention_backend, hidden_states.device, hidden_states.dtype, self.needs)
        call = LayerCall(position_embeddings, past_key_values, cache_layer, backend, packed_sequences)
        run = execution.run
        if self.training and gate_BT.requires_grad and self.routing.config.skipped_gradient == "straight_through":
            if past_key_values is not None:
                raise UnsupportedModelError(
                    "past_key_values: got a cache in training; skipped_gradient straight_through expects whole sequences: leave it "
                    "out and set use_cache=False"
                )
            run = run_straight_through
        return run(self, hidden_states, gate_BT, keep_BT, call)

    def add_attention(self, residual: Callable[[], Tensor], gate_BT1: Tensor, **attention_kwargs: Any) -> Tensor:
        """x + g * attention(x), x being what `residual` gathers; g is one shared gate, or 1 (`gate: unit`).

        Gathered twice, so that no copy of x is alive while attention runs.
        """
        attention_BTD = self._attend(self.before_attention(residual()), **attention_kwargs)
        return self._add(residual(), self.after_attention(attention_BTD), gate_BT1)

    def add_mlp(self, hidden_BTD: Tensor, gate_BT1: Tensor) -> Tensor:
        """x + g * MLP(x)."""
        return self._add(hidden_BTD, self.after_mlp(self._feed_forward(self.before_mlp(hidden_BTD))), gate_BT1)

    def _attend(self, hidden_BTD: Tensor, **attention_kwargs: Any) -> Tensor:
        with named_range(ATTENTION):
            return self.self_attn(hidden_states=hidden_BTD, **attention_kwargs)[0]

    def _feed_forward(self, hidden_BTD: Tensor) -> Tensor:
        with named_range(MLP):
            return self.mlp(hidden_BTD)

    def _add(self, hidden_BTD: Tensor, branch_BTD: Tensor, gate_BT1: Tensor) -> Tensor:
        if self.routing.config.gate == "unit":
            return hidden_BTD + branch_BTD
        return torch.addcmul(hidden_BTD, branch_BTD, gate_BT1.to(hidden_BTD.dtype))


def sliding_windows(config: Any) -> list[int | None]:
    """Per layer of a Hugging Face configuration, the tokens that a query sees, itself included; None for full attention.

    A family reads `layer_types`, or has the window in every layer, or ignores a `sliding_window` that stands there.
    """
    num_layers: int = config.num_hidden_layers
    window: int | None = getattr(config, "sliding_window", None)
    layer_types = getattr(config, "layer_types", None)
    if layer_types is None:
        is_windowed = config.model_type.removeprefix(MODEL_TYPE_PREFIX) in WINDOW_IN_EVERY_LAYER
        layer_types = ["sliding_attention" if is_windowed else "full_attention"] * num_layers
    return [window if kind == "sliding_attention" else None for kind in layer_types]


def route_layers(
    layers: nn.ModuleList, layer_class: type[RoutedLayer], config: ModConfig, model_config: Any, attention: str
) -> Routing:
    """Swap the class of the routed layers and give each a router; weights stay where they are.

    Raises:
        ModConfigError: a routed layer is beyond the model.
        UnsupportedModelError: the attention backend is not there, or the model's own attention is not supported.
    """
    refuse_attention(model_config)
    execution = EXECUTIONS[config.operator]
    windows = sliding_windows(model_config)
    indices = config.resolve_layers(len(layers))
    for index in indices:  # before anything is changed
        parameter = next(layers[index].parameters())
        if parameter.device.type != "meta":  # while a checkpoint loads, the device is not known yet
            resolve_backend(attention, parameter.device, parameter.dtype, _needs(layers[index], windows[index]))
    routing = Routing(config)
    for index in indices:
        layer: Any = layers[index]
        layer.__class__ = layer_class
        layer.router = Router(
            model_config.hidden_size, config.router_bias, config.router_std, next(layer.parameters()).device
        )
        _take_from_first_rank(layer)
        layer.routing = routing
        layer.attention_backend = attention
        layer.window = windows[index]
        layer.needs = _needs(layer, windows[index])
        attention_config = copy.copy(layer.self_attn.config)
        attention_config._attn_implementation = (
            execution.softcapped_attention if layer.needs.softcap else execution.attention
        )
        layer.self_attn.config = attention_config
    return routing


def _take_from_first_rank(layer: Any) -> None:
    """Ranks that share a layer's weights draw its router apart: all take that of the first."""
    meshes = [parameter.device_mesh for parameter in layer.parameters() if hasattr(parameter, "device_mesh")]
    for group in meshes[0].get_all_groups() if meshes else []:
        for parameter in layer.router.parameters():
            distributed.broadcast(parameter.data, group=group, group_src=0)


def refuse_attention(model_config: Any) -> None:
    """Raise UnsupportedModelError where stock layers would not compute what routed ones do."""
    if getattr(model_config, "use_bidirectional_attention", False):
        raise UnsupportedModelError("model: its attention is bidirectional; supported: causal attention")
    name = model_config._attn_implementation
    if name == "flex_attention":
        raise UnsupportedModelError(f"model: got attn_implementation={name!r}; supported: eager, sdpa, flash attention")
    if name == "sdpa" and getattr(model_config, "attn_logit_softcapping", None) is not None:
        raise UnsupportedModelError(  # transformers 5.17 hands the cap to sdpa, which drops it; newer ones refuse as well
            f"model: got attn_implementation={name!r}, which ignores this model's attn_logit_softcapping; "
            "load it with attn_implementation='eager'"
        )


def _needs(layer: Any, window: int | None) -> AttentionNeeds:
    return AttentionNeeds(window is not None, getattr(layer.self_attn, "attn_logit_softcapping", None) is not None)


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


def fit_slot(
    cache: Cache, layer_idx: int, wanted: type[RaggedLayer] | type[MaskedLayer], window: int | None
) -> RaggedLayer | MaskedLayer:
    """A routed layer's cache slot, replaced by the class the operator needs while it is still empty.

    Raises:
        UnsupportedModelError: the slot holds tokens already, or belongs to a cache that stores one entry per token.
    """
    while len(cache.layers) <= layer_idx and cache.layer_class_to_replicate is not None:
        cache.layers.append(cache.layer_class_to_replicate())
    slot = cache.layers[layer_idx]
    if type(slot) is wanted:
        return slot
    is_dynamic = type(slot) in (DynamicLayer, DynamicSlidingWindowLayer)
    if not is_dynamic or slot.get_seq_length() > 0 or cache.offloading:
        raise UnsupportedModelError(
            f"past_key_values: layer {layer_idx} is routed and got {'an offloaded' if cache.offloading else 'a'} "
            f"{type(slot).__name__}; expected a new dynamic cache: leave past_key_values out"
        )
    fitting = wanted(window if slot.is_sliding else None)
    if getattr(slot, "record_past", False):
        fitting.activate_past_recording()
    cache.layers[layer_idx] = fitting
    return fitting
