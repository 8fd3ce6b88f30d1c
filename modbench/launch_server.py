"""The loop of a launch server: one child per job, and nothing that it started is left when its job is over. Imports no torch.

In: job lines on standard input. Out: lines on standard output: `ready`, then per job `pid PID` and, when the child has ended and
its whole tree with it, `exit CODE PEAK` (a negative code is a signal, PEAK its highest resident set in bytes).

`python -m modbench.launch_server` starts a new interpreter per job (spawn); `python -m modbench.worker serve` forks (worker.py).
"""

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from modbench.process_tree import become_subreaper, end_descendants, end_with_parent

READY = "ready"
RUSAGE_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss: getrusage(2)
StartChild = Callable[[str, Callable[[], None]], int]


def serve(start_child: StartChild) -> None:
    """Serve until standard input ends, or the executor does.

    Args:
        start_child: takes a job line and `leave`, gives the child's pid. A forked child calls `leave` first: it must not write
            into the protocol, read the next job, or take this process's place when it is told to end.
    """
    end_with_parent(signal.SIGTERM)
    signal.signal(signal.SIGTERM, _end_all)
    become_subreaper()
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints goes to the log, not into the protocol

    def leave() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        channel.close()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)

    channel.write(f"{READY}\n")
    for line in sys.stdin:
        pid = start_child(line, leave)
        channel.write(f"pid {pid}\n")
        _, status, usage = os.wait4(pid, 0)
        end_descendants()
        channel.write(f"exit {os.waitstatus_to_exitcode(status)} {usage.ru_maxrss * RUSAGE_UNIT_BYTES}\n")


def _end_all(number: int, frame: Any) -> None:
    """End the job's whole tree and this process: the executor is gone, or asks for it."""
    end_descendants()
    os._exit(0)


def spawn_child(line: str, leave: Callable[[], None]) -> int:
    """Start an interpreter of its own for the job; it inherits nothing but the log, and the line as its standard input."""
    with tempfile.TemporaryFile() as job:  # a pipe would have to be fed while the child is still importing
        job.write(line.encode())
        job.seek(0)
        command = [sys.executable, "-m", "modbench.worker", "run"]
        return os.posix_spawn(
            sys.executable, command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, job.fileno(), 0)]
        )


if __name__ == "__main__":
    serve(spawn_child)
