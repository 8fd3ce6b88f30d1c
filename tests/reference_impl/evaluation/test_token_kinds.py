"""Kinds of text, of bytes and of words."""

import pytest

from reference_impl.data import ByteTokenizer, LoadedTokenizer
from reference_impl.data.tokenizer_files import END_OF_DOCUMENT
from reference_impl.evaluation.token_kinds import KINDS, token_kinds
from tests.reference_impl.data import small_tokenizers as small

SHORT = dict(zip("BwdpsnxN", KINDS, strict=True))


def kinds(text, tokenizer):
    return [KINDS[index] for index in token_kinds(tokenizer.encode(text).ids_T.tolist(), tokenizer)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the_x1y", "BwwwwdwN"),  # a digit inside a word is a digit, and the word goes on behind it
        ("a b", "BsBN"),
        ("f(x)=10", "BpBppddN"),
        ("if x:\n\ty", "BwsBpnsBN"),
        ("é=漢", "xxpxxxN"),
        ("éa", "xxBN"),  # what is beyond ASCII is no part of a word
        ("\r\n", "nnN"),
        ("", "N"),
    ],
)
def test_every_byte_is_of_a_kind(text, expected):
    assert kinds(text, ByteTokenizer()) == [SHORT[sign] for sign in expected]


def test_a_word_goes_on_only_within_its_sequence():
    assert token_kinds([97], ByteTokenizer()) == [KINDS.index("word begins")]


def test_a_token_with_its_blank_begins_a_word():
    tokenizer = LoadedTokenizer(
        small.byte_level([(b"h", b"e"), (b" ", b"he"), (b" ", b" "), (b"\n", b" ")]), END_OF_DOCUMENT
    )
    assert [tokenizer.spelling(id_) for id_ in tokenizer.encode("he he").ids_T.tolist()] == [b"he", b" he", b""]
    assert kinds("he he", tokenizer) == ["word begins", "word begins", "no text"]
    assert kinds("hehe", tokenizer) == ["word begins", "word goes on", "no text"]
