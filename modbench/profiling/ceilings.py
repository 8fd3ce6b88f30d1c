"""This device's ceilings: copy bandwidth and matrix-product rate, measured. In: device, dtype, threads. Out: bytes/s and FLOP/s.

The best of several runs, because a ceiling is what the device can do, not what it does on average.
"""

import time
from collections.abc import Callable

import torch

COPY_BYTES = 256 * 1024**2
MATRIX_SIZE = {"cpu": 1536, "cuda": 8192}
RUNS = 5


def _best_seconds(run: Callable[[], object], device: torch.device) -> float:
    best = float("inf")
    run()
    for _ in range(RUNS):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best


def measure_ceilings(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """`copy_bytes_per_s` (bytes read plus bytes written) and `matmul_flops_per_s` (2 n^3 per product) with torch's threads."""
    source = torch.zeros(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_s = _best_seconds(lambda: target.copy_(source), device)
    size = MATRIX_SIZE[device.type]
    left = torch.randn(size, size, device=device).to(dtype)
    out = torch.empty_like(left)
    matmul_s = _best_seconds(lambda: torch.mm(left, left, out=out), device)
    return {"copy_bytes_per_s": 2 * COPY_BYTES / copy_s, "matmul_flops_per_s": 2 * size**3 / matmul_s}
