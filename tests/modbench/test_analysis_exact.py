from modbench.analysis.verdict import Verdict
from tests.modbench.side_factory import (
    changed,
    compare,
    line_of,
    lines_of,
    make_side,
    texts_of,
    with_facts,
    with_metrics,
)


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
