"""The oracle: the same model in slow, obvious torch, one row at a time, no cache, no packing, no attention kernel.

In: a stock or converted model and one unpadded row. Out: its logits, and the keep mask per routed layer.
Differentiable; parameters are the model's own, so its gradients can be compared too.

Shapes: T tokens, S kept tokens, N query heads, G KV heads, H head dim, D model dim, V vocabulary.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from reference_impl.mod_layer import RoutedLayer, sliding_windows


def rotate(states_TNH: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
    """Rotary position embedding of the first dims of a head, halves swapped as in the Hugging Face layout."""
    num_rotary = cos_TH.shape[-1]
    rotary, rest = states_TNH[..., :num_rotary], states_TNH[..., num_rotary:]
    half = num_rotary // 2
    swapped = torch.cat([-rotary[..., half:], rotary[..., :half]], dim=-1)
    return torch.cat([rotary * cos_TH[:, None] + swapped * sin_TH[:, None], rest], dim=-1)


def _project(attention: Any, input_TD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, flat: (T, N*H), (T, G*H), (T, G*H)."""
    if hasattr(attention, "qkv_proj"):
        num_kv = attention.num_key_value_heads * attention.head_dim
        num_query = attention.qkv_proj.out_features - 2 * num_kv
        query, key, value = attention.qkv_proj(input_TD).split([num_query, num_kv, num_kv], dim=-1)
        return query, key, value
    return attention.q_proj(input_TD), attention.k_proj(input_TD), attention.v_proj(input_TD)


def naive_attention(
    attention: Any, input_TD: Tensor, cos_TH: Tensor, sin_TH: Tensor, positions_T: Tensor, window: int | None
) -> Tensor:
    """Causal attention among exactly these tokens, one head at a time."""
    num_tokens, head_dim = input_TD.shape[0], attention.head_dim
    query, key, value = _project(attention, input_TD)
    has_norms = hasattr(attention, "q_norm")
    is_norm_per_head = has_norms and attention.q_norm.weight.shape[0] == head_dim != query.shape[-1]
    if has_norms and not is_norm_per_head:
        query, key = attention.q_norm(query), attention.k_norm(key)
    query, key, value = (flat.view(num_tokens, -1, head_dim) for flat in (query, key, value))
    if is_norm_per_head:
        query, key = attention.q_norm(query), attention.k_norm(key)
    query, key = rotate(query, cos_TH, sin_TH), rotate(key, cos_TH, sin_TH)
    distance_TT = positions_T[:, None] - positions_T[None, :]
    is_hidden_TT = distance_TT < 0 if window is None else (distance_TT < 0) | (distance_TT >= window)
    softcap = getattr(attention, "attn_logit_softcapping", None)
    heads = []
    for head in range(query.shape[1]):
        shared = head // attention.num_key_value_groups
        logits_TT = query[:, head] @ key[:, shared].T * attention.scaling
        if softcap is not None:
            logits_TT = softcap * torch.tanh(logits_TT / softcap)
        weights_TT = logits_TT.masked_fill(is_hidden_TT, float("-inf")).softmax(dim=-1)
        heads.append(weights_TT @ value[:, shared])
    return attention.o_proj(torch.cat(heads, dim=-1))


def _norms(layer: Any) -> tuple[Any, Any, Any, Any]:
    """The layer's norms (before attention, after it, before the MLP, after it); None where there is none."""
    if hasattr(layer, "pre_feedforward_layernorm"):  # Gemma
        return (
            layer.input_layernorm,
            layer.post_attention_layernorm,
            layer.pre_feedforward_layernorm,
            layer.post_feedforward_layernorm,
        )
    if hasattr(layer, "post_feedforward_layernorm"):  # OLMo-2
        return None, layer.post_attention_layernorm, None, layer.post_feedforward_layernorm
    return layer.input_layernorm, None, layer.post_attention_layernorm, None


def naive_layer(
    layer: Any,
    hidden_TD: Tensor,
    gate_T: Tensor | None,
    cos_TH: Tensor,
    sin_TH: Tensor,
    positions_T: Tensor,
    window: int | None,
) -> Tensor:
    """One decoder layer over these tokens; `gate_T` scales both branches (None: 1)."""
    scale_T1 = 1.0 if gate_T is None else gate_T[:, None].to(hidden_TD.dtype)
    before_attention, after_attention, before_mlp, after_mlp = _norms(layer)
    branch_TD = hidden_TD if before_attention is None else before_attention(hidden_TD)
    branch_TD = naive_attention(layer.self_attn, branch_TD, cos_TH, sin_TH, positions_T, window)
    hidden_TD = hidden_TD + scale_T1 * (branch_TD if after_attention is None else after_attention(branch_TD))
    branch_TD = layer.mlp(hidden_TD if before_mlp is None else before_mlp(hidden_TD))
    return hidden_TD + scale_T1 * (branch_TD if after_mlp is None else after_mlp(branch_TD))


def _rotary_tables(decoder: Any, config: Any, hidden_1TD: Tensor, positions_1T: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(cos, sin), each (T, H), per layer; Gemma-3 has other frequencies in its sliding layers."""
    if config.model_type.endswith("gemma3_text"):
        tables = [decoder.rotary_emb(hidden_1TD, positions_1T, kind) for kind in config.layer_types]
    else:
        tables = [decoder.rotary_emb(hidden_1TD, position_ids=positions_1T)] * config.num_hidden_layers
    return [(cos_1TH[0], sin_1TH[0]) for cos_1TH, sin_1TH in tables]


def naive_forward(
    model: PreTrainedModel, input_ids_T: Tensor, keep_masks: Mapping[int, Tensor] | None = None
) -> tuple[Tensor, dict[int, Tensor]]:
    """((T, V) logits, layer index -> (T,) keep mask) of one row at positions 0 to T-1.

    `keep_masks` replays decisions; without it a token is kept where sigmoid of its router logit reaches `threshold_p`.
    """
    decoder: Any = model.get_decoder()
    hidden_TD = decoder.embed_tokens(input_ids_T)
    positions_T = torch.arange(len(input_ids_T), device=input_ids_T.device)
    tables = _rotary_tables(decoder, model.config, hidden_TD[None], positions_T[None])
    used_masks = {}
    for index, (layer, window) in enumerate(zip(decoder.layers, sliding_windows(model.config), strict=True)):
        cos_TH, sin_TH = tables[index]
        if not isinstance(layer, RoutedLayer):
            hidden_TD = naive_layer(layer, hidden_TD, None, cos_TH, sin_TH, positions_T, window)
            continue
        config = layer.routing.config
        gate_T = torch.sigmoid(layer.router(hidden_TD[None], positions_T[None])[0])
        keep_T = gate_T >= config.threshold_p if keep_masks is None else keep_masks[index]
        used_masks[index] = keep_T
        chosen_S = keep_T.nonzero().squeeze(1)
        if len(chosen_S) == 0:
            continue
        gate_S = None if config.gate == "unit" else gate_T[chosen_S]
        kept_SD = naive_layer(
            layer, hidden_TD[chosen_S], gate_S, cos_TH[chosen_S], sin_TH[chosen_S], positions_T[chosen_S], window
        )
        hidden_TD = hidden_TD.index_put((chosen_S,), kept_SD)
    head: Any = model.get_output_embeddings()
    logits_TV = head(decoder.norm(hidden_TD))
    softcap = getattr(model.config, "final_logit_softcapping", None)
    return (logits_TV if softcap is None else softcap * torch.tanh(logits_TV / softcap)), used_masks
