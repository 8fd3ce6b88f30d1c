"""How far a model is from its dense teacher on held-out text. In: both, and rows. Out: an `Agreement`.

Shapes: T tokens, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from reference_impl.data import Row
from reference_impl.errors import EvaluationError
from reference_impl.evaluation.forwards import check_rows, evaluating, row_logits, token_scores, tokens_at_once
from reference_impl.evaluation.ratios import ratio


@dataclass(frozen=True)
class Agreement:
    """A model against its teacher, over the predicted tokens of the same rows; standard errors over rows, None for one row.

    Attributes:
        num_rows, num_tokens: of the text; predicted tokens.
        kl_bits_per_token: mean of KL(teacher || model).
        top1_agreement_ratio: share of the tokens where both find the same token likeliest.
        teacher_bits_per_byte: of the teacher alone.
        bits_per_byte_difference: of the model less the teacher's; its error is that of pairs of rows.
    """

    num_rows: int
    num_tokens: int
    kl_bits_per_token: float
    kl_bits_per_token_standard_error: float | None
    top1_agreement_ratio: float
    top1_agreement_ratio_standard_error: float | None
    teacher_bits_per_byte: float
    bits_per_byte_difference: float
    bits_per_byte_difference_standard_error: float | None


def agreement(model: PreTrainedModel, teacher: PreTrainedModel, rows: Sequence[Row]) -> Agreement:
    """Compare the distributions of a model and its teacher; `topk` decides as at decode, by its threshold.

    Args:
        model: dense or converted.
        teacher: the dense model that it comes from; it may be on another device.
        rows: of held-out text.

    Raises:
        EvaluationError: the vocabularies differ, the rows fit one of the models not, stand for no byte, or a loss is not finite.
    """
    own, theirs = model.config.vocab_size, teacher.config.vocab_size
    if own != theirs:
        raise EvaluationError(
            f"teacher: got a vocabulary of {theirs} tokens; the model has {own}: take the dense model it comes from"
        )
    check_rows(model, rows)
    check_rows(teacher, rows, "teacher")
    num_bytes = [row.num_bytes for row in rows]
    if not any(num_bytes):
        raise EvaluationError("text: its predicted tokens stand for no byte; expected text of at least two tokens")
    divergences, agreed, num_tokens, model_bits, teacher_bits = [], [], [], [], []
    with evaluating(model, teacher):
        pairs = zip(row_logits(model, rows), row_logits(teacher, rows), strict=True)
        for (row, logits_TV), (_, teacher_TV) in pairs:
            teacher_TV = teacher_TV.to(logits_TV.device)
            scores, teacher_scores = token_scores(row, logits_TV), token_scores(row, teacher_TV)
            predicting_T = scores.is_predicted_T[1:]  # what stands at t predicts t + 1
            divergence_T = kl_bits(teacher_TV[:-1], logits_TV[:-1])
            is_same_T = (teacher_TV[:-1].argmax(dim=-1) == logits_TV[:-1].argmax(dim=-1)).cpu()
            divergences.append(float(divergence_T[predicting_T].sum()))
            agreed.append(int(is_same_T[predicting_T].sum()))
            num_tokens.append(int(predicting_T.sum()))
            model_bits.append(float(scores.bits_T.sum()))
            teacher_bits.append(float(teacher_scores.bits_T.sum()))
    kl, top1 = ratio(divergences, num_tokens), ratio(agreed, num_tokens)
    difference = ratio([mine - other for mine, other in zip(model_bits, teacher_bits, strict=True)], num_bytes)
    return Agreement(
        num_rows=len(rows),
        num_tokens=sum(num_tokens),
        kl_bits_per_token=kl.value,
        kl_bits_per_token_standard_error=kl.standard_error,
        top1_agreement_ratio=top1.value,
        top1_agreement_ratio_standard_error=top1.standard_error,
        teacher_bits_per_byte=math.fsum(teacher_bits) / sum(num_bytes),
        bits_per_byte_difference=difference.value,
        bits_per_byte_difference_standard_error=difference.standard_error,
    )


def kl_bits(teacher_TV: Tensor, model_TV: Tensor) -> Tensor:
    """KL(teacher || model) in bits of each position, (T,) float64 on the host, from logits (T, V) on one device."""
    parts = []
    step = tokens_at_once(teacher_TV)
    for teacher_part, model_part in zip(teacher_TV.split(step), model_TV.split(step), strict=True):
        teacher_log = teacher_part.float().log_softmax(dim=-1)
        model_log = model_part.float().log_softmax(dim=-1)
        # a token that the teacher rules out adds nothing, whatever the model thinks of it
        terms = torch.where(teacher_log > -math.inf, teacher_log.exp() * (teacher_log - model_log), 0.0)
        parts.append(terms.sum(dim=-1).cpu().double() / math.log(2))
    return torch.cat(parts)
