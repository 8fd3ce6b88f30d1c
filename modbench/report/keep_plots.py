"""Which layers keep how much: a heat map of the keep ratio, routed layers along x, methods at cells along y, a panel per phase.

In: a `Summary`. Out: a `Drawing`; none without routed layers. All marks are vectors, so that a page needs no images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from modbench.analysis.rows import MethodRow, Summary
from modbench.report.document import cell_label
from modbench.report.drawing import (
    MAX_LABEL,
    Box,
    Drawable,
    Drawing,
    drawable,
    paint_boxes,
    set_title,
    spread_over,
    tick_text,
)
from modbench.report.escaping import one_line
from modbench.report.style import HEAT_COLOURS, MUTED_COLOUR
from modbench.report.vega import MUTED, Spec, chart, packed
from modbench.units import format_percent

PHASES = ("prefill", "decode")
TITLE = "Which layers keep how much?"
MAX_HEAT_ROWS = 30
NUM_LEVELS = 50  # of colour
ROW_INCHES = 0.17
CAPTION = (
    "Keep ratio of each routed layer, mean of the launches: share of tokens that the layer computes. "
    "Grey: dense layers, which keep all."
)


@dataclass(frozen=True)
class HeatMap:
    """What is drawn: rows, the number of layers, the top of the colour scale as a share, and what is left out."""

    rows: tuple[Drawable, ...]
    num_layers: int
    top: float
    note: str

    def ratios(self, row: MethodRow, phase: str) -> dict[int, float]:
        """The row's keep ratio per routed layer."""
        return dict(row.keep_ratios.get(phase, {}))

    @property
    def labels(self) -> list[str]:
        """Method and cell of each row."""
        return [
            f"{one_line(row.method, MAX_LABEL)} · {one_line(cell_label(cell), 2 * MAX_LABEL)}"
            for cell, row in self.rows
        ]


def heat_map(summary: Summary) -> HeatMap | None:
    """All methods with routed layers; of too many cells some, spread over all of them."""
    rows = [found for found in drawable(summary) if any(found[1].keep_ratios.get(phase) for phase in PHASES)]
    if not rows:
        return None
    cells = list(dict.fromkeys(cell.cell_id for cell, _ in rows))
    kept = spread_over(cells, max(2, MAX_HEAT_ROWS // len({row.method for _, row in rows})))
    shown = [found for found in rows if found[0].cell_id in kept][:MAX_HEAT_ROWS]
    ratios = [ratio for _, row in shown for phase in PHASES for ratio in row.keep_ratios.get(phase, {}).values()]
    num_layers = max(_num_layers(found) for found in shown)
    top = min(1.0, max(0.1, math.ceil(max(ratios) * 10 - 1e-9) / 10))
    note = f" {len(shown)} of {len(rows)} rows are drawn: all are in the tables." if len(shown) < len(rows) else ""
    return HeatMap(tuple(shown), num_layers, top, note)


def _num_layers(found: Drawable) -> int:
    """Of the cell's model; where that is not known, up to the last routed layer."""
    cell, row = found
    geometry = cell.model.get("geometry")
    known = geometry.get("num_hidden_layers") if isinstance(geometry, dict) else None
    last = max(layer for phase in PHASES for layer in row.keep_ratios.get(phase, {0: 0.0}))
    return max(known if isinstance(known, int) else 0, last + 1)


def keep_drawings(summary: Summary) -> list[Drawing]:
    """The heat map, or none."""
    found = heat_map(summary)
    if found is None:
        return []
    height = 1.5 + 2 * (0.45 + ROW_INCHES * max(3, len(found.rows)))
    paint = partial(_paint, found)
    return [Drawing("keep_ratio_layers", CAPTION + found.note, paint, _spec(found), height)]


def _level(ratio: float, top: float) -> int:
    return min(NUM_LEVELS - 1, int(ratio / top * NUM_LEVELS))


def _paint(found: HeatMap, figure: Any) -> None:
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    colours = [
        to_hex(LinearSegmentedColormap.from_list("keep", HEAT_COLOURS)((level + 0.5) / NUM_LEVELS))
        for level in range(NUM_LEVELS)
    ]
    *grid, bar = figure.subplots(3, height_ratios=[*[max(3, len(found.rows))] * 2, 1])
    for axes, phase in zip(grid, PHASES, strict=True):
        _paint_phase(axes, found, phase, colours)
        axes.set_title(phase, loc="left", fontsize="small")
    grid[-1].set_xlabel("layer", fontsize="small")
    for level, colour in enumerate(colours):
        paint_boxes(bar, [(level / NUM_LEVELS, 0.0, 1 / NUM_LEVELS, 1.0)], facecolor=colour, linewidth=0)
    ticks = [0.0, 0.5, 1.0]
    bar.set_xticks(ticks, [tick_text(format_percent(tick * found.top)) for tick in ticks], fontsize="small")
    bar.set(xlim=(0, 1), ylim=(0, 1), yticks=[])
    bar.set_xlabel("keep ratio", fontsize="small")
    bar.spines[:].set_visible(False)
    set_title(figure, TITLE)


def _paint_phase(axes: Any, found: HeatMap, phase: str, colours: Sequence[str]) -> None:
    """Rows from above; behind the routed layers a grey for the dense ones."""
    squares: dict[int, list[Box]] = {}
    for index, (_, row) in enumerate(found.rows):
        for layer, ratio in found.ratios(row, phase).items():
            squares.setdefault(_level(ratio, found.top), []).append((layer - 0.5, index - 0.43, 1.0, 0.86))
    dense = [(-0.5, index - 0.25, float(found.num_layers), 0.5) for index in range(len(found.rows))]
    paint_boxes(axes, dense, facecolor=MUTED_COLOUR, linewidth=0)
    for level, boxes in sorted(squares.items()):
        paint_boxes(axes, boxes, facecolor=colours[level], edgecolor=MUTED_COLOUR, linewidth=0.4)
    axes.set(xlim=(-0.5, found.num_layers - 0.5), ylim=(len(found.rows) - 0.5, -0.5))
    axes.set_yticks(
        range(len(found.rows)), [one_line(label, 2 * MAX_LABEL) for label in found.labels], fontsize="x-small"
    )
    axes.locator_params(axis="x", integer=True)
    axes.tick_params(axis="x", labelsize="small")
    axes.grid(visible=False)


def _spec(found: HeatMap) -> Spec:
    """The same, with the phase for the reader to pick: a row of the data is a square."""
    rows = [
        {"method": one_line(row.method), "panel": panel, "row": label, "layer": layer, "keep": round(ratio, 4)}
        for panel, phase in enumerate(PHASES)
        for label, (_, row) in zip(found.labels, found.rows, strict=True)
        for layer, ratio in found.ratios(row, phase).items()
    ]
    data = packed(rows, ("method", "panel", "row"))
    look = {"labelLimit": 190, "labelFontSize": 10, "ticks": False, "domain": False}
    y: Spec = {"field": "row", "type": "nominal", "sort": found.labels, "title": None, "axis": look}
    ends = [-0.5, found.num_layers - 0.5]
    x = {"type": "quantitative", "scale": {"domain": ends, "nice": False, "zero": False}, "title": "layer"}
    x["axis"] = {"format": "d", "tickMinStep": 1, "grid": False}
    ticks = [0, found.top / 2, found.top]
    legend = {"title": "keep ratio", "values": ticks, "gradientLength": 130}
    legend["labelExpr"] = "format(100 * datum.value, '.2~f') + ' %'"
    scale = {"domain": [0, found.top], "range": list(HEAT_COLOURS), "clamp": True}
    text = "format(100 * datum.keep, 100 * datum.keep >= 9.95 || datum.keep == 0 ? '.0f' : '.1f') + ' %'"
    dense: Spec = {
        "mark": {"type": "bar", "color": MUTED, "opacity": 0.3, "height": {"band": 0.5}, "tooltip": None},
        "transform": [{"aggregate": [{"op": "count", "as": "count"}], "groupby": ["row", "method"]}],
        "encoding": {"y": y, "x": {"datum": ends[0], **x}, "x2": {"datum": ends[1]}},
    }
    squares: Spec = {
        "transform": [
            {"calculate": "datum.layer - 0.5", "as": "low"},
            {"calculate": "datum.layer + 0.5", "as": "high"},
            {"calculate": text, "as": "value"},
        ],
        "mark": {"type": "bar", "height": {"band": 0.9}, "stroke": MUTED, "strokeWidth": 0.4},
        "encoding": {
            "y": y,
            "x": {"field": "low", **x},
            "x2": {"field": "high"},
            "color": {"field": "keep", "type": "quantitative", "scale": scale, "legend": legend},
            "tooltip": [
                {"field": "row", "type": "nominal", "title": "row"},
                {"field": "layer", "type": "nominal", "title": "layer"},
                {"field": "value", "type": "nominal", "title": "keep ratio"},
            ],
        },
    }
    return chart(TITLE, data, [dense, squares], panels=PHASES, height=40 + 15 * len(found.rows))
