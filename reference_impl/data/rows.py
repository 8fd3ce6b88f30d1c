"""Encoded documents -> full rows of one length. In: ids and bytes per token. Out: `Row`s, and the dict a model takes.

Where boundaries are respected, a row holds as many sequences as it has documents or parts of documents. Positions restart at 0
with each, which is how a model knows (`ModModel.forward`). The first token of a sequence is predicted from nothing, so its
label is ignored.

A document that does not fit into the rest of a row goes on in the next one, from position 0 and without what was before: every
row is full, nothing is padded, nothing is dropped.

Labels are unshifted, as transformers wants them: at t stands the id of t itself, which the model predicts from t - 1.

Shapes: T tokens of a row.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from reference_impl.data.tokens import EncodedDocument

IGNORED_LABEL = -100  # of the stock loss


@dataclass(frozen=True)
class Row:
    """A row of tokens.

    Attributes:
        ids_T: int64.
        starts: where its sequences begin, ascending; the first is 0.
        num_bytes_T: bytes of text that each token stands for, int64.
        source: which source all of it is from.
        epoch: how often that source had been read to its end when the row was filled.
    """

    ids_T: Tensor
    starts: tuple[int, ...]
    num_bytes_T: Tensor
    source: str = ""
    epoch: int = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of text that the predicted tokens stand for: all of the row but the first of each sequence."""
        return int(self.num_bytes_T.sum() - self.num_bytes_T[list(self.starts)].sum())

    @property
    def num_predicted(self) -> int:
        """Tokens with a label."""
        return len(self.ids_T) - len(self.starts)

    def features(self) -> dict[str, Tensor | int]:
        """`input_ids`, `position_ids` and `labels`, each (T,) int64, and `num_bytes`.

        A converted model takes the first three as they are. A stock model separates packed sequences only in a forward without
        a cache, so give it `use_cache=False`, as the Trainer does. `num_bytes` is for whoever adds up losses; the Trainer
        leaves it out.
        """
        starts_S = torch.tensor(self.starts)
        index_T = torch.arange(len(self.ids_T))
        labels_T = self.ids_T.clone()
        labels_T[starts_S] = IGNORED_LABEL
        start_T = torch.zeros_like(index_T)
        start_T[starts_S] = starts_S
        return {
            "input_ids": self.ids_T,
            "position_ids": index_T - start_T.cummax(0).values,
            "labels": labels_T,
            "num_bytes": self.num_bytes,
        }


@dataclass
class Packer:
    """Fills rows; what is left of a document waits for the next one.

    Attributes:
        sequence_length: T.
        respects_boundaries: whether each document, or part of one, is a sequence of its own; else each row is one.
    """

    sequence_length: int
    respects_boundaries: bool
    _parts: list[EncodedDocument] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)
    _num_tokens: int = 0

    def rows(self, document: EncodedDocument, source: str = "", epoch: int = 0) -> Iterator[Row]:
        """The rows that this document fills up."""
        begin, length = 0, len(document.ids_T)
        while begin < length:
            end = min(length, begin + self.sequence_length - self._num_tokens)
            if self.respects_boundaries or not self._parts:
                self._starts.append(self._num_tokens)
            self._parts.append(EncodedDocument(document.ids_T[begin:end], document.num_bytes_T[begin:end]))
            self._num_tokens += end - begin
            begin = end
            if self._num_tokens == self.sequence_length:
                yield self._take(source, epoch)

    def _take(self, source: str, epoch: int) -> Row:
        ids_T = torch.cat([part.ids_T for part in self._parts])
        num_bytes_T = torch.cat([part.num_bytes_T for part in self._parts])
        starts = tuple(self._starts)
        self._parts, self._starts, self._num_tokens = [], [], 0
        return Row(ids_T, starts, num_bytes_T, source, epoch)
