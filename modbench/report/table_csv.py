"""A summary as one flat table for spreadsheets and notebooks: a row per cell and method, base units, empty where unknown.

In: a `Summary`. Out: CSV text. pandas is imported when the table is made.
"""

from typing import TYPE_CHECKING, Any

from modbench.analysis.rows import CellSummary, MethodRow, Summary
from modbench.report.escaping import one_line
from modbench.scenario import METRICS

if TYPE_CHECKING:
    import pandas

FORMULA_STARTS = ("=", "+", "-", "@")  # a spreadsheet would run such a text


def summary_frame(summary: Summary) -> "pandas.DataFrame":
    """One row per cell and method: axes, method, launches, every metric of the scenario's `METRICS`, failed identities."""
    import pandas

    rows = [_columns(cell, row) for cell in summary.all_cells for row in cell.rows]
    return pandas.DataFrame(rows, columns=None if rows else ["method", *METRICS])


def render_csv(summary: Summary) -> str:
    """The frame as CSV with a header line; numbers keep their full precision."""
    return summary_frame(summary).to_csv(index=False, lineterminator="\n")


def _columns(cell: CellSummary, row: MethodRow) -> dict[str, Any]:
    axes = {
        cell_text(key): value if isinstance(value, int | float) else cell_text(value)
        for key, value in cell.axes.items()
    }
    facts = {
        "context": cell.workload.get("context"),
        "batch": cell.workload.get("batch"),
        "method": cell_text(row.method),
    }
    state = {"num_launches": row.num_launches, "failed_identities": cell_text("; ".join(row.failed_identities))}
    return {**axes, **facts, **state, **row.values}


def cell_text(value: Any) -> str:
    """Text from outside that a spreadsheet takes for text."""
    text = one_line(value)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
