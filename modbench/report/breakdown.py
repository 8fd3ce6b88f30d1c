"""Where the time went: per phase a table, a stacked bar per method, and what the parts are. In: a `Document`; nothing if untraced.

Bars of a cell share one scale: they are as long as the method's traced time is beside the baseline's, so that what became of the
baseline's time can be read off. Shares, not times, are what a traced launch is for.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from modbench.analysis.breakdown import PhaseBreakdown
from modbench.report.breakdown_spec import PARTS, REST, TracedRow, breakdown_spec, part_name, scales_of
from modbench.report.document import Document, cell_label
from modbench.report.drawing import MAX_LABEL, set_title
from modbench.report.escaping import one_line
from modbench.report.plots import Plot, draw_plot
from modbench.report.style import RANGE_STYLES, TEXT_COLOUR
from modbench.report.tables import NOTHING, Column, Group, Row, RowState, Table, method_text
from modbench.trace_record import PHASES, ROUTING_RANGES, TRACES_FOLDER
from modbench.units import format_factor, format_percent, format_seconds

TITLES = {"prefill": "Where prefill went", "decode": "Where a decode step went"}
CAPTION = "one traced launch per method; a bar is as long as its traced time beside the baseline's; lower is better."
MARGIN, LETTER = 0.03, 0.022  # of the axis: room that a name in a bar takes


def breakdown_tables(document: Document) -> list[Table]:
    """A table per phase with the share of every part, a group per cell; narrow renderers leave the smaller parts out."""
    return [_table(TITLES[phase], rows) for phase in PHASES if (rows := list(_rows(document, phase)))]


def breakdown_legend(document: Document) -> list[str]:
    """What the parts are, how much slower the traced launches were, and which of them failed."""
    if document.breakdowns is None:
        return []
    phases, failures = document.breakdowns.phases, document.breakdowns.failures
    failed = [
        f"Not traced: {_where(document, failure.cell_id, failure.method)}: {one_line(failure.error)}"
        for failure in failures
    ]
    if not phases:
        return failed
    slowdowns = [phase.slowdown_ratio for phase in phases if phase.slowdown_ratio is not None]
    is_device = phases[0].is_device
    return [
        "Where the time went: shares of one traced launch per method, apart from the measured ones. Traced, it took "
        f"{_range_text(slowdowns)} the time of its own untraced samples: read shares, not times. They are "
        + ("device time of what a range launched" if is_device else "a range's own time on the host")
        + "; nested ranges count once; decode is the mean step.",
        "Attention: projections and attention itself. Router: scores and decisions. Pack: listing and gathering kept tokens. "
        "Scatter: putting them back. Cache append: storing keys and values, which dense does too. "
        "Own cost: router, pack, scatter and cache append of a method that routes.",
        "Rest: norms, embedding and head, and other: residual adds, Python, what no range claims"
        + (", and device idle: waiting for the host." if is_device else "."),
        f"The traces are in {TRACES_FOLDER}/, for ui.perfetto.dev.",
        *failed,
    ]


def draw_breakdowns(document: Document) -> list[Plot]:
    """A stacked bar per cell and method, one plot per phase; a wrong method's numbers count for nothing."""
    plots = []
    for phase in PHASES:
        rows = [traced_row for traced_row in _rows(document, phase) if not traced_row[1].is_wrong]
        if rows:
            height = max(3.2, 1.9 + 0.36 * (len(rows) + len({cell.cell_id for cell, _, _ in rows})))
            paint = partial(_draw_bars, TITLES[phase], rows)
            caption = f"{TITLES[phase]}: {CAPTION}"
            plots.append(draw_plot(f"breakdown_{phase}", caption, paint, height, breakdown_spec(TITLES[phase], rows)))
    return plots


def _rows(document: Document, phase: str) -> Iterator[TracedRow]:
    """Traced methods in the order of the summary."""
    phases = document.breakdowns.phases if document.breakdowns is not None else ()
    traced = {(found.cell_id, found.method): found for found in phases if found.phase == phase}
    for cell in document.summary.cells:
        for row in cell.rows:
            if (cell.cell_id, row.method) in traced and not row.has_failed:
                yield cell, row, traced[cell.cell_id, row.method]


def _table(title: str, rows: Sequence[TracedRow]) -> Table:
    parts = _parts(rows)
    groups: dict[str, tuple[Row, ...]] = {}
    for cell, row, traced in rows:
        state: RowState = "wrong" if row.is_wrong else "baseline" if row.is_baseline else "plain"
        shares = [*(traced.share(part) for part in parts), traced.own_cost_share, traced.share(*REST)]
        texts = [NOTHING if share is None else format_percent(share) for share in shares]
        line = Row((method_text(row), format_seconds(traced.total_s), *texts), state, one_line(row.method))
        groups[cell_label(cell)] = (*groups.get(cell_label(cell), ()), line)
    columns = (
        Column("Method", is_numeric=False),
        Column("Traced"),
        *(Column(part_name(part), is_detail=part in (*ROUTING_RANGES, *REST)) for part in parts),
        Column("Own cost"),
        Column("Rest"),
    )
    return Table(title, columns, tuple(Group(label, lines) for label, lines in groups.items()))


def _parts(rows: Sequence[TracedRow]) -> list[str]:
    """Those that any of the rows has."""
    return [part for part in PARTS if any(part in traced.seconds for _, _, traced in rows)]


def _range_text(ratios: Sequence[float]) -> str:
    ends = (
        list(dict.fromkeys(format_factor(ratio) for ratio in (min(ratios), max(ratios)))) if ratios else ["longer than"]
    )
    return " to ".join(ends)


def _where(document: Document, cell_id: str, method: str) -> str:
    labels = [cell_label(cell) for cell in document.summary.cells if cell.cell_id == cell_id]
    return one_line(" at ".join([method, *labels]))


def _draw_bars(title: str, rows: Sequence[TracedRow], figure: Any) -> None:
    axes = figure.subplots()
    scales = scales_of(rows)
    end = 1.15 * max(traced.total_s / scales[cell.cell_id] for cell, _, traced in rows)
    place, labels, last_cell = 0.0, {}, ""
    for cell, row, traced in rows:
        if cell.cell_id != last_cell:
            axes.text(0, place + 0.1, one_line(cell_label(cell), 2 * MAX_LABEL), fontsize="small", fontstyle="italic")
            place, last_cell = place + 0.8, cell.cell_id
        _draw_bar(axes, place, traced, scales[cell.cell_id], end)
        labels[place] = one_line(row.method, MAX_LABEL)
        place += 1.0
    axes.set(xlim=(0, end), ylim=(place - 0.4, -0.4))
    axes.set_yticks(list(labels), list(labels.values()), fontsize="small")
    axes.xaxis.set_major_formatter(lambda value, _: format_percent(value))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("traced time beside the baseline's")
    set_title(figure, title)
    _legend(figure, _parts(rows))


def _draw_bar(axes: Any, place: float, traced: PhaseBreakdown, scale: float, end: float) -> None:
    """Parts from left to right, named where they are wide enough; the time behind them."""
    left = 0.0
    for part in PARTS:
        width, style = traced.seconds.get(part, 0.0) / scale, RANGE_STYLES[part]
        axes.barh(place, width, 0.78, left=left, **style.patch)
        if width / end > MARGIN + LETTER * len(part_name(part)):
            where = {"ha": "center", "va": "center", "fontsize": "x-small"}
            axes.text(left + width / 2, place, part_name(part), color=style.text_colour, **where)
        left += width
    place_behind = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
    axes.annotate(format_seconds(traced.total_s), (left, place), fontsize="x-small", color=TEXT_COLOUR, **place_behind)


def _legend(figure: Any, parts: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(**RANGE_STYLES[part].patch) for part in parts]
    labels = [part_name(part) for part in parts]
    figure.legend(handles, labels, loc="outside lower left", ncols=4, frameon=False, fontsize="small", handlelength=1.4)
