"""Evaluations -> the rows of a summary: how good each method's model is, beside how fast it is. Pure.

In: a `Summary` and the run's `QualityRecord`s. Out: the summary with quality in its rows' values, and the doubts about it.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from modbench.analysis.resources import ratio
from modbench.analysis.rows import CellSummary, Footnote, LossDifference, MethodRow, Quality, Summary
from modbench.quality_record import QualityRecord, QualityScores, quality_work_id

SCORED = (  # metrics that an evaluation has by the same name
    "bits_per_byte",
    "next_token_accuracy",
    "held_out_keep_ratio",
    "needle_accuracy",
    "induction_accuracy",
    "kl_bits_per_token",
    "top1_agreement_ratio",
)
ERRORS_OF = ("bits_per_byte", "next_token_accuracy", "kl_bits_per_token", "top1_agreement_ratio")
QUALITY_DOUBT = "quality "  # begins them all
RANDOM_WEIGHTS = f"{QUALITY_DOUBT}of random weights: the numbers mean nothing"
UNTRAINED_ROUTER = f"{QUALITY_DOUBT}with routers that were never trained: which tokens they keep is chance"


def with_quality(summary: Summary, evaluations: Sequence[QualityRecord]) -> Summary:
    """The summary with what evaluations found in the rows that they are about; the same one where there are none.

    A model is evaluated once, so every row that runs it has its numbers, whatever the cell. Ratios are to the cell's baseline, and
    are unknown where the two were evaluated on other text.
    """
    if not evaluations:
        return summary
    by_work = {evaluation.work_id: evaluation for evaluation in evaluations}
    cells = tuple(_with_quality(cell, by_work) for cell in summary.cells)
    return replace(summary, cells=cells, footnotes=(*summary.footnotes, *_doubts(cells)))


def _with_quality(cell: CellSummary, by_work: dict[str, QualityRecord]) -> CellSummary:
    found = [by_work.get(_work_id(cell, row)) for row in cell.rows]
    base = next((item for row, item in zip(cell.rows, found, strict=True) if row.is_baseline), None)
    rows = tuple(_row(row, item, base) for row, item in zip(cell.rows, found, strict=True))
    return replace(cell, rows=rows)


def _work_id(cell: CellSummary, row: MethodRow) -> str:
    geometry = cell.model.get("geometry") or {}
    return quality_work_id(
        cell.model, geometry, row.settings, cell.workload, (cell.dtype, cell.device_kind, cell.attention)
    )


def _row(row: MethodRow, evaluation: QualityRecord | None, base: QualityRecord | None) -> MethodRow:
    if evaluation is None:
        return row
    scores = evaluation.scores
    if scores is None:
        reason = evaluation.error or "it gave no numbers"
        return replace(row, quality=Quality(evaluation.work_id, status=evaluation.status, reason=reason))
    values: dict[str, float | None] = {name: getattr(scores, name) for name in SCORED}
    difference = None
    of_base = base.scores if base is not None and base.quality_id == evaluation.quality_id else None
    if not row.is_baseline and of_base is not None and of_base.text_hash == scores.text_hash:
        values["held_out_kv_reduction"] = ratio(of_base.kv_cache_bytes_per_token, scores.kv_cache_bytes_per_token)
        values["bits_per_byte_ratio"] = ratio(scores.bits_per_byte, of_base.bits_per_byte)
        difference = loss_difference(scores, of_base)
    errors = {name: getattr(scores, f"{name}_standard_error") for name in ERRORS_OF}
    quality = Quality(
        evaluation.work_id,
        status=evaluation.status,
        num_rows=scores.num_rows,
        num_bytes=scores.num_bytes,
        context=scores.context,
        standard_errors={name: error for name, error in errors.items() if error is not None},
        difference=difference,
        by_position=tuple(
            (bucket.first_position, bucket.last_position, bucket.bits_per_byte) for bucket in scores.by_position
        ),
    )
    return replace(row, values={**row.values, **values}, quality=quality)


def loss_difference(own: QualityScores, other: QualityScores) -> LossDifference | None:
    """Bits per byte of `own` less those of `other` on the same rows, with the standard error of the pairs.

    The error is that of the linearised ratio estimator, as `paired_difference` of reference_impl has it; None for a single row.
    """
    if not own.row_bits or own.row_bytes != other.row_bytes or len(own.row_bits) != len(other.row_bits):
        return None
    num_rows, total = len(own.row_bits), math.fsum(own.row_bytes)
    if len(own.row_bytes) != num_rows or total <= 0:
        return None
    differences = [mine - theirs for mine, theirs in zip(own.row_bits, other.row_bits, strict=True)]
    value = math.fsum(differences) / total
    if num_rows < 2:
        return LossDifference(value, None)
    squares = math.fsum((found - value * size) ** 2 for found, size in zip(differences, own.row_bytes, strict=True))
    return LossDifference(value, math.sqrt(squares * num_rows / (num_rows - 1)) / total)


def _doubts(cells: Sequence[CellSummary]) -> list[Footnote]:
    """Each once, with the methods that it concerns."""
    found: dict[str, dict[str, None]] = {}
    for cell in cells:
        for row in cell.rows:
            for text in _row_doubts(cell, row):
                found.setdefault(text, {})[row.method] = None
    return [Footnote(text, tuple(methods)) for text, methods in found.items()]


def _row_doubts(cell: CellSummary, row: MethodRow) -> list[str]:
    if row.quality is None:
        return []
    if row.quality.reason:
        return [f"{QUALITY_DOUBT}n/a: {row.quality.reason}"]
    if "checkpoint" in row.settings:
        return []
    if cell.model.get("weights") == "random":
        return [RANDOM_WEIGHTS]
    return [UNTRAINED_ROUTER] if row.values["held_out_keep_ratio"] is not None else []
