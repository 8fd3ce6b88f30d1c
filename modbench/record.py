"""The record of one launch: schema, version, atomic append and tolerant reading.

In: `Record`s from workers. Out: `records.jsonl`, one JSON line per launch. Readers accept every older version.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from modbench.plan import Pair, PointWork

SCHEMA_VERSION = 1
Status = Literal["ok", "oom", "timeout", "crashed", "failed", "unsupported", "invalid", "pruned"]
GuardResult = Literal["passed", "declared", "failed"]


class KeepRatios(BaseModel):
    """Measured share of kept tokens per layer (1.0 at dense layers, 0.0 at removed ones), in [0, 1].

    `decode_any` is the share of decode steps in which at least one row of the batch was kept: only then are the layer's weights read.
    """

    model_config = ConfigDict(extra="forbid")

    prefill: list[float] = Field(default_factory=list)
    decode: list[float] = Field(default_factory=list)
    decode_any: list[float] = Field(default_factory=list)


class Samples(BaseModel):
    """Raw samples of a launch in seconds, in the order measured; `itl_s` holds every gap of every sample, TTFT not among them."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    ttft_s: list[float] = Field(default_factory=list)
    tpot_s: list[float] = Field(default_factory=list)
    itl_s: list[float] = Field(default_factory=list)


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
