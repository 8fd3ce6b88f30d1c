import math

import pytest

from modbench.analysis.compare import COMPARED_METRICS, SideRecords, compare_all, compare_sides
from modbench.analysis.verdict import HELD_BACK, Verdict
from modbench.record import KeepRatios, Samples
from tests.modbench.record_factory import failed
from tests.modbench.side_factory import (
    MACHINE,
    changed,
    make_interleaved,
    make_side,
    scaled,
    with_facts,
    with_metrics,
)

LATENCIES = ("ttft_s", "tpot_s")


def compare(base, candidate, **options):
    return compare_sides(base, candidate, "A", "B", **options)


def lines_of(compared, method="threshold", metric="ttft_s", ground="ratio_to_dense"):
    return [
        line
        for line in compared.comparisons
        if (line.method, line.metric) == (method, metric) and ground in ("", line.ground)
    ]


def line_of(compared, method="threshold", metric="ttft_s", ground="ratio_to_dense"):
    (line,) = lines_of(compared, method, metric, ground)
    return line


def texts_of(compared):
    return [note.text for note in compared.footnotes]


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
    assert (line.reason, line.pairs_needed) == (HELD_BACK, 12)


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
    with pytest.raises(ValueError, match="threshold: got a ttft_s that is not above 0"):
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


# What is not the same work


def test_a_wrong_method_is_not_comparable_even_when_statistics_say_slower():
    slower = make_side("new", slower={"threshold": 1.5})
    for guard in ({"causal": "failed"}, {}):
        for sides in (
            (make_side(), changed(slower, "threshold", guard=guard)),
            (changed(slower, "threshold", guard=guard), make_side()),
        ):
            compared = compare(*sides)
            found = [line for line in compared.judged if line.method == "threshold"]
            assert {line.verdict for line in found} == {Verdict.NOT_COMPARABLE}
            assert all(line.ratio is None for line in found)


def test_a_wrong_baseline_makes_ratios_to_it_not_comparable():
    wrong = changed(make_side("new", slower={"threshold": 1.5}), "dense", guard={"causal": "failed"})
    compared = compare(make_side(), wrong)
    line = line_of(compared)
    assert (line.verdict, line.reason) == (
        Verdict.NOT_COMPARABLE,
        "baseline of candidate: identity causal failed",
    )
    assert line_of(compared, metric="kv_cache_bytes", ground="exact").verdict is Verdict.SAME


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize(("difference", "is_comparable"), [(0.009, True), (0.011, False)])
def test_keep_ratios_that_differ_by_more_than_0_01_are_not_comparable(phase, difference, is_comparable):
    base = make_side()
    layers = base[1].keep_ratio
    other = {name: list(getattr(layers, name)) for name in ("prefill", "decode", "decode_any")}
    other[phase] = [ratio + difference if ratio < 1 else ratio for ratio in other[phase]]
    line = line_of(compare(base, changed(make_side("new"), "threshold", keep_ratio=KeepRatios(**other))))
    assert line.verdict is (Verdict.SAME if is_comparable else Verdict.NOT_COMPARABLE)
    assert is_comparable or f"keep ratios at {phase}" in line.reason


def test_other_tokens_are_not_comparable():
    base = with_facts(make_side(), tokens_sha256="one")
    line = line_of(compare(base, with_facts(make_side("new"), tokens_sha256="two")))
    assert (line.verdict, line.reason) == (Verdict.NOT_COMPARABLE, "the prompts' tokens differ: tokens_sha256")
    assert line_of(compare(base, with_facts(make_side("new"), tokens_sha256="one"))).verdict is Verdict.SAME


def reworked(records, method="", cell="other", **changes):
    """The same points with other work, hence under other ids."""
    found = []
    for record in records:
        if method in ("", record.method):
            point = record.point.model_copy(
                update={
                    "cell_id": cell or record.point.cell_id,
                    **{name: {**getattr(record.point, name), **inside} for name, inside in changes.items()},
                }
            )
            record = record.model_copy(update={"point": point, "point_id": f"{cell}-{record.point_id}"})
        found.append(record)
    return found


def test_points_with_the_same_axes_and_other_work_say_which_fields_differ():
    base = reworked(make_side(), cell="one", workload={"prompt": {"text": "/a/prose", "sha256": "1"}})
    other = reworked(make_side("new"), cell="two", workload={"prompt": {"text": "/b/prose", "sha256": "2"}, "seed": 7})
    line = line_of(compare(base, other))
    assert line.verdict is Verdict.NOT_COMPARABLE
    assert line.reason == "the work differs: workload.prompt.sha256, workload.seed"


def test_another_setting_of_one_method_leaves_the_others_comparable():
    methods = ("dense", "threshold", "masked")
    other = reworked(make_side("new", methods=methods), "threshold", cell="", settings={"threshold_p": 0.6})
    compared = compare(make_side(methods=methods), other)
    assert line_of(compared).reason == "the work differs: settings.threshold_p"
    assert line_of(compared, "masked").verdict is Verdict.SAME


def test_another_baseline_makes_the_ratios_to_it_not_comparable():
    other = reworked(make_side("new"), "dense", cell="", settings={"kv_cache": "chunked"})
    line = line_of(compare(make_side(), other))
    assert (line.verdict, line.reason) == (
        Verdict.NOT_COMPARABLE,
        "the baseline's work differs: settings.kv_cache",
    )


def test_a_cell_of_another_matrix_with_the_same_work_is_compared():
    moved = [
        record.model_copy(update={"point": record.point.model_copy(update={"cell_id": "other"})})
        for record in make_side("new")
    ]
    assert line_of(compare(make_side(), moved)).verdict is Verdict.SAME


def test_what_only_one_side_has_is_told_and_not_judged():
    base = make_side(methods=("dense", "threshold", "masked"))
    compared = compare(base, make_side("new", contexts=(1024, 4096)))
    assert {line.method for line in compared.comparisons} == {"dense", "threshold"}
    notes = {note.text: note for note in compared.footnotes}
    assert notes["on the base side only, not judged"].methods == ("masked",)
    added = notes["on the candidate side only, not judged"]
    assert (added.methods, added.cell_ids) == (("dense", "threshold"), ("cell-4096-1",))
    assert compared.cells["cell-4096-1"] == {"workload.context": 4096}


# Failures


def test_a_candidate_without_an_ok_launch_where_the_base_has_one_has_failed():
    broken = [failed(record) if record.method == "threshold" else record for record in make_side("new")]
    compared = compare(make_side(), broken)
    line = line_of(compared)
    assert line.verdict is Verdict.FAILED
    assert line.reason == "no launch of the candidate is ok: 8 oom in prefill: out of memory"
    assert {line.verdict for line in compared.judged if line.method == "threshold"} == {Verdict.FAILED}


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


# Bytes and tokens


def test_a_single_byte_more_is_more_and_one_less_is_less():
    base = with_metrics(make_side(), "threshold", kv_cache_bytes=1000)
    for num_bytes, verdict, word in ((1001, Verdict.SLOWER, "more"), (999, Verdict.FASTER, "less")):
        candidate = with_metrics(make_side("new"), "threshold", kv_cache_bytes=num_bytes)
        line = line_of(compare(base, candidate), metric="kv_cache_bytes", ground="exact")
        assert (line.verdict, line.word, line.interval) == (verdict, word, None)
        assert line.ratio == num_bytes / 1000


def test_an_allocator_peak_may_differ_by_a_block():
    base = with_metrics(make_side(), "threshold", peak_allocated_bytes=10_240)
    for num_bytes, verdict in ((10_752, Verdict.SAME), (10_753, Verdict.SLOWER)):
        candidate = with_metrics(make_side("new"), "threshold", peak_allocated_bytes=num_bytes)
        line = line_of(compare(base, candidate), metric="peak_allocated_bytes", ground="exact")
        assert line.verdict is verdict


def test_across_versions_counted_tokens_may_differ_by_the_flips_that_were_counted():
    versions = {"python": "3.11.9", "torch": "9.9.9"}
    base = with_metrics(make_side(), "threshold", kv_cache_bytes=1_000_000)
    # 2 * 0.0001 flips of 4 routed layers * 1039 tokens at 4,096 bytes each: 3,404 bytes
    for num_bytes, verdict in ((1_003_400, Verdict.SAME), (1_003_500, Verdict.SLOWER)):
        candidate = with_metrics(make_side("new"), "threshold", kv_cache_bytes=num_bytes)
        sides = [with_facts(side, flip_ratio=1e-4) for side in (base, candidate)]
        line = line_of(
            compare(sides[0], with_facts(sides[1], versions=versions)), "threshold", "kv_cache_bytes", "exact"
        )
        assert (line.verdict, line.doubts) == (verdict, ())
    line = line_of(compare(base, with_facts(candidate, versions=versions)), "threshold", "kv_cache_bytes", "exact")
    assert line.verdict is Verdict.SLOWER
    assert "flip_ratio is not recorded" in line.doubts[0]


def test_peaks_of_two_versions_are_shown_without_a_verdict_and_weights_are_exact():
    sides = [
        with_metrics(make_side(name), "threshold", peak_live_bytes=peak, weights_bytes=weights)
        for name, peak, weights in (("base", 1000, 500), ("new", 2000, 501))
    ]
    compared = compare(sides[0], with_facts(sides[1], versions={"torch": "9.9.9"}))
    peak = line_of(compared, metric="peak_live_bytes", ground="")
    assert (peak.ground, peak.verdict, peak.ratio) == ("advisory", None, 2.0)
    assert line_of(compared, metric="weights_bytes", ground="exact").verdict is Verdict.SLOWER
    assert any("library versions differ" in text for text in texts_of(compared))


def test_a_count_that_varies_between_launches_decides_nothing():
    candidate = make_side("new")
    first = next(index for index, record in enumerate(candidate) if record.method == "threshold")
    candidate[first] = with_metrics([candidate[first]], "threshold", kv_cache_bytes=7)[0]
    line = line_of(compare(make_side(), candidate), metric="kv_cache_bytes", ground="exact")
    assert (line.verdict, line.word) == (Verdict.INCONCLUSIVE, "~")
    assert "not the same in all launches of the candidate" in line.reason


def test_kept_tokens_are_compared_exactly():
    candidate = make_side("new")
    ratios = candidate[1].keep_ratio
    more = ratios.model_copy(update={"prefill": [ratio + 0.001 if ratio < 1 else ratio for ratio in ratios.prefill]})
    compared = compare(make_side(), changed(candidate, "threshold", keep_ratio=more))
    assert line_of(compared, metric="keep_ratio_prefill", ground="exact").word == "more"
    assert line_of(compared, metric="keep_ratio_decode", ground="exact").word == "same"


def test_a_metric_that_only_one_side_recorded_is_told():
    compared = compare(make_side(), with_metrics(make_side("new"), "dense", weights_bytes=5))
    assert not lines_of(compared, "dense", "weights_bytes", "exact")
    assert "recorded on one side only, not judged: weights_bytes" in texts_of(compared)


# Doubts


def test_flags_are_counted_beside_the_numbers_and_filter_none():
    candidate = make_side("new")
    candidate[1].flags.append("contaminated: wall time exceeds CPU time")
    line = line_of(compare(make_side(), candidate))
    assert line.num_values == (8, 8)
    assert "candidate: contaminated: wall time exceeds CPU time (1 of 8 launches)" in line.doubts
    assert not any("calibrated" in doubt for doubt in line.doubts)


def test_unequal_numbers_of_launches_and_routers_are_doubts():
    candidate = changed(make_side("new", num_quads=5), "threshold", flags=[])
    doubts = line_of(compare(make_side(), candidate)).doubts
    assert "8 launches of the base, 10 of the candidate" in doubts
    assert "the routers were calibrated on one side only" in doubts


def test_changed_trees_and_equal_launches_are_doubts_of_the_whole_comparison():
    base = with_facts(make_side(), git_sha="a" * 40, git_is_dirty=True)
    compared = compare(base, base)
    assert any("not committed" in text for text in texts_of(compared))
    assert any("a run compared with itself" in text for text in texts_of(compared))
    assert compared.base.git_shas == (f"{'a' * 40}+dirty",)


def test_differences_begin_with_the_machine_and_hide_the_scenario_text():
    base = with_facts(make_side(), scenario={"name": "one", "text": "a", "sha256": "1"}, zzz=1)
    candidate = with_facts(
        make_side("new"),
        scenario={"name": "one", "text": "b", "sha256": "2"},
        machine={**MACHINE, "num_cores": 2},
        versions={"python": "3.12.0", "torch": "2.11.0"},
    )
    found = [(item.key, item.base, item.candidate) for item in compare(base, candidate).differences]
    assert found == [
        ("machine.num_cores", 8, 2),
        ("versions.python", "3.11.9", "3.12.0"),
        ("scenario.sha256", "1", "2"),
        ("zzz", 1, None),
    ]


def test_every_line_has_finite_numbers_and_a_known_metric():
    for line in compare(make_side(contexts=(1024, 4096)), make_side("new", contexts=(1024, 4096))).comparisons:
        assert line.metric in COMPARED_METRICS
        numbers = [line.base, line.candidate, line.ratio, *(line.interval or ())]
        assert all(math.isfinite(number) for number in numbers if number is not None)


def test_scaling_a_whole_side_by_a_machine_changes_nothing():
    base, candidate = make_side(), make_side("new", slower={"threshold": 1.1})
    faster = [scaled(record, 0.25) for record in candidate]  # a power of two: exact
    assert line_of(compare(base, faster)) == line_of(compare(base, candidate))
