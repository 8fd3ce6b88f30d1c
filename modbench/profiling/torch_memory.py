"""Torch's CUDA allocator: what it holds, now and at most, and a budget for it. In: a device. Out: bytes; nothing on a CPU."""

import torch


def reset_peak(device: torch.device) -> None:
    """Start new allocator peaks."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def allocator_peaks(device: torch.device) -> dict[str, int]:
    """`allocated_bytes` and `reserved_bytes` at most since the last reset; empty on a CPU."""
    if device.type != "cuda":
        return {}
    return {
        "allocated_bytes": torch.cuda.max_memory_allocated(device),
        "reserved_bytes": torch.cuda.max_memory_reserved(device),
    }


def requested_bytes(device: torch.device) -> int | None:
    """What live tensors asked for, before the allocator rounds and splits blocks; None on a CPU, whose allocator keeps no count."""
    if device.type != "cuda":
        return None
    return torch.cuda.memory_stats(device)["requested_bytes.all.current"]


def allocator_state(device: torch.device) -> dict[str, int | None]:
    """What the allocator holds now (`last_*`) and held at most, after a failure; empty on a CPU or where CUDA never started."""
    if device.type != "cuda" or not torch.cuda.is_initialized():
        return {}
    return {
        "last_allocated_bytes": torch.cuda.memory_allocated(device),
        "last_reserved_bytes": torch.cuda.memory_reserved(device),
        **{f"peak_{name}": value for name, value in allocator_peaks(device).items()},
    }


def limit_device(device: torch.device, limit_bytes: int | None) -> None:
    """Start the device, and let torch's allocator reserve at most `limit_bytes` of it; on a CPU nothing.

    What CUDA itself takes (its context, some hundred MiB) and what other libraries allocate is outside this budget.
    """
    if device.type != "cuda":
        return
    torch.cuda.synchronize(device)
    if limit_bytes is not None:
        index = torch.cuda.current_device() if device.index is None else device.index
        total_bytes = torch.cuda.get_device_properties(index).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total_bytes), index)
