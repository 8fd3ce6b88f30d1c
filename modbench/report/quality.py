"""How good each method's model is, as a table: a row per distinct model of the run.

In: a `Summary`. Out: a `Table` of plain text, one line each and not yet escaped for a format.
"""

from collections.abc import Callable

from modbench.analysis.rows import CellSummary, MethodRow, Summary
from modbench.report.document import axes_label
from modbench.report.escaping import one_line
from modbench.report.tables import NOTHING, Column, Group, Row, RowState, Table, row_state
from modbench.units import format_factor, format_percent

HEADERS = (
    Column("Method", is_numeric=False),
    Column("Bits per byte"),
    Column("To dense"),
    Column("Difference", is_detail=True),
    Column("Next token", is_detail=True),
    Column("Needle"),
    Column("Induction"),
    Column("KL to teacher", is_detail=True),
    Column("Same top token", is_detail=True),
    Column("Kept"),
    Column("KV reduction"),
    Column("Note", is_numeric=False),
)
ALWAYS = ("Method", "Bits per byte")
_BITS = "{:.4f}".format


def quality_tables(summary: Summary) -> list[Table]:
    """The table, without columns that nothing is known for; empty where nothing was evaluated."""
    rows, seen = [], set()
    for cell in summary.cells:
        for row in cell.rows:
            key = (row.method, row.quality.work_id if row.quality else "")
            if row.quality is not None and key not in seen:
                seen.add(key)
                rows.append(
                    Row(_texts(cell, row), "failed" if row.quality.reason else _state(row), one_line(row.method))
                )
    if not rows:
        return []
    shown = [
        index
        for index, column in enumerate(HEADERS)
        if column.header in ALWAYS or any(row.cells[index] != NOTHING for row in rows)
    ]
    kept = tuple(Row(tuple(row.cells[index] for index in shown), row.state, row.method) for row in rows)
    return [Table("Quality", tuple(HEADERS[index] for index in shown), (Group("", kept),))]


def quality_legend(summary: Summary) -> list[str]:
    """What the table's columns mean; nothing where nothing was evaluated."""
    facts = {row.quality.facts for cell in summary.cells for row in cell.rows if row.quality and row.quality.num_rows}
    if not facts:
        return []
    text = "; ".join(
        f"{num_rows} rows of at most {context} tokens, {num_bytes} bytes"
        for num_rows, context, num_bytes in sorted(facts)
    )
    return [
        f"Quality: evaluated once per model and untimed, on held-out text ({text}); lower bits per byte are better; ±: standard "
        "error over rows. To dense: method / dense bits per byte, so above 1× is worse. Difference: method less dense, with the "
        "standard error of the pairs of rows. Kept, KV reduction: of the held-out text.",
    ]


def _state(row: MethodRow) -> RowState:
    state = row_state(row)
    return "plain" if state == "failed" else state


def _texts(cell: CellSummary, row: MethodRow) -> tuple[str, ...]:
    quality = row.quality
    assert quality is not None, "only evaluated rows are in the table"
    axes = {key: value for key, value in cell.axes.items() if key.startswith(("methods.", "model."))}
    own = {key: value for key, value in axes.items() if key.startswith(("model.", f"methods.{row.method}."))}
    name = one_line(row.method) + (f" ({axes_label(own)})" if own else "")
    if quality.reason:
        return (name, "n/a", *[NOTHING] * (len(HEADERS) - 3), one_line(quality.reason))
    return (
        name,
        _with_error(row, "bits_per_byte", _BITS),
        NOTHING if (value := row.values["bits_per_byte_ratio"]) is None else f"{value:.4f}×",
        _difference_text(row),
        _with_error(row, "next_token_accuracy", format_percent),
        _percent(row, "needle_accuracy"),
        _percent(row, "induction_accuracy"),
        _with_error(row, "kl_bits_per_token", _BITS),
        _with_error(row, "top1_agreement_ratio", format_percent),
        _percent(row, "held_out_keep_ratio"),
        NOTHING if (value := row.values["held_out_kv_reduction"]) is None else format_factor(value),
        NOTHING,
    )


def _with_error(row: MethodRow, name: str, text: Callable[[float], str]) -> str:
    """`1.2345 ± 0.0123`."""
    value = row.values[name]
    if value is None:
        return NOTHING
    error = row.quality.standard_errors.get(name) if row.quality else None
    return text(value) + ("" if error is None else f" ± {text(error)}")


def _difference_text(row: MethodRow) -> str:
    """`+0.0151 ± 0.0030`."""
    difference = row.quality.difference if row.quality else None
    if difference is None:
        return NOTHING
    error = "" if difference.standard_error is None else f" ± {difference.standard_error:.4f}"
    return f"{difference.bits_per_byte:+.4f}{error}"


def _percent(row: MethodRow, name: str) -> str:
    value = row.values[name]
    return NOTHING if value is None else format_percent(value)
