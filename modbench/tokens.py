"""Prompt tokens of a launch. In: the point's workload. Out: (B, context + new tokens - 1) ids, the same for every method.

Text becomes bytes (one token each), or the tokens of the checkpoint's own tokenizer. Rows start evenly spread over the text, and
a row that runs over its end goes on from its beginning, which is flagged.

Shapes: B batch, T tokens per row.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from modbench.errors import UnsupportedError
from modbench.plan import PointWork
from modbench.scenario.prompt_text import read_text_source
from reference_impl.token_texts import byte_texts, offset_texts

WRAPPED_PROMPT = "prompt text too short: a row goes on from its beginning"


@dataclass(frozen=True)
class PromptTokens:
    """Token ids (B, T) int64 on the CPU; `sha256` identifies them; `is_wrapped` where a row ran over the end of the text."""

    ids_BT: Tensor
    sha256: str
    is_wrapped: bool


def prompt_tokens(point: PointWork) -> PromptTokens:
    """The tokens that every method gets at this point.

    Raises:
        UnsupportedError: the text changed since the run was planned, or has token ids beyond the model's vocabulary.
    """
    workload = point.workload
    batch, length = workload["batch"], workload["context"] + workload["new_tokens"] - 1
    if workload["prompt"].get("synthetic"):
        generator = torch.Generator().manual_seed(workload["seed"])
        ids_BT = torch.randint(0, point.geometry.vocab_size, (batch, length), generator=generator)
        return PromptTokens(ids_BT, _digest(ids_BT), is_wrapped=False)
    text = read_text_source(Path(workload["prompt"]["text"]))
    if hashlib.sha256(text).hexdigest() != workload["prompt"]["sha256"]:
        raise UnsupportedError(
            f"workload.prompt.text: {workload['prompt']['text']} changed since the run was planned; start a new run"
        )
    ids = _text_ids(text, point)
    if int(ids.max()) >= point.geometry.vocab_size:
        raise UnsupportedError(
            f"workload.prompt.text: token id {int(ids.max())} is beyond the model's vocabulary of {point.geometry.vocab_size}"
        )
    starts = [row * len(ids) // batch for row in range(batch)]
    ids_BT = torch.stack([ids[(torch.arange(length) + start) % len(ids)] for start in starts])
    return PromptTokens(ids_BT, _digest(ids_BT), is_wrapped=starts[-1] + length > len(ids))


def first_texts(point: PointWork, num_tokens: int) -> list[str] | None:
    """The pieces of text that the first tokens of row 0 stand for; None where they stand for none, or the tokenizer cannot tell.

    Joined, they are the text; where several tokens share a character, the others have nothing.
    """
    if point.workload["prompt"].get("synthetic"):
        return None
    text = read_text_source(Path(point.workload["prompt"]["text"]))
    tokenizer = _tokenizer(point)
    if tokenizer is None:
        texts = byte_texts(text[:num_tokens])
    elif tokenizer.is_fast:
        found = tokenizer(text.decode(), add_special_tokens=False, return_offsets_mapping=True)
        texts = offset_texts(text.decode(), found["offset_mapping"])
    else:
        return None
    return [texts[index % len(texts)] for index in range(num_tokens)]


def _text_ids(text: bytes, point: PointWork) -> Tensor:
    tokenizer = _tokenizer(point)
    if tokenizer is None:
        return torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    return torch.tensor(tokenizer(text.decode(), add_special_tokens=False)["input_ids"])


def _tokenizer(point: PointWork) -> Any:
    """The checkpoint's own; None where every byte is a token."""
    path = point.model.get("path")
    if path is None or not Path(path, "tokenizer.json").exists():
        return None
    return AutoTokenizer.from_pretrained(path, local_files_only=True)


def _digest(ids_BT: Tensor) -> str:
    return hashlib.sha256(ids_BT.numpy().tobytes()).hexdigest()
