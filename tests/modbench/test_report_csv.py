"""The flat table: one row per cell and method, numbers as measured, nothing a spreadsheet would run."""

import io

import pandas
import pytest

from modbench.analysis import summarise
from modbench.report.table_csv import render_csv
from modbench.scenario import METRICS
from tests.modbench.record_factory import failed, make_quads, make_record


def frame_of(records) -> pandas.DataFrame:
    return pandas.read_csv(io.StringIO(render_csv(summarise(records))))


def test_every_metric_is_a_column_and_every_method_a_row():
    summary = summarise(make_quads(1, contexts=(1024, 4096)))
    frame = frame_of(make_quads(1, contexts=(1024, 4096)))
    assert set(METRICS) <= set(frame.columns)
    assert list(frame["method"]) == ["dense", "threshold"] * 2
    assert list(frame["context"]) == [1024, 1024, 4096, 4096]
    expected = [row.values["ttft_s"] for cell in summary.cells for row in cell.rows]
    assert list(frame["ttft_s"]) == pytest.approx(expected, rel=1e-12)


def test_nothing_measured_is_a_header_alone():
    assert render_csv(summarise([])).startswith("method,")
    assert render_csv(summarise([])).count("\n") == 1


def test_what_is_unknown_is_empty_not_zero():
    frame = frame_of([failed(r) if r.method == "threshold" else r for r in make_quads(1)])
    row = frame[frame["method"] == "threshold"].iloc[0]
    assert row["num_launches"] == 0
    assert pandas.isna(row["ttft_s"])
    assert pandas.isna(row["prefill_speedup"])


def test_texts_that_a_spreadsheet_would_run_are_quoted():
    record = make_record()
    point = record.point.model_copy(update={"axes": {"model.path": "=HYPERLINK(1)", " @SUM(1)": 1}})
    changes = {"point": point, "method": "-1+cmd", "guard": {"+1": "failed"}}
    header, row = render_csv(summarise([record.model_copy(update=changes)])).splitlines()
    assert header.startswith("model.path,'@SUM(1),")
    for text in ("'=HYPERLINK(1)", "'-1+cmd", "'+1"):
        assert text in row.split(",")
