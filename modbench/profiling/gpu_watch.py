"""What the NVIDIA driver sees while a launch takes its samples: memory, energy, clocks, throttling, other processes.

In: a torch device, and what `calibrate` found on it. Out: metrics, flags and facts for the record. On a CPU nothing is watched; of
a GPU whose driver cannot be asked, the reason is a flag.
"""

import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import torch

from modbench.profiling.nvml import NvmlAbsent, NvmlDevice, open_device, pynvml
from modbench.profiling.nvml_energy import (
    MIN_UPDATES,
    Energy,
    UpdateInterval,
    calibrate_update_interval,
    energy_between,
)
from modbench.profiling.nvml_sampler import NvmlSampler
from modbench.profiling.nvml_summary import NvmlSummary, PhaseSummary

NOT_CALIBRATED = "not calibrated"
IDLE_UPDATES = MIN_UPDATES + 2
MAX_WINDOW_RATIO = 1.03  # of the energy's window to the time on the clocks


def open_torch_device(
    device: torch.device, nvml: Any = pynvml, clock: Callable[[], float] = time.monotonic
) -> NvmlDevice | NvmlAbsent | None:
    """The device in NVML, by the UUID that CUDA tells; None for a CPU. `clock` times its readings."""
    if device.type != "cuda":
        return None
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    index = torch.cuda.current_device() if device.index is None else device.index
    visible, order = os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("CUDA_DEVICE_ORDER")
    uuid = None if uuid is None else str(uuid)
    return open_device(index, visible, nvml, uuid=uuid, device_order=order, clock=clock)


def calibrate(
    device: torch.device,
    nvml: Any = pynvml,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any] | None:
    """What the driver tells of an idle device, JSON-ready; None for a CPU.

    Facts, the energy counter's update interval, what is missing, and idle power: the counter's rise over the seconds that the
    calibration takes, nothing running.
    """
    opened = open_torch_device(device, nvml, clock)
    if opened is None:
        return None
    if isinstance(opened, NvmlAbsent):
        return {"absent": opened.reason}
    start = opened.read_energy()
    update = calibrate_update_interval(opened, clock=clock, sleep=sleep)
    if (
        update.interval_s is not None
    ):  # the intervals that were seen may be a little short of the window that energy needs
        sleep(max(0.0, start.time_s + IDLE_UPDATES * update.interval_s - clock()))
    idle = energy_between(start, opened.read_energy(), update)
    opened.read()
    found = {
        "facts": opened.facts(),
        "energy_update_interval_s": update.interval_s,
        "energy_unknown": update.reason,
        "idle_power_w": idle.mean_power_w,
        "idle_power_unknown": idle.reason,
        "unsupported": dict(opened.unsupported),
        "doubts": list(opened.doubts),
    }
    opened.close()
    return found


class GpuWatch:
    """A context around the timed samples. `enter` tells it the phase, outside the clocks."""

    def __init__(
        self,
        device: torch.device,
        calibrated: dict[str, Any] | None,
        nvml: Any = pynvml,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`calibrated` is what `calibrate` found before, in another process; None where it was not asked."""
        found = calibrated or {}
        interval_s = found.get("energy_update_interval_s")
        self._update = UpdateInterval(interval_s, reason=found.get("energy_unknown") or NOT_CALIBRATED)
        self._idle_power_w: float | None = found.get("idle_power_w")
        self._idle_unknown: str | None = found.get("idle_power_unknown")
        opened = open_torch_device(device, nvml, clock)
        self._absent = opened.reason if isinstance(opened, NvmlAbsent) else None
        self._device = opened if isinstance(opened, NvmlDevice) else None
        self._sampler = None if self._device is None else NvmlSampler(self._device)
        self._energy = Energy(0.0, reason=self._absent)

    def __enter__(self) -> Self:
        if self._sampler is not None:
            self._sampler.__enter__()
        return self

    def enter(self, phase: str) -> None:
        """A phase begins ('': none does); the one before gets a last reading."""
        if self._sampler is not None:
            self._sampler.take_reading()
            self._sampler.mark(phase or None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sampler is None or self._device is None:
            return
        self._sampler.__exit__(kind, error, trace)
        self._energy = self._energy_of(self._sampler.summary().overall)
        self._device.close()

    def _energy_of(self, overall: PhaseSummary) -> Energy:
        """From the first reading to the last one, the sampler's own."""
        assert self._device is not None, "there is a sampler"
        if self._device.died is not None or overall.first is None or overall.last is None:
            return Energy(0.0, reason=self._device.died or "the driver gave no reading")
        return energy_between(overall.first, overall.last, self._update, self._idle_power_w)

    def metrics(self, num_samples: int, timed_s: float) -> dict[str, float | int | None]:
        """For the record, once the context is left; {} where nothing was watched.

        Energy is of a sample, prefill and decode, from a window over all of them; `timed_s` is what of it was on the clocks.
        """
        if self._sampler is None:
            return {}
        summary = self._sampler.summary()
        phases = {
            f"peak_{name}_device_used_bytes": phase.peak_device_used_bytes for name, phase in summary.phases.items()
        }
        return {
            **phases,
            "peak_device_used_bytes": summary.overall.peak_device_used_bytes,
            "peak_process_device_bytes": summary.overall.peak_process_bytes,
            "energy_j": _per_sample(self._energy.total_j, num_samples),
            "energy_above_idle_j": _per_sample(self._energy.above_idle_j, num_samples),
            "mean_power_w": self._energy.mean_power_w,
            "energy_window_ratio": None if self._energy.total_j is None else self._energy.duration_s / timed_s,
            **_means(summary),
            "num_gpu_readings": summary.overall.num_readings,
            "sampling_time_ratio": summary.overhead_ratio,
            "sampling_cpu_ratio": summary.overhead_cpu_ratio,
        }

    def flags(self, timed_s: float) -> list[str]:
        """Doubts in words; an absent driver is one on a GPU."""
        if self._absent is not None:
            return [f"the GPU was not watched: {self._absent}"]
        if self._sampler is None:
            return []
        summary = self._sampler.summary()
        flags = [*summary.flags(), *(f"GPU readings: {doubt}" for doubt in summary.doubts)]
        if self._energy.total_j is not None and self._energy.duration_s > MAX_WINDOW_RATIO * timed_s:
            flags.append("energy and mean power include pauses between the samples: more than 3 % of their window")
        return flags

    def facts(self) -> dict[str, Any]:
        """What could not be known, and why; {} where nothing was watched."""
        if self._sampler is None:
            return {}
        unknown = dict(self._sampler.summary().unknown)
        if self._energy.reason is not None:
            unknown["energy_j"] = self._energy.reason
        if self._idle_power_w is None:
            unknown["energy_above_idle_j"] = f"idle power is unknown: {self._idle_unknown or NOT_CALIBRATED}"
        return {"unknown": unknown}


def _per_sample(total: float | None, num_samples: int) -> float | None:
    return None if total is None else total / num_samples


def _means(summary: NvmlSummary) -> dict[str, float | int | None]:
    """Of the readings of all marked phases together; a peak of the temperature."""
    ranges = summary.overall.ranges
    sm_clock, temperature = ranges.get("sm_clock_hz"), ranges.get("temperature_c")
    return {
        "sm_clock_hz": None if sm_clock is None else sm_clock.mean,
        "peak_temperature_c": None if temperature is None else temperature.max,
    }
