"""Where the time of one traced launch went: the row's schema, and its file. Imports no torch.

In: `TraceRecord`s from workers. Out: `traces.jsonl`, one JSON line per traced launch; the traces themselves are in `traces/`.
"""

import re
from pathlib import Path

from pydantic import ConfigDict, Field

from modbench.launch_rows import LaunchRow, LaunchRows, identity, load_rows
from modbench.plan import RunSpec, content_hash
from modbench.record import append_line

TRACES_FILE, TRACES_FOLDER = "traces.jsonl", "traces"
PHASES = ("prefill", "decode")
ROUTING_RANGES = ("router", "pack", "scatter")  # what only a routing method has
OWN_COST = (*ROUTING_RANGES, "cache_append")
RANGES = ("attention", "mlp", *OWN_COST, "norm", "embedding", "head")
OTHER, DEVICE_IDLE = "other", "device_idle"  # the rest of a phase

Seconds = dict[str, dict[str, float]]


class TraceRecord(LaunchRow):
    """One traced launch. Per phase and range its own time in seconds, of nested ranges counted once; they add up to the phase.

    `device_s` is None on a CPU. `slowdown_ratio` per phase: traced time / that of the fastest untraced sample of the same launch.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    trace_file: str | None = Field(default=None, description="relative to the run's folder")
    num_decode_steps: int = 0
    host_s: Seconds = Field(default_factory=dict, description="of the launching thread")
    device_s: Seconds | None = Field(default=None, description="of the kernels that each range launched")
    slowdown_ratio: dict[str, float] = Field(default_factory=dict)


def new_trace_record(spec: RunSpec, error: str | None = None) -> TraceRecord:
    """The row of a traced launch with nothing in it yet, or of one that failed."""
    return TraceRecord(**identity(spec), error=error)


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


def load_traces(folder: Path) -> LaunchRows[TraceRecord]:
    """The traced launches of a run; none if nothing was traced.

    Raises:
        OutputError: the file is there and cannot be read.
    """
    return load_rows(folder / TRACES_FILE, TraceRecord, "traces")
