import pytest

from modbench.analysis import summarise
from modbench.report.speedup_plots import ideal_curves, speedup_drawings
from tests.modbench.record_factory import ENVIRONMENT, make_quads


def drawn(records):
    summary = summarise(records)
    return summary, {drawing.name: drawing for drawing in speedup_drawings(summary)}


def without_ceilings(records):
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "ceilings"}
    return [record.model_copy(update={"environment": environment}) for record in records]


def test_points_are_the_speed_ups_over_the_measured_keep_ratios():
    summary, drawings = drawn(make_quads(1, contexts=(1024, 4096)))
    found = {
        (member["method"], member["phase"]): member for member in drawings["speedup_keep_ratio"].spec["data"]["values"]
    }
    rows = [cell.rows[1] for cell in summary.cells]
    assert set(found) == {("threshold", "prefill"), ("threshold", "decode")}
    for phase in ("prefill", "decode"):
        member = found["threshold", phase]
        assert member["x"] == pytest.approx([row.values[f"keep_ratio_{phase}"] for row in rows], rel=1e-5)
        assert member["y"] == pytest.approx([row.values[f"{phase}_speedup"] for row in rows], rel=1e-5)
        assert member["keep"] == ["11 %", "11 %"]


def test_a_curve_per_cell_is_named_in_the_caption():
    _, drawings = drawn(make_quads(1, contexts=(1024, 4096)))
    drawing = drawings["speedup_keep_ratio"]
    assert drawing.caption.endswith("from below: context 1,024; context 4,096.")
    values = drawing.spec["layer"][1]["data"]["values"]
    assert {value["curve"] for value in values} == {
        f"{phase}, context {context}" for phase in ("prefill", "decode") for context in ("1,024", "4,096")
    }
    assert all(value["y"] == 1.0 for value in values if value["x"] == 1.0)


def test_methods_that_save_the_same_share_a_curve():
    summary = summarise(make_quads(1, ("dense", "threshold", "masked", "skip_layers")))
    rows = [(cell, row) for cell in summary.cells for row in cell.rows[1:]]
    assert [named.name for named in ideal_curves(summary, rows)] == ["context 1,024"]


def test_without_ceilings_there_are_points_and_no_curve():
    _, drawings = drawn(without_ceilings(make_quads(1)))
    assert list(drawings) == ["speedup_keep_ratio"], "no ideal to compare with"
    assert "Lines" not in drawings["speedup_keep_ratio"].caption
    assert len(drawings["speedup_keep_ratio"].spec["layer"]) == 3


def test_a_baseline_alone_has_no_speed_up():
    assert drawn(make_quads(1, ("dense",)))[1] == {}
