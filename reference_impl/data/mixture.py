"""Several sources -> one stream of rows in which each has its share of the tokens. In: a `DataConfig`. Out: `Row`s.

All of a row is from one source, and all rows are equally long, so a share of the rows is the same share of the tokens, however
long the documents of a source are. Within every BLOCK_ROWS rows the counts are as near to the weights as whole rows allow;
their order is drawn from the seed. Source: our choice.

A source is read in passes: its files in an order drawn for each pass, its rows through a buffer of `shuffle_rows`. When it ends
it starts again. What a source yields depends on the seed and its own name, never on the other sources.
"""

import itertools
import random
from collections.abc import Iterator, Sequence

from reference_impl.data.config import DataConfig
from reference_impl.data.rows import Packer, Row
from reference_impl.data.sources import Source, open_source
from reference_impl.data.split import Side
from reference_impl.data.tokens import DocumentTokenizer
from reference_impl.errors import DataError

BLOCK_ROWS = 64
HELD_OUT_SEED = "held out"  # in the place of the configured one


def open_sources(config: DataConfig) -> tuple[Source, ...]:
    """The sources with a weight above 0.

    Raises:
        DataError: what one of them reads is not there.
    """
    return tuple(open_source(source) for source in config.sources if source.weight > 0)


def training_rows(config: DataConfig, tokenizer: DocumentTokenizer) -> Iterator[Row]:
    """The rows to train on, without end: the same for the same settings, tokenizer and documents.

    Raises:
        DataError: a document cannot be read, or a source has none on this side of the split.
    """
    sources = open_sources(config)
    streams = [_endless_rows(source, config, tokenizer) for source in sources]
    for index in schedule([source.weight for source in sources], random.Random(f"{config.seed}")):
        yield next(streams[index])


def held_out_rows(config: DataConfig, tokenizer: DocumentTokenizer, num_rows: int) -> list[Row]:
    """`num_rows` rows of held-out documents, in the same shares as in training; the same ones whatever the seed.

    No part of a document is there twice.

    Raises:
        DataError: nothing is held out, or a source has too little of it.
    """
    if config.held_out_share == 0:
        raise DataError("held_out_share: got 0, so nothing is held out; expected a share above 0, such as 0.05")
    if num_rows < 1:
        raise DataError(f"num_rows: got {num_rows}; expected an integer >= 1")
    sources = open_sources(config)
    streams = []
    for source in sources:
        order = random.Random(f"{HELD_OUT_SEED}:{source.name}")
        rows = _pass_rows(source, "held_out", config, tokenizer, _packer(config), order, epoch=0)
        streams.append(shuffled(rows, config.shuffle_rows, order))
    found: list[Row] = []
    for index in schedule([source.weight for source in sources], random.Random(HELD_OUT_SEED)):
        row = next(streams[index], None)
        if row is None:
            raise DataError(
                f"source {sources[index].name!r}: held-out documents end after {len(found)} of {num_rows} rows in all; "
                "ask for fewer or shorter rows, raise held_out_share, or give the source less weight"
            )
        found.append(row)
        if len(found) == num_rows:
            break
    return found


def training_texts(config: DataConfig, num_bytes: int) -> Iterator[str]:
    """Whole documents to train a tokenizer on: from each source its share of `num_bytes`, or all that it has."""
    sources = open_sources(config)
    total_weight = sum(source.weight for source in sources)
    for source in sources:
        order = random.Random(f"{config.seed}:{source.name}:0")
        wanted = num_bytes * source.weight / total_weight
        for text in source.texts("training", config.held_out_share, order):
            if wanted <= 0:
                break
            yield text
            wanted -= len(text.encode())


def schedule(weights: Sequence[float], order: random.Random) -> Iterator[int]:
    """Which source each row is from, without end: the index of a weight.

    Each time it is the source that is furthest behind its share; a block of these is then put into an order drawn at random, so
    that no rhythm of the weights meets one of batches or workers.
    """
    shares = [weight / sum(weights) for weight in weights]
    counts = [0] * len(weights)
    for num_blocks in itertools.count():
        block = []
        for num_rows in range(num_blocks * BLOCK_ROWS + 1, (num_blocks + 1) * BLOCK_ROWS + 1):
            behind = [share * num_rows - count for share, count in zip(shares, counts, strict=True)]
            index = behind.index(max(behind))
            counts[index] += 1
            block.append(index)
        order.shuffle(block)
        yield from block


def shuffled(rows: Iterator[Row], num_held: int, order: random.Random) -> Iterator[Row]:
    """The rows in another order: each is drawn from `num_held` that are held back, the next one taking its place."""
    held = list(itertools.islice(rows, num_held))
    for row in rows:
        index = order.randrange(len(held))
        yield held[index]
        held[index] = row
    order.shuffle(held)
    yield from held


def _endless_rows(source: Source, config: DataConfig, tokenizer: DocumentTokenizer) -> Iterator[Row]:
    packer = _packer(config)  # of all passes: the end of one shares a row with the beginning of the next
    passes = (
        _pass_rows(
            source, "training", config, tokenizer, packer, random.Random(f"{config.seed}:{source.name}:{epoch}"), epoch
        )
        for epoch in itertools.count()
    )
    return shuffled(
        itertools.chain.from_iterable(passes), config.shuffle_rows, random.Random(f"{config.seed}:{source.name}")
    )


def _pass_rows(
    source: Source,
    side: Side,
    config: DataConfig,
    tokenizer: DocumentTokenizer,
    packer: Packer,
    order: random.Random,
    epoch: int,
) -> Iterator[Row]:
    """The rows that one pass over a source fills; the last tokens stay in the packer."""
    is_empty = True
    for text in source.texts(side, config.held_out_share, order):
        is_empty = False
        yield from packer.rows(tokenizer.encode(text), source.name, epoch)
    if is_empty:
        wanted = "lower it" if side == "training" else "raise it"
        raise DataError(
            f"source {source.name!r}: none of its documents are {side.replace('_', ' ')} ones at held_out_share "
            f"{config.held_out_share}; {wanted}, or add documents"
        )


def _packer(config: DataConfig) -> Packer:
    return Packer(config.sequence_length, respects_boundaries=config.boundaries == "respect")
