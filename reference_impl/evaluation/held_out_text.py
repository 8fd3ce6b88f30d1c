"""Which text a model is evaluated on. In: what was asked for. Out: a context's length and rows, the same for every model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from reference_impl.data import (
    DataConfig,
    DocumentTokenizer,
    LoadedTokenizer,
    Row,
    check_fits,
    held_out_rows,
    load_tokenizer,
)
from reference_impl.data.loaded_tokenizer import TOKENIZER_FILE
from reference_impl.errors import EvaluationError
from reference_impl.evaluation.text_windows import text_windows

DEFAULT_ROWS = 64


def choose_context(
    asked: int | None, data: DataConfig | None, model: PreTrainedModel, key: str = "context", name: str = "the model"
) -> int:
    """Tokens of a row: as asked, else of `data`, else 1,024 or the model's positions where these are fewer.

    Args:
        asked: by the user.
        data: settings of training data.
        model: whose positions are the limit.
        key, name: what errors call the number and the model.

    Raises:
        EvaluationError: the model has fewer positions.
    """
    max_positions = model.config.max_position_embeddings
    if asked is None:
        return min(DataConfig().sequence_length, max_positions) if data is None else data.sequence_length
    if asked > max_positions:
        raise EvaluationError(f"{key}: got {asked}; expected 2 to {max_positions}, the positions of {name}")
    return asked


def choose_rows(
    texts: Sequence[Path],
    data: DataConfig | None,
    num_rows: int | None,
    tokenizer: DocumentTokenizer,
    model: PreTrainedModel,
    context: int,
) -> list[Row]:
    """Windows of `texts`, by default all; else held-out rows of `data`, or of the default sources, by default 64.

    Raises:
        DataError: the text, or the settings of the data, cannot be used, or rows do not fit the model.
        EvaluationError: the context is too short.
    """
    config = replace(data or DataConfig(), sequence_length=context)
    check_fits(
        config, tokenizer, max_positions=model.config.max_position_embeddings, vocab_size=model.config.vocab_size
    )
    if texts:
        return text_windows(texts, tokenizer, context)[:num_rows]
    return held_out_rows(config, tokenizer, DEFAULT_ROWS if num_rows is None else num_rows)


def same_tokenizer_or_raise(teacher: Path, tokenizer: DocumentTokenizer) -> None:
    """A teacher without a tokenizer of its own reads the model's ids, and so does one of a model that reads bytes.

    Raises:
        EvaluationError: the teacher's tokenizer is another one.
        DataError: it cannot be used.
    """
    if not (teacher / TOKENIZER_FILE).exists() or not isinstance(tokenizer, LoadedTokenizer):
        return
    other = load_tokenizer(teacher)
    is_same = other.end_of_document == tokenizer.end_of_document
    if not is_same or not torch.equal(other.token_bytes_V, tokenizer.token_bytes_V):
        raise EvaluationError(
            f"{teacher / TOKENIZER_FILE}: not the tokenizer of the model; expected the dense model that it comes from"
        )
