import pytest

from reference_impl.data import ByteTokenizer
from reference_impl.errors import DataError


def test_every_byte_is_an_id_and_the_end_follows():
    found = ByteTokenizer().encode("aé")
    assert found.ids_T.tolist() == [97, 195, 169, 256]
    assert found.num_bytes_T.tolist() == [1, 1, 1, 0]
    assert ByteTokenizer().vocab_size == 257


def test_the_end_of_a_document_can_be_another_id():
    assert ByteTokenizer(300).vocab_size == 301
    assert ByteTokenizer(300).encode("a").ids_T.tolist() == [97, 300]
    # a vocabulary of 256 has room for it, since UTF-8 leaves some bytes unused
    assert ByteTokenizer(255).vocab_size == 256


@pytest.mark.parametrize("end_of_document", [-1, 0, 10, 0xC2, 0xF4])
def test_a_byte_of_text_cannot_end_a_document(end_of_document):
    with pytest.raises(DataError, match=f"got {end_of_document}, which is a byte of text"):
        ByteTokenizer(end_of_document)


def test_no_character_contains_a_byte_that_may_end_a_document():
    used = {byte for code in range(0x110000) if not 0xD800 <= code < 0xE000 for byte in chr(code).encode()}
    for end_of_document in set(range(256)) - used:
        assert ByteTokenizer(end_of_document).end_of_document == end_of_document
    assert len(used) == 243
