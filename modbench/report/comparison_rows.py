"""What a plot of a comparison draws: a row per change of a time, or per time of both sides. In: `ComparedSides`. Out: rows.

Only as many are drawn as can be read; of changes those with the gravest verdicts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from modbench.analysis.comparison import EXIT_CODES, GRAVEST_FIRST, ComparedSides, Comparison
from modbench.analysis.verdict import Verdict
from modbench.report.comparison import REFUSED, metric_name
from modbench.report.document import axes_label
from modbench.report.drawing import Scale, linear_scale, log_scale, spread_over, tick_text, widened
from modbench.report.escaping import one_line
from modbench.report.style import TEXT_COLOUR
from modbench.units import format_change, format_seconds

MAX_ROWS = 36
MAX_LABEL = 36  # characters
MAX_STEPS, MAX_TIME_TICKS = 2, 3  # along x, that fit beside the labels of the rows on a phone
LATENCIES = ("ttft_s", "tpot_s")


@dataclass(frozen=True)
class VerdictStyle:
    """How a verdict is drawn: the triangles point to where their changes lie."""

    word: str
    colour: str
    marker: str  # matplotlib's
    shape: str  # Vega's


OPEN = VerdictStyle("inconclusive", TEXT_COLOUR, "o", "circle")
VERDICT_STYLES: dict[Verdict | None, VerdictStyle] = {
    Verdict.SLOWER: VerdictStyle("slower", "#D55E00", ">", "triangle-right"),
    Verdict.FASTER: VerdictStyle("faster", "#009E73", "<", "triangle-left"),
    Verdict.SAME: VerdictStyle("same", "#0072B2", "s", "square"),
}


@dataclass(frozen=True)
class ChangeRow:
    """A change of a time as it is drawn, in shares; `margin` is the smallest and the largest that counts as the same."""

    panel: str
    label: str
    method: str
    change: float
    interval: tuple[float, float] | None
    margin: tuple[float, float]
    style: VerdictStyle


@dataclass(frozen=True)
class TimeRow:
    """A time in seconds on both sides."""

    panel: str
    label: str
    method: str
    base_s: float
    candidate_s: float


def change_rows(compared: ComparedSides) -> tuple[list[ChangeRow], int]:
    """Those that are drawn, panel by panel in the order of the comparison, and how many there are."""
    lines = [
        line
        for line in compared.judged
        if line.ground in ("pairs", "ratio_to_dense") and line.ratio is not None and line.verdict not in REFUSED
    ]
    chosen = {id(line) for line in sorted(lines, key=_gravity)[:MAX_ROWS]}
    rows = [_change_row(line, compared) for line in lines if id(line) in chosen]
    return sorted(rows, key=lambda row: row.panel, reverse=True), len(lines)  # TTFT before TPOT


def time_rows(compared: ComparedSides) -> list[TimeRow]:
    """Absolute times that both sides have and that may stand beside each other."""
    return [
        TimeRow(metric_name(line.metric), _label(line), one_line(line.method), line.base, line.candidate)
        for metric in LATENCIES
        for line in compared.comparisons
        if line.metric == metric and line.ground in ("pairs", "advisory") and line.base and line.candidate
    ]


def change_scale(rows: Sequence[ChangeRow]) -> Scale:
    """Around all changes, intervals and margins, with round ticks on both sides of 0."""
    ends = [end for row in rows for end in (0.0, row.change, *row.margin, *(row.interval or ()))]
    low, high = min(ends), max(ends)
    steps = linear_scale(max(high, -low), num_ticks=MAX_STEPS).ticks
    ticks = sorted({*steps, *(-step for step in steps)})
    return widened(Scale(low, high, tuple(tick for tick in ticks if low <= tick <= high)), is_log=False)


def time_scale(rows: Sequence[TimeRow]) -> Scale:
    """A logarithmic axis around the times of both sides."""
    scale = log_scale([time for row in rows for time in (row.base_s, row.candidate_s)])
    return widened(Scale(scale.low, scale.high, tuple(spread_over(scale.ticks, MAX_TIME_TICKS))), is_log=True)


def change_text(change: float) -> str:
    """A round change on an axis."""
    return tick_text(format_change(1 + change))


def time_text(time_s: float) -> str:
    """A round time on an axis."""
    return tick_text(format_seconds(time_s))


def _gravity(line: Comparison) -> tuple[int, float]:
    code = EXIT_CODES[line.verdict] if line.verdict is not None else 0
    place = GRAVEST_FIRST.index(code) if code in GRAVEST_FIRST else len(GRAVEST_FIRST)
    return place, -abs(math.log(line.ratio or 1.0))


def _change_row(line: Comparison, compared: ComparedSides) -> ChangeRow:
    delta = compared.margins.get(line.metric, compared.tolerance)
    low_high = None if line.interval is None else (line.interval[0] - 1, line.interval[1] - 1)
    relative = " relative to dense" if line.ground == "ratio_to_dense" else ""
    return ChangeRow(
        panel=f"{metric_name(line.metric)}{relative}",
        label=_label(line),
        method=one_line(line.method),
        change=(line.ratio or 1.0) - 1,
        interval=low_high,
        margin=(1 / (1 + delta) - 1, delta),
        style=VERDICT_STYLES.get(line.verdict, OPEN),
    )


def _label(line: Comparison) -> str:
    return row_label(line.method, axes_label(line.axes))


def row_label(method: str, cell: str) -> str:
    """The method, cut to half of the room, and as much of its cell as the rest has room for."""
    return one_line(f"{one_line(method, MAX_LABEL // 2)}, {cell}", MAX_LABEL)
