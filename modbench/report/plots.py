"""Plots of a summary: latency and KV cache along the first axis, and measured against ideal speed-ups.

In: a `Summary`. Out: `Plot`s with an SVG that takes the page's text colour, and a PNG on white. The same summary
gives the same SVG. matplotlib is imported when the first plot is drawn.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from modbench.analysis.pairs import LatencyMetric
from modbench.analysis.rows import CellSummary, MethodRow, Summary
from modbench.report.document import axis_name, axis_value, cell_label
from modbench.report.escaping import one_line
from modbench.report.style import MUTED_COLOUR, TEXT_COLOUR, MethodStyle, method_styles
from modbench.units import format_bytes, format_factor, format_seconds

STANDALONE_STYLE = (
    "<style>.modbench-plot{color:#1c2024}@media(prefers-color-scheme:dark){.modbench-plot{color:#e6e9ec}}</style>"
)
PREFERRED_AXIS = "workload.context"
MAX_LABEL, MAX_LABEL_LINES, MAX_LEVEL_LABELS = 20, 4, 5  # characters; lines; labels side by side


@dataclass(frozen=True)
class Plot:
    """A drawn figure; `svg` is inline-ready (no XML header), `name` is a file stem of this package's choosing."""

    name: str
    caption: str
    svg: str
    png: bytes
    spec: Mapping[str, Any] | None = None  # the same in Vega-Lite, for pages that run scripts

    @property
    def standalone_svg(self) -> str:
        """The SVG as a file of its own, which follows the reader's light or dark scheme."""
        start = self.svg.index(">", self.svg.index("<svg")) + 1
        return f'<?xml version="1.0" encoding="utf-8"?>\n{self.svg[:start]}{STANDALONE_STYLE}{self.svg[start:]}'


@dataclass(frozen=True)
class Quantity:
    """What one plot shows along y: its name, caption and text, and the base of its ticks."""

    name: str
    title: str
    caption: str
    value: Callable[[MethodRow], float | None]
    metric: LatencyMetric | None = None  # of the spread over launches
    text: Callable[[float | None], str] = format_seconds
    is_binary: bool = False


QUANTITIES: tuple[Quantity, ...] = (
    Quantity(
        "ttft",
        "Prefill: time to first token",
        "Time to the first token; bars span the launches, lower is better.",
        lambda row: row.values["ttft_s"],
        "ttft_s",
    ),
    Quantity(
        "tpot",
        "Decode: time per output token",
        "Time per output token; bars span the launches, lower is better.",
        lambda row: row.values["tpot_s"],
        "tpot_s",
    ),
    Quantity(
        "kv_cache",
        "KV cache",
        "KV cache that the kept tokens occupy; lower is better.",
        lambda row: row.values["kv_cache_bytes"],
        text=format_bytes,
        is_binary=True,
    ),
    Quantity(
        "peak_memory",
        "Peak memory",
        "Peak memory of a launch; lower is better.",
        lambda row: row.peak_memory_bytes,
        text=format_bytes,
        is_binary=True,
    ),
)
SPEEDUP_CAPTION = (
    "Measured speed-up against the ideal of the measured keep ratios: on the dashed line nothing is lost. "
    "Filled: prefill, open: decode."
)


def draw_plots(summary: Summary) -> list[Plot]:
    """All plots that the summary has data for."""
    plots = []
    for quantity in QUANTITIES:
        if any(quantity.value(row) is not None for _, row in _rows(summary)):
            plots.append(draw_plot(quantity.name, quantity.caption, partial(_draw_quantity, summary, quantity)))
    if _ideal_points(summary):
        plots.append(draw_plot("speedup", SPEEDUP_CAPTION, partial(_draw_speedups, summary)))
    return plots


def plot_axis(summary: Summary) -> str | None:
    """The dotted axis along x: context or else the first numeric axis that varies; None: bars per cell."""
    names = dict.fromkeys(key for cell in summary.cells for key in cell.axes)
    varying = [name for name in names if len(_numbers(summary, name)) > 1]
    return PREFERRED_AXIS if PREFERRED_AXIS in varying else next(iter(varying), None)


def _numbers(summary: Summary, name: str) -> set[float]:
    values = [cell.axes.get(name) for cell in summary.cells]
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return {value for value in values if value is not None} if is_number else set()


def _rows(summary: Summary) -> Iterator[tuple[CellSummary, MethodRow]]:
    """Rows that may be drawn: a wrong method's numbers count for nothing."""
    for cell in summary.cells:
        for row in cell.rows:
            if not row.has_failed and not row.is_wrong:
                yield cell, row


def _range(row: MethodRow, metric: LatencyMetric | None) -> tuple[float, float] | None:
    spread = row.latencies.get(metric) if metric else None
    return (spread.low, spread.high) if spread else None


def _styles(summary: Summary) -> dict[str, MethodStyle]:
    return method_styles(row.method for cell in summary.cells for row in cell.rows)


def _draw_quantity(summary: Summary, quantity: Quantity, figure: Any) -> None:
    axes = figure.subplots()
    axis = plot_axis(summary)
    if axis is None:
        _draw_bars(axes, summary, quantity)
    else:
        _draw_lines(axes, summary, quantity, axis)
    axes.set_title(quantity.title, loc="left", fontweight="bold", fontsize="medium")
    axes.yaxis.set_major_formatter(lambda value, _: _tick_text(quantity.text(value)) if value else "0")
    _legend(figure, summary)


def _tick_text(text: str) -> str:
    """A round number without the zeros of its three digits: `10.0 s` -> `10 s`, `1.50 s` -> `1.5 s`."""
    return re.sub(r"(\.\d*?)0+(?=\D)", r"\1", text).replace(". ", " ").replace(".×", "×")


def _draw_lines(axes: Any, summary: Summary, quantity: Quantity, axis: str) -> None:
    """A line per method and combination of the other axes; both scales logarithmic where the values allow it."""
    series: dict[tuple[str, str], list[tuple[float, MethodRow]]] = {}
    for cell, row in _rows(summary):
        others = " · ".join(f"{axis_name(k)} {axis_value(v)}" for k, v in cell.axes.items() if k != axis)
        if quantity.value(row) is not None:
            series.setdefault((row.method, others), []).append((cell.axes[axis], row))
    styles = _styles(summary)
    for (method, others), points in series.items():
        points.sort(key=lambda point: point[0])
        xs = [x for x, _ in points]
        ys = [quantity.value(row) for _, row in points]
        style = styles[method]
        axes.plot(xs, ys, color=style.colour, marker=style.marker, linestyle=style.line)
        for x, row in points:
            spread = _range(row, quantity.metric)
            if spread is not None:
                axes.plot([x, x], spread, color=style.colour, linewidth=4, alpha=0.35, solid_capstyle="butt")
        if others:
            place = {"xytext": (7, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(others, (xs[-1], ys[-1]), fontsize="x-small", color=TEXT_COLOUR, **place)
    ticks = sorted(_numbers(summary, axis))
    axes.set_yscale("log")
    axes.set_xscale("log" if ticks[0] > 0 else "linear")
    axes.set_xticks(ticks, [axis_value(int(tick) if float(tick).is_integer() else tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(axis_name(axis) + (" (tokens)" if axis == PREFERRED_AXIS else ""))
    axes.yaxis.set_major_locator(_log_ticks(quantity))


def _log_ticks(quantity: Quantity) -> Any:
    """Powers of two for bytes; 1, 2 and 5 of each decade for seconds."""
    from matplotlib.ticker import LogLocator

    return LogLocator(base=2) if quantity.is_binary else LogLocator(base=10, subs=(1.0, 2.0, 5.0))


def _draw_bars(axes: Any, summary: Summary, quantity: Quantity) -> None:
    """A group of bars per cell, a bar per method."""
    styles = _styles(summary)
    width = 0.8 / max(len(styles), 1)
    cells = [cell.cell_id for cell in summary.cells]
    for cell, row in _rows(summary):
        value = quantity.value(row)
        if value is None:
            continue
        place = cells.index(cell.cell_id) + (list(styles).index(row.method) - (len(styles) - 1) / 2) * width
        bar = axes.bar(place, value, width * 0.9, color=styles[row.method].colour)
        axes.bar_label(bar, [quantity.text(value)], fontsize="x-small", padding=3)
        spread = _range(row, quantity.metric)
        if spread is not None:
            axes.plot([place, place], spread, color=MUTED_COLOUR, linewidth=2)
    axes.set_xticks(range(len(cells)), [_bar_label(cell) for cell in summary.cells], fontsize="small")
    if len(cells) > MAX_LEVEL_LABELS:
        axes.tick_params(axis="x", labelrotation=90)
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.1)


def _bar_label(cell: CellSummary) -> str:
    """An axis of the cell per line, each cut so that the bars keep their room."""
    return "\n".join(one_line(part, MAX_LABEL) for part in cell_label(cell).split(" · ")[:MAX_LABEL_LINES])


def _ideal_points(summary: Summary) -> list[tuple[str, str, float, float]]:
    """(method, phase, ideal, measured) of every row that has both."""
    points = []
    for _, row in _rows(summary):
        for phase in ("prefill", "decode"):
            ideal, measured = row.values[f"{phase}_ideal_speedup"], row.values[f"{phase}_speedup"]
            if ideal is not None and measured is not None:
                points.append((row.method, phase, ideal, measured))
    return points


def _draw_speedups(summary: Summary, figure: Any) -> None:
    axes = figure.subplots()
    styles = _styles(summary)
    points = _ideal_points(summary)
    top = max(max(ideal, measured) for _, _, ideal, measured in points) * 1.08
    low = min(0.9, min(measured for _, _, _, measured in points) * 0.92)
    axes.plot([low, top], [low, top], color=TEXT_COLOUR, linewidth=1, linestyle=(0, (4, 3)))
    axes.axhline(1.0, color=MUTED_COLOUR, linewidth=1)
    for method, phase, ideal, measured in points:
        style = styles[method]
        face = style.colour if phase == "prefill" else "none"
        axes.plot(
            ideal, measured, style.marker, color=style.colour, markerfacecolor=face, markersize=8, linestyle="none"
        )
    axes.set(xlim=(low, top), ylim=(low, top), aspect="equal")
    axes.set_xlabel("ideal speed-up against dense")
    axes.set_ylabel("measured speed-up against dense")
    for side in (axes.xaxis, axes.yaxis):
        side.set_major_formatter(lambda value, _: _tick_text(format_factor(value)))
    axes.set_title("Measured against ideal", loc="left", fontweight="bold", fontsize="medium")
    _legend(figure, summary, [method for method, *_ in points])


def _legend(figure: Any, summary: Summary, methods: Sequence[str] = ()) -> None:
    """Names for the methods given (markers only), or for all that are drawn (lines)."""
    from matplotlib.lines import Line2D

    drawn = set(methods) or {row.method for _, row in _rows(summary)}
    styles = {method: style for method, style in _styles(summary).items() if method in drawn}
    handles = [
        Line2D([], [], color=style.colour, marker=style.marker, linestyle="none" if methods else style.line)
        for style in styles.values()
    ]
    labels = [f" {one_line(method, MAX_LABEL)}" for method in styles]  # a label that starts with "_" would be left out
    figure.legend(
        handles,
        labels,
        loc="outside lower left",
        ncols=2 if len(labels) in (2, 4) else 3,
        frameon=False,
        fontsize="small",
        handlelength=2.6,
    )


def draw_plot(name: str, caption: str, paint: Callable[[Any], None], height: float = 3.9) -> Plot:
    """Let `paint` draw into a figure of this package's look, `height` inches high; `name` is a file stem."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with _rc(name), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a method may have any name
        figure = Figure(figsize=(5.0, height), layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure)
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return Plot(name, caption, _page_svg(svg.getvalue(), name), png.getvalue())


@contextmanager
def _rc(name: str) -> Iterator[None]:
    from matplotlib import rc_context

    text = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), TEXT_COLOUR)
    look = {
        "axes.axisbelow": True,
        "axes.edgecolor": MUTED_COLOUR,
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.family": "sans-serif",
        "font.size": 10,
        "grid.color": MUTED_COLOUR,
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.8,
        "lines.markersize": 6,
        "svg.fonttype": "none",
        "svg.hashsalt": f"modbench-{name}",
        "text.parse_math": False,
    }
    with rc_context({**text, **look}):
        yield


def _page_svg(svg: str, name: str) -> str:
    """The drawing for a page: text colours from CSS, ids of its own, sized by its container, no XML header."""
    svg = svg[svg.index("<svg") :]
    svg = svg.replace(TEXT_COLOUR, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace('<style type="text/css">*{', '<style type="text/css">.modbench-plot *{')
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg ", '<svg class="modbench-plot" role="img" ', 1)
