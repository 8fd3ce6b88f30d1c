"""The device of a prediction: a named one, by the peaks of its data sheet, or one measured on this machine.

In: a name and a dtype. Out: a `Device`, which says where its ceilings come from. The two kinds of ceilings are never mixed: no
device reaches the peaks of its data sheet, and a measured ceiling is what one did reach.
"""

from dataclasses import dataclass
from typing import Literal

from modbench.errors import UnsupportedError
from modbench.host import host_facts
from modbench.measured_devices import MeasuredDevice, on_this_host
from modbench.scenario.wording import near_match, show
from modbench.units import GIB

MEASURED = "measured"
CeilingsSource = Literal["data-sheet peaks", "measured ceilings"]


@dataclass(frozen=True)
class Device:
    """One device at one dtype: memory in bytes, copy bandwidth in bytes/s (read plus written), matrix product in FLOP/s."""

    name: str
    kind: Literal["cpu", "cuda"]
    memory_bytes: int
    dtype: str
    copy_bytes_per_s: float
    matmul_flops_per_s: float
    source: CeilingsSource
    detail: str = ""


@dataclass(frozen=True)
class DataSheet:
    """What a vendor prints: memory in GB (each of 2^30 bytes, as memory is sold), total traffic in GB/s, dense TFLOP/s.

    `half_tflops`: bfloat16 and float16 matrix units, accumulating in float32, without sparsity; `float_tflops`: float32 proper, as
    torch multiplies by default, not TF32.
    """

    name: str
    memory_gb: int
    bandwidth_gb_per_s: float
    half_tflops: float
    float_tflops: float


# Source: the vendors' data sheets and architecture white papers. Memory that error correction takes on GDDR cards, about a
# sixteenth, is not on them.
DATA_SHEETS: dict[str, DataSheet] = {
    "a100-40": DataSheet("NVIDIA A100 40GB", 40, 1555, 312, 19.5),
    "a100-80": DataSheet("NVIDIA A100 80GB SXM", 80, 2039, 312, 19.5),
    "h100-sxm": DataSheet("NVIDIA H100 SXM", 80, 3350, 989, 67),
    "h100-pcie": DataSheet("NVIDIA H100 PCIe", 80, 2000, 756, 51),
    "h200": DataSheet("NVIDIA H200 SXM", 141, 4800, 989, 67),
    "l40s": DataSheet("NVIDIA L40S", 48, 864, 362, 91.6),
    "l4": DataSheet("NVIDIA L4", 24, 300, 121, 30.3),
    "rtx4090": DataSheet("NVIDIA GeForce RTX 4090", 24, 1008, 165.2, 82.6),
    "rtx3090": DataSheet("NVIDIA GeForce RTX 3090", 24, 936, 71, 35.6),
    "mi300x": DataSheet("AMD Instinct MI300X", 192, 5300, 1307.4, 163.4),
}


def named_device(name: str, dtype: str) -> Device:
    """The device of this name, at the peaks of its data sheet.

    Raises:
        UnsupportedError: no such name.
    """
    sheet = DATA_SHEETS.get(name.lower())
    if sheet is None:
        begun = [known for known in DATA_SHEETS if known.startswith(name.lower())]
        near = " or ".join(begun) or near_match(name, DATA_SHEETS)
        advice = f"; did you mean {near}?" if near else ""
        known = ", ".join([MEASURED, *DATA_SHEETS])
        raise UnsupportedError(f"--device: got {show(name)}; expected one of {known}{advice}")
    tflops = sheet.float_tflops if dtype == "float32" else sheet.half_tflops
    return Device(
        name=sheet.name,
        kind="cuda",
        memory_bytes=sheet.memory_gb * GIB,
        dtype=dtype,
        copy_bytes_per_s=sheet.bandwidth_gb_per_s * 1e9,
        matmul_flops_per_s=tflops * 1e12,
        source="data-sheet peaks",
    )


def measured_device(dtype: str, kind: str | None = None, threads: int | None = None) -> Device:
    """The newest device measured on this machine at this dtype; of the wanted kind, and number of threads where there is one.

    Without a wanted number, or where it was not measured: with no more threads than there are cores.

    Raises:
        UnsupportedError: there is none.
    """
    found = [device for device in on_this_host() if device.dtype == dtype and kind in (None, device.kind)]
    if not found:
        what = f"{dtype} on {kind}" if kind else dtype
        raise UnsupportedError(
            f"--device {MEASURED}: no ceilings of {what} were measured on this machine; run `modbench doctor --remeasure`, "
            f"or name a device: {', '.join(DATA_SHEETS)}"
        )
    wanted = [device for device in found if device.threads == threads]
    sensible = [device for device in found if device.threads <= host_facts()["num_cores"]]
    return _as_device((wanted or sensible or found)[0])


def _as_device(measured: MeasuredDevice) -> Device:
    threads = f"{measured.threads} thread{'s' * (measured.threads != 1)}, " if measured.kind == "cpu" else ""
    return Device(
        name=measured.name,
        kind=measured.kind,
        memory_bytes=measured.memory_bytes,
        dtype=measured.dtype,
        copy_bytes_per_s=measured.copy_bytes_per_s,
        matmul_flops_per_s=measured.matmul_flops_per_s,
        source="measured ceilings",
        detail=f"{threads}torch {measured.torch}",
    )
