"""Clocks, warm-up, memory and contamination, each with scripted inputs where the machine would make it random."""

import mmap
import types

import pytest
import torch

from modbench.profiling import contamination, process_memory, timing, torch_memory
from modbench.profiling.ceilings import measure_ceilings
from modbench.profiling.environment import describe_environment, describe_machine
from modbench.profiling.phase_peaks import PhasePeaks
from modbench.profiling.timing import (
    RegionClock,
    RegionTimes,
    Sample,
    is_stationary,
    phase_durations,
    take_sample,
    warm_up,
)


class ScriptedSubject:
    """Takes 3 s per prefill and 1, 2, 3, ... s per decode step on a clock of its own."""

    def __init__(self):
        self.now = 0.0
        self.fed: list[int] = []

    def prefill(self, input_ids):
        self.now += 3.0
        return torch.zeros(1, 1, 4), "state"

    def decode(self, token_ids, state):
        assert state == "state"
        self.fed.append(int(token_ids))
        self.now += len(self.fed)
        return torch.zeros(1, 1, 4)


def test_ttft_and_every_gap_are_measured_apart(monkeypatch):
    subject = ScriptedSubject()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: subject.now)

    def slow_phase_change(phase):
        subject.now += 100.0  # what happens between the phases is on no clock

    sample, state = take_sample(subject, torch.zeros(1, 5), torch.tensor([[7, 8, 9]]), slow_phase_change)
    assert (sample.ttft_s, sample.itl_s, state) == (3.0, [1.0, 2.0, 3.0], "state")
    assert subject.fed == [7, 8, 9], "decode is teacher-forced"
    assert sample.decode.wall_s == 6.0
    assert sample.tpot_s == 2.0
    assert phase_durations(sample) == (3.0, 2.0)


def test_tpot_leaves_ttft_out():
    times = RegionTimes(wall_s=50.0, cpu_s=0.0, device_s=None, num_involuntary_switches=0)
    assert Sample(prefill=times, decode=times, itl_s=[1.0, 3.0]).tpot_s == pytest.approx(2.0)


def test_a_region_is_timed_by_every_clock_of_the_thread(monkeypatch):
    clock = {"wall": 0.0, "cpu": 0.0, "switches": 10}
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock["wall"])
    monkeypatch.setattr(timing.time, "thread_time", lambda: clock["cpu"])
    usage = lambda who: types.SimpleNamespace(ru_nivcsw=clock["switches"])  # noqa: E731
    monkeypatch.setattr(timing.resource, "getrusage", usage)
    region = RegionClock(torch.device("cpu"))
    region.end_device()
    clock.update(wall=4.0, cpu=3.0, switches=12)
    assert region.stop() == RegionTimes(wall_s=4.0, cpu_s=3.0, device_s=None, num_involuntary_switches=2)
    assert region.stop(end_s=3.5).wall_s == 3.5


class FakeEvent:
    """A CUDA event whose place in the stream is how many were recorded before it, in seconds."""

    num_recorded = 0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self, stream):
        assert stream == "stream of cuda:0"
        FakeEvent.num_recorded += 1
        self.place = FakeEvent.num_recorded

    def elapsed_time(self, end):
        return 1e3 * (end.place - self.place)


def test_cuda_events_stand_before_the_first_kernel_and_before_the_last_wait(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    device = torch.device("cuda:0")
    region = RegionClock(device)
    FakeEvent.num_recorded += 5  # the kernels in between
    region.end_device()
    FakeEvent.num_recorded += 7  # what follows the region is not in it
    assert region.stop().device_s == 6.0


@pytest.mark.parametrize(
    ("durations", "expected"),
    [
        ([(1.0, 1.0)], False),
        ([(2.0, 1.0), (1.0, 1.0)], False),
        ([(2.0, 1.0), (1.0, 1.0), (0.96, 1.0)], True),
        ([(1.0, 1.0), (1.2, 1.0)], False),
        ([(1.0, 1.0), (1.2, 1.0), (1.04, 1.0)], True),
        ([(3.0, 1.0), (1.0, 1.0), (0.9, 1.0)], False),
        ([(1.0, 2.0), (1.0, 1.0)], False),
        ([(1.0, 2.0), (1.0, 1.0), (1.0, 0.97)], True),
    ],
)
def test_warm_up_goes_on_until_both_phases_repeat_their_best(durations, expected):
    assert is_stationary(durations) is expected


def test_automatic_warm_up_is_bounded_and_says_if_it_failed():
    times = iter([(2.0**-n,) for n in range(20)])
    assert warm_up(lambda: next(times), "auto") == (timing.MAX_WARMUP, False)
    steady = iter([(3.0,), (1.0,), (1.0,)])
    assert warm_up(lambda: next(steady), "auto") == (3, True)


def test_a_device_is_kept_busy_for_as_long_as_its_clocks_need(monkeypatch):
    clock = iter([0.0, *(0.25 * n for n in range(100))])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    times = iter([(2.0**-n,) for n in range(30)])
    assert warm_up(lambda: next(times), "auto", at_least_s=1.0) == (4 + timing.MAX_WARMUP, False)


def test_a_fixed_warm_up_runs_just_so_often():
    calls = []
    assert warm_up(lambda: calls.append(1) or (1.0,), 4) == (4, None)
    assert len(calls) == 4
    assert warm_up(lambda: pytest.fail("ran"), 0) == (0, None)


def test_peak_memory_is_that_of_the_phase():
    if not process_memory.reset_peak():
        pytest.skip("this kernel does not allow resetting the peak")
    before = process_memory.peak_rss_bytes()
    block = mmap.mmap(-1, 64 * 2**20)  # not malloc's: it may have as much free and resident already
    block.write(b"x" * len(block))
    assert process_memory.peak_rss_bytes() - before > 60 * 2**20
    block.close()
    process_memory.reset_peak()
    assert process_memory.peak_rss_bytes() - before < 30 * 2**20


def test_peaks_are_unknown_not_zero_without_a_status_file(monkeypatch, tmp_path):
    monkeypatch.setattr(process_memory, "_STATUS", tmp_path / "absent")
    monkeypatch.setattr(process_memory, "_CLEAR_REFS", tmp_path / "absent" / "clear_refs")
    assert process_memory.peak_rss_bytes() is None
    assert process_memory.reset_peak() is False


def test_allocator_counts_are_those_of_a_cuda_device_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 5)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: {"requested_bytes.all.current": 2})
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    cuda, cpu = torch.device("cuda:1"), torch.device("cpu")
    assert torch_memory.allocator_peaks(cuda) == {"allocated_bytes": 3, "reserved_bytes": 5}
    assert torch_memory.requested_bytes(cuda) == 2
    assert (torch_memory.allocator_peaks(cpu), torch_memory.requested_bytes(cpu)) == ({}, None)
    peaks = PhasePeaks(cuda)
    for phase in ("prefill", "decode", ""):
        peaks.enter(phase)
    assert {name: value for name, value in peaks.peaks.items() if "rss" not in name} == {
        f"peak_{phase}{name}": value
        for phase in ("", "prefill_", "decode_")
        for name, value in (("allocated_bytes", 3), ("reserved_bytes", 5))
    }


def test_contamination_compares_wall_with_cpu_time_of_the_thread(monkeypatch):
    clock = {"wall": 0.0, "cpu": 0.0, "switches": 10}
    monkeypatch.setattr(contamination.time, "perf_counter", lambda: clock["wall"])
    monkeypatch.setattr(contamination.time, "thread_time", lambda: clock["cpu"])
    usage = lambda who: types.SimpleNamespace(ru_nivcsw=clock["switches"])  # noqa: E731
    monkeypatch.setattr(contamination.resource, "getrusage", usage)
    meter = contamination.ContaminationMeter()
    clock.update(wall=10.0, cpu=8.0, switches=1010)
    found = meter.stop()
    assert found.wall_cpu_ratio == pytest.approx(1.25)
    assert found.involuntary_switches_per_s == pytest.approx(100.0)
    assert len(found.flags(is_cpu_bound=True)) == 2
    assert found.flags(is_cpu_bound=False) == ["contaminated: involuntary context switches"]


def test_ceilings_grow_with_what_is_measured():
    ceilings = measure_ceilings(torch.device("cpu"), torch.float32)
    assert set(ceilings) == {"copy_bytes_per_s", "matmul_flops_per_s", "copy_spread_ratio", "matmul_spread_ratio"}
    assert ceilings["copy_bytes_per_s"] > 1e8
    assert ceilings["matmul_flops_per_s"] > 1e9


def test_the_fingerprint_is_of_the_machine_not_of_its_load():
    first, second = (describe_machine(torch.device("cpu")) for _ in range(2))
    assert first == second
    assert describe_environment(torch.device("cpu"))["versions"]["torch"] == torch.__version__
