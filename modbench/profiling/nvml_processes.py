"""Whose memory is on the GPU? In: the driver's lists of processes. Out: ours and that of others, or why they cannot be told apart.

A driver may hide a process's memory, and inside a container it may name processes by numbers of the host, where ours are unknown.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ProcessMemory:
    """Processes on the device.

    Attributes:
        process_bytes: device memory of our own processes; None with `process_unknown` saying why.
        process_unknown: why `process_bytes` is None.
        foreign_pids: processes that are not ours; None where ours cannot be told from others.
        foreign_bytes: their device memory; None where any of it is hidden.
        num_foreign_min: how many processes are surely not ours.
    """

    process_bytes: int | None = None
    process_unknown: str | None = None
    foreign_pids: tuple[int, ...] | None = None
    foreign_bytes: int | None = None
    num_foreign_min: int | None = None


def bytes_by_pid(*lists: Iterable[Any]) -> dict[int, int | None]:
    """Memory per process from NVML's lists. A process that computes and draws is in both, with the same memory."""
    merged: dict[int, int | None] = {}
    for processes in lists:
        of_list: dict[int, int | None] = {}
        for process in processes:  # once per MIG instance that it uses
            of_list[process.pid] = _total([of_list.get(process.pid, 0), process.usedGpuMemory])
        for pid, used in of_list.items():
            known = [value for value in (used, merged.get(pid)) if value is not None]
            merged[pid] = max(known, default=None)
    return merged


def attribute(used: Mapping[int, int | None], own_pids: Collection[int]) -> ProcessMemory:
    """Split processes into ours and others. No `own_pids` says that none of the listed is ours."""
    own = [pid for pid in sorted(used) if pid in own_pids]
    foreign = tuple(pid for pid in sorted(used) if pid not in own_pids)
    if own_pids and not own:
        pids = ", ".join(str(pid) for pid in sorted(own_pids))
        reason = f"process {pids} is not in the driver's list: it has no CUDA context yet, or runs in a container"
        if foreign:  # some of them may be ours, by other numbers
            return ProcessMemory(process_unknown=reason, num_foreign_min=max(0, len(foreign) - len(own_pids)))
        return ProcessMemory(process_unknown=reason, foreign_pids=(), foreign_bytes=0, num_foreign_min=0)
    own_bytes = _total(used[pid] for pid in own) if own else None
    reason = "the driver hides the memory of processes" if own else "no process was named as ours"
    return ProcessMemory(
        process_bytes=own_bytes,
        process_unknown=reason if own_bytes is None else None,
        foreign_pids=foreign,
        foreign_bytes=_total(used[pid] for pid in foreign),
        num_foreign_min=len(foreign),
    )


def _total(values: Iterable[int | None]) -> int | None:
    """The sum; None where any part is unknown."""
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total
