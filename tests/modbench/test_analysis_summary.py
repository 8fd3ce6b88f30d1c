import math
import subprocess
import sys

import pytest

from modbench.analysis import Verdict, comparisons, exhausted_methods, metric_value, summarise
from modbench.analysis.pairs import ComparisonKey, pair_values
from modbench.analysis.rows import MethodRow, Summary
from modbench.plan import Pair
from modbench.record import KeepRatios, Record, Samples
from modbench.scenario import METRICS
from tests.modbench.record_factory import GEOMETRY, ORDER, failed, make_quads, make_record


def row_of(summary: Summary, method: str, cell: int = 0) -> MethodRow:
    return next(row for row in summary.cells[cell].rows if row.method == method)


def with_ttft(record: Record, value: float) -> Record:
    return record.model_copy(update={"samples": Samples(ttft_s=[value] * 5, tpot_s=[value / 10] * 5)})


def replaced(records: list[Record], method: str, **changes: object) -> list[Record]:
    return [record.model_copy(update=changes) if record.method == method else record for record in records]


def test_mirrored_halves_pair_with_each_other():
    order = ("dense", "threshold", "masked")
    values = {("dense", 0): 10.0, ("threshold", 0): 5.0, ("masked", 0): 20.0}
    values |= {("dense", 1): 12.0, ("threshold", 1): 4.0, ("masked", 1): 24.0}
    records = [
        with_ttft(make_record(method, half=half, methods=order), value) for (method, half), value in values.items()
    ]
    assert pair_values(records, "threshold", "point-threshold-1024-1", "ttft_s") == [(10.0, 5.0), (12.0, 4.0)]
    assert pair_values(records, "masked", "point-masked-1024-1", "ttft_s") == [(10.0, 20.0), (12.0, 24.0)]


def test_rotated_quad_with_a_method_missing_still_pairs_by_half():
    # order A C B | B C A, with C pruned: B stands at 2 and 3
    records = [
        with_ttft(make_record("dense", half=0), 10.0).model_copy(update={"pair": Pair(quad=1, position=0)}),
        with_ttft(make_record("threshold", half=0), 5.0).model_copy(update={"pair": Pair(quad=1, position=2)}),
        with_ttft(make_record("threshold", half=1), 6.0).model_copy(update={"pair": Pair(quad=1, position=3)}),
        with_ttft(make_record("dense", half=1), 12.0).model_copy(update={"pair": Pair(quad=1, position=5)}),
    ]
    assert pair_values(records, "threshold", "point-threshold-1024-1", "ttft_s") == [(10.0, 5.0), (12.0, 6.0)]


def test_a_pair_exists_only_where_both_launches_are_ok():
    records = make_quads(2)
    records[1] = failed(records[1])
    family = comparisons(records)
    key = ComparisonKey("cell-1024-1", "threshold", "point-threshold-1024-1", "ttft_s")
    assert len(family[key]) == 3
    assert len(family) == 2, "one method, two latency metrics"


def test_quads_of_different_runs_are_not_paired():
    records = [make_record("dense"), make_record("threshold", run_id="run-2")]
    assert comparisons(records)[ComparisonKey("cell-1024-1", "threshold", "point-threshold-1024-1", "ttft_s")] == []


def test_speedup_is_the_exponent_of_the_median_log_ratio():
    records = []
    for quad, factor in enumerate((2.0, 1.9, 2.1, 50.0)):
        for half in (0, 1):
            records.append(with_ttft(make_record("dense", quad=quad, half=half), 1.0))
            records.append(with_ttft(make_record("threshold", quad=quad, half=half), 1.0 / factor))
    speedup = row_of(summarise(records), "threshold").speedups["prefill_speedup"]
    assert speedup.value == pytest.approx(math.exp((math.log(2.0) + math.log(2.1)) / 2))
    assert speedup.interval == pytest.approx((1.9, 50.0))
    assert speedup.judgement is not None
    assert speedup.judgement.verdict is Verdict.FASTER


def test_values_of_a_plain_row_by_hand():
    summary = summarise(make_quads(1, noise=0.0))
    dense, threshold = row_of(summary, "dense"), row_of(summary, "threshold")
    # samples 1.024 s times 1, 1.004, 1.002, 1.03, 1.001: the second smallest is the 25th percentile of five
    first, second = 1.024 * 1.001, 1.024 * 1.002 * 1.001
    spread = dense.latencies["ttft_s"]
    assert (spread.low, spread.high, spread.num_launches) == (pytest.approx(first), pytest.approx(second), 2)
    assert dense.values["ttft_s"] == pytest.approx((first + second) / 2)
    assert dense.values["prefill_tokens_per_s"] == pytest.approx(1024 / dense.values["ttft_s"])
    assert dense.values["decode_tokens_per_s"] == pytest.approx(1 / dense.values["tpot_s"])
    assert threshold.values["prefill_speedup"] == pytest.approx(1.78)
    assert threshold.values["decode_speedup"] == pytest.approx(1.4)
    assert threshold.values["kv_cache_reduction"] == pytest.approx(8 / (4 + 4 * 0.11), rel=1e-6)
    assert threshold.values["kv_cache_slack_ratio"] == pytest.approx(0.05, rel=1e-3)
    assert threshold.values["kv_cache_formula_ratio"] == pytest.approx(1.0, rel=1e-6)
    assert threshold.values["keep_ratio_prefill"] == pytest.approx(0.11)
    share = threshold.values["prefill_speedup"] / threshold.values["prefill_ideal_speedup"]
    assert threshold.values["prefill_share_of_ideal"] == pytest.approx(share)
    assert dense.values["keep_ratio_prefill"] is None
    assert dense.values["prefill_speedup"] is None


def test_end_to_end_is_put_together_per_sample():
    samples = Samples(ttft_s=[1.0, 3.0], tpot_s=[0.2, 0.1])
    row = row_of(summarise([make_record(samples=samples)]), "dense")
    # 15 steps after the first token: 4.0 and 4.5; their 25th percentile
    assert row.latencies["end_to_end_s"].median == pytest.approx(4.125)


def test_dense_comes_first_and_cells_keep_their_order():
    records = make_quads(1, ("dense", "threshold"), (4096, 1024))
    summary = summarise(records[1:] + records[:1])
    assert [cell.axes["workload.context"] for cell in summary.cells] == [4096, 1024]
    assert [row.method for row in summary.cells[0].rows] == ["dense", "threshold"]


def test_a_failed_identity_makes_the_row_wrong_but_keeps_its_numbers():
    records = replaced(make_quads(1), "threshold", guard={"causal": "failed", "batch": "passed"})
    summary = summarise(records)
    row = row_of(summary, "threshold")
    assert (row.is_wrong, row.failed_identities) == (True, ("causal",))
    assert row.values["prefill_speedup"] == pytest.approx(1.78, rel=0.02)
    assert any("identity causal failed" in note.text for note in summary.footnotes)


def test_a_wrong_baseline_makes_every_row_of_its_cell_wrong_and_no_other():
    records = make_quads(1, ("dense", "threshold", "masked"), (1024, 4096))
    records = [
        record.model_copy(update={"guard": {"causal": "failed"}})
        if record.method == "dense" and record.point.workload["context"] == 1024
        else record
        for record in records
    ]
    near, far = summarise(records).cells
    assert [row.failed_identities for row in near.rows] == [("causal",), ("baseline: causal",), ("baseline: causal",)]
    assert not any(row.is_wrong for row in far.rows)


def test_a_launch_without_a_guard_has_not_passed_it():
    records = make_quads(2)
    records[1] = records[1].model_copy(update={"guard": {}})
    summary = summarise(records)
    assert row_of(summary, "threshold").failed_identities == ("guard did not run",)
    assert not row_of(summary, "dense").is_wrong
    assert any(note.text.startswith("wrong: guard did not run; its speed") for note in summary.footnotes)
    pruned = [failed(record, "pruned").model_copy(update={"guard": {}}) for record in make_quads(1)]
    assert not any(row.is_wrong for row in summarise(pruned).cells[0].rows), "nothing was timed"


def test_controls_have_the_ideal_of_what_they_save():
    masked = row_of(summarise(make_quads(1, ("dense", "masked"))), "masked")
    assert (masked.values["prefill_ideal_speedup"], masked.values["decode_ideal_speedup"]) == (1.0, 1.0)
    assert masked.values["kv_cache_formula_ratio"] == pytest.approx(1.0, rel=1e-6)
    assert masked.values["decode_share_of_ideal"] == masked.values["decode_speedup"]
    records = [record.model_copy(update={"kind": "kv_only"}) for record in make_quads(1)[1:2]]
    kv_only = row_of(summarise(records), "threshold")
    threshold = row_of(summarise(make_quads(1)), "threshold")
    assert kv_only.values["kv_cache_formula_ratio"] == pytest.approx(1.0, rel=1e-6), "it stores kept keys alone"
    for phase in ("prefill", "decode"):
        ideals = [row.values[f"{phase}_ideal_speedup"] for row in (kv_only, threshold)]
        assert 1.0 < ideals[0] < ideals[1]


def test_no_verdict_from_launches_of_few_samples():
    records = make_quads(4)
    short = Samples(ttft_s=[0.5] * 4, tpot_s=[0.005] * 4)
    records[-1] = records[-1].model_copy(update={"samples": short})
    assert records[-1].method == "dense"
    summary = summarise(records)
    speedup = row_of(summary, "threshold").speedups["prefill_speedup"]
    assert (speedup.num_pairs, speedup.judgement) == (8, None)
    assert row_of(summary, "threshold").no_verdict == "fewer than 5 samples per launch: no verdict"
    assert "fewer than 5 samples per launch: no verdict" in [note.text for note in summary.footnotes]
    assert ("cell-1024-1", "dense") in exhausted_methods(records), "further launches would not help"


def test_methods_that_have_begun_to_fail_are_exhausted():
    records = make_quads(3, ("dense", "threshold", "masked"), (1024, 4096))
    assert exhausted_methods(records) == frozenset()
    half_lost = [
        failed(record, "invalid") if record.method == "threshold" and record.pair.quad == 2 else record
        for record in records
    ]
    assert exhausted_methods(half_lost) == {("cell-1024-1", "threshold"), ("cell-4096-1", "threshold")}
    first = next(index for index, record in enumerate(records) if record.method == "masked" and record.pair.quad == 2)
    records[first] = failed(records[first])
    assert exhausted_methods(records) == frozenset(), "its other launch of the quad is ok"


def test_a_cell_that_came_to_the_last_quad_is_inconclusive_even_if_a_pair_was_lost():
    records = [
        with_ttft(record, 1.0 if record.method == "dense" else (0.8, 1.2)[record.pair.quad % 2])
        for record in make_quads(10)
    ]
    records[1] = failed(records[1])
    judgement = row_of(summarise(records), "threshold").speedups["prefill_speedup"].judgement
    assert (judgement.verdict, judgement.num_pairs) == (Verdict.INCONCLUSIVE, 12)
    earlier = [record for record in records if record.pair.quad < 9]
    judgement = row_of(summarise(earlier), "threshold").speedups["prefill_speedup"].judgement
    assert (judgement.verdict, judgement.num_pairs) == (Verdict.UNDECIDED, 12)


def test_surplus_pairs_count_for_the_speedup_and_not_for_its_interval():
    records = [
        with_ttft(record, 1.0 if record.method == "dense" else (0.5 if record.pair.quad < 4 else 0.1))
        for record in make_quads(5)
    ]
    speedup = row_of(summarise(records), "threshold").speedups["prefill_speedup"]
    assert (speedup.num_pairs, speedup.judgement.num_pairs) == (10, 8)
    assert speedup.interval == pytest.approx((2.0, 2.0))


def test_keep_ratios_stand_at_their_layers():
    layers = [1.0, 0.1, 1.0, 0.2, 1.0, 0.3, 1.0, 0.4]
    keep = KeepRatios(prefill=layers, decode=[0.5] * 8, decode_any=[0.5] * 8)
    row = row_of(summarise(replaced(make_quads(1), "threshold", keep_ratio=keep)), "threshold")
    assert row.keep_ratios["prefill"] == pytest.approx({1: 0.1, 3: 0.2, 5: 0.3, 7: 0.4})
    assert row.keep_ratios["decode"] == dict.fromkeys((1, 3, 5, 7), 0.5)
    assert row_of(summarise(make_quads(1)), "dense").keep_ratios == {}


def test_a_doubt_names_its_cells_unless_they_are_all_with_numbers():
    records = make_quads(1, ("dense", "threshold", "masked"), (1024, 4096))
    for index, record in enumerate(records):
        if record.method == "masked" and record.point.workload["context"] == 4096:
            records[index] = failed(record)
        elif record.method != "dense" and record.point.workload["context"] == 1024:
            records[index] = record.model_copy(update={"flags": [*record.flags, "busy"]})
    notes = [(note.methods, note.cell_ids) for note in summarise(records).footnotes if note.text == "busy"]
    assert notes == [(("threshold",), ("cell-1024-1",)), (("masked",), ())]


def test_a_declared_identity_is_a_footnote_not_wrong():
    summary = summarise(replaced(make_quads(1), "threshold", guard={"causal": "declared"}))
    assert not row_of(summary, "threshold").is_wrong
    assert any(note.text.startswith("declared: identity causal does not hold: no reason") for note in summary.footnotes)


def test_a_declared_identity_gives_its_reason():
    records = make_quads(1)
    environment = {**records[0].environment, "declared": {"causal": "it sorts the whole sequence"}}
    summary = summarise(replaced(records, "threshold", guard={"causal": "declared"}, environment=environment))
    assert any(note.text.endswith("it sorts the whole sequence") for note in summary.footnotes)


def test_a_speedup_above_its_ideal_is_a_doubt():
    records = [with_ttft(r, 4.0 if r.method == "dense" else 1.0) for r in make_quads(1)]
    texts = [note.text for note in summarise(records).footnotes]
    assert any(text.startswith("prefill_speedup is above its ideal") for text in texts)
    plain = [note.text for note in summarise(make_quads(1)).footnotes]
    assert not any("above its ideal" in text for text in plain)


def test_an_invalid_launch_gives_no_numbers():
    records = make_quads(2)
    wild = Samples(ttft_s=[1e9] * 5, tpot_s=[1e9] * 5)
    records[1] = records[1].model_copy(
        update={"status": "invalid", "samples": wild, "metrics": {"kv_cache_bytes": 1}, "error": "keep ratio 0.4"}
    )
    row = row_of(summarise(records), "threshold")
    assert row.status_counts == {"invalid": 1, "ok": 3}
    assert row.latencies["ttft_s"].high < 1.0
    assert row.values["kv_cache_bytes"] > 1e6
    assert row.speedups["prefill_speedup"].num_pairs == 3


@pytest.mark.parametrize(
    ("metrics", "shown"),
    [
        ({"last_rss_bytes": 1, "peak_rss_bytes": 2}, 2),
        ({"last_rss_bytes": 3, "peak_rss_bytes": None}, 3),
        ({"peak_rss_bytes": 9, "last_allocated_bytes": 4, "last_reserved_bytes": 5}, 5),
        ({"peak_rss_bytes": 9, "last_reserved_bytes": 5, "peak_reserved_bytes": 6, "peak_allocated_bytes": 4}, 6),
    ],
)
def test_last_memory_is_the_devices_where_there_is_one_and_a_peak_where_it_is_known(metrics, shown):
    records = replaced(make_quads(1), "threshold", status="oom", metrics=metrics)
    assert summarise(records).failures[0].last_memory_bytes == shown


def test_failures_are_rows_with_phase_count_and_last_memory():
    records = [failed(r) if r.method == "threshold" else r for r in make_quads(1)]
    summary = summarise(records)
    row = row_of(summary, "threshold")
    assert row.has_failed
    assert all(row.values[name] is None for name in ("ttft_s", "prefill_speedup", "kv_cache_reduction"))
    (failure,) = summary.failures
    assert (failure.method, failure.status, failure.phase, failure.count) == ("threshold", "oom", "prefill", 2)
    assert (failure.error, failure.last_memory_bytes) == ("out of memory", 2**30)


def test_a_failed_baseline_leaves_ratios_unknown_and_the_ideal_known():
    records = [failed(r) if r.method == "dense" else r for r in make_quads(1)]
    row = row_of(summarise(records), "threshold")
    assert row.values["prefill_speedup"] is None
    assert row.values["kv_cache_reduction"] is None
    assert row.values["ttft_s"] is not None
    assert row.values["prefill_ideal_speedup"] > 1.5


def test_peak_memory_is_compared_like_with_like():
    records = replaced(make_quads(1), "threshold", metrics={"peak_allocated_bytes": 50, "peak_rss_bytes": 100})
    records = replaced(records, "dense", metrics={"peak_rss_bytes": 300})
    row = row_of(summarise(records), "threshold")
    assert (row.peak_memory_metric, row.peak_memory_bytes) == ("peak_allocated_bytes", 50)
    assert row.values["peak_memory_reduction"] == 3.0
    other = row_of(summarise(replaced(records, "dense", metrics={"peak_device_used_bytes": 300})), "threshold")
    assert other.values["peak_memory_reduction"] is None


def test_without_ceilings_the_ideal_is_unknown_and_said_so():
    records = [record.model_copy(update={"environment": {}}) for record in make_quads(1)]
    summary = summarise(records)
    assert row_of(summary, "threshold").values["prefill_share_of_ideal"] is None
    assert any("ideal speed-up n/a" in note.text for note in summary.footnotes)


def test_keep_ratio_is_the_mean_over_routed_layers_only():
    layers = [1.0, 0.1, 1.0, 0.2, 1.0, 0.3, 1.0, 0.4]
    keep = KeepRatios(prefill=layers, decode=[0.5] * 8, decode_any=[0.5] * 8)
    row = row_of(summarise(replaced(make_quads(1), "threshold", keep_ratio=keep)), "threshold")
    assert row.values["keep_ratio_prefill"] == pytest.approx(0.25)
    assert row.values["keep_ratio_decode"] == pytest.approx(0.5)


def test_removed_layers_have_a_keep_ratio_of_zero_not_none():
    row = row_of(summarise(make_quads(1, ("dense", "skip_layers"))), "skip_layers")
    assert row.values["keep_ratio_prefill"] == 0.0


def test_footnotes_are_deduplicated_and_name_their_methods():
    records = make_quads(2, ("dense", "threshold", "masked"), (1024, 4096))
    summary = summarise(records, num_skipped_lines=2)
    notes = {note.text: note.methods for note in summary.footnotes}
    assert notes["calibrated random router"] == ("threshold", "masked")
    assert notes["no verdict below 8 pairs"] == ("threshold", "masked")
    assert next(iter(notes)).startswith("2 damaged lines of the records were")
    few = summarise([make_record(samples=Samples(ttft_s=[1.0], tpot_s=[0.1], itl_s=[0.1] * 30))])
    assert any("p95 n/a (needs 59), p99 n/a (needs 299)" in note.text for note in few.footnotes)


def test_a_deterministic_metric_that_varies_is_a_doubt():
    records = make_quads(1)
    records[0] = records[0].model_copy(update={"metrics": {"kv_cache_bytes": 7}})
    assert any(note.text.startswith("kv_cache_bytes differs") for note in summarise(records).footnotes)


def test_an_open_comparison_says_what_it_would_take():
    records = make_quads(5)
    wide = [with_ttft(r, 1.0 + 0.3 * (r.pair.quad % 3 - 1)) if r.method == "threshold" else r for r in records]
    wide = [with_ttft(r, 1.0) if r.method == "dense" else r for r in wide]
    texts = [note.text for note in summarise(wide).footnotes]
    assert any(text.startswith("prefill_speedup is undecided: the interval crosses") for text in texts)


def test_every_metric_has_a_value_or_none_and_no_other_name():
    row = row_of(summarise(make_quads(1)), "threshold")
    assert set(row.values) == set(METRICS)
    assert metric_value(row, "ttft_s") == row.values["ttft_s"]
    with pytest.raises(KeyError):
        metric_value(row, "throughput")


def test_environment_keys_that_vary_are_named():
    records = make_quads(1)
    records[2] = records[2].model_copy(update={"environment": {**records[2].environment, "git": {"sha": "other"}}})
    summary = summarise(records)
    assert set(summary.varying_environment) == {"git.sha", "git.is_dirty"}


def test_nothing_measured_is_an_empty_summary():
    summary = summarise([])
    assert (summary.cells, summary.failures, summary.num_records) == ((), (), 0)


def test_routed_layers_out_of_range_leave_the_ratio_unknown():
    record = make_record("threshold")
    settings = {**record.point.settings, "routed_layers": [GEOMETRY.num_hidden_layers]}
    point = record.point.model_copy(update={"settings": settings})
    row = row_of(summarise([make_record(), record.model_copy(update={"point": point})]), "threshold")
    assert row.values["keep_ratio_prefill"] is None


def test_analysis_record_and_report_import_nothing_heavy():
    code = (
        "import sys, modbench.analysis, modbench.record, modbench.report.write, modbench.report.console;"
        "print([name for name in ('torch', 'transformers', 'numpy', 'pandas', 'matplotlib', 'jinja2') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_all_methods_of_the_factory_are_summarised():
    summary = summarise(make_quads(1, ORDER))
    assert [row.method for row in summary.cells[0].rows] == list(ORDER)


def test_factory_mirrors_the_second_half_of_a_quad():
    methods = ("dense", "threshold", "masked")
    order = [record.method for record in make_quads(1, methods)]
    assert order == ["dense", "threshold", "masked", "masked", "threshold", "dense"]
    assert [record.pair.position for record in make_quads(1, methods)] == list(range(6))
