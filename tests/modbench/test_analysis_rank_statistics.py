import itertools
import math

import pytest

from modbench.analysis.rank_statistics import MAX_VALUES, RankShift, interval_rank, tail_probability

# Hollander and Wolfe, table 4.1: permeability of the human chorioamnion at term, and at 12 to 26 weeks
TERM = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
EARLY = [1.15, 0.88, 0.90, 0.74, 1.21]


def probability_by_enumeration(num_base: int, num_candidate: int, most: int) -> float:
    orders = list(itertools.combinations(range(num_base + num_candidate), num_base))
    return sum(sum(order) - num_base * (num_base - 1) // 2 <= most for order in orders) / len(orders)


@pytest.mark.parametrize(("num_base", "num_candidate"), [(1, 1), (1, 4), (2, 3), (5, 4), (6, 7)])
def test_the_null_distribution_is_that_of_all_orders(num_base, num_candidate):
    for most in range(num_base * num_candidate + 1):
        expected = probability_by_enumeration(num_base, num_candidate, most)
        assert tail_probability(num_base, num_candidate, most) == expected
        assert tail_probability(num_candidate, num_base, most) == expected


@pytest.mark.parametrize(
    ("num_base", "num_candidate", "critical"), [(8, 8, 7), (8, 10, 11), (10, 10, 16), (12, 12, 27), (20, 20, 105)]
)
def test_published_critical_values_are_met(num_base, num_candidate, critical):
    # the largest U with P(U <= u) <= 0.5 % one-sided, as tables of the Mann-Whitney test print it
    assert tail_probability(num_base, num_candidate, critical) <= 0.005
    assert tail_probability(num_base, num_candidate, critical + 1) > 0.005


def test_the_published_example_has_its_p_value_and_shift():
    shift = RankShift.of(EARLY, TERM)
    assert shift.p_value_above(0.0) == pytest.approx(0.1272, abs=5e-5)
    assert shift.estimate == pytest.approx(0.305)


def test_the_shift_is_the_median_of_all_differences():
    # differences 1 0 -1, 3 2 1, 8 7 6
    assert RankShift.of([1.0, 2.0, 3.0], [2.0, 4.0, 9.0]).estimate == 2.0
    assert RankShift.of([1.0], [2.0, 5.0]).estimate == 2.5  # of an even number: the middle of the two middle ones


def test_the_interval_is_the_widest_order_statistics_that_cover_enough():
    base = [0.0] * 8
    candidate = [float(value) for value in range(1, 9)]
    # r is 9 at 8 and 8, and every value of the candidate stands 8 times among the differences
    assert interval_rank(8, 8) == 9
    assert RankShift.of(base, candidate).interval == (2.0, 7.0)


@pytest.mark.parametrize(("num_base", "num_candidate"), [(8, 8), (8, 20), (12, 12), (20, 20), (50, 60), (200, 200)])
def test_intervals_cover_at_least_98_8_per_cent_and_no_rank_more_would(num_base, num_candidate):
    rank = interval_rank(num_base, num_candidate)
    assert 1 - 2 * tail_probability(num_base, num_candidate, rank - 1) >= 0.988
    assert 1 - 2 * tail_probability(num_base, num_candidate, rank) < 0.988


@pytest.mark.parametrize(("num_base", "num_candidate"), [(7, 8), (8, 7), (1, 100)])
def test_below_eight_values_a_side_there_is_no_interval(num_base, num_candidate):
    shift = RankShift.of([0.0] * num_base, [1.0] * num_candidate)
    assert shift.interval is None
    assert shift.estimate == 1.0


def test_identical_samples_show_no_shift():
    values = [0.01 * index for index in range(8)]
    shift = RankShift.of(values, values)
    low, high = shift.interval
    assert shift.estimate == 0
    assert low == -high < 0
    assert shift.p_value_above(0.0) > 0.5
    constant = RankShift.of([1.0] * 8, [1.0] * 8)
    assert (constant.estimate, constant.interval) == (0.0, (0.0, 0.0))


def test_a_difference_on_the_threshold_counts_against():
    base, candidate = [0.0] * 8, [0.03] * 8
    on_it = RankShift.of(base, candidate)
    assert on_it.p_value_above(0.03) == 1.0
    assert on_it.p_value_above(0.0299) == 1 / math.comb(16, 8)
    assert RankShift.of(candidate, base).p_value_below(0.03) == 1.0
    assert RankShift.of(candidate, base).p_value_below(0.0299) == 1 / math.comb(16, 8)


def test_ties_give_no_smaller_p_value_than_any_way_of_breaking_them():
    base, tied = [0.0, 1.0, 1.0, 2.0, 2.0], [1.0, 2.0, 2.0, 3.0, 3.0]
    value = RankShift.of(base, tied).p_value_above(0.0)
    for signs in itertools.product((-1e-6, 1e-6), repeat=len(tied)):
        broken = [number + sign for number, sign in zip(tied, signs, strict=True)]
        assert RankShift.of(base, broken).p_value_above(0.0) <= value


def test_one_outlier_moves_neither_shift_nor_interval():
    base = [0.001 * index for index in range(12)]
    candidate = [0.1 + value for value in base]
    usual = RankShift.of(base, candidate)
    wild = RankShift.of(base, [*candidate[:-1], 1e6])
    assert wild.estimate == pytest.approx(usual.estimate, abs=0.002)
    assert wild.interval == pytest.approx(usual.interval, abs=0.002)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_an_error(value):
    with pytest.raises(ValueError, match="not finite"):
        RankShift.of([0.0] * 8, [0.0] * 7 + [value])
    with pytest.raises(ValueError, match="not finite"):
        RankShift.of([value], [0.0])


@pytest.mark.parametrize(("num_base", "num_candidate"), [(0, 8), (8, 0), (MAX_VALUES + 1, 8)])
def test_samples_without_values_or_with_too_many_are_an_error(num_base, num_candidate):
    with pytest.raises(ValueError, match="expected 1 to 200 a side"):
        RankShift.of([0.0] * num_base, [0.0] * num_candidate)


def test_every_probability_ends_at_one():
    assert tail_probability(3, 4, 12) == 1.0
    assert tail_probability(3, 4, 99) == 1.0
    assert [tail_probability(3, 4, most) * 35 for most in range(4)] == pytest.approx([1, 2, 4, 7])  # as published
