"""Quality beside speed in every form of a report, where it was asked for, and nowhere else."""

import io
import json

import jsonschema
import pandas
import pytest
from rich.console import Console

from modbench.analysis import summarise
from modbench.analysis.quality import with_quality
from modbench.report.console import render_console
from modbench.report.document import Document
from modbench.report.html import render_html
from modbench.report.markdown import render_markdown
from modbench.report.plots import draw_plot
from modbench.report.position_plots import position_drawings
from modbench.report.quality import quality_legend, quality_tables
from modbench.report.quality_plots import quality_drawings, trade_offs
from modbench.report.report_json import make_report, render_json
from modbench.report.report_parts import report_json_schema
from modbench.report.run_comment import render_run_comment
from modbench.report.table_csv import render_csv
from tests.modbench.quality_factory import evaluations, make_scores, with_weights
from tests.modbench.record_factory import make_quads

METHODS = ("dense", "threshold", "masked", "skip_layers")
SCORES = {
    "dense": make_scores(),
    "threshold": make_scores([204.0, 404.0, 204.0], held_out_keep_ratio=0.25, kv_cache_bytes_per_token=50.0),
    "masked": None,
    "skip_layers": make_scores([300.0, 500.0, 300.0]),
}


@pytest.fixture(scope="module")
def document():
    records = with_weights(make_quads(1, METHODS, (1024, 4096)), "random")
    return Document(with_quality(summarise(records), evaluations(records, SCORES)))


def printed(document, width, is_detailed=False):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    render_console(document, console, is_detailed)
    return console.file.getvalue()


def test_the_table_has_a_row_per_model_whatever_the_cells(document):
    (table,) = quality_tables(document.summary)
    headers = [column.header for column in table.columns]
    rows = {row.method: dict(zip(headers, row.cells, strict=True)) for row in table.rows}
    assert [row.method for row in table.rows] == list(METHODS)
    assert rows["threshold"]["Bits per byte"] == "2.0300 ± 0.0100"
    assert rows["threshold"]["To dense"] == "1.0150×"
    assert rows["threshold"]["Difference"] == "+0.0300 ± 0.0075"
    assert rows["threshold"]["KV reduction"] == "2.00×"
    assert (rows["masked"]["Bits per byte"], rows["masked"]["Note"]) == ("n/a", "killed")
    assert "Needle" not in headers, "a column of nothing is left out"
    assert [row.state for row in table.rows][2] == "failed"


def test_every_form_says_it(document):
    forms = {
        "console": printed(document, 160, is_detailed=True),
        "markdown": render_markdown(document),
        "html": render_html(document),
        "comment": render_run_comment(document),
    }
    for name, text in forms.items():
        assert "2.0300" in text, name
        assert "killed" in text, name
        assert "random weights" in text, name
    assert "1.015×" in printed(document, 120)


def test_without_quality_no_form_mentions_it():
    document = Document(summarise(make_quads(1, METHODS)))
    assert quality_tables(document.summary) == quality_legend(document.summary) == []
    for text in (render_markdown(document), printed(document, 160, is_detailed=True), render_html(document)):
        assert "its per byte" not in text


def test_csv_has_a_column_per_metric(document):
    frame = pandas.read_csv(io.StringIO(render_csv(document.summary))).set_index(["context", "method"])
    assert frame.loc[(4096, "threshold"), "bits_per_byte_ratio"] == pytest.approx(1.015)
    assert pandas.isna(frame.loc[(4096, "masked"), "bits_per_byte"])


def test_the_json_has_errors_positions_and_reasons_and_fits_its_schema(document):
    report = json.loads(render_json(document))
    jsonschema.validate(report, report_json_schema())
    methods = {part["method"]: part for part in report["cells"][1]["methods"]}
    assert methods["threshold"]["metrics"]["bits_per_byte"] == pytest.approx(2.03)
    quality = methods["threshold"]["quality"]
    assert quality["standard_errors"] == {"bits_per_byte": 0.01}
    assert quality["bits_per_byte_difference"] == pytest.approx(0.03)
    assert [bucket["first_position"] for bucket in quality["by_position"]] == [1, 2, 4]
    assert (methods["masked"]["quality"]["status"], methods["masked"]["quality"]["reason"]) == ("failed", "killed")
    plain = make_report(Document(summarise(make_quads(1, METHODS))))
    assert plain.cells[0].methods[0].quality is None


def test_the_front_is_of_bits_per_byte_over_latency_and_kv_cache(document):
    names = [drawing.name for drawing in quality_drawings(document.summary)]
    assert names[:3] == ["quality_ttft", "quality_tpot", "quality_kv_cache"]
    trade = trade_offs(document.summary, "kv_cache_bytes")[0]
    found = dict(zip((row.method for _, row in trade.panel.rows), trade.places, strict=True))
    assert set(found) == {"dense", "threshold", "skip_layers"}, "what was not evaluated is not drawn"
    assert found["threshold"][1] == pytest.approx(2.03)


def test_quality_doubts_are_not_held_against_the_speed(document):
    assert all("random weights" not in sentence for sentence in make_report(document).answers)


def test_loss_by_position_is_a_line_per_method_that_was_evaluated(document):
    (drawing,) = position_drawings(document.summary)
    series = {member["method"]: member for member in drawing.spec["data"]["values"]}
    assert set(series) == {"dense", "threshold", "skip_layers"}
    assert series["threshold"]["x"] == [1, 3, 7]
    assert series["threshold"]["y"] == pytest.approx([4.06, 3.045, 2.03])
    assert series["threshold"]["at"] == ["1", "2 to 3", "4 to 7"]
    plot = draw_plot(drawing.name, drawing.caption, drawing.paint)
    assert "Is long context harmed?" in plot.svg


def test_without_positions_nothing_is_drawn_by_position():
    records = make_quads(1)
    assert position_drawings(summarise(records)) == []
    found = with_quality(summarise(records), evaluations(records, {"dense": make_scores(by_position=[])}))
    assert position_drawings(found) == []


@pytest.mark.parametrize("weights", ["random", "checkpoint"])
def test_the_answer_tells_the_loss_where_nothing_makes_it_doubtful(weights):
    records = with_weights(make_quads(1), weights)
    scores = {"dense": make_scores(), "threshold": SCORES["threshold"].model_copy(update={"held_out_keep_ratio": None})}
    sentence = make_report(Document(with_quality(summarise(records), evaluations(records, scores)))).answers[0]
    assert ("held-out bits per byte are 1.015× those of dense" in sentence) == (weights == "checkpoint")
