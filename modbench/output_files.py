"""What commands write: files into a folder that may be a stranger's, where nothing leads a write elsewhere; or one text.

In: a folder of the user's choice, which may itself be a link, and contents by relative name. Out: the files, each in one step.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from modbench.errors import OutputError

PARTIAL_SUFFIX = ".partial"


def write_files(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write every `NAME` or `SUBFOLDER/NAME`, replacing what has that name, a link or pipe too; returns their paths.

    Raises:
        OutputError: a subfolder is a link.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        if path.parent != folder:
            _make_subfolder(path.parent)
        replace_file(path, content)
    return [folder / name for name in files]


def replace_file(path: Path, content: bytes) -> None:
    """Write beside and rename: whatever had the name stays whole until then, and is never written through.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")
    partial.unlink(missing_ok=True)
    try:
        with partial.open("xb") as file:
            file.write(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)  # of a write that failed


def put_text(text: str, output: Path | None) -> None:
    """Print the text, or write it into a file.

    Raises:
        OutputError: the file cannot be written.
    """
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"{output}: cannot be written: {error.strerror}; name a file in a folder that is there"
        ) from error


def _make_subfolder(path: Path) -> None:
    if path.is_symlink():
        raise OutputError(f"{path}: got a link; expected a folder of the report's own; delete the link")
    path.mkdir(exist_ok=True)
