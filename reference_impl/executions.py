"""How keep decisions become work: packed (the method), and two controls that separate the causes of the saving.

In: a routed layer, its input, gates and keep mask. Out: the layer's output. All three give the same output; they differ in what
they compute and store.

Shapes: B batch, T tokens, P packed kept tokens, D model dim, K stored keys.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed
from transformers.cache_utils import Cache, CacheLayerMixin

from reference_impl.chunked_layer import MaskedLayer
from reference_impl.packing import Packing
from reference_impl.ragged_attention import VARLEN_ATTENTION, IfKept, RaggedStep
from reference_impl.ragged_layer import RaggedLayer
from reference_impl.ranges import CACHE_APPEND, SCATTER, named_range

if TYPE_CHECKING:
    from reference_impl.mod_layer import RoutedLayer


@dataclass(frozen=True)
class LayerCall:
    """What one forward hands to a routed layer beside the hidden states."""

    position_embeddings: tuple[Tensor, Tensor]
    past_key_values: Cache | None
    cache_layer: CacheLayerMixin | None
    backend: str
    packed_sequences: list[int] | None = None


def run_packed(layer: "RoutedLayer", hidden_BTD: Tensor, gate_BT: Tensor, keep_BT: Tensor, call: LayerCall) -> Tensor:
    """The method: attention and MLP on kept tokens alone."""
    packing = Packing.from_mask(keep_BT, call.packed_sequences)
    cache_layer = call.cache_layer
    assert cache_layer is None or isinstance(cache_layer, RaggedLayer), "the slot was made for this execution"
    is_first = cache_layer is None or not any(cache_layer.lengths())
    if cache_layer is not None:
        cache_layer.begin(packing.batch, packing)
    if packing.num_kept:
        cos, sin = call.position_embeddings
        gate_1P1 = packing.pack_scalar(gate_BT)
        packed_1PD = layer.add_attention(
            lambda: packing.pack(hidden_BTD),
            gate_1P1,
            attention_mask=None,
            position_embeddings=(packing.pack_positions(cos), packing.pack_positions(sin)),
            past_key_values=call.past_key_values,
            ragged=RaggedStep(packing, cache_layer, call.backend, is_first),
        )
        output_BTD = packing.scatter(hidden_BTD, layer.add_mlp(packed_1PD, gate_1P1))
    else:
        output_BTD = hidden_BTD + _zero_of_weights(layer, hidden_BTD) if _is_one_of_several(layer) else hidden_BTD
    if cache_layer is not None:
        cache_layer.advance(packing.num_tokens)
    return output_BTD


def _is_one_of_several(layer: "RoutedLayer") -> bool:
    """Whether other processes train the same weights; they may keep tokens where this one keeps none."""
    if not (layer.training and torch.is_grad_enabled() and distributed.is_available() and distributed.is_initialized()):
        return False
    return distributed.get_world_size() > 1


def _zero_of_weights(layer: "RoutedLayer", hidden_BTD: Tensor) -> Tensor:
    """A zero that gives the layer's weights gradients of zero: sharded weights exchange gradients, so all need to have some."""
    zeros = [parameter.sum() * 0 for parameter in layer.parameters() if parameter.requires_grad]
    return torch.stack(zeros).sum().to(hidden_BTD.dtype) if zeros else hidden_BTD.new_zeros(())


def run_straight_through(
    layer: "RoutedLayer", hidden_BTD: Tensor, gate_BT: Tensor, keep_BT: Tensor, call: LayerCall
) -> Tensor:
    """The method in training, where every token, skipped ones too, tells its gate what being kept is worth.

    The output is that of `run_packed`. Its gradient has another term: the gate gets the loss's gradient along what the layer adds
    to the token, or would add: with attention to the kept tokens and to itself, at a gate of at least p. Nothing else gets a
    gradient from skipped tokens. It costs a forward of the layer over all tokens, without a backward.

    Source: straight-through estimation (Bengio et al., arXiv 1308.3432); in this place it is our choice.
    """
    output_BTD = run_packed(layer, hidden_BTD, gate_BT, keep_BT, call)
    with torch.no_grad():
        gate_BT1 = gate_BT.clamp(min=layer.routing.config.threshold_p)[..., None]
        whole = Packing.from_mask(torch.ones_like(keep_BT))
        computed_BTD = layer.add_attention(
            lambda: hidden_BTD,
            gate_BT1,
            attention_mask=None,
            position_embeddings=call.position_embeddings,
            ragged=RaggedStep(whole, None, call.backend, if_kept=IfKept(keep_BT, call.packed_sequences)),
        )
        added_BTD = layer.add_mlp(computed_BTD, gate_BT1) - hidden_BTD
    return output_BTD + (gate_BT - gate_BT.detach())[..., None].to(output_BTD.dtype) * added_BTD


def run_kv_only(layer: "RoutedLayer", hidden_BTD: Tensor, gate_BT: Tensor, keep_BT: Tensor, call: LayerCall) -> Tensor:
    """Control: everything is computed, only kept keys are stored and seen, and what is skipped is dropped at the end."""
    whole = Packing.from_mask(torch.ones_like(keep_BT))
    kept = Packing.from_mask(keep_BT)
    cache_layer = call.cache_layer
    assert cache_layer is None or isinstance(cache_layer, RaggedLayer), "the slot was made for this execution"
    if cache_layer is not None:
        cache_layer.begin(whole.batch)
    computed_BTD = layer.add_attention(
        lambda: hidden_BTD,
        gate_BT[..., None],
        attention_mask=None,
        position_embeddings=call.position_embeddings,
        past_key_values=call.past_key_values,
        ragged=RaggedStep(whole, cache_layer, call.backend, kept=kept),
    )
    if cache_layer is not None:
        cache_layer.advance(whole.num_tokens)
    computed_BTD = layer.add_mlp(computed_BTD, gate_BT[..., None])
    with named_range(SCATTER):
        return torch.where(keep_BT[..., None], computed_BTD, hidden_BTD)


def run_masked(layer: "RoutedLayer", hidden_BTD: Tensor, gate_BT: Tensor, keep_BT: Tensor, call: LayerCall) -> Tensor:
    """Control: everything is computed and stored; a mask hides skipped keys, and skipped tokens keep their input."""
    cache_layer = call.cache_layer
    if cache_layer is None:
        kept_BK = keep_BT
    else:
        assert isinstance(cache_layer, MaskedLayer), "the slot was made for this execution"
        with named_range(CACHE_APPEND):
            kept_BK = cache_layer.append_kept(keep_BT)
    num_tokens, num_keys = keep_BT.shape[1], kept_BK.shape[1]
    num_past = num_keys - num_tokens
    is_seen_TK = torch.ones(num_tokens, num_keys, dtype=torch.bool, device=keep_BT.device).tril(num_past)
    if layer.window is not None:
        is_seen_TK = is_seen_TK.triu(num_past - layer.window + 1)
    is_seen_B1TK = (is_seen_TK & kept_BK[:, None, :])[:, None]
    computed_BTD = layer.add_attention(
        lambda: hidden_BTD,
        gate_BT[..., None],
        attention_mask=_additive(is_seen_B1TK, hidden_BTD.dtype) if layer.needs.softcap else is_seen_B1TK,
        position_embeddings=call.position_embeddings,
        past_key_values=call.past_key_values,
    )
    computed_BTD = layer.add_mlp(computed_BTD, gate_BT[..., None])
    with named_range(SCATTER):
        return torch.where(keep_BT[..., None], computed_BTD, hidden_BTD)


def _additive(is_seen: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask as stock eager attention adds it to the logits."""
    return torch.zeros_like(is_seen, dtype=dtype).masked_fill(~is_seen, torch.finfo(dtype).min)


@dataclass(frozen=True)
class Execution:
    """How decisions become work: the function, the cache slot it needs, the attention it asks the stock module for.

    `softcapped_attention` is asked for instead where the layer caps its logits; `packs_sequences` says whether several sequences
    may share a row.
    """

    run: "Callable[[RoutedLayer, Tensor, Tensor, Tensor, LayerCall], Tensor]"
    cache_class: type[RaggedLayer] | type[MaskedLayer]
    attention: str
    softcapped_attention: str
    packs_sequences: bool = False


EXECUTIONS = {
    "threshold": Execution(run_packed, RaggedLayer, VARLEN_ATTENTION, VARLEN_ATTENTION, packs_sequences=True),
    "topk": Execution(run_packed, RaggedLayer, VARLEN_ATTENTION, VARLEN_ATTENTION),
    "kv_only": Execution(run_kv_only, RaggedLayer, VARLEN_ATTENTION, VARLEN_ATTENTION),
    "masked": Execution(run_masked, MaskedLayer, "sdpa", "eager"),
}
