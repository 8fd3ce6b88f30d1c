"""Child entry point: jobs in, results out. Never imported by the runner, which starts it as a process.

`python -m modbench.worker serve` imports everything, touches no device, and forks one child per job line on standard input;
`python -m modbench.worker run` does the single job on standard input in this process (spawn). Results go to the file that the job
names, so nothing printed here can be mistaken for one. This is the one place where any failure is turned into a record.
"""

import ctypes
import json
import os
import signal
import sys
import traceback
from pathlib import Path

import torch

from modbench.checks import DoctorReport
from modbench.doctor import examine
from modbench.errors import EntryNotAllowedError, UnsupportedError
from modbench.guard import check_identities
from modbench.job import GuardReport, Job, JobResult, Probe, failed_record
from modbench.launch import run_launch
from modbench.methods import METHODS
from modbench.profiling.ceilings import known_ceilings
from modbench.profiling.environment import describe_environment
from modbench.profiling.gpu_watch import calibrate as calibrate_gpu
from modbench.profiling.process_memory import rss_bytes
from modbench.record import Status
from reference_impl import UnsupportedModelError

READY = "ready"
PR_SET_PDEATHSIG = 1
OUT_OF_MEMORY_TEXTS = ("can't allocate memory", "out of memory", "not enough memory")


class ProgressFile:
    """The phase a job is in, kept in a file so that it survives the process."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self.phase = "start"

    def enter(self, phase: str) -> None:
        """Note the phase and the resident set at its start."""
        self.phase = phase
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


def _status_of(error: Exception) -> Status:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "oom"
    if isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY_TEXTS):
        return "oom"
    return "unsupported" if isinstance(error, UnsupportedError | UnsupportedModelError) else "failed"


def do_job(job: Job) -> JobResult:
    """Run any job; a failure becomes a record (launch) or an error line (guard, probe, doctor)."""
    progress = ProgressFile(job.progress_path)
    try:
        progress.enter("start")
        torch.set_num_threads(job.threads)
        if job.spec is not None and job.spec.kind == "entry" and not job.allow_entry:
            raise EntryNotAllowedError(f"method {job.spec.method}: entry: imports code; pass --allow-entry to run it")
        if job.kind == "probe":
            return JobResult(probe=probe(job))
        if job.kind == "doctor":
            return JobResult(doctor=doctor(job))
        if job.kind == "guard":
            return JobResult(guard=guard(job))
        return JobResult(record=run_launch(job, progress.enter))
    except Exception as error:
        traceback.print_exc()
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if job.kind == "launch":
            return JobResult(record=failed_record(job, _status_of(error), progress.phase, text, rss_bytes()))
        return JobResult(error=text)


def run_job_line(line: str) -> None:
    """Do the job on this line and put its result in place in one step."""
    job = Job.model_validate_json(line)
    result = do_job(job)
    partial = Path(job.result_path + ".partial")
    partial.write_text(result.model_dump_json())
    partial.rename(job.result_path)


def end_with_parent() -> None:
    """Ask the kernel (Linux) to kill this process when its parent ends, however that ends; elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def serve() -> None:
    """Fork one child per job; tell the executor each child's pid and, when it ends, its wait status."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints goes to the log, not into the protocol
    channel.write(READY + "\n")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            end_with_parent()
            run_job_line(line)
            sys.stdout.flush()
            os._exit(0)
        channel.write(f"pid {pid}\n")
        _, status = os.waitpid(pid, 0)
        channel.write(f"exit {os.waitstatus_to_exitcode(status)}\n")


def main() -> None:
    """`serve` or `run`."""
    end_with_parent()
    mode = sys.argv[1] if len(sys.argv) == 2 else ""
    if mode == "serve":
        serve()
    elif mode == "run":
        run_job_line(sys.stdin.readline())
    else:
        sys.exit("usage: python -m modbench.worker serve | run (started by modbench run; not for hand use)")


if __name__ == "__main__":
    main()
