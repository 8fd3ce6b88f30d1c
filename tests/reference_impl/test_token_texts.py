import pytest

from reference_impl.errors import TextError
from reference_impl.token_texts import byte_texts, offset_texts, tokenise
from tests.reference_impl.small_tokenizer import write_tokenizer

TEXT = "A  Größe,\n漢字 end\t"


@pytest.mark.parametrize("text", [TEXT, "plain", "é" * 5])
def test_the_pieces_of_bytes_joined_are_the_text(text):
    pieces = byte_texts(text.encode())
    assert "".join(pieces) == text
    assert len(pieces) == len(text.encode())


def test_a_character_stands_at_its_last_byte():
    assert byte_texts("aé".encode()) == ["a", "", "é"]


def test_bytes_that_are_no_text_have_a_sign():
    assert byte_texts(b"a\xffb") == ["a", "\ufffd", "b"]


def test_white_space_goes_with_the_word_behind_it_and_shared_characters_count_once():
    assert offset_texts("a  b漢", [(0, 1), (3, 4), (4, 5), (4, 5)]) == ["a", "  b", "漢", ""]


def test_without_a_tokenizer_every_byte_is_a_token(tmp_path):
    found = tokenise("aé!".encode(), tmp_path, 3)
    assert (found.ids, found.texts, found.num_tokens) == ((97, 195, 169), ("a", "", "é"), 4)


def test_the_tokenizer_of_the_folder_is_used(tmp_path):
    write_tokenizer(tmp_path)
    found = tokenise(b"the cat sat  on", tmp_path, 3)
    assert (found.ids, found.texts, found.num_tokens) == ((1, 2, 3), ("the", " cat", " sat"), 4)


@pytest.mark.parametrize(
    ("data", "tokenizer", "message"),
    [
        (b"", None, "the text is empty"),
        (b"a\xff", "{}", "byte 1 is not UTF-8"),
        (b"a", "{}", "it has no model"),
        (b"a", "{", "cannot be read as JSON"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, data, tokenizer, message):
    if tokenizer is not None:
        (tmp_path / "tokenizer.json").write_text(tokenizer)
    with pytest.raises(TextError, match=message) as caught:
        tokenise(data, tmp_path, 8)
    assert "\n" not in str(caught.value)


def test_a_text_without_tokens_is_one_line(tmp_path):
    write_tokenizer(tmp_path)
    with pytest.raises(TextError, match="the text has no token"):
        tokenise(b"  \n", tmp_path, 8)
