"""Checks of what is installed and of what it can do on the device. Imports no torch: what torch says comes in as values.

In: versions, flags and names. Out: a `Check` each.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from packaging.version import Version

from modbench.checks import Check
from modbench.profiling.machine_checks import read_text

SUPPORTED = {"python": "3.11", "torch": "2.11", "transformers": "5.17"}  # oldest; pyproject.toml asks for the same
KERNEL_CAPABILITY = (8, 0)  # of the packed attention kernels, and of bfloat16
CPU_FLAGS = {
    "bfloat16": ("amx_bf16", "avx512_bf16", "bf16"),
    "float16": ("amx_fp16", "avx512_fp16", "asimdhp"),
}
Capability = tuple[int, int]


def versions_check(found: Mapping[str, str | None]) -> Check:
    """Every library that SUPPORTED names, against its oldest version there."""
    finding = ", ".join(f"{name} {found[name] or 'absent'}" for name in SUPPORTED)
    too_old = [
        name for name, oldest in SUPPORTED.items() if Version(found[name] or "0").release < Version(oldest).release
    ]
    if not too_old:
        return Check(name="versions", group="libraries", status="ok", finding=finding)
    libraries = [f'"{name}>={SUPPORTED[name]}"' for name in too_old if name != "python"]
    fixes = [f"pip install {' '.join(libraries)}"] if libraries else []
    fixes += [f"use Python {SUPPORTED['python']} or later"] if "python" in too_old else []
    return Check(name="versions", group="libraries", status="missing", finding=finding, fix="; ".join(fixes))


def cpu_flags(root: Path) -> set[str]:
    """Instruction set flags of the first processor of /proc/cpuinfo, under either of their headings."""
    for line in (read_text(root, "proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(value.split())
    return set()


def cpu_dtypes_check(flags: Collection[str], capability: str, has_onednn: bool) -> Check:
    """Whether the processor has instructions for the half dtypes; `capability` is the vector width that torch uses."""
    libraries = f"{capability}, {'oneDNN' if has_onednn else 'no oneDNN'}"
    native = {dtype: next((flag for flag in names if flag in flags), None) for dtype, names in CPU_FLAGS.items()}
    texts = [f"native {dtype} ({flag})" if flag else f"no native {dtype}" for dtype, flag in native.items()]
    finding = f"{', '.join(texts)}; {libraries}"
    if not has_onednn:
        fix = "install a torch that is built with oneDNN"
        return Check(name="dtypes", group="libraries", status="warn", finding=finding, fix=fix)
    if all(native.values()):
        return Check(name="dtypes", group="libraries", status="ok", finding=finding)
    slow = " or ".join(dtype for dtype, flag in native.items() if flag is None)
    fix = f"another model.dtype than {slow} on this CPU"
    return Check(name="dtypes", group="libraries", status="warn", finding=finding, fix=fix)


def cuda_dtypes_check(capability: Capability) -> Check:
    """bfloat16 matrix products need compute capability 8.0."""
    finding = f"compute capability {capability[0]}.{capability[1]}: float16"
    if capability >= KERNEL_CAPABILITY:
        return Check(name="dtypes", group="libraries", status="ok", finding=f"{finding} and bfloat16 are native")
    return Check(
        name="dtypes",
        group="libraries",
        status="warn",
        finding=f"{finding} is native, bfloat16 is not",
        fix="model.dtype float16, or a GPU of compute capability 8.0",
    )


def threads_check(threads: int, num_cpus: int, interop_threads: int) -> Check:
    """Threads inside one operator, which decide every time on a CPU."""
    finding = f"{threads} in an operator, {interop_threads} between operators"
    if threads <= num_cpus:
        return Check(name="threads", group="libraries", status="ok", finding=finding)
    fix = f"--threads {num_cpus}: more of them than CPUs wait for each other"
    return Check(name="threads", group="libraries", status="warn", finding=finding, fix=fix)


def attention_check(available: Sequence[str], known: Sequence[str], capability: Capability | None) -> Check:
    """Backends of variable-length attention in a half dtype: those that run here, and why the others do not.

    `known` is all of them; `capability` is None on a CPU.
    """
    absent = [name for name in known if name not in available]
    finding = ", ".join(available)
    if not absent:
        return Check(name="attention", group="libraries", status="ok", finding=finding)
    finding += f"; not {', '.join(absent)}"
    if capability is None:
        return Check(name="attention", group="libraries", status="info", finding=f"{finding}: CUDA only")
    if capability < KERNEL_CAPABILITY:
        fix = "a GPU of compute capability 8.0 or later"
        finding += f": compute capability is {capability[0]}.{capability[1]}"
        return Check(name="attention", group="libraries", status="missing", finding=finding, fix=fix)
    fixes = {
        "flash_attn": 'pip install "flash-attn>=2.8"',
        "torch_varlen": f'pip install "torch>={SUPPORTED["torch"]}"',
    }
    return Check(
        name="attention",
        group="libraries",
        status="warn",
        finding=f"{finding}: not installed",
        fix="; ".join(fixes[name] for name in absent if name in fixes),
    )


def triton_check(version: str | None, is_cuda: bool) -> Check:
    """torch.compile makes GPU kernels with it."""
    if version is not None:
        return Check(name="triton", group="libraries", status="ok", finding=version)
    if not is_cuda:
        return Check(name="triton", group="libraries", status="info", finding="not installed; of no use on a CPU")
    finding, fix = "not installed: no torch.compile on the GPU", "pip install triton"
    return Check(name="triton", group="libraries", status="missing", finding=finding, fix=fix)
