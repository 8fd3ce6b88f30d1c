"""The exit code of a gate, from all verdicts of a command."""

from itertools import combinations

import pytest

from modbench.analysis.comparison import gate_exit_code
from modbench.analysis.verdict import Verdict

CODES = {
    Verdict.SAME: 0,
    Verdict.FASTER: 0,
    Verdict.SLOWER: 1,
    Verdict.UNDECIDED: 3,
    Verdict.INCONCLUSIVE: 3,
    Verdict.NOT_COMPARABLE: 4,
    Verdict.FAILED: 5,
}
ALL_SETS = [set(chosen) for size in range(1, len(Verdict) + 1) for chosen in combinations(Verdict, size)]
OPEN = {Verdict.UNDECIDED, Verdict.INCONCLUSIVE}


def gravest(codes):
    """5 > 1 > 4 > 3 > 0, by hand."""
    return max(codes, key=[0, 3, 4, 1, 5].index)


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_a_code_of_its_own(verdict):
    assert gate_exit_code([verdict]) == CODES[verdict]


def test_of_several_verdicts_the_gravest_counts_whatever_their_order():
    for verdicts in ALL_SETS:
        expected = gravest({CODES[verdict] for verdict in verdicts})
        assert gate_exit_code(verdicts) == gate_exit_code(sorted(verdicts, reverse=True)) == expected, verdicts


@pytest.mark.parametrize(("mode", "code"), [("pass", 0), ("fail", 1)])
def test_inconclusive_may_count_as_passed_or_as_failed_and_changes_no_other_verdict(mode, code):
    for verdicts in ALL_SETS:
        expected = gravest({code if verdict in OPEN else CODES[verdict] for verdict in verdicts})
        assert gate_exit_code(verdicts, mode) == expected, verdicts


@pytest.mark.parametrize("mode", [None, "pass", "fail"])
def test_nothing_measured_is_a_failure_and_never_a_pass(mode):
    assert gate_exit_code([], mode) == 5
