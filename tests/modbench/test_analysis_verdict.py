import math

import pytest

from modbench.analysis.pairs import ComparisonKey
from modbench.analysis.verdict import (
    HELD_BACK,
    Verdict,
    judge,
    judge_family,
    margin,
    pairs_at_look,
    undecided_cells,
)

DELTA = 0.03
TEN_PERCENT = math.log(1.1)


def around(centre: float, num_pairs: int, half_width: float = 0.005) -> list[float]:
    return [centre + half_width * (2 * index / (num_pairs - 1) - 1) for index in range(num_pairs)]


@pytest.mark.parametrize("num_pairs", [8, 9, 12, 20])
@pytest.mark.parametrize(
    ("centre", "verdict"), [(TEN_PERCENT, Verdict.SLOWER), (-TEN_PERCENT, Verdict.FASTER), (0.0, Verdict.SAME)]
)
def test_clear_cases_are_decided_at_every_look(centre, verdict, num_pairs):
    judgement = judge(around(centre, num_pairs), DELTA)
    assert (judgement.verdict, judgement.num_pairs, judgement.is_final) == (verdict, num_pairs, True)


@pytest.mark.parametrize("num_pairs", [0, 1, 7])
def test_no_verdict_below_eight_pairs(num_pairs):
    judgement = judge([TEN_PERCENT] * num_pairs, DELTA)
    assert (judgement.verdict, judgement.interval, judgement.pairs_needed) == (Verdict.UNDECIDED, None, 8)
    assert not judgement.is_final


def test_an_interval_across_the_margin_goes_to_the_next_look_and_then_is_inconclusive():
    assert judge(around(0.03, 8, 0.02), DELTA).verdict is Verdict.UNDECIDED
    assert judge(around(0.03, 12, 0.02), DELTA).verdict is Verdict.UNDECIDED
    last = judge(around(0.025, 20, 0.1), DELTA)
    assert (last.verdict, last.is_final) == (Verdict.INCONCLUSIVE, True)
    assert "crosses the margin" in last.reason


def test_a_lost_pair_does_not_leave_the_last_look_open():
    values = around(0.03, 12, 0.02)
    assert judge(values, DELTA, is_last_look=True).verdict is Verdict.INCONCLUSIVE
    few = judge(values[:7], DELTA, is_last_look=True)
    assert (few.verdict, few.interval, few.is_final) == (Verdict.INCONCLUSIVE, None, True)
    assert judge(around(TEN_PERCENT, 12), DELTA, is_last_look=True).verdict is Verdict.SLOWER
    judged = judge_family([values, values], DELTA, [True, False])
    assert [item.verdict for item in judged] == [Verdict.INCONCLUSIVE, Verdict.UNDECIDED]


@pytest.mark.parametrize(
    ("num_pairs", "judged"), [(0, 0), (7, 7), (8, 8), (11, 8), (12, 12), (19, 12), (20, 20), (30, 20)]
)
def test_only_the_pairs_of_a_planned_look_are_judged(num_pairs, judged):
    values = [float(index) for index in range(num_pairs)]
    assert pairs_at_look(values) == values[:judged]
    assert judge_family([values], DELTA)[0].num_pairs == judged


def test_surplus_pairs_do_not_change_a_verdict():
    slower = around(TEN_PERCENT, 8)
    assert judge_family([slower + [-9.0] * 3], DELTA)[0].verdict is Verdict.SLOWER


def test_inconclusive_says_how_many_pairs_it_would_take():
    values = around(0.0, 20, 0.15)
    judgement = judge(values, DELTA)
    low, high = judgement.interval
    assert judgement.verdict is Verdict.INCONCLUSIVE
    # half width falls as 1 / sqrt(n): it must reach the distance from the median (0) to the margin
    assert judgement.pairs_needed == math.ceil(20 * (high / math.log(1.03)) ** 2)
    assert high == pytest.approx(-low)


def test_no_number_of_pairs_helps_on_the_margin_itself():
    assert judge([math.log1p(DELTA)] * 20, DELTA).pairs_needed is None


def test_no_useful_number_of_pairs_helps_next_to_the_margin():
    assert judge(around(0.0, 20), delta=1e-300).pairs_needed is None


def test_an_interval_that_touches_the_margin_is_not_slower():
    bound = math.log1p(DELTA)
    assert judge([bound] * 8, DELTA).verdict is Verdict.UNDECIDED
    assert judge([bound + 1e-9] * 8, DELTA).verdict is Verdict.SLOWER


def test_margin_is_the_larger_of_tolerance_and_noise_floor():
    assert margin() == 0.03
    assert margin(0.03, 0.05) == 0.05
    assert margin(0.03, 0.01) == 0.03


def test_a_single_comparison_needs_no_family_correction():
    assert judge_family([around(TEN_PERCENT, 8)], DELTA)[0].verdict is Verdict.SLOWER


def test_of_many_comparisons_eight_pairs_are_too_few_and_twelve_enough():
    # p = 1/256 at n = 8 passes Holm at 1.3 % for 3 comparisons, not for 4; at n = 12 p = 1/4096
    assert [item.verdict for item in judge_family([around(TEN_PERCENT, 8)] * 3, DELTA)] == [Verdict.SLOWER] * 3
    four = judge_family([around(TEN_PERCENT, 8)] * 4, DELTA)
    assert [item.verdict for item in four] == [Verdict.UNDECIDED] * 4
    assert "one of several" in four[0].reason
    assert four[0].pairs_needed == 12  # 2 ** -9 <= 0.013 / 4 < 2 ** -8, and the next look has 12
    assert [item.verdict for item in judge_family([around(-TEN_PERCENT, 12)] * 4, DELTA)] == [Verdict.FASTER] * 4


def test_at_the_last_look_what_is_held_back_says_how_many_pairs_would_confirm_it():
    values = around(TEN_PERCENT, 16) + around(-TEN_PERCENT, 4)
    judged = judge_family([values] * 10, DELTA, [True] * 10)
    assert {(item.verdict, item.reason) for item in judged} == {(Verdict.INCONCLUSIVE, HELD_BACK)}
    # p = P(Bin(20, 1/2) >= 16) = 0.0059, a normal score of 2.518; 0.013 / 10 has 3.011: 20 * (3.011 / 2.518) ** 2 = 28.6
    assert {item.pairs_needed for item in judged} == {29}


def test_comparisons_without_pairs_do_not_enlarge_the_family():
    judged = judge_family([[], *[around(TEN_PERCENT, 8)] * 3, []], DELTA)
    assert [item.verdict for item in judged[1:4]] == [Verdict.SLOWER] * 3
    assert judged[0].verdict is Verdict.UNDECIDED


def family_of(**cells):
    """One comparison per item of each cell's list."""
    return {
        ComparisonKey(cell_id, f"method-{index}", "point", "ttft_s"): values
        for cell_id, lists in cells.items()
        for index, values in enumerate(lists)
    }


def test_a_cell_is_undecided_while_one_of_its_comparisons_is():
    clear, open_question = around(TEN_PERCENT, 8), around(0.03, 8, 0.02)
    assert undecided_cells(family_of(a=[clear], b=[clear, open_question])) == {"b"}
    assert undecided_cells(family_of(a=[clear[:7]])) == {"a"}


def test_a_method_that_cannot_run_holds_nothing_up():
    assert undecided_cells(family_of(a=[around(TEN_PERCENT, 8), []])) == set()
    assert undecided_cells({}) == set()


def test_what_further_launches_would_not_help_holds_nothing_up():
    family = family_of(a=[around(0.03, 8, 0.02), around(0.03, 8, 0.02)], b=[around(0.03, 8, 0.02)])
    assert undecided_cells(family) == {"a", "b"}
    assert undecided_cells(family, {("a", "method-0")}) == {"a", "b"}
    assert undecided_cells(family, {("a", "method-0"), ("a", "method-1")}) == {"b"}
    assert undecided_cells(family, {("b", "dense")}) == {"a"}, "without its baseline a cell gains nothing"


def test_after_the_last_look_nothing_is_gained_by_another():
    assert undecided_cells(family_of(a=[around(0.03, 20, 0.1)])) == set()


def test_cells_of_one_run_are_one_family():
    clear = around(TEN_PERCENT, 8)
    assert undecided_cells(family_of(a=[clear], b=[clear])) == set()
    many = family_of(a=[clear, clear], b=[clear, clear])
    assert undecided_cells(many) == {"a", "b"}, "8 pairs cannot pass Holm's procedure with four comparisons"


def test_a_larger_noise_floor_makes_a_small_difference_the_same():
    values = around(math.log(1.04), 8, 0.002)
    assert judge(values, margin()).verdict is Verdict.SLOWER
    assert judge(values, margin(noise_floor=0.06)).verdict is Verdict.SAME
