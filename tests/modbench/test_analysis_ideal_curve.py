import pytest

from modbench.analysis import summarise
from modbench.analysis.ideal_curve import GRID, ideal_at, ideal_curve, work_of
from modbench.analysis.prediction import ceilings_from
from tests.modbench.record_factory import ENVIRONMENT, KEEP, ROUTED, make_quads


def cell_and_row(method="threshold", **environment):
    records = [
        record.model_copy(update={"environment": {**ENVIRONMENT, **environment}})
        for record in make_quads(1, ("dense", method))
    ]
    summary = summarise(records)
    return summary.cells[0], summary.cells[0].rows[1], summary.environment


def test_at_the_measured_keep_ratio_it_is_the_ideal_of_the_row():
    cell, row, environment = cell_and_row()
    ideal = ideal_at(work_of(cell), frozenset(ROUTED), KEEP["threshold"], row.kind, ceilings_from(environment))
    assert ideal == pytest.approx((row.values["prefill_ideal_speedup"], row.values["decode_ideal_speedup"]))


def test_the_curve_falls_to_one_where_all_is_kept():
    curve = ideal_curve(*cell_and_row())
    assert curve.keep_ratios == GRID
    for ideals in (curve.prefill, curve.decode):
        assert ideals[-1] == pytest.approx(1.0)
        assert list(ideals) == sorted(ideals, reverse=True)
        assert ideals[0] > 1.5


@pytest.mark.parametrize(
    "ceilings", [None, {}, {"copy_bytes_per_s": 1e10}, {"copy_bytes_per_s": 0, "matmul_flops_per_s": 1}]
)
def test_without_measured_ceilings_there_is_no_curve(ceilings):
    assert ideal_curve(*cell_and_row(ceilings=ceilings)) is None


def test_what_saves_nothing_or_routes_nothing_has_no_curve():
    assert ideal_curve(*cell_and_row("masked")) is None
    assert ideal_curve(*cell_and_row("mine")) is None
