"""The search against an oracle: limits of every size, bounds, resolutions, and outcomes that are not monotonic."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modbench.search import ROUNDING, LimitSearch

MAX_TRIES = 60


def tries(search: LimitSearch, fits: Callable[[int], bool]) -> list[int]:
    tried = []
    while (value := search.next_value()) is not None:
        assert value not in tried, "a value is tried once"
        tried.append(value)
        assert len(tried) <= MAX_TRIES, tried
        search.note(value, fits(value))
    return tried


@given(
    limit=st.integers(0, 200_000),
    first=st.integers(1, 50_000),
    bound=st.none() | st.integers(1, 100_000),
    resolution=st.sampled_from([0.0, 0.001, 0.02, 0.3]),
)
def test_the_limit_is_bracketed_as_closely_as_asked(limit, first, bound, resolution):
    search = LimitSearch(first, bound, resolution)
    tried = tries(search, lambda value: value <= limit)
    found, failing = search.largest_fitting, search.first_failing
    assert all(1 <= value <= (bound or value) for value in tried)
    if limit == 0:
        assert (found, failing) == (None, 1)
    elif bound is not None and bound <= limit:
        assert search.is_at_bound
        assert found == bound
        assert failing is None
    else:
        assert found <= limit < failing
        assert failing - found <= max(1, resolution * found)


@pytest.mark.parametrize("limit", range(1, 200))
def test_without_a_resolution_the_limit_is_exact(limit):
    search = LimitSearch(1)
    tries(search, lambda value: value <= limit)
    assert search.largest_fitting == limit


def test_doubling_then_bisection_in_round_numbers():
    search = LimitSearch(1024, 65536, 0.02)
    assert tries(search, lambda value: value <= 7300) == [1024, 2048, 4096, 8192, 6144, 7168, 7680, 7424, 7296]
    assert (search.largest_fitting, search.first_failing) == (7296, 7424)


def test_a_first_value_that_does_not_fit_is_halved():
    assert tries(LimitSearch(1024), lambda value: value <= 3) == [1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 3]
    search = LimitSearch(8)
    assert tries(search, lambda value: False) == [8, 4, 2, 1]
    assert search.largest_fitting is None


def test_values_between_are_round_where_the_gap_is_wide():
    tried = tries(LimitSearch(1000), lambda value: value <= 91_237)
    wide = [value for value in tried if value > 1000 and abs(value - 91_237) > 100 and value not in (2000, 4000, 8000)]
    assert all(value % ROUNDING == 0 for value in wide)


def test_what_fits_above_a_failure_does_not_count():
    search = LimitSearch(100)
    for value, fits in ((100, True), (200, False), (150, True), (400, True)):
        search.note(value, fits)
    assert (search.largest_fitting, search.first_failing) == (150, 200)


def test_a_value_that_once_failed_does_not_fit():
    search = LimitSearch(4)
    for value, fits in ((4, True), (8, False), (6, True), (7, False), (6, False)):
        search.note(value, fits)
    assert search.next_value() == 5
    search.note(5, True)
    assert search.next_value() is None
    assert search.largest_fitting == 5


def test_any_part_of_the_outcomes_leads_to_the_same_next_value():
    def fits(value: int) -> bool:
        return value <= 7300

    tried = tries(LimitSearch(1024, 65536, 0.02), fits)
    for done in range(1, len(tried)):
        resumed = LimitSearch(999, 65536, 0.02)
        for value in reversed(tried[:done]):
            resumed.note(value, fits(value))
        assert resumed.next_value() == tried[done]


def test_a_failure_that_says_nothing_about_sizes_ends_the_search():
    search = LimitSearch(4)
    search.note(4, True)
    search.note(8, None)
    assert search.next_value() is None
    assert search.has_failed
