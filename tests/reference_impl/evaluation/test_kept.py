"""The KV cache that follows from keep ratios, against the bytes of real caches."""

import pytest
import torch

from reference_impl import kv_cache_bytes
from reference_impl.evaluation import kv_cache_size
from reference_impl.evaluation.kept import KeptTokens
from tests.reference_impl.conftest import dense_model, random_ids


@pytest.mark.parametrize("operator", ["threshold", "topk", "kv_only", "masked"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
@torch.no_grad()
def test_the_size_is_what_a_prefill_stores(make_converted, family, operator):
    model = make_converted(family, operator=operator)
    output, kept = model(random_ids(1, 40), use_cache=True), KeptTokens()
    kept.add(model)
    found = kv_cache_size(model, kept.keep_ratio(), 40)
    occupied, _ = kv_cache_bytes(output.past_key_values)
    assert found.kv_cache_bytes_per_token * 40 == pytest.approx(occupied)
    dense = dense_model(family)(random_ids(1, 40), use_cache=True).past_key_values
    assert found.dense_kv_cache_bytes_per_token * 40 == kv_cache_bytes(dense)[0]
    assert (found.kv_cache_reduction_ratio > 1) == (operator != "masked")


@torch.no_grad()
def test_a_window_bounds_what_a_layer_stores():
    model = dense_model("mistral-window")
    occupied, _ = kv_cache_bytes(model(random_ids(1, 40), use_cache=True).past_key_values)
    found = kv_cache_size(model, {}, 40)
    assert found.kv_cache_bytes_per_token == found.dense_kv_cache_bytes_per_token
    assert found.kv_cache_bytes_per_token * 40 == pytest.approx(occupied)
    assert found.kv_cache_reduction_ratio == 1


def test_nothing_stored_has_no_reduction(make_converted):
    model = make_converted(routed_layers=(0, 1, 2, 3))
    found = kv_cache_size(model, dict.fromkeys(range(4), 0.0), 40)
    assert (found.kv_cache_bytes_per_token, found.kv_cache_reduction_ratio) == (0, None)


@torch.no_grad()
def test_forwards_add_up(make_converted):
    model, kept = make_converted(), KeptTokens()
    counts = dict.fromkeys((1, 3), 0)
    for length in (5, 12):
        model(random_ids(2, length))
        kept.add(model)
        counts = {layer: counts[layer] + int(model.routing.last[layer].keep_BT.sum()) for layer in counts}
    assert kept.keep_ratio() == {layer: count / 34 for layer, count in counts.items()}
    assert kept.mean_keep_ratio() == pytest.approx(sum(counts.values()) / 68)
