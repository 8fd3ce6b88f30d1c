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
from modbench.analysis.statistics import median
from modbench.record import Record

MEMORY_METRICS = (
    "kv_cache_bytes",
    "kv_cache_allocated_bytes",
    "peak_rss_bytes",
    "peak_allocated_bytes",
    "peak_device_used_bytes",
)
PEAK_METRICS = ("peak_allocated_bytes", "peak_rss_bytes")  # the first one that was measured is the row's peak

Values = dict[str, float | None]


def memory_values(records: Sequence[Record]) -> Values:
    """The median over launches of every memory metric, in bytes."""
    return {name: _median_metric(records, name) for name in MEMORY_METRICS}


def peak_metric(values: Values) -> str | None:
    """The name of the peak that stands for this row."""
    return next((name for name in PEAK_METRICS if values[name] is not None), None)


def memory_ratios(values: Values, baseline: Values | None) -> Values:
    """Baseline bytes / method bytes, like with like; and the cache's slack: allocated / occupied - 1."""
    reduction = peak_reduction = None
    occupancy = ratio(values["kv_cache_allocated_bytes"], values["kv_cache_bytes"])
    if baseline is not None:
        reduction = ratio(baseline["kv_cache_bytes"], values["kv_cache_bytes"])
        shared = (name for name in PEAK_METRICS if values[name] is not None and baseline[name] is not None)
        name = next(shared, None)
        peak_reduction = ratio(baseline[name], values[name]) if name else None
    return {
        "kv_cache_reduction": reduction,
        "peak_memory_reduction": peak_reduction,
        "kv_cache_slack_ratio": None if occupancy is None else occupancy - 1,
    }


def varying_metrics(records: Sequence[Record]) -> list[str]:
    """Names of deterministic metrics that are not the same in every launch."""
    names = ("kv_cache_bytes", "kv_cache_allocated_bytes")
    return [name for name in names if len({record.metrics.get(name) for record in records}) > 1]


def keep_values(records: Sequence[Record]) -> Values:
    """Mean keep ratio over the routed layers, per phase; None for methods without routed layers."""
    ratios = routed_keep_ratios(records)
    return {f"keep_ratio_{phase}": _mean(list(ratios.get(phase, {}).values())) for phase in ("prefill", "decode")}


def routed_keep_ratios(records: Sequence[Record]) -> dict[str, dict[int, float]]:
    """Per phase, the keep ratio of each routed layer, mean over launches; {} where it is not known."""
    routed = records[0].point.settings.get("routed_layers") if records else None
    layers = [layer for layer in routed if isinstance(layer, int)] if isinstance(routed, list | tuple) else []
    found = {
        "prefill": mean_per_layer([record.keep_ratio.prefill for record in records]),
        "decode": mean_per_layer([record.keep_ratio.decode for record in records]),
    }
    return {
        phase: {layer: ratios[layer] for layer in layers}
        for phase, ratios in found.items()
        if layers and max(layers) < len(ratios)
    }


def ideal_values(records: Sequence[Record]) -> Values:
    """Ideal speed-ups of these keep ratios on this device, and measured KV bytes / bytes of the kept tokens."""
    empty: Values = {"prefill_ideal_speedup": None, "decode_ideal_speedup": None, "kv_cache_formula_ratio": None}
    work = _work(records[0]) if records else None
    keeping = _keeping(records, work) if work else None
    if work is None or keeping is None:
        return empty
    formula = kv_cache_bytes_expected(work, keeping)
    values = {**empty, "kv_cache_formula_ratio": ratio(_median_metric(records, "kv_cache_bytes"), formula)}
    ceilings = next((found for record in records if (found := ceilings_from(record.environment))), None)
    if ceilings is not None:
        ideal = ideal_speedup(work, keeping, ceilings)
        values |= {"prefill_ideal_speedup": ideal.prefill, "decode_ideal_speedup": ideal.decode}
    return values


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """The quotient; None if either is unknown or the denominator is 0."""
    return numerator / denominator if numerator is not None and denominator else None


def mean_per_layer(launches: Sequence[Sequence[float]]) -> list[float]:
    """Mean over launches, per layer; [] unless all launches report the same number of layers."""
    if not launches or len({len(layers) for layers in launches}) != 1:
        return []
    return [sum(values) / len(values) for values in zip(*launches, strict=True)]


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
