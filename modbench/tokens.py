"""Prompt tokens of a launch. In: the point's workload. Out: (B, context + new tokens - 1) ids, the same for every method.

Text becomes bytes (one token each), or the tokens of the checkpoint's own tokenizer. Rows start evenly spread over the text, and
a row that runs over its end goes on from its beginning, which is flagged.

Shapes: B batch, T tokens per row.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer

from modbench.errors import UnsupportedError
from modbench.plan import PointWork
from modbench.scenario.prompt_text import read_text_source

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


def _text_ids(text: bytes, point: PointWork) -> Tensor:
    path = point.model.get("path")
    if path is not None and Path(path, "tokenizer.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        return torch.tensor(tokenizer(text.decode(), add_special_tokens=False)["input_ids"])
    return torch.frombuffer(bytearray(text), dtype=torch.uint8).long()


def _digest(ids_BT: Tensor) -> str:
    return hashlib.sha256(ids_BT.numpy().tobytes()).hexdigest()
