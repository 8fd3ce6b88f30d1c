"""Checks of the processor: what makes its speed wander, and who else uses it. Imports no torch.

In: the kernel's files under `root`, and what was read twice. Out: a `Check` each.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modbench.checks import Check
from modbench.profiling.machine_checks import read_number, read_text
from modbench.profiling.memory_checks import cgroup_folders
from modbench.units import format_percent

CPUS = "sys/devices/system/cpu"
MAX_OTHER_CORES = 0.1  # of one core; ticks of 10 ms cannot tell less apart in half a second
MAX_STEAL_RATIO = 0.01
HOT_MARGIN_C = 10.0
NOT_VISIBLE = "not visible (a virtual machine or container?)"


def processor_check(model: str, allowed: Sequence[int], num_online: int) -> Check:
    """What it is, and which of its CPUs this process may use (affinity)."""
    if len(allowed) >= num_online:
        return Check(name="processor", group="cpu", status="ok", finding=f"{model}, {num_online} CPUs")
    finding = f"{model}, {len(allowed)} of {num_online} CPUs allowed"
    return Check(name="processor", group="cpu", status="info", finding=finding, fix="widen the affinity with taskset")


def governor_check(root: Path, allowed: Iterable[int]) -> Check:
    """Frequency governors of the CPUs that may be used."""
    found = {read_text(root, f"{CPUS}/cpu{cpu}/cpufreq/scaling_governor") for cpu in allowed} - {None, ""}
    names = sorted(name for name in found if name)
    if not names:
        return Check(name="cpu_governor", group="cpu", status="info", finding=NOT_VISIBLE)
    if names == ["performance"]:
        return Check(name="cpu_governor", group="cpu", status="ok", finding="performance")
    return Check(
        name="cpu_governor",
        group="cpu",
        status="warn",
        finding=f"{', '.join(names)}: the frequency follows the load",
        fix="sudo cpupower frequency-set -g performance",
    )


def boost_check(root: Path) -> Check:
    """Turbo frequencies depend on temperature and on how many cores are busy."""
    boost, no_turbo = f"{CPUS}/cpufreq/boost", f"{CPUS}/intel_pstate/no_turbo"
    for name, off in ((boost, 0), (no_turbo, 1)):
        value = read_number(root, name)
        if value == off:
            return Check(name="cpu_boost", group="cpu", status="ok", finding="off")
        if value is not None:
            return Check(
                name="cpu_boost",
                group="cpu",
                status="warn",
                finding="on: the frequency depends on heat and on busy neighbours",
                fix=f"echo {off} | sudo tee /{name}",
            )
    return Check(name="cpu_boost", group="cpu", status="info", finding=NOT_VISIBLE)


def smt_check(root: Path, allowed: Iterable[int], threads: int) -> Check:
    """Threads of a launch that would share a core's units with each other."""
    cores = {read_text(root, f"{CPUS}/cpu{cpu}/topology/thread_siblings_list") for cpu in allowed} - {None, ""}
    active = read_number(root, f"{CPUS}/smt/active")
    if active is None:
        return Check(name="smt", group="cpu", status="info", finding=NOT_VISIBLE)
    if active == 0:
        return Check(name="smt", group="cpu", status="ok", finding="off")
    if threads <= len(cores):
        return Check(name="smt", group="cpu", status="info", finding=f"on; {len(cores)} cores for {threads} threads")
    return Check(
        name="smt",
        group="cpu",
        status="warn",
        finding=f"on: {threads} threads share {len(cores)} cores",
        fix="echo off | sudo tee /sys/devices/system/cpu/smt/control, or fewer --threads",
    )


@dataclass(frozen=True)
class CpuTimes:
    """Ticks of all CPUs together since the start of the machine, and this process's CPU seconds."""

    busy: int
    steal: int
    total: int
    own_s: float


def read_cpu_times(root: Path) -> CpuTimes | None:
    """The first line of /proc/stat; None where it is absent or all zeros."""
    first = (read_text(root, "proc/stat") or "").partition("\n")[0].split()
    if len(first) < 9 or first[0] != "cpu":
        return None
    user, nice, system, idle, io_wait, irq, soft_irq, steal = (int(value) for value in first[1:9])
    busy = user + nice + system + irq + soft_irq
    total = busy + idle + io_wait + steal
    return CpuTimes(busy, steal, total, time.process_time()) if total else None


def other_load_check(
    before: CpuTimes | None, after: CpuTimes | None, num_cpus: int, ticks_per_s: int, load_average: float
) -> Check:
    """CPU time that other processes, or other guests of the host (steal), took between two readings."""
    load = f"; load average {load_average:.2f}"
    total = 0 if before is None or after is None else after.total - before.total
    if before is None or after is None or total <= 0:
        return Check(name="other_load", group="cpu", status="info", finding=f"/proc/stat tells nothing{load}")
    own_ticks = (after.own_s - before.own_s) * ticks_per_s
    others = max(0.0, after.busy - before.busy - own_ticks) / total * num_cpus
    steal_ratio = (after.steal - before.steal) / total
    finding = f"others use {others:.2f} of {num_cpus} CPUs, steal {format_percent(steal_ratio)}{load}"
    if others > MAX_OTHER_CORES:
        fix = "stop what else runs: top -o %CPU"
    elif steal_ratio > MAX_STEAL_RATIO:
        fix = "the host gives this CPU to other guests: take a dedicated machine"
    else:
        return Check(name="other_load", group="cpu", status="ok", finding=finding)
    return Check(name="other_load", group="cpu", status="warn", finding=finding, fix=fix)


def cpu_quota_check(root: Path, num_cpus: int, threads: int) -> Check:
    """A control group's CPU quota stops threads in the middle of a sample."""
    quotas = [quota for folder in cgroup_folders(root, "cpu") if (quota := _quota(folder)) is not None]
    if not quotas or min(quotas) >= num_cpus:
        return Check(name="cpu_quota", group="cpu", status="ok", finding="no control group limits it")
    finding = f"a control group allows {min(quotas):g} of {num_cpus} CPUs"
    if min(quotas) >= threads:
        return Check(name="cpu_quota", group="cpu", status="info", finding=finding)
    return Check(
        name="cpu_quota",
        group="cpu",
        status="warn",
        finding=f"{finding}: {threads} threads are stopped when it is used up",
        fix="raise it: docker run --cpus, or CPUQuota= of the systemd unit",
    )


def _quota(folder: Path) -> float | None:
    """CPUs that this group may use; None: no limit."""
    words = (read_text(folder, "cpu.max") or "").split()  # version 2: `QUOTA PERIOD` or `max PERIOD`
    if len(words) == 2 and words[0].isdigit():
        return int(words[0]) / int(words[1])
    quota, period = read_number(folder, "cpu.cfs_quota_us"), read_number(folder, "cpu.cfs_period_us")
    return quota / period if quota is not None and quota > 0 and period else None


def thermal_check(root: Path, sensors: Sequence[tuple[float, float | None]]) -> Check:
    """The sensor nearest to its limit, and how often the processor throttled itself since the machine started.

    `sensors`: (degrees Celsius now, the high mark or None) of each.
    """
    marks = [(high - now, now, high) for now, high in sensors if high]
    counts = [
        count
        for path in sorted((root / CPUS).glob("cpu*/thermal_throttle/core_throttle_count"))
        if (count := read_number(path.parent, path.name)) is not None
    ]
    found = []
    if marks:
        _, now, high = min(marks)
        found.append(f"{now:.0f} °C of {high:.0f} °C")
    elif sensors:
        found.append(f"{max(now for now, _ in sensors):.0f} °C")
    if counts:
        found.append(f"throttled {sum(counts)} times since the machine started")
    if not found:
        return Check(name="thermal", group="cpu", status="info", finding=NOT_VISIBLE)
    if sum(counts) or (marks and min(marks)[0] < HOT_MARGIN_C):
        fix = "cool it, or lower its power limit, until the count stays the same over a run"
        return Check(name="thermal", group="cpu", status="warn", finding="; ".join(found), fix=fix)
    return Check(name="thermal", group="cpu", status="ok", finding="; ".join(found))
