"""Plots of a history: a metric over runs, a line per series and setup, with intervals and gaps.

In: a `History`. Out: a `Plot` per metric. matplotlib is imported when the first one is drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from modbench.analysis.history import History, Series, lines
from modbench.report.document import cell_label
from modbench.report.drawing import MAX_LABEL, set_title
from modbench.report.escaping import one_line
from modbench.report.plots import Plot, draw_plot
from modbench.report.style import MUTED_COLOUR, TEXT_COLOUR, MethodStyle, method_styles
from modbench.scenario import METRICS
from modbench.units import format_bytes, format_factor, format_percent, format_rate, format_seconds

MAX_TICKS, MAX_MARKED_CHANGES, MAX_PANELS = 5, 8, 8
ROOMY_RUNS = 30  # beyond it markers and bars are drawn smaller
PANEL_INCHES, MARGIN_INCHES = 1.9, 1.2
CAPTION = "Bars are exact intervals; × is a run without a number; lines break where machine or library versions change."
FORMATS: dict[str, Callable[[float], str]] = {
    "s": format_seconds,
    "bytes": format_bytes,
    "tokens/s": format_rate,
    "ratio": format_percent,
}


def value_text(metric: str, value: float) -> str:
    """The value with its unit; speed-ups and reductions as factors."""
    if metric.endswith(("_speedup", "_reduction")):
        return format_factor(value)
    unit = METRICS[metric].unit
    return FORMATS[unit](value) if unit in FORMATS else f"{value:.4g} {unit}"


def setup_name(index: int) -> str:
    """A, B, …, Z, then numbers."""
    return chr(ord("A") + index) if index < 26 else str(index + 1)


def draw_history(history: History) -> list[Plot]:
    """A plot per metric that has values, with a panel per cell."""
    plots = []
    for metric in dict.fromkeys(series.metric for series in history.series):
        panels: dict[str, list[Series]] = {}
        for series in history.series:
            if series.metric == metric and any(point.value is not None for point in series.points):
                panels.setdefault(cell_label(series.cell), []).append(series)
        if panels:
            better = "higher" if METRICS[metric].higher_is_better else "lower"
            more = f" {len(panels) - MAX_PANELS} more cells are in the tables." if len(panels) > MAX_PANELS else ""
            caption = f"{metric} over runs, oldest first; {better} is better. {CAPTION}{more}"
            drawn = dict(list(panels.items())[:MAX_PANELS])
            height = MARGIN_INCHES + PANEL_INCHES * len(drawn)
            plots.append(draw_plot(metric, caption, partial(_draw, history, metric, drawn), height))
    return plots


def _draw(history: History, metric: str, panels: Mapping[str, Sequence[Series]], figure: Any) -> None:
    drawn = [series for members in panels.values() for series in members]
    runs = sorted({point.run for series in drawn for point in series.points})
    places = {run: place for place, run in enumerate(runs)}
    styles = method_styles(series.method for series in drawn)
    column = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axes, (label, members) in zip(column, panels.items(), strict=True):
        for series in members:
            _draw_series(axes, history, series, places, styles[series.method])
        _mark_changes(axes, history, runs)
        _set_value_ticks(axes, metric)
        axes.set_title(one_line(label, 2 * MAX_LABEL), loc="left", fontsize="small")
    ticks = sorted({round(step * (len(runs) - 1) / (MAX_TICKS - 1)) for step in range(MAX_TICKS)})
    axes = column[-1]
    axes.set_xticks(ticks, [_tick_text(history, runs[tick]) for tick in ticks], fontsize="small")
    axes.set_xlim(-0.5, len(runs) - 0.5)
    set_title(figure, metric.replace("_", " "))
    _legend(figure, styles)


def _set_value_ticks(axes: Any, metric: str) -> None:
    """As many round values as have different texts."""
    axes.yaxis.set_major_formatter(lambda value, _: value_text(metric, value))
    for num_bins in range(5, 0, -1):
        axes.locator_params(axis="y", nbins=num_bins, steps=[1, 2, 5, 10])
        texts = [value_text(metric, tick) for tick in axes.get_yticks()]
        if len(set(texts)) == len(texts):
            break


def _draw_series(axes: Any, history: History, series: Series, places: Mapping[int, int], style: MethodStyle) -> None:
    """Lines where points may be joined, bars for intervals, crosses for gaps; thinner where there are many runs."""
    share = min(1.0, ROOMY_RUNS / len(places))
    look = {"color": style.colour, "marker": style.marker, "linestyle": style.line, "markersize": 5 * share}
    for part in lines(history, series):
        axes.plot(
            [places[point.run] for point in part], [point.value for point in part], **look, linewidth=0.6 + 0.8 * share
        )
        for point in part:
            if point.interval is not None:
                xs = [places[point.run]] * 2
                axes.plot(xs, point.interval, color=style.colour, linewidth=4 * share, alpha=0.35)
    gaps = [places[point.run] for point in series.points if point.value is None]
    bottom = axes.get_xaxis_transform()
    axes.plot(gaps, [0.05] * len(gaps), "x", color=style.colour, transform=bottom, linestyle="none")


def _mark_changes(axes: Any, history: History, runs: Sequence[int]) -> None:
    """A rule with the setup's name where it changes; where it changes all the time the broken lines must do."""
    changes = [
        place for place in range(1, len(runs)) if history.setup_of[runs[place]] != history.setup_of[runs[place - 1]]
    ]
    if len(changes) > MAX_MARKED_CHANGES:
        return
    for place in changes:
        axes.axvline(place - 0.5, color=MUTED_COLOUR, linewidth=1, linestyle=(0, (2, 2)))
    for place in [0, *changes] if changes else []:
        name = setup_name(history.setup_of[runs[place]])
        top = axes.get_xaxis_transform()
        axes.text(place - 0.45, 0.99, name, transform=top, fontsize="small", color=TEXT_COLOUR, va="top")


def _tick_text(history: History, run: int) -> str:
    """Commit over date."""
    found = history.runs[run]
    commit = one_line(found.git_sha)[:7] if found.git_sha else one_line(found.name, MAX_LABEL // 2)
    return commit + ("*" if found.is_dirty else "") + (f"\n{one_line(found.started)[:10]}" if found.started else "")


def _legend(figure: Any, styles: Mapping[str, MethodStyle]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=style.colour, marker=style.marker, linestyle=style.line) for style in styles.values()
    ]
    labels = [f" {one_line(method, MAX_LABEL)}" for method in styles]  # a label that starts with "_" would be left out
    figure.legend(handles, labels, loc="outside lower left", ncols=3, frameon=False, fontsize="small")
