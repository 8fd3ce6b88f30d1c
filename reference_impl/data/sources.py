"""Sources: from where documents are read. In: a `SourceConfig`. Out: a `Source` that can be read any number of times."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from reference_impl.data.config import SourceConfig
from reference_impl.data.documents import Document, files_of, jsonl_documents, text_documents
from reference_impl.data.python_sources import (
    docstrings_of,
    python_documents,
    repository_documents,
    repository_files,
    stdlib_files,
)
from reference_impl.data.split import Side, side_of
from reference_impl.data.tabular_sources import (
    dataset_documents,
    open_dataset,
    parquet_documents,
    require_pyarrow,
)

Order = random.Random | None


@dataclass(frozen=True)
class Source:
    """Documents under a name.

    Attributes:
        name: as configured.
        weight: share of the training tokens, relative to the other sources.
        documents: reads them one after another. Given a random generator, files come in an order drawn from it, else in that of
            their names; within a file, and in a data set that is streamed, the order is its own.
        extract: what is trained on, from a document that was read, for sources that want a part of it; an empty text is passed
            over. The split goes by the document as it was read.
    """

    name: str
    weight: float
    documents: Callable[[Order], Iterator[Document]]
    extract: Callable[[Document], str] | None = None

    def texts(self, side: Side, held_out_share: float, order: Order = None) -> Iterator[str]:
        """The texts of one side of the split.

        Raises:
            DataError: a document cannot be read.
        """
        for document in self.documents(order):
            if side_of(document.text, held_out_share) == side:
                text = document.text if self.extract is None else self.extract(document)
                if text:
                    yield text


def open_source(config: SourceConfig) -> Source:
    """The source, with its files found and listed; none is read yet.

    Raises:
        DataError: a file, folder, data set or package that it needs is not there.
    """
    documents = OPENERS[config.kind](config)
    return Source(config.name, config.weight, documents, EXTRACTS.get(config.kind))


@dataclass(frozen=True)
class _Files:
    """The documents of files that are known by name."""

    paths: tuple[Path, ...]
    read: Callable[[Path], Iterator[Document]]

    def __call__(self, order: Order) -> Iterator[Document]:
        paths = list(self.paths)
        if order is not None:
            order.shuffle(paths)
        for path in paths:
            yield from self.read(path)


def _text(config: SourceConfig) -> _Files:
    paths = files_of(_path(config), config.suffixes or ())
    return _Files(paths, partial(text_documents, skip_empty=bool(config.skip_empty)))


def _jsonl(config: SourceConfig) -> _Files:
    read = partial(jsonl_documents, field=str(config.field), skip_empty=bool(config.skip_empty))
    return _Files(files_of(_path(config), (".jsonl",)), read)


def _parquet(config: SourceConfig) -> _Files:
    require_pyarrow()
    read = partial(parquet_documents, field=str(config.field), skip_empty=bool(config.skip_empty))
    return _Files(files_of(_path(config), (".parquet",)), read)


def _datasets(config: SourceConfig) -> Callable[[Order], Iterator[Document]]:
    dataset = open_dataset(config)
    return lambda order: dataset_documents(dataset, config)


def _python(config: SourceConfig) -> _Files:
    return _Files(stdlib_files(), python_documents)


def _repository(config: SourceConfig) -> _Files:
    return _Files(repository_files(), repository_documents)


def _path(config: SourceConfig) -> Path:
    assert config.path is not None, "checked by SourceConfig"
    return Path(config.path)


OPENERS: dict[str, Callable[[SourceConfig], Callable[[Order], Iterator[Document]]]] = {
    "text": _text,
    "jsonl": _jsonl,
    "parquet": _parquet,
    "datasets": _datasets,
    "stdlib": _python,
    "docstrings": _python,
    "repository": _repository,
}
EXTRACTS = {"docstrings": docstrings_of}
