"""Induction copying: random tokens, then the same ones again. Does the second copy cost less than the first, at growing length?

In: a model and the tokens to draw from. Out: an `InductionScore`.

A model can predict the second copy only by looking back one copy's length, so the difference of the two losses measures copying
from a distance, with no knowledge of language in it. Source: repeated random tokens as in Olsson et al. (arXiv 2209.11895); the
alphabet and the lengths are our choice.

`topk` decides as at decode, by its threshold: ranking the whole sequence would see the future.

Shapes: T tokens of both copies.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from reference_impl.data import Row
from reference_impl.errors import EvaluationError
from reference_impl.evaluation.forwards import check_rows, evaluating, row_logits, token_scores
from reference_impl.evaluation.kept import KeptTokens
from reference_impl.evaluation.ratios import Ratio, ratio


@dataclass(frozen=True)
class InductionLength:
    """Trials at one length. The first token of a copy is left out: nothing tells when the second one begins.

    Attributes:
        copy_tokens: tokens of one copy, so the sequence has twice as many.
        num_trials: random sequences.
        first_copy_bits_per_token, second_copy_bits_per_token: -log2 of the tokens' probabilities, with standard errors over trials
            (None for one trial).
        first_copy_accuracy, second_copy_accuracy: share of the tokens that were the likeliest ones.
        keep_ratio: mean over routed layers; None for a dense model.
    """

    copy_tokens: int
    num_trials: int
    first_copy_bits_per_token: float
    first_copy_bits_per_token_standard_error: float | None
    second_copy_bits_per_token: float
    second_copy_bits_per_token_standard_error: float | None
    first_copy_accuracy: float
    second_copy_accuracy: float
    keep_ratio: float | None


@dataclass(frozen=True)
class InductionScore:
    """One entry per length, ascending; tokens are drawn from `num_alphabet_tokens` different ones."""

    num_alphabet_tokens: int
    seed: int
    lengths: tuple[InductionLength, ...]


def induction(
    model: PreTrainedModel, alphabet_V: Tensor, lengths: Sequence[int], num_trials: int = 4, seed: int = 0
) -> InductionScore:
    """Repeat random tokens and score both copies.

    Args:
        model: dense or converted.
        alphabet_V: (V,) int64, the ids to draw from; at least two, such as those that occur in a text.
        lengths: tokens of one copy, each at least 2.
        num_trials: sequences per length.
        seed: of the sequences.

    Raises:
        EvaluationError: two copies are beyond the model's positions, a length, the alphabet or the trials are too few, or a loss
            is not finite.
    """
    max_copy = model.config.max_position_embeddings // 2
    if not lengths or not all(2 <= length <= max_copy for length in lengths):
        raise EvaluationError(
            f"lengths: got {', '.join(map(str, lengths)) or 'none'}; expected copies of 2 to {max_copy} tokens, half of "
            "the model's positions"
        )
    if len(alphabet_V) < 2:
        raise EvaluationError(f"alphabet: got {len(alphabet_V)} tokens; expected at least 2 different ones")
    if num_trials < 1:
        raise EvaluationError(f"trials: got {num_trials}; expected an integer >= 1")
    with evaluating(model):
        found = tuple(_length(model, alphabet_V, length, num_trials, seed) for length in sorted(lengths))
    return InductionScore(len(alphabet_V), seed, found)


def repeated_row(alphabet_V: Tensor, length: int, generator: torch.Generator) -> Row:
    """`length` tokens drawn evenly from the alphabet, twice; one sequence that stands for no text."""
    copy_T = alphabet_V[torch.randint(len(alphabet_V), (length,), generator=generator)]
    ids_T = copy_T.repeat(2)
    return Row(ids_T, (0,), torch.zeros_like(ids_T), "induction")


def _length(model: PreTrainedModel, alphabet_V: Tensor, length: int, num_trials: int, seed: int) -> InductionLength:
    generator = torch.Generator().manual_seed(seed)
    rows = [repeated_row(alphabet_V, length, generator) for _ in range(num_trials)]
    check_rows(model, rows)
    kept = KeptTokens()
    bits: tuple[list[float], list[float]] = ([], [])
    correct: tuple[list[float], list[float]] = ([], [])
    for row, logits_TV in row_logits(model, rows, kept=kept):
        scores = token_scores(row, logits_TV)
        for copy, start in enumerate((1, length + 1)):
            end = start + length - 1
            bits[copy].append(float(scores.bits_T[start:end].sum()))
            correct[copy].append(float(scores.is_correct_T[start:end].sum()))
    counts = [length - 1] * num_trials
    first, second = (ratio(one, counts) for one in bits)
    first_accuracy, second_accuracy = (ratio(one, counts) for one in correct)
    return _found(length, num_trials, (first, second), (first_accuracy, second_accuracy), kept)


def _found(
    length: int, num_trials: int, bits: tuple[Ratio, Ratio], accuracy: tuple[Ratio, Ratio], kept: KeptTokens
) -> InductionLength:
    return InductionLength(
        copy_tokens=length,
        num_trials=num_trials,
        first_copy_bits_per_token=bits[0].value,
        first_copy_bits_per_token_standard_error=bits[0].standard_error,
        second_copy_bits_per_token=bits[1].value,
        second_copy_bits_per_token_standard_error=bits[1].standard_error,
        first_copy_accuracy=accuracy[0].value,
        second_copy_accuracy=accuracy[1].value,
        keep_ratio=kept.mean_keep_ratio(),
    )
