"""Planning within a time budget: numbers in, a number of quads and sentences out."""

import pytest

from modbench.budget import (
    QuadPlan,
    budget_text,
    chosen_text,
    cut_text,
    expected_text,
    missing_launches,
    plan_quads,
    quad_costs,
    unknown_text,
)
from modbench.launch_costs import Expected
from modbench.plan import Plan, build_plan
from modbench.scenario import load_scenario

LOOKS = (4, 6, 10)
SOURCE = "(from earlier launches on this machine)"


def make_plan(tmp_path, launches: str = "auto") -> Plan:
    (tmp_path / "s.yaml").write_text(
        "name: planned\nmodel: {preset: tiny}\nmethods: {dense: {}, skip_layers: {}}\n"
        "workload: {context: 8, new_tokens: 5, prompt: {synthetic: true}}\n"
        f"measure: {{launches: {launches}, device: cpu}}\nmatrix: {{workload.context: [8, 16]}}\n"
    )
    return build_plan(load_scenario(tmp_path / "s.yaml"), "run", "cpu")


@pytest.mark.parametrize(
    ("budget_s", "expected"),
    [
        (1000, QuadPlan(10, 200, is_look=True)),
        (200, QuadPlan(10, 200, is_look=True)),
        (199, QuadPlan(6, 120, is_look=True)),
        (80, QuadPlan(4, 80, is_look=True)),
        (79, QuadPlan(3, 60, is_look=False)),
        (20, QuadPlan(1, 20, is_look=False)),
        (19, QuadPlan(0, 0, is_look=False)),
    ],
)
def test_all_cells_reach_the_largest_look_that_fits_or_as_many_quads_as_fit(budget_s, expected):
    assert plan_quads([[5.0] * 10, [15.0] * 10], LOOKS, budget_s) == expected


def test_quads_on_disk_cost_nothing():
    costs_s = [[0.0] * 4 + [5.0] * 6]
    assert plan_quads(costs_s, LOOKS, 10) == QuadPlan(6, 10, is_look=True)
    assert plan_quads(costs_s, LOOKS, 9) == QuadPlan(5, 5, is_look=False), "what is on disk is no plan"
    assert plan_quads(costs_s, LOOKS, 4) == QuadPlan(0, 0, is_look=False)


def test_what_costs_nothing_always_fits():
    assert plan_quads([[0.0] * 10], LOOKS, 0) == QuadPlan(10, 0, is_look=True)


def test_a_fixed_number_of_launches_is_cut_to_what_fits():
    assert plan_quads([[10.0] * 8], (8,), 75) == QuadPlan(7, 70, is_look=False)


def test_costs_are_summed_per_quad_over_the_launches_that_are_missing(tmp_path):
    plan = make_plan(tmp_path, "3")
    found = quad_costs(
        plan, [0, 1], lambda spec: spec.method == "dense", lambda spec: Expected(2.0, spec.num_tokens > 20)
    )
    assert found == ([[4.0, 2.0], [4.0, 2.0]], True), "the last quad of three launches is half a one"
    assert quad_costs(plan, [0], lambda spec: True, lambda spec: None) is None
    assert len(missing_launches(plan, [0, 1], 1, lambda spec: True)) == 8


def test_the_line_before_the_start(tmp_path):
    plan, costs_s = make_plan(tmp_path), [[10.0] * 10, [20.0] * 10]
    chosen = plan_quads(costs_s, plan.looks, 150)
    assert chosen_text(plan, chosen, 32, costs_s, 150, SOURCE) == (
        "budget 2 min 30 s: 8 pairs at 2 points x 2 methods = 32 launches, about 2 min 00 s "
        "(from earlier launches on this machine)"
    )
    chosen = plan_quads(costs_s, plan.looks, 200)
    assert "up to 12 pairs at 2 points" in chosen_text(plan, chosen, 48, costs_s, 200, SOURCE)


def test_a_budget_too_small_for_a_verdict_says_what_one_takes(tmp_path):
    plan, costs_s = make_plan(tmp_path), [[10.0] * 10, [20.0] * 10]
    chosen = plan_quads(costs_s, plan.looks, 60)
    assert chosen_text(plan, chosen, 16, costs_s, 60, SOURCE) == (
        "budget 1 min: 4 pairs at 2 points x 2 methods = 16 launches, about 1 min 00 s "
        "(from earlier launches on this machine); no verdict below 8 pairs, which take about 2 min 00 s"
    )
    chosen = plan_quads(costs_s, plan.looks, 20)
    assert chosen_text(plan, chosen, 0, costs_s, 20, SOURCE) == (
        "budget 20 s: not enough for one more quad at 2 points x 2 methods, about 30 s "
        "(from earlier launches on this machine); quads are measured while there is time, at least one"
        "; no verdict below 8 pairs, which take about 2 min 00 s"
    )


def test_a_scenario_that_asks_for_no_verdict_is_not_told_of_one(tmp_path):
    plan, costs_s = make_plan(tmp_path, "3"), [[10.0, 5.0]] * 2
    chosen = plan_quads(costs_s, plan.looks, 100)
    assert chosen_text(plan, chosen, 12, costs_s, 100, SOURCE).startswith("budget 1 min 40 s: 3 pairs at 2 points")
    assert "verdict" not in chosen_text(plan, chosen, 12, costs_s, 100, SOURCE)


def test_a_run_without_a_budget_is_told_its_time_from_first_to_last_look(tmp_path):
    plan = make_plan(tmp_path)
    text = expected_text(plan, [[10.0] * 10, [20.0] * 10], SOURCE)
    assert text == (
        "expected: 8 to 20 pairs at 2 points x 2 methods, about 2 min 00 s to 5 min 00 s "
        "(from earlier launches on this machine)"
    )
    assert expected_text(plan, [[0.0] * 4 + [9.0] * 6] * 2, SOURCE) == "", "what is decided is not known beforehand"
    assert expected_text(make_plan(tmp_path, "2"), [[9.0]] * 2, "(x)") == (
        "expected: 2 pairs at 2 points x 2 methods, about 18 s (x)"
    )


def test_the_doubt_names_pairs_and_points(tmp_path):
    plan = make_plan(tmp_path)
    assert cut_text(plan, 600, [4, 4], [1]) == (
        "the time budget 10 min ended the run with 8 of up to 20 pairs at 1 of 2 points"
    )
    assert cut_text(plan, 90, [1, 0], [0, 1]) == (
        "the time budget 1 min 30 s ended the run with 0 to 2 of up to 20 pairs at 2 of 2 points, "
        "1 of them without a whole quad"
    )


def test_budgets_in_words():
    assert budget_text(600) == "budget 10 min"
    assert budget_text(5400) == "budget 1 h 30 min"
    assert unknown_text(90) == (
        "budget 1 min 30 s: no earlier launches are known on this machine; planned after the first quad"
    )
