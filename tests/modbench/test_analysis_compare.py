import math

import pytest

from modbench.analysis.compare import COMPARED_METRICS, SideRecords, compare_all
from modbench.analysis.verdict import HELD_BACK, Verdict
from modbench.errors import RecordError
from modbench.record import Samples
from tests.modbench.record_factory import failed
from tests.modbench.side_factory import (
    MACHINE,
    changed,
    compare,
    line_of,
    lines_of,
    make_interleaved,
    make_side,
    scaled,
    texts_of,
    with_facts,
)

LATENCIES = ("ttft_s", "tpot_s")


# Two saved runs: the ratio to dense


@pytest.mark.parametrize(("factor", "verdict"), [(1.1, Verdict.SLOWER), (1 / 1.1, Verdict.FASTER), (1.0, Verdict.SAME)])
def test_two_saved_runs_are_judged_by_their_ratios_to_dense(factor, verdict):
    line = line_of(compare(make_side(), make_side("new", slower={"threshold": factor})))
    assert (line.verdict, line.num_values) == (verdict, (8, 8))
    assert line.ratio == pytest.approx(factor, rel=1e-3)
    assert line.interval[0] <= line.ratio <= line.interval[1]
    assert line.base == pytest.approx(1 / 1.78, rel=1e-3)  # the method's time / dense time
    assert line.candidate == pytest.approx(factor / 1.78, rel=1e-3)


def test_a_slower_machine_changes_no_ratio_to_dense_and_gets_no_verdict_on_absolute_times():
    other = make_side("new", slower={"dense": 3.0, "threshold": 3.0})
    compared = compare(make_side(), other)
    assert {line_of(compared, metric=metric).verdict for metric in LATENCIES} == {Verdict.SAME}
    advisory = line_of(compared, "dense", "ttft_s", "advisory")
    assert (advisory.verdict, advisory.word, advisory.interval) == (None, "~", None)
    assert advisory.ratio == pytest.approx(3.0)
    assert advisory not in compared.judged


def test_absolute_times_of_two_machines_are_not_shown():
    compared = compare(make_side(), with_facts(make_side("new"), machine={**MACHINE, "fingerprint": "beef"}))
    assert not [line for line in compared.comparisons if line.ground == "advisory"]
    assert line_of(compared).verdict is Verdict.SAME
    assert any("absolute times are not shown" in text for text in texts_of(compared))
    first = compared.differences[0]
    assert (first.key, first.base, first.candidate) == ("machine.fingerprint", "f00d", "beef")


def test_fewer_than_eight_pairs_a_side_are_inconclusive_and_say_how_many_it_takes():
    line = line_of(compare(make_side(num_quads=3), make_side("new", slower={"threshold": 1.5})))
    assert (line.verdict, line.interval, line.num_values, line.pairs_needed) == (
        Verdict.INCONCLUSIVE,
        None,
        (6, 8),
        8,
    )
    assert line.ratio == pytest.approx(1.5, rel=1e-2)
    assert "below 8 pairs" in line.reason


def test_an_interval_across_the_margin_is_inconclusive_with_the_pairs_it_would_take():
    line = line_of(compare(make_side(), make_side("new", slower={"threshold": 1.03})))
    assert (line.verdict, line.word) == (Verdict.INCONCLUSIVE, "~")
    assert "crosses the margin" in line.reason


def test_fewer_than_five_samples_per_launch_give_no_verdict():
    short = [
        record.model_copy(
            update={"samples": Samples(ttft_s=record.samples.ttft_s[:4], tpot_s=record.samples.tpot_s[:4])}
        )
        for record in make_side("new", slower={"threshold": 1.5})
    ]
    line = line_of(compare(make_side(), short))
    assert (line.verdict, line.interval) == (Verdict.INCONCLUSIVE, None)
    assert "fewer than 5 samples" in line.reason


def test_a_margin_of_a_metric_counts_in_place_of_the_tolerance():
    sides = make_side(), make_side("new", slower={"threshold": 1.1})
    compared = compare(*sides, margins={"ttft_s": 0.2})
    assert line_of(compared, metric="ttft_s").verdict is Verdict.SAME
    assert line_of(compared, metric="tpot_s").verdict is Verdict.SLOWER
    assert compared.margins == {"ttft_s": 0.2, "tpot_s": 0.03}
    assert compared.tolerance == 0.03


def test_only_the_metrics_asked_for_are_compared():
    compared = compare(make_side(), make_side("new"), metrics=["tpot_s", "kv_cache_bytes"])
    assert {line.metric for line in compared.comparisons} == {"tpot_s", "kv_cache_bytes"}
    assert set(compared.margins) == {"tpot_s"}


def test_all_candidates_of_a_command_are_one_family():
    # at 8 pairs a side p is at least 1 / C(16, 8) = 7.8e-5: enough for 167 comparisons at 1.3 %, not for 168
    methods = tuple(f"method-{index}" for index in range(21))
    base = make_side(methods=("dense", *methods))
    candidates = [
        SideRecords(name, make_side(name, methods=("dense", *methods), slower=dict.fromkeys(methods, 1.5)))
        for name in ("b", "c", "d", "e")
    ]
    few = compare_all(SideRecords("a", base), candidates[:3], metrics=["ttft_s", "tpot_s"])
    assert {line.verdict for one in few for line in one.judged} == {Verdict.SLOWER}  # 126 comparisons
    many = compare_all(SideRecords("a", base), candidates, metrics=["ttft_s", "tpot_s"])  # 168
    assert {line.verdict for one in many for line in one.judged} == {Verdict.INCONCLUSIVE}
    line = many[0].judged[0]
    assert (line.reason, line.pairs_needed) == (HELD_BACK, 9)


def test_scenarios_of_one_side_are_one_family_and_know_their_names():
    base = with_facts(make_side(contexts=(1024,)), scenario={"name": "short"}) + with_facts(
        make_side(contexts=(4096,)), scenario={"name": "long"}
    )
    candidate = with_facts(make_side("new", contexts=(1024, 4096)), scenario={"name": "renamed"})
    compared = compare(base, candidate)
    found = lines_of(compared)
    assert [(line.scenario, line.verdict) for line in found] == [("short", Verdict.SAME), ("long", Verdict.SAME)]
    assert compared.base.scenario_names == ("short", "long")


def test_more_pairs_than_are_compared_are_told():
    base = [
        record.model_copy(update={"samples": Samples(ttft_s=[1.0 + record.pair.quad * 1e-6] * 5, tpot_s=[1.0] * 5)})
        for record in make_side(num_quads=101)
    ]
    line = line_of(compare(base, make_side("new")))
    assert line.num_values == (200, 8)
    assert "the first 200 of 202 pairs are compared" in line.doubts


def test_a_latency_that_is_not_above_zero_is_an_error():
    zero = changed(make_side("new"), "threshold", samples=Samples(ttft_s=[0.0] * 5, tpot_s=[1.0] * 5))
    with pytest.raises(RecordError, match="A, B: threshold: got a ttft_s that is not above 0"):
        compare(make_side(), zero)


# Two sides of one interleaved job: pairs


@pytest.mark.parametrize(("factor", "verdict"), [(1.1, Verdict.SLOWER), (1 / 1.1, Verdict.FASTER), (1.0, Verdict.SAME)])
def test_sides_of_one_interleaved_job_are_judged_by_their_pairs(factor, verdict):
    compared = compare(*make_interleaved(6, factor))
    for method in ("dense", "threshold"):
        line = line_of(compared, method, "ttft_s", "")
        assert (line.ground, line.verdict, line.num_values) == ("pairs", verdict, (12, 12))
        assert line.ratio == pytest.approx(factor, rel=5e-3)
        assert line.candidate / line.base == pytest.approx(factor, rel=5e-3)
        assert line.interval[0] <= line.ratio <= line.interval[1]


def test_saved_pairs_that_decide_nothing_are_inconclusive_not_open():
    verdicts = {line.verdict for line in compare(*make_interleaved(4, 1.03)).judged if line.ground == "pairs"}
    assert verdicts == {Verdict.INCONCLUSIVE}


def test_a_session_of_one_side_only_has_no_pairs():
    base, _ = make_interleaved(4)
    _, candidate = make_interleaved(4)
    other = with_facts(candidate, side_by_side={"id": "job-2", "side": 1})
    assert {line.ground for line in compare(base, other).comparisons} == {"ratio_to_dense", "advisory", "exact"}


# What is on one side only, or failed


def test_a_method_that_the_candidate_lacks_at_a_common_point_has_failed():
    compared = compare(make_side(methods=("dense", "threshold", "masked")), make_side("new"))
    (missing,) = [line for line in compared.comparisons if line.method == "masked"]
    assert (missing.verdict, missing.reason) == (Verdict.FAILED, "the candidate has no launch of it at this point")
    assert not any("masked" in note.methods for note in compared.footnotes)


def test_points_that_only_one_side_has_are_told_and_not_judged():
    compared = compare(make_side(contexts=(1024, 2048)), make_side("new", contexts=(1024, 4096)))
    assert {line.cell_id for line in compared.comparisons} == {"cell-1024-1"}
    notes = {note.text: note for note in compared.footnotes}
    assert notes["on the base side only, not judged"].cell_ids == ("cell-2048-1",)
    added = notes["on the candidate side only, not judged"]
    assert (added.methods, added.cell_ids) == (("dense", "threshold"), ("cell-4096-1",))
    assert compared.cells["cell-4096-1"] == {"workload.context": 4096}


def test_a_candidate_without_an_ok_launch_where_the_base_has_one_has_failed():
    broken = [failed(record) if record.method == "threshold" else record for record in make_side("new")]
    compared = compare(make_side(), broken)
    line = line_of(compared)
    assert line.verdict is Verdict.FAILED
    assert line.reason == "no launch of the candidate is ok: 8 oom in prefill: out of memory"
    assert {line.verdict for line in compared.judged if line.method == "threshold"} == {Verdict.FAILED}


def test_a_candidate_that_fails_now_and_then_has_failed_where_the_base_never_does():
    base, candidate = make_side(num_quads=8), make_side("new", num_quads=8)
    index = next(index for index, record in enumerate(candidate) if record.method == "threshold")
    candidate[index] = failed(candidate[index], "crashed", "decode", "signal 11")
    line = line_of(compare(base, candidate))
    assert line.verdict is Verdict.FAILED, "15 pairs would do for a verdict"
    assert line.reason == "1 of 16 launches of the candidate failed, none of the base: 1 crashed in decode: signal 11"
    base[index] = failed(base[index], "crashed", "decode", "signal 11")
    line = line_of(compare(base, candidate))
    assert (line.verdict, line.num_values) == (Verdict.SAME, (15, 15))
    assert {f"{side}: 1 of 16 launches failed" for side in ("base", "candidate")} <= set(line.doubts)
    assert line_of(compare(base, make_side("new", num_quads=8))).verdict is Verdict.SAME


def test_a_crash_within_an_interleaved_job_is_not_inconclusive():
    base, candidate = make_interleaved(2)
    candidate[-1] = failed(candidate[-1], "crashed", "decode", "signal 11")
    assert line_of(compare(base, candidate), ground="pairs").verdict is Verdict.FAILED


def test_a_base_without_an_ok_launch_is_nothing_to_compare_with():
    broken = [failed(record) if record.method == "threshold" else record for record in make_side()]
    line = line_of(compare(broken, make_side("new")))
    assert line.verdict is Verdict.NOT_COMPARABLE
    assert line.reason.startswith("no launch of the base is ok")


def test_what_fails_on_both_sides_is_a_note():
    sides = [[failed(record) for record in make_side(name)] for name in ("base", "new")]
    compared = compare(*sides)
    assert compared.comparisons == ()
    assert "no ok launch on either side, not judged" in texts_of(compared)


def test_a_method_that_outlives_its_baseline_is_compared_by_its_bytes_alone():
    sides = [
        [failed(record) if record.method == "dense" else record for record in make_side(name)]
        for name in ("base", "new")
    ]
    compared = compare(*sides)
    assert {line.ground for line in compared.judged} == {"exact"}
    assert {line.method for line in compared.judged} == {"threshold"}
    assert any("no ratio to dense" in text for text in texts_of(compared))


def test_every_line_has_finite_numbers_and_a_known_metric():
    for line in compare(make_side(contexts=(1024, 4096)), make_side("new", contexts=(1024, 4096))).comparisons:
        assert line.metric in COMPARED_METRICS
        numbers = [line.base, line.candidate, line.ratio, *(line.interval or ())]
        assert all(math.isfinite(number) for number in numbers if number is not None)


def test_scaling_a_whole_side_by_a_machine_changes_nothing():
    base, candidate = make_side(), make_side("new", slower={"threshold": 1.1})
    faster = [scaled(record, 0.25) for record in candidate]  # a power of two: exact
    assert line_of(compare(base, faster)) == line_of(compare(base, candidate))


# What it would take


def test_saved_runs_need_any_number_of_pairs_and_not_that_of_a_look():
    swaying = [scaled(record, 1 + 0.004 * (index % 3 - 1)) for index, record in enumerate(make_side("new"))]
    line = line_of(compare(make_side(), swaying, tolerance=0.009))
    assert (line.verdict, line.reason) == (Verdict.INCONCLUSIVE, "the interval crosses the margin")
    low, high = (math.log(end) for end in line.interval)
    centre, bound = math.log(line.ratio), math.log1p(0.009)
    half_width = max(centre - low, high - centre)
    assert line.pairs_needed == max(math.ceil(8 * (half_width / abs(abs(centre) - bound)) ** 2), 9)


def test_of_several_sessions_the_pairs_stand_in_the_order_measured():
    late, early = (make_interleaved(4, factor) for factor in (1.0, 1.2))
    sides = []
    for number in (0, 1):
        runs = [
            [
                record.model_copy(update={"launch_id": f"{session}-{record.launch_id}"})
                for record in with_facts(job[number], side_by_side={"id": session, "side": number})
            ]
            for session, job in (("z-first", early), ("a-second", late))
        ]
        sides.append(runs[0] + runs[1])
    line = line_of(compare(*sides), ground="pairs")
    assert line.num_values == (12, 12)
    assert line.ratio == pytest.approx(1.2, rel=1e-2), "8 of the 12 are of the first session"


def test_a_method_that_another_scenario_lacks_has_not_failed_in_it():
    base = make_side(methods=("dense", "threshold", "masked"))
    other = [
        record.model_copy(
            update={
                "point_id": f"other-{record.point_id}",
                "point": record.point.model_copy(update={"cell_id": "other", "threads": 2}),
            }
        )
        for record in make_side("new")
    ]
    compared = compare(base, other)
    assert {line.verdict for line in compared.comparisons} == {Verdict.NOT_COMPARABLE}
    (note,) = [note for note in compared.footnotes if note.text == "on the base side only, not judged"]
    assert note.methods == ("masked",)
    assert line_of(compare(base, make_side("new")), "masked", ground="advisory").verdict is Verdict.FAILED, (
        "of the same work it has"
    )
