"""Many readings of a GPU become few numbers, in bounded memory.

In: readings, one by one. Out: ranges, peaks, clock drift, throttle reasons, other processes, and doubts in words that stand beside
the numbers and never filter them.
"""

from collections import Counter
from dataclasses import dataclass, field

from modbench.profiling.nvml import Reading

MAX_CLOCK_DRIFT_RATIO = 0.01
RANGED = (
    "used_bytes",
    "process_bytes",
    "power_w",
    "sm_clock_hz",
    "memory_clock_hz",
    "temperature_c",
    "gpu_utilisation_ratio",
    "memory_utilisation_ratio",
)


@dataclass(frozen=True)
class Range:
    """The known values of one quantity."""

    num: int
    min: float
    mean: float
    max: float


@dataclass(frozen=True)
class PhaseSummary:
    """What was read in one phase, or in all.

    Attributes:
        num_readings: readings taken.
        ranges: of the quantities in `RANGED` that were known in any reading.
        sm_clock_drift_ratio: (highest - lowest) / highest SM clock while the GPU was not idle; None below two readings of it.
        throttle_shares: throttle reason -> its share of the readings in which reasons were known.
        foreign_pids: processes seen that are not ours.
        num_foreign_min: the most processes at once that were surely not ours; None where the driver lists none.
        first: the first reading, for energy over the phase.
        last: the last one.
    """

    num_readings: int = 0
    ranges: dict[str, Range] = field(default_factory=dict)
    sm_clock_drift_ratio: float | None = None
    throttle_shares: dict[str, float] = field(default_factory=dict)
    foreign_pids: tuple[int, ...] = ()
    num_foreign_min: int | None = None
    first: Reading | None = None
    last: Reading | None = None

    @property
    def peak_device_used_bytes(self) -> int | None:
        """The most memory in use on the device by all processes, as sampled: a shorter peak is missed."""
        return self._peak_bytes("used_bytes")

    @property
    def peak_process_bytes(self) -> int | None:
        """The most device memory of our own processes, as sampled; None where it was never known."""
        return self._peak_bytes("process_bytes")

    def _peak_bytes(self, name: str) -> int | None:
        found = self.ranges.get(name)
        return None if found is None else int(found.max)


@dataclass(frozen=True)
class NvmlSummary:
    """All that a sampler saw, and what its looking cost.

    Attributes:
        overall: of every reading.
        phases: of the readings within each marked phase.
        wall_s: from the sampler's start to its end.
        overhead_ratio: wall time inside readings / `wall_s`.
        overhead_cpu_ratio: CPU time of the reading thread inside readings / `wall_s`.
        max_reading_s: the longest reading.
        died: the call and error with which the driver stopped answering; None where it did not.
        unknown: call or quantity -> why it is missing, always or at times.
        doubts: what to know about these values.
    """

    overall: PhaseSummary
    phases: dict[str, PhaseSummary]
    wall_s: float
    overhead_ratio: float | None
    overhead_cpu_ratio: float | None
    max_reading_s: float | None
    died: str | None
    unknown: dict[str, str]
    doubts: tuple[str, ...]

    def flags(self) -> list[str]:
        """Readable doubts.

        Throttling and clocks count within marked phases, and drift within each, since they load the GPU differently; where no
        phase is marked, over all readings.
        """
        watched = list(self.phases.values()) or [self.overall]
        found = []
        reasons = sorted({reason for phase in watched for reason in phase.throttle_shares})
        if reasons:
            found.append(f"throttled: {', '.join(reasons)}")
        num_foreign = max(len(self.overall.foreign_pids), self.overall.num_foreign_min or 0)
        if num_foreign:
            found.append(f"foreign processes on the GPU: {num_foreign}")
        drift_ratio = max(phase.sm_clock_drift_ratio or 0.0 for phase in watched)
        if drift_ratio > MAX_CLOCK_DRIFT_RATIO:
            found.append(f"SM clock drifted by {100 * drift_ratio:.1f} %")
        if self.died is not None:
            found.append(f"the NVIDIA driver stopped answering: {self.died}")
        return found


class _Spread:
    """Count, sum and extremes of the values that are known."""

    def __init__(self) -> None:
        self._num, self._sum = 0, 0.0
        self._min = self._max = 0.0

    def add(self, value: float) -> None:
        self._min = value if self._num == 0 else min(self._min, value)
        self._max = value if self._num == 0 else max(self._max, value)
        self._num, self._sum = self._num + 1, self._sum + value

    def range(self) -> Range | None:
        if self._num == 0:
            return None
        return Range(self._num, self._min, self._sum / self._num, self._max)


class Tally:
    """Takes readings in and forgets them; its size does not grow with their number."""

    def __init__(self) -> None:
        self._num_readings = self._num_with_reasons = 0
        self._spreads = {name: _Spread() for name in RANGED}
        self._busy_clock = _Spread()
        self._reasons: Counter[str] = Counter()
        self._foreign_pids: set[int] = set()
        self._num_foreign: int | None = None
        self._first: Reading | None = None
        self._last: Reading | None = None

    def add(self, reading: Reading) -> None:
        """Count one reading in; what it does not know is left out."""
        self._num_readings += 1
        self._first, self._last = self._first or reading, reading
        for name, spread in self._spreads.items():
            value = getattr(reading, name)
            if value is not None:
                spread.add(value)
        if reading.sm_clock_hz is not None and not reading.is_idle:
            self._busy_clock.add(reading.sm_clock_hz)
        if reading.throttle_reasons is not None:
            self._num_with_reasons += 1
            self._reasons.update(reading.throttle_reasons)
        self._foreign_pids.update(reading.processes.foreign_pids or ())
        if reading.processes.num_foreign_min is not None:
            self._num_foreign = max(self._num_foreign or 0, reading.processes.num_foreign_min)

    def summary(self) -> PhaseSummary:
        """The numbers so far."""
        ranges = ((name, spread.range()) for name, spread in self._spreads.items())
        clock = self._busy_clock.range()
        return PhaseSummary(
            num_readings=self._num_readings,
            ranges={name: found for name, found in ranges if found is not None},
            sm_clock_drift_ratio=None if clock is None or clock.num < 2 else (clock.max - clock.min) / clock.max,
            throttle_shares={reason: num / self._num_with_reasons for reason, num in sorted(self._reasons.items())},
            foreign_pids=tuple(sorted(self._foreign_pids)),
            num_foreign_min=self._num_foreign,
            first=self._first,
            last=self._last,
        )
