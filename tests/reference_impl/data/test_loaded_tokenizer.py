import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers

from reference_impl.data import LoadedTokenizer, load_tokenizer
from reference_impl.data.tokenizer_files import END_OF_DOCUMENT
from reference_impl.errors import DataError
from tests.reference_impl.data import small_tokenizers as small

UTF8_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\u2581"))  # a space to SentencePiece
PARTIAL = LoadedTokenizer(small.with_partial_characters(), END_OF_DOCUMENT)
FALLBACK = LoadedTokenizer(small.byte_fallback(), "</s>")
PREFIXED = LoadedTokenizer(small.byte_level([(b" ", b"a")], add_prefix_space=True), END_OF_DOCUMENT)


def bytes_of(tokenizer, text):
    return tokenizer.encode(text).num_bytes_T.tolist()


def test_a_token_of_part_of_a_character_counts_that_part():
    assert bytes_of(PARTIAL, "the the") == [3, 4, 0]
    assert bytes_of(PARTIAL, "漢") == [2, 1, 0]
    assert bytes_of(PARTIAL, "é é") == [2, 3, 0]


@pytest.mark.parametrize("tokenizer", [PARTIAL, FALLBACK, PREFIXED], ids=["partial", "fallback", "prefixed"])
@settings(deadline=None)
@given(text=UTF8_TEXT)
def test_the_bytes_of_all_tokens_are_those_of_the_text(tokenizer, text):
    found = tokenizer.encode(text)
    assert int(found.num_bytes_T.sum()) == len(text.encode())
    assert found.ids_T[-1] == tokenizer.end_of_document
    assert len(found.ids_T) == len(found.num_bytes_T)


@settings(deadline=None)
@given(text=UTF8_TEXT)
def test_the_bytes_of_each_token_are_those_it_spells(text):
    vocabulary = {id_: token for token, id_ in small.with_partial_characters().get_vocab().items()}
    found = PARTIAL.encode(text)
    spelled = [len(vocabulary[id_]) for id_ in found.ids_T[:-1].tolist()]
    assert found.num_bytes_T[:-1].tolist() == spelled


def test_a_space_put_before_a_text_is_no_byte_of_it():
    assert bytes_of(PREFIXED, "a a") == [1, 2, 0]
    assert bytes_of(PREFIXED, " a") == [2, 0]
    assert bytes_of(FALLBACK, "a a") == [0, 1, 2, 0]
    assert bytes_of(FALLBACK, " a") == [0, 0, 2, 0]
    assert bytes_of(FALLBACK, "é漢") == [0, 0, 2, 1, 1, 1, 0]


def test_a_document_starts_as_the_tokenizers_template_says():
    assert FALLBACK.encode("a").ids_T.tolist() == [1, 262, 2]
    assert PARTIAL.encode("a").ids_T.tolist() == [97, PARTIAL.end_of_document]


def test_a_text_that_spells_a_special_token_ends_no_document():
    for tokenizer in (PARTIAL, pickle.loads(pickle.dumps(PARTIAL))):
        found = tokenizer.encode(f"a{END_OF_DOCUMENT}b")
        assert found.ids_T.tolist().count(tokenizer.end_of_document) == 1
        assert int(found.num_bytes_T.sum()) == 2 + len(END_OF_DOCUMENT)


def test_an_added_token_that_is_text_counts_its_bytes():
    tokenizer = small.byte_level()
    tokenizer.add_tokens([AddedToken("漢字", special=False)])
    assert bytes_of(LoadedTokenizer(tokenizer, END_OF_DOCUMENT), "a漢字b") == [1, 6, 1, 0]


def test_truncation_and_padding_of_the_file_are_off():
    tokenizer = small.byte_level()
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    loaded = LoadedTokenizer(tokenizer, END_OF_DOCUMENT)
    assert len(loaded.encode("abcdefghi").ids_T) == 10
    assert len(loaded.encode("a").ids_T) == 2
    assert tokenizer.truncation is not None  # the caller's own is left as it was


def test_bytes_are_counted_behind_a_normaliser_that_rewrites_characters():
    tokenizer = small.byte_level()
    tokenizer.normalizer = normalizers.NFC()
    assert bytes_of(LoadedTokenizer(tokenizer, END_OF_DOCUMENT), "e\u0301") == [1, 1, 0]


def write(folder, tokenizer, **settings):
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("token", [END_OF_DOCUMENT, {"content": END_OF_DOCUMENT}], ids=["text", "object"])
def test_a_folder_names_the_token_that_ends_a_document(tmp_path, token):
    write(tmp_path, small.byte_level(), eos_token=token)
    assert load_tokenizer(tmp_path).end_of_document == 256
    assert load_tokenizer(tmp_path).vocab_size == 257


def test_a_folder_without_a_tokenizer_or_an_end_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"tokenizer\.json: cannot be read: No such file"):
        load_tokenizer(tmp_path)
    write(tmp_path, small.byte_level())
    with pytest.raises(DataError, match=r"tokenizer_config\.json: it has no eos_token"):
        load_tokenizer(tmp_path)
    for token in ("</s>", "a"):  # none, and one that text becomes
        with pytest.raises(
            DataError, match=rf"end_of_document: got '{token}'; expected a special token.*<\|endoftext\|>"
        ):
            load_tokenizer(tmp_path, end_of_document=token)
    assert load_tokenizer(tmp_path, end_of_document=END_OF_DOCUMENT).end_of_document == 256
    for content, match in (("{", "not JSON"), ("[]", "got a list"), ("{}", "it has no model")):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(DataError, match=match):
            load_tokenizer(tmp_path)


def test_a_tokenizer_that_loses_text_is_refused():
    with pytest.raises(DataError, match="it may lose text"):
        LoadedTokenizer(small.lossy(), END_OF_DOCUMENT)
    content = json.loads(small.byte_level().to_str())
    del content["model"]["vocab"]["a"]
    with pytest.raises(DataError, match="1 of 256 bytes have no token, such as 'a'"):
        LoadedTokenizer(type(small.byte_level()).from_str(json.dumps(content)), END_OF_DOCUMENT)


@pytest.mark.parametrize("tokenizer", [PARTIAL, FALLBACK], ids=["partial", "fallback"])
@settings(deadline=None)
@given(text=UTF8_TEXT)
def test_the_spellings_of_all_tokens_are_the_text(tokenizer, text):
    spelled = b"".join(map(tokenizer.spelling, tokenizer.encode(text).ids_T.tolist()))
    is_prefixed = tokenizer is FALLBACK and text != ""  # it puts a space before every text
    assert spelled == b" " * is_prefixed + text.encode()
