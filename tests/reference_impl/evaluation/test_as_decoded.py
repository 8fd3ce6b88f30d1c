"""Whole-sequence forwards that decide as a decode would, token by token."""

import pytest
import torch

from tests.reference_impl.conftest import FP32_TOLERANCE, random_ids


def decoded(model, ids_BT):
    """Logits of one token after another, the first one included, and what was kept."""
    cache = model.new_cache()
    logits, masks = [], []
    for index in range(ids_BT.shape[1]):
        logits.append(model(ids_BT[:, index : index + 1], past_key_values=cache).logits)
        masks.append({layer: last.keep_BT for layer, last in model.routing.last.items()})
    return torch.cat(logits, dim=1), {layer: torch.cat([one[layer] for one in masks], dim=1) for layer in masks[0]}


@pytest.mark.parametrize("family", ["llama", "mistral-window", "gemma2"])
@pytest.mark.parametrize("operator", ["topk", "threshold", "masked", "kv_only"])
@torch.no_grad()
def test_a_forward_as_decoded_equals_decode_token_by_token(make_converted, family, operator):
    model, ids_BT = make_converted(family, operator=operator, capacity=0.25), random_ids(2, 24)
    expected, masks = decoded(model, ids_BT)
    with model.routing.as_decoded():
        logits = model(ids_BT, use_cache=False).logits
    torch.testing.assert_close(logits, expected, atol=FP32_TOLERANCE, rtol=0)
    for layer, keep_BT in masks.items():
        assert torch.equal(model.routing.last[layer].keep_BT, keep_BT)
        assert 0 < keep_BT.float().mean() < 1


@torch.no_grad()
def test_the_first_token_of_a_row_is_kept_by_top_k_alone(make_converted):
    kept = {}
    for operator in ("topk", "threshold"):
        model = make_converted(operator=operator, threshold_p=0.999)
        with model.routing.as_decoded():
            model(random_ids(2, 6), attention_mask=torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]]))
        kept[operator] = model.routing.last[1].keep_BT.int().tolist()
    assert kept["topk"] == [[1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]]
    assert kept["threshold"] == [[0] * 6] * 2


@torch.no_grad()
def test_top_k_ranks_again_afterwards_even_after_an_error(make_converted):
    model, ids_BT = make_converted(operator="topk", capacity=0.25), random_ids(1, 24)
    before = model(ids_BT).logits
    with model.routing.as_decoded():
        assert not torch.equal(model(ids_BT).logits, before)
    with pytest.raises(ZeroDivisionError), model.routing.as_decoded():
        raise ZeroDivisionError
    assert torch.equal(model(ids_BT).logits, before)


@torch.no_grad()
def test_top_k_as_decoded_never_changes_its_prefix(make_converted):
    model, ids_BT = make_converted(operator="topk", capacity=0.25), random_ids(1, 24)
    with model.routing.as_decoded():
        whole, prefix = model(ids_BT).logits, model(ids_BT[:, :9]).logits
    torch.testing.assert_close(whole[:, :9], prefix, atol=FP32_TOLERANCE, rtol=0)
