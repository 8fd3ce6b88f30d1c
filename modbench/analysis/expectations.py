"""Did the scenario's expectations come true? One outcome per expectation and cell it applies to.

In: a scenario's expectations and a summary. Out: `ExpectationOutcome`s. What cannot be known is not met.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from modbench.analysis.rows import CellSummary, MethodRow, Summary, metric_value
from modbench.scenario import Expectation


@dataclass(frozen=True)
class ExpectationOutcome:
    """Whether an expectation is met at a cell (None: it matched no cell), what was measured, and why it is not met."""

    text: str
    cell_id: str | None
    is_met: bool
    measured: float | None = None
    reason: str = ""


def evaluate_expectations(expectations: Iterable[Expectation], summary: Summary) -> list[ExpectationOutcome]:
    """Outcomes in the order of the expectations, then of the cells."""
    outcomes: list[ExpectationOutcome] = []
    for expectation in expectations:
        matching = [cell for cell in summary.cells if _applies(expectation, cell)]
        if not matching:
            outcomes.append(ExpectationOutcome(expectation.text, None, False, None, "no measured cell matches it"))
        outcomes += [_evaluate(expectation, cell) for cell in matching]
    return outcomes


def _applies(expectation: Expectation, cell: CellSummary) -> bool:
    return all(condition.holds(_axis_value(cell, condition.axis)) for condition in expectation.conditions)


def _axis_value(cell: CellSummary, key: str) -> Any:
    """The cell's value of a dotted key: of its axes, or of the resolved point; None where a record does not have it."""
    if key in cell.axes:
        return cell.axes[key]
    value: Any = {
        "workload": cell.workload,
        "model": {**cell.model, "dtype": cell.dtype},
        "measure": {"device": cell.device_kind, "attention": cell.attention, "threads": cell.threads},
        "methods": {row.method: row.settings for row in cell.rows},
    }
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def _evaluate(expectation: Expectation, cell: CellSummary) -> ExpectationOutcome:
    row = next((row for row in cell.rows if row.method == expectation.method), None)
    measured = metric_value(row, expectation.metric) if row else None
    reason = _why_unknown(row, measured)
    if not reason and measured is not None and not expectation.is_met(measured):
        reason = f"{expectation.metric} is not {expectation.operator} {expectation.value:g}"
    return ExpectationOutcome(expectation.text, cell.cell_id, not reason, measured, reason)


def _why_unknown(row: MethodRow | None, measured: float | None) -> str:
    if row is None:
        return "the method was not measured at this cell"
    if row.has_failed:
        return "no launch succeeded: " + ", ".join(f"{count} {status}" for status, count in row.status_counts.items())
    if row.is_wrong:
        return "the method is wrong: identity " + ", ".join(row.failed_identities) + " failed"
    return "the metric is not known here" if measured is None else ""
