"""Readings of a GPU in the background while the work runs, and what they cost.

In: an open device. Out: a `NvmlSummary`. A driver that dies or hangs ends the sampling and nothing else: what was read is kept.
"""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from modbench.profiling.nvml import NvmlDevice, Reading
from modbench.profiling.nvml_summary import NvmlSummary, Tally

INTERVAL_S = 0.1
STOP_TIMEOUT_S = 5.0  # a call into a driver that hangs never returns


class NvmlSampler:
    """A context that reads the device at its start, its end and every `interval_s` in between, in a thread of its own."""

    def __init__(
        self,
        device: NvmlDevice,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
        stop_timeout_s: float = STOP_TIMEOUT_S,
    ) -> None:
        self._device, self._interval_s, self._stop_timeout_s = device, interval_s, stop_timeout_s
        self._clock, self._cpu_clock = clock, cpu_clock
        self._phase: str | None = None
        self._overall, self._phases = Tally(), dict[str, Tally]()
        self._start_s = clock()
        self._end_s: float | None = None
        self._inside_s = self._inside_cpu_s = 0.0
        self._max_reading_s: float | None = None
        self._condition = threading.Condition()
        self._num_wanted = self._num_taken = 0
        self._latest: Reading | None = None
        self._stop, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="nvml-sampler", daemon=True)

    def __enter__(self) -> Self:
        self._start_s = self._clock()
        self._thread.start()
        self.take_reading()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.take_reading()
        self._stop.set()
        self._wake.set()
        self._thread.join(self._stop_timeout_s)
        if self._thread.is_alive():
            self._give_up()
        self._end_s = self._clock()

    def mark(self, name: str | None) -> None:
        """A phase begins (None: what belongs to no phase), and the one before ends. Readings count for the phase they begin in.

        A phase that is shorter than the interval may get none: call `take_reading` at its end, outside the clocks.
        """
        self._phase = name

    def take_reading(self) -> Reading | None:
        """One reading now; None once the driver stopped answering, or does not within `stop_timeout_s`.

        The sampler's thread reads, so that a driver that hangs holds up the caller no longer than that, and only once.
        """
        with self._condition:
            if self._device.died is not None:
                return None
            self._num_wanted += 1
            wanted = self._num_wanted
            self._wake.set()
            if not self._condition.wait_for(lambda: self._num_taken >= wanted, self._stop_timeout_s):
                self._give_up()
            return None if self._device.died is not None else self._latest

    def _give_up(self) -> None:
        self._device.give_up(f"a reading did not end within {self._stop_timeout_s:g} s")

    def _read(self) -> Reading | None:
        """One reading in this thread; one cut short does not count."""
        phase = self._phase
        start_s, start_cpu_s = self._clock(), self._cpu_clock()
        reading = self._device.read()
        cpu_s, wall_s = self._cpu_clock() - start_cpu_s, self._clock() - start_s
        with self._condition:
            if self._device.died is not None:
                return None
            self._inside_s += wall_s
            self._inside_cpu_s += cpu_s
            self._max_reading_s = max(self._max_reading_s or 0.0, wall_s)
            self._overall.add(reading)
            if phase is not None:
                self._phases.setdefault(phase, Tally()).add(reading)
        return reading

    def summary(self) -> NvmlSummary:
        """What was seen so far; of all once the context is left."""
        with self._condition:
            wall_s = (self._clock() if self._end_s is None else self._end_s) - self._start_s
            overall = self._overall.summary()
            unknown = {**self._device.interrupted, **self._device.unsupported}
            if overall.last is not None and overall.last.processes.process_unknown is not None:
                unknown["process_bytes"] = overall.last.processes.process_unknown
            return NvmlSummary(
                overall=overall,
                phases={name: tally.summary() for name, tally in self._phases.items()},
                wall_s=wall_s,
                overhead_ratio=self._inside_s / wall_s if wall_s > 0 else None,
                overhead_cpu_ratio=self._inside_cpu_s / wall_s if wall_s > 0 else None,
                max_reading_s=self._max_reading_s,
                died=self._device.died,
                unknown=unknown,
                doubts=self._device.doubts,
            )

    def _run(self) -> None:
        while self._device.died is None:
            self._wake.wait(self._interval_s)
            with self._condition:
                self._wake.clear()
                wanted = self._num_wanted
            if self._stop.is_set():
                return
            reading = self._read()
            with self._condition:
                self._num_taken, self._latest = wanted, reading
                self._condition.notify_all()
