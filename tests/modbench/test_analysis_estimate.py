"""Predictions against values worked out by hand, on devices that are bound by one thing alone."""

from dataclasses import replace

import pytest

from modbench.analysis.estimate import Budget, Case, PredictedMethod, context_limit, estimate_method, estimates, limits
from modbench.analysis.prediction import Ceilings, Keeping
from modbench.presets import PRESETS

MEMORY_BOUND = Ceilings(copy_bytes_per_s=1e12, matmul_flops_per_s=1e20)
NINTH = 1 / 9
ODD = tuple(range(1, 32, 2))
DENSE = PredictedMethod("dense", "dense")
THRESHOLD = PredictedMethod("threshold", "threshold", ODD, NINTH)
SKIP_LAYERS = PredictedMethod("skip_layers", "skip_layers", ODD, 0.0, is_removing=True)
BUDGET = Budget(MEMORY_BOUND, 80 * 2**30, 2**30)
CASE = Case("", PRESETS["llama2-7b"], "bfloat16", 256, (DENSE, THRESHOLD, SKIP_LAYERS), ((4096, 1), (8192, 8)))
# weights of a 7B layer and of its head: four 4096 x 4096 projections, three 4096 x 11008 in the MLP; 32,000 x 4096
LAYER, HEAD = 4 * 4096**2 + 3 * 4096 * 11008, 32_000 * 4096


def test_decode_of_7b_at_one_row_reads_all_weights_once_a_step():
    found = estimate_method(replace(CASE, new_tokens=2), BUDGET, DENSE, 1, 1)
    assert found.decode_s == pytest.approx(2 * (32 * LAYER + HEAD) / 1e12, rel=1e-3)


def test_decode_of_7b_at_one_row_reads_a_ninth_of_the_routed_layers():
    found = estimate_method(replace(CASE, new_tokens=2), BUDGET, THRESHOLD, 1, 1)
    by_hand = (32 * LAYER + HEAD) / ((16 + 16 * NINTH) * LAYER + HEAD)
    assert by_hand == pytest.approx(1.772, abs=1e-3)
    assert found.decode_speedup == pytest.approx(by_hand, rel=1e-3)


def test_a_batch_of_8_reads_routed_layers_in_the_steps_that_keep_any_row():
    found = estimate_method(replace(CASE, new_tokens=2), BUDGET, THRESHOLD, 1, 8)
    joint = 1 - (8 / 9) ** 8
    by_hand = (32 * LAYER + HEAD) / ((16 + 16 * joint) * LAYER + HEAD)
    assert found.decode_speedup == pytest.approx(by_hand, rel=2e-3)


def test_the_kv_cache_is_divided_by_1_point_8_at_a_ninth():
    found = estimate_method(CASE, BUDGET, THRESHOLD, 4096, 1)
    assert found.kv_cache_reduction == pytest.approx(1.8)
    assert found.memory.kv_cache_bytes == pytest.approx(512 * 1024 * (4096 + 255) / 1.8)


def test_end_to_end_is_prefill_and_a_step_less_than_new_tokens():
    found = estimate_method(CASE, BUDGET, DENSE, 4096, 1)
    assert found.end_to_end_s == found.prefill_s + 255 * found.decode_s
    assert (found.prefill_speedup, found.decode_speedup, found.end_to_end_speedup, found.memory_reduction) == (
        1,
        1,
        1,
        1,
    )


def test_what_is_missing_begins_one_byte_below_the_peak():
    peak = estimate_method(CASE, BUDGET, THRESHOLD, 4096, 1).memory.peak_bytes
    missing = [
        estimate_method(CASE, replace(BUDGET, memory_bytes=peak + extra), THRESHOLD, 4096, 1).missing_bytes
        for extra in (0, -1)
    ]
    assert missing == [0, 1]


def test_there_is_a_row_per_size_and_method_in_order():
    found = [(item.context, item.batch, item.method) for item in estimates(CASE, BUDGET)]
    assert found == [(*size, label) for size in CASE.sizes for label in ("dense", "threshold", "skip_layers")]


def test_the_longest_context_is_the_last_that_fits_and_is_compared_with_dense():
    found = {(limit.batch, limit.method): limit for limit in limits(CASE, BUDGET)}
    dense, threshold = found[8, "dense"], found[8, "threshold"]
    assert threshold.context == context_limit(CASE, BUDGET, THRESHOLD, 8)
    assert threshold.ratio == threshold.context / dense.context > 1.4
    for limit, method in ((dense, DENSE), (threshold, THRESHOLD)):
        assert estimate_method(CASE, BUDGET, method, limit.context, 8).missing_bytes == 0
        assert estimate_method(CASE, BUDGET, method, limit.context + 1, 8).missing_bytes > 0


def test_there_is_no_ratio_where_dense_fits_nowhere():
    budget = replace(BUDGET, memory_bytes=8 * 2**30)  # half of the layers fit, all of them do not
    found = {limit.method: limit for limit in limits(CASE, budget) if limit.batch == 1}
    assert (found["dense"].context, found["dense"].ratio) == (0, None)
    assert found["skip_layers"].context > 0
    assert found["skip_layers"].ratio is None


def test_a_control_that_keeps_everything_in_memory_is_credited_with_nothing():
    masked = PredictedMethod("masked", "masked", ODD, NINTH)
    assert masked.keeping(32, 4) == Keeping.everything(32)
