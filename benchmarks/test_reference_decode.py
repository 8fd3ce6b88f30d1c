"""Decode at 4K to 16K tokens of context on one CPU core, threshold against dense. Targets: docs/performance.md.

Run with: taskset -c 1 .venv/bin/python -m pytest benchmarks/test_reference_decode.py
About 15 minutes, 10 GiB at 16K and batch 8. Keep the machine otherwise idle.
The caches are filled with random keys and values instead of by a prefill, which at 16K would take longer than everything else.
Each sample decodes the same tokens with the same decisions from the same context, in mirrored order: stock dense model on the
stock cache, dense on this project's cache, threshold, threshold, dense, stock. A step's time is its sample's mean.
"""

import time
from statistics import quantiles

import pytest
import torch
from paired_models import PairedModels, keep_masks
from transformers.cache_utils import Cache, DynamicCache

from modbench.analysis.prediction import Ceilings, Keeping, Shares, Work, ideal_speedup
from modbench.presets import PRESETS
from modbench.profiling.ceilings import measure_ceilings
from reference_impl import ModCache
from reference_impl.ragged_layer import RaggedLayer

GEOMETRY = PRESETS["bench-8x512"]
KEEP_RATIO = 1 / 9
NUM_STEPS = 18  # two of them kept per row and routed layer
NUM_ROUNDS = 4  # of two samples per side
TITLE = "Decode on one core, r = 1/9 (targets: 90 % of ideal at batch 1, at least as fast as dense at batch 8)"
HEADER = ("context", "batch", "dense ms/step", "threshold ms/step", "speed-up", "ideal", "of ideal", "stock/threshold")


@pytest.fixture(scope="module")
def models():
    return PairedModels.build(GEOMETRY)


@pytest.fixture(scope="module")
def ceilings():
    return Ceilings(**measure_ceilings(torch.device("cpu"), torch.float32))


def random_states(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def fill(cache: Cache, batch: int, context: int, masks: dict) -> Cache:
    shape = GEOMETRY.kv_heads, GEOMETRY.size_per_head
    for index in range(GEOMETRY.num_hidden_layers):
        if len(cache.layers) > index and isinstance(cache.layers[index], RaggedLayer):
            layer = cache.layers[index]
            layer.begin(batch)
            for row in range(batch):
                kept_T = masks[index][row, :context].nonzero().squeeze(1)
                states = random_states(shape[0], len(kept_T), shape[1])
                layer.append(row, states, states, kept_T)
            layer.advance(context)
        else:
            states = random_states(batch, shape[0], context, shape[1])
            cache.update(states, states, index)
    return cache


def measured_shares(masks: dict, context: int) -> Shares:
    decoded = {layer: mask[:, context:] for layer, mask in masks.items()}
    layers = range(GEOMETRY.num_hidden_layers)
    return Shares(
        prefill=tuple(masks[i][:, :context].float().mean().item() if i in masks else 1.0 for i in layers),
        decode=tuple(decoded[i].float().mean().item() if i in masks else 1.0 for i in layers),
        decode_any=tuple(decoded[i].any(dim=0).float().mean().item() if i in masks else 1.0 for i in layers),
    )


@torch.inference_mode()
def decode(model, cache: Cache, ids_BT: torch.Tensor) -> float:
    """Seconds per step of feeding these tokens one by one; the cache ends as it began."""
    start = time.perf_counter()
    for step in range(ids_BT.shape[1]):
        logits = model(input_ids=ids_BT[:, step : step + 1], past_key_values=cache, use_cache=True).logits
        logits[:, -1].argmax(dim=-1).tolist()
    seconds = time.perf_counter() - start
    cache.crop(-ids_BT.shape[1])
    return seconds / ids_BT.shape[1]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("context", "batch"), [(4096, 1), (8192, 1), (16384, 1), (4096, 8), (8192, 8), (16384, 8)], ids=str
)
def test_decode_reaches_its_ideal_and_is_never_slower_than_dense(models, ceilings, context, batch, benchmark, add_row):
    layers = models.packed.routed_layers
    prompt = keep_masks([KEEP_RATIO] * batch, context, layers)
    continuation = keep_masks([KEEP_RATIO] * batch, NUM_STEPS, layers)
    masks = {layer: torch.cat([prompt[layer], continuation[layer]], dim=1) for layer in layers}
    ids = models.prompt(batch, NUM_STEPS)
    sides = {
        "stock": (models.dense, fill(DynamicCache(config=models.dense.config), batch, context, masks)),
        "dense": (models.dense, fill(ModCache([None] * GEOMETRY.num_hidden_layers), batch, context, masks)),
        "threshold": (models.packed, fill(models.packed.new_cache(), batch, context, masks)),
    }
    samples: dict[str, list[float]] = {name: [] for name in sides}

    def measure(names) -> None:
        for name in names:
            with models.packed.routing.replay(masks):
                samples[name].append(decode(*sides[name], ids))

    measure(sides)  # warm-up: caches grow once, kernels are chosen
    for values in samples.values():
        values.clear()
    benchmark.pedantic(lambda: measure([*sides, *reversed(sides)]), rounds=NUM_ROUNDS)
    step_s = {name: quantiles(values, n=4, method="inclusive")[0] for name, values in samples.items()}
    keeping = Keeping.of(measured_shares(masks, context))
    ideal = ideal_speedup(Work(GEOMETRY, context, batch, NUM_STEPS, 4), keeping, ceilings).decode
    speedup = step_s["dense"] / step_s["threshold"]
    row = {
        "context": f"{context:,}",
        "batch": str(batch),
        "dense ms/step": f"{step_s['dense'] * 1e3:.2f}",
        "threshold ms/step": f"{step_s['threshold'] * 1e3:.2f}",
        "speed-up": f"{speedup:.2f}",
        "ideal": f"{ideal:.2f}",
        "of ideal": f"{speedup / ideal:.0%}",
        "stock/threshold": f"{step_s['stock'] / step_s['threshold']:.2f}",
    }
    benchmark.extra_info.update(row, samples_s=samples)
    add_row(TITLE, HEADER, tuple(row.values()))
