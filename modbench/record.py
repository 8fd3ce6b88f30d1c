"""The record of one launch: schema, version, atomic append and tolerant reading.

In: `Record`s from workers. Out: `records.jsonl`, one JSON line per launch. Readers accept every older version.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modbench.errors import OutputError, RecordError
from modbench.plain_text import one_line
from modbench.plan import Pair, PointWork
from modbench.record_bounds import find_unusable

SCHEMA_VERSION = 2
RECORDS_FILE = "records.jsonl"
Status = Literal["ok", "oom", "timeout", "crashed", "failed", "unsupported", "invalid", "pruned"]
RANDOM_ROUTER, CALIBRATED_ROUTER = "calibrated random router", "calibrated router"
CHECKPOINT_ROUTER = "router of the checkpoint"  # nothing was set: neither its share nor which tokens it keeps; no doubt
ROUTER_FLAGS = (
    RANDOM_ROUTER,
    CALIBRATED_ROUTER,
    CHECKPOINT_ROUTER,
)  # how a keep ratio came about: these stand in headlines
SIDE_BY_SIDE = "side_by_side"  # environment key of launches interleaved with another side's: {id, side}
NOISE_FLOOR = "noise_floor"  # environment key: the machine's, as known when the launch ran; shares by latency metric
GuardResult = Literal["passed", "declared", "failed"]
Role = Literal["trial", "limit"]


class KeepRatios(BaseModel):
    """Measured share of kept tokens per layer (1.0 at dense layers, 0.0 at removed ones), in [0, 1].

    `decode_any` is the share of decode steps in which at least one row of the batch was kept: only then are the
    layer's weights read.
    """

    model_config = ConfigDict(extra="forbid")

    prefill: list[float] = Field(default_factory=list)
    decode: list[float] = Field(default_factory=list)
    decode_any: list[float] = Field(default_factory=list)


class Samples(BaseModel):
    """Raw samples of a launch in seconds, in the order measured.

    `itl_s` holds every gap of every sample, TTFT not among them. `*_cpu_s` is the CPU time of the thread that ran the phase,
    `*_device_s` the time between CUDA events around it (empty on a CPU), and `num_involuntary_switches` how often that thread lost
    its core, per sample. These four came with schema version 2.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    ttft_s: list[float] = Field(default_factory=list)
    tpot_s: list[float] = Field(default_factory=list)
    itl_s: list[float] = Field(default_factory=list)
    prefill_cpu_s: list[float] = Field(default_factory=list)
    decode_cpu_s: list[float] = Field(default_factory=list)
    prefill_device_s: list[float] = Field(default_factory=list)
    decode_device_s: list[float] = Field(default_factory=list)
    num_involuntary_switches: list[int] = Field(default_factory=list)


class Trial(BaseModel):
    """A launch of a search for the largest size that fits, along `axis`.

    `trial` asks whether a size fits, with one sample; `limit` measures at the size found. `bound` is the largest size that the
    search may try.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    axis: str
    role: Role
    bound: int

    @property
    def name(self) -> str:
        """The searched size in a word: context or batch."""
        return self.axis.rpartition(".")[2]


class Record(BaseModel):
    """One launch. Aggregates are never stored: they are computed from `samples` when read."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    schema_version: int = SCHEMA_VERSION
    launch_id: str
    run_id: str
    point_id: str
    method: str
    kind: str
    status: Status
    phase: str = Field(description="the last phase entered: start, build, calibrate, warmup, prefill, decode, done")
    point: PointWork
    pair: Pair
    samples: Samples = Samples()
    metrics: dict[str, float | int | None] = Field(default_factory=dict)
    keep_ratio: KeepRatios = KeepRatios()
    guard: dict[str, GuardResult] = Field(default_factory=dict)
    flags: list[str] = Field(default_factory=list)
    environment: dict[str, Any] = Field(default_factory=dict)
    error: str | None = None
    trial: Trial | None = Field(None, description="null for a launch that is compared with others")


@dataclass(frozen=True)
class RecordFile:
    """What a records file held: its complete records, and how many damaged lines were passed over."""

    path: Path
    records: list[Record]
    num_skipped_lines: int


def append_record(path: Path, record: Record) -> None:
    """Append one JSON line with a single write, on disk when this returns.

    A last line that a killed writer left unfinished is terminated first, so that the new record starts on its own line.

    Raises:
        RecordError: the record holds NaN, an infinity, or something that JSON cannot hold.
        OutputError: the file cannot be written, or the disk took only a part of the line.
    """
    try:
        line = json.dumps(record.model_dump(), allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise RecordError(
            f"launch {record.launch_id}: {error}; expected finite JSON values, None for unknown"
        ) from error
    append_line(path, line)


def append_line(path: Path, line: str) -> None:
    """Append one line of JSON with a single write, on disk when this returns; an unfinished last line is terminated first.

    Raises:
        OutputError: the file cannot be written, or the disk took only a part of the line.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(fd).st_size
            is_cut = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            data = b"\n" * is_cut + line.encode() + b"\n"
            written = os.write(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot append a record: {error.strerror}; free some disk space and go on with --resume"
        ) from error
    if written != len(data):
        raise OutputError(
            f"{path}: wrote {written} of {len(data)} bytes of a record; free some disk space and go on with --resume"
        )


def load_records(source: Path | str) -> RecordFile:
    """Read a records file, or the `records.jsonl` of a folder.

    Passed over: a last line without newline (a writer at work, or killed), and, counted, lines that are not JSON (a
    killed writer's, terminated later). Of several records of one launch the last counts, in the place of the first.

    Raises:
        RecordError: `FILE:LINE: ...` for NaN or infinities, a newer schema, or JSON that is no record; or no such file.
    """
    path = Path(source)
    path = path / RECORDS_FILE if path.is_dir() else path
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise RecordError(
            f"{path}: cannot read records: {error.strerror}; expected a {RECORDS_FILE} or its folder"
        ) from error
    by_launch: dict[str, Record] = {}
    num_skipped = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        raw = _decode(line, f"{path}:{number}")
        if raw is None:
            num_skipped += 1
            continue
        record = _validate(raw, f"{path}:{number}")
        by_launch[record.launch_id] = record
    return RecordFile(path, list(by_launch.values()), num_skipped)


def read_records(source: Path | str) -> list[Record]:
    """The records of `load_records`, for callers that do not report damaged lines."""
    return load_records(source).records


def record_json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one line of `records.jsonl`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Record.model_json_schema()}


def _decode(line: bytes, where: str) -> Any:
    """One line as plain data, or None if it is not JSON (a cut line)."""
    try:
        return pydantic_core.from_json(line, allow_inf_nan=False)
    except ValueError:
        pass  # either a cut line, or complete JSON with NaN: told apart below
    constants: list[str] = []
    try:
        json.loads(line, parse_constant=constants.append)
    except (ValueError, RecursionError):
        return None
    found = constants[0] if constants else "JSON that this reader does not take"
    raise RecordError(
        f"{where}: got {found}; expected finite numbers, null for unknown; remove the line and measure again"
    )


def _validate(raw: Any, where: str) -> Record:
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise RecordError(
            f"{where}: got schema_version {one_line(repr(version), 40)}; "
            f"expected a record with an integer from 1 to {SCHEMA_VERSION}"
        )
    if version > SCHEMA_VERSION:
        raise RecordError(
            f"{where}: got schema_version {version}; this modbench reads up to {SCHEMA_VERSION}; upgrade modbench"
        )
    try:
        record = Record.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = one_line(".".join(str(part) for part in first["loc"]), 80)
        raise RecordError(
            f"{where}: {place}: {one_line(first['msg'])}; not a record of schema version {version}"
        ) from error
    unusable = find_unusable(record)
    if unusable:
        raise RecordError(f"{where}: {one_line(unusable)}; remove the line and measure again")
    return record
