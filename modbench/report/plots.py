"""Plots of a summary, each with an answer to one question: latency, memory, speed-up, keep ratios, quality.

In: a `Summary`. Out: `Plot`s with an SVG that takes the page's text colour, a PNG on white, and a Vega-Lite spec. The same summary
gives the same SVG. matplotlib is imported when the first plot is drawn.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from modbench.analysis.rows import Summary
from modbench.report.drawing import PLOT_INCHES
from modbench.report.keep_plots import keep_drawings
from modbench.report.latency_plots import latency_drawings
from modbench.report.memory_plots import memory_drawings
from modbench.report.position_plots import position_drawings
from modbench.report.quality_plots import quality_drawings
from modbench.report.speedup_plots import speedup_drawings
from modbench.report.style import MUTED_COLOUR, TEXT_COLOUR

STANDALONE_STYLE = (
    "<style>.modbench-plot{color:#1c2024}@media(prefers-color-scheme:dark){.modbench-plot{color:#e6e9ec}}</style>"
)
FAMILIES = (
    latency_drawings,
    memory_drawings,
    speedup_drawings,
    quality_drawings,
    position_drawings,
    keep_drawings,
)


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


def draw_plots(summary: Summary) -> list[Plot]:
    """All plots that the summary has data for."""
    drawings = [drawing for family in FAMILIES for drawing in family(summary)]
    return [draw_plot(found.name, found.caption, found.paint, found.height, found.spec) for found in drawings]


def draw_plot(
    name: str,
    caption: str,
    paint: Callable[[Any], None],
    height: float = PLOT_INCHES,
    spec: Mapping[str, Any] | None = None,
) -> Plot:
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
    return Plot(name, caption, _page_svg(svg.getvalue(), name), png.getvalue(), spec)


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
        "font.size": 11.5,  # a page on a phone shows a figure about as wide as it is: a point is a pixel
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
    """The drawing for a page: text colours from CSS, ids of its own, sized by its container, no XML header, short numbers."""
    svg = svg[svg.index("<svg") :]
    svg = svg.replace(TEXT_COLOUR, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace('<style type="text/css">*{', '<style type="text/css">.modbench-plot *{')
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg, count=1)
    svg = _shortened(svg)
    return svg.replace("<svg ", '<svg class="modbench-plot" role="img" ', 1)


def _shortened(svg: str) -> str:
    """The same drawing with rounded coordinates and without repetition, in about half the bytes; texts stay as they are."""
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"\d+\.\d{3,}", _rounded, tag[0]), svg)
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"\s*([A-Za-z])\s+", r"\1", path[0].replace(' d="', ' d="\n')), svg)
    svg = re.sub(r' d="\s*', ' d="', svg)
    svg = re.sub(r'<g( clip-path="[^"]*")>\s*((?:<use [^>]*/>\s*)+)</g>', _with_one_style, svg)
    return re.sub(r">\s*\n\s*<", "><", svg)


def _with_one_style(group: re.Match[str]) -> str:
    """Markers of one line: their style once, in the group around them."""
    styles = set(re.findall(r' style="[^"]*"', group[2]))
    if len(styles) != 1:
        return group[0]
    style = styles.pop()
    return f"<g{group[1]}{style}>{group[2].replace(style, '')}</g>"


def _rounded(number: re.Match[str]) -> str:
    """A coordinate in points, to a hundredth."""
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
