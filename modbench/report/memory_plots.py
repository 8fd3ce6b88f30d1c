"""What memory goes to: weights, KV cache and the rest of the peak, stacked per method, with the limit of the launches.

In: a `Summary`. Out: a `Drawing` of the peak that stands for each row (`peak_memory_metric`). What is not known is not drawn apart.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from modbench.analysis.rows import CellSummary, MethodRow, Summary
from modbench.report.document import axis_name, axis_value, cell_label
from modbench.report.drawing import (
    MAX_LEVEL_LABELS,
    MAX_TICKS,
    Box,
    Drawing,
    Panel,
    Scale,
    Selection,
    axis_title,
    bar_label,
    is_positive,
    linear_scale,
    method_legend,
    paint_boxes,
    panel_axes,
    panel_height,
    select,
    set_title,
    spread_over,
    styles_of,
    tick_text,
)
from modbench.report.escaping import one_line
from modbench.report.style import PART_OPACITIES, TEXT_COLOUR, MethodStyle
from modbench.report.vega import Spec, chart, method_colour, number, packed
from modbench.units import format_bytes

TITLE = "What is memory needed for?"
WEIGHTS, KV_CACHE, REST = "weights", "KV cache", "rest"
PARTS = (WEIGHTS, KV_CACHE, REST)
REST_WORDS = {
    "peak_allocated_bytes": "activations and other tensors",
    "peak_tensor_bytes": "activations and other tensors",
    "peak_rss_bytes": "rest of the process: interpreter, libraries, tensors not counted apart",
}
PEAK_WORDS = {
    "peak_allocated_bytes": "peak of live tensors on the device",
    "peak_tensor_bytes": "peak of live tensors",
    "peak_rss_bytes": "peak resident memory of the process",
}
FAR_RATIO = 4.0  # a limit so far above the bars is told and not drawn


@dataclass(frozen=True)
class Limit:
    """What memory has to stay within, and what that is."""

    limit_bytes: float
    name: str


def memory_parts(row: MethodRow) -> dict[str, float]:
    """Bytes of the parts of the row's peak that are known, none negative, together the peak.

    Parts that do not fit into the peak were not in it at that moment: then the peak is one part, the rest.
    """
    peak = row.peak_memory_bytes
    if peak is None or not is_positive(peak):
        return {}
    known = {WEIGHTS: row.values["weights_bytes"], KV_CACHE: row.values["kv_cache_allocated_bytes"]}
    parts = {name: value for name, value in known.items() if value is not None and value >= 0}
    rest = peak - sum(parts.values())
    return {REST: peak} if rest < 0 else {**parts, REST: rest}


def memory_limit(summary: Summary) -> Limit | None:
    """The limit of the launches or else the size of their memory; None where unknown, or not the same everywhere."""
    kinds = {cell.device_kind for cell in summary.cells}
    machine = summary.environment.get("machine")
    sizes = machine if isinstance(machine, Mapping) else {}
    found = {
        "cuda": (("device_limit_bytes", "limit of a launch"), ("machine.gpu_memory_bytes", "memory of the GPU")),
        "cpu": (("memory_limit_bytes", "limit of a launch"), ("machine.ram_bytes", "memory of the machine")),
    }
    for key, name in found.get(next(iter(kinds), ""), ()) if len(kinds) == 1 else ():
        section, _, last = key.rpartition(".")
        value = sizes.get(last) if section else summary.environment.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return None if key in summary.varying_environment else Limit(float(value), name)
    return None


def memory_drawings(summary: Summary) -> list[Drawing]:
    """One drawing, or none without a peak."""
    selection = select(summary, lambda row: is_positive(row.peak_memory_bytes))
    if not selection.rows:
        return []
    paint = partial(_paint, summary, selection)
    caption = _caption(selection) + selection.note
    return [Drawing("memory", caption, paint, _spec(summary, selection), panel_height(selection.panels))]


def _caption(selection: Selection) -> str:
    metrics = list(dict.fromkeys(row.peak_memory_metric or "" for _, row in selection.rows))
    peaks = " or ".join(PEAK_WORDS.get(metric, metric) for metric in metrics)
    drawn = {name for _, row in selection.rows for name in memory_parts(row)}
    rest = " or ".join(dict.fromkeys(REST_WORDS.get(metric, REST) for metric in metrics))
    if WEIGHTS not in drawn:
        rest += ", weights among them"
    shades = {WEIGHTS: "medium: weights", KV_CACHE: "full: KV cache as allocated", REST: f"pale: {rest}"}
    listed = "; ".join(shades[name] for name in PARTS if name in drawn)
    return f"Height: {peaks}, of a launch. Shades of a method's colour, from below: {listed}. Lower is better."


def _paint(summary: Summary, selection: Selection, figure: Any) -> None:
    styles, (limit, is_far, scale) = styles_of(summary), _frame(summary, selection)
    grid = panel_axes(figure, selection.panels)
    for axes, panel in zip(grid, selection.panels, strict=True):
        _paint_panel(axes, selection, panel, styles)
        axes.set(ylim=(0, scale.high))
        axes.set_yticks(scale.ticks, [_bytes_text(tick) for tick in scale.ticks], fontsize="small")
        axes.grid(visible=False, axis="x")
        if limit is not None and not is_far:
            axes.axhline(limit.limit_bytes, color=TEXT_COLOUR, linewidth=1.2, linestyle=(0, (4, 3)))
    if limit is not None:
        place = (0.01, 0.985) if is_far else (0.01, limit.limit_bytes / scale.high + 0.01)
        look = {"va": "top" if is_far else "bottom", "fontsize": "x-small", "transform": grid[0].transAxes}
        grid[0].text(*place, _limit_text(limit, is_far), **look)
    for axes in grid[-2:] if selection.axis else []:
        axes.set_xlabel(axis_title(selection.axis or ""), fontsize="small")
    for axes in grid[::2]:
        axes.set_ylabel("peak memory")
    set_title(figure, TITLE)
    drawn = {name for _, row in selection.rows for name in memory_parts(row)}
    shades = {name: opacity for name, opacity in PART_OPACITIES.items() if name in drawn}
    method_legend(figure, styles, selection.methods, "patch", shades)


def _paint_panel(axes: Any, selection: Selection, panel: Panel, styles: Mapping[str, MethodStyle]) -> None:
    """A stack per method at every place along x."""
    places = _places(selection, panel.rows if selection.axis is None else selection.rows)
    methods = [method for method in styles if method in selection.methods]
    width = 0.84 / len(methods)
    boxes: dict[tuple[str, str], list[Box]] = {}
    for cell, row in panel.rows:
        place = list(places).index(selection.x(cell)) + (methods.index(row.method) - len(methods) / 2) * width
        bottom = 0.0
        for name, value in memory_parts(row).items():
            boxes.setdefault((row.method, name), []).append((place, bottom, width * 0.88, value))
            bottom += value
    for (method, name), members in boxes.items():
        paint_boxes(axes, members, color=styles[method].colour, alpha=PART_OPACITIES[name], linewidth=0)
    ticks = spread_over(range(len(places)), MAX_TICKS) if selection.axis else list(range(len(places)))
    axes.set_xticks(ticks, [list(places.values())[tick] for tick in ticks], fontsize="small")
    axes.set_xlim(-0.5, len(places) - 0.5)
    if len(ticks) > MAX_LEVEL_LABELS:
        axes.tick_params(axis="x", labelrotation=90)


def _places(selection: Selection, rows: Sequence[tuple[CellSummary, MethodRow]]) -> dict[Any, str]:
    """Where groups of bars stand, with their labels."""
    if selection.axis:
        return {x: axis_value(x) for x in selection.xs}
    return {cell.cell_id: "\n".join(bar_label(cell)) for cell, _ in rows}


def _frame(summary: Summary, selection: Selection) -> tuple[Limit | None, bool, Scale]:
    """The limit, whether it is too far above the bars to be drawn, and a scale with room for what is drawn."""
    limit = memory_limit(summary)
    top = max(row.peak_memory_bytes or 0.0 for _, row in selection.rows)
    is_far = limit is not None and limit.limit_bytes > FAR_RATIO * top
    drawn = limit.limit_bytes if limit is not None and not is_far else 0.0
    return limit, is_far, linear_scale(max(top, drawn), is_binary=True)


def _bytes_text(value: float) -> str:
    return tick_text(format_bytes(value)) if value else "0"


def _limit_text(limit: Limit, is_far: bool) -> str:
    return f"{limit.name}: {format_bytes(limit.limit_bytes)}" + (", far above" if is_far else "")


def _spec(summary: Summary, selection: Selection) -> Spec:
    """The same as stacked bars."""
    limit, is_far, scale = _frame(summary, selection)
    data = packed(_data(selection), ("method", "panel"))
    at = axis_name(selection.axis) if selection.axis else "at"
    told = data.tooltip(method="method", at=at, part="part", value="of it", peak="peak")
    labels = list(dict.fromkeys(row["at"] for row in _data(selection)))
    x: Spec = {
        "field": "at",
        "type": "nominal",
        "sort": labels,
        "title": axis_title(selection.axis) if selection.axis else None,
    }
    is_level = selection.axis is not None or len(labels) <= MAX_LEVEL_LABELS
    x["axis"] = {"labelAngle": 0 if is_level else -60, "labelLimit": 130, "grid": False}
    if selection.axis is not None:
        x["axis"]["values"] = spread_over(labels, MAX_LEVEL_LABELS)
    shades = {"type": "ordinal", "domain": list(PARTS), "range": [PART_OPACITIES[name] for name in PARTS]}
    number_y = number("low", "peak memory", scale, [_bytes_text(tick) for tick in scale.ticks])
    bars = {
        "x": x,
        "xOffset": {"field": "method", "type": "nominal", "sort": [one_line(method) for method in styles_of(summary)]},
        "y": number_y,
        "y2": {"field": "high"},
        "color": method_colour(styles_of(summary)),
        "opacity": {"field": "part", "type": "ordinal", "scale": shades, "legend": {"title": None}},
        "tooltip": told,
    }
    layers: list[Spec] = [{"mark": {"type": "bar"}, "encoding": bars}]
    if limit is not None:
        layers += _limit_layers(limit, is_far)
    return chart(TITLE, data, layers, selection.labels)


def _data(selection: Selection) -> Iterator[dict[str, Any]]:
    """A row per part of every stack, with both its ends."""
    for index, panel in enumerate(selection.panels):
        for cell, row in panel.rows:
            bottom = 0.0
            at = axis_value(cell.axes[selection.axis]) if selection.axis else cell_label(cell)
            told = {"at": at, "peak": format_bytes(row.peak_memory_bytes)}
            for name, value in memory_parts(row).items():
                ends = {"low": bottom, "high": bottom + value, "part": name, "value": format_bytes(value)}
                yield {"method": one_line(row.method), "panel": index, **told, **ends}
                bottom += value


def _limit_layers(limit: Limit, is_far: bool) -> list[Spec]:
    place: Spec = {"y": {"value": 4}} if is_far else {"y": {"datum": limit.limit_bytes}}
    text = {
        "type": "text",
        "align": "left",
        "baseline": "top" if is_far else "bottom",
        "dx": 4,
        "dy": 0 if is_far else -2,
    }
    name: Spec = {
        "data": {"values": [{"text": _limit_text(limit, is_far)}]},
        "mark": text,
        "encoding": {"x": {"value": 0}, **place, "text": {"field": "text"}},
    }
    rule = {"type": "rule", "strokeDash": [5, 4], "color": "currentColor"}
    line: Spec = {"data": {"values": [{}]}, "mark": rule, "encoding": place}
    return [name] if is_far else [line, name]
