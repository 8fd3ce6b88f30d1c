"""Plots of a comparison: every change of a time with its interval and the margin, and both sides' times beside each other.

In: `ComparedSides`, and rows of times. Out: `Plot`s, static and as Vega-Lite.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from modbench.analysis.comparison import ComparedSides
from modbench.report.comparison_rows import MAX_ROWS, OPEN, ChangeRow, TimeRow, change_rows
from modbench.report.comparison_specs import forest_spec, times_spec
from modbench.report.plots import Plot, draw_plot
from modbench.report.style import TEXT_COLOUR, method_styles
from modbench.units import format_change, format_seconds

ROW_INCHES, PANEL_INCHES, MARGIN_INCHES = 0.21, 0.75, 0.55
BAND_COLOUR = "#808A94"
WIDE_RANGE = 50  # largest / smallest time, from which on only powers of ten have a tick


def draw_changes(compared: ComparedSides, name: str) -> list[Plot]:
    """Every change of a time that was judged; none where there is none."""
    rows, num_rows = change_rows(compared)
    if not rows:
        return []
    caption = (
        "Change of times, candidate / base, with its exact interval; right of 0 is slower. "
        f"Shaded: the margin that counts as the same.{_left_out(len(rows), num_rows)}"
    )
    return [replace(draw_plot(name, caption, partial(_draw_changes, rows), _height(rows)), spec=forest_spec(rows))]


def draw_times(rows: Sequence[TimeRow], name: str, is_one_work: bool = True) -> list[Plot]:
    """Times of both sides beside each other, the first that can be read; none where there are none."""
    shown = rows[:MAX_ROWS]
    if not shown:
        return []
    caption = (
        f"Times of both sides{'' if is_one_work else ', each of its own work'}: open is the base, filled the candidate; "
        f"medians over launches. No verdict rests on them.{_left_out(len(shown), len(rows))}"
    )
    return [replace(draw_plot(name, caption, partial(_draw_times, shown), _height(shown)), spec=times_spec(shown))]


def _left_out(num_drawn: int, num_rows: int) -> str:
    return f" {num_rows - num_drawn} more are in the tables." if num_rows > num_drawn else ""


def _height(rows: Sequence[ChangeRow] | Sequence[TimeRow]) -> float:
    return MARGIN_INCHES + PANEL_INCHES * len({row.panel for row in rows}) + ROW_INCHES * len(rows)


def _panels(figure: Any, rows: Sequence[Any], has_one_x: bool) -> list[tuple[Any, list[Any]]]:
    """Axes with their rows, as high as these need."""
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(row.panel, []).append(row)
    heights = [len(members) + 0.8 for members in groups.values()]
    column = figure.subplots(len(groups), sharex=has_one_x, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (panel, members) in zip(column, groups.items(), strict=True):
        axes.set_title(panel, loc="left", fontweight="bold", fontsize="small")
        axes.set_yticks(range(len(members)), [row.label for row in members], fontsize="x-small")
        axes.set_ylim(len(members) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="x", labelsize="x-small")
    return list(zip(column, groups.values(), strict=True))


def _draw_changes(rows: Sequence[ChangeRow], figure: Any) -> None:
    for axes, members in _panels(figure, rows, has_one_x=True):
        axes.axvline(0, color=TEXT_COLOUR, linewidth=0.8)
        for place, row in enumerate(members):
            style = row.style
            axes.fill_betweenx([place - 0.5, place + 0.5], *row.margin, color=BAND_COLOUR, alpha=0.22, linewidth=0)
            if row.interval is not None:
                axes.plot(row.interval, [place, place], color=style.colour, linewidth=1.6)
            face = "none" if style is OPEN else style.colour
            axes.plot(row.change, place, style.marker, color=style.colour, markerfacecolor=face, markersize=6)
            _remark(axes, place, format_change(1 + row.change))
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter(lambda value, _: format_change(1 + value).replace(".0 ", " "))
    _legend(figure, rows)


def _draw_times(rows: Sequence[TimeRow], figure: Any) -> None:
    from matplotlib.ticker import LogLocator

    styles = method_styles(row.method for row in rows)
    for axes, members in _panels(figure, rows, has_one_x=False):
        axes.set_xscale("log")
        for place, row in enumerate(members):
            style = styles[row.method]
            axes.plot([row.base_s, row.candidate_s], [place, place], color=style.colour, linewidth=1.2)
            axes.plot(row.base_s, place, "o", color=style.colour, markerfacecolor="none", markersize=7)
            axes.plot(row.candidate_s, place, "o", color=style.colour, markersize=4)
            _remark(axes, place, f"{format_seconds(row.base_s)} → {format_seconds(row.candidate_s)}")
        times = [time for row in members for time in (row.base_s, row.candidate_s)]
        is_wide = max(times) / min(times) > WIDE_RANGE
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if is_wide else (1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(lambda value, _: format_seconds(value).replace(".00 ", " ").replace(".0 ", " "))
        axes.minorticks_off()


def _remark(axes: Any, place: int, text: str) -> None:
    """The numbers, at the right end of the row."""
    where = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "annotation_clip": False}
    axes.annotate(text, (1, place), xycoords=axes.get_yaxis_transform(), fontsize="x-small", color=TEXT_COLOUR, **where)


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
    figure.legend(
        handles=handles, loc="outside lower left", ncols=5, frameon=False, fontsize="x-small", handlelength=1.4
    )
