"""Evaluations in the rows of a summary: whose they are, ratios, errors of pairs, doubts and what is gated."""

import math

import pytest

from modbench.analysis import evaluate_expectations, summarise
from modbench.analysis.quality import RANDOM_WEIGHTS, UNTRAINED_ROUTER, loss_difference, with_quality
from modbench.scenario import parse_expectation
from reference_impl.evaluation.ratios import ratio
from tests.modbench.quality_factory import (
    DENSE_BITS,
    ROW_BYTES,
    evaluations,
    make_evaluation,
    make_scores,
    with_weights,
)
from tests.modbench.record_factory import make_quads

METHODS = ("dense", "threshold")
WORSE = [204.0, 404.0, 204.0]  # 2.03 bits per byte


def summary_of(scores, records=None):
    records = records or make_quads(1, METHODS)
    return with_quality(summarise(records), evaluations(records, scores))


def row(summary, method, cell=0):
    return next(found for found in summary.cells[cell].rows if found.method == method)


def test_a_ratio_is_method_by_dense_and_a_reduction_dense_by_method():
    worse = make_scores(WORSE, kv_cache_bytes_per_token=50.0, held_out_keep_ratio=0.4)
    found = row(summary_of({"dense": make_scores(), "threshold": worse}), "threshold")
    assert found.values["bits_per_byte"] == pytest.approx(2.03)
    assert found.values["bits_per_byte_ratio"] == pytest.approx(1.015)
    assert found.values["held_out_kv_reduction"] == 2.0
    assert found.values["held_out_keep_ratio"] == 0.4
    assert found.quality.standard_errors == {"bits_per_byte": 0.01}
    dense = row(summary_of({"dense": make_scores(), "threshold": worse}), "dense")
    assert dense.values["bits_per_byte_ratio"] is dense.values["held_out_kv_reduction"] is None


def test_the_error_of_a_difference_is_that_of_pairs():
    found = loss_difference(make_scores(WORSE), make_scores())
    expected = ratio([mine - theirs for mine, theirs in zip(WORSE, DENSE_BITS, strict=True)], ROW_BYTES)
    assert found.bits_per_byte == pytest.approx(expected.value) == pytest.approx(0.03)
    assert found.standard_error == pytest.approx(expected.standard_error)
    by_hand = math.sqrt((1.0**2 + 2.0**2 + 1.0**2) * 3 / 2) / 400  # residuals: 4 - 0.03 * bytes
    assert found.standard_error == pytest.approx(by_hand)


def test_one_row_has_no_error_and_other_rows_no_difference():
    single = make_scores([200.0], row_bytes=[100])
    assert loss_difference(single, single).standard_error is None
    assert loss_difference(make_scores(), make_scores(row_bytes=[1, 2, 3])) is None
    assert loss_difference(make_scores(row_bits=[], bits_per_byte=None), make_scores()) is None


@pytest.mark.parametrize("change", ["text", "settings"])
def test_what_was_evaluated_otherwise_is_not_compared(change):
    records = make_quads(1, METHODS)
    rows = evaluations(records, {"dense": make_scores(), "threshold": make_scores(WORSE)})
    changed = {"scores": make_scores(WORSE, text_hash="other")} if change == "text" else {"quality_id": "other"}
    found = with_quality(summarise(records), [rows[0], rows[1].model_copy(update=changed)])
    assert row(found, "threshold").values["bits_per_byte"] == pytest.approx(2.03)
    assert row(found, "threshold").values["bits_per_byte_ratio"] is None


def test_one_evaluation_counts_for_every_size_of_the_workload():
    records = make_quads(1, METHODS, (1024, 4096))
    rows = evaluations(records, {"dense": make_scores(), "threshold": make_scores(WORSE)})
    assert len(rows) == 2
    found = with_quality(summarise(records), rows)
    assert [row(found, "threshold", cell).values["bits_per_byte_ratio"] for cell in (0, 1)] == [
        pytest.approx(1.015)
    ] * 2


def test_another_model_has_no_part_in_it():
    records = make_quads(1, METHODS)
    other = make_evaluation(records[0], make_scores(), work_id="another model")
    found = with_quality(summarise(records), [other])
    assert all(found.quality is None for found in found.cells[0].rows)


def test_without_evaluations_the_summary_is_as_it_was():
    summary = summarise(make_quads(1, METHODS))
    assert with_quality(summary, []) is summary


def quality_notes(weights, scores):
    records = with_weights(make_quads(1, METHODS), weights)
    found = summary_of(scores, records).footnotes
    return {note.text: note.methods for note in found if note.text.startswith("quality")}


def test_a_failure_and_random_weights_are_doubts_with_their_methods():
    notes = quality_notes("random", {"dense": make_scores(), "threshold": None})
    assert notes == {RANDOM_WEIGHTS: ("dense",), "quality n/a: killed": ("threshold",)}


def test_untrained_routers_of_a_trained_model_are_a_doubt_and_its_dense_one_is_none():
    scores = {"dense": make_scores(), "threshold": make_scores(WORSE, held_out_keep_ratio=0.3)}
    assert quality_notes("checkpoint", scores) == {UNTRAINED_ROUTER: ("threshold",)}


@pytest.mark.parametrize(
    ("text", "is_met", "reason"),
    [
        ("threshold.bits_per_byte_ratio <= 1.02", True, ""),
        ("threshold.bits_per_byte_ratio <= 1.01", False, "bits_per_byte_ratio is not <= 1.01"),
        ("threshold.bits_per_byte <= 2.1", True, ""),
        ("threshold.needle_accuracy >= 0.5", False, "the metric is not known here"),
    ],
)
def test_quality_is_gated_both_ways(text, is_met, reason):
    summary = summary_of({"dense": make_scores(), "threshold": make_scores(WORSE)})
    kinds = {method: method for method in METHODS}
    (outcome,) = evaluate_expectations([parse_expectation(text, kinds)], summary)
    assert (outcome.is_met, outcome.reason) == (is_met, reason)


def test_an_expectation_on_a_method_that_was_not_evaluated_says_why():
    summary = summary_of({"dense": make_scores(), "threshold": None})
    kinds = {method: method for method in METHODS}
    quality, speed = (
        evaluate_expectations([parse_expectation(f"threshold.{claim}", kinds)], summary)[0]
        for claim in ("bits_per_byte_ratio <= 1.01", "prefill_speedup > 0")
    )
    assert (quality.is_met, quality.reason) == (False, "the method was not evaluated: killed")
    assert speed.is_met
