"""Induction copying, by models that can and cannot."""

import math

import pytest
import torch

from reference_impl.errors import EvaluationError
from reference_impl.evaluation import induction
from reference_impl.evaluation.induction import repeated_row
from tests.reference_impl.conftest import dense_model
from tests.reference_impl.evaluation.scripted import looking_back, uniform

ALPHABET = torch.arange(5, 205)


def test_a_row_is_two_copies_of_tokens_of_the_alphabet():
    one = repeated_row(torch.tensor([7, 9]), 16, torch.Generator().manual_seed(0))
    assert one.ids_T[:16].tolist() == one.ids_T[16:].tolist()
    assert set(one.ids_T.tolist()) == {7, 9}
    assert one.starts == (0,)


def test_a_model_that_looks_back_pays_for_the_first_copy_alone():
    found = induction(looking_back(211, num_matched=2), ALPHABET, [32, 8], num_trials=3)
    assert [one.copy_tokens for one in found.lengths] == [8, 32]
    assert found.num_alphabet_tokens == 200
    for one in found.lengths:
        assert one.first_copy_bits_per_token == pytest.approx(math.log2(211))
        # two tokens have to be seen before they are known again, and the first of a copy is not counted
        expected = math.log2(211) / (one.copy_tokens - 1)
        assert one.second_copy_bits_per_token == pytest.approx(expected, rel=0.01)
        assert one.second_copy_accuracy == pytest.approx((one.copy_tokens - 2) / (one.copy_tokens - 1))


def test_a_model_that_guesses_pays_twice():
    (found,) = induction(uniform(211), ALPHABET, [16]).lengths
    assert found.first_copy_bits_per_token == found.second_copy_bits_per_token == pytest.approx(math.log2(211))
    assert found.second_copy_accuracy < 0.05
    assert found.keep_ratio is None


def test_the_seed_decides_and_top_k_is_scored_as_at_decode(make_converted):
    model = make_converted(operator="topk", capacity=0.1)
    first, again, other = (induction(model, ALPHABET, [16], 2, seed) for seed in (0, 0, 1))
    assert first == again
    assert first.lengths != other.lengths
    assert first.lengths[0].keep_ratio > 0.2  # a threshold of 0.5 keeps more than the capacity


def test_what_cannot_be_copied_is_one_line():
    model = dense_model()
    for arguments, expected in (
        ((ALPHABET, [129]), "lengths: got 129; expected copies of 2 to 128 tokens"),
        ((ALPHABET, []), "lengths: got none"),
        ((ALPHABET[:1], [8]), "alphabet: got 1 tokens"),
        ((ALPHABET, [8], 0), "trials: got 0"),
        ((torch.tensor([1, 211]), [64]), "vocabulary has 211"),
    ):
        with pytest.raises(EvaluationError, match=expected):
            induction(model, *arguments)
