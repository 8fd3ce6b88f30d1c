"""The attention function of routed layers: stores kept keys and values, then attends to what is stored.

In: projected, rotated states from the stock attention module, and a `RaggedStep` from the routed layer. Out: attention outputs.
Registered with transformers under `VARLEN_ATTENTION`, so the stock module's projections and rotary embedding stay in use.

Shapes: B batch, T tokens, P packed kept tokens, N query heads, G KV heads, H head dim, K stored keys.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from reference_impl.attention import BACKENDS, VarlenInputs, causal_attention, eager_masked, sdpa_masked
from reference_impl.errors import UnsupportedModelError
from reference_impl.kv_cache import RaggedLayer
from reference_impl.packing import Packing

VARLEN_ATTENTION = "mod_varlen"


@dataclass(frozen=True)
class RaggedStep:
    """What the attention function needs to store and read kept keys: packed rows, their cache, the backend's name.

    `kept` is None where the queries are the kept tokens; the `kv_only` control computes all queries and names the kept ones.
    """

    packing: Packing
    cache_layer: RaggedLayer | None
    backend: str
    kept: Packing | None = None


def mod_varlen_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    ragged: RaggedStep | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function of routed layers, called by the stock attention module after its projections and rotary embedding.

    Args:
        module: the stock attention module.
        query: (1, N, P, H) packed, or (B, N, T, H) where all tokens are queries; `key` and `value` likewise with G heads.
        attention_mask: None; padding was already dropped.
        dropout: must be 0 (our choice: no supported family trains with attention dropout).
        scaling: factor on the logits; default 1/sqrt(H).
        sliding_window: a query sees keys less than this many original tokens before it, skipped tokens counted (our choice).
        softcap: c in c * tanh(logits / c).
        ragged: the rows and their cache, from the routed layer.
        kwargs: what the stock module passes along and this function does not use.

    Returns:
        ((1, P, N, H) or (B, T, N, H), None).

    Raises:
        UnsupportedModelError: dropout is asked for.
    """
    assert ragged is not None, f"{type(module).__name__} is routed and must be called by its routed layer"
    if dropout:
        raise UnsupportedModelError(f"attention_dropout: got {dropout}; routed layers support 0")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    packing, cache_layer = ragged.packing, ragged.cache_layer
    num_seen = 0 if cache_layer is None else cache_layer.seen
    if sliding_window is not None and num_seen + packing.num_tokens <= sliding_window:
        sliding_window = None  # too few tokens for it to hide one
    if ragged.kept is not None:
        key_rows, value_rows = _split_rows(key, packing), _split_rows(value, packing)
        return _attend_kept_keys(query, key_rows, value_rows, ragged, scale, sliding_window, softcap), None
    is_first = cache_layer is None or not any(cache_layer.lengths())
    if packing.flat_index_P is None and is_first and sliding_window is None and softcap is None:
        if cache_layer is not None:
            _store(cache_layer, list(key), list(value), packing)
        return causal_attention(query, key, value, scale).transpose(1, 2), None
    query_PNH = query.transpose(1, 2).reshape(-1, query.shape[1], query.shape[-1])
    key_rows, value_rows = _split_rows(key, packing), _split_rows(value, packing)
    if cache_layer is not None:
        key_rows, value_rows = _store(cache_layer, key_rows, value_rows, packing)
    query_index_rows = key_index_rows = None
    if sliding_window is not None:
        query_index_rows = [(index_T + num_seen).int() for index_T in packing.token_index_rows(query.device)]
        key_index_rows = query_index_rows if cache_layer is None else cache_layer.seen_index_rows(query.device)
    inputs = VarlenInputs(
        query_PNH,
        packing.lengths,
        key_rows,
        value_rows,
        scale,
        softcap,
        sliding_window,
        query_index_rows,
        key_index_rows,
    )
    out_PNH = BACKENDS[ragged.backend].run(inputs)
    return out_PNH.view(*query.transpose(1, 2).shape), None


def _split_rows(states: Tensor, packing: Packing) -> list[Tensor]:
    """(1, G, P, H) packed or (B, G, T, H) -> one (G, kept, H) view per row."""
    return list(states) if packing.flat_index_P is None else list(states[0].split(packing.lengths, dim=1))


def _store(
    cache_layer: RaggedLayer, key_rows: list[Tensor], value_rows: list[Tensor], packing: Packing
) -> tuple[list[Tensor], list[Tensor]]:
    """Append each row's new keys and values; return views of everything kept so far, for rows with new tokens.

    Rows without new tokens have no query, so their keys are left out of what the backend reads (an empty stand-in).
    """
    token_index = packing.token_index_rows(key_rows[0].device)
    all_keys, all_values = [], []
    for row, (key_GTH, value_GTH) in enumerate(zip(key_rows, value_rows, strict=True)):
        if key_GTH.shape[1]:
            cache_layer.append(row, key_GTH, value_GTH, token_index[row])
            stored = cache_layer.rows[row]
            assert stored.keys is not None and stored.values is not None, "a row with tokens has buffers"
            key_GTH, value_GTH = stored.keys[:, : stored.length], stored.values[:, : stored.length]
        all_keys.append(key_GTH)
        all_values.append(value_GTH)
    return all_keys, all_values


def _attend_kept_keys(
    query_BNTH: Tensor,
    key_rows: list[Tensor],
    value_rows: list[Tensor],
    ragged: RaggedStep,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """`kv_only`: every token asks, kept keys answer, causal by seen index; (B, T, N, H)."""
    kept = ragged.kept
    assert kept is not None, "only the kv_only control comes here"
    cache_layer = ragged.cache_layer if ragged.cache_layer is not None else RaggedLayer()
    cache_layer.begin(kept.batch)
    query_index_T = torch.arange(kept.num_tokens, device=query_BNTH.device) + cache_layer.seen
    outputs = []
    for row, index_T in enumerate(kept.token_index_rows(query_BNTH.device)):
        cache_layer.append(row, key_rows[row][:, index_T], value_rows[row][:, index_T], index_T)
        stored = cache_layer.rows[row]
        assert stored.keys is not None and stored.values is not None, "append made the buffers"
        assert stored.seen_index is not None, "append made the buffers"
        seen_index_K = stored.seen_index[: stored.length]
        is_visible_TK = seen_index_K <= query_index_T[:, None]
        if window is not None:
            is_visible_TK &= seen_index_K > query_index_T[:, None] - window
        blocks = (query_BNTH[row][None], stored.keys[None, :, : stored.length], stored.values[None, :, : stored.length])
        if softcap is None:
            outputs.append(sdpa_masked(*blocks, mask=is_visible_TK, scale=scale))
        else:
            outputs.append(eager_masked(*blocks, mask=is_visible_TK, scale=scale, softcap=softcap))
    return torch.cat(outputs).transpose(1, 2)


AttentionInterface.register(VARLEN_ATTENTION, mod_varlen_attention)
