"""The attention function of routed layers: attends to the kept keys and values that their cache holds.

In: projected, rotated states from the stock attention module, and a `RaggedStep` from the routed layer. Out: attention outputs.
Registered with transformers under `VARLEN_ATTENTION`, so the stock module's projections and rotary embedding stay in use.

Shapes: B batch, T tokens, P packed kept tokens, N query heads, G KV heads, H head dim, K stored keys.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from reference_impl.attention import BACKENDS, VarlenInputs, causal_attention, eager_masked, sdpa_masked
from reference_impl.errors import UnsupportedModelError
from reference_impl.packing import Packing
from reference_impl.ragged_layer import RaggedLayer
from reference_impl.ranges import CACHE_APPEND, named_range

VARLEN_ATTENTION = "mod_varlen"


@dataclass(frozen=True)
class IfKept:
    """The keep mask (B, T) bool, and the lengths of the sequences that rows hold, where they hold several."""

    keep_BT: Tensor
    packed_sequences: list[int] | None


@dataclass(frozen=True)
class RaggedStep:
    """What the attention function needs to read kept keys: packed rows, their cache, the backend's name.

    `is_first` says that nothing was stored before this forward. `kept` is None where the queries are the kept tokens; the `kv_only`
    control computes all queries and names the kept ones. With `if_kept` all tokens ask too, each as if it were kept.
    """

    packing: Packing
    cache_layer: RaggedLayer | None
    backend: str
    is_first: bool = False
    kept: Packing | None = None
    if_kept: IfKept | None = None


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
    if ragged.if_kept is not None:
        return _attend_as_if_kept(query, key, value, ragged.if_kept, scale, sliding_window, softcap), None
    if ragged.kept is not None:
        key_rows, value_rows = packing.split_rows(key), packing.split_rows(value)
        return _attend_kept_keys(query, key_rows, value_rows, ragged, scale, sliding_window, softcap), None
    if ragged.is_first and packing.flat_index_P is None and sliding_window is None and softcap is None:
        return causal_attention(query, key, value, scale).transpose(1, 2), None
    query_PNH = query.transpose(1, 2).reshape(-1, query.shape[1], query.shape[-1])
    if cache_layer is None:
        key_rows, value_rows = packing.split_rows(key), packing.split_rows(value)
    else:
        key_rows, value_rows = cache_layer.stored_rows(packing.lengths)
    inputs = VarlenInputs(query_PNH, packing.lengths, key_rows, value_rows, scale, softcap)
    if sliding_window is not None:
        inputs = _windowed(inputs, sliding_window, ragged)
    out_PNH = BACKENDS[ragged.backend].run(inputs)
    return out_PNH.view(*query.transpose(1, 2).shape), None


def _windowed(inputs: VarlenInputs, window: int, ragged: RaggedStep) -> VarlenInputs:
    """The same with the window, and the original index of every query and key."""
    device, cache_layer = inputs.query_PNH.device, ragged.cache_layer
    num_seen = 0 if cache_layer is None else cache_layer.seen
    query_index_rows = [(index_T + num_seen).int() for index_T in ragged.packing.token_index_rows(device)]
    key_index_rows = query_index_rows if cache_layer is None else cache_layer.seen_index_rows(device)
    return replace(inputs, window=window, query_index_rows=query_index_rows, key_index_rows=key_index_rows)


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
        with named_range(CACHE_APPEND):
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


def _attend_as_if_kept(
    query_BNTH: Tensor,
    key_BGTH: Tensor,
    value_BGTH: Tensor,
    if_kept: IfKept,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Every token sees the kept tokens of its sequence up to itself, and itself; (B, T, N, H)."""
    batch, num_tokens = if_kept.keep_BT.shape
    lengths = if_kept.packed_sequences or [num_tokens] * batch
    blocks = [_one_row(states_BNTH).split(lengths, dim=2) for states_BNTH in (query_BNTH, key_BGTH, value_BGTH)]
    outputs = []
    for query, key, value, keep_T in zip(*blocks, if_kept.keep_BT.reshape(-1).split(lengths), strict=True):
        is_past_TT = torch.ones(len(keep_T), len(keep_T), dtype=torch.bool, device=keep_T.device).tril()
        if window is not None:
            is_past_TT = is_past_TT.triu(1 - window)
        is_visible_TT = (is_past_TT & keep_T).fill_diagonal_(True)
        if softcap is None:
            outputs.append(sdpa_masked(query, key, value, mask=is_visible_TT, scale=scale))
        else:
            outputs.append(eager_masked(query, key, value, mask=is_visible_TT, scale=scale, softcap=softcap))
    out_1NPH = torch.cat(outputs, dim=2)
    return out_1NPH.transpose(1, 2).reshape(batch, num_tokens, *out_1NPH.shape[1::2])


def _one_row(states_BNTH: Tensor) -> Tensor:
    """(B, N, T, H) -> (1, N, B * T, H), row after row."""
    return states_BNTH.transpose(0, 1).flatten(1, 2)[None]


AttentionInterface.register(VARLEN_ATTENTION, mod_varlen_attention)
