"""δ, the change that a verdict must show: per latency metric the larger of the tolerance and the noise floor that records carry.

The floor of the machine stands in the record of every launch (`noise_floor`, by metric), as it was known when it ran, so that a
report made again from the same records says the same.
"""

from collections.abc import Iterable, Mapping

from modbench.analysis.pairs import FAMILY_METRICS
from modbench.analysis.verdict import margin
from modbench.record import NOISE_FLOOR, Record


def recorded_floors(records: Iterable[Record]) -> dict[str, float]:
    """The largest noise floor per latency metric, as shares; without those that no record has."""
    floors: dict[str, float] = {}
    for record in records:
        found = record.environment.get(NOISE_FLOOR)
        for metric, value in found.items() if isinstance(found, Mapping) else ():
            if metric not in FAMILY_METRICS:
                continue
            if isinstance(value, int | float) and not isinstance(value, bool):
                floors[metric] = max(float(value), floors.get(metric, 0.0))
    return floors


def margins_of(tolerance: float, floors: Mapping[str, float]) -> dict[str, float]:
    """δ of every latency metric, as shares."""
    return {metric: margin(tolerance, floors.get(metric)) for metric in FAMILY_METRICS}
