"""This machine without its accelerators: processor, cores, memory, system. Imports no torch. In: nothing. Out: JSON-ready facts."""

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import psutil


def cpu_model() -> str:
    """The processor's name as the kernel tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def host_facts() -> dict[str, Any]:
    """Facts that decide how fast the host is; free memory and versions are not among them."""
    return {
        "cpu": cpu_model(),
        "num_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "ram_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
    }


def fingerprint(facts: dict[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of the facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
