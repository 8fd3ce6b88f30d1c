"""Rows of text -> logits, computed as the model serves them. In: a model and rows. Out: logits row by row.

Whatever the operator, a row gives the same predictions to score: where it takes one sequence per row, the sequences of a packed
row are computed one by one.

Shapes: B rows of one forward, T tokens, V vocabulary.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from reference_impl.data import IGNORED_LABEL, Row
from reference_impl.errors import EvaluationError
from reference_impl.evaluation.kept import KeptTokens
from reference_impl.executions import EXECUTIONS
from reference_impl.mod_model import ModModel

LN2 = math.log(2)
TOKENS_PER_FORWARD = 2**13  # our choice: enough to keep a device busy
LOGITS_PER_FORWARD = 2**26  # 256 MiB in float32
LOGITS_AT_ONCE = 2**24  # when they are turned into probabilities


@contextmanager
def evaluating(*models: PreTrainedModel) -> Iterator[None]:
    """The models in evaluation mode and without gradients; afterwards in the mode that they were in."""
    were_training = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for model, was_training in zip(models, were_training, strict=True):
            model.train(was_training)


def check_rows(model: PreTrainedModel, rows: Sequence[Row], name: str = "model") -> None:
    """Whether the model can take these rows.

    Raises:
        EvaluationError: there are none, one is longer than the model's positions, or has ids beyond its vocabulary.
    """
    if not rows:
        raise EvaluationError("rows: got none; expected at least one row of text")
    longest, highest = max(len(row.ids_T) for row in rows), max(int(row.ids_T.max()) for row in rows)
    max_positions, vocab_size = model.config.max_position_embeddings, model.config.vocab_size
    if longest > max_positions:
        raise EvaluationError(
            f"context: got a row of {longest} tokens; the {name} has {max_positions} positions: take at most that many"
        )
    if highest >= vocab_size:
        raise EvaluationError(
            f"text: got token {highest}; the {name}'s vocabulary has {vocab_size}: use the tokenizer of the {name}"
        )


def row_logits(
    model: PreTrainedModel, rows: Sequence[Row], is_causal: bool = True, kept: KeptTokens | None = None
) -> Iterator[tuple[Row, Tensor]]:
    """Each row with its logits (T, V), in the model's dtype and on its device. Call it inside `evaluating`.

    Args:
        model: dense or converted.
        rows: see `check_rows`.
        is_causal: whether `topk` decides as at decode, by its threshold; else it ranks the whole sequence, so that whether a token
            is kept depends on what follows it. The other operators are causal either way.
        kept: counts what the forwards keep.
    """
    packs_sequences = not isinstance(model, ModModel) or EXECUTIONS[model.routing.config.operator].packs_sequences
    for batch in _batches(model, rows):
        if packs_sequences or all(len(row.starts) == 1 for row in batch):
            yield from zip(batch, _forward(model, batch, is_causal, kept), strict=True)
        else:
            for row in batch:
                parts = [_forward(model, [part], is_causal, kept)[0] for part in _sequences(row)]
                yield row, torch.cat(parts)


def _batches(model: PreTrainedModel, rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Neighbours of one length, as many as a forward takes."""
    # transformers' FlashAttention separates the sequences of a row only where the row is alone
    is_flash = "flash" in str(model.config._attn_implementation)
    for length, same in itertools.groupby(rows, key=lambda row: len(row.ids_T)):
        at_once = min(TOKENS_PER_FORWARD // length, LOGITS_PER_FORWARD // (length * model.config.vocab_size))
        at_once = 1 if is_flash else max(1, at_once)
        while batch := list(itertools.islice(same, at_once)):
            yield batch


def _sequences(row: Row) -> Iterator[Row]:
    for start, end in itertools.pairwise((*row.starts, len(row.ids_T))):
        yield Row(row.ids_T[start:end], (0,), row.num_bytes_T[start:end], row.source, row.epoch)


def _forward(model: PreTrainedModel, batch: list[Row], is_causal: bool, kept: KeptTokens | None) -> Tensor:
    features = [row.features() for row in batch]
    names = ("input_ids",) if all(len(row.starts) == 1 for row in batch) else ("input_ids", "position_ids")
    inputs = {name: torch.stack([torch.as_tensor(one[name]) for one in features]).to(model.device) for name in names}
    as_decoded = model.routing.as_decoded() if is_causal and isinstance(model, ModModel) else nullcontext()
    with as_decoded:
        logits_BTV: Tensor = model(**inputs, use_cache=False).logits
    if kept is not None:
        kept.add(model)
    return logits_BTV


class TokenScores(NamedTuple):
    """How well the tokens of a row are predicted, on the host; what stands at t is about token t, which t - 1 predicts.

    Attributes:
        is_predicted_T: False at the first token of each sequence, bool.
        bits_T: -log2 of the probability of the token, float64; 0 where it is not predicted.
        is_correct_T: whether it is the likeliest token, bool; False where it is not predicted.
    """

    is_predicted_T: Tensor
    bits_T: Tensor
    is_correct_T: Tensor


def token_scores(row: Row, logits_TV: Tensor) -> TokenScores:
    """Score the logits of a row against its tokens.

    Raises:
        EvaluationError: a loss is not finite.
    """
    labels_T = torch.as_tensor(row.features()["labels"])
    is_predicted_T = labels_T != IGNORED_LABEL
    bits_T = torch.zeros(len(labels_T), dtype=torch.float64)
    is_correct_T = torch.zeros_like(is_predicted_T)
    targets_T = row.ids_T.to(logits_TV.device)
    step = tokens_at_once(logits_TV)
    for start in range(1, len(labels_T), step):
        end = min(start + step, len(labels_T))
        bits_T[start:end], is_correct_T[start:end] = bits_of(logits_TV[start - 1 : end - 1], targets_T[start:end])
    bits_T[~is_predicted_T] = 0
    if not bits_T.isfinite().all():
        where = int((~bits_T.isfinite()).nonzero()[0])
        raise EvaluationError(
            f"loss: not finite at token {where} of a row of source {row.source!r}; expected a finite loss: try --dtype float32, or "
            "another checkpoint"
        )
    return TokenScores(is_predicted_T, bits_T, is_correct_T & is_predicted_T)


def bits_of(logits_TV: Tensor, targets_T: Tensor) -> tuple[Tensor, Tensor]:
    """(-log2 of the targets' probabilities in float64, whether each is the likeliest token), both (T,) on the host."""
    log_probs_TV = logits_TV.float().log_softmax(dim=-1)
    bits_T = -log_probs_TV.gather(1, targets_T[:, None]).squeeze(1).cpu().double() / LN2
    return bits_T, (logits_TV.argmax(dim=-1) == targets_T).cpu()


def tokens_at_once(logits_TV: Tensor) -> int:
    """For how many tokens probabilities are computed at once."""
    return max(1, LOGITS_AT_ONCE // logits_TV.shape[-1])
