"""Varlen backends: the CPU path against plain softmax, and what the CUDA paths hand to their kernels (recorded by fakes)."""

import sys
import types
from itertools import pairwise

import pytest
import torch

from reference_impl import attention
from reference_impl.attention import (
    AttentionNeeds,
    VarlenInputs,
    available_backends,
    eager_varlen,
    flash_attn_varlen,
    resolve_backend,
    sdpa_varlen,
    torch_varlen,
)
from reference_impl.errors import UnsupportedModelError
from tests.reference_impl.conftest import FP32_TOLERANCE

ROWS = {"whole": [(4, 4)], "decode": [(1, 6), (1, 1)], "chunk": [(3, 8)], "ragged": [(1, 1), (0, 5), (5, 5), (2, 9)]}


def inputs_for(
    rows: list[tuple[int, int]], heads: int = 4, kv_heads: int = 2, head_dim: int = 12, **settings
) -> VarlenInputs:
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(sum(q for q, _ in rows), heads, head_dim, generator=generator)
    keys, values = (
        [torch.randn(kv_heads, k, head_dim, generator=generator) for _, k in rows] for _ in ("keys", "values")
    )
    # original indices with gaps, as skipped tokens leave them
    key_index = [torch.randperm(3 * k, generator=generator)[:k].sort().values.int() for _, k in rows]
    query_index = [index[k - q :] for index, (q, k) in zip(key_index, rows, strict=True)]
    return VarlenInputs(
        query,
        [q for q, _ in rows],
        keys,
        values,
        0.3,
        query_index_rows=query_index,
        key_index_rows=key_index,
        **settings,
    )


def plain_attention(inputs: VarlenInputs) -> torch.Tensor:
    """Bottom-right causal softmax, one query at a time."""
    outputs, start = [], 0
    rows = zip(inputs.lengths_q, inputs.key_rows, inputs.value_rows, strict=True)
    for row, (length, keys, values) in enumerate(rows):
        groups = inputs.query_PNH.shape[1] // keys.shape[0]
        for offset in range(length):
            newest = keys.shape[1] - length + offset
            visible = list(range(newest + 1))
            if inputs.window is not None:
                index = inputs.key_index_rows[row].tolist()
                visible = [key for key in visible if index[newest] - index[key] < inputs.window]
            heads = []
            for head in range(inputs.query_PNH.shape[1]):
                key, value = keys[head // groups, visible], values[head // groups, visible]
                logits = key @ inputs.query_PNH[start + offset, head] * inputs.scale
                if inputs.softcap is not None:
                    logits = torch.tanh(logits / inputs.softcap) * inputs.softcap
                heads.append(logits.softmax(0) @ value)
            outputs.append(torch.stack(heads))
        start += length
    return torch.stack(outputs)


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_sdpa_varlen_equals_plain_attention(rows, kv_heads):
    inputs = inputs_for(rows, kv_heads=kv_heads)
    torch.testing.assert_close(sdpa_varlen(inputs), plain_attention(inputs), atol=FP32_TOLERANCE, rtol=0)


@pytest.mark.parametrize("block", [2, 1024])
@pytest.mark.parametrize("window", [1, 4, 100])
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_a_window_counts_original_tokens_whatever_the_block(monkeypatch, rows, window, block):
    monkeypatch.setattr(attention, "SDPA_BLOCK", block)
    inputs = inputs_for(rows, window=window)
    torch.testing.assert_close(sdpa_varlen(inputs), plain_attention(inputs), atol=FP32_TOLERANCE, rtol=0)


@pytest.mark.parametrize("block", [2, 128])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_eager_varlen_caps_the_logits(monkeypatch, rows, window, block):
    monkeypatch.setattr(attention, "EAGER_BLOCK", block)
    inputs = inputs_for(rows, window=window, softcap=0.5)
    expected = plain_attention(inputs)
    torch.testing.assert_close(eager_varlen(inputs), expected, atol=FP32_TOLERANCE, rtol=0)
    uncapped = plain_attention(inputs_for(rows, window=window))
    assert not torch.allclose(expected, uncapped, atol=1e-3), "the cap must matter"


def reference_kernel(query, key, value, cu_q, cu_k, scale, softcap=None):
    """What a varlen kernel must compute from packed arguments."""
    rows_k = [key[a:b].transpose(0, 1) for a, b in pairwise(cu_k)]
    rows_v = [value[a:b].transpose(0, 1) for a, b in pairwise(cu_k)]
    return plain_attention(VarlenInputs(query, cu_q.diff().tolist(), rows_k, rows_v, scale, softcap))


def fake_flash_attn(monkeypatch):
    def flash_attn_varlen_func(q, k, v, cu_q, cu_k, max_q, max_k, softmax_scale, causal, softcap):
        assert causal
        assert cu_q.dtype == cu_k.dtype == torch.int32
        assert q.shape[-1] % 8 == 0
        assert (max_q, max_k) == (int(cu_q.diff().max()), int(cu_k.diff().max()))
        return reference_kernel(q, k, v, cu_q, cu_k, softmax_scale, softcap or None)

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


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_flash_attn_is_handed_the_cap(monkeypatch, rows):
    fake_flash_attn(monkeypatch)
    inputs = inputs_for(rows, softcap=0.5)
    torch.testing.assert_close(flash_attn_varlen(inputs), plain_attention(inputs), atol=FP32_TOLERANCE, rtol=0)


def test_cpu_backends_and_those_a_layer_can_use():
    cpu = torch.device("cpu")
    assert available_backends(cpu, torch.float32) == ["sdpa", "eager"]
    assert resolve_backend("auto", cpu, torch.float32) == "sdpa"
    assert resolve_backend("auto", cpu, torch.float32, AttentionNeeds(window=True)) == "sdpa"
    assert resolve_backend("auto", cpu, torch.float32, AttentionNeeds(softcap=True)) == "eager"
    with pytest.raises(UnsupportedModelError, match="got 'torch_varlen'; on cpu"):
        resolve_backend("torch_varlen", cpu, torch.bfloat16)
    with pytest.raises(UnsupportedModelError, match="and a sliding window and a softcap this environment has eager"):
        resolve_backend("sdpa", cpu, torch.float32, AttentionNeeds(window=True, softcap=True))


def test_packed_kernels_are_not_chosen_where_a_window_or_a_cap_is_beyond_them(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda name: object())
    cuda, dtype = torch.device("cuda", 0), torch.bfloat16
    names = {
        needs: available_backends.__wrapped__(cuda, dtype, AttentionNeeds(*needs))
        for needs in [(False, False), (True, False), (False, True)]
    }
    assert names == {
        (False, False): ["flash_attn", "torch_varlen", "sdpa", "eager"],
        (True, False): ["sdpa", "eager"],
        (False, True): ["flash_attn", "eager"],
    }
