"""Whole process trees: who inherits orphans, who ends with its parent, and how all of them are ended. Imports no torch.

In: this process, or a process id. Out: no descendant left, or bytes of memory. A child may fork twice and take a session of its
own (setsid): it then has neither the group nor the parent that it began with. On Linux such orphans go to the nearest ancestor
that called `become_subreaper`, so it sees all of them as its descendants; elsewhere they escape.
"""

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
KILLED_EXIT = -signal.SIGKILL
END_TIMEOUT_S = 60.0  # a process inside a driver call ends only when that returns
POLL_INTERVAL_S = 0.005


def become_subreaper() -> None:
    """Adopt the orphans among this process's descendants (Linux); elsewhere nothing."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(number: signal.Signals) -> None:
    """Ask the kernel (Linux) to send this process a signal when its parent ends, however that ends; elsewhere nothing."""
    _prctl(PR_SET_PDEATHSIG, number)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def end_descendants() -> None:
    """Kill and reap every descendant of this process, those included that they start meanwhile; gives up after a minute."""
    this, deadline = psutil.Process(), time.monotonic() + END_TIMEOUT_S
    while time.monotonic() < deadline:
        _reap()
        found = this.children(recursive=True)
        if not found:
            return
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(POLL_INTERVAL_S)


def _reap() -> None:
    """Take the exit status of every child that has ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def kill_group(pid: int) -> None:
    """Kill the process group that this process leads, or the process alone where it leads none (yet)."""
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
            return


def signal_name(number: int) -> str:
    """A signal as manuals write it."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def rss_bytes_of(pid: int) -> int | None:
    """The resident set of a process now; None where it has ended."""
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return None
