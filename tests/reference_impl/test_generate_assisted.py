"""Assisted decoding: candidates from elsewhere, checked against a cache that takes them back.

Reference of each test: the same call with `use_cache=False` (a full forward per token, same seed), the naive oracle on the finished
text, or the stock dense model. None of them reads this project's cache.
"""

import copy

import pytest
import torch
from transformers import (
    DynamicCache,
)

from reference_impl.kv_cache import ModCache
from tests.reference_impl.conftest import dense_model
from tests.reference_impl.generation import (
    CASES,
    FAMILIES,
    GREEDY,
    OPERATORS,
    PROMPT_LENGTH,
    SAMPLED,
    assert_is_the_oracles,
    assert_same,
    extended,
    run,
    self_repeating,
    unpadded,
)


@pytest.fixture
def crops(monkeypatch):
    """Every number of tokens that caches of this project were asked to forget."""
    seen = []
    original = ModCache.crop

    def crop(self, tokens_to_remove):
        seen.append(-tokens_to_remove)
        original(self, tokens_to_remove)

    monkeypatch.setattr(ModCache, "crop", crop)
    return seen


def assistant_options(name, family):
    """What tells `generate` where to draw candidates from."""
    if name == "dense":
        return {"assistant_model": dense_model(family)}
    return {"prompt": {"prompt_lookup_num_tokens": 4}, "early-exit": {"assistant_early_exit": 2}}[name]


@pytest.mark.parametrize("assistant", ["dense", "prompt", "early-exit"])
@pytest.mark.parametrize(("family", "operator"), CASES)
def test_assisted_greedy_decoding_gives_the_oracles_tokens(make_converted, crops, family, operator, assistant):
    model = make_converted(family, operator=operator)
    ids, mask = self_repeating()
    output = run(model, ids, mask, **GREEDY, **assistant_options(assistant, family))
    assert crops, "candidates are checked against a cache of this project"
    assert_is_the_oracles(model, output, mask)
    assert torch.equal(output.sequences[0, PROMPT_LENGTH:], torch.cat(output.logits).argmax(-1))


@pytest.mark.parametrize("operator", OPERATORS)
def test_rejected_candidates_leave_nothing_in_the_cache(make_converted, crops, operator):
    model = make_converted(operator=operator)
    wrong = dense_model(num_hidden_layers=2)
    wrong.generation_config.assistant_confidence_threshold = 0.0
    ids, mask = unpadded()
    output = run(model, ids, mask, **GREEDY, assistant_model=wrong)
    assert max(crops) > 2, "the test needs rejected candidates"
    assert_is_the_oracles(model, output, mask)
    cache = output.past_key_values
    assert cache.get_seq_length() == output.sequences.shape[1] - 1
    fresh = model(output.sequences[:, :-1]).past_key_values
    if operator != "masked":
        assert cache.layers[1].lengths() == fresh.layers[1].lengths()
    ids, mask = extended(output, mask, 7, seed=1)
    following = run(model, ids, mask, **GREEDY, past_key_values=cache)
    assert_same(following, run(model, ids, mask, **GREEDY, use_cache=False))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_dense_model_with_a_converted_assistant_gives_its_own_tokens(make_converted, family):
    model, assistant = dense_model(family), make_converted(family)
    ids, mask = unpadded()
    assert_same(run(model, ids, mask, **GREEDY, assistant_model=assistant), run(model, ids, mask, **GREEDY))


@pytest.mark.parametrize(("family", "operator"), CASES)
def test_a_model_accepts_every_candidate_of_its_twin(make_converted, family, operator):
    model = make_converted(family, operator=operator)
    twin = copy.deepcopy(model)
    twin.generation_config.assistant_confidence_threshold = 0.0
    twin.generation_config.num_assistant_tokens = 4
    twin.generation_config.num_assistant_tokens_schedule = "constant"
    ids, mask = unpadded()
    forwards = []
    hook = model.register_forward_pre_hook(lambda *call: forwards.append(call))
    output = run(model, ids, mask, **GREEDY, assistant_model=twin)
    hook.remove()
    assert len(forwards) == 3, "each forward takes four candidates and adds a token"
    assert_same(output, run(model, ids, mask, **GREEDY, use_cache=False))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("assistant", ["dense", "prompt"])
def test_assisted_sampling_draws_from_the_oracles_logits(make_converted, family, assistant):
    model = make_converted(family)
    ids, mask = self_repeating()
    output = run(model, ids, mask, **SAMPLED, **assistant_options(assistant, family))
    assert_is_the_oracles(model, output, mask)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("make_cache", [DynamicCache, lambda config: DynamicCache()], ids=["for-the-config", "bare"])
def test_assisted_decoding_works_on_a_stock_cache_of_the_users(make_converted, family, make_cache):
    model = make_converted(family)
    ids, mask = unpadded()
    cache = make_cache(config=model.config)
    output = run(model, ids, mask, **GREEDY, assistant_model=dense_model(family), past_key_values=cache)
    assert_is_the_oracles(model, output, mask)


def test_assisted_decoding_takes_batches_and_full_forwards_no_more_than_the_stock_model_does(make_converted):
    for model in (dense_model(), make_converted()):
        with pytest.raises(ValueError, match="batch_size = 1"):
            run(model, *unpadded(rows=2), **GREEDY, prompt_lookup_num_tokens=3)
        with pytest.raises(ValueError, match="use_cache=True"):
            run(model, *unpadded(), **GREEDY, prompt_lookup_num_tokens=3, use_cache=False)
