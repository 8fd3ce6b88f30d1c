"""The five identities of docs/method.md, against the dense model and the naive oracle."""

import pytest
import torch

from reference_impl import ModConfig, calibrate, convert
from reference_impl.kv_cache import ModCache
from reference_impl.naive import naive_forward
from tests.reference_impl.conftest import (
    BF16_GATE_MARGIN,
    BF16_RELATIVE_TOLERANCE,
    FAMILY_SETTINGS,
    FP32_TOLERANCE,
    dense_model,
    random_ids,
)

FAMILIES = sorted(FAMILY_SETTINGS)
LAYOUTS = {"interleaved": "interleaved", "first-and-last": (0, 3), "adjacent": (1, 2), "all": (0, 1, 2, 3)}


def keep_masks(model):
    return {layer: last.keep_BT for layer, last in model.routing.last.items()}


def incremental_logits(model, ids, prompt_length, chunk=1):
    """Prefill, then feed the rest `chunk` tokens at a time through one cache."""
    cache = model.new_cache()
    logits = [model(ids[:, :prompt_length], past_key_values=cache).logits]
    for start in range(prompt_length, ids.shape[1], chunk):
        logits.append(model(ids[:, start : start + chunk], past_key_values=cache).logits)
    return torch.cat(logits, dim=1), cache


@pytest.mark.parametrize("operator", ["threshold", "masked", "kv_only"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_forward_equals_the_naive_oracle(make_converted, family, operator):
    model = make_converted(family, operator=operator)
    ids = random_ids(3, 33)
    logits = model(ids).logits
    masks = keep_masks(model)
    assert all(0 < keep.float().mean() < 1 for keep in masks.values()), "the test needs kept and skipped tokens"
    for row in range(3):
        expected, _ = naive_forward(model, ids[row], {layer: keep[row] for layer, keep in masks.items()})
        torch.testing.assert_close(logits[row], expected, atol=FP32_TOLERANCE, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layers", LAYOUTS.values(), ids=LAYOUTS)
@torch.no_grad()
def test_every_layout_of_routed_layers_equals_the_oracle(make_converted, layers, family):
    model = make_converted(family, routed_layers=layers)
    ids = random_ids(2, 21)
    logits, _ = incremental_logits(model, ids, 13)
    for row in range(2):
        expected, _ = naive_forward(model, ids[row])
        torch.testing.assert_close(logits[row], expected, atol=FP32_TOLERANCE, rtol=0)


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("operator", ["threshold", "masked", "kv_only"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_decode_equals_full_forward(make_converted, family, operator, chunk):
    model = make_converted(family, operator=operator)
    ids = random_ids(3, 32)
    full = model(ids).logits
    with model.routing.replay(keep_masks(model)):
        logits, cache = incremental_logits(model, ids, 20, chunk)
    assert cache.get_seq_length() == 32
    torch.testing.assert_close(logits, full, atol=FP32_TOLERANCE, rtol=0)


@torch.no_grad()
def test_decode_from_a_single_token_prompt_equals_full_forward(make_converted):
    model = make_converted()
    ids = random_ids(2, 9)
    full = model(ids).logits
    logits, _ = incremental_logits(model, ids, 1)
    torch.testing.assert_close(logits, full, atol=FP32_TOLERANCE, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("operator", ["threshold", "topk", "masked", "kv_only"])
@torch.no_grad()
def test_a_row_does_not_depend_on_its_neighbours(make_converted, operator, family):
    model = make_converted(family, operator=operator)
    ids = random_ids(4, 30)
    batch, _ = incremental_logits(model, ids, 22)
    for row in range(4):
        single, _ = incremental_logits(model, ids[row : row + 1], 22)
        torch.testing.assert_close(batch[row : row + 1], single, atol=FP32_TOLERANCE, rtol=0)


@pytest.mark.parametrize(("family", "attention"), [("llama", "eager"), *((family, None) for family in FAMILIES)])
@pytest.mark.parametrize("operator", ["threshold", "topk", "masked", "kv_only"])
@torch.no_grad()
def test_left_padded_equals_unpadded(operator, family, attention):
    model = dense_model(family)
    if attention is not None:
        model.set_attn_implementation(attention)
    model = convert(model, ModConfig(operator=operator, router_bias=0.0))
    ids, padding = random_ids(1, 17), 6
    expected, _ = incremental_logits(model, ids, 12)
    padded = torch.cat([torch.zeros(1, padding, dtype=torch.long), ids], dim=1)
    both = torch.cat([padded, random_ids(1, 17 + padding, seed=9)])  # a neighbour without padding
    mask = torch.ones_like(both)
    mask[0, :padding] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = model.new_cache()
    logits = []
    for start, end in [(0, 12 + padding), *((i, i + 1) for i in range(12 + padding, 17 + padding))]:
        step = model(
            both[:, start:end],
            attention_mask=mask[:, :end],
            position_ids=positions[:, start:end],
            past_key_values=cache,
        )
        logits.append(step.logits)
    torch.testing.assert_close(torch.cat(logits, dim=1)[:1, padding:], expected, atol=FP32_TOLERANCE, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("operator", ["threshold", "masked", "kv_only"])
@torch.no_grad()
def test_a_suffix_never_changes_its_prefix(make_converted, operator, family):
    model = make_converted(family, operator=operator)
    ids = random_ids(2, 24)
    other = ids.clone()
    other[:, 15:] = random_ids(2, 9, seed=5)
    torch.testing.assert_close(model(ids).logits[:, :15], model(other).logits[:, :15], atol=FP32_TOLERANCE, rtol=0)


@torch.no_grad()
def test_topk_prefill_is_not_causal_and_says_so(make_converted):
    model = make_converted(operator="topk", capacity=0.3)
    ids = random_ids(1, 40)
    first = model(ids[:, :20]).logits
    assert not torch.allclose(model(ids).logits[:, :20], first, atol=1e-3)


@pytest.mark.parametrize("operator", ["threshold", "topk", "masked", "kv_only"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_p_zero_with_unit_gates_is_the_dense_model(make_converted, family, operator):
    dense = dense_model(family)
    model = make_converted(family, operator=operator, threshold_p=0.0, capacity=1.0, gate="unit")
    ids = random_ids(2, 19)
    expected = dense(ids).logits
    if operator in ("threshold", "topk"):  # same kernel on the same tokens
        assert torch.equal(model(ids).logits, expected)
    torch.testing.assert_close(model(ids).logits, expected, atol=FP32_TOLERANCE, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_nothing_kept_leaves_the_residual_stream(make_converted, family):
    model = make_converted(family, routed_layers=(0, 1, 2, 3))
    ids = random_ids(2, 11)
    calibrate(model, ids, 0.0)
    cache = model.new_cache()
    out = model(ids, past_key_values=cache, output_hidden_states=True)
    assert torch.equal(out.hidden_states[0], out.hidden_states[-2])
    assert all(layer.lengths() == [0, 0] for layer in cache.layers)
    again = model(ids[:, :1], past_key_values=cache)
    assert torch.isfinite(again.logits).all()
    assert cache.get_seq_length() == 12


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kept", [[1, 0, 12], [12, 12, 12], [0, 12, 3]], ids=["one-none-all", "all", "none-all-few"])
@torch.no_grad()
def test_rows_of_very_different_keep_counts_equal_the_oracle(make_converted, kept, family):
    model = make_converted(family)
    ids = random_ids(3, 12)
    masks = {}
    for layer in (1, 3):
        keep = torch.zeros(3, 12, dtype=torch.bool)
        for row, count in enumerate(kept):
            keep[row, torch.randperm(12, generator=torch.Generator().manual_seed(row))[:count]] = True
        masks[layer] = keep
    with model.routing.replay(masks):
        logits, cache = incremental_logits(model, ids, 7)
    if cache.layers[1].window is None:
        assert cache.layers[1].lengths() == kept
    for row in range(3):
        expected, _ = naive_forward(model, ids[row], {layer: keep[row] for layer, keep in masks.items()})
        torch.testing.assert_close(logits[row], expected, atol=FP32_TOLERANCE, rtol=0)


@torch.no_grad()
def test_a_stock_dynamic_cache_gets_ragged_slots(make_converted):
    from transformers import DynamicCache

    model = make_converted()
    ids = random_ids(2, 10)
    stock, own = DynamicCache(config=model.config), ModCache([None] * 4, (1, 3))
    first = model(ids, past_key_values=stock).logits
    assert torch.equal(first, model(ids, past_key_values=own).logits)
    assert stock.layers[1].lengths() == own.layers[1].lengths()


@torch.no_grad()
def test_generate_is_greedy_decoding_of_the_full_forward(make_converted):
    model = make_converted()
    ids = random_ids(2, 8)
    tokens = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
    expected = ids
    for _ in range(6):
        following = model(expected, use_cache=False).logits[:, -1:].argmax(-1)
        expected = torch.cat([expected, following], dim=1)
    assert torch.equal(tokens, expected)


@torch.no_grad()
def test_a_batch_of_one_token_per_row_equals_the_oracle(make_converted):
    model = make_converted()
    ids = random_ids(4, 1)
    logits = model(ids).logits
    assert {bool(keep) for mask in keep_masks(model).values() for keep in mask.flatten()} == {True, False}
    for row in range(4):
        torch.testing.assert_close(logits[row], naive_forward(model, ids[row])[0], atol=FP32_TOLERANCE, rtol=0)


@torch.no_grad()
def test_an_empty_continuation_changes_nothing(make_converted):
    model = make_converted()
    ids = random_ids(2, 12)
    expected, _ = incremental_logits(model, ids, 8)
    cache = model.new_cache()
    model(ids[:, :8], past_key_values=cache)
    empty = model(ids[:, :0], past_key_values=cache).logits
    assert empty.shape[1] == 0
    assert cache.get_seq_length() == 8
    rest = model(ids[:, 8:], past_key_values=cache).logits
    torch.testing.assert_close(rest, expected[:, 8:], atol=FP32_TOLERANCE, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_decode_equals_full_forward_in_bfloat16(make_converted, family):
    model = make_converted(family).bfloat16()
    ids = random_ids(3, 28)
    full = model(ids).logits.float()
    free = dict(model.routing.last)
    with model.routing.replay(keep_masks(model)):
        logits, _ = incremental_logits(model, ids, 20)
    assert relative_error(logits.float(), full) <= BF16_RELATIVE_TOLERANCE
    incremental_logits(model, ids, 27)  # free-running: only gates next to the threshold may flip
    for layer, decision in model.routing.last.items():
        is_flip = decision.keep_BT != free[layer].keep_BT[:, -1:]
        margin = (free[layer].gate_BT[:, -1:] - 0.5).abs()
        assert not (is_flip & (margin > BF16_GATE_MARGIN)).any()


def relative_error(logits, expected):
    """Root mean square error over the standard deviation of the logits."""
    return ((logits - expected).square().mean().sqrt() / expected.std()).item()


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_equal_those_of_the_naive_model(make_converted, family):
    model = make_converted(family)
    ids = random_ids(1, 18)
    model(ids, use_cache=False).logits.square().mean().backward()
    fast = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    naive_forward(model, ids[0])[0].square().mean().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(fast[name], parameter.grad, atol=FP32_TOLERANCE, rtol=1e-4, msg=name)
    assert fast["model.layers.1.router.weight"].abs().sum() > 0
