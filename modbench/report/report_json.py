"""A run for programs: `report.json`. In: a `Document`. Out: its parts under stable names (`report_parts.py`), or their text."""

import json
from collections.abc import Mapping

from modbench.analysis.breakdown import Breakdowns
from modbench.analysis.rows import CellSummary, LimitCell, MethodLimit, MethodRow, Quality, Speedup, Spread
from modbench.report.answer import answers
from modbench.report.document import Document
from modbench.report.report_parts import (
    SCHEMA_VERSION,
    BreakdownPart,
    CellPart,
    DoubtPart,
    ExpectationPart,
    FailedTracePart,
    FailurePart,
    IdentityPart,
    LatencyPart,
    LayerPart,
    LimitPart,
    MethodPart,
    PercentilePart,
    PhasePart,
    PositionPart,
    QualityPart,
    Report,
    SearchPart,
    SpeedupPart,
)
from modbench.report.tables import verdict_of


def render_json(document: Document) -> str:
    """The text of `report.json`: ASCII, without NaN or infinities."""
    return json.dumps(make_report(document).model_dump(mode="json"), indent=2, allow_nan=False) + "\n"


def make_report(document: Document) -> Report:
    """The document in parts."""
    summary = document.summary
    return Report(
        schema_version=SCHEMA_VERSION,
        scenario=document.name,
        question=document.question,
        answers=answers(summary),
        command=document.command,
        run_ids=list(summary.run_ids),
        num_records=summary.num_records,
        tolerance_ratio=summary.tolerance,
        margin_ratios=dict(summary.margins),
        cells=[_cell(cell) for cell in summary.cells],
        searches=[_search(found) for found in summary.limits],
        failures=_failures(document),
        doubts=[
            DoubtPart(text=note.text, methods=list(note.methods), cell_ids=list(note.cell_ids))
            for note in summary.footnotes
        ],
        expectations=_expectations(document),
        breakdowns=None if document.breakdowns is None else _breakdowns(document.breakdowns),
        environment=dict(summary.environment),
        varying_environment=list(summary.varying_environment),
    )


def _cell(cell: CellSummary) -> CellPart:
    return CellPart(
        cell_id=cell.cell_id,
        axes=dict(cell.axes),
        model=dict(cell.model),
        workload=dict(cell.workload),
        device_kind=cell.device_kind,
        attention=cell.attention,
        threads=cell.threads,
        dtype=cell.dtype,
        methods=[_method(row) for row in cell.rows],
    )


def _method(row: MethodRow) -> MethodPart:
    return MethodPart(
        method=row.method,
        kind=row.kind,
        point_id=row.point_id,
        settings=dict(row.settings),
        is_baseline=row.is_baseline,
        is_wrong=row.is_wrong,
        failed_identities=list(row.failed_identities),
        guard=[
            IdentityPart(name=name, result=result, reason=row.declared.get(name)) for name, result in row.guard.items()
        ],
        num_launches=row.num_launches,
        num_launches_by_status=dict(row.status_counts),
        metrics=dict(row.values),
        latencies={str(name): _latency(spread) for name, spread in row.latencies.items()},
        speedups={name: _speedup(row, name, speedup) for name, speedup in row.speedups.items()},
        no_verdict=row.no_verdict,
        itl_percentiles=[
            PercentilePart(percent=percent, value_s=found.value, reason=found.reason)
            for percent, found in row.itl_percentiles.items()
        ],
        peak_memory_metric=row.peak_memory_metric,
        router=row.router,
        keep_ratios=_layers(row.keep_ratios),
        quality=None if row.quality is None else _quality(row.quality),
    )


def _quality(found: Quality) -> QualityPart:
    difference = found.difference
    return QualityPart(
        status=found.status,
        reason=found.reason,
        num_rows=found.num_rows,
        num_bytes=found.num_bytes,
        context=found.context,
        standard_errors=dict(found.standard_errors),
        bits_per_byte_difference=None if difference is None else difference.bits_per_byte,
        bits_per_byte_difference_standard_error=None if difference is None else difference.standard_error,
        by_position=[
            PositionPart(first_position=first, last_position=last, bits_per_byte=value)
            for first, last, value in found.by_position
        ],
    )


def _latency(spread: Spread) -> LatencyPart:
    return LatencyPart(median_s=spread.median, low_s=spread.low, high_s=spread.high, num_launches=spread.num_launches)


def _speedup(row: MethodRow, name: str, speedup: Speedup) -> SpeedupPart:
    judgement = speedup.judgement
    return SpeedupPart(
        value=speedup.value,
        interval=speedup.interval,
        num_pairs=speedup.num_pairs,
        verdict=verdict_of(row, name),
        reason=judgement.reason if judgement is not None else "",
        pairs_needed=judgement.pairs_needed if judgement is not None else None,
    )


def _layers(keep_ratios: Mapping[str, Mapping[int, float]]) -> list[LayerPart]:
    prefill, decode = (keep_ratios.get(phase, {}) for phase in ("prefill", "decode"))
    return [
        LayerPart(layer=layer, prefill=prefill.get(layer), decode=decode.get(layer))
        for layer in sorted({*prefill, *decode})
    ]


def _search(found: LimitCell) -> SearchPart:
    return SearchPart(
        axis=found.axis,
        memory_limit_bytes=found.memory_limit_bytes,
        has_one_budget=found.has_one_budget,
        is_complete=found.is_complete,
        limits=[_limit(limit) for limit in found.limits],
        cell=_cell(found.cell),
    )


def _limit(limit: MethodLimit) -> LimitPart:
    return LimitPart(
        method=limit.method,
        value=limit.value,
        first_failing=limit.first_failing,
        is_at_bound=limit.is_at_bound,
        ratio=limit.ratio,
        ratio_bounds=limit.ratio_bounds,
        num_trials=limit.num_trials,
        num_invalid=limit.num_invalid,
        status=limit.status,
        phase=limit.phase,
        error=limit.error,
    )


def _failures(document: Document) -> list[FailurePart]:
    return [
        FailurePart(
            cell_id=failure.cell_id,
            method=failure.method,
            status=failure.status,
            phase=failure.phase,
            error=failure.error,
            last_memory_bytes=failure.last_memory_bytes,
            num_launches=failure.count,
        )
        for failure in document.summary.failures
    ]


def _expectations(document: Document) -> list[ExpectationPart]:
    return [
        ExpectationPart(
            text=outcome.text,
            cell_id=outcome.cell_id,
            is_met=outcome.is_met,
            measured=outcome.measured,
            reason=outcome.reason,
        )
        for outcome in document.outcomes
    ]


def _breakdowns(found: Breakdowns) -> BreakdownPart:
    phases = [
        PhasePart(
            cell_id=phase.cell_id,
            method=phase.method,
            phase=phase.phase,
            is_device=phase.is_device,
            total_s=phase.total_s,
            seconds=dict(phase.seconds),
            own_cost_ratio=phase.own_cost_share,
            slowdown_ratio=phase.slowdown_ratio,
        )
        for phase in found.phases
    ]
    failures = [
        FailedTracePart(cell_id=failure.cell_id, method=failure.method, error=failure.error)
        for failure in found.failures
    ]
    return BreakdownPart(phases=phases, failures=failures)
