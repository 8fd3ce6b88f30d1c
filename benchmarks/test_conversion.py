"""Converting a 7B geometry adds routers and nothing else: seconds, no copy of the weights. Target: docs/performance.md.

Run with: .venv/bin/python -m pytest benchmarks/test_conversion.py
Under a minute. The 13.5 GB of bfloat16 weights are reserved and never written, so they take no memory: the resident set shows
that nothing reads or copies them.
"""

import time

import psutil
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from modbench.methods.hf_model import hf_config
from modbench.presets import PRESETS
from reference_impl import ModConfig, convert

GEOMETRY = PRESETS["llama2-7b"]
BF16_BYTES, FP32_BYTES = 2, 4
MAX_SECONDS = 5.0
MAX_RESIDENT_GROWTH_BYTES = 64 * 2**20  # less than one of the 32 layers
ROUNDS = 3


def untouched_model() -> PreTrainedModel:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(hf_config(GEOMETRY), dtype=torch.bfloat16)
    return model.to_empty(device="cpu").eval()


def resident_bytes() -> int:
    return psutil.Process().memory_info().rss


def addresses(model: PreTrainedModel) -> dict[str, int]:
    return {name: parameter.data_ptr() for name, parameter in model.named_parameters()}


def test_conversion_adds_only_routers(benchmark, add_row):
    models: list[PreTrainedModel] = []
    stock_addresses: list[dict[str, int]] = []
    resident: list[int] = []
    durations: list[float] = []

    def fresh() -> tuple[tuple[PreTrainedModel], dict]:
        models[:] = [untouched_model()]
        stock_addresses.append(addresses(models[0]))
        resident.append(resident_bytes())
        return (models[0],), {}

    def convert_once(model: PreTrainedModel) -> None:
        start = time.perf_counter()
        convert(model, ModConfig())
        durations.append(time.perf_counter() - start)
        resident.append(resident_bytes())

    untouched_bytes = resident_bytes()
    benchmark.pedantic(convert_once, setup=fresh, rounds=ROUNDS)
    growth = [after - before for before, after in zip(resident[::2], resident[1::2], strict=True)]
    model, before, after = models[0], stock_addresses[-1], addresses(models[0])
    added = {name: parameter for name, parameter in model.named_parameters() if name not in before}
    weight_bytes = sum(parameter.nbytes for parameter in model.parameters()) - sum(p.nbytes for p in added.values())
    added_bytes = sum(parameter.nbytes for parameter in added.values())
    benchmark.extra_info.update(weight_bytes=weight_bytes, added_bytes=added_bytes, resident_growth_bytes=growth)
    add_row(
        f"Conversion of llama2-7b, bfloat16 (target: at most {MAX_SECONDS:g} s, only routers added)",
        ("weights GiB", "added KiB", "resident set grows by KiB", "slowest of 3, s"),
        (
            f"{weight_bytes / 2**30:.2f}",
            f"{added_bytes / 2**10:.1f}",
            f"{max(growth) / 2**10:,.0f}",
            f"{max(durations):.4f}",
        ),
    )
    assert weight_bytes == GEOMETRY.num_parameters * BF16_BYTES
    assert {name: after[name] for name in before} == before, "no weight moved"
    assert set(added) == {
        f"model.layers.{layer}.router.{part}" for layer in model.routed_layers for part in ("weight", "bias")
    }
    assert added_bytes == len(model.routed_layers) * (GEOMETRY.hidden_size + 1) * FP32_BYTES
    assert max(growth) < MAX_RESIDENT_GROWTH_BYTES, "no weight was read or copied"
    assert resident_bytes() - untouched_bytes < weight_bytes / 10, "the weights themselves were never written"
    assert max(durations) < MAX_SECONDS
