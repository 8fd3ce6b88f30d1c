"""What the NVIDIA driver says of one GPU: facts, and readings of memory, energy, power, clocks, temperature and processes.

In: CUDA's number of a device and what decides which GPU that is. Out: an `NvmlDevice`, or `NvmlAbsent` with the reason. Base units
throughout. What this driver does not tell is None, never 0, and the reason is kept; nothing here raises for what a driver does.
"""

import contextlib
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from modbench.profiling.nvml_calls import DriverCalls
from modbench.profiling.nvml_locate import Located, NvmlAbsent, locate
from modbench.profiling.nvml_processes import ProcessMemory, attribute, bytes_by_pid

try:
    import pynvml
except ImportError:  # pragma: no cover (a declared dependency)
    pynvml = None

__all__ = ["CounterReading", "NvmlAbsent", "NvmlDevice", "Reading", "open_device"]

_MEMORY_V2, _INSTANT_POWER = "nvmlDeviceGetMemoryInfo (v2)", "NVML_FI_DEV_POWER_INSTANT"
_IDLE = 0x1
_NOT_THROTTLING = _IDLE | 0x2  # 0x2: application clocks, which somebody asked for
_THROTTLE_REASONS = {
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clock setting",
    0x200: "board limit",
    0x400: "reliability",
}
_VALUE_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # by NVML_VALUE_TYPE_*
_CANNOT_START = {
    "LibraryNotFound": "no NVIDIA driver is installed here (libnvidia-ml not found)",
    "DriverNotLoaded": "the NVIDIA driver is installed and not loaded; load it or reboot",
    "LibRmVersionMismatch": "the NVIDIA driver and its library have different versions; reload the driver or reboot",
    "NoPermission": "this user may not talk to the NVIDIA driver",
}


@dataclass(frozen=True)
class CounterReading:
    """The energy counter at a time: joules since the driver was loaded."""

    time_s: float
    energy_j: float | None


@dataclass(frozen=True)
class Reading(CounterReading):
    """One look at the device, energy first, right after `time_s`. Fields that this driver does not tell are None.

    Attributes:
        used_bytes: device memory in use by all processes, without what the driver reserves for itself where it tells them apart.
        power_source: the NVML call or field that gave `power_w`: POWER_INSTANT is a momentary value,
            nvmlDeviceGetPowerUsage an average over a second on most recent GPUs.
        throttle_reasons: what holds the clocks down; idling and application clocks are not among them.
        is_idle: the driver lowered the clocks because nothing runs.
        processes: our own and others' memory.
    """

    power_w: float | None = None
    power_source: str | None = None
    used_bytes: int | None = None
    sm_clock_hz: int | None = None
    memory_clock_hz: int | None = None
    throttle_reasons: tuple[str, ...] | None = None
    is_idle: bool | None = None
    temperature_c: int | None = None
    gpu_utilisation_ratio: float | None = None
    memory_utilisation_ratio: float | None = None
    processes: ProcessMemory = field(default_factory=ProcessMemory)

    @property
    def process_bytes(self) -> int | None:
        """Device memory of our own processes; None where it cannot be known."""
        return self.processes.process_bytes


class NvmlDevice:
    """One GPU or MIG instance. After `died` is set nothing is asked any more and every answer is None."""

    def __init__(self, nvml: Any, located: Located, own_pids: Collection[int], clock: Callable[[], float]) -> None:
        self._nvml, self._handle, self._gpu = nvml, located.handle, located.gpu
        self._own_pids = frozenset(own_pids)
        self._clock = clock
        self._calls = DriverCalls(nvml)
        self._located_doubts = located.doubts

    @property
    def unsupported(self) -> dict[str, str]:
        """Calls that have no answer here -> why; each was asked once."""
        return self._calls.unsupported

    @property
    def interrupted(self) -> dict[str, str]:
        """Calls that usually answer -> their latest failure."""
        return self._calls.interrupted

    @property
    def died(self) -> str | None:
        """The call and error with which the driver stopped answering; None while it lives."""
        return self._calls.died

    @property
    def doubts(self) -> tuple[str, ...]:
        """What to know about these values: whose they are, and what they include."""
        if _MEMORY_V2 in self.unsupported:
            return (*self._located_doubts, "used device memory includes what the driver reserves for itself")
        return self._located_doubts

    def give_up(self, reason: str) -> None:
        """Ask nothing any more: for a driver that hangs in a call, which nobody else can see."""
        self._calls.died = self._calls.died or reason

    def close(self) -> None:
        """Leave NVML. A driver that died is not even asked for that, since it may hang."""
        if self.died is None:
            _shut_down(self._nvml)

    def facts(self) -> dict[str, Any]:
        """What identifies the device and limits its speed, JSON-ready; None where unknown.

        NVML does not tell locked clocks: only the readings' steady clock shows them.
        """
        ask, nvml = self._calls.ask, self._nvml
        cuda = ask("nvmlSystemGetCudaDriverVersion")
        memory, _ = self._memory()
        return {
            "name": ask("nvmlDeviceGetName", self._handle),
            "uuid": ask("nvmlDeviceGetUUID", self._handle),
            "driver_version": ask("nvmlSystemGetDriverVersion"),
            "cuda_driver_version": None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
            "total_memory_bytes": None if memory is None else int(memory.total),
            "reserved_memory_bytes": int(memory.reserved) if hasattr(memory, "reserved") else None,
            "power_limit_w": _from_milli(ask("nvmlDeviceGetEnforcedPowerLimit", self._gpu)),
            "default_power_limit_w": _from_milli(ask("nvmlDeviceGetPowerManagementDefaultLimit", self._gpu)),
            "is_ecc_enabled": _is_on(ask("nvmlDeviceGetEccMode", self._gpu)),
            "is_mig_enabled": _is_on(ask("nvmlDeviceGetMigMode", self._gpu)),
            "is_persistence_enabled": _is_on(ask("nvmlDeviceGetPersistenceMode", self._gpu)),
            "max_sm_clock_hz": self._clock_hz("nvmlDeviceGetMaxClockInfo", "SM", nvml.NVML_CLOCK_SM),
            "max_memory_clock_hz": self._clock_hz("nvmlDeviceGetMaxClockInfo", "memory", nvml.NVML_CLOCK_MEM),
            "application_sm_clock_hz": self._clock_hz("nvmlDeviceGetApplicationsClock", "SM", nvml.NVML_CLOCK_SM),
            "application_memory_clock_hz": self._clock_hz(
                "nvmlDeviceGetApplicationsClock", "memory", nvml.NVML_CLOCK_MEM
            ),
        }

    def read_energy(self) -> CounterReading:
        """The energy counter alone: one call, for the ends of a window and for calibration."""
        return CounterReading(self._clock(), self._energy_j())

    def read(self) -> Reading:
        """Everything once. Where the driver dies on the way, what it still said is in the reading and `died` is set."""
        time_s, energy_j = self._clock(), self._energy_j()
        _, used_bytes = self._memory()
        power_w, power_source = self._power()
        throttle_reasons, is_idle = self._clock_events()
        utilisation = self._calls.ask("nvmlDeviceGetUtilizationRates", self._gpu)
        return Reading(
            time_s=time_s,
            energy_j=energy_j,
            power_w=power_w,
            power_source=power_source,
            used_bytes=used_bytes,
            sm_clock_hz=self._clock_hz("nvmlDeviceGetClockInfo", "SM", self._nvml.NVML_CLOCK_SM),
            memory_clock_hz=self._clock_hz("nvmlDeviceGetClockInfo", "memory", self._nvml.NVML_CLOCK_MEM),
            throttle_reasons=throttle_reasons,
            is_idle=is_idle,
            temperature_c=self._temperature_c(),
            gpu_utilisation_ratio=None if utilisation is None else utilisation.gpu / 100,
            memory_utilisation_ratio=None if utilisation is None else utilisation.memory / 100,
            processes=self._processes(),
        )

    def _energy_j(self) -> float | None:
        return _from_milli(self._calls.ask("nvmlDeviceGetTotalEnergyConsumption", self._gpu))

    def _memory(self) -> tuple[Any, int | None]:
        """NVML's memory structure, and the bytes in use; of one version throughout, since they count differently."""
        memory = self._calls.ask("nvmlDeviceGetMemoryInfo", self._handle, self._nvml.nvmlMemory_v2, of="v2")
        if _MEMORY_V2 in self.unsupported:
            memory = self._calls.ask("nvmlDeviceGetMemoryInfo", self._handle)
        return memory, None if memory is None else int(memory.used)

    def _power(self) -> tuple[float | None, str | None]:
        """Power now where the driver tells it, else its own average; and which of them it is."""
        power_mw, source = self._calls.answer(_INSTANT_POWER, self._instant_power_mw), _INSTANT_POWER
        if _INSTANT_POWER in self.unsupported:
            source = "nvmlDeviceGetPowerUsage"
            power_mw = self._calls.ask(source, self._gpu)
        return _from_milli(power_mw), None if power_mw is None else source

    def _instant_power_mw(self) -> float:
        """The call succeeds as a whole; whether the field has a value stands beside it."""
        found = self._nvml.nvmlDeviceGetFieldValues(self._gpu, [self._nvml.NVML_FI_DEV_POWER_INSTANT])[0]
        if found.nvmlReturn != self._nvml.NVML_SUCCESS:
            raise self._nvml.NVMLError(found.nvmlReturn)
        return getattr(found.value, _VALUE_MEMBERS[found.valueType])

    def _clock_hz(self, name: str, of: str, clock_type: int) -> int | None:
        clock_mhz = self._calls.ask(name, self._gpu, clock_type, of=of)
        return None if clock_mhz is None else clock_mhz * 1_000_000

    def _clock_events(self) -> tuple[tuple[str, ...] | None, bool | None]:
        """Readable throttle reasons, and whether the GPU idles."""
        bits = self._calls.ask("nvmlDeviceGetCurrentClocksEventReasons", self._gpu)
        if bits is None:
            bits = self._calls.ask("nvmlDeviceGetCurrentClocksThrottleReasons", self._gpu)
        if bits is None:
            return None, None
        set_bits = [1 << place for place in range(bits.bit_length()) if bits & ~_NOT_THROTTLING & (1 << place)]
        return tuple(_THROTTLE_REASONS.get(bit, f"reason {bit:#x}") for bit in set_bits), bool(bits & _IDLE)

    def _temperature_c(self) -> int | None:
        sensor = self._nvml.NVML_TEMPERATURE_GPU
        degrees = self._calls.ask("nvmlDeviceGetTemperatureV", self._gpu, sensor)
        return self._calls.ask("nvmlDeviceGetTemperature", self._gpu, sensor) if degrees is None else degrees

    def _processes(self) -> ProcessMemory:
        compute = self._calls.ask("nvmlDeviceGetComputeRunningProcesses", self._handle)
        graphics = self._calls.ask("nvmlDeviceGetGraphicsRunningProcesses", self._handle)
        if compute is None:
            return ProcessMemory(process_unknown="the driver does not list processes")
        return attribute(bytes_by_pid(compute, graphics or []), self._own_pids)


def open_device(
    cuda_index: int,
    visible: str | None,
    nvml: Any = pynvml,
    *,
    uuid: str | None = None,
    device_order: str | None = None,
    own_pids: Collection[int] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> NvmlDevice | NvmlAbsent:
    """Open CUDA's device `cuda_index` in NVML.

    Args:
        cuda_index: the device's number in this process, after CUDA_VISIBLE_DEVICES.
        visible: the value of CUDA_VISIBLE_DEVICES; None where it is not set.
        nvml: the module `pynvml`, or one that behaves like it.
        uuid: the device's UUID as CUDA tells it; wins over any counting.
        device_order: the value of CUDA_DEVICE_ORDER; None where it is not set.
        own_pids: processes whose memory is ours; this one by default. None of those listed where empty.
        clock: gives the time of readings, in seconds.
    """
    if nvml is None:
        return NvmlAbsent("nvidia-ml-py is not installed; install it with pip")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return NvmlAbsent(_CANNOT_START.get(type(error).__name__.removeprefix("NVMLError_"), f"nvmlInit: {error}"))
    located = locate(nvml, cuda_index, visible, uuid, device_order)
    if isinstance(located, NvmlAbsent):
        _shut_down(nvml)
        return located
    return NvmlDevice(nvml, located, {os.getpid()} if own_pids is None else own_pids, clock)


def _shut_down(nvml: Any) -> None:
    with contextlib.suppress(nvml.NVMLError):
        nvml.nvmlShutdown()


def _from_milli(value: float | None) -> float | None:
    return None if value is None else value / 1000


def _is_on(state: Any) -> bool | None:
    """NVML's enabled state; of a pair of current and pending, the current one."""
    if state is None:
        return None
    return bool(state[0] if isinstance(state, list) else state)
