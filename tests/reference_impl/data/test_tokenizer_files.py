import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from reference_impl.data import ByteTokenizer, DataConfig, SourceConfig, train_tokenizer, write_byte_tokenizer
from reference_impl.data.mixture import training_texts
from reference_impl.data.tokenizer_files import _byte_character
from reference_impl.errors import DataError
from tests.reference_impl.conftest import dense_model

TEXT = "Größe\r\n\t漢字  <|endoftext|> \x00 🙂 don't"


@pytest.fixture(scope="module")
def byte_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bytes") / "made"
    write_byte_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def byte_tokenizer(byte_folder):
    return AutoTokenizer.from_pretrained(byte_folder)


def test_the_byte_tokenizer_as_files_has_the_same_ids_as_without(byte_tokenizer):
    assert byte_tokenizer.eos_token_id == ByteTokenizer().end_of_document
    assert len(byte_tokenizer) == ByteTokenizer().vocab_size
    assert byte_tokenizer(TEXT, split_special_tokens=True)["input_ids"] == list(TEXT.encode())


def test_every_byte_has_the_token_of_its_value(byte_tokenizer):
    characters = [_byte_character(value) for value in range(256)]
    assert byte_tokenizer.convert_ids_to_tokens(list(range(256))) == characters
    assert len(set(characters)) == 256


@settings(deadline=None)
@given(text=st.text(st.characters(codec="utf-8")))
def test_any_text_comes_back_from_its_bytes(byte_tokenizer, text):
    assert byte_tokenizer.decode(byte_tokenizer(text, split_special_tokens=True)["input_ids"]) == text


def test_the_byte_tokenizer_loads_beside_a_model(tmp_path):
    dense_model(vocab_size=257).save_pretrained(tmp_path)
    write_byte_tokenizer(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("é")["input_ids"] == [0xC3, 0xA9]


def test_a_tokenizer_is_never_overwritten(byte_folder):
    before = (byte_folder / "tokenizer.json").read_bytes()
    with pytest.raises(DataError, match=r"tokenizer\.json: is there already"):
        write_byte_tokenizer(byte_folder)
    with pytest.raises(DataError, match=r"tokenizer\.json: is there already"):
        train_tokenizer(DataConfig(), byte_folder, 300)
    assert (byte_folder / "tokenizer.json").read_bytes() == before


def test_a_folder_that_cannot_be_written_is_an_error_of_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot be written"):
        write_byte_tokenizer(tmp_path / "file" / "folder")


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for index in range(30):
        (folder / f"{index:02}.txt").write_text(f"the cat number {index} sat on the mat, and that was that. 漢字\n" * 4)
    return DataConfig(sources=(SourceConfig("text", path=folder),), held_out_share=0.2)


def test_a_trained_tokenizer_is_the_same_each_time_and_loads(corpus, tmp_path):
    for name in ("one", "two"):
        trained = train_tokenizer(corpus, tmp_path / name, 300)
    assert (tmp_path / "one" / "tokenizer.json").read_bytes() == (tmp_path / "two" / "tokenizer.json").read_bytes()
    loaded = AutoTokenizer.from_pretrained(tmp_path / "one")
    assert len(loaded) == trained.vocab_size == 300
    assert loaded.eos_token_id == trained.end_of_document
    ids = loaded(TEXT, split_special_tokens=True)["input_ids"]
    assert loaded.decode(ids) == TEXT
    assert ids == trained.encode(TEXT).ids_T[:-1].tolist()
    assert len(loaded("the cat sat on the mat")["input_ids"]) < 12  # of 22 bytes


def test_held_out_documents_are_not_trained_on_and_the_text_is_as_long_as_asked(corpus):
    read = list(training_texts(corpus, 10**6))
    assert 0 < len(read) < 30
    first = list(training_texts(corpus, 500))  # documents are about 240 bytes
    assert first == read[: len(first)]
    assert sum(len(text.encode()) for text in first[:-1]) < 500 <= sum(len(text.encode()) for text in first)


def test_a_vocabulary_that_is_too_small_or_too_large_is_refused(corpus, tmp_path):
    with pytest.raises(DataError, match="vocab_size: got 256; expected at least 257"):
        train_tokenizer(corpus, tmp_path / "made", 256)
    with pytest.raises(DataError, match="vocab_size: got 5000; the text is enough for"):
        train_tokenizer(corpus, tmp_path / "made", 5000)
    assert not (tmp_path / "made").exists()
