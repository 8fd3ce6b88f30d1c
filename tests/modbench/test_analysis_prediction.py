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
from modbench.geometry import Geometry
from modbench.model_shape import Experts, LayerShape, ModelShape
from modbench.presets import PRESETS

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


# One windowed layer by hand: 160 weights, head 40, a query sees 3 positions, two products of width 4, 8 KV elements a token.
WINDOWED = Geometry(
    model_type="mistral", num_hidden_layers=1, hidden_size=4, intermediate_size=8, num_attention_heads=2,
    vocab_size=10, sliding_window=3,
)  # fmt: skip


def test_flops_and_bytes_of_a_windowed_layer_by_hand():
    found = predict(
        Work(WINDOWED, context=6, batch=1, new_tokens=2, bytes_per_element=4), Keeping.everything(1), COMPUTE_BOUND
    )
    # pairs: 1 + 2 + 3 while the window fills, then 3 for each of 3 queries
    assert found.prefill.flops == 2 * 160 * 6 + 2 * 2 * 4 * (6 + 9) + 2 * 40
    # every key is written once and read once
    assert found.prefill.bytes_moved == 4 * (160 + 40 + 10 + 6 * 4) + 4 * 8 * (6 + 6)
    # decode: half of 2 decoded tokens and 2 of the prompt are within 3
    assert found.decode.flops == 2 * 160 + 2 * 2 * 4 * 3 + 2 * 40
    assert found.decode.bytes_moved == 4 * (160 + 40 + 10 + 4) + 4 * 8 * (1 + 3)


def test_kept_queries_of_a_windowed_layer_see_the_kept_share_of_the_window():
    half = Shares((0.5,), (0.5,), (0.5,))
    found = predict(
        Work(WINDOWED.model_copy(update={"sliding_window": 4}), 8, 1, 2, 4), Keeping.of(half), COMPUTE_BOUND
    )
    # 2 keys of 4 positions: 2 * (2 + 1) / 2 pairs while the window fills, then 2 for each of 2 queries
    assert found.prefill.flops == 2 * 160 * 4 + 2 * 2 * 4 * (3 + 4) + 2 * 40
    # half a row sees half of 1 decoded and 3 prompt tokens
    assert found.decode.flops == 0.5 * (2 * 160 + 2 * 2 * 4 * 2) + 2 * 40


@pytest.mark.parametrize("keeping", [Keeping.everything(4), interleaved(4, NINTH)], ids=["dense", "kept"])
def test_a_window_that_nothing_reaches_past_changes_nothing(keeping):
    full = PRESETS["tiny"].model_copy(update={"model_type": "mistral"})
    wide = full.model_copy(update={"sliding_window": 64 + 17})
    works = [Work(geometry, 64, 2, 17, 4) for geometry in (full, wide)]
    assert predict(works[0], keeping, MEMORY_BOUND) == predict(works[1], keeping, MEMORY_BOUND)
    assert kv_cache_bytes_expected(works[0], keeping) == kv_cache_bytes_expected(works[1], keeping)


@pytest.mark.parametrize(
    ("context", "new_tokens", "expected"),
    [
        (3, 1, 3),  # all of the prompt
        (100, 1, 8),  # window - 1
        (100, 5, 4 + 4 * 0.5),  # 4 decoded ones at 1/2, of the prompt the 4 before them
        (100, 50, 8 * 0.5),  # decoded ones alone
        (2, 3, 2 + 2 * 0.5),
    ],
)
def test_a_windowed_cache_holds_what_the_next_query_can_see(context, new_tokens, expected):
    work = Work(WINDOWED.model_copy(update={"sliding_window": 9}), context, 3, new_tokens, 4)
    stored = Shares((1.0,), (0.5,), (0.5,))
    assert kv_cache_bytes_expected(work, Keeping(Shares.everything(1), stored)) == 3 * 4 * 8 * expected


def test_windowed_decode_does_not_grow_with_the_context():
    works = [Work(PRESETS["mistral-7b-v0.1"], context, 1, 64, 2) for context in (8192, 32768)]
    near, far = (predict(work, Keeping.everything(32), MEMORY_BOUND).decode for work in works)
    assert near == far


def mixture(num_experts: int, num_per_token: int) -> ModelShape:
    layer = LayerShape(
        attention_parameters=64, attention_width=4, kv_width=8, mlp_parameters=5,
        experts=Experts(num_experts, num_per_token, parameters=96),
    )  # fmt: skip
    return ModelShape((layer,), hidden_size=4, vocab_size=10, num_parameters=0, head_size=4)


def test_a_mixture_computes_few_experts_and_reads_those_that_tokens_pass():
    found = predict(Work(mixture(4, 1), context=2, batch=1, new_tokens=2, bytes_per_element=4), Keeping.everything(1),
                    COMPUTE_BOUND)  # fmt: skip
    # router 5 and one expert of 96 per token
    assert found.prefill.flops == 2 * (64 + 5 + 96) * 2 + 2 * 2 * 4 * 3 + 2 * 40
    # two tokens pass 4 * (1 - (3/4)^2) = 1.75 distinct experts
    assert found.prefill.bytes_moved == 4 * (64 + 5 + 1.75 * 96 + 40 + 10 + 2 * 4) + 4 * 8 * (2 + 2)
    assert found.decode.bytes_moved == 4 * (64 + 5 + 96 + 40 + 10 + 4) + 4 * 8 * (1 + 3)


def test_distinct_experts_are_between_one_tokens_and_all():
    experts = Experts(num_experts=8, num_per_token=2, parameters=1)
    assert experts.num_read(0) == 0
    assert experts.num_read(1) == pytest.approx(2)
    assert experts.num_read(1, share=0.5) == pytest.approx(1)
    assert experts.num_read(2) == pytest.approx(8 * (1 - 0.75**2))
    assert experts.num_read(10**6) == 8
    assert Experts(2, 2, 1).num_read(1) == 2


def test_a_mixture_of_one_expert_is_a_plain_mlp():
    plain = Geometry(num_hidden_layers=1, hidden_size=4, intermediate_size=8, num_attention_heads=2, vocab_size=10)
    layer = LayerShape(
        attention_parameters=64, attention_width=4, kv_width=8, mlp_parameters=0, experts=Experts(1, 1, 96)
    )
    single = ModelShape((layer,), hidden_size=4, vocab_size=10, num_parameters=0, head_size=4)
    results = [predict(Work(model, 7, 2, 4, 4), Keeping.everything(1), MEMORY_BOUND) for model in (plain, single)]
    assert results[0] == results[1]
