"""How good one method's model was found to be: the row's schema, what it is of, and its file. Imports no torch.

In: `QualityRecord`s from workers. Out: `quality.jsonl`, one JSON line per distinct model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from modbench.launch_rows import LaunchRow, LaunchRows, identity, load_rows
from modbench.plan import PointWork, RunSpec, content_hash
from modbench.record import append_line
from modbench.scenario import QualityWork

QUALITY_FILE = "quality.jsonl"
MAX_BUCKETS = 64  # each twice as wide as the one before
MAX_SCORED_ROWS = 1_000_000

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Size = Annotated[float, Field(ge=0, le=1e24, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**18)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PositionScore(_Part):
    """Tokens at positions `first_position` to `last_position` of their sequences."""

    first_position: Count
    last_position: Count
    num_bytes: Count
    bits_per_byte: Size | None


class QualityScores(_Part):
    """What was measured, None where it was not asked for; standard errors are over rows, None for a single one.

    `needle_accuracy` is the share of keys given back over all contexts and depths, `induction_accuracy` the mean over lengths of
    the second copy's. `row_bits` and `row_bytes` are of each row, so that two methods on the same text can be compared in pairs.
    """

    text_hash: str = Field(description="of the token ids: equal where two methods read the same rows")
    num_rows: Count
    num_tokens: Count
    num_bytes: Count
    context: Count = Field(description="tokens of the longest row")
    bits_per_byte: Size | None = None
    bits_per_byte_standard_error: Size | None = None
    next_token_accuracy: Share | None = None
    next_token_accuracy_standard_error: Size | None = None
    held_out_keep_ratio: Share | None = None
    kv_cache_bytes_per_token: Size | None = None
    needle_accuracy: Share | None = None
    induction_accuracy: Share | None = None
    kl_bits_per_token: Size | None = None
    kl_bits_per_token_standard_error: Size | None = None
    top1_agreement_ratio: Share | None = None
    top1_agreement_ratio_standard_error: Size | None = None
    by_position: list[PositionScore] = Field(default_factory=list, max_length=MAX_BUCKETS)
    row_bits: list[Size] = Field(default_factory=list, max_length=MAX_SCORED_ROWS)
    row_bytes: list[Count] = Field(default_factory=list, max_length=MAX_SCORED_ROWS)


class QualityRecord(LaunchRow):
    """One evaluation: of which work, asked for how, and what was found.

    `work_id` says which model it was (`quality_work_id`), `quality_id` what was asked for. `status` is failed with an `error`, and
    not_evaluated, with the reason as `error`, where the method runs code of its own. `evaluation` is all that
    `reference_impl.evaluation` found, by its names.
    """

    model_config = ConfigDict(extra="forbid")

    work_id: str
    quality_id: str
    status: Literal["ok", "failed", "not_evaluated"]
    duration_s: Size | None = None
    scores: QualityScores | None = None
    evaluation: dict[str, Any] | None = None


def quality_work_id(
    model: Mapping[str, Any],
    geometry: Mapping[str, Any],
    settings: Mapping[str, Any],
    workload: Mapping[str, Any],
    numerics: tuple[str, str, str],
) -> str:
    """Identity of the model that a method runs; sizes of the workload are no part of it, nor places of files that have a hash.

    The prompt is, where routers are calibrated on it.

    Args:
        model: as records have it.
        geometry: in plain values.
        settings: of the method, in force.
        workload: for the seed, and for the prompt.
        numerics: dtype, kind of device and attention.
    """
    calibrates = "checkpoint" not in settings and (
        settings.get("keep_ratio") is not None or settings.get("capacity") is not None
    )
    prompt = workload.get("prompt") or {}
    return content_hash(
        {
            "model": {key: model.get(key) for key in ("preset", "folder_sha256", "weights", "max_positions")},
            "geometry": geometry,
            "settings": {key: value for key, value in settings.items() if key != "checkpoint"},
            "seed": workload.get("seed"),
            "prompt": (prompt.get("sha256") or "synthetic") if calibrates else None,
            "numerics": numerics,
        }
    )


def work_id_of(point: PointWork) -> str:
    """The identity of the model at a point."""
    numerics = (point.dtype, point.device_kind, point.attention)
    return quality_work_id(
        point.model, point.geometry.model_dump(mode="json"), point.settings, point.workload, numerics
    )


def new_quality_record(
    spec: RunSpec, quality: QualityWork, status: Literal["ok", "failed", "not_evaluated"], error: str | None = None
) -> QualityRecord:
    """The row of an evaluation without scores yet."""
    return QualityRecord(
        **identity(spec),
        work_id=work_id_of(spec.point),
        quality_id=content_hash(quality.identity),
        status=status,
        error=error,
    )


def append_quality(folder: Path, row: QualityRecord) -> None:
    """Append one line to the folder's evaluations, on disk when this returns.

    Raises:
        OutputError: the file cannot be written.
    """
    append_line(folder / QUALITY_FILE, row.model_dump_json())


def load_quality(folder: Path) -> LaunchRows[QualityRecord]:
    """The evaluations of a run; none if none was asked for.

    Raises:
        OutputError: the file is there and cannot be read.
    """
    return load_rows(folder / QUALITY_FILE, QualityRecord, "evaluations")
