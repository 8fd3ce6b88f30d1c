"""What all Vega-Lite specs share: frame, look, colours of methods, packed data, scales with our tick texts.

In: rows of data and layers. Out: specs (dicts) of Vega-Lite 6 that draw the same as the static plots: text and the baseline in the
page's text colour, no background, a parameter `hidden` with the names of methods to leave out. Texts from outside are data, titles
or labels and never part of an expression, so that they stay texts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modbench.report.drawing import MAX_LABEL, Scale
from modbench.report.escaping import one_line
from modbench.report.style import TEXT_COLOUR, MethodStyle
from modbench.report.tables import NOTHING

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
HEIGHT = 280
MUTED = "#808A94"
DASHES: dict[str, list[int]] = {"-": [1, 0], "--": [6, 3], ":": [2, 2], "-.": [7, 2, 2, 2]}
SHAPES: dict[str, str] = {  # matplotlib's markers; those without a name are paths within a unit circle
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "<": "triangle-left",
    ">": "triangle-right",
    "X": "M-.9-.5L-.5-.9L0-.4L.5-.9L.9-.5L.4 0L.9.5L.5.9L0 .4L-.5.9L-.9.5L-.4 0Z",
    "p": "M0-1L.95-.31L.59.81L-.59.81L-.95-.31Z",
    "h": "M0-1L.87-.5L.87.5L0 1L-.87.5L-.87-.5Z",
    "*": "M0-1L.22-.31L.95-.31L.36.12L.59.81L0 .38L-.59.81L-.36.12L-.95-.31L-.22-.31Z",
}
SHOWN = "indexof(hidden, datum.method) < 0"
CONFIG: dict[str, Any] = {
    "axis": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "titleFontWeight": "normal",
        "gridColor": MUTED,
        "gridOpacity": 0.35,
        "domainColor": MUTED,
        "tickColor": MUTED,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "labelLimit": 150,
    },
    "legend": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "orient": "top",
        "symbolBaseFillColor": "currentColor",
        "symbolStrokeWidth": 0.5,
    },
    "title": {"color": "currentColor", "anchor": "start", "fontSize": 14, "fontWeight": "bold", "offset": 10},
    "text": {"color": "currentColor", "fontSize": 11},
    "view": {"stroke": None},
}

Spec = dict[str, Any]


@dataclass(frozen=True)
class Data:
    """Rows for a spec as `packed` makes them, with the transform that unpacks them and the fields that they have then."""

    values: list[Spec]
    transform: list[Spec]
    fields: tuple[str, ...]

    def tooltip(self, **titles: str) -> list[Spec]:
        """The fields that there are, as texts, in this order."""
        known = {field: title for field, title in titles.items() if field in self.fields}
        return [{"field": field, "type": "nominal", "title": title} for field, title in known.items()]


def chart(title: str, data: Data, layers: Sequence[Spec], panels: Sequence[str] = (), height: int = HEIGHT) -> Spec:
    """A whole spec of `packed` data. Of several panels the reader picks one by name; its number is `panel` in the data."""
    params: list[Spec] = [{"name": "hidden", "value": []}]
    transform: list[Spec] = [{"filter": SHOWN}, *data.transform]
    if len(panels) > 1:
        labels = [one_line(panel, 2 * MAX_LABEL) for panel in panels]
        options = {"input": "select", "name": "shown: ", "options": list(range(len(panels))), "labels": labels}
        params.append({"name": "panel", "value": 0, "bind": options})
        transform.insert(0, {"filter": "datum.panel === panel"})
    return {
        "$schema": SCHEMA,
        "title": title,
        "width": "container",
        "height": height,
        "background": None,
        "padding": {"left": 0, "top": 5, "right": 5, "bottom": 5},  # the title begins where the caption does
        "params": params,
        "data": {"values": data.values},
        "transform": transform,
        "layer": list(layers),
        "config": CONFIG,
    }


def packed(rows: Iterable[Mapping[str, Any]], series: Sequence[str]) -> Data:
    """Rows as the data of a spec: those that agree in the fields of `series` become one, their other fields lists.

    Every row has the same fields; those that are None in all of them are left out, and a text that one row has not is a dash. A
    transform makes them rows again: without the repetition a spec is half as long.
    """
    found = list(rows)
    names = [name for name in found[0] if any(row[name] is not None for row in found)] if found else []
    texts = {name for name in names if any(isinstance(row[name], str) for row in found)}
    found = [{**row, **{name: NOTHING for name in texts if row[name] is None}} for row in found]
    columns = [name for name in names if name not in series]
    groups: dict[tuple[Any, ...], Spec] = {}
    for row in found:
        key = {name: row[name] for name in series if name in names}
        members = groups.setdefault(tuple(key.values()), {**key, **{name: [] for name in columns}})
        for name in columns:
            members[name].append(_short(row[name]))
    return Data(list(groups.values()), [{"flatten": columns}], tuple(names))


def _short(value: Any) -> Any:
    """Numbers with six digits: far below a pixel."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def method_colour(styles: Mapping[str, MethodStyle], channel: str = "method") -> Spec:
    """The colour of each method, the same as in static plots; the page's method boxes are the legend."""
    names = [one_line(method) for method in styles]
    found = ["currentColor" if style.colour == TEXT_COLOUR else style.colour for style in styles.values()]
    return {"field": channel, "type": "nominal", "scale": {"domain": names, "range": found}, "legend": None}


def method_shape(styles: Mapping[str, MethodStyle]) -> Spec:
    """The marker of each method."""
    names = [one_line(method) for method in styles]
    found = [SHAPES[style.marker] for style in styles.values()]
    return {"field": "method", "type": "nominal", "scale": {"domain": names, "range": found}, "legend": None}


def method_dash(styles: Mapping[str, MethodStyle]) -> Spec:
    """The line of each method."""
    names = [one_line(method) for method in styles]
    found = [DASHES[style.line] for style in styles.values()]
    return {"field": "method", "type": "nominal", "scale": {"domain": names, "range": found}, "legend": None}


def number(field: str, title: str, scale: Scale, texts: Sequence[str], is_log: bool = False) -> Spec:
    """A quantitative channel with our ticks and their texts."""
    shape: Spec = {"type": "log"} if is_log else {"type": "linear", "zero": False}
    return {
        "field": field,
        "type": "quantitative",
        "scale": {**shape, "domain": [scale.low, scale.high], "nice": False},
        "axis": number_axis(title, scale.ticks, texts),
    }


def number_axis(title: str, ticks: Sequence[float], texts: Sequence[str]) -> Spec:
    """An axis with these texts at these values. The texts are numbers with units of this package's making."""
    quoted = [text.replace("\\", "").replace("'", "") for text in texts]
    listed = ",".join(f"'{text}'" for text in quoted)
    numbers = ",".join(repr(float(tick)) for tick in ticks)
    return {
        "title": title,
        "values": list(ticks),
        "labelExpr": f"[{listed}][indexof([{numbers}], datum.value)]",
        "labelOverlap": "greedy",
        "labelSeparation": 6,
    }
