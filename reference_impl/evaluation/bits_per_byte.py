"""Held-out bits per byte, overall and by position, with next-token accuracy and what was kept meanwhile.

In: a model and rows of held-out text. Out: a `HeldOutScore`.

Bits per byte = sum of -log2 of the predicted tokens' probabilities / bytes of text that they stand for, which compares models
whatever their tokenizers. A token at position t of its sequence is predicted from t tokens, so a loss that grows towards late
positions is one of long context.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from reference_impl.data import Row
from reference_impl.errors import EvaluationError
from reference_impl.evaluation.forwards import TokenScores, check_rows, evaluating, row_logits, token_scores
from reference_impl.evaluation.kept import KeptTokens
from reference_impl.evaluation.ratios import Ratio, ratio
from reference_impl.mod_model import ModModel


@dataclass(frozen=True)
class PositionBucket:
    """Tokens at positions `first_position` to `last_position` of their sequences.

    `bits_per_byte` is None where the tokens stand for no byte.
    """

    first_position: int
    last_position: int
    num_tokens: int
    num_bytes: int
    bits_per_byte: float | None
    bits_per_token: float
    next_token_accuracy: float


@dataclass(frozen=True)
class HeldOutScore:
    """How well a model predicts held-out text.

    Attributes:
        is_causal: whether no decision depended on what follows; False only for `topk` that ranks whole sequences.
        num_rows, num_tokens, num_bytes: of the text: rows, predicted tokens, and bytes that these stand for.
        bits_per_byte, bits_per_token: see the module.
        next_token_accuracy: share of the predicted tokens that were the likeliest ones.
        bits_per_byte_standard_error, next_token_accuracy_standard_error: over rows; None for a single one.
        by_position: buckets that double in width: 1, 2 to 3, 4 to 7, ...
        keep_ratio: routed layer -> kept tokens / tokens; empty for a dense model.
        mean_keep_ratio: mean over the routed layers; None for a dense model.
        row_bits, row_bytes: of each row, in the order of the text, so that two models on the same text can be compared in pairs.
    """

    is_causal: bool
    num_rows: int
    num_tokens: int
    num_bytes: int
    bits_per_byte: float
    bits_per_byte_standard_error: float | None
    bits_per_token: float
    next_token_accuracy: float
    next_token_accuracy_standard_error: float | None
    by_position: tuple[PositionBucket, ...]
    keep_ratio: dict[int, float]
    mean_keep_ratio: float | None
    row_bits: tuple[float, ...]
    row_bytes: tuple[int, ...]


def bits_per_byte(model: PreTrainedModel, rows: Sequence[Row], is_causal: bool = True) -> HeldOutScore:
    """Score a model on rows, several in one forward.

    Args:
        model: dense or converted, on any device.
        rows: `held_out_rows` of reference_impl.data, or `text_windows`.
        is_causal: for `topk`: True lets its threshold decide, as at decode; False ranks the whole sequence, which sees the future
            through its choice, so that its number is too good. Without effect on the other operators.

    Raises:
        EvaluationError: the rows do not fit the model, stand for no byte of text, or give a loss that is not finite.
    """
    return held_out_score(model, rows, score_rows(model, rows, is_causal), is_causal)


class ScoredRows(NamedTuple):
    """Rows after their forwards: the scores of their tokens, row by row, and what was kept of them."""

    scores: list[TokenScores]
    kept: KeptTokens


def score_rows(model: PreTrainedModel, rows: Sequence[Row], is_causal: bool = True) -> ScoredRows:
    """The forwards of `bits_per_byte`, with the same arguments and errors."""
    check_rows(model, rows)
    if not any(row.num_bytes for row in rows):
        raise EvaluationError(
            "text: its predicted tokens stand for no byte; expected text of at least two tokens per sequence"
        )
    kept, scores = KeptTokens(), []
    with evaluating(model):
        for row, logits_TV in row_logits(model, rows, is_causal, kept):
            scores.append(token_scores(row, logits_TV))
    return ScoredRows(scores, kept)


def held_out_score(
    model: PreTrainedModel, rows: Sequence[Row], scored: ScoredRows, is_causal: bool = True
) -> HeldOutScore:
    """What `bits_per_byte` gives, of forwards that are done."""
    scores, kept = scored
    row_bytes = tuple(row.num_bytes for row in rows)
    num_tokens = [int(score.is_predicted_T.sum()) for score in scores]
    row_bits = tuple(float(score.bits_T.sum()) for score in scores)
    per_byte = ratio(row_bits, row_bytes)
    accuracy = ratio([float(score.is_correct_T.sum()) for score in scores], num_tokens)
    is_topk = isinstance(model, ModModel) and model.routing.config.operator == "topk"
    return HeldOutScore(
        is_causal=is_causal or not is_topk,
        num_rows=len(rows),
        num_tokens=sum(num_tokens),
        num_bytes=sum(row_bytes),
        bits_per_byte=per_byte.value,
        bits_per_byte_standard_error=per_byte.standard_error,
        bits_per_token=math.fsum(row_bits) / sum(num_tokens),
        next_token_accuracy=accuracy.value,
        next_token_accuracy_standard_error=accuracy.standard_error,
        by_position=_by_position(rows, scores),
        keep_ratio=kept.keep_ratio(),
        mean_keep_ratio=kept.mean_keep_ratio(),
        row_bits=row_bits,
        row_bytes=row_bytes,
    )


def paired_difference(own: HeldOutScore, other: HeldOutScore) -> Ratio:
    """Bits per byte of `own` less those of `other` on the same rows, with the standard error of the pairs.

    Far smaller an error than that of either model where rows differ more than models do.

    Raises:
        EvaluationError: they were scored on different rows, which the bytes of each row tell.
    """
    if own.row_bytes != other.row_bytes:
        raise EvaluationError(
            f"rows: got {own.num_rows} of {own.num_bytes} bytes and {other.num_rows} of {other.num_bytes}; expected the same ones"
        )
    return ratio([mine - theirs for mine, theirs in zip(own.row_bits, other.row_bits, strict=True)], own.row_bytes)


def _by_position(rows: Sequence[Row], scores: Sequence[TokenScores]) -> tuple[PositionBucket, ...]:
    position_N = torch.cat([torch.as_tensor(row.features()["position_ids"]) for row in rows])
    bytes_N = torch.cat([row.num_bytes_T for row in rows])
    is_predicted_N, bits_N, is_correct_N = (torch.cat(column) for column in zip(*scores, strict=True))
    buckets = []
    first = 1
    while first <= int(position_N.max()):
        is_in_N = is_predicted_N & (position_N >= first) & (position_N < 2 * first)
        if is_in_N.any():
            last = min(2 * first - 1, int(position_N.max()))
            buckets.append(_bucket(first, last, bytes_N[is_in_N], bits_N[is_in_N], is_correct_N[is_in_N]))
        first *= 2
    return tuple(buckets)


def _bucket(first: int, last: int, bytes_N: Tensor, bits_N: Tensor, is_correct_N: Tensor) -> PositionBucket:
    num_bytes, num_bits = int(bytes_N.sum()), float(bits_N.sum())
    return PositionBucket(
        first_position=first,
        last_position=last,
        num_tokens=len(bytes_N),
        num_bytes=num_bytes,
        bits_per_byte=num_bits / num_bytes if num_bytes else None,
        bits_per_token=num_bits / len(bytes_N),
        next_token_accuracy=float(is_correct_N.double().mean()),
    )
