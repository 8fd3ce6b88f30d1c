import pytest

from modbench.analysis.gate import gate_result
from modbench.analysis.verdict import Verdict
from tests.modbench.comparison_factory import inconclusive, line, sides, slower


def test_everything_of_the_same_speed_passes_without_findings():
    result = gate_result([sides(line(), line(Verdict.FASTER, 512))])
    assert (result.exit_code, result.outcome, result.num_judged) == (0, "same or faster", 2)
    assert not result.findings
    assert [item.line.cell_id for item in result.faster] == ["cell-512"]


def test_nothing_with_a_verdict_has_failed():
    for compared in ([], [sides()], [sides(line(None, ground="advisory"))]):
        result = gate_result(compared)
        assert (result.exit_code, result.outcome, result.num_judged) == (5, "failed", 0)


def test_findings_come_gravest_first_and_in_each_the_largest_ratio():
    lines = [inconclusive(), slower(512), slower(2048, ratio=1.2), line(Verdict.NOT_COMPARABLE), line(Verdict.FAILED)]
    result = gate_result([sides(*lines)])
    assert list(result.findings) == ["failed", "slower", "not comparable", "inconclusive"]
    assert [item.line.ratio for item in result.findings["slower"]] == [1.2, 1.061]
    assert (result.exit_code, result.outcome) == (5, "failed")


@pytest.mark.parametrize(("counts_as", "code"), [(None, 3), ("pass", 0), ("fail", 1)])
def test_inconclusive_keeps_its_name_whatever_it_counts_as(counts_as, code):
    result = gate_result([sides(line(), inconclusive())], counts_as)
    assert (result.exit_code, result.outcome) == (code, "inconclusive")


def test_an_inconclusive_that_counts_as_failed_comes_before_not_comparable_as_in_the_exit_code():
    compared = [sides(line(Verdict.NOT_COMPARABLE), inconclusive())]
    assert (gate_result(compared).exit_code, gate_result(compared).outcome) == (4, "not comparable")
    result = gate_result(compared, "fail")
    assert (result.exit_code, result.outcome) == (1, "inconclusive")


def test_several_scenarios_are_one_gate():
    noisy = sides(line(), margins={"tpot_s": 0.048})
    result = gate_result([sides(line()), noisy, sides(slower())])
    assert (result.exit_code, result.counts[Verdict.SAME], result.counts[Verdict.SLOWER]) == (1, 2, 1)
    assert result.noisy_margins == {"tpot_s": 0.048}
