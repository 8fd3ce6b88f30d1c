"""What this machine is and which versions run on it: the fingerprint that every record carries.

In: a device. Out: JSON-ready facts.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import psutil
import torch

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


def cpu_model() -> str:
    """The processor's name as the kernel tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def gpu_facts(device: torch.device) -> dict[str, Any]:
    """Name, memory, compute capability and CUDA version of a CUDA device; empty on a CPU."""
    if device.type != "cuda":
        return {}
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "gpu_memory_bytes": properties.total_memory,
        "gpu_capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
    }


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Facts that decide how fast the machine is, and `fingerprint`, a hash of them (versions and free memory not among them)."""
    facts = {
        "cpu": cpu_model(),
        "num_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "ram_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
        **gpu_facts(device),
    }
    fingerprint = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return {**facts, "fingerprint": fingerprint}


def describe_environment(device: torch.device) -> dict[str, Any]:
    """The machine, the versions, and the interpreter."""
    return {
        "machine": describe_machine(device),
        "versions": library_versions(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
