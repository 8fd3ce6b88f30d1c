"""Documents -> token ids, and how many bytes of text each token stands for. In: text. Out: `EncodedDocument`s.

Bits per byte compare models whatever their tokenizers: the loss summed over predicted tokens, in nats, over ln 2 times the
bytes of text that these tokens stand for. So every token carries its bytes from here on. A token that holds part of a character
counts that part's bytes; one that stands for no text, such as the end of a document, counts none, though its loss counts.

Shapes: T tokens.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from reference_impl.errors import DataError

NUM_BYTE_VALUES = 256
UNUSED_BYTES = (0xC0, 0xC1, *range(0xF5, 0x100))  # they occur nowhere in UTF-8


class EncodedDocument(NamedTuple):
    """Token ids (T,) int64, and the bytes of text that each stands for (T,) int64; the last one ends the document."""

    ids_T: Tensor
    num_bytes_T: Tensor


class DocumentTokenizer(Protocol):
    """What the pipeline asks of a tokenizer.

    Attributes:
        vocab_size: one more than the largest id.
        end_of_document: the id that ends every document, and occurs nowhere else.
    """

    @property
    def vocab_size(self) -> int:
        """See above."""

    @property
    def end_of_document(self) -> int:
        """See above."""

    def encode(self, text: str) -> EncodedDocument:
        """The whole document, with the token that ends it."""

    def spelling(self, token: int) -> bytes:
        """The bytes of text that an id stands for, perhaps part of a character; none for special tokens and ids without a token."""


class ByteTokenizer:
    """Every byte of the UTF-8 text is its own id. Without a file; `write_byte_tokenizer` writes the same as one.

    Args:
        end_of_document: an id behind the bytes, or, for a vocabulary of 256, a byte that UTF-8 has no use for (0xC0, 0xC1, 0xF5
        to
            0xFF).

    Raises:
        DataError: the id is a byte of text.
    """

    def __init__(self, end_of_document: int = NUM_BYTE_VALUES) -> None:
        if end_of_document < NUM_BYTE_VALUES and end_of_document not in UNUSED_BYTES:
            raise DataError(
                f"end_of_document: got {end_of_document}, which is a byte of text; expected 192, 193, 245 to 255, or more"
            )
        self.end_of_document = end_of_document

    @property
    def vocab_size(self) -> int:
        """256, or as many as the end-of-document id needs."""
        return max(NUM_BYTE_VALUES, self.end_of_document + 1)

    def encode(self, text: str) -> EncodedDocument:
        """The text's bytes and the end of the document."""
        ids_T = torch.empty(0, dtype=torch.int64)
        data = text.encode()
        if data:
            ids_T = torch.frombuffer(bytearray(data), dtype=torch.uint8).long()
        num_bytes_T = torch.ones(len(data) + 1, dtype=torch.int64)
        num_bytes_T[-1] = 0
        return EncodedDocument(torch.cat([ids_T, torch.tensor([self.end_of_document])]), num_bytes_T)

    def spelling(self, token: int) -> bytes:
        """The byte itself; none for the end of a document."""
        return bytes([token]) if token < NUM_BYTE_VALUES and token != self.end_of_document else b""
