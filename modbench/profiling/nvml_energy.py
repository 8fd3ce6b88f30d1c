"""Energy from the driver's counter of joules, and how often that counter moves.

In: readings of the counter. Out: joules, or None with the reason. Energy is only ever a difference of the counter; power times time
is not energy, since power is an average over a second on recent GPUs.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from modbench.profiling.nvml import CounterReading, NvmlDevice

MIN_UPDATES = 20  # either end of a window may be stale by one update: at most 1/20 of the window is uncertain
POLL_S = 0.001
NUM_UPDATES = 20
CALIBRATION_LIMIT_S = 5.0


@dataclass(frozen=True)
class UpdateInterval:
    """Seconds between two changes of the energy counter, the median of `num_intervals`; or None and why."""

    interval_s: float | None
    num_intervals: int = 0
    reason: str | None = None


@dataclass(frozen=True)
class Energy:
    """Energy of a window.

    Attributes:
        duration_s: between the two readings.
        total_j: what the counter rose by; None with `reason` saying why.
        above_idle_j: `total_j` without what an idle GPU takes in that time; None where idle power is not known.
    """

    duration_s: float
    total_j: float | None = None
    above_idle_j: float | None = None
    reason: str | None = None

    @property
    def mean_power_w(self) -> float | None:
        """Power over the whole window. Of a window on an idle GPU it is the idle power."""
        return None if self.total_j is None else self.total_j / self.duration_s


def calibrate_update_interval(
    device: NvmlDevice,
    poll_s: float = POLL_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    num_intervals: int = NUM_UPDATES,
    limit_s: float = CALIBRATION_LIMIT_S,
) -> UpdateInterval:
    """Poll the counter until it changed `num_intervals` times after its first change, for at most `limit_s`.

    A change is seen at the poll after it, so the interval is known to about `poll_s`.
    """
    start = now = clock()
    before = device.read_energy().energy_j
    changes: list[float] = []
    while len(changes) <= num_intervals and now - start < limit_s:
        sleep(poll_s)
        energy_j, now = device.read_energy().energy_j, clock()
        if energy_j is None:
            return UpdateInterval(None, reason=device.died or "this driver does not tell the energy counter")
        if energy_j != before:
            changes.append(now)
            before = energy_j
    intervals = [later - earlier for earlier, later in itertools.pairwise(changes)]
    if not intervals:
        return UpdateInterval(None, reason=f"the energy counter changed {len(changes)} times within {limit_s:g} s")
    return UpdateInterval(statistics.median(intervals), len(intervals))


def energy_between(
    start: CounterReading, end: CounterReading, update: UpdateInterval, idle_power_w: float | None = None
) -> Energy:
    """Energy from `start` to `end`, exact to the counter's millijoule; `above_idle_j` where `idle_power_w` is given."""
    duration_s = end.time_s - start.time_s
    if start.energy_j is None or end.energy_j is None:
        return Energy(duration_s, reason="the energy counter was not read at both ends")
    if end.energy_j < start.energy_j:
        return Energy(duration_s, reason="the energy counter went backwards: the driver was loaded again in between")
    if update.interval_s is None:
        return Energy(duration_s, reason=f"the counter's update interval is unknown: {update.reason}")
    needed_s = MIN_UPDATES * update.interval_s
    if duration_s < needed_s:
        reason = f"got a window of {duration_s:.3g} s; expected at least {needed_s:.3g} s, {MIN_UPDATES} updates of the counter"
        return Energy(duration_s, reason=reason)
    total_j = round((end.energy_j - start.energy_j) * 1000) / 1000
    above_idle_j = None if idle_power_w is None else total_j - idle_power_w * duration_s
    return Energy(duration_s, total_j, above_idle_j)
