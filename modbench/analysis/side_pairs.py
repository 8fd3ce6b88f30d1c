"""Records of two sides that were measured side by side -> ln ratios of their pairs.

A quad of one method is A B B A, or B A A B: launches 0 and 1 are a pair of each other, and so are 2 and 3. Both sides carry in
their environment that they belong together: `side_by_side: {id, side}`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from modbench.analysis.pairs import FAMILY_METRICS, ComparisonKey, LatencyMetric, launch_latency
from modbench.analysis.statistics import log_ratios
from modbench.record import SIDE_BY_SIDE, Record


def session_of(record: Record) -> str | None:
    """Identity of the interleaved job that the launch was part of; None for a launch of an ordinary run."""
    facts: Any = record.environment.get(SIDE_BY_SIDE)
    found = facts.get("id") if isinstance(facts, Mapping) else None
    return found if isinstance(found, str) else None


def side_by_side_comparisons(base: Sequence[Record], candidate: Sequence[Record]) -> dict[ComparisonKey, list[float]]:
    """ln(candidate / base) of the pairs of every (cell, method, latency metric), in the order measured.

    A method without an `ok` pair has an empty list; one that only one side knows, or knows as other work, has none.

    Raises:
        ValueError: a latency is not above 0, so that its pair has no ratio.
    """
    candidates = _by_half(candidate)
    bases = _by_half(base)
    keys = [key for key in bases if key in candidates]
    return {
        ComparisonKey(*key, metric): log_ratios(_pairs(bases[key], candidates[key], metric))
        for key in keys
        for metric in FAMILY_METRICS
    }


def _by_half(records: Sequence[Record]) -> dict[tuple[str, str, str], dict[tuple[str, int, int], Record]]:
    """(cell, method, point) -> (session, quad, half of the quad) -> the launch."""
    found: dict[tuple[str, str, str], dict[tuple[str, int, int], Record]] = {}
    for record in records:
        session = session_of(record)
        if session is not None:
            place = (session, record.pair.quad, record.pair.position // 2)
            found.setdefault((record.point.cell_id, record.method, record.point_id), {})[place] = record
    return found


def _pairs(
    base: Mapping[tuple[str, int, int], Record], candidate: Mapping[tuple[str, int, int], Record], metric: LatencyMetric
) -> list[tuple[float, float]]:
    pairs = []
    for place in sorted(place for place in base if place in candidate):
        values = launch_latency(base[place], metric), launch_latency(candidate[place], metric)
        if values[0] is not None and values[1] is not None:
            if min(values[0], values[1]) <= 0:
                raise ValueError(f"{base[place].method}: got a {metric} that is not above 0")
            pairs.append((values[0], values[1]))
    return pairs
