"""Look this machine over: what it can measure, and what stands in the way. In: a device. Out: a `DoctorReport`.

Here the machine, torch and the driver are asked; what their answers mean is in the `*_checks` modules of profiling/, which take
plain values.
"""

import os
import platform
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import torch

from modbench.checks import Check, DoctorReport, OwnCost
from modbench.host import cpu_model
from modbench.measured_devices import MeasuredDevice
from modbench.own_cost import known_own_cost
from modbench.profiling import (
    cpu_checks,
    gpu_checks,
    library_checks,
    machine_checks,
    memory_checks,
    process_memory,
)
from modbench.profiling.ceilings import known_ceilings
from modbench.profiling.environment import describe_environment, library_versions
from modbench.profiling.gpu_checks import GpuState
from modbench.profiling.gpu_watch import open_torch_device
from modbench.profiling.live_tensors import LiveTensorPeak
from modbench.profiling.nvml import NvmlAbsent, open_device
from reference_impl.attention import BACKENDS, available_backends

ROOT = Path("/")
OUTPUT = Path("reports")  # where runs write unless told otherwise
WATCHED_S = 0.5  # how long the load of others is watched
DTYPES = ("float32", "bfloat16", "float16")
TRIAL_FLOATS = 1000


def examine(device: torch.device | None, threads: int, is_remeasured: bool, why_absent: str = "") -> DoctorReport:
    """Every check, then the ceilings of `device`; without one (`why_absent` says why) they are left out.

    `is_remeasured` measures the ceilings of all dtypes and the profiler's own cost anew; else only ceilings that are not known yet.
    """
    environment = None if device is None else describe_environment(device)
    cost = (
        None if device is None or environment is None else known_own_cost(device, threads, environment, is_remeasured)
    )
    checks = [_device_check(device, why_absent), *_machine_checks(cost), *_cpu_checks(threads), *_memory_checks()]
    checks += [*_library_checks(device, threads), *_gpu_checks(device)]
    ceilings: list[MeasuredDevice] = []
    if device is not None and environment is not None:
        for dtype in DTYPES:
            try:
                ceilings.append(known_ceilings(device, dtype, threads, environment, is_remeasured))
            except torch.OutOfMemoryError:
                checks.append(_no_room_check(dtype))
    return DoctorReport(device=None if device is None else str(device), checks=checks, ceilings=ceilings)


def gpu_state(device: torch.device | None) -> GpuState:
    """What NVML says of the device, or of the first GPU where it is none; every process that it lists counts as another's."""
    opened = None if device is None else open_torch_device(device)
    if opened is None:
        visible, order = os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("CUDA_DEVICE_ORDER")
        opened = open_device(0, visible, device_order=order, own_pids=())
    if isinstance(opened, NvmlAbsent):
        return GpuState(absent=opened.reason)
    facts, reading = opened.facts(), asdict(opened.read())
    state = GpuState(facts, reading, dict(opened.unsupported), opened.doubts, opened.died)
    opened.close()
    return state


def _device_check(device: torch.device | None, why_absent: str) -> Check:
    if device is not None:
        gives = f"{'GPU' if device.type == 'cuda' else 'CPU'} latency"
        return Check(name="device", group="machine", status="ok", finding=f"{device}", gives=gives)
    fix = "mend what the lines about the GPU say"
    return Check(name="device", group="machine", status="missing", finding=why_absent, fix=fix, gives="latency on it")


def _machine_checks(cost: OwnCost | None) -> list[Check]:
    is_resettable = process_memory.reset_peak()
    resolution_s = time.get_clock_info("perf_counter").resolution
    return [
        machine_checks.system_check(platform.system(), platform.release(), platform.machine()),
        machine_checks.peak_rss_check(process_memory.peak_rss_bytes(), is_resettable),
        machine_checks.address_space_check(machine_checks.address_space_limit()),
        machine_checks.clock_check(ROOT, resolution_s, machine_checks.perf_counter_call_s()),
        machine_checks.disk_check(OUTPUT, machine_checks.free_disk_bytes(OUTPUT)),
        machine_checks.perturbation_check(cost),
    ]


def _cpu_checks(threads: int) -> list[Check]:
    num_cpus, allowed = os.cpu_count() or 1, _allowed_cpus()
    before = cpu_checks.read_cpu_times(ROOT)
    time.sleep(WATCHED_S)
    after = cpu_checks.read_cpu_times(ROOT)
    sensors = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
    temperatures = [(sensor.current, sensor.high) for chip in sensors.values() for sensor in chip]
    return [
        cpu_checks.processor_check(cpu_model(), allowed, num_cpus),
        cpu_checks.governor_check(ROOT, allowed),
        cpu_checks.boost_check(ROOT),
        cpu_checks.smt_check(ROOT, allowed, threads),
        cpu_checks.other_load_check(before, after, num_cpus, os.sysconf("SC_CLK_TCK"), os.getloadavg()[0]),
        cpu_checks.cpu_quota_check(ROOT, len(allowed), threads),
        cpu_checks.thermal_check(ROOT, temperatures),
    ]


def _allowed_cpus() -> list[int]:
    """Numbers of the CPUs that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def _memory_checks() -> list[Check]:
    return [
        memory_checks.memory_check(ROOT),
        memory_checks.swap_check(ROOT),
        memory_checks.memory_limit_check(ROOT),
        _live_tensor_check(),
    ]


def _live_tensor_check() -> Check:
    """torch's profiler tells every allocation, tried on one tensor."""
    with LiveTensorPeak() as peak:
        torch.empty(TRIAL_FLOATS)
    name, expected, gives = "live_tensors", TRIAL_FLOATS * 4, "peaks of live tensors"
    if peak.peak_bytes == expected:
        return Check(name=name, group="memory", status="ok", finding="allocations are counted exactly", gives=gives)
    finding = f"counted {peak.peak_bytes} bytes of a tensor of {expected}"
    fix = f"install a torch that modbench is tested with: {library_checks.SUPPORTED['torch']} or later"
    return Check(name=name, group="memory", status="missing", finding=finding, fix=fix, gives=gives)


def _library_checks(device: torch.device | None, threads: int) -> list[Check]:
    versions = {**library_versions(), "python": platform.python_version()}
    is_cuda = device is not None and device.type == "cuda"
    capability = torch.cuda.get_device_capability(device) if is_cuda else None
    backends = available_backends(device or torch.device("cpu"), torch.bfloat16)
    if capability is None:
        width, has_onednn = torch.backends.cpu.get_cpu_capability(), torch.backends.mkldnn.is_available()
        dtypes = library_checks.cpu_dtypes_check(library_checks.cpu_flags(ROOT), width, has_onednn)
    else:
        dtypes = library_checks.cuda_dtypes_check(capability)
    return [
        library_checks.versions_check(versions),
        dtypes,
        library_checks.threads_check(threads, len(_allowed_cpus()), torch.get_num_interop_threads()),
        library_checks.attention_check(backends, list(BACKENDS), capability),
        library_checks.triton_check(versions["triton"], is_cuda),
    ]


def _gpu_checks(device: torch.device | None) -> list[Check]:
    state = gpu_state(device)
    return [
        *gpu_checks.gpu_checks(state),
        gpu_checks.torch_build_check(torch.version.cuda, state.facts.get("cuda_driver_version")),
        gpu_checks.visible_devices_check(os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count()),
    ]


def _no_room_check(dtype: str) -> Check:
    return Check(
        name=dtype,
        group="ceilings",
        status="missing",
        finding="not enough free device memory to measure them",
        fix="end what holds it: nvidia-smi lists the processes",
    )
