"""A GPU's state, from plain values as NVML's reader gives them."""

import pytest

from modbench.profiling import gpu_checks
from modbench.profiling.gpu_checks import GpuState

FACTS = {
    "name": "Example GPU",
    "driver_version": "580.1",
    "cuda_driver_version": "13.0",
    "total_memory_bytes": 80 * 1024**3,
    "power_limit_w": 700.0,
    "default_power_limit_w": 700.0,
    "is_ecc_enabled": True,
    "is_mig_enabled": False,
    "is_persistence_enabled": True,
    "max_sm_clock_hz": 1_980_000_000,
}
READING = {
    "energy_j": 1.0,
    "used_bytes": 1024**3,
    "sm_clock_hz": 1_980_000_000,
    "is_idle": True,
    "throttle_reasons": (),
    "temperature_c": 35,
    "processes": {"foreign_pids": ()},
}


def checks_of(facts=None, reading=None, **state) -> dict:
    found = gpu_checks.gpu_checks(GpuState({**FACTS, **(facts or {})}, {**READING, **(reading or {})}, **state))
    return {check.name: check for check in found}


def test_a_gpu_in_good_order_has_no_doubtful_line():
    checks = checks_of()
    assert {check.status for check in checks.values()} == {"ok"}
    assert checks["gpu"].finding == "Example GPU, driver 580.1, CUDA 13.0"
    assert {check.gives for check in checks.values()} == {"", "GPU energy", "GPU memory, power and clocks"}


def test_without_a_gpu_one_line_says_why():
    (check,) = gpu_checks.gpu_checks(GpuState(absent="no NVIDIA driver is installed here"))
    assert (check.name, check.status) == ("gpu", "missing")
    assert check.finding == "none: no NVIDIA driver is installed here"
    assert "energy" in check.gives


@pytest.mark.parametrize(
    ("name", "facts", "reading", "status", "finding", "fix"),
    [
        ("gpu_energy", {}, {"energy_j": None}, "missing", "no energy counter", "Volta"),
        ("gpu_modes", {"is_mig_enabled": True}, {}, "warn", "MIG on", "nvidia-smi -mig 0"),
        ("gpu_modes", {"is_persistence_enabled": False}, {}, "warn", "persistence off", "nvidia-smi -pm 1"),
        ("gpu_modes", {"is_ecc_enabled": None}, {}, "ok", "ECC not told", ""),
        ("gpu_power_limit", {"power_limit_w": 350.0}, {}, "warn", "350 W of 700 W", "nvidia-smi -pl 700"),
        ("gpu_power_limit", {"default_power_limit_w": None}, {}, "info", "700 W; the default is not told", ""),
        ("gpu_clocks", {}, {"sm_clock_hz": 345_000_000}, "warn", "SM at 345 of 1980 MHz", "nvidia-smi -lgc 1980"),
        ("gpu_clocks", {}, {"is_idle": False}, "info", "under load", "nvidia-smi -lgc 1980"),
        ("gpu_clocks", {}, {"sm_clock_hz": None}, "info", "not told", ""),
        ("gpu_throttling", {}, {"throttle_reasons": ("software power cap",)}, "warn", "software power cap", "cool"),
        ("gpu_throttling", {}, {"throttle_reasons": None}, "info", "not told", ""),
        ("gpu_temperature", {}, {"temperature_c": 88}, "warn", "88 °C", "cool"),
        ("gpu_temperature", {}, {"temperature_c": None}, "info", "not told", ""),
        ("gpu_memory", {}, {"used_bytes": 60 * 1024**3}, "warn", "20.0 GiB of 80.0 GiB free", "nvidia-smi"),
        ("gpu_memory", {}, {"used_bytes": None}, "info", "not told", ""),
        ("gpu_processes", {}, {"processes": {"foreign_pids": (7, 9)}}, "warn", "process 7, 9", "CUDA_VISIBLE_DEVICES"),
        ("gpu_processes", {}, {"processes": {"foreign_pids": None}}, "info", "not told", ""),
    ],
)
def test_each_line_of_a_gpu_in_disorder(name, facts, reading, status, finding, fix):
    check = checks_of(facts, reading)[name]
    assert check.status == status
    assert finding in check.finding
    assert fix in check.fix
    assert bool(fix) == bool(check.fix)


def test_refused_calls_and_doubts_are_told_apart():
    checks = checks_of(unsupported={"nvmlDeviceGetEccMode": "Not Supported"}, doubts=["the GPU is guessed"])
    assert checks["nvml_calls"].finding == "refused: nvmlDeviceGetEccMode: Not Supported"
    assert (checks["nvml_doubts"].status, checks["nvml_doubts"].finding) == ("info", "the GPU is guessed")


def test_what_nvml_did_not_tell_at_all_is_not_claimed():
    checks = gpu_checks.gpu_checks(GpuState({"name": "Example GPU"}))
    told = {check.name: check.finding for check in checks if check.status == "info"}
    assert set(told.values()) == {"not told"}
    assert len(told) == 6


@pytest.mark.parametrize(
    ("torch_cuda", "driver_cuda", "status", "fix"),
    [
        ("13.0", "13.0", "ok", ""),
        ("12.8", "13.0", "ok", ""),
        ("13.0", "12.4", "missing", "update the driver to one for CUDA 13.0"),
        (None, "13.0", "missing", "download.pytorch.org"),
        (None, None, "info", ""),
        ("13.0", None, "info", ""),
    ],
)
def test_torch_and_driver_must_speak_the_same_cuda(torch_cuda, driver_cuda, status, fix):
    check = gpu_checks.torch_build_check(torch_cuda, driver_cuda)
    assert check.status == status
    assert fix in check.fix


@pytest.mark.parametrize(
    ("visible", "num_devices", "status"),
    [(None, 0, "ok"), ("0,1", 2, "ok"), ("0,7", 1, "warn"), ("", 0, "warn"), ("-1", 0, "warn")],
)
def test_a_visible_device_that_torch_does_not_see_is_a_warning(visible, num_devices, status):
    check = gpu_checks.visible_devices_check(visible, num_devices)
    assert (check.status, f"torch sees {num_devices}" in check.finding) == (status, True)
