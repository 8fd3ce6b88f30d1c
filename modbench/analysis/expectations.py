"""Did the scenario's expectations come true? One outcome per expectation and cell it applies to.

In: a scenario's expectations and a summary. Out: `ExpectationOutcome`s. What cannot be known is not met.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from modbench.analysis.rows import CellSummary, MethodRow, Summary, failure_text, metric_value
from modbench.scenario import METRICS, Expectation, value_at


@dataclass(frozen=True)
class ExpectationOutcome:
    """Whether an expectation is met at a cell (None: it matched no cell), what was measured, and why it is not met.

    `is_met` is None where nothing was checked: overrides took the cells it is about out of the run.
    """

    text: str
    cell_id: str | None
    is_met: bool | None
    measured: float | None = None
    reason: str = ""


def evaluate_expectations(
    expectations: Iterable[Expectation], summary: Summary, has_overrides: bool = False
) -> list[ExpectationOutcome]:
    """Outcomes in the order of the expectations, then of the cells.

    Args:
        expectations: of the scenario.
        summary: of the run.
        has_overrides: True if the run had `--set` overrides: then an expectation may match no cell.
    """
    outcomes: list[ExpectationOutcome] = []
    for expectation in expectations:
        matching = [cell for cell in summary.all_cells if applies(expectation, cell)]
        if not matching:
            is_met, note = (None, "not checked: ") if has_overrides else (False, "")
            outcomes.append(
                ExpectationOutcome(expectation.text, None, is_met, None, f"{note}no measured cell matches it")
            )
        outcomes += [_evaluate(expectation, cell) for cell in matching]
    return outcomes


def applies(expectation: Expectation, cell: CellSummary) -> bool:
    """Whether the expectation's conditions hold at a measured cell."""
    return all(condition.holds(_axis_value(cell, condition.axis)) for condition in expectation.conditions)


def _axis_value(cell: CellSummary, key: str) -> Any:
    """The cell's value of a dotted key: of its axes, or of the resolved point; None where a record does not have it."""
    if key in cell.axes:
        return cell.axes[key]
    recorded = {
        "workload": cell.workload,
        "model": {**cell.model, "dtype": cell.dtype},
        "measure": {"device": cell.device_kind, "attention": cell.attention, "threads": cell.threads},
        "methods": {row.method: row.settings for row in cell.rows},
    }
    return value_at(recorded, key)


def _evaluate(expectation: Expectation, cell: CellSummary) -> ExpectationOutcome:
    row = next((row for row in cell.rows if row.method == expectation.method), None)
    measured = metric_value(row, expectation.metric) if row else None
    reason = why_unknown(row, measured, expectation.metric)
    if not reason and measured is not None and not expectation.is_met(measured):
        reason = f"{expectation.metric} is not {expectation.operator} {expectation.value:g}"
    return ExpectationOutcome(expectation.text, cell.cell_id, not reason, measured, reason)


def why_unknown(row: MethodRow | None, measured: float | None, metric: str = "") -> str:
    """Why the value of a row's `metric` counts for nothing; empty where it counts."""
    if row is None:
        return "the method was not measured at this cell"
    if row.has_failed:
        return "no launch succeeded: " + ", ".join(f"{count} {status}" for status, count in row.status_counts.items())
    if row.is_wrong:
        return "the method is wrong: " + ", ".join(failure_text(name) for name in row.failed_identities)
    if (
        measured is None
        and metric in METRICS
        and METRICS[metric].probe is not None
        and row.quality is not None
        and row.quality.reason
    ):
        return f"the method was not evaluated: {row.quality.reason}"
    return "the metric is not known here" if measured is None else ""
