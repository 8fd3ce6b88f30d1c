"""What plots share: which rows and cells are drawn, how axes are scaled and labelled, and the legend of methods.

In: a `Summary`. Out: a `Selection` of rows in panels, scales with their ticks, and `Drawing`s, which
`plots.py` turns into SVG and PNG.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modbench.analysis.rows import CellSummary, MethodRow, Summary
from modbench.report.document import axes_label, axis_name, axis_value, cell_label
from modbench.report.escaping import one_line
from modbench.report.style import TEXT_COLOUR, MethodStyle, method_styles
from modbench.units import GIB, KIB, MIB, TIB

PREFERRED_AXIS = "workload.context"
MAX_LABEL, MAX_LABEL_LINES, MAX_LEVEL_LABELS = 20, 4, 5  # characters; lines; labels side by side
LONG_LABEL = 15  # characters, from which on a legend has two columns
MAX_PANELS = 6  # combinations of the axes that are not along x
MAX_ROWS = 240  # of a plot: methods at cells
MAX_BARS = 40  # where there is no numeric axis, a bar stands for each method at each cell
MIN_TICKS, MAX_TICKS = 3, 8
MAX_PLAIN_TICKS = 7  # along a numeric axis with its measured values as ticks
SHADE_OPACITY = 0.6  # of a legend's patch that stands for a shade of every colour
PANEL_INCHES, MARGIN_INCHES, PLOT_INCHES = 2.0, 1.3, 3.9

Drawable = tuple[CellSummary, MethodRow]
Box = tuple[float, float, float, float]  # left, bottom, width, height


@dataclass(frozen=True)
class Drawing:
    """A plot to be drawn: `paint` fills a matplotlib figure, `spec` says the same in Vega-Lite; `name` is a file stem."""

    name: str
    caption: str
    paint: Callable[[Any], None]
    spec: Mapping[str, Any] | None = None
    height: float = PLOT_INCHES


@dataclass(frozen=True)
class Panel:
    """One combination of the axes that are not along x: its name ("" if it is the only one) and its rows in order of x."""

    label: str
    rows: tuple[Drawable, ...]


@dataclass(frozen=True)
class Selection:
    """What is drawn: `axis` is along x (None: a place per cell). `note` says what of the summary is left out, or is empty."""

    axis: str | None
    panels: tuple[Panel, ...]
    note: str

    @property
    def rows(self) -> tuple[Drawable, ...]:
        """Those of all panels."""
        return tuple(row for panel in self.panels for row in panel.rows)

    @property
    def labels(self) -> list[str]:
        """The panels' names."""
        return [panel.label for panel in self.panels]

    @property
    def methods(self) -> list[str]:
        """Those that are drawn, in order."""
        return list(dict.fromkeys(row.method for _, row in self.rows))

    @property
    def xs(self) -> list[float]:
        """Distinct values along a numeric axis, ascending."""
        return sorted({self.x(cell) for cell, _ in self.rows}) if self.axis else []

    def x(self, cell: CellSummary) -> Any:
        """Where the cell stands along x: its value of the axis, or else its id."""
        return cell.axes[self.axis] if self.axis else cell.cell_id


@dataclass(frozen=True)
class Scale:
    """One axis: its ends and where its ticks are, in base units."""

    low: float
    high: float
    ticks: tuple[float, ...]


def plot_axis(summary: Summary) -> str | None:
    """The dotted axis along x: context or else the first numeric axis that varies; None: bars per cell."""
    names = dict.fromkeys(key for cell in summary.cells for key in cell.axes)
    varying = [name for name in names if len(_numbers(summary, name)) > 1]
    return PREFERRED_AXIS if PREFERRED_AXIS in varying else next(iter(varying), None)


def drawable(summary: Summary) -> Iterator[Drawable]:
    """Rows that may be drawn: a wrong method's numbers count for nothing."""
    for cell in summary.cells:
        for row in cell.rows:
            if not row.has_failed and not row.is_wrong:
                yield cell, row


def is_positive(value: float | None) -> bool:
    """True for a number that can be drawn, also on a logarithmic axis; records may come from anybody."""
    return value is not None and 0 < value < math.inf


def styles_of(summary: Summary) -> dict[str, MethodStyle]:
    """The style of every method of the summary, drawn or not, so that plots of one report agree."""
    return method_styles(row.method for cell in summary.all_cells for row in cell.rows)


def select(summary: Summary, has_value: Callable[[MethodRow], bool]) -> Selection:
    """The rows with a value: in panels along a numeric axis, thinned where there are too many to read."""
    axis = plot_axis(summary)
    rows = [(cell, row) for cell, row in drawable(summary) if has_value(row)]
    if axis is None:
        return _cells_only(rows)
    members: dict[str, list[Drawable]] = {}
    for cell, row in sorted(rows, key=lambda found: found[0].axes[axis]):
        members.setdefault(_other_axes(cell, axis), []).append((cell, row))
    labels = list(dict.fromkeys(_other_axes(cell, axis) for cell, _ in rows))
    shown, left_out = labels[:MAX_PANELS], labels[MAX_PANELS:]
    num_places = max(2, MAX_ROWS // max(1, len(shown) * len({row.method for _, row in rows})))
    places = sorted({cell.axes[axis] for cell, _ in rows})
    kept = set(spread_over(places, num_places))
    panels = [Panel(label, tuple(row for row in members[label] if row[0].axes[axis] in kept)) for label in shown]
    notes = []
    if len(kept) < len(places):
        notes.append(f"{len(kept)} of {len(places)} values of {axis_name(axis)} are drawn")
    if left_out:
        named = "; ".join(one_line(label, 2 * MAX_LABEL) for label in left_out[:MAX_PANELS])
        more = len(left_out) - MAX_PANELS
        notes.append(f"not drawn: {named}" + (f"; and {more} more" if more > 0 else ""))
    return Selection(axis, tuple(panel for panel in panels if panel.rows), _note(notes))


def _cells_only(rows: Sequence[Drawable]) -> Selection:
    cells = list(dict.fromkeys(cell.cell_id for cell, _ in rows))
    num_methods = max(1, len({row.method for _, row in rows}))
    kept = set(cells[: max(1, MAX_BARS // num_methods)])
    notes = [f"the first {len(kept)} of {len(cells)} cells are drawn"] if len(kept) < len(cells) else []
    shown = tuple(found for found in rows if found[0].cell_id in kept)
    return Selection(None, (Panel("", shown),) if shown else (), _note(notes))


def _note(parts: Sequence[str]) -> str:
    text = f"{'; '.join(parts)}: all are in the tables."
    return f" {text[0].upper()}{text[1:]}" if parts else ""


def _other_axes(cell: CellSummary, axis: str) -> str:
    others = {key: value for key, value in cell.axes.items() if key != axis}
    return axes_label(others) if others else ""


def _numbers(summary: Summary, name: str) -> set[float]:
    values = [cell.axes.get(name) for cell in summary.cells]
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return {value for value in values if value is not None} if is_number else set()


def spread_over(values: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the values, evenly spread over their order, both ends among them."""
    if len(values) <= count:
        return list(values)
    last = len(values) - 1
    return [values[index] for index in sorted({round(step * last / (count - 1)) for step in range(count)})]


def log_scale(values: Iterable[float], is_binary: bool = False) -> Scale:
    """A logarithmic axis around positive values: the coarsest of our tick rows that has enough of them inside."""
    found = list(values)
    low, high = min(found) / 1.12, max(found) * 1.12
    base = 2.0 if is_binary else 10.0
    rows = (
        ((1.0,), (1.0, 1.5), (1.0, 1.25, 1.5, 1.75))
        if is_binary
        else ((1.0,), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
    )
    exponents = range(math.floor(math.log(low, base)), math.ceil(math.log(high, base)) + 1)
    for factors in rows:
        ticks = [factor * base**exponent for exponent in exponents for factor in factors]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= MIN_TICKS:
            return Scale(low, high, tuple(spread_over(ticks, MAX_TICKS)))
    inside = [tick for tick in linear_scale(high, is_binary, 12).ticks if low <= tick <= high]
    return Scale(low, high, tuple(inside or [found[0]]))


def linear_scale(top: float, is_binary: bool = False, num_ticks: int = 5) -> Scale:
    """An axis from 0 with room above `top`; steps are round in the unit that the values will be printed in."""
    unit = next((size for size in (TIB, GIB, MIB, KIB) if top >= size), 1) if is_binary else 1
    rough = top / unit / num_ticks
    decade = 10.0 ** math.floor(math.log10(rough))
    step = min((1, 2, 2.5, 5, 10), key=lambda factor: abs(math.log(factor * decade / rough))) * decade * unit
    return Scale(0.0, top * 1.12, tuple(step * index for index in range(int(top * 1.12 / step) + 1)))


def widened(scale: Scale, is_log: bool) -> Scale:
    """The axis with some room at both ends, for markers."""
    if is_log:
        room = (scale.high / scale.low) ** 0.06
        return Scale(scale.low / room, scale.high * room, scale.ticks)
    room = 0.06 * (scale.high - scale.low)
    return Scale(scale.low - room, scale.high + room, scale.ticks)


def tick_text(text: str) -> str:
    """A round number without the zeros of its three digits: `10.0 s` -> `10 s`, `1.50 s` -> `1.5 s`."""
    return re.sub(r"(\.\d*?)0+(?=\D)", r"\1", text).replace(". ", " ").replace(".×", "×")


def plain_ticks(values: Sequence[float], num_ticks: int = MAX_PLAIN_TICKS) -> dict[float, str]:
    """Ascending measured values along a numeric axis, as ticks with their texts; not more than fit side by side.

    The axis is logarithmic where all values are positive: there the ticks are about as far from each other as their logarithms.
    """
    shown = list(values)
    if len(values) > num_ticks and values[0] > 0:
        step = math.log(values[-1] / values[0]) / (num_ticks - 1)
        shown = [values[0]]
        for index in range(1, num_ticks):
            place = math.log(values[0]) + index * step
            value = min(values, key=lambda value: abs(math.log(value) - place))
            if math.log(value / shown[-1]) > 0.7 * step:
                shown.append(value)
    elif len(values) > num_ticks:
        shown = spread_over(values, num_ticks)
    return {value: axis_value(int(value) if float(value).is_integer() else value) for value in shown}


def axis_title(axis: str) -> str:
    """The name of a numeric axis with its unit."""
    return axis_name(axis) + {"workload.context": " (tokens)", "workload.batch": " (rows)"}.get(axis, "")


def bar_label(cell: CellSummary) -> list[str]:
    """An axis of the cell per line, each cut so that the bars keep their room."""
    return [one_line(part, MAX_LABEL) for part in cell_label(cell).split(" · ")[:MAX_LABEL_LINES]]


def panel_axes(figure: Any, panels: Sequence[Panel]) -> list[Any]:
    """Small multiples, two side by side, with common scales; a single panel fills the figure."""
    if len(panels) < 2:
        return [figure.subplots()]
    num_lines = math.ceil(len(panels) / 2)
    grid = figure.subplots(num_lines, 2, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    for axes, panel in zip(grid, panels, strict=False):
        axes.set_title(one_line(panel.label, 2 * MAX_LABEL), loc="left", fontsize="small")
    if len(panels) < len(grid):
        grid[-1].set_visible(False)
        grid[-3].tick_params(axis="x", labelbottom=True)
    return grid[: len(panels)]


def panel_height(panels: Sequence[Panel]) -> float:
    """Inches for so many panels."""
    return PLOT_INCHES if len(panels) < 2 else MARGIN_INCHES + PANEL_INCHES * math.ceil(len(panels) / 2)


def paint_boxes(axes: Any, boxes: Sequence[Box], **look: Any) -> None:
    """Boxes of one look as one path: many of them stay small in an SVG."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    corners = ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))
    vertices = [
        (left + dx * width, bottom + dy * height) for left, bottom, width, height in boxes for dx, dy in corners
    ]
    axes.add_patch(PathPatch(Path(vertices, codes * len(boxes)), **look))


def set_title(figure: Any, title: str) -> None:
    """The title above everything, from the left end of the figure on."""
    figure.suptitle(title, x=0.02, ha="left", fontweight="bold", fontsize="medium")


def method_legend(
    figure: Any,
    styles: Mapping[str, MethodStyle],
    methods: Iterable[str],
    mark: str = "line",
    shades: Mapping[str, float] | None = None,
) -> None:
    """The drawn methods below the figure, as `line`, `marker` or `patch`; behind them names of opacities."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    drawn = set(methods)
    shown = {method: style for method, style in styles.items() if method in drawn}
    handles = [
        Patch(color=style.colour)
        if mark == "patch"
        else Line2D([], [], color=style.colour, marker=style.marker, linestyle=style.line if mark == "line" else "none")
        for style in shown.values()
    ]
    labels = [f" {one_line(method, MAX_LABEL)}" for method in shown]  # a label that starts with "_" would be left out
    for name, opacity in (shades or {}).items():
        handles.append(Patch(color=TEXT_COLOUR, alpha=opacity * SHADE_OPACITY, linewidth=0))
        labels.append(name)
    columns = 2 if len(labels) in (2, 4) or max(map(len, labels)) > LONG_LABEL else 3
    look = {"frameon": False, "fontsize": "small", "handlelength": 2.6 if mark == "line" else 1.2}
    figure.legend(handles, labels, loc="outside lower left", ncols=columns, **look)
