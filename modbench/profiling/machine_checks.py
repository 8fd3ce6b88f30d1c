"""Checks of the operating system: what launches need from its kernel, its clock, its disk. Imports no torch.

In: what the kernel says (`root` is the folder that holds its /proc and /sys). Out: a `Check` each.
"""

import math
import resource
import shutil
import time
from pathlib import Path

from modbench.checks import Check, OwnCost
from modbench.units import GIB, format_bytes, format_seconds

STEADY_CLOCKS = ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter")
MAX_CALL_S = 1e-6  # a gap of a small model's decode is some 100 of these
MIN_DISK_BYTES = GIB
MAX_PERTURBATION_RATIO = 0.005  # of a decode step
NUM_CLOCK_CALLS = 1000
NUM_CLOCK_BATCHES = 20


def read_text(root: Path, name: str) -> str | None:
    """A kernel file without white space around it; None where there is none, or it cannot be read."""
    try:
        return (root / name).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def read_number(root: Path, name: str) -> int | None:
    """The same as an integer; None also where it is something else."""
    try:
        return int(read_text(root, name) or "")
    except ValueError:
        return None


def system_check(system: str, release: str, machine: str) -> Check:
    """Launches are forked from a warmed server on Linux alone."""
    found = f"{system} {release}, {machine}"
    if system == "Linux":
        return Check(name="system", group="machine", status="ok", finding=f"{found}; launches are forked")
    return Check(
        name="system",
        group="machine",
        status="warn",
        finding=f"{found}; every launch is a new interpreter, and starts slowly",
        fix="measure what is to be published on Linux",
    )


def peak_rss_check(peak_bytes: int | None, is_resettable: bool) -> Check:
    """VmHWM (`peak_bytes`) can be read, and reset between phases."""
    name, gives = "peak_rss", "peak RSS"
    if peak_bytes is None:
        finding, fix = "the kernel tells no peak (VmHWM of /proc/self/status)", "run on Linux with /proc mounted"
        return Check(name=name, group="machine", status="missing", finding=finding, fix=fix, gives=gives)
    if not is_resettable:
        finding = "/proc/self/clear_refs cannot be written: peaks count from the start of a launch"
        fix = "run where it can: not under gVisor, nor with a read-only /proc"
        return Check(name=name, group="machine", status="warn", finding=finding, fix=fix, gives=gives)
    return Check(name=name, group="machine", status="ok", finding="VmHWM, reset before every phase", gives=gives)


def address_space_check(limit_bytes: int | None) -> Check:
    """A limit on the address space (RLIMIT_AS; None: unlimited) ends large points early."""
    if limit_bytes is None:
        return Check(name="address_space", group="machine", status="ok", finding="not limited")
    return Check(
        name="address_space",
        group="machine",
        status="warn",
        finding=f"limited to {format_bytes(limit_bytes)}: larger points end as oom",
        fix="ulimit -v unlimited",
    )


def perturbation_check(cost: OwnCost | None) -> Check:
    """What the profiler itself costs a decode step."""
    name = "perturbation"
    if cost is None:
        finding, fix = "what profiling costs was not measured here", "modbench doctor --remeasure"
        return Check(name=name, group="machine", status="info", finding=finding, fix=fix)
    finding = f"profiling adds {cost.added_ratio * 100:+.2f} %"
    low, high = cost.interval or (-math.inf, math.inf)
    if cost.interval is not None:
        finding += f" [{low * 100:+.2f}, {high * 100:+.2f}]"
    finding += f" to a step of {format_seconds(cost.step_s)} ({cost.model}, {cost.num_pairs} pairs)"
    if high <= MAX_PERTURBATION_RATIO:
        return Check(name=name, group="machine", status="ok", finding=finding)
    if low > MAX_PERTURBATION_RATIO:
        fix = "trust no step as short as this"
        return Check(name=name, group="machine", status="warn", finding=finding, fix=fix)
    fix = "too noisy to tell from 0.5 %: modbench doctor --remeasure while nothing else runs"
    return Check(name=name, group="machine", status="info", finding=finding, fix=fix)


def address_space_limit() -> int | None:
    """This process's RLIMIT_AS in bytes; None: unlimited."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def clock_check(root: Path, resolution_s: float, call_s: float) -> Check:
    """The kernel's clock source, and what reading `perf_counter` costs."""
    source = read_text(root, "sys/devices/system/clocksource/clocksource0/current_clocksource")
    finding = f"{source or 'source not visible'}; resolution {format_seconds(resolution_s)}, a call "
    finding += format_seconds(call_s)
    fix = ""
    if source is not None and source not in STEADY_CLOCKS:
        available = read_text(root, "sys/devices/system/clocksource/clocksource0/available_clocksource") or ""
        better = next((name for name in available.split() if name in STEADY_CLOCKS), "tsc")
        fix = f"boot with clocksource={better}"
    elif call_s > MAX_CALL_S:
        fix = "run without a sandbox or tracer (gVisor, ptrace) that intercepts system calls"
    return Check(name="clock", group="machine", status="warn" if fix else "ok", finding=finding, fix=fix)


def perf_counter_call_s() -> float:
    """Seconds of one `perf_counter()` call: the best mean of several batches."""
    best = float("inf")
    for _ in range(NUM_CLOCK_BATCHES):
        start = time.perf_counter()
        for _ in range(NUM_CLOCK_CALLS):
            time.perf_counter()
        best = min(best, (time.perf_counter() - start) / NUM_CLOCK_CALLS)
    return best


def disk_check(folder: Path, free_bytes: int) -> Check:
    """Room for records, plots and worker logs under `folder`."""
    finding = f"{format_bytes(free_bytes)} free for {folder}"
    if free_bytes >= MIN_DISK_BYTES:
        return Check(name="disk", group="machine", status="ok", finding=finding)
    fix = "free some space, or run with --output on another disk"
    return Check(name="disk", group="machine", status="warn", finding=finding, fix=fix)


def free_disk_bytes(folder: Path) -> int:
    """Free bytes on the disk of a folder that may not exist yet."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free
