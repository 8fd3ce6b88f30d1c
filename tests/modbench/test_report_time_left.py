"""Arithmetic of the time left, per point and in all."""

import pytest

from modbench.report.time_left import TimeLeft


def test_time_left_counts_tokens_not_launches():
    left = TimeLeft()
    left.plan(3, 100 + 100 + 1000)
    assert left.run_s() is None
    left.add(2.0, 100)
    assert left.run_s() == 22
    left.add(2.0, 100)
    left.add(20.0, 1000)
    assert left.run_s() is None, "nothing is left"


@pytest.mark.parametrize("num_launches", [0, 5])
def test_nothing_is_promised_before_the_first_launch_ends(num_launches):
    left = TimeLeft()
    left.plan(num_launches, 10 * num_launches, "a")
    left.plan(1, 10, "b")
    assert (left.run_s(), left.point_s("a")) == (None, None)


def test_time_that_no_launch_took_is_expected_again():
    left = TimeLeft()
    left.plan(2, 200)
    left.plan(2, 200)
    left.wait(8.0, 200)
    left.add(2.0, 100)
    assert left.run_s() == 14, "three launches of 2 s and another wait"


def test_a_point_is_told_by_its_own_launches_and_others_by_all():
    left = TimeLeft()
    left.plan(2, 200, "small")
    left.plan(2, 800, "large")
    left.add(1.0, 100, "small")
    assert left.point_s("small") == 1
    assert left.point_s("large") == 8, "at the seconds per token of the small one"
    assert left.run_s() == 9
    left.add(1.0, 100, "small")
    left.add(40.0, 400, "large")
    assert left.point_s("small") is None
    assert left.point_s("large") == left.run_s() == 40


def test_what_was_pruned_is_done_with_and_tells_nothing():
    left = TimeLeft()
    left.plan(4, 400, "a")
    left.plan(1, 100, "b")
    left.add(0.0, 100, "a", is_timed=False)
    assert left.run_s() is None
    left.add(2.0, 100, "a")
    assert (left.point_s("a"), left.run_s()) == (4, 6)
    assert (left.num_done, left.num_planned) == (2, 5)


def test_the_only_point_has_no_place_and_no_time_of_its_own():
    left = TimeLeft()
    left.plan(2, 200, "a")
    left.add(1.0, 100, "a")
    assert (left.place("a"), left.point_s("a"), left.run_s()) == (None, None, 1)
    left.plan(2, 200, "b")
    left.plan(2, 200, "a")
    assert (left.place("a"), left.place("b"), left.place("unknown")) == ((1, 2), (2, 2), None)
