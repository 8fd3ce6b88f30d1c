"""Run jobs on this machine, each in a fresh process.

In: a `Job` and a time limit. Out: its `JobResult`, whatever happens to the child.

`fork`: a server process imports torch and transformers once, touches no device, and forks a child per job; a new server per quad,
so that the luck of one memory layout is not replicated. `spawn`: a new interpreter per job, where fork is unsafe.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from modbench.errors import LaunchError, OutputError
from modbench.job import Job, JobResult, failed_record
from modbench.record import Status

SERVER_START_TIMEOUT_S = 300.0
KILLED_EXIT = -signal.SIGKILL


class LocalExecutor:
    """A context manager; nothing it started is left running after it."""

    def __init__(self, start: str, log_path: Path) -> None:
        """`start`: fork, spawn, or auto (fork on Linux, spawn elsewhere); `log_path` takes what workers print."""
        self._forks = start == "fork" or (start == "auto" and sys.platform == "linux")
        self._log_path = log_path
        self._log: IO[bytes] | None = None
        self._server: _Server | None = None
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "LocalExecutor":
        try:
            self._log = self._log_path.open("ab")
        except OSError as error:
            raise OutputError(
                f"{self._log_path}: cannot be written ({error.strerror}); choose another --output"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.renew()
        if self._child is not None:
            _kill_group(self._child.pid)
            self._child.wait()
        if self._log is not None:
            self._log.close()

    def renew(self) -> None:
        """Let the next job start from a new server."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def run(self, job: Job, timeout_s: float) -> JobResult:
        """Do one job; a child that hangs, dies or leaves no result gives a failed record or an error.

        Raises:
            LaunchError: the server itself could not be started.
        """
        assert self._log is not None, "used as a context manager"
        Path(job.result_path).unlink(missing_ok=True)  # of an interrupted job
        Path(job.progress_path).unlink(missing_ok=True)
        if self._forks:
            if self._server is None:
                self._server = _Server(self._log)
            exit_code = self._server.run(job, timeout_s)
        else:
            exit_code = self._spawn(job, timeout_s)
        return _collect(job, exit_code, timeout_s)

    def _spawn(self, job: Job, timeout_s: float) -> int | None:
        command = [sys.executable, "-m", "modbench.worker", "run"]
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            env=_environment(),
        )
        try:
            self._child.communicate(job.model_dump_json().encode() + b"\n", timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _kill_group(self._child.pid)
            self._child.wait()
            self._child = None
            return None
        exit_code, self._child = self._child.returncode, None
        return exit_code


class _Server:
    """The warmed process that forks children; speaks lines (see worker.serve)."""

    def __init__(self, log: IO[bytes]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "modbench.worker", "serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env=_environment(),
        )
        self._pending = b""
        self._child_pid: int | None = None
        is_ready = False
        try:
            is_ready = self._read_line(SERVER_START_TIMEOUT_S) == "ready"
        finally:  # an interrupt while it starts must not leave it behind
            if not is_ready:
                self.stop()
        if not is_ready:
            raise LaunchError(f"launch server: it did not start; its output is in {log.name}")

    def run(self, job: Job, timeout_s: float) -> int | None:
        """The child's exit code (negative: signal), or None where the limit passed and it was killed."""
        assert self._process.stdin is not None, "opened with a pipe"
        deadline = time.monotonic() + timeout_s
        try:
            self._process.stdin.write(job.model_dump_json().encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise LaunchError("launch server: it died; see worker.log in the output folder") from error
        answer = self._expect("pid", SERVER_START_TIMEOUT_S)
        self._child_pid = answer
        is_late = False
        line = self._read_line(max(0.0, deadline - time.monotonic()))
        if line is None:
            is_late = True
            _kill_group(answer)
            exit_code = self._expect("exit", SERVER_START_TIMEOUT_S)
        else:
            exit_code = _number(line, "exit")
        self._child_pid = None
        return None if is_late else exit_code

    def stop(self) -> None:
        """End the child, if one runs, and the server."""
        if self._child_pid is not None:
            _kill_group(self._child_pid)
        _kill_group(self._process.pid)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _expect(self, word: str, timeout_s: float) -> int:
        line = self._read_line(timeout_s)
        if line is None:
            raise LaunchError(
                f"launch server: no {word!r} within {timeout_s:.0f} s; see worker.log in the output folder"
            )
        return _number(line, word)

    def _read_line(self, timeout_s: float) -> str | None:
        """The next line, None if none came in time; '' where the server is gone."""
        assert self._process.stdout is not None, "opened with a pipe"
        deadline = time.monotonic() + timeout_s
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                return None
            chunk = os.read(descriptor, 4096)
            if not chunk:
                return ""
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode()


def _number(line: str, word: str) -> int:
    found, _, value = line.partition(" ")
    if found != word:
        raise LaunchError(f"launch server: got {line!r}; expected '{word} NUMBER'; see worker.log in the output folder")
    return int(value)


def _environment() -> dict[str, str]:
    """The caller's, with one BLAS thread: torch's own threads are set per job, and a forked process must have none."""
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
        return


def _collect(job: Job, exit_code: int | None, timeout_s: float) -> JobResult:
    """The result file, or what a missing one means."""
    path = Path(job.result_path)
    if path.exists():
        result = JobResult.model_validate_json(path.read_text())
        path.unlink()
        return result
    phase, last_rss_bytes = _last_progress(Path(job.progress_path))
    status: Status = "timeout" if exit_code is None else "crashed"
    if exit_code is None:
        error = f"killed after {timeout_s:g} s in phase {phase}: raise measure.timeout_s or shrink the point"
    elif exit_code == KILLED_EXIT:
        error = f"killed by SIGKILL in phase {phase}: most often the kernel was out of memory"
    elif exit_code < 0:
        error = f"ended by {signal.Signals(-exit_code).name} in phase {phase}: see worker.log in the output folder"
    else:
        error = f"exit code {exit_code} without a result in phase {phase}: see worker.log in the output folder"
    if job.kind != "launch":
        return JobResult(error=error)
    return JobResult(record=failed_record(job, status, phase, error, last_rss_bytes))


def _last_progress(path: Path) -> tuple[str, int | None]:
    try:
        noted = json.loads(path.read_text())
        return noted["phase"], noted["rss_bytes"]
    except (OSError, ValueError, KeyError):
        return "start", None
