"""One reading of a GPU: every value in base units, every missing call None with its reason, a driver that fails or dies."""

import os
import subprocess
import sys

import pynvml
import pytest

from modbench.profiling import nvml as nvml_module
from modbench.profiling.nvml import NvmlDevice, Reading, open_device
from modbench.profiling.nvml_processes import ProcessMemory, attribute, bytes_by_pid
from tests.modbench.fake_nvml import FakeGpu, FakeInstance, FakeNvml, ScriptedClock, State

GIB = 2**30
NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED


def opened(nvml: FakeNvml, **changes) -> NvmlDevice:
    device = open_device(0, None, nvml, clock=nvml.clock, **changes)
    assert isinstance(device, NvmlDevice)
    return device


def with_state(**state) -> FakeNvml:
    return FakeNvml([FakeGpu(trace=[(0.0, State(**state))])])


def test_one_reading_has_everything_in_base_units():
    nvml = with_state(
        energy_mj=85_000, instant_mw=312_500, used_bytes=5 * GIB, compute=((10, 3 * GIB), (20, GIB)), event_bits=0x4
    )
    nvml.clock.now = 7.0
    assert opened(nvml, own_pids={10}).read() == Reading(
        time_s=7.0,
        energy_j=85.0,
        power_w=312.5,
        power_source="NVML_FI_DEV_POWER_INSTANT",
        used_bytes=5 * GIB,
        sm_clock_hz=1_980_000_000,
        memory_clock_hz=2_619_000_000,
        throttle_reasons=("software power cap",),
        is_idle=False,
        temperature_c=50,
        gpu_utilisation_ratio=0.97,
        memory_utilisation_ratio=0.4,
        processes=ProcessMemory(3 * GIB, None, (20,), GIB, 1),
    )


def test_facts_say_what_limits_the_device():
    assert opened(FakeNvml()).facts() == {
        "name": "NVIDIA H100 80GB HBM3",
        "uuid": "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",
        "driver_version": "580.82.07",
        "cuda_driver_version": "13.0",
        "total_memory_bytes": 80 * GIB,
        "reserved_memory_bytes": GIB // 2,
        "power_limit_w": 700.0,
        "default_power_limit_w": 700.0,
        "is_ecc_enabled": True,
        "is_mig_enabled": False,
        "is_persistence_enabled": False,
        "max_sm_clock_hz": 2_010_000_000,
        "max_memory_clock_hz": 2_010_000_000,
        "application_sm_clock_hz": 1_755_000_000,
        "application_memory_clock_hz": 1_755_000_000,
    }


FIELDS_OF_CALLS = {
    "nvmlDeviceGetTotalEnergyConsumption": ["energy_j"],
    "nvmlDeviceGetMemoryInfo": ["used_bytes"],
    "nvmlDeviceGetClockInfo": ["sm_clock_hz", "memory_clock_hz"],
    "nvmlDeviceGetUtilizationRates": ["gpu_utilisation_ratio", "memory_utilisation_ratio"],
    "nvmlDeviceGetComputeRunningProcesses": ["process_bytes"],
}


@pytest.mark.parametrize("error", [NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_UNKNOWN])
@pytest.mark.parametrize("call", FIELDS_OF_CALLS)
def test_an_unsupported_call_is_none_with_the_reason_and_asked_once(call, error):
    nvml = FakeNvml([FakeGpu(trace=[(0.0, State(compute=((10, GIB),)))])], unsupported={call: error})
    device = opened(nvml, own_pids={10})
    readings = [device.read() for _ in range(3)]
    names = [name for name in vars(readings[0]) if getattr(readings[0], name) is None]
    names += ["process_bytes"] * (readings[0].process_bytes is None)
    assert names == FIELDS_OF_CALLS[call]
    assert readings[0] == readings[2]
    reasons = {key: text for key, text in device.unsupported.items() if key.startswith(call)}
    assert set(reasons.values()) == {str(pynvml.NVMLError(error))}
    assert nvml.calls[call] == len(reasons)
    assert device.died is None


def test_nothing_supported_is_nothing_known_and_never_zero():
    found = open_device(0, None, nvml := FakeNvml(), clock=ScriptedClock(3.0))
    nvml.unsupported = {name: NOT_SUPPORTED for name in dir(pynvml) if name.startswith("nvml")}
    reading = found.read()
    unknown = ProcessMemory(process_unknown="the driver does not list processes")
    assert reading == Reading(time_s=3.0, energy_j=None, processes=unknown)
    assert set(found.facts().values()) == {None}
    assert found.died is None


@pytest.mark.parametrize(
    ("preferred", "fallback"),
    [
        ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"),
        ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"),
    ],
)
def test_older_names_serve_older_bindings_and_older_drivers(preferred, fallback):
    expected = opened(with_state(event_bits=0x40, temperature_c=61)).read()
    old_bindings = opened(FakeNvml(with_state(event_bits=0x40, temperature_c=61).gpus, missing=[preferred]))
    assert old_bindings.read() == expected
    assert old_bindings.unsupported == {preferred: "not in this version of nvidia-ml-py"}
    old_driver = with_state(event_bits=0x40, temperature_c=61)
    old_driver.unsupported = {preferred: pynvml.NVML_ERROR_FUNCTION_NOT_FOUND}
    device = opened(old_driver)
    assert [device.read(), device.read()] == [expected, expected]
    assert device.unsupported == {preferred: "Function Not Found"}
    assert (old_driver.calls[preferred], old_driver.calls[fallback]) == (1, 2)


def test_average_power_is_named_as_such_where_the_momentary_one_is_unknown():
    nvml = FakeNvml(unsupported={"POWER_INSTANT": NOT_SUPPORTED})
    device = opened(nvml)
    for _ in range(2):
        reading = device.read()
        assert (reading.power_w, reading.power_source) == (250.0, "nvmlDeviceGetPowerUsage")
    assert device.unsupported == {"NVML_FI_DEV_POWER_INSTANT": "Not Supported"}
    assert nvml.calls["nvmlDeviceGetFieldValues"] == 1


def test_memory_of_the_first_version_carries_the_doubt_of_what_it_includes():
    nvml = FakeNvml(unsupported={"MemoryInfo v2": pynvml.NVML_ERROR_FUNCTION_NOT_FOUND})
    device = opened(nvml)
    assert device.read().used_bytes == 10 * GIB + GIB // 2
    assert device.doubts == ("used device memory includes what the driver reserves for itself",)
    assert device.facts()["reserved_memory_bytes"] is None
    assert device.facts()["total_memory_bytes"] == 80 * GIB


@pytest.mark.parametrize(
    ("bits", "reasons", "is_idle"),
    [
        (0, (), False),
        (pynvml.nvmlClocksEventReasonGpuIdle, (), True),
        (pynvml.nvmlClocksEventReasonApplicationsClocksSetting, (), False),
        (pynvml.nvmlClocksEventReasonSwPowerCap, ("software power cap",), False),
        (
            pynvml.nvmlClocksEventReasonHwSlowdown | pynvml.nvmlClocksEventReasonHwThermalSlowdown | 1,
            ("hardware slowdown", "hardware thermal slowdown"),
            True,
        ),
        (pynvml.nvmlClocksEventReasonSwThermalSlowdown, ("software thermal slowdown",), False),
        (pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown, ("hardware power brake",), False),
        (pynvml.nvmlClocksEventReasonSyncBoost, ("sync boost",), False),
        (pynvml.nvmlClocksEventReasonDisplayClockSetting, ("display clock setting",), False),
        (pynvml.nvmlClocksThrottleReasonBoardLimit, ("board limit",), False),
        (pynvml.nvmlClocksThrottleReasonReliability, ("reliability",), False),
        (0x8000, ("reason 0x8000",), False),
    ],
)
def test_clock_events_are_readable_and_idling_is_no_throttling(bits, reasons, is_idle):
    reading = opened(with_state(event_bits=bits)).read()
    assert (reading.throttle_reasons, reading.is_idle) == (reasons, is_idle)


def test_a_mig_instance_gives_its_own_memory_and_the_energy_of_the_whole_gpu():
    instance = FakeInstance("MIG-1", state=State(used_bytes=GIB, compute=((10, GIB),)))
    gpu = FakeGpu(trace=[(0.0, State(used_bytes=40 * GIB, energy_mj=9_000, compute=((77, 39 * GIB),)))])
    gpu.instances = [instance]
    nvml = FakeNvml([gpu], unsupported={"nvmlDeviceGetUtilizationRates": NOT_SUPPORTED})
    device = opened(nvml, own_pids={10})
    reading = device.read()
    assert (reading.used_bytes, reading.energy_j, reading.sm_clock_hz) == (GIB, 9.0, 1_980_000_000)
    assert reading.processes == ProcessMemory(GIB, None, (), 0, 0)
    assert reading.gpu_utilisation_ratio is None
    facts = device.facts()
    assert (facts["uuid"], facts["total_memory_bytes"], facts["is_mig_enabled"]) == ("MIG-1", 10 * GIB, True)
    assert any("whole GPU" in doubt for doubt in device.doubts)


def test_a_call_that_fails_once_is_none_once_and_asked_again():
    call = "nvmlDeviceGetMemoryInfo"
    nvml = FakeNvml(failures={call: (pynvml.NVML_ERROR_INSUFFICIENT_SIZE, 2)})
    device = opened(nvml)
    assert [device.read().used_bytes for _ in range(3)] == [10 * GIB, None, 10 * GIB]
    assert device.interrupted == {"nvmlDeviceGetMemoryInfo (v2)": str(pynvml.NVMLError_InsufficientSize())}
    assert (device.unsupported, device.died) == ({}, None)


@pytest.mark.parametrize(
    "error",
    [
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_UNKNOWN,
        pynvml.NVML_ERROR_TIMEOUT,
        pynvml.NVML_ERROR_RESET_REQUIRED,
        pynvml.NVML_ERROR_UNINITIALIZED,
    ],
)
def test_a_dead_driver_answers_none_and_is_not_asked_again(error):
    nvml = FakeNvml(dies_with=error)
    device = opened(nvml)
    assert device.read().energy_j == 0.0
    nvml.dies_after = nvml.calls.total() + 1
    reading = device.read()
    assert reading.energy_j == 0.0, "said before it died"
    assert (reading.used_bytes, reading.temperature_c) == (None, None)
    assert device.died == f"nvmlDeviceGetMemoryInfo (v2): {pynvml.NVMLError(error)}"
    num_calls = nvml.calls.total()
    assert device.read_energy().energy_j is None
    assert set(device.facts().values()) == {None}
    device.close()
    assert nvml.calls.total() == num_calls
    assert device.unsupported == {}


@pytest.mark.parametrize("error", [pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_TIMEOUT])
def test_a_lost_gpu_is_dead_at_the_first_call_already(error):
    nvml = FakeNvml(dies_with=error)
    device = opened(nvml)
    nvml.dies_after = nvml.calls.total()
    assert device.read().energy_j is None
    assert device.died == f"nvmlDeviceGetTotalEnergyConsumption: {pynvml.NVMLError(error)}"
    assert device.unsupported == {}


def test_the_counter_alone_costs_one_call():
    nvml = with_state(energy_mj=1_234)
    device = opened(nvml)
    before = nvml.calls.total()
    assert device.read_energy().energy_j == 1.234
    assert nvml.calls.total() - before == 1


def processes(*found: tuple[int, int | None]) -> list:
    return [pynvml.nvmlFriendlyObject({"pid": pid, "usedGpuMemory": used}) for pid, used in found]


def test_this_process_is_ours_by_default():
    nvml = with_state(compute=((os.getpid(), 5), (1, 2)))
    assert opened(nvml).read().processes == ProcessMemory(5, None, (1,), 2, 1)


def test_own_processes_add_up_and_the_rest_is_foreign():
    found = attribute({10: 1, 11: 2, 12: 4, 13: 8}, own_pids=[10, 12, 99])
    assert found == ProcessMemory(5, None, (11, 13), 10, 2)


def test_an_invisible_process_is_unknown_with_the_reason_and_never_zero():
    alone = attribute({}, own_pids=[10])
    assert alone.process_bytes is None
    assert alone.process_unknown.startswith("process 10 is not in the driver's list")
    assert (alone.foreign_pids, alone.num_foreign_min) == ((), 0)
    renamed = attribute({4001: GIB}, own_pids=[10])
    assert renamed.process_bytes is None
    assert renamed.foreign_pids is None, "4001 may be this process, by a number of the host"
    assert renamed.num_foreign_min == 0
    assert attribute({4001: GIB, 4002: GIB}, own_pids=[10]).num_foreign_min == 1


def test_with_no_process_of_ours_all_are_foreign():
    assert attribute({5: 1, 6: None}, own_pids=[]) == ProcessMemory(
        None, "no process was named as ours", (5, 6), None, 2
    )


def test_memory_that_the_driver_hides_is_unknown_with_the_reason():
    found = attribute(bytes_by_pid(processes((10, None), (20, 7))), own_pids=[10])
    assert found == ProcessMemory(None, "the driver hides the memory of processes", (20,), 7, 1)


def test_a_process_that_computes_and_draws_counts_once():
    compute = processes((10, 5), (10, 6), (20, None), (40, 9))
    graphics = processes((10, 11), (20, 3), (30, 1), (40, None))
    assert bytes_by_pid(compute, graphics) == {10: 11, 20: 3, 30: 1, 40: 9}


def test_the_profiler_of_the_driver_does_not_load_torch():
    modules = "nvml_sampler, modbench.profiling.nvml_energy, modbench.profiling.perturbation"
    code = f"import sys, modbench.profiling.{modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_default_module_is_the_real_one():
    assert nvml_module.pynvml is pynvml
