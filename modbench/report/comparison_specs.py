"""The plots of a comparison in Vega-Lite, for pages that run scripts. In: rows as they are drawn. Out: specs with their data."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from modbench.report.comparison_rows import ChangeRow, TimeRow
from modbench.report.style import TEXT_COLOUR, method_styles
from modbench.units import format_change, format_change_interval, format_seconds

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
GREY = "#808A94"
CONFIG = {
    "axis": {
        **dict.fromkeys(("labelColor", "titleColor"), "currentColor"),
        **dict.fromkeys(("domainColor", "tickColor"), GREY),
        "gridColor": "#808A9473",
    },
    "view": {"stroke": None},
}
ROW_PIXELS = 22


def forest_spec(rows: Sequence[ChangeRow]) -> dict[str, Any]:
    """Changes with their intervals over the margin, a row each; shapes and colours are the verdicts'."""
    styles = list(dict.fromkeys(row.style for row in rows))
    words = [style.word for style in styles]
    verdict = {"field": "verdict", "type": "nominal", "legend": None}
    colour = {**verdict, "scale": {"domain": words, "range": [_page_colour(style.colour) for style in styles]}}
    shape = {**verdict, "scale": {"domain": words, "range": [style.shape for style in styles]}}
    x = {"type": "quantitative", "axis": {"title": "change, candidate / base", "format": "+.1%"}}
    point = {"type": "point", "filled": True, "size": 90}
    layers = [
        _layer({"type": "bar", "color": GREY, "opacity": 0.22}, x={**x, "field": "margin_low"}, x2="margin_high"),
        {"mark": {"type": "rule", "color": "currentColor"}, "encoding": {"x": {**x, "datum": 0}}},
        _layer({"type": "rule", "strokeWidth": 2}, x={**x, "field": "low"}, x2="high", color=colour),
        _layer(point, x={**x, "field": "change"}, color=colour, shape=shape),
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
            "text": _change_text(row),
        }
        for row in rows
    ]
    return _spec(values, layers, [("text", "change"), ("verdict", "verdict")])


def times_spec(rows: Sequence[TimeRow]) -> dict[str, Any]:
    """Times of both sides, a row each: open the base, filled the candidate; colours are the methods'."""
    styles = method_styles(row.method for row in rows)
    domain = {"domain": list(styles), "range": [_page_colour(style.colour) for style in styles.values()]}
    colour = {"field": "method", "type": "nominal", "legend": None, "scale": domain}
    x = {"type": "quantitative", "scale": {"type": "log"}, "axis": {"title": "seconds"}}
    layers = [
        _layer({"type": "rule"}, x={**x, "field": "base_s"}, x2="candidate_s", color=colour),
        _layer({"type": "point", "filled": False, "size": 90}, x={**x, "field": "base_s"}, color=colour),
        _layer({"type": "point", "filled": True, "size": 40}, x={**x, "field": "candidate_s"}, color=colour),
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
    return _spec(values, layers, [("base", "base"), ("candidate", "candidate")])


def _layer(mark: dict[str, Any], x2: str = "", **encoding: Any) -> dict[str, Any]:
    return {"mark": mark, "encoding": {**encoding, **({"x2": {"field": x2}} if x2 else {})}}


def _spec(
    values: list[dict[str, Any]], layers: list[dict[str, Any]], shown: Iterable[tuple[str, str]]
) -> dict[str, Any]:
    _tell_apart(values)
    tooltip = [{"field": field, "type": "nominal", "title": title} for field, title in (("row", "row"), *shown)]
    y = {
        "field": "row",
        "type": "nominal",
        "sort": None,
        "scale": {"padding": 0},
        "axis": {"title": None, "labelLimit": 280, "ticks": False, "domain": False},
    }
    return {
        "$schema": SCHEMA,
        "width": "container",
        "height": ROW_PIXELS * len(values),
        "background": None,
        "params": [{"name": "hidden", "value": []}],
        "data": {"values": values},
        "transform": [{"filter": "indexof(hidden, datum.method) < 0"}],
        "encoding": {"y": y, "tooltip": tooltip},
        "layer": layers,
        "config": CONFIG,
    }


def _tell_apart(values: list[dict[str, Any]]) -> None:
    """Number rows that have one name, since Vega draws these in one place."""
    seen: Counter[str] = Counter()
    for value in values:
        seen[value["row"]] += 1
        if seen[value["row"]] > 1:
            value["row"] += f" ({seen[value['row']]})"


def _names(row: ChangeRow | TimeRow) -> dict[str, Any]:
    return {"method": row.method, "row": f"{row.panel}: {row.label}"}


def _change_text(row: ChangeRow) -> str:
    text = format_change(1 + row.change)
    if row.interval is None:
        return text
    return f"{text} {format_change_interval((1 + row.interval[0], 1 + row.interval[1]))}"


def _page_colour(colour: str) -> str:
    return "currentColor" if colour == TEXT_COLOUR else colour
