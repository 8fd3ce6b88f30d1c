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

from reference_impl.mod_layer import RoutedLayer


def rotate(states_TNH: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
    """Rotary position embedding, halves swapped as in the Hugging Face layout."""
    half = states_TNH.shape[-1] // 2
    swapped = torch.cat([-states_TNH[..., half:], states_TNH[..., :half]], dim=-1)
    return states_TNH * cos_TH[:, None] + swapped * sin_TH[:, None]


def naive_attention(attention: Any, normed_TD: Tensor, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
    """Causal attention among exactly these tokens, one head at a time."""
    num_tokens, head_dim = normed_TD.shape[0], attention.head_dim
    query = attention.q_proj(normed_TD).view(num_tokens, -1, head_dim)
    key = attention.k_proj(normed_TD).view(num_tokens, -1, head_dim)
    value = attention.v_proj(normed_TD).view(num_tokens, -1, head_dim)
    if hasattr(attention, "q_norm"):
        query, key = attention.q_norm(query), attention.k_norm(key)
    query, key = rotate(query, cos_TH, sin_TH), rotate(key, cos_TH, sin_TH)
    is_future_TT = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=normed_TD.device).triu(1)
    heads = []
    for head in range(query.shape[1]):
        shared = head // attention.num_key_value_groups
        logits_TT = query[:, head] @ key[:, shared].T * attention.scaling
        weights_TT = logits_TT.masked_fill(is_future_TT, float("-inf")).softmax(dim=-1)
        heads.append(weights_TT @ value[:, shared])
    return attention.o_proj(torch.cat(heads, dim=-1))


def naive_layer(layer: Any, hidden_TD: Tensor, gate_T: Tensor | None, cos_TH: Tensor, sin_TH: Tensor) -> Tensor:
    """One pre-norm decoder layer over these tokens; `gate_T` scales both branches (None: 1)."""
    scale_T1 = 1.0 if gate_T is None else gate_T[:, None].to(hidden_TD.dtype)
    attended_TD = naive_attention(layer.self_attn, layer.input_layernorm(hidden_TD), cos_TH, sin_TH)
    hidden_TD = hidden_TD + scale_T1 * attended_TD
    return hidden_TD + scale_T1 * layer.mlp(layer.post_attention_layernorm(hidden_TD))


def naive_forward(
    model: PreTrainedModel, input_ids_T: Tensor, keep_masks: Mapping[int, Tensor] | None = None
) -> tuple[Tensor, dict[int, Tensor]]:
    """((T, V) logits, layer index -> (T,) keep mask) of one row at positions 0 to T-1.

    `keep_masks` replays decisions; without it a token is kept where sigmoid of its router logit reaches `threshold_p`.
    """
    decoder: Any = model.get_decoder()
    hidden_TD = decoder.embed_tokens(input_ids_T)
    positions_1T = torch.arange(len(input_ids_T), device=input_ids_T.device)[None]
    cos_1TH, sin_1TH = decoder.rotary_emb(hidden_TD[None], position_ids=positions_1T)
    used_masks = {}
    for index, layer in enumerate(decoder.layers):
        if not isinstance(layer, RoutedLayer):
            hidden_TD = naive_layer(layer, hidden_TD, None, cos_1TH[0], sin_1TH[0])
            continue
        config = layer.routing.config
        gate_T = torch.sigmoid(layer.router(hidden_TD[None], positions_1T)[0])
        keep_T = gate_T >= config.threshold_p if keep_masks is None else keep_masks[index]
        used_masks[index] = keep_T
        chosen_S = keep_T.nonzero().squeeze(1)
        if len(chosen_S) == 0:
            continue
        gate_S = None if config.gate == "unit" else gate_T[chosen_S]
        kept_SD = naive_layer(layer, hidden_TD[chosen_S], gate_S, cos_1TH[0, chosen_S], sin_1TH[0, chosen_S])
        hidden_TD = hidden_TD.index_put((chosen_S,), kept_SD)
    head: Any = model.get_output_embeddings()
    return head(decoder.norm(hidden_TD)), used_masks
