"""Everything `generate` offers: exact against full forwards and the naive oracle, or refused in one clear line.

Reference of each test: the same call with `use_cache=False` (a full forward per token, same seed), the naive oracle on the finished
text, or the stock dense model. None of them reads this project's cache.
"""

import pytest
import torch
from transformers import (
    CompileConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation import BaseStreamer

from reference_impl.naive import naive_forward
from tests.reference_impl.conftest import FP32_TOLERANCE, dense_model
from tests.reference_impl.generation import (
    BEAMS,
    CACHE_CASES,
    CASES,
    FAMILIES,
    GREEDY,
    NEW_TOKENS,
    OPERATORS,
    PADDING,
    PROMPT_LENGTH,
    SAMPLED,
    assert_is_the_oracles,
    assert_same,
    left_padded,
    refusal_of,
    run,
    unpadded,
)


class Collector(BaseStreamer):
    """Keeps what it is given."""

    def __init__(self):
        self.pieces, self.has_ended = [], False

    def put(self, value):
        self.pieces.append(value)

    def end(self):
        self.has_ended = True


# greedy decoding and padding


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_of_a_padded_batch_are_the_oracles(make_converted, family, operator):
    model = make_converted(family, operator=operator)
    ids, mask = left_padded()
    output = run(model, ids, mask, **GREEDY)
    assert_is_the_oracles(model, output, mask)
    assert torch.equal(output.sequences[:, PROMPT_LENGTH:], torch.stack(output.logits, dim=1).argmax(-1))
    assert output.past_key_values.get_seq_length() == PROMPT_LENGTH + NEW_TOKENS - 1


@pytest.mark.parametrize("operator", [*OPERATORS, "topk"])
def test_each_row_of_a_padded_batch_equals_its_own_unpadded_run(make_converted, operator):
    model = make_converted(operator=operator)
    ids, mask = left_padded()
    together = run(model, ids, mask, **GREEDY)
    for row, padding in enumerate(PADDING):
        alone = run(model, ids[row : row + 1, padding:], mask[row : row + 1, padding:], **GREEDY)
        assert torch.equal(together.sequences[row, padding:], alone.sequences[0])
        logits_TV = torch.stack(together.logits, dim=1)[row]
        torch.testing.assert_close(logits_TV, torch.cat(alone.logits), atol=FP32_TOLERANCE, rtol=0)


def test_a_missing_mask_is_read_off_the_padding_tokens(make_converted):
    model = make_converted()
    ids, mask = left_padded()
    assert_same(run(model, ids, None, **GREEDY), run(model, ids, mask, **GREEDY))


@pytest.mark.parametrize(("family", "operator"), CACHE_CASES)
def test_a_prompt_of_one_token_is_continued_as_the_oracle_does(make_converted, family, operator):
    model = make_converted(family, operator=operator)
    ids, mask = unpadded(rows=2, length=1)
    assert_is_the_oracles(model, run(model, ids, mask, **GREEDY), mask)


@pytest.mark.parametrize("family", FAMILIES)
def test_unit_gates_with_p_zero_generate_what_the_dense_model_does(make_converted, family):
    ids, mask = left_padded(rows=2)
    model, options = make_converted(family, threshold_p=0.0, gate="unit"), {**BEAMS, "num_return_sequences": 2}
    assert_same(run(model, ids, mask, **options), run(dense_model(family), ids, mask, **options))


def test_rows_that_end_early_leave_the_others_exact(make_converted):
    model = make_converted()
    ids, mask = left_padded()
    free = run(model, ids, mask, **GREEDY).sequences[:, PROMPT_LENGTH:]
    ending = {**GREEDY, "eos_token_id": [free[0, 2].item(), free[1, 6].item()]}
    output = run(model, ids, mask, **ending)
    num_padded = (output.sequences[:, PROMPT_LENGTH:] == 0).sum(dim=1)
    assert num_padded[0] > num_padded[2], "the test needs rows that end at different times"
    assert torch.equal(output.sequences, run(model, ids, mask, **ending, use_cache=False).sequences)


def test_generating_nothing_is_the_error_of_the_stock_model(make_converted):
    ids, mask = unpadded()
    messages = []
    for model in (dense_model(), make_converted()):
        with pytest.raises(ValueError, match="max_new_tokens") as refusal:
            model.generate(ids, attention_mask=mask, max_new_tokens=0)
        messages.append(str(refusal.value))
    assert messages[0] == messages[1]


# sampling and beams


@pytest.mark.parametrize("family", FAMILIES)
def test_sampling_draws_the_tokens_of_full_forwards(make_converted, family):
    model = make_converted(family)
    ids, mask = left_padded()
    options = {**SAMPLED, "num_return_sequences": 2}
    output = run(model, ids, mask, **options)
    assert_same(output, run(model, ids, mask, **options, use_cache=False))
    assert_is_the_oracles(model, output, mask.repeat_interleave(2, dim=0))
    assert not torch.equal(output.sequences[::2], output.sequences[1::2]), "two draws per prompt should differ"


@pytest.mark.parametrize(
    "options",
    [{"temperature": 1.5}, {"top_k": 5}, {"top_p": 0.5}, {"min_p": 0.1}, {"typical_p": 0.7}, {"epsilon_cutoff": 0.01}],
    ids=lambda options: next(iter(options)),
)
def test_every_way_of_sampling_draws_the_tokens_of_full_forwards(make_converted, options):
    model = make_converted()
    ids, mask = left_padded()
    options = {"do_sample": True, **options}
    assert_same(run(model, ids, mask, **options), run(model, ids, mask, **options, use_cache=False))


@pytest.mark.parametrize(("family", "operator"), CASES)
def test_beam_search_finds_the_beams_of_full_forwards(make_converted, family, operator):
    model = make_converted(family, operator=operator)
    ids, mask = left_padded(rows=2)
    options = {**BEAMS, "num_return_sequences": 2}
    output = run(model, ids, mask, **options)
    beam_B1T = output.beam_indices[:, None]
    assert (beam_B1T.diff(dim=-1) != 0).any(), "the test needs beams that change places"
    assert_same(output, run(model, ids, mask, **options, use_cache=False))


@pytest.mark.parametrize(
    "options",
    [
        {**SAMPLED, "num_beams": 3, "num_return_sequences": 3},
        {**BEAMS, "length_penalty": -1.0, "early_stopping": "never"},
        {**BEAMS, "early_stopping": True, "no_repeat_ngram_size": 2},
        {**BEAMS, "prefill_chunk_size": 5},
    ],
    ids=["sampled", "length-penalty", "early-stopping", "chunked-prefill"],
)
def test_every_way_of_beam_search_finds_the_beams_of_full_forwards(make_converted, options):
    model = make_converted()
    ids, mask = left_padded(rows=2)
    ends = run(model, ids, mask, **BEAMS).sequences[:, PROMPT_LENGTH + 4].tolist()
    options = {**options, "eos_token_id": ends}
    expected = {key: value for key, value in options.items() if key != "prefill_chunk_size"}
    assert_same(run(model, ids, mask, **options), run(model, ids, mask, **expected, use_cache=False))


MOVED = {
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "group-beams": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    "constrained-beams": {"num_beams": 3, "force_words_ids": [[5]]},
    "dola": {"dola_layers": "low"},
}


@pytest.mark.parametrize("options", MOVED.values(), ids=MOVED)
def test_strategies_that_left_transformers_give_the_error_of_the_stock_model(make_converted, options):
    ids, mask = unpadded()
    messages = []
    for model in (dense_model(), make_converted()):
        with pytest.raises(ValueError, match="trust_remote_code") as refusal:
            model.generate(ids, attention_mask=mask, max_new_tokens=2, do_sample=False, **options)
        messages.append(str(refusal.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_decoding_loop_of_the_users_own_gets_exact_logits(make_converted, operator):
    def rank_continuations(
        model, input_ids, generation_config, **model_kwargs
    ):  # the cache calls of contrastive search
        outputs = model._prefill(input_ids, generation_config, model_kwargs)
        cache, mask = outputs.past_key_values, model_kwargs["attention_mask"]
        for _ in range(NEW_TOKENS):
            top_BK = outputs.logits[:, -1].topk(3).indices
            cache.batch_repeat_interleave(3)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            outputs = model(
                top_BK.reshape(-1, 1),
                attention_mask=mask.repeat_interleave(3, dim=0),
                position_ids=mask.sum(dim=1, keepdim=True).repeat_interleave(3, dim=0) - 1,
                past_key_values=cache,
            )
            chosen_B = outputs.logits[:, -1].logsumexp(-1).view(len(mask), 3).argmax(-1)
            flat_B = torch.arange(len(mask)) * 3 + chosen_B
            cache.batch_select_indices(flat_B)
            outputs.logits = outputs.logits[flat_B]
            input_ids = torch.cat([input_ids, top_BK.gather(1, chosen_B[:, None])], dim=1)
        return input_ids, outputs.logits[:, -1]

    model = make_converted(operator=operator)
    ids, mask = left_padded()
    sequences, logits_BV = model.generate(
        ids, attention_mask=mask, custom_generate=rank_continuations, max_new_tokens=NEW_TOKENS
    )
    for row, padding in enumerate(PADDING):
        expected_TV, _ = naive_forward(model, sequences[row, padding:])
        torch.testing.assert_close(logits_BV[row], expected_TV[-1], atol=FP32_TOLERANCE, rtol=0)


# what acts on scores or watches tokens


class FavourNextToken(LogitsProcessor):
    """Depends on the text, so that it sees every step."""

    def __call__(self, input_ids, scores):
        following = (input_ids[:, -1:] + 1) % scores.shape[-1]
        return scores.scatter_add(1, following, torch.full_like(scores[:, :1], 3.0))


PROCESSORS = {
    "repetition-penalty": {"repetition_penalty": 1.5},
    "no-repeat-ngram": {"no_repeat_ngram_size": 2},
    "min-length": {"min_new_tokens": 8},
    "bad-words": {"bad_words_ids": [[5], [7, 9]]},
    "suppressed": {"suppress_tokens": list(range(100))},
    "sequence-bias": {"sequence_bias": [[[4], 2.5], [[4, 6], 4.0]]},
    "forced-end": {"forced_eos_token_id": 3},
    "decaying-length": {"exponential_decay_length_penalty": (3, 1.5)},
    "allowed-tokens": {"prefix_allowed_tokens_fn": lambda row, ids: list(range(20 * row, 20 * row + 40))},
    "guidance": {"guidance_scale": 1.7},
    "own": {"logits_processor": LogitsProcessorList([FavourNextToken()])},
    "all-in-a-row": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "renormalize_logits": True, **SAMPLED},
}


@pytest.mark.parametrize("options", PROCESSORS.values(), ids=PROCESSORS)
def test_logits_processors_see_the_scores_of_full_forwards(make_converted, options):
    model = make_converted()
    ids, mask = left_padded()
    ends = run(model, ids, mask, **GREEDY).sequences[:, PROMPT_LENGTH + 9].tolist()
    options = {**GREEDY, "eos_token_id": ends, **options}
    output = run(model, ids, mask, **options)
    expected = run(model, ids, mask, **options, use_cache=False)
    assert torch.equal(output.sequences, expected.sequences)
    for actual_BV, expected_BV in zip(output.scores, expected.scores, strict=True):
        torch.testing.assert_close(actual_BV, expected_BV, atol=FP32_TOLERANCE, rtol=0)


class StopAt(StoppingCriteria):
    """A row ends at a token of `ends`."""

    def __init__(self, ends):
        self.ends = ends

    def __call__(self, input_ids, scores, **kwargs):
        return torch.isin(input_ids[:, -1], self.ends)


def test_stopping_criteria_stop_where_full_forwards_do(make_converted):
    model = make_converted()
    ids, mask = unpadded()
    ends = run(model, ids, mask, **GREEDY).sequences[0, PROMPT_LENGTH + 5 : PROMPT_LENGTH + 6]
    options = {**GREEDY, "stopping_criteria": StoppingCriteriaList([StopAt(ends)])}
    output = run(model, ids, mask, **options)
    assert output.sequences.shape[1] < PROMPT_LENGTH + NEW_TOKENS
    assert_same(output, run(model, ids, mask, **options, use_cache=False))


@pytest.mark.parametrize(
    "options",
    [GREEDY, SAMPLED, {**GREEDY, "prompt_lookup_num_tokens": 3}],
    ids=["greedy", "sampled", "prompt-lookup"],
)
def test_a_streamer_gets_every_token_in_order(make_converted, options):
    model = make_converted()
    ids, mask = unpadded()
    streamer = Collector()
    output = run(model, ids, mask, **options, streamer=streamer)
    assert streamer.has_ended
    assert torch.equal(torch.cat([piece.flatten() for piece in streamer.pieces]), output.sequences[0])
    assert len(streamer.pieces) > 2
    assert_is_the_oracles(model, output, mask)


def test_a_streamed_batch_gets_a_token_per_row_and_step(make_converted):
    model = make_converted()
    ids, mask = left_padded()
    streamer = Collector()
    output = run(model, ids, mask, **GREEDY, streamer=streamer)
    assert torch.equal(streamer.pieces[0], ids)
    assert torch.equal(torch.stack(streamer.pieces[1:], dim=1), output.sequences[:, PROMPT_LENGTH:])
    assert_same(output, run(model, ids, mask, **GREEDY, use_cache=False))


@pytest.mark.parametrize("operator", [*OPERATORS, "topk"])
def test_a_text_generated_within_the_steps_of_another_disturbs_neither(make_converted, operator):
    model = make_converted(operator=operator)
    ids, mask = left_padded()
    other_ids, other_mask = unpadded(rows=2, length=9, seed=5)
    others = []

    class Interrupter(Collector):
        def put(self, value):
            others.append(run(model, other_ids, other_mask, **GREEDY, max_new_tokens=3))

    expected, expected_other = run(model, ids, mask, **GREEDY), run(model, other_ids, other_mask, **GREEDY)
    assert_same(run(model, ids, mask, **GREEDY, streamer=Interrupter()), expected)
    assert len(others) == NEW_TOKENS + 1
    assert all(torch.equal(other.sequences, expected_other.sequences[:, :12]) for other in others)


# what else `generate` returns or sets


def test_compilation_options_change_nothing(make_converted):
    model = make_converted()
    ids, mask = left_padded()
    output = run(model, ids, mask, **GREEDY, compile_config=CompileConfig())
    assert_same(output, run(model, ids, mask, **GREEDY, use_cache=False))


@pytest.mark.parametrize(("family", "operator"), CASES)
def test_recorded_hidden_states_are_those_of_a_full_forward(make_converted, family, operator):
    model = make_converted(family, operator=operator)
    ids, mask = unpadded(rows=2)
    output = run(model, ids, mask, **GREEDY, output_hidden_states=True)
    expected = model(output.sequences[:, :-1], use_cache=False, output_hidden_states=True).hidden_states
    for layer, expected_BTD in enumerate(expected):
        actual_BTD = torch.cat([step[layer] for step in output.hidden_states], dim=1)
        torch.testing.assert_close(actual_BTD, expected_BTD, atol=FP32_TOLERANCE, rtol=FP32_TOLERANCE)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_attention_weights_are_refused(make_converted, operator, attention):
    model = make_converted(operator=operator)
    model.set_attn_implementation(attention)
    ids, mask = unpadded()
    refusal_of(lambda: run(model, ids, mask, **GREEDY, output_attentions=True), "output_attentions")
    refusal_of(lambda: model(ids, output_attentions=True), "output_attentions")


def test_a_plain_call_returns_the_tokens_alone(make_converted):
    model = make_converted()
    ids, mask = left_padded()
    tokens = model.generate(ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False)
    assert torch.equal(tokens, run(model, ids, mask, **GREEDY, use_cache=False).sequences)


def test_logits_of_all_tokens_can_be_kept(make_converted):
    model = make_converted()
    ids, mask = left_padded()
    output = run(model, ids, mask, **GREEDY, logits_to_keep=0)
    assert_same(output, run(model, ids, mask, **GREEDY, use_cache=False))
