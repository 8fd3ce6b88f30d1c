"""Was the launch disturbed? Context switches against its will, and wall time against CPU time.

In: nothing. Out: rates, and flags that stand beside the numbers and never filter them.
"""

import resource
import time
from dataclasses import dataclass

MAX_SWITCHES_PER_S = 50.0
MAX_WALL_CPU_RATIO = 1.05


@dataclass(frozen=True)
class Contamination:
    """What happened between start and stop of a `ContaminationMeter`."""

    involuntary_switches_per_s: float
    wall_cpu_ratio: float

    def flags(self, is_cpu_bound: bool) -> list[str]:
        """Readable doubts; the wall/CPU ratio means something only where the CPU does the work."""
        found = []
        if self.involuntary_switches_per_s > MAX_SWITCHES_PER_S:
            found.append("contaminated: involuntary context switches")
        if is_cpu_bound and self.wall_cpu_ratio > MAX_WALL_CPU_RATIO:
            found.append("contaminated: wall time exceeds CPU time")
        return found


class ContaminationMeter:
    """Counts from its creation to `stop()`, for this process alone."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.thread_time()
        self._switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw

    def stop(self) -> Contamination:
        """Rates since the start. The ratio is of wall time to the calling thread's CPU time: it works in every phase."""
        wall = max(time.perf_counter() - self._wall, 1e-9)
        cpu = max(time.thread_time() - self._cpu, 1e-9)
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - self._switches
        return Contamination(switches / wall, wall / cpu)
