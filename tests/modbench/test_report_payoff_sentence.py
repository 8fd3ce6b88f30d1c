"""The sentence in its regimes: each is brought about by the device and the workload, never by the model's name."""

from dataclasses import replace

import pytest

from modbench.analysis.estimate import Budget, Case, PredictedMethod
from modbench.analysis.payoff import Payoff, _paying_ends, payoffs
from modbench.analysis.prediction import Ceilings
from modbench.presets import PRESETS
from modbench.report.payoff_sentence import payoff_sentence

ODD = tuple(range(1, 32, 2))
DENSE = PredictedMethod("dense", "dense")
MEMORY_BOUND = Budget(Ceilings(copy_bytes_per_s=1e12, matmul_flops_per_s=1e20), 2**50, 2**30)
COMPUTE_BOUND = Budget(Ceilings(copy_bytes_per_s=1e18, matmul_flops_per_s=1e14), 2**50, 2**30)
LLAMA3 = PRESETS["llama3-8b"]


def payoff(budget: Budget, context: int, batch: int, ratio: float, new_tokens: int = 100_000) -> Payoff:
    threshold = PredictedMethod("threshold", "threshold", ODD, ratio)
    case = Case("", LLAMA3, "bfloat16", new_tokens, (DENSE, threshold), ((context, batch),))
    (found,) = payoffs(case, budget)
    return found


def test_one_row_is_bound_by_weights_and_pays_at_any_context():
    found = payoff(MEMORY_BOUND, 2048, 1, 1 / 9)
    assert found.paying["end_to_end_speedup"] == (1024, 131_072)
    assert found.because.context == 2048
    cause = found.causes[0]
    assert (cause.phase, cause.part, cause.bound) == ("decode", "weights", "bytes")
    text = payoff_sentence(found, MEMORY_BOUND)
    assert text.startswith("At batch 1, threshold pays at any context from 1,024 to 131,072: at best 1.7")
    assert "because at 2,048 tokens decode (100 % of dense's time) is bound by reading weights" in text
    assert "by some row" not in text


def test_many_rows_read_every_layer_so_that_it_pays_only_from_a_context_whose_cache_is_large():
    found = payoff(MEMORY_BOUND, 1024, 8, 0.5, new_tokens=256)
    # all weights are read; of the cache 5/8 stays: 1.1 needs it to be 24 % of dense's time, 4,500 tokens of these 8 rows
    assert found.joint_keep_ratio == 1 - 0.5**8
    assert found.paying["decode_speedup"] == (8192, 131_072)
    assert found.because.context == 8192
    text = payoff_sentence(found, MEMORY_BOUND)
    assert text.startswith("At batch 8, threshold pays at contexts from 8,192 to 131,072: at best 1.")
    assert "of which 100 % stays, as a routed layer is needed by some row in most steps (100 %)" in text
    assert "while of reading the KV cache 63 % stays" in text


def test_long_rows_are_bound_by_the_kv_cache():
    found = payoff(MEMORY_BOUND, 131_072, 8, 1 / 9)
    cause = found.causes[0]
    assert (cause.phase, cause.part, cause.bound) == ("decode", "attention", "bytes")
    assert cause.left_ratio == pytest.approx((1 + 1 / 81) / 2, rel=1e-3)
    assert "is bound by reading the KV cache" in payoff_sentence(found, MEMORY_BOUND)


def test_prefill_is_bound_by_matrix_products_of_projections_and_later_of_attention():
    near = payoff(COMPUTE_BOUND, 1024, 1, 1 / 9, new_tokens=2)
    far = payoff(COMPUTE_BOUND, 2**20, 1, 1 / 9, new_tokens=2)
    assert [(item.causes[0].phase, item.causes[0].part, item.causes[0].bound) for item in (near, far)] == [
        ("prefill", "weights", "flops"),
        ("prefill", "attention", "flops"),
    ]
    assert near.causes[0].left_ratio == pytest.approx(1 / 1.8, rel=1e-3)
    assert "bound by the matrix products of projections and MLP" in payoff_sentence(near, COMPUTE_BOUND)
    assert "bound by attention's matrix products" in payoff_sentence(far, COMPUTE_BOUND)


def test_a_high_keep_ratio_does_not_pay():
    found = payoff(MEMORY_BOUND, 4096, 1, 0.95)
    assert found.paying == {}
    text = payoff_sentence(found, MEMORY_BOUND)
    assert text.startswith("At batch 1, threshold does not pay at any context from 1,024 to 131,072: at best 1.0")
    assert "because at 131,072 tokens" in text


def test_a_scan_that_memory_ends_says_where_and_how_far_dense_gets():
    budget = replace(MEMORY_BOUND, memory_bytes=24 * 2**30)
    found = payoff(budget, 4096, 1, 1 / 9, new_tokens=256)
    longest = found.scanned[-1].context
    assert longest < 131_072
    assert longest > found.dense_limit > 1024
    text = payoff_sentence(found, budget)
    assert f"from 1,024 to {longest:,}, the longest that fits (dense fits to {found.dense_limit:,})" in text


def test_a_model_that_does_not_fit_says_by_how_much():
    budget = replace(MEMORY_BOUND, memory_bytes=10 * 2**30)
    found = payoff(budget, 4096, 1, 1 / 9, new_tokens=256)
    assert found.scanned == found.causes == ()
    # 8.03 B weights of 2 bytes, 1 GiB of overhead, and 18 MiB of keys and values of 256 tokens: 15.98 GiB
    assert payoff_sentence(found, budget) == (
        "At batch 1, threshold fits at no context: one token needs 16.0 GiB, 5.98 GiB more than there is."
    )


def test_a_gain_in_memory_alone_is_not_called_faster():
    found = payoff(MEMORY_BOUND, 4096, 1, 0.95)
    found = replace(found, paying={"memory_reduction": (4096, 131_072)})
    assert "threshold pays in memory alone, at contexts from 4,096 to 131,072: at best 1.0" in payoff_sentence(
        found, MEMORY_BOUND
    )


def test_a_gap_between_paying_contexts_is_not_called_paying():
    found = payoff(MEMORY_BOUND, 1024, 1, 1 / 9)
    gains = [2.0, 1.0, *[2.0] * 6]
    scanned = tuple(replace(item, decode_speedup=gain) for item, gain in zip(found.scanned, gains, strict=True))
    assert _paying_ends(scanned, "decode_speedup") == (4096, 131_072)
    assert _paying_ends(scanned[:2], "decode_speedup") == (1024, 1024)
    assert _paying_ends(scanned[1:2], "decode_speedup") is None


def test_removed_layers_and_controls_are_not_spoken_of():
    methods = (
        DENSE,
        PredictedMethod("skip_layers", "skip_layers", ODD, 0.0, is_removing=True),
        PredictedMethod("masked", "masked", ODD, 0.1),
        PredictedMethod("mine", "topk", ODD, 0.1),
    )
    case = Case("", LLAMA3, "bfloat16", 64, methods, ((1024, 1),))
    assert [found.method for found in payoffs(case, MEMORY_BOUND)] == ["mine"]
