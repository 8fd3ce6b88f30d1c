"""What a method's launches kept and occupied: keep ratios, KV-cache and peak memory, and the ideal that follows.

In: the `ok` records of one method at one cell (and of the baseline there). Out: values by metric name, None where unknown.
"""

from collections.abc import Sequence

from modbench.analysis.prediction import (
    BYTES_PER_ELEMENT,
    EVERY_SAVING,
    SAVES,
    Keeping,
    Work,
    ceilings_from,
    ideal_speedup,
    kv_cache_bytes_expected,
    shares_from,
)
from modbench.analysis.statistics import launch_value, median
from modbench.record import Record

RECORDED_MEMORY = (
    "kv_cache_bytes",
    "kv_cache_allocated_bytes",
    "kv_cache_allocator_bytes",
    "weights_bytes",
    "peak_live_bytes",
    "peak_rss_bytes",
    "peak_allocated_bytes",
    "peak_reserved_bytes",
    "peak_device_used_bytes",
    "peak_process_device_bytes",
)
RECORDED_ENERGY = ("energy_j", "energy_above_idle_j", "mean_power_w")
DETERMINISTIC = (
    "kv_cache_bytes",
    "kv_cache_allocated_bytes",
    "kv_cache_allocator_bytes",
    "weights_bytes",
    "peak_live_bytes",
)
PEAK_METRICS = (  # the first one that was measured is the row's peak
    "peak_allocated_bytes",
    "peak_tensor_bytes",
    "peak_rss_bytes",
)
KEEP_PHASES = ("prefill", "decode", "decode_any")

Values = dict[str, float | None]


def memory_values(records: Sequence[Record]) -> Values:
    """The median over launches of every memory metric, in bytes, and what follows from them."""
    values: Values = {name: _median_metric(records, name) for name in RECORDED_MEMORY}
    values["peak_tensor_bytes"] = _sum(values["weights_bytes"], values["peak_live_bytes"])
    values["fragmentation_bytes"] = _sum(values["peak_reserved_bytes"], _negative(values["peak_allocated_bytes"]))
    return values


def peak_metric(values: Values) -> str | None:
    """The name of the peak that stands for this row."""
    return next((name for name in PEAK_METRICS if values[name] is not None), None)


def memory_ratios(values: Values, baseline: Values | None) -> Values:
    """Baseline bytes / method bytes, like with like; and the cache's slack: allocated / occupied - 1."""
    reduction = peak_reduction = None
    occupancy = ratio(values["kv_cache_allocated_bytes"], values["kv_cache_bytes"])
    if baseline is not None:
        reduction = ratio(baseline["kv_cache_bytes"], values["kv_cache_bytes"]) or None  # of no bytes nothing is saved
        shared = (name for name in PEAK_METRICS if values[name] is not None and baseline[name] is not None)
        name = next(shared, None)
        peak_reduction = ratio(baseline[name], values[name]) if name else None
    return {
        "kv_cache_reduction": reduction,
        "peak_memory_reduction": peak_reduction,
        "kv_cache_slack_ratio": None if occupancy is None else occupancy - 1,
    }


def varying_metrics(records: Sequence[Record]) -> list[str]:
    """Names of deterministic metrics that are not the same in every launch that has them."""
    found = {name: {record.metrics.get(name) for record in records} - {None} for name in DETERMINISTIC}
    return [name for name, values in found.items() if len(values) > 1]


def energy_values(records: Sequence[Record]) -> Values:
    """The median over launches of energy per sample and of mean power."""
    return {name: _median_metric(records, name) for name in RECORDED_ENERGY}


def quality_values(records: Sequence[Record]) -> Values:
    """The median over launches of what says how good the model is, where a launch carries it."""
    return {"perplexity": _median_metric(records, "perplexity")}


def device_times(records: Sequence[Record]) -> Values:
    """Time between CUDA events: of a prefill, and per decode step; the median over launches of each one's 25th percentile."""
    prefill = [launch_value(record.samples.prefill_device_s) for record in records if record.samples.prefill_device_s]
    decode = [
        launch_value(record.samples.decode_device_s) / (record.point.workload["new_tokens"] - 1)
        for record in records
        if record.samples.decode_device_s
    ]
    return {
        "ttft_device_s": median(prefill) if prefill else None,
        "tpot_device_s": median(decode) if decode else None,
    }


def keep_values(records: Sequence[Record]) -> Values:
    """Mean keep ratio over the routed layers, per phase; None for methods without routed layers."""
    ratios = routed_keep_ratios(records)
    return {f"keep_ratio_{phase}": _mean(list(ratios.get(phase, {}).values())) for phase in KEEP_PHASES}


def routed_keep_ratios(records: Sequence[Record]) -> dict[str, dict[int, float]]:
    """Per phase, the keep ratio of each routed layer, mean over launches; {} where it is not known."""
    routed = records[0].point.settings.get("routed_layers") if records else None
    layers = [layer for layer in routed if isinstance(layer, int)] if isinstance(routed, list | tuple) else []
    found = {phase: mean_per_layer([getattr(record.keep_ratio, phase) for record in records]) for phase in KEEP_PHASES}
    return {
        phase: {layer: ratios[layer] for layer in layers}
        for phase, ratios in found.items()
        if layers and max(layers) < len(ratios)
    }


def ideal_values(records: Sequence[Record]) -> Values:
    """Ideal speed-ups of these keep ratios on this device, and measured KV bytes / bytes of the kept tokens."""
    names = ("prefill_ideal_speedup", "decode_ideal_speedup", "kv_cache_formula_ratio", "kv_cache_expected_bytes")
    empty: Values = dict.fromkeys(names)
    work = _work(records[0]) if records else None
    keeping = _keeping(records, work) if work else None
    if work is None or keeping is None:
        return empty
    expected = kv_cache_bytes_expected(work, keeping)
    values = {**empty, "kv_cache_expected_bytes": expected}
    values["kv_cache_formula_ratio"] = ratio(_median_metric(records, "kv_cache_bytes"), expected)
    ceilings = next((found for record in records if (found := ceilings_from(record.environment))), None)
    if ceilings is not None:
        ideal = ideal_speedup(work, keeping, ceilings)
        values |= {"prefill_ideal_speedup": ideal.prefill, "decode_ideal_speedup": ideal.decode}
    return values


def saving_realised(speedup: float | None, ideal: float | None) -> float | None:
    """(1 - t / t_dense) / (1 - 1 / ideal): the share of the possible time saving that was made; None where none is possible."""
    if speedup is None or ideal is None or ideal <= 1:
        return None
    return (1 - 1 / speedup) / (1 - 1 / ideal)


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """The quotient; None if either is unknown or the denominator is 0."""
    return numerator / denominator if numerator is not None and denominator else None


def mean_per_layer(launches: Sequence[Sequence[float]]) -> list[float]:
    """Mean over launches, per layer; [] unless all launches report the same number of layers."""
    if not launches or len({len(layers) for layers in launches}) != 1:
        return []
    return [sum(values) / len(values) for values in zip(*launches, strict=True)]


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _median_metric(records: Sequence[Record], name: str) -> float | None:
    values = [value for record in records if (value := record.metrics.get(name)) is not None]
    return median(values) if values else None


def _work(record: Record) -> Work | None:
    point = record.point
    sizes = [point.workload.get(name) for name in ("context", "batch", "new_tokens")]
    element = BYTES_PER_ELEMENT.get(point.dtype)
    context, batch, new_tokens = sizes
    if element is None or not isinstance(context, int) or not isinstance(batch, int) or not isinstance(new_tokens, int):
        return None
    return Work(point.geometry, context, batch, new_tokens, element)


def _keeping(records: Sequence[Record], work: Work) -> Keeping | None:
    """What the method computed and stored, by its kind."""
    ratios = [record.keep_ratio for record in records]
    kept = shares_from(
        mean_per_layer([item.prefill for item in ratios]),
        mean_per_layer([item.decode for item in ratios]),
        mean_per_layer([item.decode_any for item in ratios]),
        work.geometry.num_hidden_layers,
        work.batch,
    )
    return Keeping.of(kept, SAVES.get(records[0].kind, EVERY_SAVING)) if kept else None
