"""Limits of two searches by hand: brackets that overlap, memory limits, searches that ended without a limit."""

import pytest

from modbench.analysis.compare import compare_sides
from modbench.analysis.verdict import Verdict
from tests.modbench.side_factory import MACHINE
from tests.modbench.test_analysis_limits import searched, trial

FACTS = {"machine": MACHINE, "versions": {"torch": "2.11.0"}, "memory_limit_bytes": 2**29}


def side(records, run="base", **facts):
    return [
        record.model_copy(update={"launch_id": f"{run}-{record.launch_id}", "environment": {**FACTS, **facts}})
        for record in records
    ]


def limit_line(base, candidate):
    (line,) = compare_sides(base, candidate, "A", "B").comparisons
    return line


@pytest.mark.parametrize(
    ("fitting", "failing", "verdict", "word"),
    [
        (1000, 1020, Verdict.SAME, "same"),
        (1010, 1030, Verdict.SAME, "same"),  # known to a step only
        (960, 1001, Verdict.SAME, "same"),
        (960, 1000, Verdict.SLOWER, "fits less"),  # fails at what the base fits
        (1020, 1040, Verdict.FASTER, "fits more"),
    ],
)
def test_limits_are_compared_by_what_is_known_to_fit_and_to_fail(fitting, failing, verdict, word):
    line = limit_line(side(searched("dense", 1000, 1020)), side(searched("dense", fitting, failing), "new"))
    assert (line.metric, line.ground, line.verdict, line.word) == ("context_limit", "exact", verdict, word)
    assert (line.base, line.candidate, line.ratio) == (1000, fitting, fitting / 1000)
    assert line.doubts == (f"known to a step: the base fails at 1,020, the candidate fails at {failing:,}",)
    assert line.axes == {"search": "context"}


def test_a_limit_at_its_bound_is_not_less_than_another():
    line = limit_line(side(searched("dense", 1000, 1020)), side(searched("dense", 65_520, None), "new"))
    assert line.verdict is Verdict.FASTER
    assert "the candidate has reached the most that can be tried" in line.doubts[0]


def test_limits_within_other_memory_are_not_comparable():
    candidate = side(searched("dense", 500, 520), "new", memory_limit_bytes=2**28)
    line = limit_line(side(searched("dense", 1000, 1020)), candidate)
    assert (line.verdict, line.reason) == (
        Verdict.NOT_COMPARABLE,
        "the memory limits differ: 512 MiB and 256 MiB",
    )


def test_limits_of_two_machines_are_not_comparable():
    candidate = side(searched("dense", 500, 520), "new", machine={**MACHINE, "fingerprint": "beef"})
    line = limit_line(side(searched("dense", 1000, 1020)), candidate)
    assert line.verdict is Verdict.NOT_COMPARABLE
    assert "one machine" in line.reason


def test_a_search_that_ended_without_a_limit_has_failed_and_is_no_base():
    whole, broken = side(searched("dense", 1000, 1020)), side([trial("dense", 64, "failed")], "new")
    assert limit_line(whole, broken).verdict is Verdict.FAILED
    assert limit_line(broken, whole).verdict is Verdict.NOT_COMPARABLE
    assert compare_sides(broken, broken, "A", "B").comparisons == ()


def test_a_wrong_method_has_no_limit_that_counts():
    wrong = [
        record.model_copy(update={"guard": {"causal": "failed"}})
        for record in side(searched("dense", 1000, 1020), "new")
    ]
    line = limit_line(side(searched("dense", 1000, 1020)), wrong)
    assert (line.verdict, line.reason) == (Verdict.NOT_COMPARABLE, "candidate: identity causal failed")
