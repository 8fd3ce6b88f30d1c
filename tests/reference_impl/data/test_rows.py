"""Documents packed into rows, and what a model makes of them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impl.data import IGNORED_LABEL, ByteTokenizer, EncodedDocument, LoadedTokenizer
from reference_impl.data.rows import Packer
from reference_impl.data.tokenizer_files import END_OF_DOCUMENT
from tests.reference_impl.conftest import FP32_TOLERANCE, dense_model
from tests.reference_impl.data.small_tokenizers import with_partial_characters

X = IGNORED_LABEL
BYTES = ByteTokenizer()


def packed(texts, sequence_length, respects_boundaries=True, tokenizer=BYTES):
    packer = Packer(sequence_length, respects_boundaries)
    return [row for text in texts for row in packer.rows(tokenizer.encode(text))]


def columns(row):
    return {name: value.tolist() for name, value in row.features().items() if name != "num_bytes"}


def test_documents_share_a_row_and_each_starts_anew():
    first, second = packed(["ab", "cdef", "g"], 5)
    assert columns(first) == {
        "input_ids": [97, 98, 256, 99, 100],
        "position_ids": [0, 1, 2, 0, 1],
        "labels": [X, 98, 256, X, 100],
    }
    # the rest of the second document goes on at position 0
    assert columns(second) == {
        "input_ids": [101, 102, 256, 103, 256],
        "position_ids": [0, 1, 2, 0, 1],
        "labels": [X, 102, 256, X, 256],
    }


def test_without_boundaries_a_row_is_one_sequence():
    first, second = packed(["ab", "cdef", "g"], 5, respects_boundaries=False)
    assert columns(first)["position_ids"] == columns(second)["position_ids"] == [0, 1, 2, 3, 4]
    assert columns(first)["labels"] == [X, 98, 256, 99, 100]
    assert columns(second)["labels"] == [X, 102, 256, 103, 256]


def test_a_long_document_fills_rows_of_its_own():
    rows = packed(["abcdefgh", "i"], 3)
    assert [columns(row)["position_ids"] for row in rows] == [[0, 1, 2]] * 3
    assert [row.num_bytes for row in rows] == [2, 2, 1]


def test_a_row_counts_the_bytes_of_predicted_tokens():
    assert [row.num_bytes for row in packed(["ab", "cdef", "g"], 5)] == [2, 1]
    assert [row.num_bytes for row in packed(["ab", "cdef", "g"], 5, respects_boundaries=False)] == [3, 2]


@pytest.mark.parametrize("respects_boundaries", [True, False])
@settings(deadline=None)
@given(texts=st.lists(st.text(st.sampled_from("the 漢é\n"), min_size=1), max_size=8), sequence_length=st.integers(2, 9))
def test_bytes_add_up_over_partial_characters_and_no_token_is_lost(texts, sequence_length, respects_boundaries):
    tokenizer = LoadedTokenizer(with_partial_characters(), END_OF_DOCUMENT)
    rows = packed(texts, sequence_length, respects_boundaries, tokenizer)
    ids = [id_ for text in texts for id_ in tokenizer.encode(text).ids_T.tolist()]
    num_full = len(ids) // sequence_length * sequence_length
    assert [id_ for row in rows for id_ in row.ids_T.tolist()] == ids[:num_full]
    for row in rows:
        labels = row.features()["labels"]
        predicted = labels[labels != X]
        assert row.num_bytes == int(tokenizer.token_bytes_V[predicted].sum())
        assert row.num_predicted == len(predicted)


def test_a_row_does_not_hold_on_to_a_whole_document():
    (row, *_) = packed(["a" * 1000], 10)
    assert row.ids_T.untyped_storage().nbytes() == 80


def test_rows_name_their_source_and_pass():
    (row,) = Packer(2, True).rows(EncodedDocument(torch.tensor([1, 2]), torch.tensor([1, 0])), "notes", epoch=3)
    assert (row.source, row.epoch) == ("notes", 3)


DOCUMENTS = ["the first document", "2", "a third one, which is longer than the others"]


@pytest.mark.parametrize("is_converted", [True, False], ids=["converted", "dense"])
@torch.no_grad()
def test_a_packed_row_has_the_loss_of_its_documents_one_by_one(make_converted, is_converted):
    overrides = {"vocab_size": 257}
    model = make_converted(model_overrides=overrides) if is_converted else dense_model(**overrides)
    (row,) = packed(DOCUMENTS, sum(len(text) + 1 for text in DOCUMENTS))
    batch = {name: value[None] for name, value in row.features().items() if name != "num_bytes"}
    found = model(**batch, use_cache=False)
    documents = [BYTES.encode(text).ids_T[None] for text in DOCUMENTS]
    alone = [model(ids, labels=ids) for ids in documents]
    torch.testing.assert_close(
        found.logits, torch.cat([one.logits for one in alone], dim=1), atol=FP32_TOLERANCE, rtol=0
    )
    losses = [one.loss * (ids.shape[1] - 1) for one, ids in zip(alone, documents, strict=True)]
    torch.testing.assert_close(found.loss, sum(losses) / row.num_predicted, atol=FP32_TOLERANCE, rtol=0)
    as_one = model(batch["input_ids"])
    assert (as_one.logits - found.logits).abs().max() > 1000 * FP32_TOLERANCE


@torch.no_grad()
def test_rows_without_boundaries_are_taken_by_operators_of_one_sequence_per_row(make_converted):
    model = make_converted(operator="topk", model_overrides={"vocab_size": 257})
    for row in packed(DOCUMENTS, 16, respects_boundaries=False):
        batch = {name: value[None] for name, value in row.features().items() if name != "num_bytes"}
        assert math.isfinite(model(**batch).loss)
