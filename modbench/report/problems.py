"""What is wrong at one cell of a run, a line each: the text of a failed pytest item. Formatting only.

In: a document and one of its cells. Out: lines; none where the cell is as the scenario expects it.
"""

from modbench.analysis.expectations import ExpectationOutcome
from modbench.analysis.rows import CellSummary, failure_text
from modbench.report.document import Document
from modbench.report.escaping import one_line


def cell_problems(document: Document, cell: CellSummary) -> list[str]:
    """Methods that are wrong, launches that failed, a search without its answer, expectations that are not met."""
    summary = document.summary
    problems = [
        f"{row.method} is wrong: {', '.join(failure_text(name) for name in row.failed_identities)}"
        for row in cell.rows
        if row.is_wrong
    ]
    failures = [failure for failure in summary.failures if failure.cell_id == cell.cell_id]
    for failure in failures:
        launches = "1 launch" if failure.count == 1 else f"{failure.count} launches"
        reason = f": {one_line(failure.error)}" if failure.error else ""
        problems.append(f"{failure.method}: {launches} ended as {failure.status} in {failure.phase}{reason}")
    is_unfinished = any(found.cell is cell and not found.is_complete for found in summary.limits)
    if is_unfinished and not failures:
        problems.append("the search found no limit for a method, or could not measure there")
    unmet = [outcome for outcome in document.outcomes if outcome.is_met is False]
    return problems + [_unmet_text(outcome) for outcome in unmet if outcome.cell_id in (cell.cell_id, None)]


def _unmet_text(outcome: ExpectationOutcome) -> str:
    measured = "" if outcome.measured is None else f": measured {outcome.measured:.4g}"
    return f"expectation not met: {one_line(outcome.text)}{measured} ({one_line(outcome.reason)})"
