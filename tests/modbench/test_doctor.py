"""The doctor's findings on this very machine, and the command as a black box."""

import functools
import json

import pynvml
import pytest
import torch

from modbench import command_doctor, doctor, measured_devices, own_cost
from modbench.checks import OwnCost
from modbench.errors import LaunchError, UnsupportedError
from modbench.host import fingerprint, host_facts
from modbench.job import JobResult
from modbench.measured_devices import MeasuredDevice
from modbench.profiling import ceilings
from modbench.profiling.environment import describe_machine
from modbench.profiling.gpu_checks import GpuState
from modbench.profiling.nvml import open_device
from tests.modbench.fake_nvml import FakeNvml
from tests.modbench.test_command_line import modbench

CPU = torch.device("cpu")
NAMES = [
    "device",
    "system",
    "peak_rss",
    "address_space",
    "clock",
    "disk",
    "perturbation",
    "processor",
    "cpu_governor",
    "cpu_boost",
    "smt",
    "other_load",
    "cpu_quota",
    "thermal",
    "memory",
    "swap",
    "memory_limit",
    "live_tensors",
    "versions",
    "dtypes",
    "threads",
    "attention",
    "triton",
    "gpu",
    "torch_build",
    "visible_devices",
]
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.fixture(autouse=True)
def _own_cache_and_no_waiting(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(doctor, "WATCHED_S", 0.0)
    monkeypatch.setattr(doctor, "gpu_state", lambda device: GpuState(absent="none in this test"))


def test_the_gpu_is_looked_up_through_the_driver_and_its_absence_has_a_reason(monkeypatch):
    monkeypatch.undo()
    nvml = FakeNvml()
    monkeypatch.setattr(doctor, "open_device", functools.partial(open_device, nvml=nvml))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    state = doctor.gpu_state(CPU)
    assert (state.absent, state.facts["driver_version"], nvml.num_open) == (None, nvml.nvmlSystemGetDriverVersion(), 0)
    assert state.facts["power_limit_w"] == state.facts["default_power_limit_w"] == 700.0
    broken = FakeNvml(init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    monkeypatch.setattr(doctor, "open_device", functools.partial(open_device, nvml=broken))
    assert "no NVIDIA driver is installed" in doctor.gpu_state(None).absent


def measured(dtype: str, rate: float) -> MeasuredDevice:
    return MeasuredDevice(
        name="Example CPU",
        kind="cpu",
        memory_bytes=2**34,
        host=fingerprint(host_facts()),
        machine=describe_machine(CPU)["fingerprint"],
        torch=torch.__version__,
        dtype=dtype,
        threads=1,
        copy_bytes_per_s=rate,
        matmul_flops_per_s=rate,
    )


def remember_all(rate: float) -> None:
    for dtype in doctor.DTYPES:
        measured_devices.remember(measured(dtype, rate))


def test_the_list_of_checks_is_stable():
    remember_all(1.5e9)
    report = doctor.examine(CPU, threads=1, is_remeasured=False)
    assert [check.name for check in report.checks] == NAMES
    assert report.device == "cpu"
    by_name = {check.name: check for check in report.checks}
    assert by_name["live_tensors"].status == "ok"
    assert by_name["attention"].finding.startswith("sdpa, eager")
    assert all(check.fix for check in report.checks if check.status in ("warn", "missing"))


def test_known_ceilings_are_shown_and_unknown_ones_measured(monkeypatch):
    measured_devices.remember(measured("float32", 1.5e9))
    monkeypatch.setattr(ceilings, "measure_ceilings", lambda *_: {"copy_bytes_per_s": 7.0, "matmul_flops_per_s": 7.0})
    report = doctor.examine(CPU, threads=1, is_remeasured=False)
    assert {device.dtype: device.copy_bytes_per_s for device in report.ceilings} == {
        "float32": 1.5e9,
        "bfloat16": 7.0,
        "float16": 7.0,
    }
    cost = OwnCost(model="micro", step_s=0.01, added_ratio=0.001, interval=(-0.001, 0.004), num_pairs=20)
    monkeypatch.setattr(own_cost, "measure_own_cost", lambda device: cost)
    report = doctor.examine(CPU, threads=1, is_remeasured=True)
    line = "profiling adds +0.10 % [-0.10, +0.40] to a step of 10.0 ms (micro, 20 pairs)"
    for found in (report, doctor.examine(CPU, threads=1, is_remeasured=False)):
        (check,) = [check for check in found.checks if check.name == "perturbation"]
        assert (check.status, check.finding) == ("ok", line)
    assert [device.copy_bytes_per_s for device in report.ceilings] == [7.0, 7.0, 7.0]


def test_a_full_device_is_a_finding(monkeypatch):
    def runs_out(*_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(ceilings, "measure_ceilings", runs_out)
    report = doctor.examine(CPU, threads=1, is_remeasured=False)
    assert report.ceilings == []
    assert [(check.name, check.status) for check in report.checks[-3:]] == [
        (dtype, "missing") for dtype in doctor.DTYPES
    ]


def test_an_absent_device_leaves_the_other_lines():
    report = doctor.examine(None, threads=1, is_remeasured=False, why_absent="device: got cuda; none here")
    assert report.device is None
    assert report.ceilings == []
    assert [check.name for check in report.checks] == NAMES
    assert (report.checks[0].status, report.checks[0].finding) == ("missing", "device: got cuda; none here")


def test_the_command_prints_one_screen(tmp_path, monkeypatch):
    remember_all(1.5e9)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = modbench("doctor", "--device", "cpu", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert max(len(line) for line in lines) <= 80
    titles = ["Machine", "CPU", "Memory", "Libraries", "GPU", "Ceilings"]
    assert [line for line in lines if line in titles] == titles
    assert sum("copy 1.5 GB/s, product 1.5 GFLOP/s" in line for line in lines) == 3
    assert "This machine can measure CPU latency" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["cache"], "nothing is left behind"


@without_gpu
def test_an_absent_device_is_exit_code_2_and_still_a_report(tmp_path):
    done = modbench("doctor", "--device", "cuda", "--format", "json", folder=tmp_path)
    assert done.returncode == 2, done.stderr
    report = json.loads(done.stdout)
    assert (report["device"], report["ceilings"]) == (None, [])
    assert [check["name"] for check in report["checks"]] == NAMES
    assert "this machine has no CUDA device" in report["checks"][0]["finding"]


def test_a_device_of_no_kind_is_refused_before_anything_starts():
    with pytest.raises(UnsupportedError, match="expected auto, cpu, cuda or cuda:INDEX"):
        command_doctor.doctor_command("gpu0", 1, is_remeasured=False, is_json=False)


def test_a_worker_without_a_report_is_exit_code_5_and_keeps_its_output(tmp_path, monkeypatch):
    monkeypatch.setattr(command_doctor.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(
        command_doctor.LocalExecutor, "run", lambda self, job, timeout_s: JobResult(error="killed by SIGKILL")
    )
    with pytest.raises(LaunchError, match="the worker gave no report: killed by SIGKILL") as caught:
        command_doctor.doctor_command("cpu", 1, is_remeasured=False, is_json=False)
    assert caught.value.exit_code == 5
    (log,) = tmp_path.glob("modbench-doctor-*/worker.log")
    assert str(log) in str(caught.value)
