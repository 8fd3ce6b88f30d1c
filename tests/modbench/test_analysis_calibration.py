"""Noise floor, false alarms and the smallest change found, on small cases that can be checked by hand."""

import math
import random

import pytest

from modbench.analysis.calibration import MIN_CALIBRATION_PAIRS, NUM_RESAMPLES, noise_figures
from modbench.analysis.statistics import median, quantile


def gaussian(sigma, count=200, seed=1):
    chooser = random.Random(seed)
    return [chooser.gauss(0.0, sigma) for _ in range(count)]


def test_39_pairs_are_refused():
    with pytest.raises(ValueError, match="got 39 pairs; expected at least 40"):
        noise_figures([0.0] * 39, 0.03)
    assert noise_figures([0.0] * MIN_CALIBRATION_PAIRS, 0.03).num_pairs == 40


def test_pairs_without_any_noise_leave_the_tolerance_and_find_the_first_step_above_it():
    figures = noise_figures([0.0] * 40, 0.03)
    assert (figures.sigma_ratio, figures.noise_floor, figures.margin) == (0.0, 0.0, 0.03)
    assert (figures.false_alarm_ratio, figures.same_ratio, figures.inconclusive_ratio) == (0.0, 1.0, 0.0)
    assert figures.smallest_detectable == pytest.approx(0.035), "at δ itself the interval only touches the margin"


def test_a_difference_between_equal_sides_becomes_the_floor():
    figures = noise_figures([math.log(1.10)] * 40, 0.03)
    assert figures.noise_floor == pytest.approx(0.10)
    assert figures.margin == pytest.approx(0.10)
    assert figures.false_alarm_ratio == 0.0


def test_the_floor_is_the_same_for_either_sign():
    values = gaussian(0.02)
    mirrored = [-value for value in values]
    assert noise_figures(values, 0.03).noise_floor == noise_figures(mirrored, 0.03).noise_floor


def test_the_floor_is_the_95th_percentile_of_the_medians_of_resamples_of_20():
    values = gaussian(0.05, count=40)
    chooser = random.Random(7)
    medians = [abs(median(chooser.choices(values, k=20))) for _ in range(NUM_RESAMPLES)]
    assert noise_figures(values, 0.001, seed=7).noise_floor == pytest.approx(math.expm1(quantile(medians, 0.95)))


def test_two_values_far_apart_become_the_margin_and_give_no_false_alarm():
    figures = noise_figures([0.2, -0.2] * 20, 0.03)
    assert figures.noise_floor == pytest.approx(math.expm1(0.2)), "more than 5 % of medians of 20 are at an end"
    assert figures.false_alarm_ratio == 0.0, "the floor has become the margin, and the values only touch it"
    assert figures.same_ratio == 0.0


def test_the_three_outcomes_are_all_there_are():
    figures = noise_figures(gaussian(0.04), 0.03)
    total = figures.false_alarm_ratio + figures.same_ratio + figures.inconclusive_ratio
    assert total == pytest.approx(1.0)


def test_false_alarms_stay_below_the_error_of_three_looks():
    for sigma in (0.01, 0.05, 0.3):
        assert noise_figures(gaussian(sigma), 0.001).false_alarm_ratio <= 0.026


def test_same_is_as_frequent_as_the_measuring_contract_says():
    """98 % at a pair σ of 2 % and 30 % at 4 %, in normal noise."""
    assert noise_figures(gaussian(0.02, 2000), 0.03).same_ratio > 0.95
    assert 0.15 < noise_figures(gaussian(0.04, 2000), 0.03).same_ratio < 0.50


def test_the_smallest_change_found_grows_with_the_noise():
    found = [noise_figures(gaussian(sigma), 0.03).smallest_detectable for sigma in (0.005, 0.02, 0.05)]
    assert found == sorted(found)
    assert 0.03 < found[0] < found[1] < found[2]


def test_more_tolerance_never_finds_a_smaller_change():
    values = gaussian(0.02)
    found = [noise_figures(values, tolerance).smallest_detectable for tolerance in (0.01, 0.03, 0.10)]
    assert found == sorted(found)


def test_huge_noise_finds_nothing_and_says_so():
    figures = noise_figures(gaussian(1.0), 0.03)
    assert figures.smallest_detectable is None
    assert figures.margin == figures.noise_floor > 0.03


def test_a_margin_above_the_largest_change_tried_finds_nothing():
    assert noise_figures([0.0] * 40, 0.6).smallest_detectable is None


def test_one_seed_gives_one_answer():
    values = gaussian(0.03)
    assert noise_figures(values, 0.03, seed=3) == noise_figures(values, 0.03, seed=3)
    assert noise_figures(values, 0.03, seed=3) != noise_figures(values, 0.03, seed=4)


def test_the_usable_tolerance_leaves_few_checks_of_unchanged_code_open():
    values = gaussian(0.05)
    usable = noise_figures(values, 0.03).usable_tolerance
    assert usable > 0.03
    assert noise_figures(values, usable).inconclusive_ratio <= 0.10
    assert noise_figures(values, usable - 0.005).inconclusive_ratio > 0.10


def test_a_quiet_machine_can_use_the_tolerance_that_was_asked_for():
    assert noise_figures(gaussian(0.005), 0.03).usable_tolerance == 0.03
    assert noise_figures(gaussian(1.0), 0.03).usable_tolerance is None
