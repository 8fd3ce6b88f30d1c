"""Traced launches -> where the time of each phase went, per cell and method. Pure.

In: `TraceRecord`s. Out: `Breakdowns`; the times are those of traced launches, which are slower than measured ones.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from modbench.trace_record import OWN_COST, PHASES, ROUTING_RANGES, TraceRecord


@dataclass(frozen=True)
class PhaseBreakdown:
    """One phase of one method's traced launch at one cell.

    `seconds` per range add up to the phase: to the prefill, or to one decode step, the mean of those traced. `is_device` says whose
    time they are, the device's or the host's. `slowdown_ratio` is traced / untraced time.
    """

    cell_id: str
    method: str
    phase: str
    seconds: Mapping[str, float]
    is_device: bool
    slowdown_ratio: float | None

    @property
    def total_s(self) -> float:
        """All parts together."""
        return sum(self.seconds.values())

    def share(self, *names: str) -> float | None:
        """The share of these ranges in the phase; None where the phase has none of them."""
        found = [self.seconds[name] for name in names if name in self.seconds]
        return sum(found) / self.total_s if found and self.total_s else None

    @property
    def own_cost_share(self) -> float | None:
        """Router, packing, scattering and cache appends together; None for a method that does not route."""
        return None if self.share(*ROUTING_RANGES) is None else self.share(*OWN_COST)


@dataclass(frozen=True)
class FailedTrace:
    """A traced launch that gave no breakdown."""

    cell_id: str
    method: str
    error: str


@dataclass(frozen=True)
class Breakdowns:
    """All traced launches of a run."""

    phases: tuple[PhaseBreakdown, ...]
    failures: tuple[FailedTrace, ...] = ()


def break_down(traces: Iterable[TraceRecord]) -> Breakdowns | None:
    """The breakdowns of a run; None if nothing was traced."""
    traces = list(traces)
    if not traces:
        return None
    failures = tuple(FailedTrace(trace.cell_id, trace.method, trace.error) for trace in traces if trace.error)
    return Breakdowns(tuple(phase for trace in traces if not trace.error for phase in _phases(trace)), failures)


def _phases(trace: TraceRecord) -> Iterable[PhaseBreakdown]:
    is_device = trace.device_s is not None
    found = trace.host_s if trace.device_s is None else trace.device_s
    for phase in PHASES:
        num_steps = trace.num_decode_steps if phase == "decode" else 1
        if found.get(phase) and num_steps:
            seconds = {name: value / num_steps for name, value in found[phase].items()}
            slowdown_ratio = trace.slowdown_ratio.get(phase)
            yield PhaseBreakdown(trace.cell_id, trace.method, phase, seconds, is_device, slowdown_ratio)
