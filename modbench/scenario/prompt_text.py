"""The text that prompts are cut from: a UTF-8 file, or a folder of them."""

from pathlib import Path

from modbench.errors import ScenarioError
from modbench.scenario.models import Prompt
from modbench.scenario.source import is_irregular

SUFFIXES = (".md", ".txt")


def read_prompt_text(prompt: Prompt, base: Path) -> bytes:
    """Read the text of a prompt; `prompt.text` is relative to `base`, the scenario file's folder.

    Raises:
        ScenarioError: without a location: see `read_text_source`.
    """
    assert prompt.text is not None, "a synthetic prompt has no text"
    return read_text_source(base / prompt.text)


def read_text_source(path: Path) -> bytes:
    """Read a text file, or a folder's `*.md` and `*.txt` (hidden ones left out) joined in name order by a newline.

    Raises:
        ScenarioError: without a location: nothing there, unreadable, not UTF-8, or no text in it.
    """
    try:
        files = _files_in(path) if path.is_dir() else [path]
        if files == [path] and is_irregular(path):
            raise ScenarioError(
                f"got {str(path)!r}, which is not a regular file; expected a UTF-8 text file, or a folder of them"
            )
        if files == [path] and not path.is_file():
            raise ScenarioError(
                f"got {str(path)!r}, which does not exist; expected a UTF-8 text file, or a folder of them"
            )
        parts = [file.read_bytes() for file in files]
    except OSError as error:
        raise ScenarioError(f"got {str(path)[:200]!r}, which cannot be read ({error.strerror})") from None
    for file, part in zip(files, parts, strict=True):
        try:
            part.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ScenarioError(
                f"got {str(file)!r}, which is not UTF-8 at byte {error.start}; expected UTF-8 text"
            ) from None
    text = b"\n".join(parts)
    if not text.strip():
        raise ScenarioError(
            f"got {str(path)!r}, which holds no text; expected a text file, or a folder of *.md and *.txt"
        )
    return text


def _files_in(folder: Path) -> list[Path]:
    files = [path for path in folder.iterdir() if path.suffix in SUFFIXES and not path.name.startswith(".")]
    return sorted((path for path in files if path.is_file()), key=lambda path: path.name)
