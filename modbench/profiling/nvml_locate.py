"""Which of NVML's devices is CUDA's device i?

In: an initialised NVML module, CUDA's index, the values of CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER, and the device's UUID where
CUDA told it. Out: a `Located` device, or `NvmlAbsent` with the reason. Nothing is guessed: where an index could mean another GPU,
the device carries a doubt, or is absent where the GPUs differ.

Source: CUDA C++ Programming Guide, "CUDA Environment Variables", for CUDA_VISIBLE_DEVICES; that a device named twice leaves none is
torch's reading of it (`torch.cuda._parse_visible_devices`).
"""

from dataclasses import dataclass
from typing import Any

PCI_ORDER = "PCI_BUS_ID"  # the value of CUDA_DEVICE_ORDER with which CUDA counts as NVML does


@dataclass(frozen=True)
class NvmlAbsent:
    """There is nothing to ask, and why."""

    reason: str


@dataclass(frozen=True)
class Located:
    """A device to ask. `handle` is what CUDA computes on; `gpu` is the whole GPU: the same, or a MIG instance's parent."""

    handle: Any
    gpu: Any
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Instance:
    """A MIG instance with its names: its own UUID, and the older `MIG-GPU-<uuid>/<GPU instance>/<compute instance>`."""

    handle: Any
    uuid: str
    older_name: str


@dataclass(frozen=True)
class _Gpu:
    """A GPU as NVML counts it. `problem` says why it could not be opened; then nothing else is known of it."""

    index: int
    handle: Any = None
    uuid: str = ""
    name: str = ""
    is_mig_enabled: bool = False
    instances: tuple[_Instance, ...] = ()
    problem: str | None = None


def locate(
    nvml: Any, cuda_index: int, visible: str | None, uuid: str | None, device_order: str | None
) -> Located | NvmlAbsent:
    """Find CUDA's device `cuda_index`.

    Args:
        nvml: the NVML module, initialised.
        cuda_index: the device's number in this process, after CUDA_VISIBLE_DEVICES.
        visible: the value of CUDA_VISIBLE_DEVICES; None where it is not set.
        uuid: CUDA's word on which device it is, with or without `GPU-` or `MIG-`; wins over any counting.
        device_order: the value of CUDA_DEVICE_ORDER; None where it is not set.
    """
    try:
        gpus = [_open_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError as error:
        return NvmlAbsent(f"nvmlDeviceGetCount: {error}")
    if not gpus:
        return NvmlAbsent("the driver lists no GPU")
    doubts: tuple[str, ...] = ()
    if uuid:
        names = (uuid, f"GPU-{uuid}", f"MIG-{uuid}")
        for gpu in gpus:
            if gpu.uuid in names and not (gpu.is_mig_enabled and len(gpu.instances) != 1):
                return _located(gpu, None)
            for instance in gpu.instances:
                if instance.uuid in names:
                    return _located(gpu, instance)
        doubts = (f"CUDA's UUID {uuid} names no single device of NVML's; the device was found by counting",)
    found = _count(gpus, cuda_index, visible, device_order)
    return found if isinstance(found, NvmlAbsent) else Located(found.handle, found.gpu, doubts + found.doubts)


def _count(gpus: list[_Gpu], cuda_index: int, visible: str | None, device_order: str | None) -> Located | NvmlAbsent:
    """The device at `cuda_index` of the list, which CUDA cuts at its first invalid entry."""
    where = "CUDA_VISIBLE_DEVICES is not set" if visible is None else f"CUDA_VISIBLE_DEVICES={visible!r}"
    entries = [str(gpu.index) for gpu in gpus] if visible is None else [entry.strip() for entry in visible.split(",")]
    chosen: list[tuple[_Gpu, _Instance | None]] = []
    cut = ""
    for entry in entries:
        match = _match(gpus, entry)
        if isinstance(match, NvmlAbsent):
            cut = f"; entry {entry!r} {match.reason}, which ends the list"
            break
        if match in chosen:
            return NvmlAbsent(f"{where}: {entry!r} names a device again; CUDA then sees none")
        chosen.append(match)
    if not 0 <= cuda_index < len(chosen):
        return NvmlAbsent(f"{where}: got CUDA device {cuda_index}; CUDA sees {len(chosen)}{cut}")
    gpu, instance = chosen[cuda_index]
    if gpu.problem is not None:
        return NvmlAbsent(f"GPU {gpu.index}: {gpu.problem}")
    if entries[cuda_index].isdecimal() and len(gpus) > 1:
        return _by_number(gpus, gpu, device_order)
    return _located(gpu, instance)


def _by_number(gpus: list[_Gpu], gpu: _Gpu, device_order: str | None) -> Located | NvmlAbsent:
    """A GPU that is known by its number among several: is NVML's number CUDA's?"""
    if any(other.is_mig_enabled for other in gpus):
        return NvmlAbsent("a number among several GPUs, some in MIG mode; name the device by its UUID")
    if device_order == PCI_ORDER:
        return _located(gpu, None)
    if len({other.name for other in gpus}) > 1:
        return NvmlAbsent(
            f"a number among GPUs of different kinds, which CUDA counts from the fastest and NVML by PCI bus; "
            f"set CUDA_DEVICE_ORDER={PCI_ORDER} or name the device by its UUID"
        )
    found = _located(gpu, None)
    doubt = f"one of {len(gpus)} GPUs, known by its number without CUDA_DEVICE_ORDER={PCI_ORDER}: it may be another"
    return found if isinstance(found, NvmlAbsent) else Located(found.handle, found.gpu, (doubt, *found.doubts))


def _located(gpu: _Gpu, instance: _Instance | None) -> Located | NvmlAbsent:
    """The GPU, or the instance that CUDA uses of it."""
    if instance is None and gpu.is_mig_enabled:
        if len(gpu.instances) != 1:
            return NvmlAbsent(
                f"GPU {gpu.index} is in MIG mode with {len(gpu.instances)} instances; "
                "name one by its MIG id in CUDA_VISIBLE_DEVICES"
            )
        instance = gpu.instances[0]
    if instance is None:
        return Located(gpu.handle, gpu.handle)
    doubt = (
        "MIG instance: energy, power, clocks, throttle reasons, temperature and utilisation are of the whole GPU, "
        "and processes in its other instances are not seen"
    )
    return Located(instance.handle, gpu.handle, (doubt,))


def _match(gpus: list[_Gpu], entry: str) -> tuple[_Gpu, _Instance | None] | NvmlAbsent:
    """What one entry of CUDA_VISIBLE_DEVICES names: a number, or a UUID or the beginning of only one."""
    if entry.isdecimal() and entry.isascii():
        if int(entry) >= len(gpus):
            return NvmlAbsent(f"is beyond the {len(gpus)} GPUs of this machine")
        return gpus[int(entry)], None
    found: list[tuple[_Gpu, _Instance | None]] = []
    if entry.startswith("GPU-"):
        found = [(gpu, None) for gpu in gpus if gpu.uuid.startswith(entry)]
    elif entry.startswith("MIG-"):
        for gpu in gpus:
            parts = (part for part in gpu.instances if part.uuid.startswith(entry) or part.older_name == entry)
            found += [(gpu, part) for part in parts]
    else:
        return NvmlAbsent("is no number, GPU UUID or MIG id")
    if len(found) != 1:
        return NvmlAbsent(f"names {len(found)} devices of this machine")
    return found[0]


def _open_gpu(nvml: Any, index: int) -> _Gpu:
    """The GPU at NVML's `index`; one that cannot be opened keeps its place. Raises nothing of NVML."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid, name = nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle)
    except nvml.NVMLError as error:
        return _Gpu(index, problem=str(error))
    try:
        is_mig_enabled = nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE
    except nvml.NVMLError:  # not a GPU that can be split
        is_mig_enabled = False
    instances = _list_instances(nvml, handle, uuid) if is_mig_enabled else ()
    return _Gpu(index, handle, uuid, name, is_mig_enabled, instances)


def _list_instances(nvml: Any, gpu: Any, gpu_uuid: str) -> tuple[_Instance, ...]:
    """The MIG instances of a GPU; slots without one raise, and are passed over."""
    found = []
    try:
        num_slots = nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)
    except nvml.NVMLError:
        return ()
    for slot in range(num_slots):
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, slot)
            place = f"{nvml.nvmlDeviceGetGpuInstanceId(handle)}/{nvml.nvmlDeviceGetComputeInstanceId(handle)}"
            found.append(_Instance(handle, nvml.nvmlDeviceGetUUID(handle), f"MIG-{gpu_uuid}/{place}"))
        except nvml.NVMLError:
            continue
    return tuple(found)
