"""Text -> token ids and the piece of the text that each token stands for. In: bytes and a model folder. Out: `TokenisedText`.

The pieces of all tokens, joined, are the text: where several tokens share a character, one of them has it and the others nothing.
Without a tokenizer every byte is a token, as in modbench.
"""

import codecs
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference_impl.errors import TextError

TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class TokenisedText:
    """Ids and pieces of the first tokens of a text that has `num_tokens` in all."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    num_tokens: int


def tokenise(data: bytes, folder: Path, max_tokens: int) -> TokenisedText:
    """The first `max_tokens` tokens, by the folder's own tokenizer where it has one.

    Raises:
        TextError: the text is empty, or not UTF-8 where a tokenizer reads it, or the tokenizer cannot be read.
    """
    if not data:
        raise TextError("the text is empty; expected at least one token")
    if not (folder / TOKENIZER_FILE).exists():
        return TokenisedText(tuple(data[:max_tokens]), tuple(byte_texts(data[:max_tokens])), len(data))
    path = folder / TOKENIZER_FILE
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise TextError(f"byte {error.start} is not UTF-8, which {path} expects") from error
    tokenizer = load_fast_tokenizer(path)
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    if not found["input_ids"]:
        raise TextError(f"the text has no token in {path}; expected at least one")
    texts = offset_texts(text, found["offset_mapping"])
    return TokenisedText(tuple(found["input_ids"][:max_tokens]), tuple(texts[:max_tokens]), len(texts))


def load_fast_tokenizer(path: Path) -> Any:
    """The tokenizer of a tokenizer.json.

    Raises:
        TextError: it cannot be read.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TextError(f"{path}: cannot be read as JSON; restore it, or remove it to read bytes") from error
    if not isinstance(content, dict) or "model" not in content:
        raise TextError(f"{path}: it has no model; expected the file of a tokenizer, or none to read bytes")
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_file=str(path))


def byte_texts(data: bytes) -> list[str]:
    """One piece per byte: the last byte of a character has it; bytes that are not UTF-8 are U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return [decoder.decode(data[index : index + 1]) for index in range(len(data))]


def offset_texts(text: str, offsets: Iterable[tuple[int, int]]) -> list[str]:
    """One piece per token, from where the one before it ended to its own end; white space goes with what follows it."""
    pieces, seen = [], 0
    for _, end in offsets:
        pieces.append(text[seen:end])
        seen = max(seen, end)
    return pieces
