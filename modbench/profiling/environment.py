"""What this machine is and which versions run on it: the fingerprint that every record carries.

In: a device. Out: JSON-ready facts.
"""

import importlib.metadata
import platform
from typing import Any

import torch

from modbench.host import fingerprint, host_facts
from modbench.profiling.gpu_watch import open_torch_device
from modbench.profiling.nvml import NvmlDevice

LIBRARIES = ("torch", "transformers", "numpy", "flash-attn", "triton", "nvidia-ml-py")


def library_versions() -> dict[str, str | None]:
    """Installed version per library; None where it is absent."""
    versions: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def gpu_facts(device: torch.device) -> dict[str, Any]:
    """What a CUDA device is, and what its driver lets it do: power limit, ECC, MIG; empty on a CPU."""
    if device.type != "cuda":
        return {}
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "gpu_memory_bytes": properties.total_memory,
        "gpu_capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        **_driver_facts(device),
    }


def _driver_facts(device: torch.device) -> dict[str, Any]:
    opened = open_torch_device(device)
    if not isinstance(opened, NvmlDevice):
        return {}
    facts = opened.facts()
    opened.close()
    return {key: facts[key] for key in ("driver_version", "power_limit_w", "is_ecc_enabled", "is_mig_enabled")}


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Facts that decide how fast the machine is, and `fingerprint`, a hash of them (versions and free memory not among them)."""
    facts = {**host_facts(), **gpu_facts(device)}
    return {**facts, "fingerprint": fingerprint(facts)}


def describe_environment(device: torch.device) -> dict[str, Any]:
    """The machine, the versions, and the interpreter."""
    return {
        "machine": describe_machine(device),
        "versions": library_versions(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
