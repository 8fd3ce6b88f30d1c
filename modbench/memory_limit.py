"""A limit on the memory of a child, so that a model that does not fit ends that child and not the machine. Imports no torch.

In: what the machine has left, or a limit in bytes. Out: a limit in force on this process, and whether the kernel had to kill.

The limit is `RLIMIT_DATA`: private writable memory, which is what an allocator takes. `RLIMIT_AS` would count address space, of
which a CUDA process reserves far more than there is memory, without access rights (not tried on a GPU). Not counted: shared
memory (`/dev/shm`), and what a child's own children take (each has the same limit for itself). Counted though the kernel can drop
it: a file mapped private and writable, as a checkpoint may be.
"""

import ctypes
import resource
import sys
from contextlib import suppress
from pathlib import Path

import psutil

RESERVE_BYTES = 1024**3  # left to the parent, the kernel and everybody else
NEAR_LIMIT_RATIO = 0.9  # a killed process that held this share of what the machine had left was killed for it
RESERVE_RATIO = 0.05  # of what is available, where that is more
CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")
UNLIMITED_BYTES = 2**60  # version 1 writes "no limit" as a number near 2**63
M_MMAP_THRESHOLD = -3  # mallopt(3)
LARGE_BLOCK_BYTES = 1024**2
FIRST_TO_KILL = "1000"  # proc(5): the highest oom_score_adj
OUT_OF_MEMORY_TEXTS = (
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "not enough memory",
    "memoryerror",
    "bad_alloc",
    "alloc_failed",
    "could not create a primitive",
    "could not create a memory",
    "start new thread",
    "resource temporarily unavailable",  # of a thread's stack
)


def automatic_limit() -> int | None:
    """What a child may take of the memory that is available now: all but a reserve; None where no limit can be set."""
    if _held_bytes() is None:
        return None
    free = available_bytes()
    return max(free // 2, free - max(RESERVE_BYTES, round(RESERVE_RATIO * free)))


def job_limits(wanted: int | str, automatic_bytes: int | None, device_kind: str) -> dict[str, int | None]:
    """The limits of a job, as it and its record carry them.

    Args:
        wanted: `measure.memory_limit`: "auto" or bytes. On a CUDA device it is the budget of that device's own memory.
        automatic_bytes: of the host; None where no limit can be set.
        device_kind: "cpu" or "cuda".
    """
    given = wanted if isinstance(wanted, int) else None
    if device_kind == "cuda":
        return {"memory_limit_bytes": automatic_bytes, "device_limit_bytes": given}
    host_bytes = automatic_bytes if given is None or automatic_bytes is None else given
    return {"memory_limit_bytes": host_bytes, "device_limit_bytes": None}


def available_bytes(cgroups: Path = CGROUPS, proc: Path = PROC) -> int:
    """Memory that can be had without swapping: of the machine, or what this control group or one above has left, if less."""
    found = [psutil.virtual_memory().available]
    for folder in _memory_groups(cgroups, proc):
        for limit_file, used_file in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, used = _number_in(folder / limit_file), _number_in(folder / used_file)
            if limit is not None and used is not None and limit < UNLIMITED_BYTES:
                found.append(max(0, limit - used + _droppable_bytes(folder)))
    return min(found)


def oom_kill_count(cgroups: Path = CGROUPS, proc: Path = PROC) -> int | None:
    """How often the kernel's out-of-memory killer has struck in this control group; None where the kernel does not say."""
    for folder in _memory_groups(cgroups, proc):
        for name in ("memory.events", "memory.oom_control"):
            count = _value_in(folder / name, "oom_kill")
            if count is not None:
                return count
    return None


def limit_this_process(limit_bytes: int | None) -> None:
    """Let this process take `limit_bytes` more than it has (Linux); with None, or elsewhere, nothing."""
    held_bytes = _held_bytes()
    if limit_bytes is None or held_bytes is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = [bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([held_bytes + limit_bytes, *allowed]), hard))


def lift_limit() -> None:
    """Take the limit off again, so that a process that ran into it has the memory to say so."""
    if sys.platform == "linux":
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def return_large_blocks() -> bool:
    """Let malloc map every block of `LARGE_BLOCK_BYTES` or more by itself and give it back when it is freed; False without glibc.

    By default glibc keeps freed blocks of up to 32 MiB in a heap with holes, and the same work needs more or less memory by luck.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES) == 1


def tells_out_of_memory(text: str) -> bool:
    """Whether an error's text is what libraries say when they run out of memory."""
    return any(told in text.lower() for told in OUT_OF_MEMORY_TEXTS)


def be_killed_first() -> None:
    """Where the machine runs out of memory all the same, let the kernel end this process before any other (Linux)."""
    with suppress(OSError):
        (PROC / "self" / "oom_score_adj").write_text(FIRST_TO_KILL)


def _held_bytes() -> int | None:
    """What counts against the limit already; None where the kernel (or another system) does not account for it."""
    held_kib = _value_in(PROC / "self" / "status", "VmData:") if sys.platform == "linux" else None
    return None if held_kib is None else held_kib * 1024


def _memory_groups(cgroups: Path, proc: Path) -> list[Path]:
    """The folders of this process's memory control group and of those above it, the innermost first.

    In a container the kernel may name a path that is outside what is mounted: then the mounted root is its own.
    """
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    groups: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "memory" in controllers.split(","):
            root = cgroups / controllers
            inner = root / path.lstrip("/")
            while inner != root and root in inner.parents:
                groups.append(inner)
                inner = inner.parent
            groups.append(root)
    return [folder for folder in groups if folder.is_dir()]


def _droppable_bytes(folder: Path) -> int:
    """File pages that the kernel gives up before it kills: they count as used and are not."""
    return _value_in(folder / "memory.stat", "inactive_file") or 0


def _number_in(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _value_in(path: Path, key: str) -> int | None:
    """The number after a key in a file of `key number` lines."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [key]), None)
