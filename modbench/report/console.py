"""A summary on a terminal: compact tables in 80 columns, with details where the terminal is wide."""

from collections.abc import Sequence
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from modbench.report.answer import answers
from modbench.report.breakdown import breakdown_legend, breakdown_tables
from modbench.report.document import Document, footnote_text
from modbench.report.legend import short_legend
from modbench.report.limits import limit_legend, limit_tables
from modbench.report.tables import NOTHING, Row, RowState, Table, expectation_table, failure_table, measurement_tables

GAP = 2  # spaces between columns
MIN_WIDTH = 5
WIDE = 120  # columns from which detail tables are printed; detail columns are printed where their table fits
STYLES: dict[RowState, str] = {
    "plain": "",
    "baseline": "",
    "wrong": "dim",
    "failed": "red",
    "met": "green",
    "missed": "red",
    "predicted": "dim italic",
}


def render_console(document: Document, console: Console) -> None:
    """Print the document. Nothing in it is read as rich markup; colours follow the console (`NO_COLOR`)."""
    summary = document.summary
    console.print()
    console.print(Text(document.title, style="bold"))
    for sentence in answers(summary):
        console.print(Text(sentence))
    for table in [*limit_tables(summary), *measurement_tables(summary), *breakdown_tables(document)]:
        if not table.is_detail or console.width >= WIDE:
            print_table(table, console)
    words = [*limit_legend(summary), *(short_legend(summary) if summary.cells else []), *breakdown_legend(document)]
    if words:
        console.print()
        console.print(Text(" ".join(words), style="dim"))
    failures, expectations = failure_table(summary), expectation_table(document)
    if failures is not None:
        print_list("Failures", [("-", _failure_text(row), row.state) for row in failures.rows], console)
    if expectations is not None:
        print_list(
            "Expectations", [(row.cells[0], _outcome_text(row), row.state) for row in expectations.rows], console
        )
    if summary.footnotes:
        doubts = [footnote_text(note, summary) for note in summary.footnotes]
        print_list("Doubts", [("-", text, "plain") for text in doubts], console)


def _failure_text(row: Row) -> str:
    method, where, status, phase, memory, error = row.cells
    return f"{method}, {where}: {status} in {phase}, last memory {memory}: {error}"


def _outcome_text(row: Row) -> str:
    _, text, where, measured, reason = row.cells
    return f"{text} · {where}: {measured}" + ("" if reason == NOTHING else f" ({reason})")


def print_list(title: str, items: Sequence[tuple[str, str, RowState]], console: Console) -> None:
    """Marked lines with a hanging indent."""
    grid = RichTable.grid(padding=(0, 1, 0, 0), pad_edge=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for mark, text, state in items:
        grid.add_row(Text(mark, style=STYLES[state]), Text(text))
    console.print()
    console.print(Text(title, style="bold"))
    console.print(grid)


def print_table(table: Table, console: Console) -> None:
    """One grid per group with the same widths, so that a group's label does not widen a column."""
    if sum(_widths(table)) + GAP * (len(table.columns) - 1) > console.width:
        table = table.compact()
    widths = _fit(_widths(table), console.width - GAP * (len(table.columns) - 1))
    console.print()
    console.print(Text(table.title, style="bold"))
    header = Row(tuple(column.header for column in table.columns))
    console.print(_grid(table, [header], widths, "bold"))
    console.print(Text("─" * min(sum(widths) + GAP * (len(widths) - 1), console.width), style="dim"))
    for index, group in enumerate(table.groups):
        if group.label:
            console.print(Text(("\n" if index else "") + group.label, style="italic"))
        console.print(_grid(table, group.rows, widths))


def _grid(table: Table, rows: Sequence[Row], widths: Sequence[int], style: str = "") -> RichTable:
    vertical: Literal["top", "bottom"] = "bottom" if style else "top"  # a header's only line stands at the rule
    grid = RichTable.grid(padding=(0, GAP, 0, 0), pad_edge=False)
    for column, width in zip(table.columns, widths, strict=True):
        grid.add_column(
            justify="right" if column.is_numeric else "left", width=width, overflow="fold", vertical=vertical
        )
    for row in rows:
        grid.add_row(*(Text(text, style=style or STYLES[row.state]) for text in row.cells))
    return grid


def _widths(table: Table) -> list[int]:
    """What each column needs in terminal cells; a header may break into two lines at its last space."""
    widths = [max(cell_len(part) for part in column.header.rsplit(" ", 1)) for column in table.columns]
    for group in table.groups:
        for row in group.rows:
            widths = [max(width, cell_len(text)) for width, text in zip(widths, row.cells, strict=True)]
    return widths


def _fit(widths: Sequence[int], available: int) -> list[int]:
    """The widths, the widest ones narrowed until they fit."""
    fitted = list(widths)
    while sum(fitted) > available and max(fitted) > MIN_WIDTH:
        fitted[fitted.index(max(fitted))] -= 1
    return fitted
