"""What torch's CUDA allocator holds, now and at most. In: a device. Out: bytes; nothing on a CPU."""

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


def allocated_bytes(device: torch.device) -> int | None:
    """What live tensors hold now; None on a CPU, whose allocator keeps no count."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else None
