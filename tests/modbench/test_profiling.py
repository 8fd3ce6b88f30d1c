"""Clocks, warm-up, memory and contamination, each with scripted inputs where the machine would make it random."""

import types

import pytest
import torch

from modbench.profiling import contamination, process_memory, timing, torch_memory
from modbench.profiling.ceilings import measure_ceilings
from modbench.profiling.environment import describe_environment, describe_machine
from modbench.profiling.timing import Sample, is_stationary, take_sample, warm_up


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
    assert sample.end_to_end_s == 9.0
    assert sample.tpot_s == 2.0


def test_tpot_leaves_ttft_out():
    assert Sample(ttft_s=50.0, itl_s=[1.0, 3.0]).tpot_s == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("durations", "expected"),
    [
        ([1.0], False),
        ([2.0, 1.0], False),
        ([2.0, 1.0, 0.96], True),
        ([1.0, 1.2], False),
        ([1.0, 1.2, 1.04], True),
        ([3.0, 1.0, 0.9], False),
    ],
)
def test_warm_up_goes_on_until_a_sample_repeats_the_best(durations, expected):
    assert is_stationary(durations) is expected


def test_automatic_warm_up_is_bounded_and_says_if_it_failed():
    times = iter([2.0**-n for n in range(20)])
    assert warm_up(lambda: next(times), "auto") == (timing.MAX_WARMUP, False)
    steady = iter([3.0, 1.0, 1.0])
    assert warm_up(lambda: next(steady), "auto") == (3, True)


def test_a_fixed_warm_up_runs_just_so_often():
    calls = []
    assert warm_up(lambda: calls.append(1) or 1.0, 4) == (4, None)
    assert len(calls) == 4
    assert warm_up(lambda: pytest.fail("ran"), 0) == (0, None)


def test_peak_memory_is_that_of_the_phase():
    if not process_memory.reset_peak():
        pytest.skip("this kernel does not allow resetting the peak")
    before = process_memory.peak_rss_bytes()
    block = torch.ones(64 * 2**20, dtype=torch.uint8)
    assert process_memory.peak_rss_bytes() - before > 60 * 2**20
    del block
    process_memory.reset_peak()
    assert process_memory.peak_rss_bytes() - before < 30 * 2**20


def test_peaks_are_unknown_not_zero_without_a_status_file(monkeypatch, tmp_path):
    monkeypatch.setattr(process_memory, "_STATUS", tmp_path / "absent")
    monkeypatch.setattr(process_memory, "_CLEAR_REFS", tmp_path / "absent" / "clear_refs")
    assert process_memory.peak_rss_bytes() is None
    assert process_memory.reset_peak() is False


def test_device_memory_is_asked_by_uuid_and_unknown_without_a_driver(monkeypatch):
    cuda = torch.device("cuda:1")
    fake = types.SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetMemoryInfo=lambda handle: types.SimpleNamespace(used={"GPU-1234": 5 * 2**30}[handle]),
    )
    monkeypatch.setattr(torch_memory, "pynvml", fake)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(uuid="1234"))
    assert torch_memory.device_used_bytes(cuda) == 5 * 2**30
    assert torch_memory.device_used_bytes(torch.device("cpu")) is None

    def no_driver():
        raise RuntimeError("driver not loaded")

    monkeypatch.setattr(fake, "nvmlInit", no_driver)
    assert torch_memory.device_used_bytes(cuda) is None


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
    assert set(ceilings) == {"copy_bytes_per_s", "matmul_flops_per_s"}
    assert ceilings["copy_bytes_per_s"] > 1e8
    assert ceilings["matmul_flops_per_s"] > 1e9


def test_the_fingerprint_is_of_the_machine_not_of_its_load():
    first, second = (describe_machine(torch.device("cpu")) for _ in range(2))
    assert first == second
    assert describe_environment(torch.device("cpu"))["versions"]["torch"] == torch.__version__
