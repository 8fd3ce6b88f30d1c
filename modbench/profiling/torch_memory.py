"""Peaks of torch's CUDA allocator and of the whole device. In: a device. Out: bytes per phase; nothing on a CPU."""

import torch

try:
    import pynvml
except ImportError:  # pragma: no cover (a declared dependency)
    pynvml = None


def reset_peak(device: torch.device) -> None:
    """Start new allocator peaks."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def allocator_peaks(device: torch.device) -> dict[str, int]:
    """`peak_allocated_bytes` and `peak_reserved_bytes` since the last reset; empty on a CPU."""
    if device.type != "cuda":
        return {}
    return {
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(device),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(device),
    }


def device_used_bytes(device: torch.device) -> int | None:
    """Memory in use on the whole device (NVML), other processes included; None on a CPU or without a driver.

    Read at the end of a phase, when torch's caching allocator still holds all that the phase made it reserve.
    """
    if device.type != "cuda" or pynvml is None:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    except pynvml.NVMLError:
        return None
