"""Peak of live tensors at prefill, threshold against stock dense with the stock cache. Target: docs/performance.md.

Run with: .venv/bin/python -m pytest benchmarks/test_reference_memory.py
Bytes, not seconds: exact and repeatable, whatever else the machine does (modbench/profiling/live_tensors.py). About two minutes.
The target holds up to what a decision itself has to keep, so that r = 1, where nothing is saved, can meet it at all.
"""

import pytest
from paired_models import PairedModels, keep_masks

from modbench.presets import PRESETS
from modbench.profiling.live_tensors import LiveTensorPeak

BENCH = PRESETS["bench-8x512"]
GEOMETRIES = {
    "bench-8x512": BENCH,
    "GQA, 2 KV heads of 8": BENCH.model_copy(update={"num_key_value_heads": 2}),
    "MLP as wide as the model": BENCH.model_copy(update={"intermediate_size": BENCH.hidden_size}),
}
KEEP_RATIOS = (0.0, 1 / 9, 0.5, 0.9, 0.97, 1.0)
CONTEXT = 1024
# per token of a routed layer: its gate (float32) and its index in the cache (int32)
BYTES_PER_DECISION = 4 + 4
# per token, once: flat index (int64) and packed gate (float32) of the layer at work
BYTES_AT_WORK = 8 + 4
TITLE = "Peak of live tensors at prefill, method / dense (target: at most 1, decisions apart)"
HEADER = ("geometry", "batch", "dense MiB", *(f"r = {ratio:.3g}" for ratio in KEEP_RATIOS))


@pytest.fixture(scope="module", params=GEOMETRIES)
def named_models(request):
    return request.param, PairedModels.build(GEOMETRIES[request.param])


def peak_bytes(run, *arguments) -> int:
    with LiveTensorPeak() as peak:
        run(*arguments)
    return peak.peak_bytes


@pytest.mark.parametrize("batch", [1, 4])
def test_prefill_needs_no_more_live_memory_than_dense(named_models, batch, add_row):
    name, models = named_models
    ids = models.prompt(batch, CONTEXT)
    dense = peak_bytes(models.prefill_dense, ids)
    assert dense == peak_bytes(models.prefill_dense, ids), "the measure repeats itself"
    layers = models.packed.routed_layers
    packed = [
        peak_bytes(models.prefill_packed, ids, keep_masks([ratio] * batch, CONTEXT, layers)) for ratio in KEEP_RATIOS
    ]
    add_row(TITLE, HEADER, (name, str(batch), f"{dense / 2**20:.1f}", *(f"{peak / dense:.4f}" for peak in packed)))
    allowed = dense + ids.numel() * (len(layers) * BYTES_PER_DECISION + BYTES_AT_WORK)
    over = {f"{ratio:.3g}": peak / dense for ratio, peak in zip(KEEP_RATIOS, packed, strict=True) if peak > allowed}
    assert not over, f"keep ratio -> method / dense: {over}"
