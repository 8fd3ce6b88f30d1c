from dataclasses import replace

from modbench.analysis import summarise
from modbench.report.points_table import PointCell, points_table
from modbench.report.tables import NOTHING
from tests.modbench.record_factory import failed, make_quads, make_record
from tests.modbench.test_report_golden import golden_document


def texts(row):
    return [cell.text for cell in row.cells]


def headers(table):
    return [column.header for column in table.columns]


def test_there_is_a_row_per_cell_and_method_in_the_order_of_the_run():
    table = points_table(summarise(make_quads(1, contexts=(1024, 4096))))
    assert headers(table)[:3] == ["Context", "Method", "TTFT"]
    assert [(row.cells[0].text, row.method) for row in table.rows] == [
        ("1,024", "dense"),
        ("1,024", "threshold"),
        ("4,096", "dense"),
        ("4,096", "threshold"),
    ]
    assert table.rows[3].where == "context 4,096"
    assert table.rows[3].cells[table.method_index].text == "threshold"


def test_texts_are_those_of_the_other_tables_and_sort_values_are_base_units():
    summary = summarise(make_quads(1, contexts=(4096,), noise=0.0))
    row = summary.cells[0].rows[1]
    found = dict(zip(headers(points_table(summary)), points_table(summary).rows[1].cells, strict=True))
    assert found["TTFT"] == PointCell("2.31 s ±0.1%", row.values["ttft_s"])
    assert found["Prefill speed-up"] == PointCell("1.78×", row.values["prefill_speedup"])
    assert found["KV cache"] == PointCell("71.3 MiB", row.values["kv_cache_bytes"])
    assert found["Peak memory"].text.endswith("MiB RSS")
    assert found["Peak memory"].value == row.values["peak_rss_bytes"]
    assert found["Kept"] == PointCell("11 %", row.values["keep_ratio_prefill"])
    assert found["Context"].sort_value == "4096"
    assert found["TTFT"].sort_value == f"{row.values['ttft_s']:.6g}"


def test_what_is_unknown_has_no_sort_value():
    table = points_table(summarise(make_quads(1)))
    dense = dict(zip(headers(table), table.rows[0].cells, strict=True))
    assert dense["KV reduction"] == PointCell(NOTHING)
    assert dense["KV reduction"].sort_value is None
    assert dense["Verdict"].text == "baseline"


def test_verdicts_failures_and_wrong_methods_are_told_in_the_last_column():
    rows = {(row.where, row.method): row for row in points_table(golden_document().summary).rows}
    assert texts(rows["context 1,024", "threshold"])[-1] == "open"
    assert texts(rows["context 4,096", "threshold"])[-1] == "no verdict below 8 pairs"
    wrong, lost = rows["context 1,024", "masked"], rows["context 4,096", "masked"]
    assert (wrong.state, texts(wrong)[-1]) == ("wrong", "wrong: identity causal failed")
    assert (lost.state, texts(lost)[-1]) == ("failed", "oom × 2")
    assert {cell.value for cell in lost.cells[2:]} == {None}


def test_a_run_without_axes_is_named_by_context_and_batch():
    record = make_record(batch=8)
    record = record.model_copy(update={"point": record.point.model_copy(update={"axes": {}})})
    table = points_table(summarise([record]))
    assert headers(table)[:3] == ["Context", "Batch", "Method"]
    assert texts(table.rows[0])[:3] == ["1,024", "8", "dense"]


def test_axes_with_the_same_last_word_keep_their_whole_key():
    summary = summarise(make_quads(1))
    axes = {"methods.threshold.threshold_p": 0.5, "methods.other.threshold_p": 0.7, "model.dtype": "float32"}
    table = points_table(replace(summary, cells=(replace(summary.cells[0], axes=axes),)))
    assert headers(table)[:3] == ["Methods.threshold.threshold_p", "Methods.other.threshold_p", "Dtype"]
    assert [column.is_numeric for column in table.columns[:3]] == [True, True, False]
    assert table.rows[0].cells[2].sort_value is None


def test_hostile_names_are_one_line():
    records = make_quads(1)
    name = "evil\n\u202e<script>"
    axes = {"workload.x\ny": "a\u202eb\nc"}
    point = records[0].point.model_copy(update={"axes": axes})
    table = points_table(summarise([failed(records[0]).model_copy(update={"method": name, "point": point})]))
    assert table.rows[0].method == "evil <script>"
    assert texts(table.rows[0])[:2] == ["ab c", "evil <script>"]


def test_a_summary_without_cells_has_no_table():
    assert points_table(summarise([])) is None
