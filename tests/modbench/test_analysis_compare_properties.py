"""What must hold of every comparison: it has no direction, no unit, and a wider margin never finds more."""

import math

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from modbench.analysis.compare import compare_sides
from modbench.analysis.rank_statistics import RankShift
from modbench.analysis.shift_verdicts import TwoSamples, judge_shifts
from modbench.analysis.verdict import Verdict, judge_family
from modbench.record import Samples
from tests.modbench.side_factory import make_interleaved, make_side, scaled

MIRRORED = {Verdict.SLOWER: Verdict.FASTER, Verdict.FASTER: Verdict.SLOWER}
NEAR = 1e-9  # of a margin: where rounding decides, nothing is claimed
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

log_ratios = st.integers(-400, 400).map(lambda steps: steps * 3.7e-4)  # up to 15 %, with ties
samples = st.lists(log_ratios, min_size=8, max_size=14)
families = st.lists(st.tuples(samples, samples), min_size=1, max_size=6)
paired_families = st.lists(st.lists(log_ratios, min_size=8, max_size=20), min_size=1, max_size=6)
tolerances = st.floats(0.0, 0.2)
launch_factors = st.lists(st.floats(0.9, 1.1), min_size=8, max_size=8)


def shifts_of(family, delta):
    return judge_shifts([TwoSamples(RankShift.of(base, candidate), delta) for base, candidate in family])


def verdicts_of(judgements):
    return [item.verdict for item in judgements]


@given(families, tolerances)
def test_swapping_two_samples_mirrors_verdict_and_interval(family, delta):
    there, back = shifts_of(family, delta), shifts_of([(other, one) for one, other in family], delta)
    assert verdicts_of(back) == [MIRRORED.get(verdict, verdict) for verdict in verdicts_of(there)]
    assert [item.interval for item in back] == [(-item.interval[1], -item.interval[0]) for item in there]


@given(paired_families, tolerances)
def test_swapping_the_sides_of_pairs_mirrors_verdict_and_interval(family, delta):
    there = judge_family(family, delta)
    back = judge_family([[-value for value in values] for values in family], delta)
    assert verdicts_of(back) == [MIRRORED.get(verdict, verdict) for verdict in verdicts_of(there)]
    assert [item.interval for item in back] == [(-item.interval[1], -item.interval[0]) for item in there]


@given(families, tolerances, tolerances)
def test_more_tolerance_never_finds_a_difference_where_less_found_none_between_samples(family, first, second):
    less, more = sorted((first, second))
    for narrow, wide in zip(shifts_of(family, less), shifts_of(family, more), strict=True):
        assert narrow.verdict is not Verdict.SAME or wide.verdict is Verdict.SAME
        assert wide.verdict not in MIRRORED or narrow.verdict is not Verdict.SAME


@given(paired_families, tolerances, tolerances)
def test_more_tolerance_never_finds_a_difference_where_less_found_none_between_pairs(family, first, second):
    less, more = sorted((first, second))
    for narrow, wide in zip(judge_family(family, less), judge_family(family, more), strict=True):
        assert narrow.verdict is not Verdict.SAME or wide.verdict is Verdict.SAME


@given(samples, samples, st.integers(-300, 300))
def test_a_slowdown_of_both_sides_changes_nothing(base, candidate, steps):
    moved = [[value + steps * 2.0**-10 for value in side] for side in (base, candidate)]
    own, other = shifts_of([(base, candidate)], 0.03)[0], shifts_of([tuple(moved)], 0.03)[0]
    ends = [abs(abs(end) - math.log1p(0.03)) for end in own.interval]
    assume(min(ends) > NEAR)
    assert other.verdict is own.verdict


def with_factors(records, factors):
    """Every launch of the method with a factor of its own."""
    own = iter(factors)
    return [record if record.method == "dense" else scaled(record, next(own)) for record in records]


def judged_lines(compared):
    return {
        (line.method, line.metric): line for line in compared.comparisons if line.ground in ("pairs", "ratio_to_dense")
    }


def assert_mirrored(there, back):
    assert there.keys() == back.keys()
    for key, line in there.items():
        assume(line.interval is None or all(abs(abs(math.log(end)) - math.log1p(0.03)) > NEAR for end in line.interval))
        assert back[key].verdict is MIRRORED.get(line.verdict, line.verdict)
        assert math.isclose(back[key].ratio, 1 / line.ratio, rel_tol=1e-9)
        low, high = line.interval
        assert math.isclose(back[key].interval[0], 1 / high, rel_tol=1e-9)
        assert math.isclose(back[key].interval[1], 1 / low, rel_tol=1e-9)


@QUICK
@given(launch_factors, launch_factors, st.sampled_from([0.9, 1.0, 1.02, 1.05, 1.2]))
def test_swapping_saved_runs_mirrors_the_comparison(base_factors, candidate_factors, slowdown):
    base = with_factors(make_side(), base_factors)
    candidate = with_factors(make_side("new", slower={"threshold": slowdown}), candidate_factors)
    there, back = compare_sides(base, candidate, "A", "B"), compare_sides(candidate, base, "B", "A")
    assert_mirrored(judged_lines(there), judged_lines(back))


@QUICK
@given(launch_factors, st.sampled_from([0.9, 1.0, 1.02, 1.05, 1.2]))
def test_swapping_the_sides_of_a_job_mirrors_the_comparison(factors, slowdown):
    base, candidate = make_interleaved(4, slowdown)
    candidate = with_factors(candidate, factors)
    there, back = compare_sides(base, candidate, "A", "B"), compare_sides(candidate, base, "B", "A")
    assert_mirrored(judged_lines(there), judged_lines(back))


@QUICK
@given(launch_factors, st.floats(1e-3, 1e3))
def test_a_unit_of_time_changes_no_verdict(factors, unit):
    for base, candidate in ((make_side(), make_side("new")), make_interleaved(4)):
        other = with_factors(candidate, factors)
        own = judged_lines(compare_sides(base, other, "A", "B"))
        units = [[scaled(record, unit) for record in side] for side in (base, other)]
        for key, line in judged_lines(compare_sides(*units, "A", "B")).items():
            assume(all(abs(abs(math.log(end)) - math.log1p(0.03)) > NEAR for end in own[key].interval))
            assert line.verdict is own[key].verdict
            assert math.isclose(line.ratio, own[key].ratio, rel_tol=1e-9)


@QUICK
@given(launch_factors, tolerances, tolerances)
def test_more_tolerance_never_finds_a_difference_where_less_found_none(factors, first, second):
    less, more = sorted((first, second))
    for base, candidate in ((make_side(), make_side("new")), make_interleaved(4)):
        other = with_factors(candidate, factors)
        narrow, wide = (judged_lines(compare_sides(base, other, "A", "B", tolerance)) for tolerance in (less, more))
        for key, line in narrow.items():
            assert line.verdict is not Verdict.SAME or wide[key].verdict is Verdict.SAME


@QUICK
@given(st.lists(st.floats(1e-6, 1e3), min_size=5, max_size=9))
def test_a_run_compared_with_itself_is_never_slower_or_faster(times):
    records = [
        record.model_copy(update={"samples": Samples(ttft_s=times, tpot_s=times[::-1])}) for record in make_side()
    ]
    assert not {line.verdict for line in compare_sides(records, records, "A", "B").judged} & set(MIRRORED)
