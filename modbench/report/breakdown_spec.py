"""The time breakdown of one phase in Vega-Lite: a stacked bar per method at each cell, coloured by part.

In: traced rows. Out: a spec with the bars of the static plot. Also what
both agree on: parts, their names and order, scales of cells.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from modbench.analysis.breakdown import PhaseBreakdown
from modbench.analysis.rows import CellSummary, MethodRow
from modbench.report.document import cell_label
from modbench.report.drawing import MAX_LABEL, linear_scale
from modbench.report.escaping import one_line
from modbench.report.style import RANGE_STYLES
from modbench.report.vega import CONFIG, Spec, chart, number, packed
from modbench.trace_record import DEVICE_IDLE, OTHER, ROUTING_RANGES
from modbench.units import format_percent, format_seconds

REST = ("norm", "embedding", "head", OTHER, DEVICE_IDLE)
PARTS = ("attention", "mlp", "cache_append", *ROUTING_RANGES, *REST)

TracedRow = tuple[CellSummary, MethodRow, PhaseBreakdown]


def part_name(part: str) -> str:
    """A part in words."""
    return "MLP" if part == "mlp" else part.replace("_", " ").capitalize()


def scales_of(rows: Sequence[TracedRow]) -> dict[str, float]:
    """What the bars of each cell are measured by: the baseline's time; without one in the cell, that of its first method."""
    scales: dict[str, float] = {}
    for cell, row, traced in rows:
        if row.is_baseline or cell.cell_id not in scales:
            scales[cell.cell_id] = traced.total_s
    return scales


def breakdown_spec(title: str, rows: Sequence[TracedRow]) -> Spec:
    """Bars from left to right in the order of the parts."""
    found = list(_data(rows))
    data = packed(found, ("method", "row"))
    drawn = [part for part in PARTS if part_name(part) in {row["part"] for row in found}]
    scale = linear_scale(max(row["high"] for row in found), num_ticks=2)
    x = number("low", "traced time beside the baseline's", scale, [format_percent(tick) for tick in scale.ticks])
    x["axis"]["titleAnchor"] = "end"  # it has more room below the labels of the rows than to the right
    colours = {
        "domain": [part_name(part) for part in drawn],
        "range": [RANGE_STYLES[part].colour for part in drawn],
    }
    bars = {
        "y": {"field": "row", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 170}},
        "x": x,
        "x2": {"field": "high"},
        "color": {"field": "part", "type": "nominal", "scale": colours, "legend": {"title": None, "columns": 2}},
        "tooltip": data.tooltip(
            method="method", at="at", part="part", value="time", share="share", total="traced in all"
        ),
    }
    mark = {"type": "bar", "stroke": "#4D4D4D", "strokeWidth": 0.3, "height": {"band": 0.8}}
    spec = chart(title, data, [{"mark": mark, "encoding": bars}], height=26 * len(rows))
    legend = {**CONFIG["legend"], "layout": {"top": {"anchor": "end"}}}  # above the rows' labels there is room for it
    return {**spec, "config": {**CONFIG, "legend": legend}}


def _data(rows: Sequence[TracedRow]) -> Iterator[dict[str, Any]]:
    """A row per part of every bar, with both its ends."""
    scales = scales_of(rows)
    for cell, row, traced in rows:
        left = 0.0
        method, at = one_line(row.method), cell_label(cell)
        for part in PARTS:
            if part in traced.seconds:
                width = traced.seconds[part] / scales[cell.cell_id]
                yield {
                    "method": method,
                    "row": f"{one_line(method, MAX_LABEL)} · {one_line(at, 2 * MAX_LABEL)}",
                    "at": at,
                    "total": format_seconds(traced.total_s),
                    "low": left,
                    "high": left + width,
                    "part": part_name(part),
                    "value": format_seconds(traced.seconds[part]),
                    "share": format_percent(traced.share(part)),
                }
                left += width
