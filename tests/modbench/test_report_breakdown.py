import io
import re
import xml.etree.ElementTree as ElementTree

import pytest
from rich.console import Console

from modbench.analysis import break_down, summarise
from modbench.report.breakdown import breakdown_legend, breakdown_tables, draw_breakdowns
from modbench.report.console import render_console
from modbench.report.document import Document
from modbench.report.html import render_html
from modbench.report.markdown import render_markdown
from modbench.report.style import RANGE_STYLES
from modbench.trace_record import DEVICE_IDLE, OTHER, RANGES
from tests.modbench.record_factory import make_quads
from tests.modbench.test_analysis_breakdown import make_trace

METHODS = ("dense", "threshold")
CELL = "cell-1024-1"
PARTS = {
    "attention": 0.5,
    "mlp": 0.3,
    "cache_append": 0.04,
    "norm": 0.06,
    "embedding": 0.02,
    "head": 0.02,
    "other": 0.06,
}
ROUTED = {**PARTS, "attention": 0.2, "mlp": 0.1, "router": 0.02, "pack": 0.01, "scatter": 0.01}


def traces_of(cell_id=CELL, **changes):
    parts = {"dense": PARTS, "threshold": ROUTED}
    return [
        make_trace(method, cell_id=cell_id, host_s={"prefill": parts[method], "decode": parts[method]}, **changes)
        for method in METHODS
    ]


def document_of(traces, records=None):
    return Document(summarise(records or make_quads(1, METHODS)), "traced", breakdowns=break_down(traces))


def printed(document, width=80, is_detailed=True):
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    render_console(document, console, is_detailed)
    return console.file.getvalue()


def test_a_table_per_phase_gives_shares_the_own_cost_and_the_rest():
    prefill, decode = breakdown_tables(document_of(traces_of()))
    assert [prefill.title, decode.title] == ["Where prefill went", "Where a decode step went"]
    cells = [dict(zip((column.header for column in prefill.columns), row.cells, strict=True)) for row in prefill.rows]
    dense, threshold = cells
    assert (dense["Method"], dense["Traced"], dense["Attention"], dense["Router"]) == ("dense", "1.00 s", "50 %", "–")
    assert (dense["Cache append"], dense["Own cost"], dense["Rest"]) == ("4.0 %", "–", "16 %")
    assert (threshold["Traced"], threshold["Attention"], threshold["Own cost"]) == ("540 ms", "37 %", "15 %")
    assert decode.rows[1].cells[1] == "135 ms", "a quarter: the mean of four steps"


def test_only_wide_renderers_show_the_smaller_parts():
    headers = [column.header for column in breakdown_tables(document_of(traces_of()))[0].compact().columns]
    assert headers == ["Method", "Traced", "Attention", "MLP", "Cache append", "Own cost", "Rest"]


def test_the_legend_says_what_was_traced_and_how_much_slower_it_was():
    text = " ".join(breakdown_legend(document_of(traces_of())))
    assert "it took 1.25× to 1.50× the time of its own untraced samples: read shares, not times" in text
    assert "a range's own time on the host" in text
    assert "device idle" not in text
    device = {phase: {"attention": 0.3, "device_idle": 0.1} for phase in ("prefill", "decode")}
    text = " ".join(breakdown_legend(document_of(traces_of(device_s=device, slowdown_ratio={}))))
    assert "device time of what a range launched" in text
    assert "device idle: waiting for the host" in text


def test_a_failed_trace_is_named_with_its_reason():
    document = document_of([*traces_of()[:1], make_trace("threshold", cell_id=CELL, error="killed after 600 s")])
    assert breakdown_legend(document)[-1] == "Not traced: threshold at context 1,024: killed after 600 s"
    assert [row.cells[0] for row in breakdown_tables(document)[0].rows] == ["dense"]
    only_failures = document_of([make_trace("threshold", cell_id="gone", error="no")])
    assert breakdown_legend(only_failures) == ["Not traced: threshold: no"]
    assert breakdown_tables(only_failures) == draw_breakdowns(only_failures) == []


def test_every_renderer_shows_a_breakdown_and_none_without_traces():
    document, untraced = document_of(traces_of()), document_of([])
    assert untraced.breakdowns is None
    for render in (render_markdown, render_html, printed):
        assert "Where a decode step went" in render(document)
        assert "Where" not in render(untraced)
    assert max(len(line) for line in printed(document).splitlines()) <= 80
    assert "Scatter" in printed(document, width=160).split("Where prefill went")[1].split("Where a decode")[0]


def test_one_screen_says_what_the_method_itself_costs():
    text = " ".join(printed(document_of(traces_of()), is_detailed=False).split())
    assert "Own cost of threshold: 15 % of prefill, 15 % of a decode step (traced)." in text
    assert "Own cost" not in printed(document_of([]), is_detailed=False)
    failed = document_of([*traces_of()[:1], make_trace("threshold", cell_id=CELL, error="killed after 600 s")])
    shown = printed(failed, is_detailed=False)
    assert "Own cost" not in shown
    assert "! launches that could not be traced: 1" in shown


def test_bars_name_their_parts_and_end_with_the_time():
    plots = draw_breakdowns(document_of(traces_of()))
    assert [plot.name for plot in plots] == ["breakdown_prefill", "breakdown_decode"]
    for plot in plots:
        ElementTree.fromstring(plot.standalone_svg.encode())
        assert plot.png.startswith(b"\x89PNG")
        texts = re.findall(r"<text[^>]*>([^<]*)</text>", plot.svg)
        assert texts.count("Attention") >= 2, "in a bar and in the legend"
        assert {"dense", "threshold", "Router", "Cache append", "context 1,024"} <= set(texts)
    assert {"1.00 s", "540 ms"} <= set(re.findall(r"<text[^>]*>([^<]*)</text>", plots[0].svg))


def test_the_same_traces_give_the_same_svg():
    drawn = [[plot.svg for plot in draw_breakdowns(document_of(traces_of()))] for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_a_cell_without_its_baseline_and_a_wrong_method():
    alone = document_of(traces_of()[1:])
    assert len(draw_breakdowns(alone)) == 2
    records = [
        record.model_copy(update={"guard": {"causal": "failed"}}) if record.method == "threshold" else record
        for record in make_quads(1, METHODS)
    ]
    wrong = document_of(traces_of(), records)
    assert [row.state for row in breakdown_tables(wrong)[0].rows] == ["baseline", "wrong"]
    assert all("threshold" not in plot.svg for plot in draw_breakdowns(wrong))


@pytest.mark.parametrize("num_cells", [1, 12])
def test_the_figure_grows_with_the_bars(num_cells):
    contexts = tuple(1024 * (index + 1) for index in range(num_cells))
    traces = [trace for context in contexts for trace in traces_of(f"cell-{context}-1")]
    plot = draw_breakdowns(document_of(traces, make_quads(1, METHODS, contexts)))[0]
    height = float(re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', plot.svg).group(1))
    assert height == pytest.approx(72 * max(3.2, 1.9 + 0.36 * 3 * num_cells), abs=1)


def test_every_part_has_a_fill_that_no_other_has():
    assert set(RANGE_STYLES) == {*RANGES, OTHER, DEVICE_IDLE}
    assert len({(style.colour, style.hatch) for style in RANGE_STYLES.values()}) == len(RANGE_STYLES)
