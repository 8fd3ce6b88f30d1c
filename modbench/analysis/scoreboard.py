"""What a paper promises against what is possible and what was measured: the scores of one scenario, without or with one run.

In: a scenario whose expectations are the claims, a `Case` per point, the budget of the device that ideals are predicted for, and
the summary of a run where there is one. Out: a `Score` per claim and point; no prediction stands in a measurement's place.

A run counts by its work and not by its name: where the baseline and the method have the point ids that the scenario gives them on a
CPU or on CUDA. So another geometry, precision or keep ratio counts for nothing, whatever the scenario is called.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from modbench.analysis.estimate import Budget, Case, estimate_method
from modbench.analysis.expectations import applies, why_unknown
from modbench.analysis.rows import CellSummary, MethodRow, Summary, metric_value
from modbench.plan import Cell, build_plan
from modbench.scenario import BASELINE, Expectation, LoadedScenario, Point
from modbench.scenario.expectation import unmatched_condition

Source = Literal["measured", "no number", "predicted", "not run"]
Outcome = Literal["met", "not met", "open"]
DEVICE_KINDS = ("cpu", "cuda")
ESTIMATED = {  # metric -> the field of an `Estimate` that predicts it
    "prefill_speedup": "prefill_speedup",
    "decode_speedup": "decode_speedup",
    "end_to_end_speedup": "end_to_end_speedup",
    "kv_cache_reduction": "kv_cache_reduction",
    "peak_memory_reduction": "memory_reduction",
}
NO_INTERVAL = "what varies from launch to launch decides nothing without an interval"


@dataclass(frozen=True)
class Score:
    """One claim at one point.

    Attributes:
        expectation: the claim.
        axes: what names the point.
        ideal: the metric as predicted at the scenario's keep ratio; None where it cannot be.
        missing_bytes: what the ideal's device lacks for the method or the baseline; 0 where both fit.
        source: what the score rests on. "no number": the run has the point, and no value of it that counts.
        outcome: "open" where nothing measured decides, so for every prediction.
        measured: of a run; None where there is no number that counts.
        interval: of a measured speed-up, from 8 pairs on.
        reason: why a measured score is open or without a number.
    """

    expectation: Expectation
    axes: Mapping[str, Any]
    ideal: float | None
    missing_bytes: float
    source: Source
    outcome: Outcome = "open"
    measured: float | None = None
    interval: tuple[float, float] | None = None
    reason: str = ""

    @property
    def predicted(self) -> float | None:
        """The ideal where nothing was measured; None where a run has the point."""
        return self.ideal if self.source == "predicted" else None


@dataclass(frozen=True)
class SameWork:
    """A run's cell that is a point of the scenario, with its rows by the scenario's labels; the baseline is among them."""

    cell: CellSummary
    rows: Mapping[str, MethodRow]


def same_work(loaded: LoadedScenario, summary: Summary) -> dict[int, SameWork]:
    """The points of a scenario, by index, that a run measured: at least the baseline did the same work there."""
    cells = {cell.cell_id: cell for cell in summary.cells}
    found = {}
    for kind in DEVICE_KINDS:
        for index, planned in enumerate(build_plan(loaded, run_id="", device_kind=kind).cells):
            cell = cells.get(planned.cell_id)
            rows = _rows_of(planned, cell) if cell is not None else {}
            if cell is not None and BASELINE in rows:
                found[index] = SameWork(cell, rows)
    return found


def score(
    loaded: LoadedScenario, cases: Sequence[Case], budget: Budget, measured: Mapping[int, SameWork]
) -> list[Score]:
    """Every claim at every point that it is about, in the order of the claims.

    Args:
        loaded: the scenario.
        cases: what is predicted, one per point.
        budget: of the device that ideals are for.
        measured: of `same_work`; empty without a run.
    """
    scores = []
    for expectation in loaded.expectations:
        for index, (point, case) in enumerate(zip(loaded.points, cases, strict=True)):
            run = measured.get(index)
            if _is_about(expectation, point, run):
                ideal, missing_bytes = _ideal(expectation, point, case, budget)
                rows = run.rows if run else {}
                scores.append(_score(expectation, point, ideal, missing_bytes, rows))
    return scores


def _rows_of(planned: Cell, cell: CellSummary) -> dict[str, MethodRow]:
    by_work = {(row.point_id, row.is_baseline): row for row in cell.rows}
    found = {method.method: by_work.get((method.point_id, method.method == BASELINE)) for method in planned.methods}
    return {label: row for label, row in found.items() if row is not None}


def _is_about(expectation: Expectation, point: Point, run: SameWork | None) -> bool:
    """By the values that were recorded where there are any: a scenario may leave the device open, a run has one."""
    return applies(expectation, run.cell) if run else unmatched_condition(expectation.conditions, [point]) is None


def _ideal(expectation: Expectation, point: Point, case: Case, budget: Budget) -> tuple[float | None, float]:
    """The predicted value of the claim's metric, and the bytes that the device lacks for it."""
    method = next((found for found in case.methods if found.label == expectation.method), None)
    name = ESTIMATED.get(expectation.metric)
    if method is None or name is None:
        return None, 0.0
    size = point.workload.context, point.workload.batch
    estimates = [estimate_method(case, budget, found, *size) for found in (case.methods[0], method)]
    return getattr(estimates[1], name), max(found.missing_bytes for found in estimates)


def _score(
    expectation: Expectation, point: Point, ideal: float | None, missing_bytes: float, rows: Mapping[str, MethodRow]
) -> Score:
    row = rows.get(expectation.method)
    if row is None:
        return Score(expectation, point.axes, ideal, missing_bytes, "not run" if ideal is None else "predicted")
    measured = metric_value(row, expectation.metric)
    if measured is None or why_unknown(row, measured):
        reason = why_unknown(row, measured)
        return Score(expectation, point.axes, ideal, missing_bytes, "no number", reason=reason)
    speedup = row.speedups.get(expectation.metric)
    interval = speedup.interval if speedup else None
    is_counted = _is_counted(expectation.metric, (row, rows[BASELINE]))
    outcome, reason = _outcome(expectation, measured, interval, row.no_verdict, is_counted)
    return Score(expectation, point.axes, ideal, missing_bytes, "measured", outcome, measured, interval, reason)


def _outcome(
    expectation: Expectation, measured: float, interval: tuple[float, float] | None, no_verdict: str, is_counted: bool
) -> tuple[Outcome, str]:
    """Counted values decide as they are; what varies, where its whole interval is on one side of the claim."""
    if is_counted:
        return ("met" if expectation.is_met(measured) else "not met"), ""
    if interval is None or no_verdict:
        return "open", no_verdict or NO_INTERVAL
    ends = {expectation.is_met(end) for end in interval}
    if len(ends) == 2 or interval[0] < expectation.value < interval[1]:
        return "open", "its interval holds the claimed value"
    return ("met" if True in ends else "not met"), ""


def _is_counted(metric: str, rows: Sequence[MethodRow]) -> bool:
    """Bytes and kept tokens, as far as they are not sampled: they do not vary. A process's resident memory does."""
    if metric == "peak_memory_reduction":
        return all(row.peak_memory_metric != "peak_rss_bytes" for row in rows)
    return metric.startswith(("kv_cache", "keep_ratio", "weights"))
