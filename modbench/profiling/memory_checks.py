"""Checks of the host's memory: what is free, what is swapped out, what a control group allows. Imports no torch.

In: the kernel's files under `root`. Out: a `Check` each.
"""

from collections.abc import Iterator
from pathlib import Path

from modbench.checks import Check
from modbench.profiling.machine_checks import read_number, read_text
from modbench.units import format_bytes, format_percent

MIN_FREE_RATIO = 0.5
CGROUP = "sys/fs/cgroup"
NO_LIMIT_BYTES = 2**62  # version 1 writes a number near 2**63 for it
V2 = ""  # the unified hierarchy has no controller in its line of /proc/self/cgroup


def memory_sizes(root: Path) -> dict[str, int]:
    """/proc/meminfo in bytes; empty where there is none."""
    sizes = {}
    for line in (read_text(root, "proc/meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        if value.strip().endswith("kB"):
            sizes[name] = int(value.split()[0]) * 1024
    return sizes


def memory_check(root: Path) -> Check:
    """Memory that a new launch may take without swapping, against the machine's."""
    sizes = memory_sizes(root)
    total, available = sizes.get("MemTotal"), sizes.get("MemAvailable")
    if not total or available is None:
        return Check(name="memory", group="memory", status="info", finding="/proc/meminfo tells nothing")
    finding = f"{format_bytes(available)} of {format_bytes(total)} available ({format_percent(available / total)})"
    if available / total >= MIN_FREE_RATIO:
        return Check(name="memory", group="memory", status="ok", finding=finding)
    return Check(
        name="memory",
        group="memory",
        status="warn",
        finding=finding,
        fix="end what holds it: ps aux --sort=-rss | head",
    )


def swap_check(root: Path) -> Check:
    """Pages that are swapped out come back in the middle of a sample."""
    sizes = memory_sizes(root)
    total, free = sizes.get("SwapTotal"), sizes.get("SwapFree")
    if total is None or free is None:
        return Check(name="swap", group="memory", status="info", finding="/proc/meminfo tells nothing")
    if total == free:
        return Check(name="swap", group="memory", status="ok", finding="none in use")
    finding = f"{format_bytes(total - free)} in use: pages may be read back inside a clock"
    return Check(name="swap", group="memory", status="warn", finding=finding, fix="sudo swapoff -a && sudo swapon -a")


def memory_limit_check(root: Path) -> Check:
    """A control group's limit, not the machine's memory, then decides what fits."""
    total = memory_sizes(root).get("MemTotal", NO_LIMIT_BYTES)
    limits = [
        limit
        for folder in cgroup_folders(root, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        if (limit := read_number(folder, name)) is not None  # `max` is no number
    ]
    if not limits or min(limits) >= total:
        return Check(name="memory_limit", group="memory", status="ok", finding="no control group limits it")
    return Check(
        name="memory_limit",
        group="memory",
        status="info",
        finding=f"a control group allows {format_bytes(min(limits))}: a launch above it is killed",
        fix="raise it: docker run --memory, or MemoryMax= of the systemd unit",
    )


def cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the control groups that hold this process, innermost first, of version 2 and of version 1."""
    for line in (read_text(root, "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == V2:
            mounts = [root / CGROUP, root / CGROUP / "unified"]
        elif controller in controllers.split(","):
            mounts = [root / CGROUP / controller, root / CGROUP / controllers]
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in mounts:
            for depth in range(len(parts), -1, -1):
                folder = mount.joinpath(*parts[:depth])
                if folder.is_dir():
                    yield folder
