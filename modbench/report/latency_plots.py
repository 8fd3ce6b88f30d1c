"""Latency and KV cache along the first axis: a line per method with its interval, a panel per combination of the other axes.

In: a `Summary`. Out: `Drawing`s of TTFT, TPOT and KV cache; without a numeric axis a bar per method at each cell.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from modbench.analysis.pairs import LatencyMetric
from modbench.analysis.rows import CellSummary, MethodRow, Summary
from modbench.analysis.statistics import MIN_COVERAGE, MIN_PAIRS
from modbench.report.document import axis_name, axis_value, cell_label
from modbench.report.drawing import (
    MAX_LEVEL_LABELS,
    Drawable,
    Drawing,
    Panel,
    Scale,
    Selection,
    axis_title,
    bar_label,
    is_positive,
    linear_scale,
    log_scale,
    method_legend,
    panel_axes,
    panel_height,
    plain_ticks,
    select,
    set_title,
    styles_of,
    tick_text,
    widened,
)
from modbench.report.escaping import one_line
from modbench.report.style import MUTED_COLOUR, MethodStyle
from modbench.report.tables import NOTHING, verdict_text
from modbench.report.vega import Data, Spec, chart, method_colour, method_dash, method_shape, number, packed
from modbench.units import format_bytes, format_percent, format_seconds

MAX_BAR_TEXTS, MAX_PANEL_TICKS = 16, 3
ROOMY_ROWS = 100  # beyond it markers are drawn smaller
PHASE_OF: dict[LatencyMetric | None, str] = {"ttft_s": "prefill", "tpot_s": "decode"}


@dataclass(frozen=True)
class Quantity:
    """What one plot shows along y: its name, question, caption and text, and the base of its ticks."""

    name: str
    title: str
    caption: str
    value: Callable[[MethodRow], float | None]
    y_title: str
    metric: LatencyMetric | None = None  # of the spread over launches
    text: Callable[[float | None], str] = format_seconds
    is_binary: bool = False


QUANTITIES: tuple[Quantity, ...] = (
    Quantity(
        "ttft",
        "How long until the first token?",
        "Prefill: time to the first token (TTFT), median of the launches; lower is better.",
        lambda row: row.values["ttft_s"],
        "time to first token",
        "ttft_s",
    ),
    Quantity(
        "tpot",
        "How long does each further token take?",
        "Decode: time per output token (TPOT), median of the launches; lower is better.",
        lambda row: row.values["tpot_s"],
        "time per output token",
        "tpot_s",
    ),
    Quantity(
        "kv_cache",
        "How much KV cache is needed?",
        "KV cache that the kept tokens occupy; lower is better.",
        lambda row: row.values["kv_cache_bytes"],
        "KV cache",
        text=format_bytes,
        is_binary=True,
    ),
)


def latency_drawings(summary: Summary) -> list[Drawing]:
    """Those of `QUANTITIES` that any row has."""
    drawings = []
    for quantity in QUANTITIES:
        selection = select(summary, partial(_has, quantity))
        if selection.rows:
            paint = partial(_paint, summary, quantity, selection)
            caption = quantity.caption + _interval_note(quantity, selection) + selection.note
            spec = _spec(summary, quantity, selection)
            drawings.append(Drawing(quantity.name, caption, paint, spec, panel_height(selection.panels)))
    return drawings


def _has(quantity: Quantity, row: MethodRow) -> bool:
    return is_positive(quantity.value(row))


def interval_of(row: MethodRow, metric: LatencyMetric | None) -> tuple[float, float] | None:
    """The exact interval of the median where there are launches enough, else the span of the launches."""
    spread = row.latencies.get(metric) if metric else None
    return None if spread is None else spread.interval or (spread.low, spread.high)


def _interval_note(quantity: Quantity, selection: Selection) -> str:
    """What the bars are, by what is drawn."""
    metric = quantity.metric
    spreads = [row.latencies[metric] for _, row in selection.rows if metric in row.latencies] if metric else []
    if not spreads:
        return ""
    exact = f"exact {MIN_COVERAGE * 100:.1f} % intervals of the median"
    if all(spread.interval for spread in spreads):
        return f" Bars: {exact}."
    if any(spread.interval for spread in spreads):
        return f" Bars: {exact} from {MIN_PAIRS} launches on, below that the span of the launches."
    return " Bars: the span of the launches, no interval of confidence."


def _paint(summary: Summary, quantity: Quantity, selection: Selection, figure: Any) -> None:
    styles = styles_of(summary)
    grid = panel_axes(figure, selection.panels)
    if selection.axis is None:
        _paint_bars(grid[0], quantity, selection.panels[0], styles)
    else:
        _paint_lines(grid, quantity, selection, styles)
    for axes in grid[::2]:
        axes.set_ylabel(quantity.y_title)
    set_title(figure, quantity.title)
    method_legend(figure, styles, selection.methods, "patch" if selection.axis is None else "line")


def _paint_lines(
    grid: Sequence[Any], quantity: Quantity, selection: Selection, styles: Mapping[str, MethodStyle]
) -> None:
    """A line per method in each panel; both scales logarithmic where the values allow it."""
    scale = _scale(quantity, selection)
    ticks = plain_ticks(selection.xs, *([MAX_PANEL_TICKS] if len(grid) > 1 else []))
    size = 6.0 if len(selection.rows) <= ROOMY_ROWS else 3.0
    for axes, panel in zip(grid, selection.panels, strict=True):
        for method, points in _by_method(panel).items():
            style = styles[method]
            ys = [quantity.value(row) for _, row in points]
            xs = [selection.x(cell) for cell, _ in points]
            axes.plot(xs, ys, color=style.colour, marker=style.marker, linestyle=style.line, markersize=size)
            _paint_intervals(axes, xs, [interval_of(row, quantity.metric) for _, row in points], style.colour)
        axes.set_yscale("log")
        axes.set_xscale("log" if selection.xs[0] > 0 else "linear")
        axes.set(ylim=(scale.low, scale.high))
        axes.set_xticks(list(ticks), list(ticks.values()), fontsize="small")
        axes.set_yticks(scale.ticks, [tick_text(quantity.text(tick)) for tick in scale.ticks], fontsize="small")
        axes.minorticks_off()
    for axes in grid[-2:]:
        axes.set_xlabel(axis_title(selection.axis or ""), fontsize="small")


def _paint_intervals(
    axes: Any, xs: Sequence[float], intervals: Sequence[tuple[float, float] | None], colour: str, width: float = 4
) -> None:
    """Pale bars, all in one path."""
    places, ends = [], []
    for x, interval in zip(xs, intervals, strict=True):
        if interval is not None:
            places += [x, x, math.nan]
            ends += [*interval, math.nan]
    axes.plot(places, ends, color=colour, linewidth=width, alpha=0.35, solid_capstyle="butt")


def _paint_bars(axes: Any, quantity: Quantity, panel: Panel, styles: Mapping[str, MethodStyle]) -> None:
    """A group of bars per cell, a bar per method."""
    cells = list({cell.cell_id: cell for cell, _ in panel.rows}.values())
    methods = [method for method in styles if method in {row.method for _, row in panel.rows}]
    width = 0.8 / len(methods)
    top = max(_upper_end(quantity, row) for _, row in panel.rows)
    scale = linear_scale(top, quantity.is_binary)
    for cell, row in panel.rows:
        value = quantity.value(row)
        group = [found.cell_id for found in cells].index(cell.cell_id)
        place = group + (methods.index(row.method) - (len(methods) - 1) / 2) * width
        bar = axes.bar(place, value, width * 0.9, color=styles[row.method].colour)
        if len(panel.rows) <= MAX_BAR_TEXTS:
            axes.bar_label(bar, [quantity.text(value)], fontsize="x-small", padding=3)
        _paint_intervals(axes, [place], [interval_of(row, quantity.metric)], MUTED_COLOUR, 2)
    axes.set_xticks(range(len(cells)), ["\n".join(bar_label(cell)) for cell in cells], fontsize="small")
    axes.set_yticks(scale.ticks, [tick_text(quantity.text(tick)) if tick else "0" for tick in scale.ticks])
    axes.set(ylim=(0, scale.high))
    if len(cells) > MAX_LEVEL_LABELS:
        axes.tick_params(axis="x", labelrotation=90)
    axes.grid(visible=False, axis="x")


def _by_method(panel: Panel) -> dict[str, list[Drawable]]:
    found: dict[str, list[Drawable]] = {}
    for cell, row in panel.rows:
        found.setdefault(row.method, []).append((cell, row))
    return found


def _scale(quantity: Quantity, selection: Selection) -> Scale:
    """Around all values and intervals of all panels."""
    values = [quantity.value(row) for _, row in selection.rows]
    ends = [end for _, row in selection.rows for end in interval_of(row, quantity.metric) or ()]
    return log_scale([value for value in [*values, *ends] if value is not None and value > 0], quantity.is_binary)


def _upper_end(quantity: Quantity, row: MethodRow) -> float:
    return max(quantity.value(row) or 0.0, *(interval_of(row, quantity.metric) or (0.0,)))


def _spec(summary: Summary, quantity: Quantity, selection: Selection) -> Spec:
    """The same as lines with intervals, or as bars."""
    rows = [
        {"method": one_line(row.method), "panel": index, **_point(quantity, selection, cell, row)}
        for index, panel in enumerate(selection.panels)
        for cell, row in panel.rows
    ]
    data, styles = packed(rows, ("method", "panel")), styles_of(summary)
    x_title = axis_name(selection.axis) if selection.axis else "at"
    told = data.tooltip(
        method="method",
        at=x_title,
        value=quantity.y_title,
        interval="launches between" if "span" in _interval_note(quantity, selection) else "interval",
        launches="launches",
        keep="keep ratio",
        verdict="against dense",
    )
    hue = {"color": method_colour(styles)}
    if selection.axis is None:
        return chart(quantity.title, data, _bar_layers(quantity, selection, hue, told, data))
    scale = _scale(quantity, selection)
    ticks = plain_ticks(selection.xs)
    is_log = selection.xs[0] > 0
    spread = Scale(selection.xs[0], selection.xs[-1], tuple(ticks))
    x = number("x", axis_title(selection.axis), widened(spread, is_log), list(ticks.values()), is_log)
    y = number("y", quantity.y_title, scale, [tick_text(quantity.text(tick)) for tick in scale.ticks], is_log=True)
    marks = {"x": x, "y": y, **hue}
    layers: list[Spec] = []
    if "low" in data.fields:
        ends = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, **hue}
        layers.append({"mark": {"type": "rule", "strokeWidth": 5, "opacity": 0.35}, "encoding": ends})
    layers.append(
        {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {**marks, "strokeDash": method_dash(styles)}}
    )
    size = 90 if len(selection.rows) <= ROOMY_ROWS else 25
    point = {"type": "point", "filled": True, "size": size, "opacity": 1}
    layers.append({"mark": point, "encoding": {**marks, "shape": method_shape(styles), "tooltip": told}})
    return chart(quantity.title, data, layers, selection.labels)


def _point(quantity: Quantity, selection: Selection, cell: CellSummary, row: MethodRow) -> dict[str, Any]:
    """One row of the data: numbers to draw, texts to read."""
    interval, phase = interval_of(row, quantity.metric), PHASE_OF.get(quantity.metric)
    x = selection.x(cell) if selection.axis else None
    keep = row.values[f"keep_ratio_{phase}"] if phase else None
    verdict = verdict_text(row, f"{phase}_speedup") if phase else NOTHING
    return {
        "x": x,
        "y": quantity.value(row),
        "low": interval[0] if interval else None,
        "high": interval[1] if interval else None,
        "at": cell_label(cell) if x is None else axis_value(x),
        "value": quantity.text(quantity.value(row)),
        "interval": " to ".join(quantity.text(end) for end in interval) if interval else None,
        "launches": row.num_launches if quantity.metric else None,
        "keep": None if keep is None else format_percent(keep),
        "verdict": None if verdict == NOTHING else verdict,
    }


def _bar_layers(quantity: Quantity, selection: Selection, hue: Spec, told: list[Spec], data: Data) -> list[Spec]:
    scale = linear_scale(max(_upper_end(quantity, row) for _, row in selection.rows), quantity.is_binary)
    texts = [tick_text(quantity.text(tick)) if tick else "0" for tick in scale.ticks]
    x = {"field": "at", "type": "nominal", "sort": None, "title": None, "axis": {"labelAngle": 0, "labelLimit": 130}}
    if len({cell.cell_id for cell, _ in selection.rows}) > MAX_LEVEL_LABELS:
        x["axis"] = {"labelAngle": -60, "labelLimit": 130}
    place = {"x": x, "xOffset": {"field": "method", "type": "nominal", "sort": None}}
    bars = {**place, "y": number("y", quantity.y_title, scale, texts), **hue, "tooltip": told}
    layers: list[Spec] = [{"mark": {"type": "bar"}, "encoding": bars}]
    if "low" in data.fields:
        ends = {**place, "y": {**bars["y"], "field": "low"}, "y2": {"field": "high"}}
        layers.append({"mark": {"type": "rule", "strokeWidth": 2, "color": "#808A94"}, "encoding": ends})
    return layers
