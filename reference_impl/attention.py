"""Variable-length causal attention over kept tokens: three backends behind one signature.

In: `VarlenInputs`, packed queries and, per row, the kept keys and values. Out: (P, N, H). Kept queries see the kept keys up to
themselves; a query block shorter than its keys is aligned at the end (the keys before it are the cache).

Shapes: P packed queries, K keys of a row, N query heads, G KV heads, H head dim.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from reference_impl.errors import UnsupportedModelError

HEAD_DIM_MULTIPLE = 8  # the FlashAttention kernels take no other head dims
HALF_DTYPES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class VarlenInputs:
    """Queries of all rows packed, keys and values per row.

    Attributes:
        query_PNH: queries, rows one after another.
        lengths_q: queries per row; sums to P.
        key_rows, value_rows: per row (G, K, H), stored tokens first, this forward's last; rows without queries may be there.
        scale: factor on the logits.
    """

    query_PNH: Tensor
    lengths_q: list[int]
    key_rows: list[Tensor]
    value_rows: list[Tensor]
    scale: float


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


def sdpa_varlen(inputs: VarlenInputs) -> Tensor:
    """One scaled_dot_product_attention call per row; runs everywhere, and is the CPU path."""
    outputs = []
    for query_TNH, key_GKH, value_GKH in zip(
        inputs.query_PNH.split(inputs.lengths_q), inputs.key_rows, inputs.value_rows, strict=True
    ):
        num_queries, num_keys = query_TNH.shape[0], key_GKH.shape[1]
        if num_queries == 0:
            continue
        mask_TK = None
        if 1 < num_queries < num_keys:  # is_causal aligns at the start, so a continued row needs its own mask
            mask_TK = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query_TNH.device)
            mask_TK = mask_TK.tril(num_keys - num_queries)
        out_1NTH = functional.scaled_dot_product_attention(
            query_TNH.transpose(0, 1)[None],
            key_GKH[None],
            value_GKH[None],
            attn_mask=mask_TK,
            is_causal=num_queries == num_keys and num_queries > 1,
            scale=inputs.scale,
            enable_gqa=query_TNH.shape[1] != key_GKH.shape[0],
        )
        outputs.append(out_1NTH[0].transpose(0, 1))
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
        query, key, value, cu_q, cu_k, max_q, max_k, softmax_scale=inputs.scale, causal=True
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


BACKENDS: dict[str, Callable[[VarlenInputs], Tensor]] = {
    "sdpa": sdpa_varlen,
    "flash_attn": flash_attn_varlen,
    "torch_varlen": torch_varlen,
}


@cache
def available_backends(device: torch.device, dtype: torch.dtype) -> list[str]:
    """Names that can run on this device and dtype here, fastest first."""
    names: list[str] = []
    is_ampere = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    if is_ampere and dtype in HALF_DTYPES:  # the kernels need compute capability 8.0
        names += ["flash_attn"] if importlib.util.find_spec("flash_attn") else []
        names += ["torch_varlen"] if importlib.util.find_spec("torch.nn.attention.varlen") else []
    return [*names, "sdpa"]


def resolve_backend(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """`auto` -> the fastest available backend; a name -> itself.

    Raises:
        UnsupportedModelError: the named backend cannot run here.
    """
    names = available_backends(device, dtype)
    if name == "auto":
        return names[0]
    if name not in names:
        raise UnsupportedModelError(
            f"attention: got {name!r}; on {device.type} with {dtype} this environment has {', '.join(names)}"
        )
    return name
