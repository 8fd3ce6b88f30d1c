"""Prompts that reach `generate` in pieces: in chunks, in several turns on one cache, as embeddings.

Reference of each test: the same call with `use_cache=False` (a full forward per token, same seed), the naive oracle on the finished
text, or the stock dense model. None of them reads this project's cache.
"""

import pytest
import torch

from tests.reference_impl.conftest import FP32_TOLERANCE, dense_model
from tests.reference_impl.generation import (
    CACHE_CASES,
    CASES,
    FAMILIES,
    GREEDY,
    PROMPT_LENGTH,
    SAMPLED,
    assert_same,
    extended,
    left_padded,
    refusal_of,
    run,
)


@pytest.mark.parametrize("chunk", [5, 9])
@pytest.mark.parametrize(("family", "operator"), CASES)
def test_a_prefill_in_chunks_equals_one_in_a_piece(make_converted, family, operator, chunk):
    model = make_converted(family, operator=operator)
    ids, mask = left_padded()
    output = run(model, ids, mask, **GREEDY, prefill_chunk_size=chunk, max_new_tokens=4)
    assert_same(output, run(model, ids, mask, **GREEDY, max_new_tokens=4, use_cache=False))


@pytest.mark.parametrize("chunk", [1, PROMPT_LENGTH, 64])
def test_chunks_of_a_token_and_of_more_than_the_prompt_are_exact(make_converted, chunk):
    model = make_converted()
    ids, mask = left_padded()
    output = run(model, ids, mask, **GREEDY, prefill_chunk_size=chunk)
    assert_same(output, run(model, ids, mask, **GREEDY, use_cache=False))


@pytest.mark.parametrize(("family", "operator"), CASES)
def test_three_turns_on_one_cache_equal_fresh_runs_on_the_whole_text(make_converted, family, operator):
    model = make_converted(family, operator=operator)
    ids, mask = left_padded()
    cache = None
    for turn, options in enumerate((GREEDY, GREEDY, SAMPLED)):
        output = run(model, ids, mask, **options, past_key_values=cache, max_new_tokens=5)
        assert_same(output, run(model, ids, mask, **options, max_new_tokens=5, use_cache=False))
        cache = output.past_key_values
        assert cache.get_seq_length() == output.sequences.shape[1] - 1
        ids, mask = extended(output, mask, 7, seed=turn)


@pytest.mark.parametrize(("family", "operator"), CACHE_CASES)
def test_a_later_turn_in_chunks_is_exact_or_refused_where_transformers_gets_it_wrong(make_converted, family, operator):
    def second_turn(model, options):
        first = run(model, *left_padded(), **GREEDY, max_new_tokens=5)
        ids, mask = extended(first, left_padded()[1], 7, seed=1)
        return run(model, ids, mask, **GREEDY, **options(first.past_key_values))

    def in_chunks(cache):
        return {"past_key_values": cache, "prefill_chunk_size": 3}

    def as_a_whole(cache):
        return {"use_cache": False}

    model, dense = make_converted(family, operator=operator), dense_model("llama")
    if torch.equal(second_turn(dense, in_chunks).sequences, second_turn(dense, as_a_whole).sequences):
        assert_same(second_turn(model, in_chunks), second_turn(model, as_a_whole))
    else:  # transformers 5.17 feeds the whole text again
        refusal_of(lambda: second_turn(model, in_chunks), "prefill_chunk_size")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_turn_may_hand_over_only_its_new_tokens(make_converted, family):
    model = make_converted(family)
    ids, mask = left_padded()
    first = run(model, ids, mask, **GREEDY)
    ids, mask = extended(first, mask, 7, seed=1)
    num_seen = first.past_key_values.get_seq_length()
    output = run(model, ids[:, num_seen:], mask, **GREEDY, past_key_values=first.past_key_values)
    expected = run(model, ids, mask, **GREEDY, use_cache=False)
    assert torch.equal(output.sequences, expected.sequences[:, num_seen:])


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_instead_of_tokens_give_the_same_continuation(make_converted, family):
    model = make_converted(family)
    ids, mask = left_padded()
    expected = run(model, ids, mask, **GREEDY)
    embeds = model.get_input_embeddings()(ids)
    output = run(model, None, mask, **GREEDY, inputs_embeds=embeds)
    assert torch.equal(output.sequences, expected.sequences[:, PROMPT_LENGTH:])
    torch.testing.assert_close(torch.stack(output.logits), torch.stack(expected.logits), atol=FP32_TOLERANCE, rtol=0)
    assert torch.equal(run(model, ids, mask, **GREEDY, inputs_embeds=embeds).sequences, expected.sequences)
