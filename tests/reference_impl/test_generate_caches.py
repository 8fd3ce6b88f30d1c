"""Caches handed to `generate`: continued, cropped, copied and multiplied exactly, or refused in one clear line.

Reference of each test: the same call with `use_cache=False` (a full forward per token, same seed), the naive oracle on the finished
text, or the stock dense model. None of them reads this project's cache.
"""

import copy

import pytest
import torch
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    StaticCache,
)
from transformers.cache_utils import DynamicLayer
from transformers.generation.configuration_utils import ALL_CACHE_IMPLEMENTATIONS

from reference_impl import UnsupportedModelError
from tests.reference_impl.conftest import FAMILY_SETTINGS, dense_model, random_ids
from tests.reference_impl.generation import (
    BEAMS,
    CACHE_CASES,
    GREEDY,
    NEW_TOKENS,
    OPERATORS,
    PROMPT_LENGTH,
    assert_same,
    extended,
    left_padded,
    prefilled,
    refusal_of,
    run,
    unpadded,
)

# caches of the caller's


@pytest.mark.parametrize(("family", "operator"), CACHE_CASES)
def test_a_new_cache_of_any_dynamic_kind_gives_the_same_tokens(make_converted, family, operator):
    model = make_converted(family, operator=operator)
    ids, mask = left_padded()
    expected = run(model, ids, mask, **GREEDY, use_cache=False)
    for cache in (DynamicCache(), DynamicCache(config=model.config), model.new_cache()):
        output = run(model, ids, mask, **GREEDY, past_key_values=cache)
        assert_same(output, expected)
        assert output.past_key_values is cache
        assert cache.get_seq_length() == PROMPT_LENGTH + NEW_TOKENS - 1


@pytest.mark.parametrize(("family", "operator"), CACHE_CASES)
def test_a_cropped_cache_continues_as_if_the_tokens_had_not_been(make_converted, family, operator):
    model = make_converted(family, operator=operator)
    ids, mask = left_padded()
    cache = model.new_cache()
    cache.activate_past_recording()
    output = run(model, ids, mask, **GREEDY, past_key_values=cache)
    cache.crop(-6)
    assert cache.get_seq_length() == PROMPT_LENGTH + NEW_TOKENS - 7
    output.sequences = output.sequences[:, :-6]
    ids, mask = extended(output, mask, 5, seed=1)
    following = run(model, ids, mask, **GREEDY, past_key_values=cache)
    assert_same(following, run(model, ids, mask, **GREEDY, use_cache=False))


@pytest.mark.parametrize(("family", "operator"), CACHE_CASES)
def test_a_crop_happens_in_all_layers_or_is_refused_in_all(make_converted, family, operator):
    model = make_converted(family, operator=operator)
    ids, mask = left_padded()
    output = run(model, ids, mask, **GREEDY)
    cache, has_window = output.past_key_values, bool(FAMILY_SETTINGS[family].get("sliding_window"))
    if has_window:  # without recording, what the window would reach again is gone
        refusal_of(lambda: cache.crop(-6), "activate_past_recording")
    else:
        cache.crop(-6)
        output.sequences = output.sequences[:, :-6]
    assert {layer.get_seq_length() for layer in cache.layers} == {output.sequences.shape[1] - 1}
    ids, mask = extended(output, mask, 5, seed=1)
    following = run(model, ids, mask, **GREEDY, past_key_values=cache)
    assert_same(following, run(model, ids, mask, **GREEDY, use_cache=False))


@pytest.mark.parametrize(("family", "operator"), CACHE_CASES)
def test_a_reset_cache_is_a_new_one(make_converted, family, operator):
    model = make_converted(family, operator=operator)
    cache = run(model, *left_padded(), **GREEDY).past_key_values
    cache.reset()
    assert all(layer.get_seq_length() == 0 for layer in cache.layers)
    ids, mask = left_padded(rows=2, seed=8)  # other rows than before
    output = run(model, ids, mask, **GREEDY, past_key_values=cache)
    assert_same(output, run(model, ids, mask, **GREEDY, use_cache=False))


@pytest.mark.parametrize(("family", "operator"), CACHE_CASES)
def test_rows_can_be_taken_out_of_a_cache_and_multiplied(make_converted, family, operator):
    model = make_converted(family, operator=operator)
    ids, mask = left_padded()
    output = run(model, ids, mask, **GREEDY)
    output.past_key_values.batch_select_indices(torch.tensor([2, 0]))
    output.past_key_values.batch_repeat_interleave(2)
    rows = torch.tensor([2, 2, 0, 0])
    output.sequences = output.sequences[rows]
    ids, mask = extended(output, mask[rows], 7, seed=1)  # the copies go on differently
    following = run(model, ids, mask, **GREEDY, past_key_values=output.past_key_values)
    assert_same(following, run(model, ids, mask, **GREEDY, use_cache=False))


def test_a_multiplied_cache_is_continued_by_beams(make_converted):
    model = make_converted()
    ids, mask = left_padded(rows=2)
    cache = prefilled(model, ids[:, :-1], mask[:, :-1])
    cache.batch_repeat_interleave(3)
    output = run(model, ids, mask, **BEAMS, past_key_values=cache)
    assert_same(output, run(model, ids, mask, **BEAMS, use_cache=False))


@pytest.mark.parametrize(("family", "operator"), CACHE_CASES)
def test_copies_of_a_prompts_cache_serve_many_continuations(make_converted, family, operator):
    model = make_converted(family, operator=operator)
    prompt, mask = left_padded()
    cache = prefilled(model, prompt, mask)
    for seed in (1, 2):
        ids = torch.cat([prompt, random_ids(3, 4, seed)], dim=1)
        whole_mask = torch.cat([mask, mask.new_ones(3, 4)], dim=1)
        output = run(model, ids, whole_mask, **GREEDY, past_key_values=copy.deepcopy(cache))
        assert_same(output, run(model, ids, whole_mask, **GREEDY, use_cache=False))
    assert cache.get_seq_length() == PROMPT_LENGTH


def test_a_cache_of_other_rows_is_refused(make_converted):
    model = make_converted()
    ids, mask = unpadded(rows=2)
    cache = model(ids[:, :-1]).past_key_values
    with pytest.raises(UnsupportedModelError, match="kv cache holds 2 rows; got a batch of 6"):
        run(model, ids, mask, **BEAMS, past_key_values=cache)


# caches that store one entry per token


WORKING_IMPLEMENTATIONS = ("dynamic", "hybrid")  # transformers itself takes hybrid for an old name of its default
REFUSED_IMPLEMENTATIONS = [*sorted({*ALL_CACHE_IMPLEMENTATIONS} - {*WORKING_IMPLEMENTATIONS}), "paged"]


@pytest.mark.parametrize("implementation", WORKING_IMPLEMENTATIONS)
def test_names_of_the_dynamic_cache_are_exact(make_converted, implementation):
    model = make_converted()
    ids, mask = left_padded()
    output = run(model, ids, mask, **GREEDY, cache_implementation=implementation)
    assert_same(output, run(model, ids, mask, **GREEDY, use_cache=False))


@pytest.mark.parametrize("prompts", [unpadded, left_padded])
@pytest.mark.parametrize("implementation", REFUSED_IMPLEMENTATIONS)
def test_other_cache_implementations_are_refused(make_converted, implementation, prompts):
    model = make_converted()
    ids, mask = prompts()
    refusal_of(lambda: run(model, ids, mask, **GREEDY, cache_implementation=implementation), "cache_implementation")


def test_a_cache_implementation_in_the_models_own_generation_config_is_refused(make_converted):
    model = make_converted()
    model.generation_config.cache_implementation = "static"
    refusal_of(lambda: run(model, *unpadded(), **GREEDY), "cache_implementation")


def test_continuous_batching_is_refused(make_converted):
    model = make_converted()
    refusal_of(lambda: model.generate_batch([[5, 6, 7]], max_new_tokens=2), "continuous batching")


class RoundedLayer(DynamicLayer):
    """Stands for the quantised layers, whose packages need not be there."""

    def update(self, key_states, value_states, *args, **kwargs):
        return super().update(key_states.half().float(), value_states.half().float(), *args, **kwargs)


def static_cache(model):
    return StaticCache(config=model.config, max_cache_len=64)


def offloaded_cache(model):
    cache = DynamicCache(config=model.config)
    cache.offloading = True  # its constructor needs a GPU
    return cache


def quantised_cache(model):
    cache = DynamicCache(config=model.config)
    cache.layers = [RoundedLayer() for _ in cache.layers]
    return cache


def encoder_decoder_cache(model):
    return EncoderDecoderCache(DynamicCache(config=model.config), DynamicCache(config=model.config))


def used_dense_cache(model):
    return dense_model()(random_ids(3, 5)).past_key_values


@pytest.mark.parametrize("prompts", [unpadded, left_padded])
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(
    "make_cache", [static_cache, offloaded_cache, quantised_cache, encoder_decoder_cache, used_dense_cache]
)
def test_caches_that_would_store_skipped_tokens_are_refused(make_converted, make_cache, operator, prompts):
    model = make_converted(operator=operator)
    ids, mask = prompts(rows=3)
    refusal_of(lambda: run(model, ids, mask, **GREEDY, past_key_values=make_cache(model)), "past_key_values")
    refusal_of(lambda: model(ids, past_key_values=make_cache(model)), "past_key_values")


def test_a_dense_model_refuses_the_cache_of_a_converted_one(make_converted):
    cache = make_converted()(random_ids(1, 9)).past_key_values
    refusal_of(lambda: dense_model()(random_ids(1, 1), past_key_values=cache), "past_key_values")


@pytest.mark.parametrize("is_used", [True, False])
def test_a_cache_with_other_routed_layers_is_refused(make_converted, is_used):
    model, other = make_converted(routed_layers=(1,)), make_converted(routed_layers=(1, 3))
    cache = other(random_ids(1, 9)).past_key_values if is_used else other.new_cache()
    refusal_of(lambda: model(random_ids(1, 1), past_key_values=cache), "past_key_values")


@pytest.mark.parametrize(
    "operators", [("threshold", "masked"), ("masked", "threshold"), ("masked", "kv_only")], ids=str
)
def test_a_used_cache_of_another_operator_is_refused(make_converted, operators):
    filler, reader = (make_converted(operator=operator) for operator in operators)
    cache = filler(random_ids(1, 9)).past_key_values
    refusal_of(lambda: reader(random_ids(1, 1), past_key_values=cache), "past_key_values")
