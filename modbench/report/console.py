"""A summary on a terminal: one screen of 80 columns, or every table and doubt in full; more of both where the terminal is wide."""

from collections.abc import Iterable, Sequence
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from modbench.report.answer import answers, opening_verdict
from modbench.report.breakdown import breakdown_legend, breakdown_tables
from modbench.report.document import Document, footnote_text
from modbench.report.legend import short_legend
from modbench.report.limits import limit_answers, limit_legend, limit_tables
from modbench.report.overview import (
    machine_line,
    overview_legend,
    overview_lines,
    overview_table,
    own_cost_line,
)
from modbench.report.quality import quality_legend, quality_tables
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


def render_console(document: Document, console: Console, is_detailed: bool = False) -> None:
    """Print the document. Nothing in it is read as rich markup; colours follow the console (`NO_COLOR`).

    Args:
        document: what to print.
        console: where; its width decides how much.
        is_detailed: every table, word and doubt instead of one screen.
    """
    console.print(Text(document.title, style="bold"))
    if is_detailed:
        _print_details(document, console)
    else:
        _print_overview(document, console)


def _print_overview(document: Document, console: Console) -> None:
    summary = document.summary
    sentences = answers(summary)
    _print_opening(document, [sentences[0], *limit_answers(summary)] if summary.cells else sentences, console)
    for table in limit_tables(summary):
        print_table(table, console)
    if summary.limits:
        console.print(Text(limit_legend(summary)[1], style="dim"))
    overview = overview_table(summary, lambda table: _table_width(table, _widths(table)) <= console.width)
    if overview is not None:
        console.print()
        _print_dense_table(overview, console)
        for text in filter(None, (overview_legend(overview), own_cost_line(document))):
            console.print(Text(text, style="dim"))
    lines = overview_lines(document)
    if lines:
        console.print(_hanging_list((line.mark, line.text, line.state) for line in lines))


def _print_opening(document: Document, sentences: Sequence[str], console: Console) -> None:
    """The answer, the verdict and the machine."""
    for sentence in sentences:
        console.print(Text(sentence))
    verdict = opening_verdict(document.summary)
    if verdict is not None:
        console.print(Text(f"{verdict.text}.", style=f"bold {STYLES[verdict.state]}".strip()))
    if machine := machine_line(document):
        console.print(Text(machine, style="dim"), no_wrap=True, overflow="ellipsis")


def _print_details(document: Document, console: Console) -> None:
    summary = document.summary
    _print_opening(document, answers(summary), console)
    for table in [
        *limit_tables(summary),
        *measurement_tables(summary),
        *quality_tables(summary),
        *breakdown_tables(document),
    ]:
        if not table.is_detail or console.width >= WIDE:
            print_table(table, console)
    words = [*limit_legend(summary), *(short_legend(summary) if summary.cells else [])]
    words += [*quality_legend(summary), *breakdown_legend(document)]
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
    console.print()
    console.print(Text(title, style="bold"))
    console.print(_hanging_list(items))


def _hanging_list(items: Iterable[tuple[str, str, RowState]]) -> RichTable:
    grid = RichTable.grid(padding=(0, 1, 0, 0), pad_edge=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for mark, text, state in items:
        grid.add_row(Text(mark, style=STYLES[state]), Text(text))
    return grid


def print_table(table: Table, console: Console) -> None:
    """One grid per group with the same widths, so that a group's label does not widen a column."""
    if _table_width(table, _widths(table)) > console.width:
        table = table.compact()
    widths = _fit(table, console.width)
    console.print()
    console.print(Text(table.title, style="bold"))
    console.print(_grid(table, [_header(table)], widths, "bold"))
    console.print(Text("─" * min(_table_width(table, widths), console.width), style="dim"))
    for index, group in enumerate(table.groups):
        if group.label:
            console.print(Text(("\n" if index else "") + group.label, style="italic"))
        console.print(_grid(table, group.rows, widths))


def _print_dense_table(table: Table, console: Console) -> None:
    """The same without a title, empty lines and lines of their own for rules: a group's label stands in its rule."""
    widths = _fit(table, console.width)
    console.print(_grid(table, [_header(table)], widths, "bold"))
    width = min(_table_width(table, widths), console.width)
    for group in table.groups:
        rule = f"{group.label} ".ljust(width, "─")
        console.print(Text(rule, style="dim"), no_wrap=True, overflow="ellipsis")
        console.print(_grid(table, group.rows, widths))


def _header(table: Table) -> Row:
    return Row(tuple(column.header for column in table.columns))


def _gaps(table: Table) -> list[int]:
    """Spaces before each column but the first."""
    return [1 if column.is_joined else GAP for column in table.columns[1:]]


def _table_width(table: Table, widths: Sequence[int]) -> int:
    return sum(widths) + sum(_gaps(table))


def _grid(table: Table, rows: Sequence[Row], widths: Sequence[int], style: str = "") -> RichTable:
    vertical: Literal["top", "bottom"] = "bottom" if style else "top"  # a header's only line stands at the rule
    grid = RichTable.grid(pad_edge=False)
    for column, width, gap in zip(table.columns, widths, [0, *_gaps(table)], strict=True):
        if gap:
            grid.add_column(width=gap)
        grid.add_column(
            justify="right" if column.is_numeric else "left", width=width, overflow="fold", vertical=vertical
        )
    for row in rows:
        texts = [Text(text, style=style or STYLES[row.state]) for text in row.cells]
        grid.add_row(*[cell for text in texts for cell in (Text(), text)][1:])
    return grid


def _widths(table: Table) -> list[int]:
    """What each column needs in terminal cells; a header may break into two lines at its last space."""
    widths = [max(cell_len(part) for part in column.header.rsplit(" ", 1)) for column in table.columns]
    for group in table.groups:
        for row in group.rows:
            widths = [max(width, cell_len(text)) for width, text in zip(widths, row.cells, strict=True)]
    return widths


def _fit(table: Table, width: int) -> list[int]:
    """The columns' widths, the widest ones narrowed until the table fits."""
    fitted, available = _widths(table), width - sum(_gaps(table))
    while sum(fitted) > available and max(fitted) > MIN_WIDTH:
        fitted[fitted.index(max(fitted))] -= 1
    return fitted
