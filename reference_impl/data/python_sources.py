"""Text that is on every machine with this project: Python's standard library, its documentation strings, and this repository.

In: nothing but what is installed. Out: files, and what is read from them. What is found differs between versions of Python and
revisions of the repository, so a comparison of models names both.
"""

import ast
import io
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path

from reference_impl.data.documents import Document, decode, files_of, read_file
from reference_impl.errors import DataError

# Other people's packages, tests with their data, and tables: `encodings` is 1 MB of character maps, and `_sysconfigdata` files
# are how this Python was built.
SKIPPED_STDLIB = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "__pycache__"}
SKIPPED_STDLIB_PREFIX = "_sysconfigdata"

REPOSITORY_SUFFIXES = (".md", ".py", ".yaml")
PACKAGES = ("modbench", "reference_impl")
CHECKOUT_FOLDERS = ("benchmarks", "docs", "examples", *PACKAGES, "scenarios", "tests")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def stdlib_files() -> tuple[Path, ...]:
    """The modules of the installed Python's standard library but those of SKIPPED_STDLIB.

    Raises:
        DataError: they are not there as files, as in a Python whose library is an archive.
    """
    paths = files_of(Path(sysconfig.get_path("stdlib")), (".py",), SKIPPED_STDLIB)
    return tuple(path for path in paths if not path.name.startswith(SKIPPED_STDLIB_PREFIX))


def python_documents(path: Path) -> Iterator[Document]:
    """The module as one document, decoded as Python decodes it; none where it is empty, as many `__init__.py` are.

    Raises:
        DataError: it cannot be read or decoded.
    """
    data = read_file(path)
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be decoded: {error}; leave the source out, or mend the file") from error
    if text.strip():
        yield Document(str(path), text)


def docstrings_of(document: Document) -> str:
    """The documentation strings of a module's source, in their order, an empty line between two; empty where it has none.

    Raises:
        DataError: the text is not Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old escapes and the like: the text is somebody else's
        try:
            module = ast.parse(document.text)
        except (SyntaxError, ValueError, RecursionError) as error:
            raise DataError(f"{document.id}: cannot be parsed: {error}; leave the source out") from error
    nodes = [node for node in ast.walk(module) if isinstance(node, DOCUMENTED) and ast.get_docstring(node)]
    nodes.sort(key=lambda node: (node.body[0].lineno, node.body[0].col_offset))
    return "\n\n".join(ast.get_docstring(node) or "" for node in nodes)


def repository_root() -> Path:
    """The folder that holds this package: the checkout, or the environment it is installed in."""
    return Path(__file__).resolve().parents[2]


def repository_files() -> tuple[Path, ...]:
    """Documentation, scenarios and sources of this project's checkout; where it is installed without one, the two packages."""
    root = repository_root()
    is_checkout = (root / "pyproject.toml").is_file()
    folders = [root / name for name in (CHECKOUT_FOLDERS if is_checkout else PACKAGES) if (root / name).is_dir()]
    pages = sorted(root.glob("*.md")) if is_checkout else []
    return (*pages, *(path for folder in folders for path in files_of(folder, REPOSITORY_SUFFIXES)))


def repository_documents(path: Path) -> Iterator[Document]:
    """The file as one document; none where it is empty.

    Raises:
        DataError: it cannot be read, or is not UTF-8.
    """
    text = decode(read_file(path), str(path))
    if text.strip():
        yield Document(str(path), text)
