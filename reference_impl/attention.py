"""Variable-length causal attention over kept tokens: four backends behind one signature.

In: `VarlenInputs`, packed queries and, per row, the kept keys and values. Out: (P, N, H). Kept queries see the kept keys up to
themselves; a query block shorter than its keys is aligned at the end (the keys before it are the cache). A sliding window counts
original tokens, skipped ones included, so it needs the index of every query and key.

Shapes: P packed queries, T queries and K keys of a row, N query heads, G KV heads, R query heads per KV head, H head dim.
"""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from reference_impl.errors import UnsupportedModelError

HEAD_DIM_MULTIPLE = 8  # the FlashAttention kernels take no other head dims
HALF_DTYPES = (torch.float16, torch.bfloat16)
SDPA_BLOCK = 1024  # queries per call where a mask is needed; bounds the mask at SDPA_BLOCK * K
EAGER_BLOCK = 128  # queries per matrix product; bounds the logits at N * EAGER_BLOCK * K


@dataclass(frozen=True)
class AttentionNeeds:
    """What a layer's attention asks of a backend beside causality."""

    window: bool = False
    softcap: bool = False


@dataclass(frozen=True)
class VarlenInputs:
    """Queries of all rows packed, keys and values per row.

    Attributes:
        query_PNH: queries, rows one after another.
        lengths_q: queries per row; sums to P.
        key_rows, value_rows: per row (G, K, H), stored tokens first, this forward's last; rows without queries may be there.
        scale: factor on the logits.
        softcap: c in c * tanh(logits / c), or None.
        window: a query sees keys less than this many original tokens before it; None: all.
        query_index_rows, key_index_rows: per row, ascending original indices (T,) and (K,); read only with a window.
    """

    query_PNH: Tensor
    lengths_q: list[int]
    key_rows: list[Tensor]
    value_rows: list[Tensor]
    scale: float
    softcap: float | None = None
    window: int | None = None
    query_index_rows: list[Tensor] | None = None
    key_index_rows: list[Tensor] | None = None


def causal_attention(query_BNTH: Tensor, key_BGTH: Tensor, value_BGTH: Tensor, scale: float) -> Tensor:
    """Plain causal attention of a block whose rows are all whole: (B, N, T, H), as the stock model computes it."""
    return functional.scaled_dot_product_attention(
        query_BNTH,
        key_BGTH,
        value_BGTH,
        is_causal=query_BNTH.shape[2] > 1,
        scale=scale,
        enable_gqa=query_BNTH.shape[1] != key_BGTH.shape[1],
    )


def sdpa_masked(query_BNTH: Tensor, key_BGKH: Tensor, value_BGKH: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """scaled_dot_product_attention: (B, N, T, H); `mask` broadcasts to (B, N, T, K), True where a key is seen."""
    return functional.scaled_dot_product_attention(
        query_BNTH,
        key_BGKH,
        value_BGKH,
        attn_mask=mask,
        scale=scale,
        enable_gqa=query_BNTH.shape[1] != key_BGKH.shape[1],
    )


def eager_masked(
    query_BNTH: Tensor, key_BGKH: Tensor, value_BGKH: Tensor, mask: Tensor | None, scale: float, softcap: float | None
) -> Tensor:
    """The same with plain matrix products, which alone can cap the logits in between."""
    batch, num_heads, num_queries, head_dim = query_BNTH.shape
    num_kv_heads = key_BGKH.shape[1]
    query_BGRTH = query_BNTH.reshape(batch, num_kv_heads, -1, num_queries, head_dim)
    logits_BGRTK = query_BGRTH @ key_BGKH[:, :, None].transpose(-1, -2) * scale
    if softcap is not None:
        logits_BGRTK = torch.tanh(logits_BGRTK / softcap) * softcap
    if mask is not None:
        logits_BGRTK = logits_BGRTK.masked_fill(~mask, torch.finfo(logits_BGRTK.dtype).min)
    weights_BGRTK = logits_BGRTK.softmax(dim=-1, dtype=torch.float32).to(query_BNTH.dtype)
    return (weights_BGRTK @ value_BGKH[:, :, None]).reshape(batch, num_heads, num_queries, head_dim)


def _visible_keys(
    inputs: VarlenInputs, row: int, num_queries: int, num_keys: int, block: int
) -> Iterator[tuple[slice, slice, Tensor | None]]:
    """(queries, keys, mask (T, K) or None where all are seen) of one row, `block` queries at a time."""
    first_query = num_keys - num_queries  # of the keys, this one is the first query's own
    device = inputs.query_PNH.device
    for start in range(0, num_queries, block):
        end = min(start + block, num_queries)
        last_key = first_query + end
        if inputs.window is None:
            mask_TK = None
            if end - start > 1:
                mask_TK = torch.ones(end - start, last_key, dtype=torch.bool, device=device).tril(first_query + start)
            yield slice(start, end), slice(0, last_key), mask_TK
            continue
        assert inputs.query_index_rows is not None and inputs.key_index_rows is not None, "a window needs indices"
        query_index_T = inputs.query_index_rows[row][start:end]
        key_index_K = inputs.key_index_rows[row][:last_key]
        oldest_T = query_index_T - (inputs.window - 1)
        first_key = int(torch.searchsorted(key_index_K, oldest_T[:1], out_int32=True)) if last_key else 0
        key_index_K = key_index_K[first_key:]
        mask_TK = None
        if end - start > 1:
            mask_TK = (key_index_K <= query_index_T[:, None]) & (key_index_K >= oldest_T[:, None])
        yield slice(start, end), slice(first_key, last_key), mask_TK


def _per_row(
    inputs: VarlenInputs, block: int, attend: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
) -> list[Tensor]:
    """Outputs (T, N, H), in order, of `attend` on one row and block of queries at a time."""
    outputs = []
    rows = zip(inputs.query_PNH.split(inputs.lengths_q), inputs.key_rows, inputs.value_rows, strict=True)
    for row, (query_TNH, key_GKH, value_GKH) in enumerate(rows):
        query_1NTH, key_1GKH, value_1GKH = query_TNH.transpose(0, 1)[None], key_GKH[None], value_GKH[None]
        num_queries, num_keys = query_TNH.shape[0], key_GKH.shape[1]
        for queries, keys, mask_TK in _visible_keys(inputs, row, num_queries, num_keys, block):
            out_1NTH = attend(query_1NTH[:, :, queries], key_1GKH[:, :, keys], value_1GKH[:, :, keys], mask_TK)
            outputs.append(out_1NTH[0].transpose(0, 1))
    return outputs


def sdpa_varlen(inputs: VarlenInputs) -> Tensor:
    """One scaled_dot_product_attention call per row, or per block of queries where a mask is needed; runs everywhere."""
    outputs = []
    if inputs.window is None and all(  # whole rows need no mask
        num_queries in (0, 1, key.shape[1]) for num_queries, key in zip(inputs.lengths_q, inputs.key_rows, strict=True)
    ):
        for query_TNH, key_GKH, value_GKH in zip(
            inputs.query_PNH.split(inputs.lengths_q), inputs.key_rows, inputs.value_rows, strict=True
        ):
            if query_TNH.shape[0]:
                out_1NTH = causal_attention(
                    query_TNH.transpose(0, 1)[None], key_GKH[None], value_GKH[None], inputs.scale
                )
                outputs.append(out_1NTH[0].transpose(0, 1))
    else:
        outputs = _per_row(inputs, SDPA_BLOCK, partial(sdpa_masked, scale=inputs.scale))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def eager_varlen(inputs: VarlenInputs) -> Tensor:
    """Plain matrix products per row and block of queries; for logits that are capped."""
    outputs = _per_row(inputs, EAGER_BLOCK, partial(eager_masked, scale=inputs.scale, softcap=inputs.softcap))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _packed_rows(inputs: VarlenInputs) -> tuple[Tensor, Tensor, Tensor, Tensor, int, int]:
    """Keys and values as (sum of K, G, H), then cu_seqlens_q, cu_seqlens_k (int32) and the two maximum lengths."""
    device = inputs.query_PNH.device
    lengths_k = [key.shape[1] for key in inputs.key_rows]
    key_KGH = torch.cat([key.transpose(0, 1) for key in inputs.key_rows])
    value_KGH = torch.cat([value.transpose(0, 1) for value in inputs.value_rows])
    cu_seqlens_q = torch.tensor([0, *accumulate(inputs.lengths_q)], dtype=torch.int32, device=device)
    cu_seqlens_k = torch.tensor([0, *accumulate(lengths_k)], dtype=torch.int32, device=device)
    return key_KGH, value_KGH, cu_seqlens_q, cu_seqlens_k, max(inputs.lengths_q), max(lengths_k)


def _padded_heads(*tensors: Tensor) -> Sequence[Tensor]:
    """Zeros on the last dim up to the kernels' multiple; they change neither logits nor outputs."""
    missing = -tensors[0].shape[-1] % HEAD_DIM_MULTIPLE
    return tensors if missing == 0 else tuple(functional.pad(tensor, (0, missing)) for tensor in tensors)


def flash_attn_varlen(inputs: VarlenInputs) -> Tensor:
    """The flash-attn package's varlen kernel; CUDA, fp16 or bf16."""
    from flash_attn import flash_attn_varlen_func

    head_dim = inputs.query_PNH.shape[-1]
    key_KGH, value_KGH, cu_q, cu_k, max_q, max_k = _packed_rows(inputs)
    query, key, value = _padded_heads(inputs.query_PNH, key_KGH, value_KGH)
    out_PNH: Tensor = flash_attn_varlen_func(
        query,
        key,
        value,
        cu_q,
        cu_k,
        max_q,
        max_k,
        softmax_scale=inputs.scale,
        causal=True,
        softcap=inputs.softcap or 0.0,
    )
    return out_PNH[..., :head_dim]


def torch_varlen(inputs: VarlenInputs) -> Tensor:
    """torch's built-in varlen kernel (2.11 on); CUDA, fp16 or bf16; KV heads repeated, since 2.11 has no GQA flag."""
    from torch.nn.attention.varlen import varlen_attn

    head_dim = inputs.query_PNH.shape[-1]
    key_KGH, value_KGH, cu_q, cu_k, max_q, max_k = _packed_rows(inputs)
    repeats = inputs.query_PNH.shape[1] // key_KGH.shape[1]
    if repeats > 1:
        key_KGH = key_KGH.repeat_interleave(repeats, dim=1)
        value_KGH = value_KGH.repeat_interleave(repeats, dim=1)
    query, key, value = _padded_heads(inputs.query_PNH, key_KGH, value_KGH)
    out_PNH: Any = varlen_attn(query, key, value, cu_q, cu_k, max_q, max_k, scale=inputs.scale, window_size=(-1, 0))
    return out_PNH[..., :head_dim]


@dataclass(frozen=True)
class Backend:
    """An attention function and what it can do; a window over original tokens is beyond the packed kernels."""

    run: Callable[[VarlenInputs], Tensor]
    windows: bool
    softcaps: bool

    def meets(self, needs: AttentionNeeds) -> bool:
        """Whether it computes what the layer asks for."""
        return (self.windows or not needs.window) and (self.softcaps or not needs.softcap)


BACKENDS = {
    "flash_attn": Backend(flash_attn_varlen, windows=False, softcaps=True),
    "torch_varlen": Backend(torch_varlen, windows=False, softcaps=False),
    "sdpa": Backend(sdpa_varlen, windows=True, softcaps=False),
    "eager": Backend(eager_varlen, windows=True, softcaps=True),
}


@cache
def available_backends(device: torch.device, dtype: torch.dtype, needs: AttentionNeeds = AttentionNeeds()) -> list[str]:
    """Names that can run such a layer on this device and dtype here, fastest first."""
    names: list[str] = []
    is_ampere = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    if is_ampere and dtype in HALF_DTYPES:  # the kernels need compute capability 8.0
        names += ["flash_attn"] if importlib.util.find_spec("flash_attn") else []
        names += ["torch_varlen"] if importlib.util.find_spec("torch.nn.attention.varlen") else []
    return [name for name in (*names, "sdpa", "eager") if BACKENDS[name].meets(needs)]


def resolve_backend(
    name: str, device: torch.device, dtype: torch.dtype, needs: AttentionNeeds = AttentionNeeds()
) -> str:
    """`auto` -> the fastest available backend; a name -> itself.

    Raises:
        UnsupportedModelError: the named backend cannot run here, or not what the layer needs.
    """
    names = available_backends(device, dtype, needs)
    if name == "auto":
        return names[0]
    if name not in names:
        asked = " and ".join(
            text for text, is_asked in (("a sliding window", needs.window), ("a softcap", needs.softcap)) if is_asked
        )
        raise UnsupportedModelError(
            f"attention: got {name!r}; on {device.type} with {dtype}{asked and f' and {asked}'} this environment has "
            f"{', '.join(names)}"
        )
    return name
