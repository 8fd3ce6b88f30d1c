"""Passkeys: prompts, scores by hand, and that one pass says what greedy generation would."""

import math

import pytest
import torch

from reference_impl.data import ByteTokenizer, LoadedTokenizer
from reference_impl.errors import EvaluationError
from reference_impl.evaluation import needle
from reference_impl.evaluation.forwards import evaluating, token_scores
from reference_impl.evaluation.kept import KeptTokens
from reference_impl.evaluation.needle import NeedlePrompt, _answered, min_context, needle_prompt
from reference_impl.evaluation.pieces import PieceEncoder
from tests.reference_impl.conftest import FP32_TOLERANCE, dense_model, random_ids
from tests.reference_impl.data.small_tokenizers import byte_fallback
from tests.reference_impl.evaluation.scripted import looking_back, row, uniform

BYTES = ByteTokenizer()


def text_of(prompt):
    return bytes(prompt.prompt_T.tolist()).decode()


@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_a_prompt_hides_the_key_at_its_depth_and_fills_the_context(depth):
    context = min_context(BYTES) + 400
    prompt = needle_prompt(PieceEncoder(BYTES), context, depth, "04213")
    text = text_of(prompt)
    assert len(prompt.prompt_T) + len(prompt.answer_A) == context
    assert bytes(prompt.answer_A.tolist()) == b"04213"
    assert text.count("04213") == 2
    assert text.endswith("What is the pass key? The pass key is ")
    before, after = text.split("\nThe pass key is 04213. Remember it. 04213 is the pass key.\n")
    num_before = len(before) - before.index("The grass") if depth else 0
    assert num_before == 400 * depth
    assert len(after) == 400 * (1 - depth) + len("\nWhat is the pass key? The pass key is ")


def test_the_shortest_prompt_has_no_filler():
    least = min_context(BYTES)
    assert "grass" not in text_of(needle_prompt(PieceEncoder(BYTES), least, 0.5, "04213"))
    with pytest.raises(EvaluationError, match=f"got {least - 1}; the prompt needs {least} tokens"):
        needle_prompt(PieceEncoder(BYTES), least - 1, 0.5, "04213")


def test_a_model_that_looks_back_finds_every_key_and_one_that_guesses_none():
    contexts = [min_context(BYTES) + extra for extra in (0, 200)]
    found = needle(looking_back(257, num_matched=12), BYTES, contexts, depths=(0.0, 1.0), num_trials=3)
    assert [(cell.context_tokens, cell.depth_ratio) for cell in found.cells] == [
        (context, depth) for context in contexts for depth in (0.0, 1.0)
    ]
    assert all(cell.exact_match_ratio == 1 for cell in found.cells)
    assert all(cell.answer_bits_per_byte < 1e-4 for cell in found.cells)
    (guessed,) = needle(uniform(257), BYTES, contexts[:1], depths=(0.5,), num_trials=3).cells
    assert guessed.exact_match_ratio == 0
    assert guessed.answer_bits_per_byte == pytest.approx(math.log2(257))
    assert guessed.keep_ratio is None


def test_keys_follow_the_seed_and_are_the_same_at_every_context():
    contexts = [min_context(BYTES), min_context(BYTES) + 64]
    first, again, other = (needle(dense_bytes(), BYTES, contexts, (0.5,), 2, seed) for seed in (0, 0, 1))
    assert first == again
    assert first.cells != other.cells
    half_right = needle(looking_back(257, 12), BYTES, contexts, (0.0, 1.0), 2).cells
    assert half_right[0].answer_bits_per_byte == half_right[2].answer_bits_per_byte


def dense_bytes(**overrides):
    return dense_model(**{"vocab_size": 257, "num_hidden_layers": 2, "max_position_embeddings": 512, **overrides})


@pytest.mark.parametrize("operator", ["dense", "threshold", "topk"])
@torch.no_grad()
def test_all_tokens_likeliest_is_what_greedy_generation_says(make_converted, operator):
    model = dense_model() if operator == "dense" else make_converted(operator=operator)
    prompt_T = random_ids(1, 30)[0]
    generated = model.generate(prompt_T[None], attention_mask=torch.ones(1, 30), max_new_tokens=4, do_sample=False)
    answer_A = generated[0, 30:]
    wrong_A = torch.cat([answer_A[:2], (answer_A[2:3] + 1) % 211, answer_A[3:]])
    batch = [NeedlePrompt(prompt_T, answer_A, 4), NeedlePrompt(prompt_T, wrong_A, 4)]
    _, is_right_BA = _answered(model, batch, KeptTokens())
    assert is_right_BA[0].tolist() == [True] * 4
    assert is_right_BA[1].tolist()[:3] == [True, True, False]


@torch.no_grad()
def test_the_answer_costs_what_it_costs_in_a_whole_forward(make_converted):
    model = make_converted()
    ids_BT = random_ids(2, 24)
    batch = [NeedlePrompt(ids_T[:20], ids_T[20:], 4) for ids_T in ids_BT]
    kept = KeptTokens()
    with evaluating(model):
        bits_BA, _ = _answered(model, batch, kept)
        for ids_T, bits_A in zip(ids_BT, bits_BA, strict=True):
            whole = token_scores(row(ids_T.tolist()), model(ids_T[None]).logits[0])
            torch.testing.assert_close(bits_A, whole.bits_T[20:], atol=100 * FP32_TOLERANCE, rtol=0)
    assert kept.num_tokens == 40


def test_a_tokenizer_with_a_beginning_gets_it_once():
    encoder = PieceEncoder(LoadedTokenizer(byte_fallback(), "</s>"))
    assert encoder.start_T.tolist() == [1]
    ids_T, num_bytes_T = encoder.encode("48")
    assert ids_T.tolist() == [
        259,
        3 + ord("4"),
        3 + ord("8"),
    ]  # a space of the tokenizer's, which is no byte of the text
    assert num_bytes_T.tolist() == [0, 1, 1]


def test_what_cannot_be_asked_is_one_line():
    model = dense_bytes()
    least = min_context(BYTES)
    for arguments, expected in (
        (([513],), "contexts: got 513; expected at least one, up to the 512 positions"),
        (([],), "contexts: got none"),
        (([least], (1.5,)), "depths: got 1.5"),
        (([least], (0.5,), 0), "trials: got 0"),
    ):
        with pytest.raises(EvaluationError, match=expected):
            needle(model, BYTES, *arguments)
    with pytest.raises(EvaluationError, match="tokenizer: its ids go up to 256; the model knows 0 to 210"):
        needle(dense_model(), BYTES, [250])
