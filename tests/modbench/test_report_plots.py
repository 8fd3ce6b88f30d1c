import re
import xml.etree.ElementTree as ElementTree

import pytest

from modbench.analysis import summarise
from modbench.record import Record
from modbench.report.plots import draw_plots, plot_axis
from modbench.report.style import KNOWN, SPARE, method_styles
from tests.modbench.record_factory import make_quads


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
    assert [plot.name for plot in plots] == ["ttft", "tpot", "kv_cache", "peak_memory", "speedup"]
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


def test_two_axes_give_a_line_per_other_value():
    records = []
    for context in (1024, 4096):
        for batch in (1, 8):
            records += with_axes(make_quads(1, contexts=(context,)), workload__context=context, workload__batch=batch)
    assert "batch 8" in draw_plots(summarise(records))[0].svg


def test_wrong_and_failed_rows_are_not_drawn():
    records = [
        record.model_copy(update={"guard": {"causal": "failed"}}) if record.method == "threshold" else record
        for record in make_quads(1)
    ]
    drawn = draw_plots(summarise(records))
    assert all("threshold" not in plot.svg for plot in drawn)
    assert "speedup" not in [plot.name for plot in drawn]


def test_a_method_has_the_same_style_whatever_stands_beside_it():
    alone, beside = method_styles(["threshold"]), method_styles(["mine", "dense", "topk", "threshold"])
    assert alone["threshold"] == beside["threshold"] == KNOWN["threshold"]
    assert beside["mine"] == SPARE[0]


def test_no_two_styles_look_the_same():
    styles = [*KNOWN.values(), *SPARE]
    assert len({(style.colour, style.marker) for style in styles}) == len(styles)
    assert len({style.marker for style in styles}) == len(styles)
