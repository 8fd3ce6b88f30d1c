"""What quality costs: held-out bits per byte over latency and KV cache, with the front of points that no other one beats.

In: a `Summary`. Out: a `Drawing` per cost, where at least two rows have a quality. A panel has the points of one workload and
model: cells that differ in settings of methods only are alternatives to each other. Where nothing was evaluated, a perplexity
that a program reports stands in the place of bits per byte.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from modbench.analysis.pareto import front
from modbench.analysis.rows import CellSummary, Summary
from modbench.report.document import axes_label
from modbench.report.drawing import (
    MAX_LABEL,
    MAX_PANELS,
    MAX_ROWS,
    Drawable,
    Drawing,
    Panel,
    Scale,
    drawable,
    is_positive,
    linear_scale,
    log_scale,
    method_legend,
    panel_axes,
    panel_height,
    set_title,
    spread_over,
    styles_of,
    tick_text,
    widened,
)
from modbench.report.escaping import one_line
from modbench.report.style import TEXT_COLOUR
from modbench.report.vega import Spec, chart, method_colour, method_shape, number, packed
from modbench.units import format_bytes, format_percent, format_seconds

PALE = 0.35
CAPTION = (
    "{quality} over {cost}; lower is better in both, best is bottom left. "
    "The line joins the points that no other one beats in both; pale ones are beaten."
)
QUALITIES = {  # metric -> what it is called, and in captions; the first one that rows have is drawn
    "bits_per_byte": ("bits per byte", "Bits per byte of held-out text"),
    "perplexity": ("perplexity", "Perplexity of the workload's text"),
}


@dataclass(frozen=True)
class Cost:
    """What a plot has along x: its metric, the plot's name and title, and how values are written."""

    metric: str
    name: str
    title: str
    words: str
    phase: str = "prefill"  # whose keep ratio is told
    text: Callable[[float], str] = format_seconds
    is_binary: bool = False


COSTS = (
    Cost("ttft_s", "quality_ttft", "What does quality cost in prefill?", "time to first token"),
    Cost("tpot_s", "quality_tpot", "What does quality cost in decode?", "time per output token", "decode"),
)
KV_CACHE = Cost(
    "kv_cache_bytes",
    "quality_kv_cache",
    "What does quality cost in KV cache?",
    "KV cache",
    text=format_bytes,
    is_binary=True,
)


@dataclass(frozen=True)
class Trade:
    """The points of one panel: its rows, where they are, and which of them are on the front."""

    panel: Panel
    places: tuple[tuple[float, float], ...]
    front: tuple[int, ...]


def quality_drawings(summary: Summary) -> list[Drawing]:
    """One per latency; of an evaluation one of the KV cache as well."""
    metric = quality_metric(summary)
    drawings = []
    for cost in (*COSTS, *([KV_CACHE] if metric == "bits_per_byte" else [])):
        trades = trade_offs(summary, cost.metric)
        if trades:
            name, words = QUALITIES[metric]
            paint = partial(_paint, summary, trades, cost, name)
            spec = _spec(summary, trades, cost, name)
            height = panel_height([trade.panel for trade in trades])
            caption = CAPTION.format(quality=words, cost=cost.words)
            drawings.append(Drawing(cost.name, caption, paint, spec, height))
    return drawings


def quality_metric(summary: Summary) -> str:
    """What is drawn as quality: what was evaluated, else what programs report."""
    rows = [row for _, row in drawable(summary)]
    return next((name for name in QUALITIES if any(is_positive(row.values[name]) for row in rows)), "perplexity")


def trade_offs(summary: Summary, metric: str) -> list[Trade]:
    """Panels with at least two points, `metric` along x; the first `MAX_PANELS` of them."""
    quality = quality_metric(summary)
    groups: dict[str, list[Drawable]] = {}
    for cell, row in drawable(summary):
        if is_positive(row.values[quality]) and is_positive(row.values[metric]):
            groups.setdefault(_work(cell), []).append((cell, row))
    trades = []
    for label, rows in groups.items():
        shown = rows[:MAX_ROWS]
        places = [(row.values[metric] or 0.0, row.values[quality] or 0.0) for _, row in shown]
        if len(places) > 1:
            trades.append(Trade(Panel(label, tuple(shown)), tuple(places), tuple(front(places))))
    return trades[:MAX_PANELS]


def _work(cell: CellSummary) -> str:
    return axes_label({key: value for key, value in cell.axes.items() if not key.startswith("methods.")})


def _settings(cell: CellSummary) -> str:
    return axes_label({key: value for key, value in cell.axes.items() if key.startswith("methods.")} or cell.axes)


def _scales(trades: Sequence[Trade], cost: Cost) -> tuple[Scale, Scale]:
    xs, ys = zip(*(place for trade in trades for place in trade.places), strict=True)
    room = 0.15 * (max(ys) - min(ys)) or 0.1 * max(ys)
    low, high = max(0.0, min(ys) - room), max(ys) + room
    return widened(log_scale(xs, is_binary=cost.is_binary), is_log=True), Scale(low, high, _ticks(low, high))


def _ticks(low: float, high: float) -> tuple[float, ...]:
    """Round numbers between two ends."""
    step = linear_scale(high - low).ticks[1]
    first = int(low / step) + 1
    return tuple(step * index for index in range(first, int(high / step) + 1))


def _steps(trade: Trade) -> list[tuple[float, float]]:
    """The corners of the front: right, then down."""
    corners: list[tuple[float, float]] = []
    for index in trade.front:
        x, y = trade.places[index]
        corners += [(x, corners[-1][1])] if corners else []
        corners.append((x, y))
    return corners


def _paint(summary: Summary, trades: Sequence[Trade], cost: Cost, quality: str, figure: Any) -> None:
    styles, (x_scale, y_scale) = styles_of(summary), _scales(trades, cost)
    grid = panel_axes(figure, [trade.panel for trade in trades])
    x_ticks = x_scale.ticks
    if cost.is_binary and len(grid) > 1:  # half as wide, and their texts are long
        x_ticks = tuple(spread_over(x_ticks, 2))
    for axes, trade in zip(grid, trades, strict=True):
        axes.plot(*zip(*_steps(trade), strict=True), color=TEXT_COLOUR, linewidth=1)
        for index, ((_, row), place) in enumerate(zip(trade.panel.rows, trade.places, strict=True)):
            style, alpha = styles[row.method], 1.0 if index in trade.front else PALE
            axes.plot(*place, style.marker, color=style.colour, alpha=alpha, markersize=8, markeredgewidth=0)
        axes.set_xscale("log")
        axes.set(xlim=(x_scale.low, x_scale.high), ylim=(y_scale.low, y_scale.high))
        axes.set_xticks(x_ticks, [tick_text(cost.text(tick)) for tick in x_ticks], fontsize="small")
        axes.set_yticks(y_scale.ticks, [_number(tick) for tick in y_scale.ticks], fontsize="small")
        axes.minorticks_off()
    for axes in grid[-2:]:
        axes.set_xlabel(cost.words, fontsize="small")
    for axes in grid[::2]:
        axes.set_ylabel(quality)
    set_title(figure, cost.title)
    drawn = [row.method for trade in trades for _, row in trade.panel.rows]
    method_legend(figure, styles, drawn, "marker")


def _number(value: float) -> str:
    return f"{value:.4g}"


def _spec(summary: Summary, trades: Sequence[Trade], cost: Cost, quality: str) -> Spec:
    styles, (x_scale, y_scale) = styles_of(summary), _scales(trades, cost)
    rows = [_row(index, trade, place, cost) for index, trade in enumerate(trades) for place in range(len(trade.places))]
    data = packed(rows, ("method", "panel"))
    x = number("x", cost.words, x_scale, [tick_text(cost.text(tick)) for tick in x_scale.ticks], is_log=True)
    y = number("y", quality, y_scale, [_number(tick) for tick in y_scale.ticks])
    told = data.tooltip(method="method", at="at", value=quality, latency=cost.words, keep="keep ratio", verdict="front")
    corners = [{"x": x, "y": y, "panel": index} for index, trade in enumerate(trades) for x, y in _steps(trade)]
    line = {"type": "line", "strokeWidth": 1, "color": "currentColor"}
    steps: Spec = {"data": {"values": corners}, "mark": line, "encoding": {"x": x, "y": y, "order": {"value": None}}}
    if len(trades) > 1:
        steps["transform"] = [{"filter": "datum.panel === panel"}]
    opacity = {"field": "opacity", "type": "quantitative", "scale": None, "legend": None}
    marks = {"x": x, "y": y, "color": method_colour(styles), "shape": method_shape(styles), "opacity": opacity}
    points = {"mark": {"type": "point", "filled": True, "size": 110}, "encoding": {**marks, "tooltip": told}}
    return chart(cost.title, data, [steps, points], [trade.panel.label for trade in trades])


def _row(panel: int, trade: Trade, place: int, cost: Cost) -> Mapping[str, Any]:
    cell, row = trade.panel.rows[place]
    latency, quality = trade.places[place]
    keep, is_best = row.values[f"keep_ratio_{cost.phase}"], place in trade.front
    return {
        "method": one_line(row.method),
        "panel": panel,
        "x": latency,
        "y": quality,
        "opacity": 1.0 if is_best else PALE,
        "at": one_line(_settings(cell), 3 * MAX_LABEL),
        "value": _number(quality),
        "latency": cost.text(latency),
        "keep": None if keep is None else format_percent(keep),
        "verdict": "not beaten" if is_best else "beaten",
    }
