"""Varlen backends: the CPU path against plain softmax, and what the CUDA paths hand to their kernels (recorded by fakes)."""

import sys
import types
from itertools import pairwise

import pytest
import torch

from reference_impl.attention import (
    VarlenInputs,
    available_backends,
    flash_attn_varlen,
    resolve_backend,
    sdpa_varlen,
    torch_varlen,
)
from reference_impl.errors import UnsupportedModelError
from tests.reference_impl.conftest import FP32_TOLERANCE

ROWS = {"whole": [(4, 4)], "decode": [(1, 6), (1, 1)], "chunk": [(3, 8)], "ragged": [(1, 1), (0, 5), (5, 5), (2, 9)]}


def inputs_for(rows: list[tuple[int, int]], heads: int = 4, kv_heads: int = 2, head_dim: int = 12) -> VarlenInputs:
    generator = torch.Generator().manual_seed(1)
    return VarlenInputs(
        torch.randn(sum(q for q, _ in rows), heads, head_dim, generator=generator),
        [q for q, _ in rows],
        [torch.randn(kv_heads, k, head_dim, generator=generator) for _, k in rows],
        [torch.randn(kv_heads, k, head_dim, generator=generator) for _, k in rows],
        0.3,
    )


def plain_attention(inputs: VarlenInputs) -> torch.Tensor:
    """Bottom-right causal softmax, one query at a time."""
    outputs, start = [], 0
    for length, keys, values in zip(inputs.lengths_q, inputs.key_rows, inputs.value_rows, strict=True):
        groups = inputs.query_PNH.shape[1] // keys.shape[0]
        for offset in range(length):
            visible = keys.shape[1] - length + offset + 1
            heads = []
            for head in range(inputs.query_PNH.shape[1]):
                key, value = keys[head // groups, :visible], values[head // groups, :visible]
                weights = (key @ inputs.query_PNH[start + offset, head] * inputs.scale).softmax(0)
                heads.append(weights @ value)
            outputs.append(torch.stack(heads))
        start += length
    return torch.stack(outputs)


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_sdpa_varlen_equals_plain_attention(rows, kv_heads):
    inputs = inputs_for(rows, kv_heads=kv_heads)
    torch.testing.assert_close(sdpa_varlen(inputs), plain_attention(inputs), atol=FP32_TOLERANCE, rtol=0)


def reference_kernel(query, key, value, cu_q, cu_k, scale):
    """What a varlen kernel must compute from packed arguments."""
    rows_k = [key[a:b].transpose(0, 1) for a, b in pairwise(cu_k)]
    rows_v = [value[a:b].transpose(0, 1) for a, b in pairwise(cu_k)]
    return plain_attention(VarlenInputs(query, cu_q.diff().tolist(), rows_k, rows_v, scale))


def fake_flash_attn(monkeypatch):
    def flash_attn_varlen_func(q, k, v, cu_q, cu_k, max_q, max_k, softmax_scale, causal):
        assert causal
        assert cu_q.dtype == cu_k.dtype == torch.int32
        assert q.shape[-1] % 8 == 0
        assert (max_q, max_k) == (int(cu_q.diff().max()), int(cu_k.diff().max()))
        return reference_kernel(q, k, v, cu_q, cu_k, softmax_scale)

    module = types.ModuleType("flash_attn")
    module.flash_attn_varlen_func = flash_attn_varlen_func
    monkeypatch.setitem(sys.modules, "flash_attn", module)


def fake_torch_varlen(monkeypatch):
    def varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size):
        assert window_size == (-1, 0), "causal, aligned at the end"
        assert query.shape[1] == key.shape[1], "torch 2.11 has no GQA flag"
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
        assert query.shape[-1] % 8 == 0
        return reference_kernel(query, key, value, cu_seq_q, cu_seq_k, scale)

    module = types.ModuleType("torch.nn.attention.varlen")
    module.varlen_attn = varlen_attn
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", module)


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize(("backend", "fake"), [(flash_attn_varlen, fake_flash_attn), (torch_varlen, fake_torch_varlen)])
def test_cuda_backends_hand_their_kernel_the_right_arguments(monkeypatch, rows, backend, fake):
    fake(monkeypatch)
    inputs = inputs_for(rows)
    torch.testing.assert_close(backend(inputs), plain_attention(inputs), atol=FP32_TOLERANCE, rtol=0)


def test_cpu_has_sdpa_alone_and_absent_backends_are_named():
    cpu = torch.device("cpu")
    assert available_backends(cpu, torch.float32) == ["sdpa"]
    assert resolve_backend("auto", cpu, torch.float32) == "sdpa"
    with pytest.raises(UnsupportedModelError, match="got 'torch_varlen'; on cpu"):
        resolve_backend("torch_varlen", cpu, torch.bfloat16)
