"""The plots of a comparison in Vega-Lite, for pages that run scripts. In: the rows of one metric. Out: specs with their data."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from modbench.report.comparison_rows import ChangeRow, TimeRow, change_scale, change_text, time_scale, time_text
from modbench.report.style import TEXT_COLOUR, method_styles
from modbench.report.vega import MUTED, Data, Spec, chart, method_colour, number
from modbench.units import format_change, format_change_interval, format_seconds

ROW_PIXELS = 24
MAX_LABEL_PIXELS = 190


def forest_spec(title: str, rows: Sequence[ChangeRow]) -> Spec:
    """Changes with their intervals over the margin, a row each; shapes and colours are the verdicts'."""
    styles = list(dict.fromkeys(row.style for row in rows))
    words = [style.word for style in styles]
    verdict: Spec = {"field": "verdict", "type": "nominal", "legend": {"title": None}}
    colour = {**verdict, "scale": {"domain": words, "range": [_page_colour(style.colour) for style in styles]}}
    shape = {**verdict, "scale": {"domain": words, "range": [style.shape for style in styles]}}
    scale = change_scale(rows)
    x = number("change", "change, candidate / base", scale, [change_text(tick) for tick in scale.ticks])
    point = {"type": "point", "filled": True, "size": 90, "opacity": 1}
    layers = [
        _layer({"type": "bar", "color": MUTED, "opacity": 0.22}, x={**x, "field": "margin_low"}, x2="margin_high"),
        {"mark": {"type": "rule", "color": "currentColor"}, "encoding": {"x": {**_without_field(x), "datum": 0}}},
        _layer({"type": "rule", "strokeWidth": 2}, x={**x, "field": "low"}, x2="high", color=colour),
        _layer(point, x=x, color=colour, shape=shape),
    ]
    values = [
        {
            **_names(row),
            "change": row.change,
            "low": row.interval[0] if row.interval else None,
            "high": row.interval[1] if row.interval else None,
            "margin_low": row.margin[0],
            "margin_high": row.margin[1],
            "verdict": row.style.word,
            "text": _told(row),
        }
        for row in rows
    ]
    return _spec(title, values, layers, [("text", "change"), ("verdict", "verdict")])


def times_spec(title: str, rows: Sequence[TimeRow]) -> Spec:
    """Times of both sides, a row each: open the base, filled the candidate; colours are the methods'."""
    colour = method_colour(method_styles(row.method for row in rows))
    scale = time_scale(rows)
    x = number("base_s", "time", scale, [time_text(tick) for tick in scale.ticks], is_log=True)
    open_point = {"type": "point", "filled": False, "size": 110, "opacity": 1, "strokeWidth": 1.5}
    layers = [
        _layer({"type": "rule"}, x=x, x2="candidate_s", color=colour),
        _layer(open_point, x=x, color=colour),
        _layer(
            {"type": "point", "filled": True, "size": 40, "opacity": 1}, x={**x, "field": "candidate_s"}, color=colour
        ),
    ]
    values = [
        {
            **_names(row),
            "base_s": row.base_s,
            "candidate_s": row.candidate_s,
            "base": format_seconds(row.base_s),
            "candidate": format_seconds(row.candidate_s),
        }
        for row in rows
    ]
    return _spec(title, values, layers, [("base", "base"), ("candidate", "candidate")])


def _layer(mark: Spec, x2: str = "", **encoding: Any) -> Spec:
    return {"mark": mark, "encoding": {**encoding, **({"x2": {"field": x2}} if x2 else {})}}


def _without_field(channel: Spec) -> Spec:
    return {key: value for key, value in channel.items() if key != "field"}


def _spec(title: str, values: list[Spec], layers: list[Spec], shown: Iterable[tuple[str, str]]) -> Spec:
    _tell_apart(values)
    tooltip = [{"field": field, "type": "nominal", "title": name} for field, name in (("row", "row"), *shown)]
    y = {
        "field": "row",
        "type": "nominal",
        "sort": None,
        "scale": {"padding": 0},
        "axis": {"title": None, "labelLimit": MAX_LABEL_PIXELS, "ticks": False, "domain": False},
    }
    spec = chart(title, Data(values, [], ()), layers, height=ROW_PIXELS * len(values))
    return {**spec, "encoding": {"y": y, "tooltip": tooltip}}


def _tell_apart(values: list[Spec]) -> None:
    """Number rows that have one name, since Vega draws these in one place."""
    seen: Counter[str] = Counter()
    for value in values:
        seen[value["row"]] += 1
        if seen[value["row"]] > 1:
            value["row"] += f" ({seen[value['row']]})"


def _names(row: ChangeRow | TimeRow) -> Spec:
    return {"method": row.method, "row": row.label}


def _told(row: ChangeRow) -> str:
    text = format_change(1 + row.change)
    if row.interval is None:
        return text
    return f"{text} {format_change_interval((1 + row.interval[0], 1 + row.interval[1]))}"


def _page_colour(colour: str) -> str:
    return "currentColor" if colour == TEXT_COLOUR else colour
