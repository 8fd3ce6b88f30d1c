"""How long launches took on this machine, and so how long the next ones will take.

In: launches with their wall time. Out: seconds expected of a launch, kept from run to run in the machine cache.

A launch is known by its point. Where only other sizes of the same method at the same settings are known, the nearest one is scaled
with the tokens of a sample. The first launch of a quad starts a server: it is kept apart, and what it takes more is not scaled.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modbench import machine_cache
from modbench.plan import RunSpec, content_hash

KIND, SERVER_KIND = "launch_costs", "server_start_s"
MAX_POINTS = 64  # of a method; the oldest are forgotten
OPENING, LATER = "opening_s", "later_s"  # mean of launches that started a server, and of those that found one


@dataclass(frozen=True)
class Expected:
    """Seconds that a launch will probably take; `is_scaled` where they come from another size."""

    seconds: float
    is_scaled: bool


@dataclass
class LaunchCosts:
    """Durations of launches: of this run where there are any of a point, else of earlier ones on this machine."""

    _series: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    _names: dict[tuple[str, str], str] = field(default_factory=dict)
    _measured: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)

    def add(self, spec: RunSpec, machine: str, seconds: float) -> None:
        """Note and keep what a launch took, from its start to its record, on the machine of this fingerprint."""
        points = self._points(spec, machine)
        kind = OPENING if spec.pair.position == 0 else LATER
        measured = self._measured.setdefault((machine, spec.point_id, kind), [])
        measured.append(seconds)
        mean_s = sum(measured) / len(measured)
        points[spec.point_id] = {**points.pop(spec.point_id, {}), "num_tokens": spec.num_tokens, kind: mean_s}
        newest = dict(list(points.items())[-MAX_POINTS:])
        machine_cache.store(KIND, _series_key(spec, machine), newest)

    def expect(self, spec: RunSpec, machine: str) -> Expected | None:
        """What the launch will take; None where no launch of its method at these settings is known."""
        points = self._points(spec, machine)
        is_opening = spec.pair.position == 0
        if spec.point_id in points:
            known = points[spec.point_id]
            return Expected(_launch_s(known) + _server_s(known) * is_opening, is_scaled=False)
        if not points:
            return None
        nearest = min(points.values(), key=lambda known: abs(math.log(known["num_tokens"] / spec.num_tokens)))
        launch_s = _launch_s(nearest) * spec.num_tokens / nearest["num_tokens"]
        return Expected(launch_s + _server_s(nearest) * is_opening, is_scaled=True)

    def add_server(self, machine: str, seconds: float) -> None:
        """Note and keep what the start of a launch server took on the machine of this fingerprint."""
        machine_cache.store(SERVER_KIND, {"machine": machine}, seconds)

    def server_s(self, machine: str) -> float:
        """What the start of a launch server takes; 0 where none is known."""
        known = machine_cache.load(SERVER_KIND, {"machine": machine})
        return float(known) if isinstance(known, int | float) else 0.0

    def _points(self, spec: RunSpec, machine: str) -> dict[str, dict[str, float]]:
        """What is known of the launch's method at all its sizes, the oldest first; a run measures a point in one way."""
        if (machine, spec.point_id) not in self._names:
            key = _series_key(spec, machine)
            name = self._names[machine, spec.point_id] = content_hash(key)
            if name not in self._series:
                self._series[name] = _sound(machine_cache.load(KIND, key))
        return self._series[self._names[machine, spec.point_id]]


def _series_key(spec: RunSpec, machine: str) -> dict[str, Any]:
    """What launches of other sizes share with this one."""
    return {
        "machine": machine,
        "method": [spec.kind, spec.point.settings],
        "model": spec.point.model,
        "geometry": spec.point.geometry.model_dump(mode="json"),
        "numerics": [spec.point.dtype, spec.point.device_kind, spec.point.attention, spec.point.threads],
        "measure": {name: spec.measure[name] for name in ("samples", "warmup", "start")},
    }


def _launch_s(known: Mapping[str, float]) -> float:
    return known[LATER] if LATER in known else known[OPENING]


def _server_s(known: Mapping[str, float]) -> float:
    return max(0.0, known[OPENING] - known[LATER]) if OPENING in known and LATER in known else 0.0


def _sound(stored: Any) -> dict[str, dict[str, float]]:
    """The stored points; none where another version, or nobody, has stored them."""
    if not isinstance(stored, dict):
        return {}
    return {point_id: known for point_id, known in stored.items() if _is_sound(known)}


def _is_sound(known: Any) -> bool:
    return (
        isinstance(known, dict)
        and all(isinstance(value, int | float) for value in known.values())
        and known.get("num_tokens", 0) > 0
        and (OPENING in known or LATER in known)
    )
