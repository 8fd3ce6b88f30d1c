"""Bytes and kept tokens, which do not vary by chance: equal, more or less. No statistics.

In: the `ok` launches of one method at one cell on both sides. Out: an `ExactResult` per metric that both sides have.

On one machine with the same library versions a metric must be equal to the byte (to a block of the CUDA allocator, for its peak).
Elsewhere rounding can flip a keep decision next to p, so what follows from kept tokens may differ by as many tokens as the
same-work guard counted flips; weights must still be equal, and peaks are shown without a verdict, since they depend on
kernels. A metric that is not the same in all launches of a side decides nothing, unless all of them lie within the allowance.
"""

from dataclasses import dataclass
from typing import Any

from modbench.analysis.matching import Launches, Match
from modbench.analysis.prediction import BYTES_PER_ELEMENT
from modbench.analysis.resources import DETERMINISTIC
from modbench.analysis.statistics import median
from modbench.analysis.verdict import Verdict
from modbench.record import Record

KEEP_RATIOS = ("keep_ratio_prefill", "keep_ratio_decode")
PEAKS = ("peak_live_bytes", "peak_allocated_bytes")
EXACT_METRICS = (*DETERMINISTIC, "peak_allocated_bytes", *KEEP_RATIOS)
ALLOCATOR_BLOCK_BYTES = 512  # torch's CUDA allocator hands out multiples of it
GROWN = (
    "kv_cache_allocated_bytes",
    "kv_cache_allocator_bytes",
)  # buffers that grow by a sixteenth: one token may be a step
GROWTH = 1 / 16
ROUNDING = 1e-9  # of a ratio that is a quotient of two counts
NO_FLIPS = "flip_ratio is not recorded: counted tokens of two machines or versions are compared exactly"


@dataclass(frozen=True)
class ExactResult:
    """The medians of both sides and what follows; `verdict` None where it cannot be judged between these machines."""

    base: float
    candidate: float
    verdict: Verdict | None
    reason: str = ""
    doubts: tuple[str, ...] = ()
    num_values: tuple[int, int] = (0, 0)


def exact_results(match: Match, has_one_machine: bool) -> dict[str, ExactResult]:
    """Metric -> what the two sides have of it.

    Args:
        match: launches of the same work.
        has_one_machine: True if machine and library versions are known and the same on both sides.
    """
    results = {}
    for metric in EXACT_METRICS:
        base, candidate = _values(match.base, metric), _values(match.candidate, metric)
        if base and candidate:
            results[metric] = _result(metric, base, candidate, match, has_one_machine)
    return results


def recorded_metrics(side: Launches) -> set[str]:
    """The metrics that a side has a value of."""
    return {metric for metric in EXACT_METRICS if any(_value(record, metric) is not None for record in side.ok)}


def _values(side: Launches, metric: str) -> list[float]:
    """Every launch's value, without those that have none."""
    return [value for record in side.ok if (value := _value(record, metric)) is not None]


def _value(record: Record, metric: str) -> float | None:
    """What one launch has: a recorded metric, or the mean keep ratio of its routed layers in a phase."""
    if metric not in KEEP_RATIOS:
        return record.metrics.get(metric)
    routed = record.point.settings.get("routed_layers")
    ratios = record.keep_ratio.prefill if metric == "keep_ratio_prefill" else record.keep_ratio.decode
    if not ratios or not isinstance(routed, list) or not routed:
        return None
    return sum(ratios[layer] for layer in routed) / len(routed) if max(routed) < len(ratios) else None


def _result(metric: str, base: list[float], candidate: list[float], match: Match, has_one_machine: bool) -> ExactResult:
    values, counts = (median(base), median(candidate)), (len(base), len(candidate))
    if metric in PEAKS and not has_one_machine:
        reason = "peaks of two machines or versions are not judged"
        return ExactResult(*values, None, reason, num_values=counts)
    has_decisions = bool(match.base.first.point.settings.get("routed_layers")) and metric != "weights_bytes"
    flips = _flip_ratio(match) if has_decisions and not has_one_machine else 0.0
    allowed = _allowance(metric, match.base.first, flips or 0.0)
    doubts = (NO_FLIPS,) if flips is None else ()
    together = (*base, *candidate)
    if max(together) - min(together) <= allowed:
        return ExactResult(*values, Verdict.SAME, "", doubts, counts)
    for side, found in (("base", base), ("candidate", candidate)):
        if max(found) != min(found):
            reason = f"not the same in all launches of the {side}: {min(found):.10g} to {max(found):.10g}"
            return ExactResult(*values, Verdict.INCONCLUSIVE, reason, doubts, counts)
    is_more = values[1] > values[0]
    return ExactResult(*values, Verdict.SLOWER if is_more else Verdict.FASTER, "", doubts, counts)


def _allowance(metric: str, record: Record, flips: float) -> float:
    """How far apart the two sides may lie and still be the same, in the metric's unit; `flips` is a share of all decisions."""
    if metric == "peak_allocated_bytes":
        return ALLOCATOR_BLOCK_BYTES
    if metric in KEEP_RATIOS:
        return max(flips, ROUNDING)
    if metric not in ("kv_cache_bytes", *GROWN) or not flips:
        return 0.0
    growth = GROWTH * (record.metrics.get(metric) or 0) if metric in GROWN else 0.0
    return flips * _decision_bytes(record) + growth


def _decision_bytes(record: Record) -> float:
    """KV-cache bytes of all tokens at the routed layers: what all keep decisions together are about."""
    point = record.point
    routed, element = point.settings.get("routed_layers"), BYTES_PER_ELEMENT.get(point.dtype)
    sizes = [point.workload.get(name) for name in ("context", "batch", "new_tokens")]
    context, batch, new_tokens = sizes
    if not isinstance(routed, list) or element is None or not context or not batch or not new_tokens:
        return 0.0
    per_layer = point.geometry.kv_bytes_per_token(element) / point.geometry.num_hidden_layers
    return len(routed) * per_layer * batch * (context + new_tokens - 1)


def _flip_ratio(match: Match) -> float | None:
    """Share of keep decisions that rounding may have turned, on either side; None where a side has not recorded it."""
    found = [_largest_flip_ratio(side) for side in (match.base, match.candidate)]
    return None if found[0] is None or found[1] is None else found[0] + found[1]


def _largest_flip_ratio(side: Launches) -> float | None:
    values: list[Any] = [record.environment.get("flip_ratio") for record in side.ok]
    known = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return max(known) if known and len(known) == len(values) else None
