"""Checks of an NVIDIA GPU, of its driver, and of torch's build for it. Imports neither torch nor NVML.

In: a `GpuState`, plain values. Out: checks, those of a GPU that is there in a fixed order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modbench.checks import Check, Status
from modbench.units import format_bytes

MAX_USED_RATIO = 0.1  # a CUDA context of our own takes some hundred MiB
HOT_C = 80.0
HELD_CLOCK_RATIO = 0.9  # of the maximum; an idle GPU whose clocks are free is far below


@dataclass(frozen=True)
class GpuState:
    """What NVML told; or `absent`, why it told nothing.

    Attributes:
        facts: name, versions, limits and modes.
        reading: memory, energy, clocks, temperature and processes now.
        unsupported: call -> why it has no answer here.
        doubts: what to know about these values.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    reading: Mapping[str, Any] = field(default_factory=dict)
    unsupported: Mapping[str, str] = field(default_factory=dict)
    doubts: Sequence[str] = ()
    absent: str | None = None


def gpu_checks(state: GpuState) -> list[Check]:
    """One check that says why there is no GPU, or all those of the GPU that is there. Keys that are absent are unknown."""
    if state.absent is not None:
        fix = "a machine with an NVIDIA GPU and driver, where nvidia-smi lists it"
        gives = "GPU memory, energy, power and clocks"
        return [_check("gpu", "missing", f"none: {state.absent}", fix, gives)]
    facts, reading = state.facts, state.reading
    driver = f"driver {facts.get('driver_version')}, CUDA {facts.get('cuda_driver_version')}"
    return [
        _check("gpu", "ok", f"{facts.get('name')}, {driver}", gives="GPU memory, power and clocks"),
        nvml_check(state.unsupported),
        doubts_check(state.doubts),
        energy_check(reading.get("energy_j")),
        mode_check(*(facts.get(f"is_{mode}_enabled") for mode in ("ecc", "mig", "persistence"))),
        power_check(facts.get("power_limit_w"), facts.get("default_power_limit_w")),
        clocks_check(facts.get("max_sm_clock_hz"), reading.get("sm_clock_hz"), reading.get("is_idle")),
        throttle_check(reading.get("throttle_reasons")),
        temperature_check(reading.get("temperature_c")),
        device_memory_check(facts.get("total_memory_bytes"), reading.get("used_bytes")),
        processes_check(reading.get("processes", {}).get("foreign_pids")),
    ]


def nvml_check(unsupported: Mapping[str, str]) -> Check:
    """NVML calls that this GPU or driver refuses: what they would have told stays unknown."""
    if not unsupported:
        return _check("nvml_calls", "ok", "all answered")
    found = "; ".join(f"{call}: {reason}" for call, reason in unsupported.items())
    fix = "update the driver; what it still does not tell is recorded as unknown"
    return _check("nvml_calls", "warn", f"refused: {found}", fix)


def doubts_check(doubts: Sequence[str]) -> Check:
    """What NVML's values include, and whether they are surely those of this GPU."""
    return _check("nvml_doubts", "info" if doubts else "ok", "; ".join(doubts) or "none")


def energy_check(energy_j: float | None) -> Check:
    """The energy counter: energy is the difference of two readings."""
    if energy_j is not None:
        return _check("gpu_energy", "ok", "the counter answers", gives="GPU energy")
    fix = "a GPU of the Volta generation or later, not a share of one"
    return _check("gpu_energy", "missing", "no energy counter", fix, "GPU energy")


def mode_check(is_ecc: bool | None, is_mig: bool | None, is_persistent: bool | None) -> Check:
    """ECC, MIG and persistence; a MIG instance shares power and clocks with its neighbours."""
    words = {None: "not told", True: "on", False: "off"}
    finding = f"ECC {words[is_ecc]}, MIG {words[is_mig]}, persistence {words[is_persistent]}"
    if is_mig:
        fix = "a whole GPU; where nobody else uses this one, sudo nvidia-smi -mig 0 (it ends every instance)"
        return _check("gpu_modes", "warn", f"{finding}: neighbours share power and clocks", fix)
    if is_persistent is False:
        return _check("gpu_modes", "warn", f"{finding}: first uses wake the driver", "sudo nvidia-smi -pm 1")
    return _check("gpu_modes", "ok", finding)


def power_check(limit_w: float | None, default_w: float | None) -> Check:
    """The power limit against the board's default."""
    if limit_w is None or default_w is None:
        known = "not told" if limit_w is None else f"{limit_w:.0f} W; the default is not told"
        return _check("gpu_power_limit", "info", known)
    finding = f"{limit_w:.0f} W of {default_w:.0f} W by default"
    if limit_w >= default_w:
        return _check("gpu_power_limit", "ok", finding)
    return _check("gpu_power_limit", "warn", finding, f"sudo nvidia-smi -pl {default_w:.0f}")


def clocks_check(max_hz: float | None, now_hz: float | None, is_idle: bool | None) -> Check:
    """Whether SM clocks are held. NVML does not tell; the clock of an idle GPU does."""
    if max_hz is None or now_hz is None:
        return _check("gpu_clocks", "info", "not told")
    finding = f"SM at {now_hz / 1e6:.0f} of {max_hz / 1e6:.0f} MHz"
    fix = f"sudo nvidia-smi -lgc {max_hz / 1e6:.0f}, or lower where it throttles (undo: -rgc)"
    if now_hz < HELD_CLOCK_RATIO * max_hz:
        return _check("gpu_clocks", "warn", f"{finding}: they follow the load, or are held lower", fix)
    if is_idle:
        return _check("gpu_clocks", "ok", f"{finding} while idle, as locked clocks are")
    return _check("gpu_clocks", "info", f"{finding} under load; whether they are locked is not told", fix)


def throttle_check(reasons: Sequence[str] | None) -> Check:
    """Why clocks are lower than asked for, now; idling is no such reason."""
    if reasons is None:
        return _check("gpu_throttling", "info", "not told")
    if reasons:
        fix = "cool it, raise its power limit, or lock lower clocks: nvidia-smi -q -d PERFORMANCE"
        return _check("gpu_throttling", "warn", f"throttled now: {', '.join(reasons)}", fix)
    return _check("gpu_throttling", "ok", "none now")


def temperature_check(temperature_c: float | None) -> Check:
    """A hot GPU lowers its clocks soon after the work begins."""
    if temperature_c is None:
        return _check("gpu_temperature", "info", "not told")
    if temperature_c < HOT_C:
        return _check("gpu_temperature", "ok", f"{temperature_c:.0f} °C")
    return _check("gpu_temperature", "warn", f"{temperature_c:.0f} °C", "let it cool down, or improve its cooling")


def device_memory_check(total_bytes: int | None, used_bytes: int | None) -> Check:
    """Free device memory decides which points fit."""
    if total_bytes is None or used_bytes is None:
        return _check("gpu_memory", "info", "not told")
    finding = f"{format_bytes(total_bytes - used_bytes)} of {format_bytes(total_bytes)} free"
    if used_bytes <= MAX_USED_RATIO * total_bytes:
        return _check("gpu_memory", "ok", finding)
    return _check("gpu_memory", "warn", finding, "end what holds it: nvidia-smi lists the processes")


def processes_check(foreign_pids: Sequence[int] | None) -> Check:
    """Other processes with a context on this GPU."""
    if foreign_pids is None:
        return _check("gpu_processes", "info", "not told")
    if not foreign_pids:
        return _check("gpu_processes", "ok", "no other process")
    pids = ", ".join(str(pid) for pid in foreign_pids)
    fix = "stop them, or choose another GPU with CUDA_VISIBLE_DEVICES"
    return _check("gpu_processes", "warn", f"also used by process {pids}", fix)


def torch_build_check(torch_cuda: str | None, driver_cuda: str | None) -> Check:
    """The CUDA version that torch is built for (None: without CUDA) against the newest that the driver runs (None: none)."""
    if driver_cuda is None:
        built = f"for CUDA {torch_cuda}" if torch_cuda else "without CUDA"
        return _check("torch_build", "info", f"built {built}; no driver answers")
    if torch_cuda is None:
        fix = f"pip install torch --index-url https://download.pytorch.org/whl/ + the cuNNN of CUDA {driver_cuda} or older"
        return _check("torch_build", "missing", f"built without CUDA; the driver runs CUDA {driver_cuda}", fix)
    finding = f"built for CUDA {torch_cuda}; the driver runs {driver_cuda}"
    if int(torch_cuda.split(".")[0]) > int(driver_cuda.split(".")[0]):
        return _check("torch_build", "missing", finding, f"update the driver to one for CUDA {torch_cuda}")
    return _check("torch_build", "ok", finding)


def visible_devices_check(visible: str | None, num_devices: int) -> Check:
    """CUDA_VISIBLE_DEVICES against what torch sees; the list ends at the first entry that is no device."""
    if visible is None:
        return _check("visible_devices", "ok", f"CUDA_VISIBLE_DEVICES not set; torch sees {num_devices}")
    num_asked = len([entry for entry in visible.split(",") if entry.strip()])
    finding = f"CUDA_VISIBLE_DEVICES={visible!r}; torch sees {num_devices}"
    if num_devices == num_asked > 0:
        return _check("visible_devices", "ok", finding)
    return _check("visible_devices", "warn", finding, "unset CUDA_VISIBLE_DEVICES, or name what nvidia-smi -L lists")


def _check(name: str, status: Status, finding: str, fix: str = "", gives: str = "") -> Check:
    return Check(name=name, group="gpu", status=status, finding=finding, fix=fix, gives=gives)
