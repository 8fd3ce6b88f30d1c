"""Pieces of a synthetic prompt -> tokens. In: a tokenizer of documents. Out: ids of a piece alone, no document around it.

Each piece is tokenised alone, so the same words are the same tokens wherever they stand. A tokenizer that puts a space before every
text puts one before every piece.
"""

from reference_impl.data import DocumentTokenizer, EncodedDocument


class PieceEncoder:
    """Encodes pieces; `start_T` is what the tokenizer puts before a document, such as `<s>`, (0 or more,) int64."""

    def __init__(self, tokenizer: DocumentTokenizer) -> None:
        self._tokenizer = tokenizer
        self.start_T = tokenizer.encode("").ids_T[:-1]

    def encode(self, text: str) -> EncodedDocument:
        """Ids of the text, and the bytes that each stands for."""
        ids_T, num_bytes_T = self._tokenizer.encode(text)
        return EncodedDocument(ids_T[len(self.start_T) : -1], num_bytes_T[len(self.start_T) : -1])
