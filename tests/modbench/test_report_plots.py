import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

from modbench.analysis import summarise
from modbench.record import Record
from modbench.report.drawing import plot_axis
from modbench.report.plots import draw_plots
from modbench.report.style import KNOWN, SPARE, method_styles
from tests.modbench.record_factory import failed, make_quads

NAMES = ["ttft", "tpot", "kv_cache", "memory", "speedup", "speedup_keep_ratio", "keep_ratio_layers"]


def with_axes(records: list[Record], **axes: object) -> list[Record]:
    named = {key.replace("__", "."): value for key, value in axes.items()}
    return [
        record.model_copy(
            update={
                "point": record.point.model_copy(
                    update={"axes": {**named}, "cell_id": f"{record.point.cell_id}-{named}"}
                )
            }
        )
        for record in records
    ]


@pytest.fixture(scope="module")
def plots():
    return draw_plots(summarise(make_quads(1, contexts=(1024, 4096))))


def test_every_plot_is_an_svg_and_a_png(plots):
    assert [plot.name for plot in plots] == NAMES
    for plot in plots:
        ElementTree.fromstring(plot.standalone_svg.encode())
        assert plot.png.startswith(b"\x89PNG")


def test_the_same_summary_gives_the_same_svg_without_a_date(plots):
    again = draw_plots(summarise(make_quads(1, contexts=(1024, 4096))))
    assert [plot.svg for plot in again] == [plot.svg for plot in plots]
    assert not any("date" in plot.svg for plot in plots)


def test_text_takes_the_pages_colour_and_the_background_is_clear(plots):
    for plot in plots:
        assert "currentColor" in plot.svg
        assert "#010203" not in plot.svg
        assert not re.search(r"fill: #ffffff(?!; opacity: 0)", plot.svg)
        assert "prefers-color-scheme:dark" in plot.standalone_svg


def test_axes_carry_units(plots):
    texts = {plot.name: re.findall(r"<text[^>]*>([^<]*)</text>", plot.svg) for plot in plots}
    assert "context (tokens)" in texts["ttft"]
    assert any(text.endswith((" ms", " s")) for text in texts["ttft"])
    assert any(text.endswith("MiB") for text in texts["kv_cache"])
    assert any(text.endswith("×") for text in texts["speedup"])


def test_context_is_preferred_then_the_first_numeric_axis_then_bars():
    records = make_quads(1, contexts=(1024, 4096))
    assert plot_axis(summarise(records)) == "workload.context"
    one = make_quads(1)
    by_batch = with_axes(one, workload__batch=1) + with_axes(one, workload__batch=8)
    assert plot_axis(summarise(by_batch)) == "workload.batch"
    by_name = with_axes(one, model__preset="a") + with_axes(one, model__preset="b")
    assert plot_axis(summarise(by_name)) is None
    assert plot_axis(summarise(one)) is None


@pytest.mark.parametrize("axes", [{"model__preset": "a"}, {}], ids=["text-axis", "no-axis"])
def test_without_a_numeric_axis_there_are_bars_for_each_cell(axes):
    drawn = draw_plots(summarise(with_axes(make_quads(1), **axes)))
    assert [plot.name for plot in drawn][:2] == ["ttft", "tpot"]
    for label in ["preset a"] if axes else ["context 1,024", "batch 1"]:
        assert label in drawn[0].svg


def test_two_axes_give_a_panel_per_other_value():
    records = []
    for context in (1024, 4096):
        for batch in (1, 8):
            records += with_axes(make_quads(1, contexts=(context,)), workload__context=context, workload__batch=batch)
    plot = draw_plots(summarise(records))[0]
    assert all(label in plot.svg for label in ("batch 1", "batch 8"))
    assert plot.spec["params"][1]["bind"]["labels"] == ["batch 1", "batch 8"]
    assert {member["panel"] for member in plot.spec["data"]["values"]} == {0, 1}


def test_wrong_and_failed_rows_are_not_drawn():
    records = [
        record.model_copy(update={"guard": {"causal": "failed"}}) if record.method == "threshold" else record
        for record in make_quads(1)
    ]
    drawn = draw_plots(summarise(records))
    assert all("threshold" not in plot.svg for plot in drawn)
    assert not {"speedup", "speedup_keep_ratio", "keep_ratio_layers"} & {plot.name for plot in drawn}
    assert all("threshold" not in json.dumps(plot.spec["data"]) for plot in drawn)


def test_a_method_has_the_same_style_whatever_stands_beside_it():
    alone, beside = method_styles(["threshold"]), method_styles(["mine", "dense", "topk", "threshold"])
    assert alone["threshold"] == beside["threshold"] == KNOWN["threshold"]
    assert beside["mine"] == SPARE[0]


def test_no_two_styles_look_the_same():
    styles = [*KNOWN.values(), *SPARE]
    assert len({(style.colour, style.marker) for style in styles}) == len(styles)
    assert len({style.marker for style in styles}) == len(styles)


def test_failed_rows_are_not_drawn():
    records = [failed(record) if record.method == "threshold" else record for record in make_quads(1)]
    drawn = draw_plots(summarise(records))
    assert [plot.name for plot in drawn] == ["ttft", "tpot", "kv_cache", "memory"]
    assert all("threshold" not in plot.svg + json.dumps(plot.spec["data"]) for plot in drawn)


def test_coordinates_are_rounded_and_texts_are_not():
    records = with_axes(make_quads(1), model__preset="0.123456")
    plot = draw_plots(summarise(records))[0]
    assert "0.123456" in plot.svg
    assert not re.search(r'="[^"]*\d\.\d{3}', plot.svg)


def test_bars_say_what_they_span():
    captions = [draw_plots(summarise(make_quads(num_quads)))[0].caption for num_quads in (1, 4)]
    assert "the span of the launches, no interval of confidence" in captions[0]
    assert "exact 98.8 % intervals of the median" in captions[1]


def test_from_eight_launches_on_the_interval_is_the_exact_one():
    few, many = (summarise(make_quads(num_quads)).cells[0].rows[1].latencies["ttft_s"] for num_quads in (3, 6))
    assert (few.num_launches, few.interval) == (6, None)
    assert (many.num_launches, many.interval is not None) == (12, True)
    assert many.low <= many.interval[0] <= many.median <= many.interval[1] <= many.high
    assert many.interval != (many.low, many.high), "of 12 launches the outermost ones are outside"


@pytest.mark.parametrize("has_one_axis", [True, False], ids=["one-axis", "two-axes"])
def test_five_hundred_points_stay_small(has_one_axis):
    methods = ("dense", "threshold", "masked", "skip_layers", "mine")
    if has_one_axis:
        records = make_quads(1, methods, tuple(512 + 64 * step for step in range(100)))
    else:
        records = [
            record
            for context in (512 * 2**step for step in range(10))
            for batch in range(10)
            for record in with_axes(
                make_quads(1, methods, (context,)), workload__context=context, workload__batch=batch
            )
        ]
    summary = summarise(records)
    assert sum(len(cell.rows) for cell in summary.cells) == 500
    drawn = draw_plots(summary)
    assert sum(len(plot.svg) for plot in drawn) < 500_000
    assert sum(len(json.dumps(plot.spec, separators=(",", ":"))) for plot in drawn) < 250_000
    assert all("all are in the tables" in plot.caption for plot in drawn)
