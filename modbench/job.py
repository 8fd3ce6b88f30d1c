"""What the runner asks of a worker, as JSON: measure, trace or map a launch, check a method, examine the device. No torch.

In: a `Job` line on the worker's standard input. Out: a `JobResult` in the file that the job names.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from modbench.checks import DoctorReport
from modbench.keep_map_record import KeepMapRecord
from modbench.plan import RunSpec
from modbench.quality_record import QualityRecord
from modbench.record import GuardResult, Record, Status
from modbench.scenario import QualityWork
from modbench.trace_record import TraceRecord

CANNOT_WRITE_EXIT = 73  # of a worker whose disk is full (sysexits.h: cannot create); it cannot say so in a file

TOKENS_SUFFIX, OUTCOME_SUFFIX = (
    ".tokens",
    ".outcome",
)  # beside a job's result: what a program that measures itself is handed


class Job(BaseModel):
    """One piece of work for one fresh process.

    `environment` and `guard` are copied into the record; `progress_path` is where the worker notes its phase, so that a killed
    launch still says how far it came.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["launch", "guard", "probe", "trace", "keep_map", "quality", "doctor"]
    spec: RunSpec | None = None
    device: str = Field(description="cpu, cuda, cuda:N, or auto for a probe or doctor")
    dtype: str = "float32"
    threads: int = 1
    allow_entry: bool = False
    is_remeasured: bool = Field(False, description="doctor: measure the ceilings anew")
    memory_limit_bytes: int | None = Field(None, description="host memory that the worker may take beyond its start")
    device_limit_bytes: int | None = Field(None, description="CUDA memory that the worker may take")
    counts_live_tensors: bool = Field(False, description="launch on a CPU: one more sample, counted and not timed")
    returns_large_blocks: bool = Field(
        False, description="malloc gives large blocks back at once: slower and repeatable"
    )
    environment: dict[str, Any] = Field(default_factory=dict)
    guard: dict[str, GuardResult] = Field(default_factory=dict)
    result_path: str
    progress_path: str
    quality: QualityWork | None = Field(None, description="quality: what is evaluated")
    trace_folder: str | None = Field(default=None, description="the run's folder, where a traced launch puts its file")


class GuardReport(BaseModel):
    """Outcome of the same-work guard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    identities: dict[str, GuardResult]
    declared: dict[str, str] = Field(default_factory=dict, description="identity -> why it does not apply")
    flip_ratio: float = 0.0
    detail: str = ""


class Probe(BaseModel):
    """A device: its resolved name and kind, what it is (`environment`), and its measured ceilings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    device_kind: str
    environment: dict[str, Any]
    ceilings: dict[str, float]


class JobResult(BaseModel):
    """Exactly one of the fields that fit the job's kind, or `error`, one line."""

    model_config = ConfigDict(extra="forbid")

    record: Record | None = None
    guard: GuardReport | None = None
    probe: Probe | None = None
    trace: TraceRecord | None = None
    keep_map: KeepMapRecord | None = None
    quality: QualityRecord | None = None
    doctor: DoctorReport | None = None
    error: str | None = None


def failed_record(
    job: Job, status: Status, phase: str, error: str, last_memory: Mapping[str, int | None] | None
) -> Record:
    """The record of a launch that gave no numbers: how far it came, and its last known memory (metric -> bytes)."""
    spec = job.spec
    assert spec is not None, "only launches leave records"
    return Record(
        launch_id=spec.launch_id,
        run_id=spec.run_id,
        point_id=spec.point_id,
        method=spec.method,
        kind=spec.kind,
        status=status,
        phase=phase,
        point=spec.point,
        pair=spec.pair,
        metrics={"last_rss_bytes": None, **(last_memory or {})},
        guard=job.guard,
        environment=job.environment,
        error=error,
    )
