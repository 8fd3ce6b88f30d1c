import pytest

from modbench.analysis.prediction import (
    SAVES,
    Ceilings,
    Keeping,
    Shares,
    Work,
    ceilings_from,
    ideal_speedup,
    kv_cache_bytes_expected,
    predict,
    shares_from,
)
from modbench.presets import PRESETS, Geometry

MEMORY_BOUND = Ceilings(copy_bytes_per_s=1e9, matmul_flops_per_s=1e18)
COMPUTE_BOUND = Ceilings(copy_bytes_per_s=1e18, matmul_flops_per_s=1e12)
NINTH = 1 / 9
# The hand values count KV reads as (1 + r) / 2; here only kept queries read kept keys, (1 + r^2) / 2: a little less.
HAND_TOLERANCE = 0.02


def interleaved(num_layers: int, ratio: float) -> Keeping:
    layers = tuple(1.0 if layer % 2 == 0 else ratio for layer in range(num_layers))
    return Keeping.of(Shares(layers, layers, layers))


def ideal(geometry: Geometry, context: int, ceilings: Ceilings, ratio: float = NINTH):
    return ideal_speedup(Work(geometry, context, 1, 64, 2), interleaved(geometry.num_hidden_layers, ratio), ceilings)


@pytest.mark.parametrize(
    ("geometry", "context", "expected"),
    [
        (PRESETS["qwen2.5-3b"], 128, 1.67),
        (PRESETS["llama3-8b"], 128, 1.71),
        (PRESETS["bench-8x512"].model_copy(update={"vocab_size": 32000}), 1024, 1.43),
    ],
    ids=["qwen2.5-3b", "llama3-8b", "8x512-32k"],
)
def test_decode_of_one_row_reaches_the_hand_values_with_head(geometry, context, expected):
    assert ideal(geometry, context, MEMORY_BOUND).decode == pytest.approx(expected, abs=HAND_TOLERANCE)


def test_prefill_dominated_by_projections_is_bounded_by_two_over_one_plus_r():
    assert ideal(PRESETS["llama3-8b"], 1024, COMPUTE_BOUND).prefill == pytest.approx(1.8, abs=0.005)


def test_prefill_dominated_by_attention_is_bounded_by_two_over_one_plus_r_squared():
    expected = 2 / (1 + NINTH**2)
    assert expected == pytest.approx(1.98, abs=0.005)
    assert ideal(PRESETS["tiny"], 10**8, COMPUTE_BOUND).prefill == pytest.approx(expected, rel=1e-3)


def test_decode_dominated_by_the_kv_cache_reads_what_kept_queries_need():
    # (1 + r^2) / 2 of the reads: of r queries each reads r keys; of the bytes stored (1 + r) / 2 stay
    work = Work(PRESETS["tiny"], 10**8, 4, 64, 2)
    kept = interleaved(4, NINTH)
    found = ideal_speedup(work, kept, MEMORY_BOUND).decode
    assert found == pytest.approx(2 / (1 + NINTH**2), rel=1e-3)
    dense = kv_cache_bytes_expected(work, Keeping.everything(4))
    assert kv_cache_bytes_expected(work, kept) / dense == pytest.approx((1 + NINTH) / 2)


def test_a_control_is_credited_with_what_it_saves_alone():
    work = Work(PRESETS["tiny"], 10**8, 4, 64, 2)
    kept = interleaved(4, NINTH).stored
    masked, kv_only = (Keeping.of(kept, SAVES[kind]) for kind in ("masked", "kv_only"))
    assert masked == Keeping.everything(4)
    assert kv_only == Keeping(computed=Shares.everything(4), stored=kept)
    # every query, of kept keys: (1 + r) / 2 of the attention in both phases
    far = [ideal_speedup(work, kv_only, ceilings) for ceilings in (MEMORY_BOUND, COMPUTE_BOUND)]
    assert far[0].decode == pytest.approx(2 / (1 + NINTH), rel=1e-3)
    assert far[1].prefill == pytest.approx(2 / (1 + NINTH), rel=1e-3)
    # near, projections and MLP are everything, and of those nothing is saved
    near = ideal_speedup(Work(PRESETS["llama3-8b"], 16, 1, 4, 2), Keeping.of(interleaved(32, NINTH).stored, ("storage",)),
                         MEMORY_BOUND)  # fmt: skip
    assert near.decode == pytest.approx(1.0, abs=1e-3)


def test_flops_and_bytes_of_a_layer_that_only_stores_less_by_hand():
    geometry = Geometry(
        num_hidden_layers=1, hidden_size=4, intermediate_size=8, num_attention_heads=2, vocab_size=10
    )  # 160 weights, head 40
    work = Work(geometry, context=4, batch=1, new_tokens=2, bytes_per_element=4)
    half = Shares((0.5,), (0.5,), (0.5,))
    found = predict(work, Keeping.of(half, ("storage",)), COMPUTE_BOUND)
    # 4 tokens through 160 weights; they see 2 keys that are spread evenly: 2 * (4 + 1) / 2 pairs of 10
    assert found.prefill.flops == 2 * 160 * 4 + 2 * 2 * 4 * 5 + 2 * 40
    # one token through the same; its keys: 2 of the prompt and half of one stored
    assert found.decode.flops == 2 * 160 + 2 * 2 * 4 * 2.5 + 2 * 40
    # weights, head, logits, one embedding row; half a token's KV written, of 2.5 tokens read
    assert found.decode.bytes_moved == 4 * (160 + 40 + 10 + 4) + 2 * 4 * 4 * (0.5 + 2.5)


def test_nothing_is_gained_where_everything_is_kept():
    found = ideal(PRESETS["tiny"], 256, MEMORY_BOUND, ratio=1.0)
    assert (found.prefill, found.decode) == (1.0, 1.0)


def test_removed_layers_cost_nothing():
    geometry = PRESETS["tiny"]
    half = geometry.model_copy(update={"num_hidden_layers": 2})
    removed = predict(Work(geometry, 512, 2, 16, 4), interleaved(4, 0.0), COMPUTE_BOUND)
    smaller = predict(Work(half, 512, 2, 16, 4), Keeping.everything(2), COMPUTE_BOUND)
    assert removed == smaller


def test_weights_of_a_routed_layer_are_read_in_the_steps_that_keep_a_row():
    geometry = PRESETS["llama3-8b"]
    layers = interleaved(32, NINTH).computed.decode
    rarely = tuple(1.0 if ratio == 1 else 0.2 for ratio in layers)
    work = Work(geometry, 16, 8, 64, 2)
    always = predict(work, Keeping.of(Shares(layers, layers, (1.0,) * 32)), MEMORY_BOUND)
    seldom = predict(work, Keeping.of(Shares(layers, layers, rarely)), MEMORY_BOUND)
    layer_bytes = (geometry.attention_parameters + geometry.mlp_parameters) * 2
    assert always.decode.bytes_moved - seldom.decode.bytes_moved == pytest.approx(16 * 0.8 * layer_bytes)


def test_flops_and_bytes_of_a_layer_by_hand():
    geometry = Geometry(
        num_hidden_layers=1, hidden_size=4, intermediate_size=8, num_attention_heads=2, vocab_size=10
    )  # attention 4 * 4 * 4 = 64 weights, MLP 3 * 4 * 8 = 96, head 40
    work = Work(geometry, context=3, batch=1, new_tokens=2, bytes_per_element=4)
    found = predict(work, Keeping.everything(1), COMPUTE_BOUND)
    # 3 tokens through 160 weights; 6 causal pairs in two products of width 4; the head on one position
    assert found.prefill.flops == 2 * 160 * 3 + 2 * 2 * 4 * 6 + 2 * 40
    # one token through the same; its keys: 3 of the prompt and half of 2 decoded
    assert found.decode.flops == 2 * 160 + 2 * 2 * 4 * 4 + 2 * 40
    # weights, head, logits, one embedding row; KV of one token written, of 4 read
    assert found.decode.bytes_moved == 4 * (160 + 40 + 10 + 4) + 2 * 4 * 4 * (1 + 4)


def test_time_is_the_sum_of_the_slower_side_of_each_operation():
    work = Work(PRESETS["tiny"], 64, 1, 8, 4)
    everything = Keeping.everything(4)
    memory = predict(work, everything, MEMORY_BOUND).prefill
    compute = predict(work, everything, COMPUTE_BOUND).prefill
    assert memory.time_s == pytest.approx(memory.bytes_moved / 1e9)
    assert compute.time_s == pytest.approx(compute.flops / 1e12)
    both = predict(work, everything, Ceilings(1e9, 2.65e10)).prefill.time_s
    slow_compute = compute.flops / 2.65e10  # about as long as the bytes take
    assert max(memory.time_s, slow_compute) < both < memory.time_s + slow_compute


def test_kv_bytes_of_kept_tokens_are_dense_times_half_of_one_plus_r():
    geometry = PRESETS["bench-8x512"]
    work = Work(geometry, 1024, 2, 16, 4)
    dense = kv_cache_bytes_expected(work, Keeping.everything(8))
    assert dense == geometry.kv_bytes_per_token(4) * (1024 + 15) * 2
    assert kv_cache_bytes_expected(work, interleaved(8, NINTH)) == pytest.approx(dense / 1.8)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"ceilings": None},
        {"ceilings": {"copy_bytes_per_s": 1e9}},
        {"ceilings": {"copy_bytes_per_s": 1e9, "matmul_flops_per_s": 0}},
    ],
)
def test_ceilings_that_were_not_measured_are_none(environment):
    assert ceilings_from(environment) is None


def test_missing_any_ratios_are_taken_as_independent_rows():
    shares = shares_from([1.0, 0.5], [1.0, 0.5], [], num_layers=2, batch=3)
    assert shares is not None
    assert shares.decode_any == (1.0, 1 - 0.5**3)
    assert shares_from([1.0], [1.0, 0.5], [], num_layers=2, batch=3) is None


def test_wrong_number_of_layers_is_an_error():
    with pytest.raises(ValueError, match="expected 4"):
        predict(Work(PRESETS["tiny"], 8, 1, 4, 4), Keeping.everything(3), COMPUTE_BOUND)
