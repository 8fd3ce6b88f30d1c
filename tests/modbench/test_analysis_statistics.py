import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modbench.analysis import statistics


def test_quantile_of_one_value_is_the_value():
    assert statistics.launch_value([3.0]) == 3.0


def test_quantile_interpolates_linearly_by_hand():
    # position 0.25 * (4 - 1) = 0.75 between 10 and 20
    assert statistics.launch_value([40.0, 10.0, 30.0, 20.0]) == pytest.approx(17.5)
    # position 0.25 * (5 - 1) = 1: the second smallest, whatever the outlier is
    assert statistics.launch_value([5.0, 1.0, 2.0, 3.0, 1e9]) == 2.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(0, 1))
def test_quantile_is_numpys_default(values, share):
    assert statistics.quantile(values, share) == pytest.approx(float(numpy.quantile(values, share)), rel=1e-9, abs=1e-6)


def test_quantile_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one value"):
        statistics.quantile([], 0.5)


def test_median_of_even_and_odd_counts_and_ties():
    assert statistics.median([3.0, 1.0, 2.0]) == 2.0
    assert statistics.median([4.0, 1.0, 2.0, 3.0]) == 2.5
    assert statistics.median([7.0, 7.0, 7.0, 7.0]) == 7.0


def test_log_ratio_is_positive_where_the_second_is_slower():
    assert statistics.log_ratios([(1.0, 2.0), (2.0, 1.0)]) == pytest.approx([math.log(2), -math.log(2)])


@pytest.mark.parametrize(
    ("num_values", "rank", "percent"), [(8, 1, 99.2), (12, 2, 99.4), (20, 5, 98.8)], ids=["n=8", "n=12", "n=20"]
)
def test_interval_ranks_and_coverage_at_the_three_looks(num_values, rank, percent):
    assert statistics.interval_rank(num_values) == rank
    assert 100 * statistics.coverage(num_values, rank) == pytest.approx(percent, abs=0.05)


def test_coverage_by_hand():
    assert statistics.coverage(8, 1) == 1 - 2 / 256
    assert statistics.coverage(12, 2) == 1 - 2 * (1 + 12) / 4096


def test_no_interval_below_eight_pairs():
    assert statistics.ratio_interval([0.1] * 7) is None
    assert statistics.interval_of_speedup([0.1] * 7) is None


@pytest.mark.parametrize(
    ("num_values", "ends"), [(8, (1, 8)), (9, (1, 9)), (11, (2, 10)), (12, (2, 11)), (20, (5, 16)), (21, (5, 17))]
)
def test_interval_takes_the_order_statistics(num_values, ends):
    shuffled = [float((7 * i) % num_values + 1) for i in range(num_values)] if num_values % 7 else None
    values = shuffled or [float(value) for value in range(num_values, 0, -1)]
    assert statistics.ratio_interval(values) == ends


def test_an_outlier_does_not_move_the_interval_from_twelve_pairs_on():
    values = [0.01 * index for index in range(12)]
    assert statistics.ratio_interval([*values[:11], 9.0]) == statistics.ratio_interval(values)


def test_identical_pairs_give_an_interval_of_no_width():
    assert statistics.ratio_interval([0.25] * 8) == (0.25, 0.25)


def test_every_rank_covers_enough_and_the_next_would_not():
    for num_values in range(8, 60):
        rank = statistics.interval_rank(num_values)
        assert rank is not None
        assert statistics.coverage(num_values, rank) >= 0.988 > statistics.coverage(num_values, rank + 1)


def test_speedup_is_baseline_over_method_with_the_interval_turned_round():
    differences = [math.log(method) for method in (0.50, 0.51, 0.49, 0.50, 0.52, 0.48, 0.50, 0.50)]
    assert statistics.speedup_of(differences) == pytest.approx(2.0)
    assert statistics.interval_of_speedup(differences) == pytest.approx((1 / 0.52, 1 / 0.48))


@pytest.mark.parametrize(("percent", "needed"), [(90, 29), (95, 59), (99, 299)])
def test_percentiles_need_samples(percent, needed):
    few = statistics.percentile([1.0] * (needed - 1), percent)
    assert (few.value, few.reason) == (None, f"needs {needed}")
    assert statistics.percentile([1.0] * needed, percent).value == 1.0


def test_sign_test_by_hand():
    assert statistics.sign_test_p_value([1.0] * 8, 0.0) == 1 / 256
    assert statistics.sign_test_p_value([1.0] * 7 + [-1.0], 0.0) == 9 / 256
    assert statistics.sign_test_p_value([0.0] * 8, 0.0) == 1.0, "a tie counts against"
    assert statistics.sign_test_p_value([], 0.0) == 1.0


def test_holm_stops_at_the_first_failure():
    # thresholds 0.01, 0.015, 0.03 for the sorted p-values 0.001, 0.02, 0.025: the second fails, so the third does
    assert statistics.holm([0.02, 0.001, 0.025], 0.03) == [False, True, False]
    assert statistics.holm([0.004, 0.003], 0.0079) == [True, True]
    assert statistics.holm([], 0.01) == []
