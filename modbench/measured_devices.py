"""The ceilings that devices of this machine reached, kept once they are measured. Imports no torch.

In: a `MeasuredDevice` from a probe. Out: the same, in any later process. Files are those of machine_cache.py, kind "ceilings".
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from modbench import machine_cache
from modbench.host import fingerprint, host_facts

KIND = "ceilings"


class MeasuredDevice(BaseModel):
    """One device at one dtype and number of threads: copy bandwidth in bytes/s (read plus written), matrix product in FLOP/s.

    `memory_bytes` is the device's own memory, the host's for a CPU; `host` and `machine` are fingerprints without and with the
    accelerator. A spread is how far the median run was above the best one, whose rate is kept; None where it was not recorded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["cpu", "cuda"]
    memory_bytes: int
    host: str
    machine: str
    torch: str
    dtype: str
    threads: int
    copy_bytes_per_s: float
    matmul_flops_per_s: float
    copy_spread_ratio: float | None = None
    matmul_spread_ratio: float | None = None

    @property
    def ceilings(self) -> dict[str, float]:
        """As records carry them."""
        return {"copy_bytes_per_s": self.copy_bytes_per_s, "matmul_flops_per_s": self.matmul_flops_per_s}


def _key(machine: str, torch: str, dtype: str, threads: int) -> list[object]:
    return [machine, torch, dtype, threads]


def recall(machine: str, torch: str, dtype: str, threads: int) -> MeasuredDevice | None:
    """What was measured on this machine with this torch; None where nothing was, or by a version that kept less."""
    return _validated(machine_cache.load(KIND, _key(machine, torch, dtype, threads)))


def remember(device: MeasuredDevice) -> None:
    """Keep it, in the place of an older measurement."""
    key = _key(device.machine, device.torch, device.dtype, device.threads)
    machine_cache.store(KIND, key, device.model_dump(mode="json"))


def on_this_host() -> list[MeasuredDevice]:
    """Everything measured on this machine, whatever the torch version, the newest measurement first."""
    host = fingerprint(host_facts())
    found = (_validated(value) for value in machine_cache.stored(KIND))
    return [device for device in found if device is not None and device.host == host]


def _validated(value: object) -> MeasuredDevice | None:
    try:
        return MeasuredDevice.model_validate(value)
    except ValidationError:
        return None
