"""Peak resident memory of this process, per phase, from the kernel.

In: nothing. Out: bytes, or None where the kernel has no such file.
"""

from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): writing 5 resets the peak resident set size


def reset_peak() -> bool:
    """Start a new peak; False where the kernel does not allow it (then peaks are since the start of the process)."""
    try:
        _CLEAR_REFS.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def peak_rss_bytes() -> int | None:
    """VmHWM: the highest resident set since the last reset, in bytes."""
    try:
        text = _STATUS.read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def rss_bytes() -> int:
    """The resident set now, in bytes."""
    import psutil  # the rest of this file also runs under interpreters that have no psutil

    return psutil.Process().memory_info().rss
