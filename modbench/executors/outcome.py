"""What a child's end means. In: a job, how its process ended, and the files it left. Out: a `JobResult`, whatever they hold.

A child may leave nothing, half a file, another job's result, or gigabytes: each is a failed record (or an error line of a guard
or probe) with the phase it came to and its last memory. The one end that is not the job's own is a full disk: that is an error.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from modbench.errors import OutputError
from modbench.job import CANNOT_WRITE_EXIT, Job, JobResult, failed_record
from modbench.memory_limit import NEAR_LIMIT_RATIO
from modbench.process_tree import KILLED_EXIT, signal_name
from modbench.record import Status
from modbench.units import MIB, format_bytes

MAX_RESULT_BYTES = 256 * MIB  # raw samples of the longest launch take far less
SEE_LOG = "see worker.log in the output folder"


@dataclass(frozen=True)
class ChildEnd:
    """How a job's process ended.

    `exit_code` is negative for a signal, None where the time limit passed and it was killed. `last_rss_bytes` was read just
    before that kill, `peak_rss_bytes` is the kernel's own account. `is_oom_killed`: the kernel's out-of-memory killer struck here
    meanwhile; None where the kernel does not say.
    """

    exit_code: int | None
    last_rss_bytes: int | None = None
    peak_rss_bytes: int | None = None
    is_oom_killed: bool | None = None


def collect(job: Job, end: ChildEnd, timeout_s: float) -> JobResult:
    """The child's own result where there is a sound one, else what its end means. The result file is removed.

    Raises:
        OutputError: the child could not write its result.
    """
    path = Path(job.result_path)
    if end.exit_code == CANNOT_WRITE_EXIT and not path.is_file():
        raise OutputError(
            f"{path.parent}: a worker could not write ({SEE_LOG}, if that could be written); "
            "free some disk space and go on with --resume"
        )
    problem = None
    if path.is_file():
        result, problem = _read_result(path, job)
        path.unlink(missing_ok=True)
        if result is not None:
            return _with_doubt(result, job, end)
    phase, noted_rss_bytes = _last_progress(Path(job.progress_path))
    status: Status = "crashed"
    error = f"{problem} in phase {phase}"
    if problem is None:
        status, error = _meaning(job, end, timeout_s, phase)
    if job.kind != "launch":
        return JobResult(error=error)
    last_rss_bytes = end.last_rss_bytes or noted_rss_bytes
    peaks = [value for value in (last_rss_bytes, end.peak_rss_bytes) if value is not None]  # the kernel's counters lag
    memory = {"last_rss_bytes": last_rss_bytes, "peak_rss_bytes": max(peaks, default=None)}
    return JobResult(record=failed_record(job, status, phase, error, memory))


def _with_doubt(result: JobResult, job: Job, end: ChildEnd) -> JobResult:
    """A launch hands its record over as soon as it is measured; if it then ends badly, what it would have added is missing."""
    if result.record is not None and end.exit_code != 0:
        phase, _ = _last_progress(Path(job.progress_path))
        how = "at its time limit" if end.exit_code is None else f"with exit code {end.exit_code}"
        result.record.flags.append(f"measured in full; its process then ended {how} in phase {phase}")
    return result


def _read_result(path: Path, job: Job) -> tuple[JobResult | None, str | None]:
    """(the result, None), or (None, what is wrong with it)."""
    try:
        size = path.stat().st_size
        if size > MAX_RESULT_BYTES:
            return None, f"the worker left a result of {format_bytes(size)}; at most {format_bytes(MAX_RESULT_BYTES)}"
        result = JobResult.model_validate_json(path.read_bytes())
    except OSError as error:
        return None, f"the worker's result cannot be read ({error.strerror})"
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return None, f"the worker left a result that is none ({' '.join(first['msg'].split())[:200]}): {SEE_LOG}"
    if job.kind == "launch" and job.spec is not None:
        if result.record is None:
            return None, f"the worker left no record ({result.error})"
        if result.record.launch_id != job.spec.launch_id:
            return None, "the worker left the record of another launch"
    return result, None


def _meaning(job: Job, end: ChildEnd, timeout_s: float, phase: str) -> tuple[Status, str]:
    """Status and one line for a child that left no result."""
    if end.exit_code is None:
        key = "quality.timeout_s" if job.kind == "quality" else "measure.timeout_s"
        return "timeout", f"killed after {timeout_s:g} s in phase {phase}: raise {key} or shrink the point"
    if end.exit_code >= 0:
        return "crashed", f"exit code {end.exit_code} without a result in phase {phase}: {SEE_LOG}"
    limit_bytes, peak_bytes = job.memory_limit_bytes, end.peak_rss_bytes
    is_near = limit_bytes is not None and (peak_bytes or 0) >= NEAR_LIMIT_RATIO * limit_bytes
    limit_text = "" if limit_bytes is None else f" of a limit of {format_bytes(limit_bytes)}"
    memory = "" if peak_bytes is None else f" (peak memory {format_bytes(peak_bytes)}{limit_text})"
    if end.exit_code == KILLED_EXIT:
        if end.is_oom_killed or is_near:
            return "oom", f"the kernel, out of memory, killed it in phase {phase}{memory}: shrink the point"
        is_cleared = end.is_oom_killed is False
        cause = "the kernel did not do it for memory" if is_cleared else "most often the kernel was out of memory"
        return "crashed", f"killed by SIGKILL in phase {phase}{memory}: {cause}"
    hint = "it was near its memory limit" if is_near else SEE_LOG
    return "crashed", f"ended by {signal_name(-end.exit_code)} in phase {phase}{memory}: {hint}"


def _last_progress(path: Path) -> tuple[str, int | None]:
    """Phase and resident set as the worker last noted them; ("start", None) where the note is missing or damaged."""
    try:
        noted = json.loads(path.read_bytes())
        phase, rss_bytes = noted["phase"], noted["rss_bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return "start", None
    return (phase, rss_bytes) if isinstance(phase, str) and isinstance(rss_bytes, int) else ("start", None)
