"""The order of launches measured side by side."""

from modbench.plan import build_plan
from modbench.side_plan import BASE, CANDIDATE, side_quad
from tests.modbench.scripted_sides import SCENARIO, load


def plans(tmp_path):
    loaded = load(tmp_path, SCENARIO.replace("{dense: {}}", "{dense: {}, threshold: {}}").replace("[8]", "[8, 16]"))
    return build_plan(loaded, "base-run", "cpu"), build_plan(loaded, "candidate-run", "cpu")


def test_even_quads_begin_and_end_with_the_base_and_odd_ones_with_the_candidate(tmp_path):
    both = plans(tmp_path)
    orders = [[side for side, _ in side_quad(both, 0, "dense", quad)] for quad in range(3)]
    assert orders[0] == [BASE, CANDIDATE, CANDIDATE, BASE]
    assert orders[1] == [CANDIDATE, BASE, BASE, CANDIDATE]
    assert orders[2] == orders[0]


def test_each_half_of_a_quad_is_a_pair(tmp_path):
    for quad in range(2):
        halves = [
            {side for side, spec in side_quad(plans(tmp_path), 0, "dense", quad) if spec.pair.position // 2 == half}
            for half in (0, 1)
        ]
        assert halves == [{BASE, CANDIDATE}, {BASE, CANDIDATE}]


def test_launches_are_of_the_method_and_cell_asked_for_and_all_have_ids_of_their_own(tmp_path):
    launches = [spec for quad in range(2) for _, spec in side_quad(plans(tmp_path), 1, "threshold", quad)]
    assert {(spec.method, spec.point.workload["context"]) for spec in launches} == {("threshold", 16)}
    assert len({spec.launch_id for spec in launches}) == 8
    assert [spec.pair.position for spec in launches] == [0, 1, 2, 3] * 2


def test_both_sides_do_the_same_work_in_runs_of_their_own(tmp_path):
    found = dict(side_quad(plans(tmp_path), 0, "dense", 0))
    assert found[BASE].point_id == found[CANDIDATE].point_id
    assert found[BASE].point == found[CANDIDATE].point
    assert found[BASE].run_id != found[CANDIDATE].run_id
