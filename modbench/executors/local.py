"""Run jobs on this machine, each in a fresh process.

In: a `Job` and a time limit. Out: its `JobResult`, whatever happens to the child (outcome.py).

`fork`: a server process imports torch and transformers once, touches no device, and forks a child per job; a new server per quad,
so that the luck of one memory layout is not replicated. `spawn`: a light server starts a new interpreter per job, where fork is
unsafe. Either server ends everything that a job leaves behind (launch_server.py).
"""

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from modbench.errors import LaunchError, OutputError
from modbench.executors.outcome import SEE_LOG, ChildEnd, collect
from modbench.job import Job, JobResult
from modbench.memory_limit import oom_kill_count
from modbench.process_tree import kill_group, rss_bytes_of

FORK_SERVER, SPAWN_SERVER = ("modbench.worker", "serve"), ("modbench.launch_server",)
SERVER_START_TIMEOUT_S = 300.0
SERVER_END_TIMEOUT_S = 60.0
KILL_TIMEOUT_S = 90.0  # the server itself gives up on a tree after 60 s
DISPENSABLE = ("memory_limit_bytes", "device_limit_bytes", "counts_live_tensors", "returns_large_blocks")  # of a job


@dataclass(frozen=True)
class Runtime:
    """What launch servers run: this interpreter and this code, unless another revision is measured.

    Attributes:
        python: the interpreter.
        folder: where servers start, and look for modules first; None: where this process is.
        import_roots: absolute folders in front of the interpreter's own modules.
        cache_home: where that code keeps what it measures once, in its own format; None: where this one does.
        job_fields: of a `Job`, as that code knows it; None: as this one does.
    """

    python: str = sys.executable
    folder: Path | None = None
    import_roots: tuple[Path, ...] = ()
    cache_home: Path | None = None
    job_fields: frozenset[str] | None = None

    def environment(self) -> dict[str, str]:
        """The caller's, with one BLAS thread: torch's own threads are set per job, and a forked process must have none."""
        own = {"OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        own["KINETO_LOG_LEVEL"] = "99"  # torch's profiler logs every start and stop
        if self.import_roots:
            roots = [*map(str, self.import_roots), os.environ.get("PYTHONPATH", "")]
            own["PYTHONPATH"] = os.pathsep.join(root for root in roots if root)
        if self.cache_home is not None:
            own["XDG_CACHE_HOME"] = str(self.cache_home)
        return {**os.environ, **own}

    def understood(self, job: Job) -> Job:
        """The job without what that code does not know and can do without; its record says None there."""
        fields = Job.model_fields
        unknown = set() if self.job_fields is None else {name for name in DISPENSABLE if name not in self.job_fields}
        left_out = {name: fields[name].default for name in unknown}
        facts = {name: None if name in unknown else value for name, value in job.environment.items()}
        return job.model_copy(update={**left_out, "environment": facts})


class LocalExecutor:
    """A context manager; nothing it started is left running after it."""

    def __init__(self, start: str, log_path: Path, runtime: Runtime = Runtime()) -> None:
        """`start`: fork, spawn, or auto (fork on Linux, spawn elsewhere); `log_path` takes what workers print."""
        forks = start == "fork" or (start == "auto" and sys.platform == "linux")
        self._module = FORK_SERVER if forks else SPAWN_SERVER
        self._log_path = log_path
        self._runtime = runtime
        self._log: IO[bytes] | None = None
        self._server: _Server | None = None

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
        if self._log is not None:
            self._log.close()

    def renew(self) -> None:
        """Let the next job start from a new server."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def run(self, job: Job, timeout_s: float) -> JobResult:
        """Do one job; a child that hangs, dies or leaves no sound result gives a failed record or an error line.

        Raises:
            LaunchError: the server itself could not be started, or died.
            OutputError: the child could not write its result.
        """
        Path(job.result_path).unlink(missing_ok=True)  # of an interrupted job
        Path(job.progress_path).unlink(missing_ok=True)
        server = self.start()
        job = self._runtime.understood(job)
        end = server.run(job, timeout_s)
        if server.is_stuck:
            self.renew()
        return collect(job, end, timeout_s)

    def start(self) -> "_Server":
        """Start the server now, where there is none, so that the next job need not wait for it.

        Raises:
            LaunchError: it could not be started.
        """
        assert self._log is not None, "used as a context manager"
        if self._server is None:
            self._server = _Server(self._module, self._log, self._runtime)
        return self._server


class _Server:
    """The process that starts children and ends their trees; speaks lines (see launch_server.py)."""

    def __init__(self, module: tuple[str, ...], log: IO[bytes], runtime: Runtime) -> None:
        try:
            self._process = subprocess.Popen(
                [runtime.python, "-m", *module],
                cwd=runtime.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env=runtime.environment(),
            )
        except OSError as error:
            raise LaunchError(f"launch server: {error.filename or runtime.python}: {error.strerror}") from error
        self._pending = b""
        self.is_stuck = False
        is_ready = False
        try:
            is_ready = self._read_line(SERVER_START_TIMEOUT_S) == "ready"
        finally:  # an interrupt while it starts must not leave it behind
            if not is_ready:
                self.stop()
        if not is_ready:
            raise LaunchError(f"launch server: it did not start; its output is in {log.name}")

    def run(self, job: Job, timeout_s: float) -> ChildEnd:
        """Start the child, wait for it, and kill it where the limit passes."""
        assert self._process.stdin is not None, "opened with a pipe"
        deadline, kills_before = time.monotonic() + timeout_s, oom_kill_count()
        try:
            line = job.model_dump_json(exclude_defaults=True)  # another revision need not know what is not used
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise LaunchError(f"launch server: it died; {SEE_LOG}") from error
        (pid,) = self._expect("pid", 1)
        answer = self._read_line(max(0.0, deadline - time.monotonic()))
        if answer is None:
            last_rss_bytes = rss_bytes_of(pid)
            kill_group(pid)
            answer = self._read_line(KILL_TIMEOUT_S)  # it comes when the rest of its tree has ended too
            if answer is None:  # not even the kernel ends it, such as in a driver's call: left, and this server with it
                self.is_stuck = True
                return ChildEnd(None, last_rss_bytes, None)
            _, peak_rss_bytes = _exit_numbers(answer)
            return ChildEnd(None, last_rss_bytes, peak_rss_bytes)
        exit_code, peak_rss_bytes = _exit_numbers(answer)
        kills = oom_kill_count()
        is_oom_killed = None if kills is None or kills_before is None else kills > kills_before
        return ChildEnd(exit_code, None, peak_rss_bytes, is_oom_killed)

    def stop(self) -> None:
        """End the server; asked to end, it first ends all that it started."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(SERVER_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            kill_group(self._process.pid)
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):  # of a job that a dead server never read
                    stream.close()

    def _expect(self, word: str, num_values: int) -> list[int]:
        line = self._read_line(SERVER_START_TIMEOUT_S)
        if line is None:
            raise LaunchError(f"launch server: no {word!r} within {SERVER_START_TIMEOUT_S:.0f} s; {SEE_LOG}")
        return _numbers(line, word, num_values)

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
        return line.decode(errors="replace")


def _exit_numbers(line: str) -> tuple[int, int | None]:
    """Exit code and peak memory; servers of older revisions say only the former."""
    if len(line.split()) == 2:
        return _numbers(line, "exit", 1)[0], None
    exit_code, peak_rss_bytes = _numbers(line, "exit", 2)
    return exit_code, peak_rss_bytes


def _numbers(line: str, word: str, num_values: int) -> list[int]:
    found, *values = line.split() or [""]
    if found != word or len(values) != num_values or not all(value.lstrip("-").isdecimal() for value in values):
        raise LaunchError(f"launch server: got {line[:80]!r}; expected {word!r} and {num_values} numbers; {SEE_LOG}")
    return [int(value) for value in values]
