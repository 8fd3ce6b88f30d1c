"""Prompts become ids as the tokenizer says, and ids become the text, piece by piece."""

import random

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from reference_impl.data import write_byte_tokenizer
from reference_impl.errors import TextError
from reference_impl.prompt_tokens import PromptTokens
from tests.reference_impl.small_tokenizer import write_tokenizer

TEXT = "A  Größe,\n漢字 🙂 end\t"


@pytest.fixture(params=["bytes", "tokenizer.json"])
def prompt_tokens(request, tmp_path):
    if request.param != "bytes":
        write_byte_tokenizer(tmp_path)
    return PromptTokens(tmp_path, 257)


def pieces(prompt_tokens, ids, prompt_ids=(65,)) -> list[str]:
    stream = prompt_tokens.stream(list(prompt_ids))
    return [*map(stream.push, ids), stream.end()]


def test_the_pieces_joined_are_the_text(prompt_tokens):
    ids = prompt_tokens.encode(TEXT.encode())
    assert ids == list(TEXT.encode())
    found = pieces(prompt_tokens, ids)
    assert "".join(found) == TEXT
    assert found[0] == "A"  # as it comes, not at the end


def test_an_incomplete_character_is_held_back_and_shown_at_the_end(prompt_tokens):
    found = pieces(prompt_tokens, [97, 0xE6, 0xBC])
    assert found[:3] == ["a", "", ""]
    assert set(found[3]) == {"\ufffd"}


def test_the_end_of_a_document_is_no_text(prompt_tokens):
    assert pieces(prompt_tokens, [97, 256]) == ["a", "", ""]


def test_any_bytes_can_come(prompt_tokens):
    draw = random.Random(3)
    for _ in range(50):
        ids = [draw.randrange(257) for _ in range(60)]
        text = "".join(pieces(prompt_tokens, ids))
        expected = bytes(id_ for id_ in ids if id_ < 256).decode(errors="replace")
        assert text.replace("\ufffd", "") == expected.replace("\ufffd", "")


def test_a_template_is_put_before_the_prompt_and_a_space_between_words_is_kept(tmp_path):
    tokenizer = Tokenizer(models.BPE({"<s>": 0, "</s>": 1, "▁a": 2, "▁": 3, "a": 4}, [("▁", "a")]))
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(content=" ", left=1, right=0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    prompt_tokens = PromptTokens(tmp_path, 5)
    assert prompt_tokens.encode(b"a a") == [0, 2, 2]
    assert pieces(prompt_tokens, [2, 4, 2], prompt_ids=[0, 2]) == [" a", "a", " a", ""]


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "the prompt is empty"), (b"a\xff", "byte 1 of the prompt is not UTF-8; expected text in UTF-8")],
)
def test_a_prompt_that_is_none_is_refused(prompt_tokens, data, message):
    with pytest.raises(TextError, match=message):
        prompt_tokens.encode(data)


def test_a_prompt_without_tokens_is_refused(tmp_path):
    write_tokenizer(tmp_path)
    with pytest.raises(TextError, match="the prompt has no token in the model's tokenizer"):
        PromptTokens(tmp_path, 4).encode(b" \n")


def test_a_large_vocabulary_is_never_read_as_bytes(tmp_path):
    with pytest.raises(
        TextError, match=r"no tokenizer\.json there, and a vocabulary of 32000; expected the model's tokenizer"
    ):
        PromptTokens(tmp_path, 32000)


def test_a_damaged_tokenizer_is_one_error(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(TextError, match="cannot be read as JSON"):
        PromptTokens(tmp_path, 257)
