"""A launch watched by a scripted driver: energy per sample, peaks per phase, doubts; nothing where there is nothing to watch."""

import functools
import time
import types

import pynvml
import pytest
import torch

from modbench.profiling import gpu_watch
from modbench.profiling.gpu_watch import GpuWatch, calibrate
from modbench.profiling.nvml_sampler import NvmlSampler
from tests.modbench.fake_nvml import FakeGpu, FakeNvml, ScriptedClock, State

CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")
GIB = 2**30
IDLE_W, UPDATE_S = 60, 0.1


def counting_gpu(power_w: float, used_bytes: int = 10 * GIB, seconds: float = 60.0) -> FakeGpu:
    """A GPU whose counter rises by `power_w` joules per second, ten times a second."""
    steps = range(int(seconds / UPDATE_S))
    trace = [
        (step * UPDATE_S, State(energy_mj=round(step * UPDATE_S * power_w * 1000), used_bytes=used_bytes))
        for step in steps
    ]
    return FakeGpu(trace=trace)


@pytest.fixture(autouse=True)
def _one_gpu(monkeypatch):
    properties = types.SimpleNamespace(uuid=FakeGpu().uuid.removeprefix("GPU-"))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def calibrated(clock: ScriptedClock) -> dict:
    return calibrate(CUDA, FakeNvml([counting_gpu(IDLE_W)], clock), clock, clock.sleep)


def test_calibration_gives_update_interval_idle_power_and_facts():
    found = calibrated(ScriptedClock())
    assert found["energy_update_interval_s"] == pytest.approx(UPDATE_S, abs=0.002)
    assert found["idle_power_w"] == pytest.approx(IDLE_W, rel=0.06)
    assert found["facts"]["name"] == FakeGpu().name
    assert found["unsupported"] == {}


def test_energy_of_a_sample_is_the_counters_rise_over_all_of_them():
    clock = ScriptedClock()
    nvml = FakeNvml([counting_gpu(300)], clock)
    watch = GpuWatch(CUDA, {"energy_update_interval_s": UPDATE_S, "idle_power_w": 60.0}, nvml, clock)
    with watch:
        for _ in range(5):
            watch.enter("prefill")
            clock.sleep(3.0)
            watch.enter("decode")
            clock.sleep(1.0)
            watch.enter("")
    metrics = watch.metrics(num_samples=5, timed_s=20.0)
    assert metrics["energy_j"] == pytest.approx(300 * 20 / 5, rel=0.01)
    assert metrics["energy_above_idle_j"] == pytest.approx(240 * 20 / 5, rel=0.01)
    assert metrics["mean_power_w"] == pytest.approx(300, rel=0.01)
    assert metrics["peak_device_used_bytes"] == metrics["peak_prefill_device_used_bytes"] == 10 * GIB
    assert metrics["peak_process_device_bytes"] is None
    assert "is not in the driver's list" in watch.facts()["unknown"]["process_bytes"]
    assert metrics["energy_window_ratio"] == pytest.approx(1.0, abs=0.01)
    assert watch.flags(20.0) == []
    assert watch.flags(15.0) == [
        "energy and mean power include pauses between the samples: more than 3 % of their window"
    ]
    assert nvml.num_open == 0


def test_doubts_about_whose_readings_they_are_stand_beside_the_launch():
    clock = ScriptedClock()
    watch = GpuWatch(CUDA, None, FakeNvml([FakeGpu("GPU-other")], clock), clock)
    with watch:
        clock.sleep(1.0)
    assert "GPU readings: CUDA's UUID" in watch.flags(1.0)[0]


def test_a_short_window_has_no_energy_and_says_why():
    clock = ScriptedClock()
    watch = GpuWatch(CUDA, {"energy_update_interval_s": UPDATE_S}, FakeNvml([counting_gpu(300)], clock), clock)
    with watch:
        clock.sleep(1.0)
    assert watch.metrics(1, 1.0)["energy_j"] is None
    assert "expected at least 2 s" in watch.facts()["unknown"]["energy_j"]


def test_a_driver_that_dies_in_the_middle_leaves_what_was_read_and_a_flag():
    clock = ScriptedClock()
    nvml = FakeNvml([counting_gpu(300)], clock, dies_after=60)
    watch = GpuWatch(CUDA, {"energy_update_interval_s": UPDATE_S}, nvml, clock)
    with watch:
        for _ in range(20):
            watch.enter("prefill")
            clock.sleep(1.0)
    metrics = watch.metrics(1, 1.0)
    assert metrics["peak_device_used_bytes"] == 10 * GIB
    assert metrics["energy_j"] is None
    assert "GPU is lost" in " ".join(watch.flags(1.0))


def test_a_driver_that_hangs_holds_a_launch_up_once_and_is_flagged(monkeypatch):
    monkeypatch.setattr(gpu_watch, "NvmlSampler", functools.partial(NvmlSampler, stop_timeout_s=0.05))
    nvml = FakeNvml([counting_gpu(300)], hangs_after=60)
    watch = GpuWatch(CUDA, None, nvml)
    start = time.monotonic()
    with watch:
        for _ in range(20):
            watch.enter("prefill")
    assert time.monotonic() - start < 20, "the fake hangs for 30 s at each call"
    assert "a reading did not end within 0.05 s" in watch.flags(1.0)[-1]
    assert watch.metrics(1, 1.0)["peak_device_used_bytes"] == 10 * GIB
    nvml.release.set()


def test_idle_power_is_known_for_a_counter_that_is_not_quite_steady():
    for offset_s in (0.0, 0.013, 0.041, 0.077):
        clock = ScriptedClock(now=offset_s, tick_s=0.0003)
        assert calibrated(clock)["idle_power_w"] == pytest.approx(IDLE_W, rel=0.06), offset_s


def test_unknown_idle_power_has_a_reason():
    clock = ScriptedClock()
    still = FakeNvml([FakeGpu()], clock)  # its counter never moves
    found = calibrate(CUDA, still, clock, clock.sleep)
    assert found["idle_power_w"] is None
    with GpuWatch(CUDA, found, still, clock) as watch:
        clock.sleep(1.0)
    assert (
        "idle power is unknown: the counter's update interval is unknown"
        in watch.facts()["unknown"]["energy_above_idle_j"]
    )


def test_a_gpu_without_a_driver_is_a_flag_and_a_cpu_is_none():
    nvml = FakeNvml(init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    with GpuWatch(CUDA, calibrate(CUDA, nvml), nvml) as watch:
        watch.enter("prefill")
    assert calibrate(CUDA, nvml) == {"absent": "no NVIDIA driver is installed here (libnvidia-ml not found)"}
    assert watch.flags(1.0) == ["the GPU was not watched: no NVIDIA driver is installed here (libnvidia-ml not found)"]
    assert (watch.metrics(5, 1.0), watch.facts()) == ({}, {})
    with GpuWatch(CPU, calibrate(CPU)) as watch:
        watch.enter("prefill")
    assert (watch.metrics(5, 1.0), watch.flags(1.0), watch.facts()) == ({}, [], {})
