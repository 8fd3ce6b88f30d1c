"""The reference implementation's hot paths, one by one, on the pytest-benchmark fixture: for before and after a change.

Run with: taskset -c 1 .venv/bin/python -m pytest benchmarks/test_hot_paths.py --benchmark-json after.json
Compare:  .venv/bin/pytest-benchmark compare before.json after.json
Half a minute, one thread. A group holds what does the same work; what is timed is compared with obvious torch first, untimed.

Shapes: B batch, T tokens, P packed kept tokens, N query heads, G KV heads, H head dim, D model dim.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from reference_impl.attention import BACKENDS, VarlenInputs, available_backends
from reference_impl.packing import Packing
from reference_impl.ragged_layer import RaggedLayer
from reference_impl.router import Router, threshold_keep, topk_keep

NUM_TOKENS, MODEL_DIM = 4096, 1024
QUERY_HEADS, KV_HEADS, HEAD_DIM = 16, 4, 64
KEEP_RATIOS = (0.111, 0.5)
FP32_TOLERANCE = 1e-5  # of sums over 4,096 tokens, in another order
BF16_TOLERANCE = 2e-2  # eight bits of mantissa
ROUNDS = 50  # of what needs a fresh cache each time
KERNELS = {"sdpa": "cpu", "flash_attn": "cuda", "torch_varlen": "cuda"}


@pytest.fixture(autouse=True)
def inference():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


@pytest.fixture(name="hidden_BTD")
def hidden_states() -> Tensor:
    return torch.randn(1, NUM_TOKENS, MODEL_DIM)


def keep_mask(keep_ratio: float) -> Tensor:
    """(1, T): round(keep_ratio * T) scattered tokens."""
    keep_BT = torch.zeros(1, NUM_TOKENS, dtype=torch.bool)
    keep_BT[0, torch.randperm(NUM_TOKENS)[: round(keep_ratio * NUM_TOKENS)]] = True
    return keep_BT


def states(num_heads: int, num_tokens: int) -> Tensor:
    return torch.randn(num_heads, num_tokens, HEAD_DIM)


@pytest.mark.benchmark(group="router: scores and keep mask")
@pytest.mark.parametrize("operator", ["threshold", "topk"])
def test_router(benchmark, hidden_BTD, operator):
    router = Router(MODEL_DIM, bias=-1.0, std=1.0)
    choose: dict[str, Callable[[Tensor], Tensor]] = {
        "threshold": lambda logits_BT: threshold_keep(torch.sigmoid(logits_BT), 0.5, None),
        "topk": lambda logits_BT: topk_keep(logits_BT, KEEP_RATIOS[0], None),
    }
    keep_BT = benchmark(lambda: choose[operator](router(hidden_BTD)))
    logits_BT = (hidden_BTD * router.weight).sum(dim=-1) + router.bias
    smallest = 0.0 if operator == "threshold" else logits_BT[0].sort(descending=True).values[keep_BT.sum() - 1].item()
    is_clear_BT = (logits_BT - smallest).abs() > FP32_TOLERANCE
    assert torch.equal(keep_BT[is_clear_BT], (logits_BT >= smallest)[is_clear_BT])
    assert 0 < keep_BT.sum() < NUM_TOKENS


@pytest.mark.parametrize("keep_ratio", KEEP_RATIOS)
def test_pack(benchmark, hidden_BTD, keep_ratio):
    benchmark.group = f"pack: keep mask to packed tokens and lengths, keep ratio {keep_ratio}"
    keep_BT = keep_mask(keep_ratio)

    def pack() -> tuple[list[int], Tensor]:
        packing = Packing.from_mask(keep_BT)
        return packing.lengths, packing.pack(hidden_BTD)

    lengths, packed_1PD = benchmark(pack)
    assert lengths == [round(keep_ratio * NUM_TOKENS)]
    assert torch.equal(packed_1PD[0], hidden_BTD[keep_BT])


@pytest.mark.parametrize("keep_ratio", KEEP_RATIOS)
def test_scatter(benchmark, hidden_BTD, keep_ratio):
    benchmark.group = f"scatter: packed tokens back among the skipped ones, keep ratio {keep_ratio}"
    keep_BT = keep_mask(keep_ratio)
    packing = Packing.from_mask(keep_BT)
    packed_1PD = -packing.pack(hidden_BTD)
    scattered_BTD = benchmark(packing.scatter, hidden_BTD, packed_1PD)
    assert torch.equal(scattered_BTD, torch.where(keep_BT[..., None], -hidden_BTD, hidden_BTD))


@pytest.mark.parametrize("keep_ratio", KEEP_RATIOS)
@pytest.mark.parametrize("backend", KERNELS)
def test_varlen_attention(benchmark, backend, keep_ratio):
    device = torch.device(KERNELS[backend])
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"{backend} needs a CUDA device")
    if backend not in available_backends(device, dtype):
        pytest.skip(f"{backend} is not installed, or the device is older than compute capability 8.0")
    benchmark.group = f"varlen attention, prefill, keep ratio {keep_ratio}"
    num_kept = round(keep_ratio * NUM_TOKENS)
    heads = (QUERY_HEADS, KV_HEADS, KV_HEADS)
    query_NPH, key_GPH, value_GPH = (states(count, num_kept).to(device, dtype) for count in heads)
    inputs = VarlenInputs(query_NPH.transpose(0, 1), [num_kept], [key_GPH], [value_GPH], HEAD_DIM**-0.5)

    def attend() -> Tensor:
        out_PNH = BACKENDS[backend].run(inputs)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return out_PNH

    out_PNH = benchmark(attend).float()
    repeats = QUERY_HEADS // KV_HEADS
    key_NPH, value_NPH = (kept.float().repeat_interleave(repeats, dim=0) for kept in (key_GPH, value_GPH))
    logits_NPP = query_NPH.float() @ key_NPH.transpose(1, 2) * inputs.scale
    is_later_PP = torch.ones(num_kept, num_kept, dtype=torch.bool, device=device).triu(1)
    expected_NPH = logits_NPP.masked_fill(is_later_PP, float("-inf")).softmax(dim=-1) @ value_NPH
    tolerance = FP32_TOLERANCE if dtype == torch.float32 else BF16_TOLERANCE
    assert torch.allclose(out_PNH.transpose(0, 1), expected_NPH, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("keep_ratio", KEEP_RATIOS)
def test_cache_append_at_prefill(benchmark, keep_ratio):
    benchmark.group = f"cache append, prefill, keep ratio {keep_ratio}"
    index_P = keep_mask(keep_ratio)[0].nonzero().squeeze(1)
    key_GPH, value_GPH = states(KV_HEADS, len(index_P)), states(KV_HEADS, len(index_P))

    def fill() -> RaggedLayer:
        layer = RaggedLayer()
        layer.begin(1)
        layer.append(0, key_GPH, value_GPH, index_P)
        layer.advance(NUM_TOKENS)
        return layer

    layer = benchmark.pedantic(fill, rounds=ROUNDS, warmup_rounds=5)
    assert layer.get_seq_length() == NUM_TOKENS
    (keys_GKH,), (values_GKH,) = layer.stored_rows([1])
    assert torch.equal(keys_GKH, key_GPH)
    assert torch.equal(values_GKH, value_GPH)


@pytest.mark.parametrize("keep_ratio", KEEP_RATIOS)
def test_cache_append_at_a_decode_step(benchmark, keep_ratio):
    """One kept token where the buffer has room; what moving the buffer adds is in test_cache_append.py."""
    benchmark.group = f"cache append, one decode step, keep ratio {keep_ratio}"
    num_kept = round(keep_ratio * NUM_TOKENS)
    key_GPH, value_GPH = states(KV_HEADS, num_kept + 2), states(KV_HEADS, num_kept + 2)
    index_1 = torch.zeros(1, dtype=torch.int64)

    def append(layer: RaggedLayer, position: int) -> RaggedLayer:
        layer.begin(1)
        layer.append(0, key_GPH[:, position : position + 1], value_GPH[:, position : position + 1], index_1)
        layer.advance(1)
        return layer

    def filled() -> tuple[tuple[RaggedLayer, int], dict]:
        layer = RaggedLayer()
        layer.begin(1)
        layer.append(0, key_GPH[:, :num_kept], value_GPH[:, :num_kept], torch.arange(num_kept))
        layer.advance(num_kept)
        return (append(layer, num_kept), num_kept + 1), {}  # the first token moves the buffer to where there is room

    layer = benchmark.pedantic(append, setup=filled, rounds=ROUNDS, warmup_rounds=5)
    (keys_GKH,), (values_GKH,) = layer.stored_rows([1])
    assert torch.equal(keys_GKH, key_GPH)
    assert torch.equal(values_GKH, value_GPH)
