"""Records of two sides that were measured side by side -> ln ratios of their pairs.

A quad of one method is A B B A, or B A A B: launches 0 and 1 are a pair of each other, and so are 2 and 3. Both sides carry in
their environment that they belong together: `side_by_side: {id, side}`.
"""

from collections.abc import Collection, Mapping, Sequence
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

    A method without an `ok` pair has an empty list; one that only one side knows, or knows as other work, has none. Of a job
    whose sides are not one here and the other there (a folder compared with itself, or both given as one) nothing is paired.

    Raises:
        ValueError: a latency is not above 0, so that its pair has no ratio.
    """
    sides_of = _sides(base), _sides(candidate)
    paired = {session for session in sides_of[0] if _are_opposite(*(sides.get(session, set()) for sides in sides_of))}
    candidates = _by_half(candidate, paired)
    bases = _by_half(base, paired)
    keys = [key for key in bases if key in candidates]
    return {
        ComparisonKey(*key, metric): log_ratios(_pairs(bases[key], candidates[key], metric))
        for key in keys
        for metric in FAMILY_METRICS
    }


def _sides(records: Sequence[Record]) -> dict[str, set[Any]]:
    """Session -> which sides of it the records are of."""
    found: dict[str, set[Any]] = {}
    for record in records:
        session = session_of(record)
        if session is not None:
            found.setdefault(session, set()).add(record.environment[SIDE_BY_SIDE].get("side"))
    return found


def _are_opposite(own: set[Any], other: set[Any]) -> bool:
    return len(own) == len(other) == 1 and own != other


def _by_half(
    records: Sequence[Record], sessions: Collection[str]
) -> dict[tuple[str, str, str], dict[tuple[str, int, int], Record]]:
    """(cell, method, point) -> (session, quad, half of the quad) -> the launch."""
    found: dict[tuple[str, str, str], dict[tuple[str, int, int], Record]] = {}
    for record in records:
        session = session_of(record)
        if session is not None and session in sessions:
            place = (session, record.pair.quad, record.pair.position // 2)
            found.setdefault((record.point.cell_id, record.method, record.point_id), {})[place] = record
    return found


def _pairs(
    base: Mapping[tuple[str, int, int], Record], candidate: Mapping[tuple[str, int, int], Record], metric: LatencyMetric
) -> list[tuple[float, float]]:
    pairs = []
    session_places = {session: index for index, session in enumerate(dict.fromkeys(place[0] for place in base))}
    for place in sorted(base, key=lambda place: (session_places[place[0]], *place[1:])):
        if place not in candidate:
            continue
        values = launch_latency(base[place], metric), launch_latency(candidate[place], metric)
        if values[0] is not None and values[1] is not None:
            if min(values[0], values[1]) <= 0:
                raise ValueError(f"{base[place].method}: got a {metric} that is not above 0")
            pairs.append((values[0], values[1]))
    return pairs
