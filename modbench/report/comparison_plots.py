"""Plots of a comparison: every change of a time with its interval and the margin, and both sides' times beside each other.

In: `ComparedSides`, and rows of times. Out: `Plot`s, static and as Vega-Lite.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from modbench.analysis.comparison import ComparedSides
from modbench.report.comparison_rows import (
    MAX_ROWS,
    OPEN,
    ChangeRow,
    TimeRow,
    change_rows,
    change_scale,
    change_text,
    time_scale,
    time_text,
)
from modbench.report.comparison_specs import forest_spec, times_spec
from modbench.report.drawing import Scale, set_title
from modbench.report.plots import Plot, draw_plot
from modbench.report.style import TEXT_COLOUR, method_styles
from modbench.units import format_change, format_seconds

ROW_INCHES, MARGIN_INCHES = 0.25, 1.15
BAND_COLOUR = "#808A94"


def draw_changes(compared: ComparedSides, name: str) -> list[Plot]:
    """Every change of a time that was judged, a plot per metric; none where there is none."""
    rows, num_rows = change_rows(compared)
    caption = (
        "Change of times, candidate / base, with its exact interval; right of 0 is slower. "
        f"Shaded: the margin that counts as the same.{_left_out(len(rows), num_rows)}"
    )
    return [
        draw_plot(
            f"{name}-{number}",
            caption,
            partial(_draw_changes, f"Change of {metric}", members),
            _height(members),
            forest_spec(f"Change of {metric}", members),
        )
        for number, (metric, members) in enumerate(_by_panel(rows).items(), 1)
    ]


def draw_times(rows: Sequence[TimeRow], name: str, is_one_work: bool = True) -> list[Plot]:
    """Times of both sides beside each other, the first that can be read, a plot per metric; none where there are none."""
    shown = rows[:MAX_ROWS]
    caption = (
        f"Times of both sides{'' if is_one_work else ', each of its own work'}: open is the base, filled the candidate; "
        f"medians over launches. No verdict rests on them.{_left_out(len(shown), len(rows))}"
    )
    return [
        draw_plot(
            f"{name}-{number}",
            caption,
            partial(_draw_times, f"{metric} of both sides", members),
            _height(members),
            times_spec(f"{metric} of both sides", members),
        )
        for number, (metric, members) in enumerate(_by_panel(shown).items(), 1)
    ]


def _by_panel(rows: Sequence[Any]) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(row.panel, []).append(row)
    return groups


def _left_out(num_drawn: int, num_rows: int) -> str:
    return f" {num_rows - num_drawn} more are in the tables." if num_rows > num_drawn else ""


def _height(rows: Sequence[ChangeRow] | Sequence[TimeRow]) -> float:
    return MARGIN_INCHES + ROW_INCHES * len(rows)


def _axes(figure: Any, title: str, labels: Sequence[str], scale: Scale, texts: Sequence[str], x: str = "linear") -> Any:
    """Axes with a row per label, from above; `x` is how its scale is spaced."""
    axes = figure.subplots()
    axes.set_xscale(x)
    set_title(figure, title)
    axes.set_yticks(range(len(labels)), labels, fontsize="small")
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlim(scale.low, scale.high)
    axes.set_xticks(scale.ticks, texts, fontsize="small")
    axes.minorticks_off()
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    return axes


def _draw_changes(title: str, rows: Sequence[ChangeRow], figure: Any) -> None:
    scale = change_scale(rows)
    axes = _axes(figure, title, [row.label for row in rows], scale, [change_text(tick) for tick in scale.ticks])
    axes.axvline(0, color=TEXT_COLOUR, linewidth=0.8)
    for place, row in enumerate(rows):
        style = row.style
        axes.fill_betweenx([place - 0.5, place + 0.5], *row.margin, color=BAND_COLOUR, alpha=0.22, linewidth=0)
        if row.interval is not None:
            axes.plot(row.interval, [place, place], color=style.colour, linewidth=1.6)
        face = "none" if style is OPEN else style.colour
        axes.plot(row.change, place, style.marker, color=style.colour, markerfacecolor=face, markersize=6)
        _remark(axes, place, format_change(1 + row.change))
    _legend(figure, rows)


def _draw_times(title: str, rows: Sequence[TimeRow], figure: Any) -> None:
    styles, scale = method_styles(row.method for row in rows), time_scale(rows)
    axes = _axes(figure, title, [row.label for row in rows], scale, [time_text(tick) for tick in scale.ticks], "log")
    for place, row in enumerate(rows):
        style = styles[row.method]
        axes.plot([row.base_s, row.candidate_s], [place, place], color=style.colour, linewidth=1.2)
        axes.plot(row.base_s, place, "o", color=style.colour, markerfacecolor="none", markersize=7)
        axes.plot(row.candidate_s, place, "o", color=style.colour, markersize=4)
        _remark(axes, place, f"{format_seconds(row.base_s)} → {format_seconds(row.candidate_s)}")


def _remark(axes: Any, place: int, text: str) -> None:
    """The numbers, at the right end of the row."""
    where = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "annotation_clip": False}
    axes.annotate(text, (1, place), xycoords=axes.get_yaxis_transform(), fontsize="small", color=TEXT_COLOUR, **where)


def _legend(figure: Any, rows: Sequence[ChangeRow]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(facecolor=BAND_COLOUR, alpha=0.22, label="margin")]
    for style in dict.fromkeys(row.style for row in rows):
        face = "none" if style is OPEN else style.colour
        look: dict[str, Any] = {
            "color": style.colour,
            "marker": style.marker,
            "markerfacecolor": face,
            "linestyle": "none",
        }
        handles.append(Line2D([], [], **look, label=style.word))
    figure.legend(handles=handles, loc="outside lower left", ncols=5, frameon=False, fontsize="small", handlelength=1.4)
