import re

import pytest

from modbench.analysis import summarise
from modbench.presets import PRESETS
from modbench.record import KeepRatios
from modbench.report.keep_plots import MAX_HEAT_ROWS, heat_map, keep_drawings
from modbench.report.plots import draw_plots
from tests.modbench.record_factory import ROUTED, make_quads


def deep_records(num_cells):
    """80 layers, every second one routed, each with a keep ratio of its own."""
    routed, geometry = list(range(1, 80, 2)), PRESETS["llama2-70b"]
    ratios = [0.1 + layer / 100 if layer in routed else 1.0 for layer in range(80)]
    return [
        record.model_copy(
            update={
                "keep_ratio": KeepRatios(prefill=ratios, decode=ratios, decode_any=ratios),
                "point": record.point.model_copy(
                    update={"geometry": geometry, "settings": {**record.point.settings, "routed_layers": routed}}
                ),
            }
        )
        for record in make_quads(1, contexts=tuple(1024 * (step + 1) for step in range(num_cells)))
        if record.method == "threshold"
    ]


def test_every_routed_layer_of_both_phases_is_in_the_data():
    (drawing,) = keep_drawings(summarise(make_quads(1)))
    values = drawing.spec["data"]["values"]
    assert [(value["method"], value["panel"], value["layer"]) for value in values] == [
        ("threshold", phase, ROUTED) for phase in (0, 1)
    ]
    assert all(value["keep"] == pytest.approx([0.11] * 4) for value in values)


def test_the_scale_ends_above_the_largest_ratio():
    assert heat_map(summarise(make_quads(1))).top == 0.2
    assert heat_map(summarise(make_quads(1, ("dense", "skip_layers")))).top == 0.1
    assert heat_map(summarise(make_quads(1))).num_layers == 8


def test_a_baseline_alone_has_no_heat_map():
    assert heat_map(summarise(make_quads(1, ("dense",)))) is None


def test_eighty_layers_and_thirty_rows_are_drawn_as_vectors():
    plot = next(plot for plot in draw_plots(summarise(deep_records(40))) if plot.name == "keep_ratio_layers")
    assert f"{MAX_HEAT_ROWS} of 40 rows are drawn" in plot.caption
    assert "<image" not in plot.svg
    assert len(plot.svg) < 250_000
    assert sum(len(value["layer"]) for value in plot.spec["data"]["values"]) == 2 * MAX_HEAT_ROWS * 40
    assert len(re.findall("<text", plot.svg)) >= 2 * MAX_HEAT_ROWS
