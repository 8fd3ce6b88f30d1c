"""Held-out loss by position: does a method lose where a prediction can look far back?

In: a `Summary`. Out: a `Drawing` with a line per method, where anything was evaluated by position. Buckets of positions double.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from modbench.analysis.rows import CellSummary, Quality, Summary
from modbench.report.document import axes_label
from modbench.report.drawing import (
    Drawing,
    Scale,
    drawable,
    is_positive,
    linear_scale,
    log_scale,
    method_legend,
    panel_axes,
    plain_ticks,
    set_title,
    styles_of,
    widened,
)
from modbench.report.escaping import one_line
from modbench.report.vega import Spec, chart, method_colour, method_dash, method_shape, number, packed

NAME = "bits_per_byte_position"
TITLE = "Is long context harmed?"
X_TITLE, Y_TITLE = "position in the sequence (tokens), end of a bucket", "bits per byte"
CAPTION = (
    "Held-out bits per byte by the position of the predicted token, in buckets that double; lower is better. "
    "Buckets hold different text: compare methods within one."
)
Line = tuple[tuple[int, int, float], ...]  # first and last position, bits per byte


def position_drawings(summary: Summary) -> list[Drawing]:
    """One, of the first cell with the most methods that were evaluated by position; none where there is no such cell."""
    by_cell: dict[str, tuple[CellSummary, dict[str, Line]]] = {}
    works = set()
    for cell, row in drawable(summary):
        line = _line(row.quality)
        if row.quality is not None and len(line) > 1:
            by_cell.setdefault(cell.cell_id, (cell, {}))[1][row.method] = line
            works.add((row.method, row.quality.work_id))
    if not by_cell:
        return []
    cell, lines = max(by_cell.values(), key=lambda found: len(found[1]))
    note = ""
    if len(works) > len(lines):
        note = f" Drawn are the models at {axes_label(cell.axes)}: all are in report.json."
    return [Drawing(NAME, CAPTION + note, partial(_paint, summary, lines), _spec(summary, lines))]


def _line(quality: Quality | None) -> Line:
    if quality is None:
        return ()
    return tuple(
        (first, last, bits)
        for first, last, bits in quality.by_position
        if bits is not None and is_positive(bits) and last > 0
    )


def _scales(lines: Mapping[str, Line]) -> tuple[Scale, Scale, dict[float, str]]:
    xs = sorted({float(last) for line in lines.values() for _, last, _ in line})
    bits = [value for line in lines.values() for _, _, value in line]
    room = 0.1 * (max(bits) - min(bits)) or 0.1 * max(bits)
    low, high = max(0.0, min(bits) - room), max(bits) + room
    step = linear_scale(high - low).ticks[1]
    ticks = tuple(step * index for index in range(int(low / step) + 1, int(high / step) + 1))
    return widened(log_scale(xs), is_log=True), Scale(low, high, ticks), plain_ticks(xs)


def _texts(ticks: Sequence[float]) -> list[str]:
    return [f"{tick:.4g}" for tick in ticks]


def _paint(summary: Summary, lines: Mapping[str, Line], figure: Any) -> None:
    styles, (x_scale, y_scale, ticks) = styles_of(summary), _scales(lines)
    (axes,) = panel_axes(figure, [])
    for method, line in lines.items():
        style = styles[method]
        axes.plot(
            [last for _, last, _ in line],
            [bits for _, _, bits in line],
            color=style.colour,
            marker=style.marker,
            linestyle=style.line,
        )
    axes.set_xscale("log")
    axes.set(xlim=(x_scale.low, x_scale.high), ylim=(y_scale.low, y_scale.high), ylabel=Y_TITLE)
    axes.set_xlabel(X_TITLE, fontsize="small")
    axes.set_xticks(list(ticks), list(ticks.values()), fontsize="small")
    axes.set_yticks(y_scale.ticks, _texts(y_scale.ticks), fontsize="small")
    axes.minorticks_off()
    set_title(figure, TITLE)
    method_legend(figure, styles, lines, "line")


def _spec(summary: Summary, lines: Mapping[str, Line]) -> Spec:
    styles, (x_scale, y_scale, ticks) = styles_of(summary), _scales(lines)
    rows = [
        {
            "method": one_line(method),
            "x": float(last),
            "y": bits,
            "at": f"{first:,} to {last:,}" if first != last else f"{first:,}",
            "value": f"{bits:.4f}",
        }
        for method, line in lines.items()
        for first, last, bits in line
    ]
    data = packed(rows, ("method",))
    x = number("x", X_TITLE, Scale(x_scale.low, x_scale.high, tuple(ticks)), list(ticks.values()), is_log=True)
    marks = {"x": x, "y": number("y", Y_TITLE, y_scale, _texts(y_scale.ticks)), "color": method_colour(styles)}
    told = data.tooltip(method="method", at="positions", value=Y_TITLE)
    layers: list[Spec] = [
        {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {**marks, "strokeDash": method_dash(styles)}},
        {
            "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
            "encoding": {**marks, "shape": method_shape(styles), "tooltip": told},
        },
    ]
    return chart(TITLE, data, layers)
