"""Child entry point: jobs in, results out. Never imported by the runner, which starts it as a process.

`python -m modbench.worker serve` imports everything, touches no device, and forks one child per job line on standard input;
`python -m modbench.worker run` does the single job on standard input in this process (spawn). Results go to the file that the job
names, so nothing printed here can be mistaken for one. This is the one place where any failure is turned into a record; a full
disk is none of the measurement's, and ends the process with `CANNOT_WRITE_EXIT`.
"""

import errno
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from modbench.checks import DoctorReport
from modbench.doctor import examine
from modbench.errors import EntryNotAllowedError, UnsupportedError
from modbench.foreign_launch import do_foreign_job
from modbench.guard import check_identities
from modbench.job import CANNOT_WRITE_EXIT, GuardReport, Job, JobResult, Probe, failed_record
from modbench.keep_map_launch import run_keep_map_launch
from modbench.launch import run_launch
from modbench.launch_server import serve
from modbench.memory_limit import (
    be_killed_first,
    lift_limit,
    limit_this_process,
    return_large_blocks,
    tells_out_of_memory,
)
from modbench.methods import METHODS, Program
from modbench.plan import RunSpec
from modbench.process_tree import end_with_parent
from modbench.profiling import torch_memory
from modbench.profiling.ceilings import known_ceilings
from modbench.profiling.environment import describe_environment
from modbench.profiling.gpu_watch import calibrate as calibrate_gpu
from modbench.profiling.process_memory import peak_rss_bytes, rss_bytes
from modbench.quality_launch import run_quality_launch
from modbench.record import Status
from modbench.scenario import runs_foreign_code
from modbench.traced_launch import run_traced_launch
from modbench.units import format_bytes
from reference_impl import UnsupportedModelError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ProgressFile:
    """The phase a job is in, kept in a file so that it survives the process."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self.phase = "start"

    def enter(self, phase: str) -> None:
        """Note the phase and the resident set at its start; where the disk is full the note is left out."""
        self.phase = phase
        with suppress(OSError):
            self._path.write_text(json.dumps({"phase": phase, "rss_bytes": rss_bytes()}))


def resolve_device(name: str) -> torch.device:
    """`auto` -> cuda where there is one, else cpu.

    Raises:
        UnsupportedError: a CUDA device was asked for and is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = f"{torch.cuda.device_count()} CUDA devices" if torch.cuda.is_available() else "no CUDA device"
        raise UnsupportedError(f"device: got {name}; this machine has {found}: use --device cpu")
    return device


def doctor(job: Job) -> DoctorReport:
    """Look the machine over; a device that is not there is one of the findings."""
    try:
        return examine(resolve_device(job.device), job.threads, job.is_remeasured)
    except UnsupportedError as error:
        return examine(None, job.threads, job.is_remeasured, str(error))


def probe(job: Job) -> Probe:
    """Describe the device; its ceilings are measured once per machine, torch version, dtype and thread count."""
    device = resolve_device(job.device)
    environment = describe_environment(device)
    if (driver := calibrate_gpu(device)) is not None:
        environment["nvml"] = driver
    measured = known_ceilings(device, job.dtype, job.threads, environment)
    return Probe(device=str(device), device_kind=device.type, environment=environment, ceilings=measured.ceilings)


def guard(job: Job) -> GuardReport:
    """Check the method's identities at this model geometry."""
    assert job.spec is not None, "a guard job has a run spec"
    point = job.spec.point
    method = METHODS[job.spec.kind](point.settings)
    outcome = check_identities(method, point, torch.device(job.device))
    return GuardReport(
        identities=outcome.identities,
        declared=outcome.declared,
        flip_ratio=outcome.flip_ratio,
        detail=outcome.detail,
    )


def method_program(spec: RunSpec | None) -> Program | None:
    """The program that measures the method in its own process, where there is one."""
    return None if spec is None else METHODS[spec.kind](spec.point.settings).program()


def _status_of(error: Exception) -> Status:
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or _errno(error) == errno.ENOMEM:
        return "oom"
    if isinstance(error, RuntimeError) and tells_out_of_memory(str(error)):
        return "oom"
    return "unsupported" if isinstance(error, UnsupportedError | UnsupportedModelError) else "failed"


def _errno(error: Exception) -> int | None:
    return error.errno if isinstance(error, OSError) else None


def _limit_text(job: Job) -> str:
    limit_bytes = job.device_limit_bytes if job.device.startswith("cuda") else job.memory_limit_bytes
    return "" if limit_bytes is None else f" (its memory limit: {format_bytes(limit_bytes)})"


def limit_memory(job: Job, device: torch.device) -> None:
    """Put the job's limits in force; the device first, since starting it maps host memory that is not the job's."""
    if job.returns_large_blocks:
        return_large_blocks()
    torch_memory.limit_device(device, job.device_limit_bytes)
    limit_this_process(job.memory_limit_bytes)


def last_memory(device: str) -> dict[str, int | None]:
    """What this process holds now and held at most, on the host and, where it has used one, on its CUDA device."""
    host = {"last_rss_bytes": rss_bytes(), "peak_rss_bytes": peak_rss_bytes()}
    return {**host, **torch_memory.allocator_state(torch.device(device))}


def do_job(job: Job) -> JobResult:
    """Run any job; a failure becomes a record (launch) or an error line (any other).

    Raises:
        OSError: the disk is full.
    """
    progress = ProgressFile(job.progress_path)
    try:
        progress.enter("start")
        torch.set_num_threads(job.threads)
        if job.spec is not None and runs_foreign_code(job.spec.kind) and not job.allow_entry:
            raise EntryNotAllowedError(
                f"method {job.spec.method}: {job.spec.kind}: runs code that the scenario names; pass --allow-entry to run it"
            )
        if (program := method_program(job.spec)) is not None:  # has the limits put on it: this process measures nothing
            return do_foreign_job(job, program, progress.enter)
        if job.kind == "doctor":  # has no limit; a device that is not there is among its findings
            return JobResult(doctor=doctor(job))
        limit_memory(job, resolve_device(job.device))
        if job.kind == "probe":
            return JobResult(probe=probe(job))
        if job.kind == "guard":
            return JobResult(guard=guard(job))
        if job.kind == "trace":
            return JobResult(trace=run_traced_launch(job, progress.enter))
        if job.kind == "keep_map":
            return JobResult(keep_map=run_keep_map_launch(job, progress.enter))
        if job.kind == "quality":
            return JobResult(quality=run_quality_launch(job, progress.enter))
        return JobResult(record=run_launch(job, progress.enter, lambda record: put(job, JobResult(record=record))))
    except Exception as error:
        lift_limit()
        if _errno(error) in DISK_FULL:
            raise
        with suppress(OSError, ValueError):  # the log may be full, or closed by what ran
            traceback.print_exc()
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if job.kind == "launch":
            status = _status_of(error)
            text += _limit_text(job) if status == "oom" else ""
            return JobResult(record=failed_record(job, status, progress.phase, text, last_memory(job.device)))
        return JobResult(error=text)


def put(job: Job, result: JobResult) -> None:
    """Put the result in place in one step; a later one replaces it.

    Raises:
        OSError: it cannot be written.
    """
    partial = Path(job.result_path + ".partial")
    partial.write_text(result.model_dump_json())
    partial.rename(job.result_path)


def run_job_line(line: str) -> None:
    """Do the job on this line and put its result in place in one step; ends the process where the disk takes no result."""
    job = Job.model_validate_json(line)
    try:
        put(job, do_job(job))
    except OSError as error:
        with suppress(OSError, ValueError):
            sys.stderr.write(f"cannot write: {error}\n")
            sys.stderr.flush()
        os._exit(CANNOT_WRITE_EXIT)


def run_child(line: str) -> None:
    """Do the job in a process that exists for it alone."""
    end_with_parent(signal.SIGKILL)
    be_killed_first()
    run_job_line(line)
    with suppress(OSError, ValueError):  # closed by what ran, or the log's disk is full
        sys.stdout.flush()


def fork_child(line: str, leave: Callable[[], None]) -> int:
    """Fork a child for the job; gives its pid."""
    pid = os.fork()
    if pid == 0:
        leave()
        os.setsid()
        run_child(line)
        os._exit(0)
    return pid


def main() -> None:
    """`serve` or `run`."""
    mode = sys.argv[1] if len(sys.argv) == 2 else ""
    if mode == "serve":
        serve(fork_child)
    elif mode == "run":
        os.setsid()
        run_child(sys.stdin.readline())
    else:
        sys.exit("usage: python -m modbench.worker serve | run (started by modbench run; not for hand use)")


if __name__ == "__main__":
    main()
