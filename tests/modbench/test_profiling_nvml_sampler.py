"""Sampling in the background: phases, peaks, drift, flags, the cost of looking, and drivers that die or hang on the way."""

import threading

import pynvml
import pytest

from modbench.profiling.nvml import NvmlDevice, open_device
from modbench.profiling.nvml_sampler import NvmlSampler
from modbench.profiling.nvml_summary import Range
from tests.modbench.fake_nvml import FakeGpu, FakeNvml, ScriptedClock, State

GIB = 2**30
NEVER_S = 3600.0  # the thread of a scripted sampler reads nothing: its readings are taken by hand
SOON_S = 0.001


def opened(nvml: FakeNvml) -> NvmlDevice:
    device = open_device(0, None, nvml, clock=nvml.clock, own_pids={10})
    assert isinstance(device, NvmlDevice)
    return device


def replay(*states: State, **changes) -> FakeNvml:
    """One state per second."""
    return FakeNvml([FakeGpu(trace=[(float(second), state) for second, state in enumerate(states)])], **changes)


def sample_each_second(nvml: FakeNvml, phases: list[str | None]) -> NvmlSampler:
    """A reading at every second, in the phase given for it. The sampler's own are the first, in no phase, and the last."""
    assert phases[0] is None
    sampler = NvmlSampler(opened(nvml), NEVER_S, nvml.clock, ScriptedClock())
    with sampler:
        for second, phase in enumerate(phases[1:], start=1):
            nvml.clock.sleep(1.0)
            sampler.mark(phase)
            if second < len(phases) - 1:
                sampler.take_reading()
    return sampler


def test_readings_belong_to_the_phase_they_begin_in():
    used = [1, 2, 7, 9, 3, 8, 1]
    states = [State(used_bytes=num * GIB, compute=((10, num * GIB - 5),)) for num in used]
    phases = [None, "prefill", "prefill", "decode", "decode", None, None]
    summary = sample_each_second(replay(*states), phases).summary()
    assert summary.overall.num_readings == 7
    assert {name: phase.num_readings for name, phase in summary.phases.items()} == {"prefill": 2, "decode": 2}
    assert summary.overall.peak_device_used_bytes == 9 * GIB
    assert summary.phases["prefill"].peak_device_used_bytes == 7 * GIB
    assert summary.phases["decode"].peak_process_bytes == 9 * GIB - 5
    assert summary.wall_s == 6.0
    assert summary.flags() == []
    prefill = summary.phases["prefill"]
    assert (prefill.first.time_s, prefill.last.time_s) == (1.0, 2.0)


def test_a_phase_that_begins_during_a_reading_does_not_get_it():
    nvml = FakeNvml()
    with NvmlSampler(opened(nvml), NEVER_S, nvml.clock, ScriptedClock()) as sampler:
        sampler.mark("prefill")
        nvml.hangs_after = nvml.calls.total()
        nvml.release.wait = lambda timeout: sampler.mark("decode")  # during the calls of the reading
        sampler.take_reading()
        assert set(sampler.summary().phases) == {"prefill"}


def test_ranges_are_of_what_was_known():
    states = [
        State(sm_mhz=clock, temperature_c=heat, instant_mw=power)
        for clock, heat, power in [(1000, 40, 100_000), (1500, 50, 300_000), (2000, 63, 200_000)]
    ]
    ranges = sample_each_second(replay(*states), [None] * 3).summary().overall.ranges
    assert ranges["sm_clock_hz"] == Range(3, 1e9, 1.5e9, 2e9)
    assert ranges["temperature_c"] == Range(3, 40, 51, 63)
    assert ranges["power_w"] == Range(3, 100.0, 200.0, 300.0)
    assert "process_bytes" not in ranges


def test_clock_drift_is_within_a_phase_and_not_of_an_idle_gpu():
    idle = State(sm_mhz=345, event_bits=0x1)
    states = [State(sm_mhz=1000), idle, State(sm_mhz=1980), State(sm_mhz=1950), State(sm_mhz=1500)]
    summary = sample_each_second(replay(*states), [None, "prefill", "prefill", "prefill", "decode"]).summary()
    assert summary.phases["prefill"].sm_clock_drift_ratio == pytest.approx(30 / 1980)
    assert summary.phases["decode"].sm_clock_drift_ratio is None, "one reading does not drift"
    assert summary.flags() == ["SM clock drifted by 1.5 %"]


def test_a_drift_of_one_percent_is_no_flag():
    summary = sample_each_second(replay(State(sm_mhz=2000), State(sm_mhz=1980)), [None, None]).summary()
    assert summary.overall.sm_clock_drift_ratio == pytest.approx(0.01)
    assert summary.flags() == []


def test_throttling_is_flagged_where_it_was_measured_with_its_share():
    states = [State(event_bits=0x40), State(), State(event_bits=0x4), State(event_bits=0x24), State(event_bits=0x1)]
    summary = sample_each_second(replay(*states), [None, "decode", "decode", "decode", "decode"]).summary()
    assert summary.phases["decode"].throttle_shares == {"software power cap": 0.5, "software thermal slowdown": 0.25}
    assert summary.overall.throttle_shares["hardware thermal slowdown"] == 0.2
    assert summary.flags() == ["throttled: software power cap, software thermal slowdown"]


def test_foreign_processes_are_flagged_wherever_they_were_seen():
    ours = (10, GIB)
    states = [State(compute=(ours, (20, GIB))), State(compute=(ours,), graphics=((30, None),)), State(compute=(ours,))]
    summary = sample_each_second(replay(*states), [None, None, "decode"]).summary()
    assert summary.overall.foreign_pids == (20, 30)
    assert summary.flags() == ["foreign processes on the GPU: 2"]


def test_in_a_container_only_surely_foreign_processes_are_flagged():
    alone = sample_each_second(replay(*[State(compute=((4001, GIB),))] * 2), [None, None]).summary()
    assert alone.flags() == []
    assert alone.overall.peak_process_bytes is None
    assert alone.unknown["process_bytes"].startswith("process 10 is not in the driver's list")
    shared = sample_each_second(replay(*[State(compute=((4001, GIB), (4002, GIB)))] * 2), [None, None]).summary()
    assert shared.flags() == ["foreign processes on the GPU: 1"]


def test_the_cost_of_looking_is_measured():
    nvml = FakeNvml()
    device = opened(nvml)
    device.read()
    num_calls = nvml.calls.total()
    device.read()
    calls_per_reading = nvml.calls.total() - num_calls
    nvml.call_s = 0.25
    cpu_clock = ScriptedClock(tick_s=0.5)  # every reading looks twice
    sampler = NvmlSampler(device, NEVER_S, nvml.clock, cpu_clock)
    with sampler:
        nvml.clock.sleep(100.0)
        nvml.call_s = 1.0
        sampler.take_reading()
        nvml.call_s = 0.25
    summary = sampler.summary()
    inside_s = calls_per_reading * 1.5
    assert summary.max_reading_s == calls_per_reading
    assert summary.wall_s == 100.0 + inside_s
    assert summary.overhead_ratio == inside_s / summary.wall_s
    assert summary.overhead_cpu_ratio == 1.5 / summary.wall_s


def test_missing_calls_are_in_the_summary_with_their_reasons():
    nvml = replay(
        State(), State(), unsupported={"nvmlDeviceGetTotalEnergyConsumption": pynvml.NVML_ERROR_NOT_SUPPORTED}
    )
    summary = sample_each_second(nvml, [None, None]).summary()
    assert summary.unknown["nvmlDeviceGetTotalEnergyConsumption"] == "Not Supported"
    assert summary.overall.first.energy_j is None


@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_UNKNOWN, pynvml.NVML_ERROR_TIMEOUT])
def test_a_driver_that_dies_keeps_what_was_read(error):
    nvml = replay(*[State(used_bytes=num * GIB) for num in (3, 5, 9, 11)])
    sampler = NvmlSampler(opened(nvml), NEVER_S, nvml.clock, ScriptedClock())
    with sampler:
        nvml.clock.sleep(1.0)
        sampler.take_reading()
        nvml.clock.sleep(1.0)
        nvml.dies_after, nvml.dies_with = nvml.calls.total() + 3, error
        assert sampler.take_reading() is None, "cut short"
        num_calls = nvml.calls.total()
        assert sampler.take_reading() is None
    summary = sampler.summary()
    assert nvml.calls.total() == num_calls, "a dead driver is not asked again"
    assert (summary.overall.num_readings, summary.overall.peak_device_used_bytes) == (2, 5 * GIB)
    assert str(pynvml.NVMLError(error)) in summary.died
    assert summary.flags() == [f"the NVIDIA driver stopped answering: {summary.died}"]


def sampler_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "nvml-sampler"]


def test_the_thread_reads_by_itself_and_stops_with_the_context():
    nvml = FakeNvml(hangs_after=100)
    nvml.release.set()
    reached = threading.Event()
    nvml.release.wait = lambda timeout: reached.set()  # the hundredth call tells that it came, and goes on
    with NvmlSampler(opened(nvml), SOON_S) as sampler:
        assert reached.wait(30)
        assert len(sampler_threads()) == 1
    assert sampler_threads() == []
    num_calls = nvml.calls.total()
    assert sampler.summary().overall.num_readings >= 5
    assert sampler.summary() == sampler.summary()
    assert nvml.calls.total() == num_calls


def test_a_driver_that_dies_in_the_background_ends_the_thread_and_nothing_else():
    nvml = FakeNvml(dies_after=60)
    with NvmlSampler(opened(nvml), SOON_S) as sampler:
        assert nvml.died.wait(30)
        for thread in sampler_threads():
            thread.join(30)
        assert sampler_threads() == [], "before the context is left"
    summary = sampler.summary()
    assert "GPU is lost" in summary.died
    assert summary.overall.num_readings >= 3
    assert nvml.calls.total() == 61


def test_a_driver_that_hangs_does_not_hold_the_launch():
    nvml = FakeNvml()
    sampler = NvmlSampler(device := opened(nvml), SOON_S, stop_timeout_s=0.01)
    with sampler:
        nvml.hangs_after = nvml.calls.total() + 40
        while nvml.calls.total() <= nvml.hangs_after:
            threading.Event().wait(SOON_S)
    summary = sampler.summary()
    num_readings = summary.overall.num_readings
    assert num_readings >= 3
    assert summary.died == "a reading did not end within 0.01 s"
    device.close()
    assert nvml.num_open == 1, "leaving a driver that hangs would hang"
    nvml.release.set()
    for thread in sampler_threads():
        thread.join(30)
    assert sampler.summary().overall.num_readings == num_readings, "what came too late does not count"


def test_an_error_of_the_work_passes_through_and_the_thread_stops():
    with pytest.raises(ZeroDivisionError), NvmlSampler(opened(FakeNvml()), SOON_S):
        _ = 1 / 0
    assert sampler_threads() == []
