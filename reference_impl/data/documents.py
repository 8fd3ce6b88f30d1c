"""Documents and the files that hold them. In: paths and bytes. Out: `Document`s, or one error that says what is wrong where."""

import json
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reference_impl.errors import DataError

MAX_DOCUMENT_BYTES = 16 * 2**20  # a document is held in memory, several times while it is tokenised


class Document(NamedTuple):
    """A text, and where it is from: a path, with a line or row where a file holds several."""

    id: str
    text: str


def files_of(root: Path, suffixes: Sequence[str], skipped: Collection[str] = ()) -> tuple[Path, ...]:
    """The file itself, or all files of the folder and its subfolders with one of the suffixes, in the order of their names.

    What starts with a dot is left out, and so are folders whose names are in `skipped`. Links to folders are not followed.

    Raises:
        DataError: nothing is there, the folder cannot be listed, or it holds no such file.
    """
    if root.is_file():
        return (root,)
    if not root.is_dir():
        raise DataError(
            f"{root}: not there, or neither file nor folder; expected a file, or a folder of {_any_of(suffixes)} files"
        )
    found = []
    for folder, subfolders, names in os.walk(root, onerror=_refuse_folder):
        subfolders[:] = [name for name in subfolders if name not in skipped and not name.startswith(".")]
        paths = [Path(folder, name) for name in names if name.endswith(tuple(suffixes)) and not name.startswith(".")]
        found += [path for path in paths if path.is_file()]
    if not found:
        raise DataError(f"{root}: no {_any_of(suffixes)} file there; expected at least one")
    return tuple(sorted(found, key=lambda path: path.relative_to(root).parts))


def _any_of(suffixes: Sequence[str]) -> str:
    return " or ".join(suffixes)


def _refuse_folder(error: OSError) -> None:
    raise DataError(
        f"{error.filename}: cannot be listed: {error.strerror}; make it readable, or move it elsewhere"
    ) from error


def read_file(path: Path) -> bytes:
    """The whole file.

    Raises:
        DataError: it cannot be read, or is larger than a document may be.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; name a file that can") from error
    if len(data) > MAX_DOCUMENT_BYTES:
        raise DataError(
            f"{path}: larger than {MAX_DOCUMENT_BYTES} bytes; expected at most that: split it, or write JSON lines"
        )
    return data


def decode(data: bytes, where: str, offset: int = 0) -> str:
    """UTF-8 -> text.

    Args:
        data: bytes that start `offset` bytes into the file.
        where: what the error names.
        offset: see above.

    Raises:
        DataError: they are not UTF-8; the text says at which byte of the file.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: byte {offset + error.start} is not UTF-8; convert the file to UTF-8") from error


def text_documents(path: Path, skip_empty: bool) -> Iterator[Document]:
    """The file as one document.

    Raises:
        DataError: it cannot be read, or is empty and not to be skipped.
    """
    text = decode(read_file(path), str(path))
    if has_text(text, str(path), skip_empty):
        yield Document(str(path), text)


def jsonl_documents(path: Path, field: str, skip_empty: bool) -> Iterator[Document]:
    """One document per line: the text at key `field` of the line's object. Lines are read one by one.

    Raises:
        DataError: a line is no JSON object, or has no such text; the text starts with file and line number.
    """
    offset = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_DOCUMENT_BYTES + 1), b""), start=1):
                where = f"{path}:{number}"
                if len(line) > MAX_DOCUMENT_BYTES:
                    raise DataError(f"{where}: longer than {MAX_DOCUMENT_BYTES} bytes; expected a line of at most that")
                text = field_text(_json_line(decode(line, where, offset), where), field, where)
                if has_text(text, where, skip_empty):
                    yield Document(where, text)
                offset += len(line)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; name a file that can") from error
    if not offset:
        raise DataError(f"{path}: the file is empty; expected a JSON object on every line")


def _json_line(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON; expected a JSON object on every line") from error


def field_text(row: Any, field: str, where: str) -> str:
    """The text at `field` of a JSON object, or of a row of a table.

    Raises:
        DataError: the row is no mapping, has no such field, or holds something else there.
    """
    if not isinstance(row, dict):
        raise DataError(f"{where}: got {_type_name(row)}; expected an object with a text at {field!r}")
    if field not in row:
        raise DataError(
            f"{where}: no field {field!r}; it has {', '.join(map(str, list(row)[:8])) or 'none'}: name one of them in `field`"
        )
    if not isinstance(row[field], str):
        raise DataError(f"{where}: {field!r} holds {_type_name(row[field])}; expected a text")
    return row[field]


def _type_name(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def has_text(text: str, where: str, skip_empty: bool) -> bool:
    """Whether the document counts: it has more than white space.

    Raises:
        DataError: it has not, and is not to be skipped; it is larger than a document may be; or it has characters that UTF-8
            cannot hold (halves of surrogate pairs, which JSON can spell).
    """
    if not text.strip():
        if skip_empty:
            return False
        raise DataError(f"{where}: the text is empty; remove it, or set skip_empty: true for its source")
    try:
        num_bytes = len(text.encode())
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: character {error.start} is half of a surrogate pair, which UTF-8 cannot hold; mend it"
        ) from error
    if num_bytes > MAX_DOCUMENT_BYTES:
        raise DataError(f"{where}: a text of {num_bytes} bytes; expected at most {MAX_DOCUMENT_BYTES}: split it")
    return True
