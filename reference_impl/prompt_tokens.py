"""A prompt -> token ids, and new ids -> text as they come. In: bytes and a model folder. Out: ids; pieces of text.

With the folder's tokenizer.json, else every byte is a token.
"""

import codecs
from pathlib import Path
from typing import Any

from tokenizers.decoders import DecodeStream

from reference_impl.data.loaded_tokenizer import template_start
from reference_impl.errors import TextError
from reference_impl.token_texts import TOKENIZER_FILE, load_fast_tokenizer

NUM_BYTE_TOKENS = 257  # the bytes, and one that ends a document


class PromptTokens:
    """Reads prompts and writes continuations of one model folder.

    Args:
        folder: of the model.
        vocab_size: of the model.

    Raises:
        TextError: the folder has no tokenizer and more tokens than bytes, or one that cannot be read.
    """

    def __init__(self, folder: Path, vocab_size: int) -> None:
        path = folder / TOKENIZER_FILE
        self._tokenizer: Any = load_fast_tokenizer(path).backend_tokenizer if path.exists() else None
        if self._tokenizer is None and vocab_size > NUM_BYTE_TOKENS:
            raise TextError(
                f"{folder}: no {TOKENIZER_FILE} there, and a vocabulary of {vocab_size}; expected the model's tokenizer, or at "
                f"most {NUM_BYTE_TOKENS} tokens, which are read as bytes"
            )

    def encode(self, data: bytes) -> list[int]:
        """Ids of the prompt, behind what the tokenizer's template puts before a text, such as the `<s>` of Llama 2.

        A special token that the prompt spells out is one, as in transformers.

        Raises:
            TextError: the prompt is empty, not UTF-8, or has no token.
        """
        if not data:
            raise TextError("the prompt is empty; expected at least one token")
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise TextError(f"byte {error.start} of the prompt is not UTF-8; expected text in UTF-8") from error
        if self._tokenizer is None:
            return list(data)
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        if not ids:
            raise TextError("the prompt has no token in the model's tokenizer; expected at least one")
        return [*template_start(self._tokenizer), *ids]

    def stream(self, prompt_ids: list[int]) -> "TextStream":
        """A stream of the text that follows the prompt."""
        return TextStream(self._tokenizer, prompt_ids)


class TextStream:
    """Ids one by one -> pieces of text; a character that is not complete is held back. Special tokens are no text."""

    def __init__(self, tokenizer: Any, prompt_ids: list[int]) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(ids=prompt_ids, skip_special_tokens=True)
        self._held: list[int] = []
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that is complete with this token."""
        if self._tokenizer is None:
            return self._bytes.decode(bytes([token])) if token < NUM_BYTE_TOKENS - 1 else ""
        self._held.append(token)
        piece = self._stream.step(self._tokenizer, token)
        if piece is None:
            return ""
        self._held.clear()
        return piece

    def end(self) -> str:
        """What was held back: U+FFFD for bytes that are no character."""
        if self._tokenizer is None:
            return self._bytes.decode(b"", final=True)
        return self._tokenizer.decode(self._held, skip_special_tokens=True)
