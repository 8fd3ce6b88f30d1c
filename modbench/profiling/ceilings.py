"""This device's ceilings: copy bandwidth and matrix-product rate, measured. In: device, dtype, threads. Out: bytes/s and FLOP/s.

The best of several runs, because a ceiling is what the device can do, not what it does on average.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from modbench import measured_devices
from modbench.host import fingerprint, host_facts
from modbench.measured_devices import MeasuredDevice

COPY_BYTES = 256 * 1024**2
MATRIX_SIZE = {"cpu": 1536, "cuda": 8192}
TRIAL_SIZE = {"cpu": 256, "cuda": 1024}  # large enough that the cost of a call is not taken for a slow device
MAX_PRODUCT_S = 0.5  # no product is tried that would take longer: a dtype may be emulated
RUNS = 5


def _run_seconds(run: Callable[[], object], device: torch.device) -> list[float]:
    """Seconds of each of RUNS runs, after one that is not timed."""
    run()
    seconds = []
    for _ in range(RUNS):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds


def _spread_ratio(seconds: list[float]) -> float:
    """How far the median run is above the best one."""
    return statistics.median(seconds) / min(seconds) - 1


def _product_seconds(size: int, device: torch.device, dtype: torch.dtype) -> list[float]:
    left = torch.randn(size, size, device=device).to(dtype)
    out = torch.empty_like(left)
    return _run_seconds(lambda: torch.mm(left, left, out=out), device)


def bounded_size(largest: int, trial_size: int, trial_s: float) -> int:
    """The largest matrix, halved until its product takes `MAX_PRODUCT_S` at most at the trial's rate."""
    size = largest
    while size > trial_size and trial_s * (size / trial_size) ** 3 > MAX_PRODUCT_S:
        size //= 2
    return size


def measure_ceilings(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """`copy_bytes_per_s` (bytes read plus bytes written) and `matmul_flops_per_s` (2 n^3 per product) with torch's threads.

    Both are of the best run; `copy_spread_ratio` and `matmul_spread_ratio` tell how far the median run was above it.
    """
    source = torch.zeros(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_s = _run_seconds(lambda: target.copy_(source), device)
    trial_size = TRIAL_SIZE[device.type]
    size = bounded_size(MATRIX_SIZE[device.type], trial_size, min(_product_seconds(trial_size, device, dtype)))
    matmul_s = _product_seconds(size, device, dtype)
    return {
        "copy_bytes_per_s": 2 * COPY_BYTES / min(copy_s),
        "matmul_flops_per_s": 2 * size**3 / min(matmul_s),
        "copy_spread_ratio": _spread_ratio(copy_s),
        "matmul_spread_ratio": _spread_ratio(matmul_s),
    }


def known_ceilings(
    device: torch.device, dtype: str, threads: int, environment: dict[str, Any], is_remeasured: bool = False
) -> MeasuredDevice:
    """This device at this dtype and thread count: as it was measured before, or measured now and kept.

    `environment` is what `describe_environment` says of the device; `is_remeasured` replaces what is kept.
    """
    machine, torch_version = environment["machine"], environment["versions"]["torch"]
    kept = measured_devices.recall(machine["fingerprint"], torch_version, dtype, threads)
    if kept is not None and not is_remeasured:
        return kept
    measured = MeasuredDevice(
        name=machine.get("gpu", machine["cpu"]),
        kind="cuda" if device.type == "cuda" else "cpu",
        memory_bytes=machine.get("gpu_memory_bytes", machine["ram_bytes"]),
        host=fingerprint(host_facts()),
        machine=machine["fingerprint"],
        torch=torch_version,
        dtype=dtype,
        threads=threads,
        **measure_ceilings(device, getattr(torch, dtype)),
    )
    measured_devices.remember(measured)
    return measured
