"""Speed-ups against what would be possible: measured over ideal, and over the keep ratio with the ideal curve.

In: a `Summary`. Out: `Drawing`s, without what has no speed-up, ideal or keep ratio.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from modbench.analysis.ideal_curve import IdealCurve, ideal_curve
from modbench.analysis.prediction import SAVES
from modbench.analysis.rows import CellSummary, MethodRow, Summary
from modbench.report.document import cell_label
from modbench.report.drawing import (
    MAX_LABEL,
    Drawing,
    Scale,
    Selection,
    is_positive,
    log_scale,
    method_legend,
    select,
    set_title,
    spread_over,
    styles_of,
    tick_text,
)
from modbench.report.escaping import one_line
from modbench.report.style import MUTED_COLOUR, TEXT_COLOUR
from modbench.report.tables import NOTHING, verdict_text
from modbench.report.vega import MUTED, Data, Spec, chart, method_colour, method_shape, number, packed
from modbench.units import format_factor, format_percent

PHASES = ("prefill", "decode")
MAX_CURVES = 3  # of cells: more would fill the plane
PHASE_LINES = {"prefill": "-", "decode": (0, (4, 2))}
IDEAL_TITLE, KEEP_TITLE = "How much of the ideal speed-up is there?", "Does keeping less make it faster?"
PHASE_MARKS = "higher is better. Filled: prefill, open: decode."
IDEAL_CAPTION = (
    f"Measured speed-up over the ideal of the measured keep ratios: on the dashed line nothing is lost; {PHASE_MARKS}"
)
KEEP_CAPTION = f"Measured speed-up over the measured keep ratio, mean of the routed layers; {PHASE_MARKS}"
CURVE_CAPTION = " Lines: the ideal on this device's ceilings; full: prefill, dashed: decode"


@dataclass(frozen=True)
class SpeedPoint:
    """One phase of a row."""

    cell: CellSummary
    row: MethodRow
    phase: str
    speedup: float
    ideal: float | None
    keep_ratio: float | None


@dataclass(frozen=True)
class NamedCurve:
    """An ideal curve and what it is for: a cell, and kinds of methods if they differ."""

    name: str
    curve: IdealCurve


def speedup_drawings(summary: Summary) -> list[Drawing]:
    """Measured over ideal, and speed-up over keep ratio, each if any row has both of its numbers."""
    selection = select(summary, lambda row: any(is_positive(row.values[f"{phase}_speedup"]) for phase in PHASES))
    points = list(_points(selection))
    against_ideal = [point for point in points if is_positive(point.ideal)]
    over_keep = [point for point in points if point.keep_ratio is not None]
    drawings = []
    if against_ideal:
        paint = partial(_paint_ideal, summary, against_ideal)
        caption = IDEAL_CAPTION + selection.note
        drawings.append(Drawing("speedup", caption, paint, _ideal_spec(summary, against_ideal)))
    if over_keep:
        curves = ideal_curves(summary, [(point.cell, point.row) for point in over_keep])
        paint = partial(_paint_keep, summary, over_keep, curves)
        caption = KEEP_CAPTION + _curve_note(curves) + selection.note
        drawings.append(Drawing("speedup_keep_ratio", caption, paint, _keep_spec(summary, over_keep, curves)))
    return drawings


def ideal_curves(summary: Summary, rows: Sequence[tuple[CellSummary, MethodRow]]) -> list[NamedCurve]:
    """A curve per cell and saving of the rows, without those that look the same; of many cells some, both ends among them."""
    found: dict[IdealCurve, str] = {}
    ceilings_vary = any(key.startswith("ceilings") for key in summary.varying_environment)
    for cell, row in rows if not ceilings_vary else ():
        curve = ideal_curve(cell, row, summary.environment)
        if curve is not None and curve not in found:
            own = f" · {row.method}" if row.kind in SAVES else ""
            found[curve] = one_line(cell_label(cell) + own, 2 * MAX_LABEL)
    return [NamedCurve(name, curve) for curve, name in spread_over(list(found.items()), MAX_CURVES)]


def _curve_note(curves: Sequence[NamedCurve]) -> str:
    if not curves:
        return ""
    return CURVE_CAPTION + f", from below: {'; '.join(named.name for named in _ascending(curves))}."


def _ascending(curves: Sequence[NamedCurve]) -> list[NamedCurve]:
    return sorted(curves, key=lambda named: named.curve.prefill[0])


def _points(selection: Selection) -> Iterator[SpeedPoint]:
    for cell, row in selection.rows:
        for phase in PHASES:
            speedup = row.values[f"{phase}_speedup"]
            if speedup is not None and is_positive(speedup):
                ideal, keep_ratio = row.values[f"{phase}_ideal_speedup"], row.values[f"keep_ratio_{phase}"]
                yield SpeedPoint(cell, row, phase, speedup, ideal, keep_ratio)


def _paint_ideal(summary: Summary, points: Sequence[SpeedPoint], figure: Any) -> None:
    axes = figure.subplots()
    scale = _ideal_scale(points)
    ends = [scale.low, scale.high]
    axes.plot(ends, ends, color=TEXT_COLOUR, linewidth=1, linestyle=(0, (4, 3)))
    axes.axhline(1.0, color=MUTED_COLOUR, linewidth=1)
    _paint_points(axes, summary, points, [point.ideal for point in points])
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    axes.set_xlabel("ideal speed-up against dense")
    axes.set_ylabel("measured speed-up")
    for set_ticks in (axes.set_xticks, axes.set_yticks):
        set_ticks(scale.ticks, [_factor(tick) for tick in scale.ticks])
    axes.minorticks_off()
    set_title(figure, IDEAL_TITLE)
    method_legend(figure, styles_of(summary), [point.row.method for point in points], "marker")


def _paint_points(axes: Any, summary: Summary, points: Sequence[SpeedPoint], xs: Sequence[float | None]) -> None:
    """One path of markers per method and phase."""
    styles = styles_of(summary)
    series: dict[tuple[str, str], list[tuple[float | None, float]]] = {}
    for point, x in zip(points, xs, strict=True):
        series.setdefault((point.row.method, point.phase), []).append((x, point.speedup))
    size = 8 if len(points) <= 40 else 5
    for (method, phase), places in series.items():
        style = styles[method]
        face = style.colour if phase == "prefill" else "none"
        look = {"color": style.colour, "markerfacecolor": face, "markersize": size, "linestyle": "none"}
        axes.plot(*zip(*places, strict=True), style.marker, **look)


def _ideal_scale(points: Sequence[SpeedPoint]) -> Scale:
    """Around measured and ideal speed-ups and 1."""
    return log_scale([1.0, *(point.speedup for point in points), *(point.ideal or 1.0 for point in points)])


def _paint_keep(summary: Summary, points: Sequence[SpeedPoint], curves: Sequence[NamedCurve], figure: Any) -> None:
    axes = figure.subplots()
    scale = _keep_scale(points, curves)
    axes.axhline(1.0, color=MUTED_COLOUR, linewidth=1)
    for named in curves:
        for phase in PHASES:
            look = {"color": TEXT_COLOUR, "linewidth": 1, "alpha": 0.7, "linestyle": PHASE_LINES[phase]}
            axes.plot(named.curve.keep_ratios, getattr(named.curve, phase), **look)
    _paint_points(axes, summary, points, [point.keep_ratio for point in points])
    axes.set(yscale="log", xlim=(-0.03, 1.03), ylim=(scale.low, scale.high))
    axes.set_xticks(KEEP_TICKS, [format_percent(tick) for tick in KEEP_TICKS])
    axes.set_yticks(scale.ticks, [_factor(tick) for tick in scale.ticks])
    axes.minorticks_off()
    axes.set_xlabel("keep ratio of the routed layers, measured")
    axes.set_ylabel("speed-up against dense")
    set_title(figure, KEEP_TITLE)
    method_legend(figure, styles_of(summary), [point.row.method for point in points], "marker")


KEEP_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def _keep_scale(points: Sequence[SpeedPoint], curves: Sequence[NamedCurve]) -> Scale:
    """Around measured speed-ups, curves and 1."""
    ideals = [ideal for named in curves for phase in PHASES for ideal in getattr(named.curve, phase)]
    return log_scale([1.0, *(point.speedup for point in points), *ideals])


def _factor(value: float) -> str:
    return tick_text(format_factor(value))


def _ideal_spec(summary: Summary, points: Sequence[SpeedPoint]) -> Spec:
    scale = _ideal_scale(points)
    data = _data(points, lambda point: point.ideal)
    x = number("x", "ideal speed-up against dense", scale, [_factor(tick) for tick in scale.ticks], is_log=True)
    y = number("y", "measured speed-up", scale, [_factor(tick) for tick in scale.ticks], is_log=True)
    ends = [{"x": scale.low, "y": scale.low}, {"x": scale.high, "y": scale.high}]
    line = {"type": "line", "strokeDash": [5, 4], "strokeWidth": 1, "color": "currentColor"}
    diagonal: Spec = {"data": {"values": ends}, "mark": line, "encoding": {"x": x, "y": y}}
    return chart(IDEAL_TITLE, data, [_ones(), diagonal, *_point_layers(summary, data, x, y)])


def _keep_spec(summary: Summary, points: Sequence[SpeedPoint], curves: Sequence[NamedCurve]) -> Spec:
    scale = _keep_scale(points, curves)
    data = _data(points, lambda point: point.keep_ratio)
    texts = [format_percent(tick) for tick in KEEP_TICKS]
    x = number("x", "keep ratio of the routed layers, measured", Scale(-0.03, 1.03, KEEP_TICKS), texts)
    y = number("y", "speed-up against dense", scale, [_factor(tick) for tick in scale.ticks], is_log=True)
    rows = [
        {"x": ratio, "y": round(ideal, 4), "curve": f"{phase}, {named.name}", "phase": phase}
        for named in curves
        for phase in PHASES
        for ratio, ideal in zip(named.curve.keep_ratios, getattr(named.curve, phase), strict=True)
    ]
    dashes = {"domain": list(PHASES), "range": [[1, 0], [5, 3]]}
    curve: Spec = {
        "data": {"values": rows},
        "mark": {"type": "line", "strokeWidth": 1, "color": "currentColor", "opacity": 0.7},
        "encoding": {
            "x": x,
            "y": y,
            "detail": {"field": "curve"},
            "strokeDash": {"field": "phase", "type": "nominal", "scale": dashes, "legend": None},
            "tooltip": [{"field": "curve", "type": "nominal", "title": "ideal"}],
        },
    }
    return chart(KEEP_TITLE, data, [_ones(), *([curve] if rows else []), *_point_layers(summary, data, x, y)])


def _ones() -> Spec:
    """Where nothing is gained."""
    return {"data": {"values": [{}]}, "mark": {"type": "rule", "color": MUTED}, "encoding": {"y": {"datum": 1.0}}}


def _data(points: Sequence[SpeedPoint], x: Any) -> Data:
    rows = []
    for point in points:
        name = f"{point.phase}_speedup"
        interval = point.row.speedups[name].interval if name in point.row.speedups else None
        verdict = verdict_text(point.row, name)
        rows.append(
            {
                "method": one_line(point.row.method),
                "phase": point.phase,
                "x": x(point),
                "y": point.speedup,
                "at": cell_label(point.cell),
                "value": format_factor(point.speedup),
                "interval": " to ".join(format_factor(end) for end in interval) if interval else None,
                "ideal": None if point.ideal is None else format_factor(point.ideal),
                "keep": None if point.keep_ratio is None else format_percent(point.keep_ratio),
                "pairs": point.row.speedups[name].num_pairs if name in point.row.speedups else None,
                "verdict": None if verdict == NOTHING else verdict,
            }
        )
    return packed(rows, ("method", "phase"))


def _point_layers(summary: Summary, data: Data, x: Spec, y: Spec) -> list[Spec]:
    """Prefill filled, decode open."""
    styles = styles_of(summary)
    told = data.tooltip(
        method="method",
        at="at",
        phase="phase",
        value="speed-up",
        interval="interval",
        pairs="pairs",
        ideal="ideal",
        keep="keep ratio",
        verdict="against dense",
    )
    marks = {"x": x, "y": y, "color": method_colour(styles), "shape": method_shape(styles), "tooltip": told}
    return [
        {
            "transform": [{"filter": f"datum.phase === '{phase}'"}],
            "mark": {"type": "point", "filled": phase == "prefill", "size": 90, "opacity": 1, "strokeWidth": 2},
            "encoding": marks,
        }
        for phase in PHASES
    ]
