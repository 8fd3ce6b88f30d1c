"""Files, lines and rows as documents, and what is said about those that are none."""

import itertools
import json
import random
import sys
from types import SimpleNamespace

import pytest

from reference_impl.data import SourceConfig, documents, open_source
from reference_impl.errors import DataError


def read(order=None, **settings):
    return list(open_source(SourceConfig(**settings)).documents(order))


def texts_of(**settings):
    return [document.text for document in read(**settings)]


def assert_refused(match, **settings):
    with pytest.raises(DataError, match=match) as caught:
        read(**settings)
    assert "\n" not in str(caught.value)


@pytest.fixture
def folder(tmp_path):
    for name in ("b.txt", "a.md", "c/z.txt", "c/.hidden.txt", ".git/x.txt", "d.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"text of {name}\n")
    return tmp_path


def test_a_folder_of_text_is_read_file_by_file_in_the_order_of_names(folder):
    found = read(kind="text", path=folder)
    assert [document.text for document in found] == ["text of a.md\n", "text of b.txt\n", "text of c/z.txt\n"]
    assert found[0].id == str(folder / "a.md")


def test_suffixes_say_which_files_are_text(folder):
    assert texts_of(kind="text", path=folder, suffixes=[".py"]) == ["text of d.py\n"]


def test_a_file_is_text_whatever_its_suffix(folder):
    assert texts_of(kind="text", path=folder / "d.py") == ["text of d.py\n"]


def test_text_is_taken_as_it_is(tmp_path):
    text = "\ufeffline\r\nend \x00\t漢"
    (tmp_path / "a.txt").write_bytes(text.encode())
    assert texts_of(kind="text", path=tmp_path) == [text]


def test_a_random_order_permutes_files_and_is_repeatable(tmp_path):
    for index in range(20):
        (tmp_path / f"{index:02}.txt").write_text(f"{index}")
    orders = [tuple(map(int, texts_of(kind="text", path=tmp_path, order=random.Random(seed)))) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == list(range(20)) != list(orders[0])


def test_what_is_not_there_is_refused(tmp_path):
    assert_refused("nowhere: not there", kind="text", path=tmp_path / "nowhere")
    assert_refused(r"no \.md or \.txt file there", kind="text", path=tmp_path)


def test_an_empty_file_is_refused_or_passed_over_on_request(folder):
    (folder / "b.txt").write_text(" \n")
    assert_refused("b.txt: the text is empty; .*skip_empty", kind="text", path=folder)
    assert len(read(kind="text", path=folder, skip_empty=True)) == 2


def test_bytes_that_are_not_utf8_are_refused_with_file_and_offset(folder):
    (folder / "b.txt").write_bytes(b"caf\xe9 and more")
    assert_refused("b.txt: byte 3 is not UTF-8", kind="text", path=folder)


def test_a_document_too_large_to_hold_is_refused(folder, monkeypatch):
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 13)
    (folder / "b.txt").write_text("a" * 14)
    assert_refused("b.txt: larger than 13 bytes", kind="text", path=folder)


def test_a_file_that_is_gone_when_it_is_read_is_an_error_of_one_line(folder):
    source = open_source(SourceConfig("text", path=folder))
    (folder / "a.md").unlink()
    with pytest.raises(DataError, match=r"a\.md: cannot be read: No such file"):
        next(source.documents(None))


def write_lines(path, *rows):
    path.write_bytes(b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows))


def test_json_lines_are_documents_named_by_file_and_line(tmp_path):
    write_lines(tmp_path / "a.jsonl", {"text": "one\ntwo", "x": 1}, {"text": "三"})
    found = read(kind="jsonl", path=tmp_path)
    assert [document.text for document in found] == ["one\ntwo", "三"]
    assert found[1].id == f"{tmp_path / 'a.jsonl'}:2"
    write_lines(tmp_path / "a.jsonl", {"content": "other"})
    assert texts_of(kind="jsonl", path=tmp_path / "a.jsonl", field="content") == ["other"]


BAD_LINES = {
    r":2: not JSON": b"{'text'}\n",
    r":2: not JSON; expected a JSON object on every line": b"\n",
    r":2: no field 'text'; it has content, id": {"content": "x", "id": 1},
    r":2: 'text' holds a list": {"text": ["x"]},
    r":2: 'text' holds nothing": {"text": None},
    r":2: got a list; expected an object": ["text"],
    r":2: the text is empty": {"text": ""},
    r":2: character 1 is half of a surrogate pair": b'{"text": "a\\ud800"}\n',
    r":2: byte 27 is not UTF-8": b'{"text": "\xff"}\n',
    r":2: not JSON; expected": b"[" * 100_000,
}


@pytest.mark.parametrize("match", BAD_LINES)
def test_a_bad_line_is_refused_with_its_number_after_the_good_ones_before_it(tmp_path, match):
    write_lines(tmp_path / "a.jsonl", {"text": "good"}, BAD_LINES[match])
    found = open_source(SourceConfig("jsonl", path=tmp_path)).documents(None)
    assert next(found).text == "good"
    with pytest.raises(DataError, match=match):
        next(found)


def test_a_file_without_lines_and_a_line_too_long_are_refused(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_bytes(b"")
    assert_refused(r"a\.jsonl: the file is empty", kind="jsonl", path=tmp_path)
    write_lines(tmp_path / "a.jsonl", {"text": "x" * 100})
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 50)
    assert_refused(r"a\.jsonl:1: longer than 50 bytes", kind="jsonl", path=tmp_path)


def test_lines_without_text_are_passed_over_on_request(tmp_path):
    write_lines(tmp_path / "a.jsonl", {"text": ""}, {"text": "x"}, {"text": " "})
    assert texts_of(kind="jsonl", path=tmp_path, skip_empty=True) == ["x"]


@pytest.mark.parametrize("kind", ["parquet", "datasets"])
def test_a_missing_package_is_named_with_how_to_install_it(kind, tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    settings = {"path": tmp_path} if kind == "parquet" else {"dataset": "someone/tales"}
    assert_refused(r"which needs .*is not installed: install modbench\[data\]", kind=kind, **settings)


def test_parquet_rows_are_documents(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is an optional package")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an optional package")
    path = tmp_path / "a.parquet"
    texts = [f"text {index}" for index in range(600)]  # more than are read at once
    parquet.write_table(pyarrow.table({"text": texts, "number": range(600), "gap": [None, *texts[1:]]}), path)
    found = read(kind="parquet", path=tmp_path)
    assert [document.text for document in found] == texts
    assert found[599].id == f"{path}:599"
    assert_refused("no column 'content'; it has text, number, gap", kind="parquet", path=path, field="content")
    assert_refused(":0: 'number' holds a int; expected a text", kind="parquet", path=path, field="number")
    assert_refused(":0: 'gap' holds nothing", kind="parquet", path=path, field="gap")
    path.write_bytes(b"no parquet")
    assert_refused(r"a\.parquet: cannot be read as Parquet", kind="parquet", path=path)
    parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), path)
    assert_refused(r"a\.parquet: the file has no rows", kind="parquet", path=path)


def fake_datasets(monkeypatch, load_dataset):
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))


def test_a_data_set_is_streamed_with_the_settings_given(monkeypatch):
    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        batches = ({"content": [f"text {2 * index}", f"text {2 * index + 1}"]} for index in itertools.count())
        return SimpleNamespace(iter=lambda batch_size: batches)

    fake_datasets(monkeypatch, load_dataset)
    source = open_source(SourceConfig("datasets", dataset="someone/tales", subset="en", field="content"))
    found = list(itertools.islice(source.documents(None), 3))
    assert [document.text for document in found] == ["text 0", "text 1", "text 2"]
    assert found[2].id == "someone/tales:2"
    assert asked == [(("someone/tales", "en"), {"split": "train", "revision": None, "streaming": True})]


def test_a_data_set_that_cannot_be_opened_or_read_on_is_an_error_of_one_line(monkeypatch):
    def refuse(*args, **kwargs):
        raise FileNotFoundError("no such data set\nwith details")

    def broken(batch_size):
        yield {"text": ["one"]}
        raise ConnectionError("the line is dead")

    fake_datasets(monkeypatch, refuse)
    assert_refused("someone/tales: cannot be opened: no such data set$", kind="datasets", dataset="someone/tales")
    fake_datasets(monkeypatch, lambda *args, **kwargs: SimpleNamespace(iter=broken))
    assert_refused("reading stopped: the line is dead", kind="datasets", dataset="someone/tales")


def test_a_row_too_large_to_hold_is_refused(monkeypatch):
    batches = iter([{"text": ["é" * 7]}])
    fake_datasets(monkeypatch, lambda *args, **kwargs: SimpleNamespace(iter=lambda batch_size: batches))
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 13)
    assert_refused("someone/tales:0: a text of 14 bytes; expected at most 13", kind="datasets", dataset="someone/tales")


def test_every_worker_reads_a_data_set_whole(tmp_path, monkeypatch):
    pytest.importorskip("datasets", reason="datasets is an optional package")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    write_lines(tmp_path / "a.jsonl", *({"text": f"text {index}"} for index in range(600)))
    source = open_source(SourceConfig("datasets", dataset=str(tmp_path)))
    expected = [f"text {index}" for index in range(600)]
    for _ in range(2):
        assert [document.text for document in source.documents(None)] == expected
    monkeypatch.setattr("torch.utils.data._utils.worker._worker_info", SimpleNamespace(id=1, num_workers=2))
    assert [document.text for document in source.documents(None)] == expected
