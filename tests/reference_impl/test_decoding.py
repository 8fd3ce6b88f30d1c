"""Continuations: the same tokens as `generate`, and counts that can be checked."""

import pytest
import torch
from transformers import DynamicCache

from reference_impl.decoding import Continuation, Sampling, dense_kv_cache_bytes
from reference_impl.errors import CommandError
from reference_impl.kv_cache import kv_cache_bytes
from tests.reference_impl.conftest import FAMILY_SETTINGS, dense_model, random_ids

PROMPT = random_ids(1, 19)


def generated(model, num_new: int) -> list[int]:
    return model.generate(PROMPT, max_new_tokens=num_new, do_sample=False)[0, PROMPT.shape[1] :].tolist()


@pytest.mark.parametrize("operator", ["threshold", "topk", "masked", "kv_only"])
def test_greedy_tokens_are_those_of_generate(make_converted, operator):
    model = make_converted(operator=operator)
    assert list(Continuation(model, PROMPT[0], 12)) == generated(model, 12)


def test_a_dense_model_continues_too_and_stores_every_token():
    model = dense_model()
    continuation = Continuation(model, PROMPT[0], 12)
    assert list(continuation) == generated(model, 12)
    stats = continuation.stats()
    assert (stats.prefill_keep_ratio, stats.decode_keep_ratio) == (None, None)
    assert stats.kv_cache_bytes == stats.dense_kv_cache_bytes == 4 * 30 * 2 * 2 * 16 * 4  # layers, tokens, k and v, ...


def test_kept_shares_and_cache_bytes_are_those_of_the_decisions(make_converted):
    model = make_converted()
    model.routing.history = []
    continuation = Continuation(model, PROMPT[0], 12)
    assert len(list(continuation)) == 12
    stats = continuation.stats()
    prefill = [decision.keep_BT for _, decision in model.routing.history[:2]]
    decode = [decision.keep_BT for _, decision in model.routing.history[2:]]
    assert stats.prefill_keep_ratio == pytest.approx(torch.cat(prefill).float().mean().item())
    assert stats.decode_keep_ratio == pytest.approx(torch.cat(decode).float().mean().item())
    assert 0 < stats.decode_keep_ratio < 1
    num_kept = sum(int(keep_BT.sum()) for keep_BT in prefill + decode)
    assert stats.kv_cache_bytes == (2 * 30 + num_kept) * 2 * 2 * 16 * 4
    assert stats.dense_kv_cache_bytes == 4 * 30 * 2 * 2 * 16 * 4
    assert (stats.num_prompt_tokens, stats.num_new_tokens) == (19, 12)
    assert stats.prefill_tokens_per_s == 19 / stats.prefill_s
    assert stats.decode_tokens_per_s == 11 / stats.decode_s


@pytest.mark.parametrize("family", FAMILY_SETTINGS)
@torch.no_grad()
def test_dense_bytes_are_those_of_the_cache_of_a_dense_model(family):
    model = dense_model(family)
    cache = DynamicCache(config=model.config)
    model(PROMPT, past_key_values=cache)
    assert dense_kv_cache_bytes(model, PROMPT.shape[1]) == kv_cache_bytes(cache)[0]


def test_one_token_is_no_decode(make_converted):
    continuation = Continuation(make_converted(), PROMPT[0], 1)
    assert len(list(continuation)) == 1
    stats = continuation.stats()
    assert (stats.decode_tokens_per_s, stats.decode_keep_ratio) == (None, None)


@pytest.mark.parametrize("as_list", [False, True])
def test_the_models_end_of_sequence_ends_it(make_converted, as_list):
    model = make_converted()
    tokens = generated(model, 12)
    end = next(token for index, token in enumerate(tokens) if index and token not in tokens[:index])
    model.generation_config.eos_token_id = [end, 210] if as_list else end
    assert list(Continuation(model, PROMPT[0], 12)) == tokens[: tokens.index(end) + 1]


def test_draws_follow_the_seed_and_leave_the_callers_alone(make_converted):
    model = make_converted()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    draws = [list(Continuation(model, PROMPT[0], 12, Sampling(temperature=1.0, seed=seed))) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)
    assert draws[0] == draws[1] != draws[2]
    assert draws[0] != generated(model, 12)


def test_little_mass_or_little_heat_is_greedy(make_converted):
    model = make_converted()
    greedy = generated(model, 12)
    for sampling in (Sampling(temperature=1.0, top_p=1e-6), Sampling(temperature=1e-4)):
        assert list(Continuation(model, PROMPT[0], 12, sampling)) == greedy


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "--temperature: got -1.0"),
        ({"temperature": float("nan")}, "--temperature: got nan"),
        ({"temperature": 1.0, "top_p": 0.0}, r"--top-p: got 0.0; expected a number in \(0, 1\]"),
        ({"top_p": 0.9}, "--top-p: got 0.9 with greedy decoding"),
    ],
)
def test_sampling_refuses_impossible_values(settings, message):
    with pytest.raises(CommandError, match=message):
        Sampling(**settings)
