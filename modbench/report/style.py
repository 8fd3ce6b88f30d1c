"""One colour, marker and line per method, one fill per part of a phase, the same in every plot of every report.

Source: the colour-blind-safe palette of Okabe and Ito (2008), without its yellow, too pale on white. Lines in
its orange and sky blue are darkened, so that every one has a contrast of 3:1 on light and dark pages; the baseline is drawn in the
colour of the text.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

TEXT_COLOUR = "#010203"  # in an SVG it becomes the page's text colour; nothing else may have it
MUTED_COLOUR = "#808A9473"  # grid and frame: a translucent grey, for light and dark
# Of a method's colour, in a stack of memory.
PART_OPACITIES: dict[str, float] = {"weights": 0.6, "KV cache": 1.0, "rest": 0.3}
# From nothing kept to all: matplotlib's cividis, which colour-blind readers see alike.
HEAT_COLOURS: tuple[str, ...] = (
    "#00224e",
    "#1a386f",
    "#434e6c",
    "#61656f",
    "#7d7c78",
    "#9b9476",
    "#bcae6c",
    "#dec958",
    "#fee838",
)


@dataclass(frozen=True)
class MethodStyle:
    """How a method is drawn."""

    colour: str
    marker: str
    line: str


KNOWN: dict[str, MethodStyle] = {
    "dense": MethodStyle(TEXT_COLOUR, "o", "-"),
    "threshold": MethodStyle("#D55E00", "s", "-"),
    "topk": MethodStyle("#0072B2", "^", "-"),
    "skip_layers": MethodStyle("#009E73", "D", "--"),
    "masked": MethodStyle("#CC79A7", "v", ":"),
    "kv_only": MethodStyle("#3391C9", "P", "-."),
}
SPARE: tuple[MethodStyle, ...] = (
    MethodStyle("#B97F00", "X", "-"),
    MethodStyle("#D55E00", "<", "--"),
    MethodStyle("#0072B2", ">", "--"),
    MethodStyle("#009E73", "p", "-"),
    MethodStyle("#CC79A7", "h", "-"),
    MethodStyle("#3391C9", "*", "--"),
)


@dataclass(frozen=True)
class RangeStyle:
    """How a part of a phase is filled, and the colour of its name inside; greys are what no method changes."""

    colour: str
    text_colour: str
    hatch: str | None = None

    @property
    def patch(self) -> dict[str, Any]:
        """As matplotlib's patches take it; hatches have the colour of the edge."""
        return {"facecolor": self.colour, "hatch": self.hatch, "edgecolor": "#4D4D4D", "linewidth": 0.3}


RANGE_STYLES: dict[str, RangeStyle] = {
    "attention": RangeStyle("#0072B2", "#FDFDFD"),
    "mlp": RangeStyle("#56B4E9", "#111111"),
    "router": RangeStyle("#D55E00", "#FDFDFD"),
    "pack": RangeStyle("#E69F00", "#111111"),
    "scatter": RangeStyle("#CC79A7", "#111111"),
    "cache_append": RangeStyle("#009E73", "#FDFDFD"),
    "norm": RangeStyle("#9A9A9A", "#111111"),
    "embedding": RangeStyle("#9A9A9A", "#111111", "//"),
    "head": RangeStyle("#9A9A9A", "#111111", "xx"),
    "other": RangeStyle("#D9D9D9", "#111111"),
    "device_idle": RangeStyle("#D9D9D9", "#111111", "--"),
}


def method_styles(methods: Iterable[str]) -> dict[str, MethodStyle]:
    """A style per method label: known names have theirs, others take the spare ones in order, over and over."""
    styles: dict[str, MethodStyle] = {}
    num_spare = 0
    for method in methods:
        if method in styles:
            continue
        if method in KNOWN:
            styles[method] = KNOWN[method]
        else:
            styles[method] = SPARE[num_spare % len(SPARE)]
            num_spare += 1
    return styles
