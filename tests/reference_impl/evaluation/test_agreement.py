"""Agreement with a teacher, by hand and against itself."""

import math

import pytest
import torch

from reference_impl.errors import EvaluationError
from reference_impl.evaluation import agreement, bits_per_byte, paired_difference
from reference_impl.evaluation.agreement import kl_bits
from tests.reference_impl.conftest import dense_model, random_ids
from tests.reference_impl.evaluation.scripted import constant, row, uniform

ROWS = [row([0, 1, 0]), row([1, 1, 1, 0])]


def test_a_model_agrees_with_itself(make_converted):
    rows = [row(random_ids(1, 20, seed)[0].tolist(), starts=(0, 5)) for seed in range(3)]
    found = agreement(make_converted(), make_converted(), rows)
    assert found.kl_bits_per_token == pytest.approx(0, abs=1e-6)
    assert found.top1_agreement_ratio == 1
    assert (found.bits_per_byte_difference, found.bits_per_byte_difference_standard_error) == (0, 0)


def test_the_divergence_is_that_of_the_teachers_distribution():
    found = agreement(constant([0.25, 0.75]), constant([0.5, 0.5]), ROWS)
    assert found.kl_bits_per_token == pytest.approx(0.5 * math.log2(0.5 / 0.25) + 0.5 * math.log2(0.5 / 0.75))
    assert found.num_tokens == 5
    assert found.kl_bits_per_token_standard_error == pytest.approx(0)
    assert found.teacher_bits_per_byte == pytest.approx(1)
    assert found.top1_agreement_ratio == 0  # of equals the first is the likeliest


def test_only_predicted_tokens_count():
    packed = row([0, 1, 0, 1], starts=(0, 1, 3))  # token 2 alone is predicted
    assert agreement(constant([0.25, 0.75]), uniform(2), [packed]).num_tokens == 1


def test_the_difference_is_that_of_the_two_scores(make_converted):
    model, teacher = make_converted(), dense_model()
    rows = [row(random_ids(1, 20, seed)[0].tolist()) for seed in range(3)]
    found = agreement(model, teacher, rows)
    own, other = bits_per_byte(model, rows), bits_per_byte(teacher, rows)
    assert found.teacher_bits_per_byte == pytest.approx(other.bits_per_byte)
    expected = paired_difference(own, other)
    assert found.bits_per_byte_difference == pytest.approx(expected.value)
    assert found.bits_per_byte_difference_standard_error == pytest.approx(expected.standard_error)
    assert found.kl_bits_per_token > 0


def test_what_the_teacher_rules_out_adds_nothing():
    teacher_TV = torch.tensor([[0.0, -math.inf], [0.0, 0.0]])
    model_TV = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    assert kl_bits(teacher_TV, model_TV).tolist() == pytest.approx([1, 0])


def test_other_vocabularies_and_shorter_teachers_are_refused():
    with pytest.raises(EvaluationError, match="got a vocabulary of 3 tokens; the model has 2"):
        agreement(uniform(2), uniform(3), ROWS)
    short = constant([0.5, 0.5], max_positions=3)
    with pytest.raises(EvaluationError, match="got a row of 4 tokens; the teacher has 3 positions"):
        agreement(uniform(2), short, ROWS)
