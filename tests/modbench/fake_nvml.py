"""A stand-in for the module `pynvml` that replays scripted traces, with the real error classes, constants and structures.

Time is scripted: the state of a GPU is the last one of its trace at or before the clock, and every call may cost time.
"""

import inspect
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pynvml


@dataclass
class ScriptedClock:
    """Seconds that pass only when told to: by `sleep`, or by `tick_s` at every look."""

    now: float = 0.0
    tick_s: float = 0.0

    def __call__(self) -> float:
        self.now += self.tick_s
        return self.now

    def sleep(self, duration_s: float) -> None:
        self.now += duration_s


@dataclass(frozen=True)
class State:
    """What the driver would say at one time, in its own units. Processes are (pid, bytes or None for "not available")."""

    energy_mj: int = 0
    instant_mw: int = 300_000
    average_mw: int = 250_000
    used_bytes: int = 10 * 2**30
    sm_mhz: int = 1980
    memory_mhz: int = 2619
    event_bits: int = 0
    temperature_c: int = 50
    gpu_percent: int = 97
    memory_percent: int = 40
    compute: tuple[tuple[int, int | None], ...] = ()
    graphics: tuple[tuple[int, int | None], ...] = ()


@dataclass(eq=False)
class FakeInstance:
    """A MIG instance: memory and processes of its own, and nothing else."""

    uuid: str
    gpu_instance: int = 1
    compute_instance: int = 0
    state: State = State()
    total_bytes: int = 10 * 2**30


@dataclass(eq=False)
class FakeGpu:
    """A GPU with its trace of (from time, state). `instances` switch MIG mode on, also where there is none in a slot (None)."""

    uuid: str = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
    name: str = "NVIDIA H100 80GB HBM3"
    trace: Sequence[tuple[float, State]] = ((0.0, State()),)
    instances: Sequence[FakeInstance | None] | None = None
    total_bytes: int = 80 * 2**30
    reserved_bytes: int = 2**29
    open_error: int | None = None


@dataclass
class FakeNvml:
    """The module. Attributes that are no functions below are those of the real one.

    Args:
        gpus: in NVML's order.
        clock: chooses the state of each trace.
        unsupported: function or field -> the error it always raises.
        failures: function -> (the error, at which of its calls, from 1).
        missing: functions that these bindings do not have.
        dies_after: device calls that are answered before every one raises `dies_with`.
        init_error: what `nvmlInit` raises.
        call_s: scripted seconds that every device call takes.
        hangs_after: device calls that are answered before one waits for `release`.
    """

    gpus: Sequence[FakeGpu] = field(default_factory=lambda: [FakeGpu()])
    clock: ScriptedClock = field(default_factory=ScriptedClock)
    unsupported: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    missing: Sequence[str] = ()
    dies_after: int | None = None
    dies_with: int = pynvml.NVML_ERROR_GPU_IS_LOST
    init_error: int | None = None
    call_s: float = 0.0
    hangs_after: int | None = None

    def __post_init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.num_open = 0
        self.release = threading.Event()
        self.died = threading.Event()

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("missing", ()):
            raise AttributeError(name)
        if name.startswith(("NVML", "nvmlMemory")):
            return getattr(pynvml, name)
        handler = _DEVICE_CALLS.get(name)
        if handler is None:
            raise AttributeError(name)
        return lambda *arguments: self._call(name, handler, *arguments)

    def _call(self, name: str, handler: Any, *arguments: Any) -> Any:
        inspect.signature(getattr(pynvml, name)).bind(*arguments)  # as the real function would take them
        self.calls[name] += 1
        self.clock.sleep(self.call_s)
        if self.hangs_after is not None and self.calls.total() > self.hangs_after:
            self.release.wait(30)
        if self.dies_after is not None and self.calls.total() > self.dies_after:
            self.died.set()
            raise pynvml.NVMLError(self.dies_with)
        if name in self.unsupported:
            raise pynvml.NVMLError(self.unsupported[name])
        error, at_call = self.failures.get(name, (0, 0))
        if self.calls[name] == at_call:
            raise pynvml.NVMLError(error)
        return handler(self, *arguments)

    def nvmlInit(self) -> None:  # noqa: N802
        if self.init_error is not None:
            raise pynvml.NVMLError(self.init_error)
        self.num_open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.num_open -= 1

    def state_of(self, handle: FakeGpu | FakeInstance) -> State:
        """The state at the scripted time."""
        if isinstance(handle, FakeInstance):
            return handle.state
        return [state for since_s, state in handle.trace if since_s <= self.clock.now][-1]

    def gpu_state(self, handle: FakeGpu | FakeInstance) -> State:
        """The state of a whole GPU; a MIG instance does not have what is asked."""
        if isinstance(handle, FakeInstance):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return self.state_of(handle)


def _handle_by_index(nvml: FakeNvml, index: int) -> FakeGpu:
    if nvml.gpus[index].open_error is not None:
        raise pynvml.NVMLError(nvml.gpus[index].open_error)
    return nvml.gpus[index]


def _mig_mode(nvml: FakeNvml, gpu: FakeGpu) -> list[int]:
    nvml.gpu_state(gpu)
    return [0, 0] if gpu.instances is None else [1, 1]


def _mig_handle(nvml: FakeNvml, gpu: FakeGpu, slot: int) -> FakeInstance:
    assert gpu.instances is not None
    instance = gpu.instances[slot]
    if instance is None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
    return instance


def _memory(nvml: FakeNvml, handle: FakeGpu | FakeInstance, version: int | None = None) -> Any:
    """Version 2 keeps what the driver reserves apart; the first version has it among the used bytes."""
    reserved = getattr(handle, "reserved_bytes", 0)
    used = nvml.state_of(handle).used_bytes
    free = handle.total_bytes - used - reserved
    if version is None:
        return pynvml.c_nvmlMemory_t(total=handle.total_bytes, free=free, used=used + reserved)
    if "MemoryInfo v2" in nvml.unsupported:
        raise pynvml.NVMLError(nvml.unsupported["MemoryInfo v2"])
    assert version == pynvml.nvmlMemory_v2
    return pynvml.c_nvmlMemory_v2_t(version=version, total=handle.total_bytes, reserved=reserved, free=free, used=used)


def _field_values(nvml: FakeNvml, handle: FakeGpu, fields: list[int]) -> Any:
    """The call succeeds; a field that has no value carries its own error."""
    values = (pynvml.c_nvmlFieldValue_t * len(fields))()
    for value, wanted in zip(values, fields, strict=True):
        assert wanted == pynvml.NVML_FI_DEV_POWER_INSTANT
        value.fieldId, value.valueType = wanted, pynvml.NVML_VALUE_TYPE_UNSIGNED_INT
        value.nvmlReturn = nvml.unsupported.get("POWER_INSTANT", pynvml.NVML_SUCCESS)
        value.value.uiVal = nvml.gpu_state(handle).instant_mw
    return values


def _processes(found: tuple[tuple[int, int | None], ...]) -> list[Any]:
    return [pynvml.nvmlFriendlyObject({"pid": pid, "usedGpuMemory": used}) for pid, used in found]


def _clock(nvml: FakeNvml, handle: FakeGpu, clock_type: int) -> int:
    state = nvml.gpu_state(handle)
    return {pynvml.NVML_CLOCK_SM: state.sm_mhz, pynvml.NVML_CLOCK_MEM: state.memory_mhz}[clock_type]


def _utilisation(nvml: FakeNvml, handle: FakeGpu) -> Any:
    state = nvml.gpu_state(handle)
    return pynvml.c_nvmlUtilization_t(gpu=state.gpu_percent, memory=state.memory_percent)


def _temperature(nvml: FakeNvml, handle: FakeGpu, sensor: int) -> int:
    assert sensor == pynvml.NVML_TEMPERATURE_GPU
    return nvml.gpu_state(handle).temperature_c


def _on_gpu(value: Any) -> Any:
    """A constant of every whole GPU."""

    def handler(nvml: FakeNvml, handle: FakeGpu, *arguments: Any) -> Any:
        nvml.gpu_state(handle)
        return value

    return handler


_DEVICE_CALLS: dict[str, Any] = {
    "nvmlSystemGetDriverVersion": lambda nvml: "580.82.07",
    "nvmlSystemGetCudaDriverVersion": lambda nvml: 13000,
    "nvmlDeviceGetCount": lambda nvml: len(nvml.gpus),
    "nvmlDeviceGetHandleByIndex": _handle_by_index,
    "nvmlDeviceGetName": lambda nvml, handle: handle.name if isinstance(handle, FakeGpu) else "NVIDIA H100 MIG 1g.10gb",
    "nvmlDeviceGetUUID": lambda nvml, handle: handle.uuid,
    "nvmlDeviceGetMigMode": _mig_mode,
    "nvmlDeviceGetMaxMigDeviceCount": lambda nvml, gpu: len(gpu.instances or ()),
    "nvmlDeviceGetMigDeviceHandleByIndex": _mig_handle,
    "nvmlDeviceGetGpuInstanceId": lambda nvml, handle: handle.gpu_instance,
    "nvmlDeviceGetComputeInstanceId": lambda nvml, handle: handle.compute_instance,
    "nvmlDeviceGetMemoryInfo": _memory,
    "nvmlDeviceGetTotalEnergyConsumption": lambda nvml, handle: nvml.gpu_state(handle).energy_mj,
    "nvmlDeviceGetFieldValues": _field_values,
    "nvmlDeviceGetPowerUsage": lambda nvml, handle: nvml.gpu_state(handle).average_mw,
    "nvmlDeviceGetEnforcedPowerLimit": _on_gpu(700_000),
    "nvmlDeviceGetPowerManagementDefaultLimit": _on_gpu(700_000),
    "nvmlDeviceGetEccMode": _on_gpu([1, 0]),
    "nvmlDeviceGetPersistenceMode": _on_gpu(0),
    "nvmlDeviceGetClockInfo": _clock,
    "nvmlDeviceGetMaxClockInfo": _on_gpu(2010),
    "nvmlDeviceGetApplicationsClock": _on_gpu(1755),
    "nvmlDeviceGetCurrentClocksEventReasons": lambda nvml, handle: nvml.gpu_state(handle).event_bits,
    "nvmlDeviceGetCurrentClocksThrottleReasons": lambda nvml, handle: nvml.gpu_state(handle).event_bits,
    "nvmlDeviceGetTemperatureV": _temperature,
    "nvmlDeviceGetTemperature": _temperature,
    "nvmlDeviceGetUtilizationRates": _utilisation,
    "nvmlDeviceGetComputeRunningProcesses": lambda nvml, handle: _processes(nvml.state_of(handle).compute),
    "nvmlDeviceGetGraphicsRunningProcesses": lambda nvml, handle: _processes(nvml.state_of(handle).graphics),
}
