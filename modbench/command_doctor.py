"""`modbench doctor`: look the machine over in a worker, print what it found, and return the exit code."""

import re
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from modbench.checks import DoctorReport
from modbench.errors import LaunchError, UnsupportedError
from modbench.executors.local import LocalExecutor
from modbench.job import Job
from modbench.report.doctor import render_doctor
from modbench.run_folder import LOG_FILE

DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
TIMEOUT_S = 300.0
DEVICE_ABSENT = 2


def doctor_command(device: str, threads: int, is_remeasured: bool, is_json: bool) -> int:
    """0, or `DEVICE_ABSENT` where the device that was asked for is not there.

    Raises:
        UnsupportedError: `device` names no kind of device.
        LaunchError: the worker gave no report.
    """
    if not DEVICE.fullmatch(device):
        raise UnsupportedError(f"--device: got {device!r}; expected auto, cpu, cuda or cuda:INDEX")
    report = _examine(device, threads, is_remeasured)
    if is_json:
        sys.stdout.write(report.model_dump_json(indent=2) + "\n")
    else:
        render_doctor(report, Console())
    return DEVICE_ABSENT if report.device is None else 0


def _examine(device: str, threads: int, is_remeasured: bool) -> DoctorReport:
    folder = Path(tempfile.mkdtemp(prefix="modbench-doctor-"))  # stays where the worker failed: its output is there
    job = Job(
        kind="doctor",
        device=device,
        threads=threads,
        is_remeasured=is_remeasured,
        result_path=str(folder / "result.json"),
        progress_path=str(folder / "progress.json"),
    )
    with LocalExecutor("auto", folder / LOG_FILE) as executor:
        result = executor.run(job, TIMEOUT_S)
    if result.doctor is None:
        raise LaunchError(f"doctor: the worker gave no report: {result.error}; its output is in {folder / LOG_FILE}")
    shutil.rmtree(folder, ignore_errors=True)
    return result.doctor
