"""Where the time of one traced launch went: the row's schema, its file, atomic append and tolerant reading. Imports no torch.

In: `TraceRecord`s from workers. Out: `traces.jsonl`, one JSON line per traced launch; the traces themselves are in `traces/`.
"""

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modbench.errors import OutputError
from modbench.plan import RunSpec, content_hash
from modbench.record import append_line

TRACES_FILE, TRACES_FOLDER = "traces.jsonl", "traces"
PHASES = ("prefill", "decode")
ROUTING_RANGES = ("router", "pack", "scatter")  # what only a routing method has
OWN_COST = (*ROUTING_RANGES, "cache_append")
RANGES = ("attention", "mlp", *OWN_COST, "norm", "embedding", "head")
OTHER, DEVICE_IDLE = "other", "device_idle"  # the rest of a phase

Seconds = dict[str, dict[str, float]]


class TraceRecord(BaseModel):
    """One traced launch. Per phase and range its own time in seconds, of nested ranges counted once; they add up to the phase.

    `device_s` is None on a CPU. `slowdown_ratio` per phase: traced time / that of the fastest untraced sample of the same launch.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = 1
    launch_id: str
    run_id: str
    point_id: str
    cell_id: str
    method: str
    kind: str
    trace_file: str | None = Field(default=None, description="relative to the run's folder")
    num_decode_steps: int = 0
    host_s: Seconds = Field(default_factory=dict, description="of the launching thread")
    device_s: Seconds | None = Field(default=None, description="of the kernels that each range launched")
    slowdown_ratio: dict[str, float] = Field(default_factory=dict)
    error: str | None = None


def new_trace_record(spec: RunSpec, error: str | None = None) -> TraceRecord:
    """The row of a traced launch with nothing in it yet, or of one that failed."""
    return TraceRecord(
        launch_id=spec.launch_id,
        run_id=spec.run_id,
        point_id=spec.point_id,
        cell_id=spec.point.cell_id,
        method=spec.method,
        kind=spec.kind,
        error=error,
    )


def trace_file(spec: RunSpec) -> str:
    """A file of its own for this cell and method, relative to the run's folder; no label can lead out of it."""
    label = re.sub(r"[^A-Za-z0-9_-]", "_", spec.method)[:64]
    identity = content_hash([spec.point.cell_id, spec.method])
    return f"{TRACES_FOLDER}/{label}-{identity}.json.gz"


def append_trace(folder: Path, trace: TraceRecord) -> None:
    """Append one line to the folder's traces file, on disk when this returns.

    Raises:
        OutputError: the file cannot be written.
    """
    append_line(folder / TRACES_FILE, trace.model_dump_json())


def load_traces(folder: Path) -> list[TraceRecord]:
    """The traced launches of a run, the last one of each cell and method; none if nothing was traced.

    Lines that are not whole rows of this version are passed over: what they were about can be traced again.

    Raises:
        OutputError: the file is there and cannot be read.
    """
    path = folder / TRACES_FILE
    try:
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    except OSError as error:
        raise OutputError(f"{path}: cannot read traces: {error.strerror}; make it readable, or delete it") from error
    traces: dict[tuple[str, str], TraceRecord] = {}
    for line in lines:
        try:
            trace = TraceRecord.model_validate_json(line)
        except ValidationError:
            continue
        traces[trace.cell_id, trace.method] = trace
    return list(traces.values())
