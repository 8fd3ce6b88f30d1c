import ast
import inspect
import sysconfig
from pathlib import Path

import pytest

from reference_impl.data import Document, SourceConfig, open_source, python_sources
from reference_impl.errors import DataError

STDLIB = Path(sysconfig.get_path("stdlib"))


def relative_names(paths, root):
    return {path.relative_to(root).as_posix() for path in paths}


def test_the_standard_library_is_read_without_tests_packages_and_tables():
    names = relative_names(python_sources.stdlib_files(), STDLIB)
    assert {"argparse.py", "asyncio/events.py", "json/decoder.py"} <= names
    folders = {part for name in names for part in name.split("/")[:-1]}
    assert not folders & {"test", "tests", "site-packages", "dist-packages", "encodings"}
    assert not any(name.startswith("_sysconfigdata") for name in names)


def test_a_module_is_decoded_as_it_declares(tmp_path):
    path = tmp_path / "a.py"
    path.write_bytes("# coding: latin-1\n'é'\n".encode("latin-1"))
    (document,) = python_sources.python_documents(path)
    assert document.text == "# coding: latin-1\n'é'\n"
    path.write_bytes(b"# coding: utf-8\n'\xe9'\n")
    with pytest.raises(DataError, match=r"a\.py: cannot be decoded"):
        next(python_sources.python_documents(path))
    path.write_bytes(b"\n")
    assert list(python_sources.python_documents(path)) == []


MODULE = '''"""Of the module."""
class A:
    """Of A.

    Indented.
    """
    def f(self):
        """Of f."""
async def g():
    "Of g."
def silent():
    return "no documentation"
'''


def test_documentation_strings_come_in_their_order_and_without_indentation():
    expected = "Of the module.\n\nOf A.\n\nIndented.\n\nOf f.\n\nOf g."
    assert python_sources.docstrings_of(Document("m", MODULE)) == expected
    assert python_sources.docstrings_of(Document("m", "x = 1\n")) == ""


def test_odd_escapes_of_somebody_elses_module_are_no_warnings():
    assert python_sources.docstrings_of(Document("m", '"""\\d"""')) == "\\d"


def test_what_is_not_python_is_refused():
    with pytest.raises(DataError, match="somewhere: cannot be parsed"):
        python_sources.docstrings_of(Document("somewhere", "def ("))


def test_a_module_and_its_documentation_strings_are_on_the_same_side_of_the_split(monkeypatch):
    paths = tuple(STDLIB / name for name in ("abc.py", "bisect.py", "heapq.py", "queue.py", "sched.py", "textwrap.py"))
    monkeypatch.setattr(python_sources, "stdlib_files", lambda: paths)
    monkeypatch.setattr("reference_impl.data.sources.stdlib_files", lambda: paths)
    modules, docstrings = (open_source(SourceConfig(kind)) for kind in ("stdlib", "docstrings"))
    for side in ("training", "held_out"):
        expected = [python_sources.docstrings_of(Document("m", text)) for text in modules.texts(side, 0.5)]
        assert list(docstrings.texts(side, 0.5)) == expected
        assert expected  # of the six, both sides have some
    assert inspect.cleandoc(ast.get_docstring(ast.parse(paths[2].read_text()))) in "".join(
        [*docstrings.texts("training", 0.5), *docstrings.texts("held_out", 0.5)]
    )


def test_the_repository_is_documentation_and_sources_of_the_checkout():
    root = python_sources.repository_root()
    names = relative_names(python_sources.repository_files(), root)
    assert {"README.md", "docs/method.md", "reference_impl/router.py", "modbench/cli.py"} <= names
    assert {name.rpartition(".")[2] for name in names} == {"md", "py", "yaml"}
    assert not any(name.startswith(("reports/", ".venv/")) for name in names)


def test_without_a_checkout_the_installed_packages_are_the_repository(tmp_path, monkeypatch):
    for name in ("reference_impl/a.py", "modbench/b.py", "other/c.py", "docs/d.md", "e.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    monkeypatch.setattr(python_sources, "repository_root", lambda: tmp_path)
    assert relative_names(python_sources.repository_files(), tmp_path) == {"reference_impl/a.py", "modbench/b.py"}
