"""A tokenizer.json as a `DocumentTokenizer`. In: a model folder. Out: ids, with the bytes that each token stands for.

Shapes: T tokens, V vocabulary.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from reference_impl.data.tokens import EncodedDocument
from reference_impl.errors import DataError

TOKENIZER_FILE = "tokenizer.json"
SETTINGS_FILE = "tokenizer_config.json"
BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
SPACE = "\u2581"  # how SentencePiece spells a space


class LoadedTokenizer:
    """A tokenizer that keeps every byte of a text: byte-level (GPT-2, Llama 3, Qwen) or with byte fallback (Llama 2, Gemma).

    - A text that spells a special token, such as `<|endoftext|>`, is text: it ends no document.
    - A document starts with what the tokenizer's own template puts before a text, such as the `<s>` of Llama 2.
    - Truncation and padding settings of the file are switched off.
    - A space that the tokenizer puts before a text is not counted, being no byte of it.
    - Bytes are counted of what the tokenizer reads: behind a normaliser that rewrites characters (the NFC of Qwen), and with one
      byte for U+2581, which tokenizers of SentencePiece take for a space.

    Args:
        tokenizer: as loaded; a copy is kept.
        end_of_document: the special token that ends documents.
        where: what errors name.

    Raises:
        DataError: it may lose bytes, or has no such special token.
    """

    def __init__(self, tokenizer: Tokenizer, end_of_document: str, where: str = TOKENIZER_FILE) -> None:
        self._set_tokenizer(tokenizer.to_str())
        self._spellings = _spellings(self._tokenizer, where)
        self.token_bytes_V = torch.zeros(max(self._spellings) + 1, dtype=torch.int64)
        self.token_bytes_V[torch.tensor(list(self._spellings))] = torch.tensor(list(map(len, self._spellings.values())))
        added = self._tokenizer.get_added_tokens_decoder()
        special = {token.content: id_ for id_, token in added.items() if token.special}
        if end_of_document not in special:
            known = ", ".join(sorted(special)[:8]) or "none"
            raise DataError(
                f"{where}: end_of_document: got {end_of_document!r}; expected a special token, which text never becomes: {known}"
            )
        self.end_of_document = special[end_of_document]
        self._start = template_start(self._tokenizer)
        # the tokenizers that put a space before a text look at its first character
        self._added_bytes = {is_space: self._bytes_too_many(" a" if is_space else "a") for is_space in (False, True)}

    def _set_tokenizer(self, content: str) -> None:
        self._tokenizer = Tokenizer.from_str(content)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # "encode them as text"; not part of the file's content

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_tokenizer": self._tokenizer.to_str()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._set_tokenizer(state["_tokenizer"])

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return len(self.token_bytes_V)

    def encode(self, text: str) -> EncodedDocument:
        """Template, text and the end of the document."""
        text_ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        ids_T = torch.tensor([*self._start, *text_ids, self.end_of_document], dtype=torch.int64)
        num_bytes_T = self.token_bytes_V[ids_T]
        if text_ids:
            num_bytes_T[len(self._start)] -= self._added_bytes[text.startswith(" ")]
        return EncodedDocument(ids_T, num_bytes_T)

    def spelling(self, token: int) -> bytes:
        """See `DocumentTokenizer`; of a token that stands for a space and what follows, both."""
        return self._spellings.get(token, b"")

    def _bytes_too_many(self, probe: str) -> int:
        ids = self._tokenizer.encode(probe, add_special_tokens=False).ids
        return int(self.token_bytes_V[ids].sum()) - len(probe.encode())


def template_start(tokenizer: Tokenizer) -> list[int]:
    """Ids that the tokenizer's own template puts before a text, such as the `<s>` of Llama 2; often none."""
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    dressed = tokenizer.encode("a", add_special_tokens=True).ids
    starts = (index for index in range(len(dressed)) if dressed[index : index + len(bare)] == bare)
    return dressed[: next(starts, 0)]


def load_tokenizer(folder: Path, end_of_document: str | None = None) -> LoadedTokenizer:
    """The tokenizer of a model folder, from its tokenizer.json.

    Args:
        folder: as `save_pretrained` writes it.
        end_of_document: the special token that ends documents; by default the `eos_token` of tokenizer_config.json.

    Raises:
        DataError: there is none, it cannot be read, loses bytes of the text, or has no such token.
    """
    path = folder / TOKENIZER_FILE
    content = _json_object(path, "a tokenizer that save_pretrained wrote")
    if not isinstance(content.get("model"), dict):
        raise DataError(f"{path}: it has no model; expected the file of a tokenizer")
    end_of_document = _eos_token(folder / SETTINGS_FILE) if end_of_document is None else end_of_document
    return LoadedTokenizer(Tokenizer.from_str(json.dumps(content)), end_of_document, str(path))


def _json_object(path: Path, expected: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; expected {expected}") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON; expected {expected}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: got a {type(content).__name__}; expected {expected}")
    return content


def _eos_token(path: Path) -> str:
    token = _json_object(path, "the settings of a tokenizer, or a token named as end_of_document").get("eos_token")
    token = token.get("content") if isinstance(token, dict) else token
    if not isinstance(token, str):
        raise DataError(f"{path}: it has no eos_token; expected one, or a token named as end_of_document")
    return token


def _spellings(tokenizer: Tokenizer, where: str) -> dict[int, bytes]:
    """Id -> the bytes of text that it stands for: none for special tokens.

    Raises:
        DataError: the tokenizer has no token for some byte, so it may lose text.
    """
    content = json.loads(tokenizer.to_str())
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    if _is_byte_level(content["decoder"]):
        missing = set(ByteLevel.alphabet()) - set(vocabulary)
        byte_of = _byte_alphabet()
        spellings = {
            id_: bytes(byte_of[sign] for sign in token if sign in byte_of) for token, id_ in vocabulary.items()
        }
    elif content["model"].get("byte_fallback"):
        missing = {f"<0x{value:02X}>" for value in range(256)} - set(vocabulary)
        spellings = {id_: _fallback_bytes(token) for token, id_ in vocabulary.items()}
    else:
        raise DataError(
            f"{where}: it may lose text, which spoils bits per byte; expected a byte-level tokenizer or one with byte fallback"
        )
    if missing:
        raise DataError(
            f"{where}: {len(missing)} of 256 bytes have no token, such as {min(missing)!r}; expected a token for every byte"
        )
    for id_, added in tokenizer.get_added_tokens_decoder().items():
        spellings[id_] = b"" if added.special else added.content.encode()
    return spellings


def _is_byte_level(decoder: Any) -> bool:
    if decoder is None:
        return False
    return decoder["type"] == "ByteLevel" or any(map(_is_byte_level, decoder.get("decoders", ())))


def _byte_alphabet() -> dict[str, int]:
    """Sign of the byte-level alphabet -> byte: printable ones stand for themselves, the rest for the signs from U+0100 on.

    Source: the byte-level BPE of GPT-2.
    """
    own = [value for value in range(256) if chr(value) in ByteLevel.alphabet()]
    rest = [value for value in range(256) if value not in own]
    return {chr(value): value for value in own} | {chr(256 + index): value for index, value in enumerate(rest)}


def _fallback_bytes(token: str) -> bytes:
    byte = BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace(SPACE, " ").encode()
