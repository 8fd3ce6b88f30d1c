"""A program that measures itself, run to its end: what it printed, how it ended, and the most memory it held.

In: a command, its environment, the line on its standard input, a memory limit. Out: a `ProgramEnd`. It is started once, without a
shell, in the folder that modbench was started in, through the relay that puts the limit on it (command_relay.py). All that it
prints goes to the worker's log as it comes.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO, Any

from modbench.errors import UnsupportedError
from modbench.memory_limit import NEAR_LIMIT_RATIO, oom_kill_count, tells_out_of_memory
from modbench.process_tree import KILLED_EXIT, signal_name
from modbench.units import MIB, format_bytes

RELAY = Path(__file__).with_name("command_relay.py")
MAX_ANSWER_BYTES = 16 * MIB
STDERR_TAIL_BYTES = 4096
MAX_QUOTED = 200
PIPE_TIMEOUT_S = 1.0  # what a program leaves behind may hold its output open


@dataclass(frozen=True)
class ProgramEnd:
    """How a program ended and what it printed.

    `exit_code` is negative for a signal, None where the relay itself was killed. `stdout` is the end of what it printed, which was
    `num_stdout_bytes` in all. `is_oom_killed`: the kernel's out-of-memory killer struck here meanwhile.
    """

    exit_code: int | None
    peak_rss_bytes: int | None
    wall_s: float
    stdout: bytes
    num_stdout_bytes: int
    last_stderr_line: str
    is_oom_killed: bool

    @property
    def told(self) -> str:
        """The last line of its standard error, for the end of a sentence."""
        return f": {self.last_stderr_line}" if self.last_stderr_line else ", with nothing on standard error"

    def __str__(self) -> str:
        if self.exit_code is None:
            return f"it was killed from outside{self.told}"
        if self.exit_code >= 0:
            return f"exit code {self.exit_code}{self.told}"
        peak = "" if self.peak_rss_bytes is None else f" (peak memory {format_bytes(self.peak_rss_bytes)})"
        return f"ended by {signal_name(-self.exit_code)}{peak}{self.told}"

    def is_out_of_memory(self, limit_bytes: int | None) -> bool:
        """Whether it ended badly for want of memory: it says so, the kernel does, or it was killed near its limit."""
        if self.exit_code == 0:
            return False
        is_near = limit_bytes is not None and (self.peak_rss_bytes or 0) >= NEAR_LIMIT_RATIO * limit_bytes
        is_killed = self.exit_code in (KILLED_EXIT, None)
        return tells_out_of_memory(self.last_stderr_line) or (is_killed and (is_near or self.is_oom_killed))


def run_program(
    command: Sequence[str],
    environment: Mapping[str, str],
    line: str,
    limit_bytes: int | None,
    outcome: Path,
    where: str,
) -> ProgramEnd:
    """Start a program and wait for its end, however long that takes: time limits are the executor's.

    Args:
        command: the program and its arguments.
        environment: all its variables.
        line: its standard input.
        limit_bytes: of its private memory; None for no limit.
        outcome: a file for the relay; removed.
        where: the beginning of an error.

    Raises:
        UnsupportedError: the program is not there or cannot be executed.
    """
    found = shutil.which(command[0], path=environment.get("PATH"))
    if found is None:
        raise UnsupportedError(
            f"{where}: not there, or not executable; expected a program (looked for from {Path.cwd()})"
        )
    relay = [sys.executable, "-I", "-S", str(RELAY), str(outcome), str(limit_bytes or 0), found, *command[1:]]
    kills_before, started = oom_kill_count(), time.perf_counter()
    with tempfile.TemporaryFile() as given:  # a pipe would have to be fed while the program does not read
        given.write(line.encode() + b"\n")
        given.seek(0)
        process = subprocess.Popen(
            relay, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(environment), bufsize=0
        )
    stdout, stderr = _Printed(process.stdout, MAX_ANSWER_BYTES), _Printed(process.stderr, STDERR_TAIL_BYTES)
    process.wait()
    wall_s = time.perf_counter() - started
    for printed in (stdout, stderr):
        printed.join(PIPE_TIMEOUT_S)
    end = _read_outcome(outcome)
    if "error" in end:
        raise UnsupportedError(f"{where}: cannot be executed: {end['error']}")
    return ProgramEnd(
        exit_code=end.get("exit_code"),
        peak_rss_bytes=end.get("peak_rss_bytes"),
        wall_s=wall_s,
        stdout=bytes(stdout.tail),
        num_stdout_bytes=stdout.num_bytes,
        last_stderr_line=_last_line(bytes(stderr.tail)),
        is_oom_killed=oom_kill_count() != kills_before,
    )


def _read_outcome(path: Path) -> dict[str, Any]:
    """What the relay wrote; {} where it was killed."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    finally:
        path.unlink(missing_ok=True)


class _Printed(Thread):
    """Reads what a program prints as it comes, hands it on to the worker's log, and keeps the end of it."""

    def __init__(self, stream: IO[bytes] | None, max_kept_bytes: int) -> None:
        super().__init__(daemon=True)
        assert stream is not None, "opened with a pipe"
        self._stream, self._max_kept_bytes = stream, max_kept_bytes
        self.tail, self.num_bytes = bytearray(), 0
        self.start()

    def run(self) -> None:
        """Read until the last process that holds the other end is gone."""
        with self._stream:
            while chunk := self._stream.read(65536):
                self.num_bytes += len(chunk)
                self.tail += chunk
                del self.tail[: -self._max_kept_bytes]
                with suppress(OSError, ValueError):  # the log's disk is full
                    os.write(2, chunk)


def _last_line(printed: bytes) -> str:
    text = printed.decode(errors="replace").rstrip().rpartition("\n")[2]
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= MAX_QUOTED else line[: MAX_QUOTED - 3] + "..."
