"""The training rows as a torch data set. In: a `DataConfig` and a tokenizer. Out: dicts of tensors for DataLoader and Trainer.

Every DataLoader worker runs through the whole stream and hands out the rows that are its own. So rows are neither lost nor
doubled, and whatever the number of workers, a round of one batch from each holds the same rows. Workers hide the time that
reading takes; they do not divide it. Source: our choice.

A run resumes exactly by skipping the batches it has had, which the Trainer does by itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from reference_impl.data.config import DataConfig
from reference_impl.data.mixture import open_sources, training_rows
from reference_impl.data.rows import Row
from reference_impl.data.tokens import DocumentTokenizer
from reference_impl.errors import DataError


@dataclass(frozen=True)
class SourceProgress:
    """How far a source has been read.

    Attributes:
        name: of the source.
        num_rows, num_tokens: how many were handed out.
        num_bytes: bytes of text that their labels cover.
        num_epochs: how often the source had been read to its end when the latest of these rows was filled.
    """

    name: str
    num_rows: int
    num_tokens: int
    num_bytes: int
    num_epochs: int


class TrainingSet(IterableDataset[dict[str, Tensor | int]]):
    """`Row.features()` of the training rows, without end, from the beginning each time it is iterated; so give `max_steps`.

    Args:
        config: what to read.
        tokenizer: of the model.
        rank, num_ranks: which share of the rows a process of a distributed run reads, for loops that do not divide the rows
            themselves. The Trainer and accelerate do: leave both as they are there.

    Raises:
        DataError: what a source reads is not there, its first training document cannot be read, or it has none.
    """

    def __init__(self, config: DataConfig, tokenizer: DocumentTokenizer, *, rank: int = 0, num_ranks: int = 1) -> None:
        if not 0 <= rank < num_ranks:
            raise DataError(f"rank: got {rank}; expected 0 to {num_ranks - 1}, below num_ranks")
        self.config = config
        self.tokenizer = tokenizer
        self.rank = rank
        self.num_ranks = num_ranks
        # here and not in a worker, where an error would come late and wrapped
        sources = open_sources(config)
        for source in sources:
            if next(source.texts("training", config.held_out_share), None) is None:
                raise DataError(
                    f"source {source.name!r}: it has no training document at held_out_share {config.held_out_share}; "
                    "lower it, or add documents"
                )
        self._names = [source.name for source in sources]
        # Rows, bytes and epochs of each source, written by the first worker and read by the process that asks. There are two
        # copies, and `_turn` says which is whole: the other one may be half written when it is read.
        self._progress = torch.zeros(2, len(sources), 3, dtype=torch.int64).share_memory_()
        self._turn = torch.zeros((), dtype=torch.int64).share_memory_()

    def __iter__(self) -> Iterator[dict[str, Tensor | int]]:
        worker = get_worker_info()
        worker_id, num_workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        share, num_shares = self.rank * num_workers + worker_id, self.num_ranks * num_workers
        if worker_id == 0:
            turn = int(self._turn)
            self._progress[(turn + 1) % 2].zero_()
            self._turn.fill_(turn + 1)
        for index, row in enumerate(training_rows(self.config, self.tokenizer)):
            if worker_id == 0:
                self._count(row)
            if index % num_shares == share:
                yield row.features()

    def _count(self, row: Row) -> None:
        turn = int(self._turn)
        following = self._progress[(turn + 1) % 2]
        following.copy_(self._progress[turn % 2])
        counts = following[self._names.index(row.source)]
        counts[0] += 1
        counts[1] += row.num_bytes
        counts[2] = max(int(counts[2]), row.epoch)
        self._turn.fill_(turn + 1)

    def _whole_progress(self) -> list[list[int]]:
        while True:
            turn = int(self._turn)
            counts: list[list[int]] = self._progress[turn % 2].tolist()
            if int(self._turn) == turn:
                return counts

    def progress(self) -> tuple[SourceProgress, ...]:
        """What the rows handed out so far were made of, over all workers and ranks.

        The first worker counts as it passes rows, so what a DataLoader fetched ahead is in it, and so are batches that were
        skipped to resume.
        """
        return tuple(
            SourceProgress(name, num_rows, num_rows * self.config.sequence_length, num_bytes, num_epochs)
            for name, (num_rows, num_bytes, num_epochs) in zip(self._names, self._whole_progress(), strict=True)
        )


def check_fits(config: DataConfig, tokenizer: DocumentTokenizer, *, max_positions: int, vocab_size: int) -> None:
    """Whether rows fit a model, before anything is read.

    Args:
        config: what is asked for.
        tokenizer: which ids there will be.
        max_positions: tokens that the model has positions for (`max_position_embeddings`).
        vocab_size: ids that it embeds.

    Raises:
        DataError: rows are longer, or ids larger.
    """
    if config.sequence_length > max_positions:
        raise DataError(
            f"sequence_length: got {config.sequence_length}; expected 2 to {max_positions}, the positions of the model"
        )
    if tokenizer.vocab_size > vocab_size:
        raise DataError(
            f"tokenizer: its ids go up to {tokenizer.vocab_size - 1}; the model knows 0 to {vocab_size - 1}: take the model's own, "
            "or a model with more"
        )
