"""When the clocks run: prefill and decode apart, synchronised, warmed up until stationary.

In: a subject and token ids. Out: `Sample`s in seconds. The clock of a sample starts when the prompt is submitted; TTFT stops when
the first token is on the host, every gap when the next token is. On CUDA reading a token back synchronises the device, and events
on its stream time the span from its first to its last work, gaps included.

Shapes: B batch, T tokens.
"""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

STATIONARY_SPREAD = 0.05  # a warm-up sample within 5 % of the best one before, in both phases, ends the warm-up
MIN_WARMUP = 2
MAX_WARMUP = 10
CUDA_WARMUP_S = 1.0  # clocks rise under load; many samples of a small model can pass before they have
THIS_THREAD = resource.RUSAGE_THREAD if sys.platform == "linux" else resource.RUSAGE_SELF


@dataclass(frozen=True)
class RegionTimes:
    """One phase on every clock.

    Attributes:
        wall_s: host time.
        cpu_s: CPU time of the calling thread.
        device_s: between CUDA events before the first and after the last kernel, idle gaps included; None on a CPU.
        num_involuntary_switches: how often the calling thread lost its core (of the process where the kernel counts no threads).
    """

    wall_s: float
    cpu_s: float
    device_s: float | None
    num_involuntary_switches: int


class RegionClock:
    """Runs from its creation to `stop`. Everything but the host clock is read outside the host clock's time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begin = self._event() if device.type == "cuda" else None
        self._end: Any = None
        self._num_switches = resource.getrusage(THIS_THREAD).ru_nivcsw
        self._cpu_s = time.thread_time()
        self.start_s = time.perf_counter()

    def _event(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def end_device(self) -> None:
        """Note, in stream order, where the device's work ends; before the host waits for it."""
        if self._begin is not None:
            self._end = self._event()

    def stop(self, end_s: float | None = None) -> RegionTimes:
        """The times so far; `end_s` where the host clock was read already. The device is idle by then."""
        wall_s = (time.perf_counter() if end_s is None else end_s) - self.start_s
        cpu_s = time.thread_time() - self._cpu_s
        num_switches = resource.getrusage(THIS_THREAD).ru_nivcsw - self._num_switches
        device_s = None if self._begin is None else self._begin.elapsed_time(self._end) / 1e3
        return RegionTimes(wall_s, cpu_s, device_s, num_switches)


@dataclass(frozen=True)
class Sample:
    """One prefill and its decode: `itl_s` holds every gap after the first token, TTFT not among them."""

    prefill: RegionTimes
    decode: RegionTimes
    itl_s: list[float]

    @property
    def ttft_s(self) -> float:
        """Request submitted to first token on the host."""
        return self.prefill.wall_s

    @property
    def end_to_end_s(self) -> float:
        """Request submitted to last token on the host."""
        return self.ttft_s + sum(self.itl_s)

    @property
    def tpot_s(self) -> float:
        """(end-to-end - TTFT) / (output tokens - 1): the mean gap."""
        return sum(self.itl_s) / len(self.itl_s)


def take_sample(
    subject: Any, prompt_BT: Tensor, continuation_BT: Tensor, on_phase: Callable[[str], None]
) -> tuple[Sample, Any]:
    """Prefill the prompt, then decode teacher-forced on `continuation_BT` (one column per step).

    `on_phase` is called between the phases, outside both clocks. Returns the sample and the final state.
    """
    on_phase("prefill")
    clock = RegionClock(prompt_BT.device)
    logits, state = subject.prefill(prompt_BT)
    token_B = logits[:, -1].argmax(dim=-1)
    clock.end_device()
    token_B.tolist()
    prefill = clock.stop()
    on_phase("decode")
    num_steps, gaps = continuation_BT.shape[1], []
    clock = RegionClock(prompt_BT.device)
    last = clock.start_s
    for step in range(num_steps):
        logits = subject.decode(continuation_BT[:, step : step + 1], state)
        token_B = logits[:, -1].argmax(dim=-1)
        if step == num_steps - 1:
            clock.end_device()
        token_B.tolist()
        now = time.perf_counter()
        gaps.append(now - last)
        last = now
    return Sample(prefill, clock.stop(last), gaps), state


def is_stationary(samples: Sequence[tuple[float, ...]]) -> bool:
    """True when every phase of the newest warm-up sample is within `STATIONARY_SPREAD` of the best one before it."""
    if len(samples) < MIN_WARMUP:
        return False
    best = [min(durations) for durations in zip(*samples[:-1], strict=True)]
    return all(abs(new / old - 1) <= STATIONARY_SPREAD for new, old in zip(samples[-1], best, strict=True))


def warm_up(
    run_once: Callable[[], tuple[float, ...]], wanted: str | int, at_least_s: float = 0.0
) -> tuple[int, bool | None]:
    """Run until stationary (`auto`: for `at_least_s`, then at most `MAX_WARMUP` times more) or `wanted` times.

    Args:
        run_once: gives the durations of one sample's phases in seconds.
        wanted: "auto", or a number of runs.
        at_least_s: how long the device is to be kept busy in any case.

    Returns:
        (runs, whether they became stationary; None for a fixed number, which is the user's word).
    """
    if isinstance(wanted, int):
        for _ in range(wanted):
            run_once()
        return wanted, None
    start = time.perf_counter()
    samples: list[tuple[float, ...]] = []
    while time.perf_counter() - start < at_least_s:
        samples.append(run_once())
    num_bounded = len(samples) + MAX_WARMUP
    while len(samples) < num_bounded and not is_stationary(samples):
        samples.append(run_once())
    return len(samples), is_stationary(samples)


def phase_durations(sample: Sample) -> tuple[float, float]:
    """TTFT and the median gap: what a warm-up compares, of slow single steps it sees nothing."""
    return sample.ttft_s, median(sample.itl_s)
