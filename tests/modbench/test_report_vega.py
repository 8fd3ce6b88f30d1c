import json

import pytest
import vl_convert

from modbench.analysis import summarise
from modbench.report.breakdown import draw_breakdowns
from modbench.report.plots import draw_plots
from modbench.report.style import KNOWN, SPARE, TEXT_COLOUR, method_styles
from modbench.report.vega import DASHES, SHAPES, packed
from tests.contrast import contrast
from tests.modbench.record_factory import make_quads
from tests.modbench.test_report_breakdown import document_of, traces_of
from tests.modbench.test_report_escaping import HOSTILE, hostile_document
from tests.modbench.test_report_plots import with_axes
from tests.modbench.test_report_quality_plots import PERPLEXITY, judged


def two_axes():
    records = []
    for context in (1024, 4096):
        for batch in (1, 8):
            made = judged(make_quads(4, tuple(PERPLEXITY), (context,)))
            records += with_axes(made, workload__context=context, workload__batch=batch)
    return summarise(records)


@pytest.fixture(scope="module")
def plots():
    summaries = (two_axes(), summarise(make_quads(1)))
    return [plot for summary in summaries for plot in draw_plots(summary)] + draw_breakdowns(document_of(traces_of()))


def test_every_plot_has_a_spec_that_compiles(plots):
    assert len({plot.name for plot in plots}) == 11
    for plot in plots:
        vega = vl_convert.vegalite_to_vega(plot.spec, vl_version="6.4")
        assert "hidden" in [signal["name"] for signal in vega["signals"]]


def test_methods_can_be_hidden_and_texts_take_the_pages_colour(plots):
    for plot in plots:
        spec = plot.spec
        assert spec["params"][0] == {"name": "hidden", "value": []}
        assert {"filter": "indexof(hidden, datum.method) < 0"} in spec["transform"]
        assert all("method" in value for value in spec["data"]["values"])
        assert (spec["width"], spec["background"]) == ("container", None)
        assert TEXT_COLOUR not in json.dumps(spec)
        assert spec["config"]["axis"]["labelColor"] == "currentColor"


def test_colours_are_those_of_the_static_plot(plots):
    num_found = 0
    for layer in (layer for plot in plots for layer in plot.spec["layer"]):
        colour = layer["encoding"].get("color", {})
        if colour.get("field") == "method":
            found = dict(zip(colour["scale"]["domain"], colour["scale"]["range"], strict=True))
            assert found == {method: KNOWN[method].colour.replace(TEXT_COLOUR, "currentColor") for method in found}
            num_found += 1
    assert num_found > 10


def test_data_are_the_measured_numbers_and_their_texts():
    summary = two_axes()
    plot = draw_plots(summary)[0]
    rows = [
        row
        for cell in summary.cells
        if cell.axes["workload.batch"] == 8
        for row in cell.rows
        if row.method == "threshold"
    ]
    found = next(
        value for value in plot.spec["data"]["values"] if (value["method"], value["panel"]) == ("threshold", 1)
    )
    assert found["x"] == [1024, 4096]
    assert found["y"] == pytest.approx([row.values["ttft_s"] for row in rows], rel=1e-5)
    assert found["low"] == pytest.approx([row.latencies["ttft_s"].interval[0] for row in rows], rel=1e-5)
    assert found["launches"] == [8, 8]
    assert found["verdict"] == ["open", "open"]
    assert found["at"] == ["1,024", "4,096"]
    assert found["value"][0].endswith(" ms")


def test_every_method_has_a_shape_and_a_dash():
    styles = [*KNOWN.values(), *SPARE]
    assert {style.marker for style in styles} == set(SHAPES)
    assert {style.line for style in styles} <= set(DASHES)
    assert len({json.dumps(shape) for shape in SHAPES.values()}) == len(SHAPES)


@pytest.mark.parametrize("page", ["#FFFFFF", "#101418"])
def test_lines_stand_out_from_the_page(page):
    for style in method_styles([*KNOWN, "a", "b", "c"]).values():
        if style.colour != TEXT_COLOUR:
            assert contrast(style.colour, page) >= 3.0, style


def expressions(tree):
    """Whatever Vega would evaluate."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key in ("filter", "calculate", "labelExpr", "expr", "test", "signal") and isinstance(value, str):
                yield value
            yield from expressions(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from expressions(value)


@pytest.mark.parametrize("text", [*HOSTILE, "' + alert(1) + '", "datum.x\\", "x" * 5000])
def test_hostile_texts_are_data_and_never_part_of_an_expression(text):
    plain = [sorted(expressions(plot.spec)) for plot in draw_plots(hostile_document("plain").summary)]
    hostile = draw_plots(hostile_document(text).summary)
    assert [sorted(expressions(plot.spec)) for plot in hostile] == plain
    for plot in hostile:
        vl_convert.vegalite_to_vega(plot.spec, vl_version="6.4")


def test_packing_gives_every_row_back():
    rows = [{"method": method, "x": x, "y": x / 3, "none": None} for method in "ab" for x in (1, 2)]
    data = packed(rows, ("method",))
    assert data.fields == ("method", "x", "y")
    assert data.transform == [{"flatten": ["x", "y"]}]
    assert data.values == [{"method": method, "x": [1, 2], "y": [0.333333, 0.666667]} for method in "ab"]
