"""Documents of Parquet files and of data sets, through pyarrow and datasets: optional packages, imported when asked for.

In: a file or the name of a data set, and a column. Out: `Document`s, a batch of rows in memory at a time.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reference_impl.data.config import SourceConfig
from reference_impl.data.documents import Document, field_text, has_text
from reference_impl.errors import DataError

BATCH_ROWS = 256  # in memory at once
INSTALL = "install modbench[data]"


def require_pyarrow() -> Any:
    """pyarrow.parquet.

    Raises:
        DataError: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"kind: got 'parquet', which needs pyarrow, and that is not installed: {INSTALL}") from error
    return pyarrow.parquet


def parquet_documents(path: Path, field: str, skip_empty: bool) -> Iterator[Document]:
    """One document per row: the text of column `field`.

    Raises:
        DataError: the file is no Parquet file, has no such column, or holds something else in it; the text starts with file and
            row, counted from 0.
    """
    parquet = require_pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            if field not in file.schema_arrow.names:
                known = ", ".join(file.schema_arrow.names[:8]) or "none"
                raise DataError(f"{path}: no column {field!r}; it has {known}: name one of them in `field`")
            if not file.metadata.num_rows:
                raise DataError(f"{path}: the file has no rows; expected at least one")
            batches = file.iter_batches(batch_size=BATCH_ROWS, columns=[field])
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from _row_documents(rows, f"{path}:", field, skip_empty)
    except DataError:
        raise
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise DataError(f"{path}: cannot be read as Parquet: {_first_line(error)}; expected a Parquet file") from error


def _row_documents(rows: Iterator[Any], prefix: str, field: str, skip_empty: bool) -> Iterator[Document]:
    for index, row in enumerate(rows):
        where = f"{prefix}{index}"
        text = field_text(row, field, where)
        if has_text(text, where, skip_empty):
            yield Document(where, text)


def open_dataset(config: SourceConfig) -> Any:
    """The data set, to be streamed.

    Raises:
        DataError: datasets is not installed, or knows no such data set, or cannot reach it.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"kind: got 'datasets', which needs datasets, and that is not installed: {INSTALL}") from error
    try:
        return datasets.load_dataset(
            config.dataset, config.subset, split=config.split, revision=config.revision, streaming=True
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{config.dataset}: cannot be opened: {_first_line(error)}") from error


def dataset_documents(dataset: Any, config: SourceConfig) -> Iterator[Document]:
    """One document per example, in the data set's own order.

    Raises:
        DataError: an example has no text at the field, or the next one cannot be read.
    """
    assert config.field is not None and config.skip_empty is not None, "filled in by SourceConfig"
    yield from _row_documents(_examples(dataset, config), f"{config.dataset}:", config.field, config.skip_empty)


def _examples(dataset: Any, config: SourceConfig) -> Iterator[dict[str, Any]]:
    # in batches: one by one, a DataLoader's worker would be given a part of the files, and TrainingSet divides rows itself
    batches = dataset.iter(batch_size=BATCH_ROWS)
    while True:
        try:
            batch = next(batches, None)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{config.dataset}: reading stopped: {_first_line(error)}; try again, or use a copy on disk"
            ) from error
        if batch is None:
            return
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
