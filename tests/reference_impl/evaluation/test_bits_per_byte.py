"""Bits per byte by hand, by position, and as the model serves."""

import math

import pytest
import torch

from reference_impl.data import ByteTokenizer, DataConfig, SourceConfig, held_out_rows
from reference_impl.errors import DataError, EvaluationError
from reference_impl.evaluation import bits_per_byte, paired_difference, text_windows
from reference_impl.naive import naive_forward
from tests.reference_impl.conftest import FP32_TOLERANCE, dense_model, random_ids
from tests.reference_impl.evaluation.scripted import ScriptedModel, constant, row, uniform

QUARTERS = [0.5, 0.25, 0.125, 0.125]  # 1, 2, 3 and 3 bits


def real_row(length, starts=(0,), seed=3):
    return row(random_ids(1, length, seed)[0].tolist(), starts)


def test_bits_and_bytes_are_summed_over_predicted_tokens():
    # predicted: 1, 0, 3 and then 2 and 0; the first of each sequence is not
    found = bits_per_byte(constant(QUARTERS), [row([3, 1, 0, 3]), row([3, 2, 0], num_bytes=[7, 2, 0])])
    assert found.row_bits == pytest.approx((6, 4))
    assert found.row_bytes == (3, 2)
    assert found.bits_per_byte == pytest.approx(2.0)
    assert found.bits_per_token == pytest.approx(2.0)
    assert found.next_token_accuracy == pytest.approx(2 / 5)
    assert (found.num_rows, found.num_tokens, found.num_bytes) == (2, 5, 5)
    assert (found.keep_ratio, found.mean_keep_ratio) == ({}, None)


def test_the_standard_error_is_that_of_rows():
    # residuals against 2 bits per byte: 6 - 2 * 3 = 0, 4 - 2 * 2 = 0; then +1 and -1 over 4 bytes
    even = bits_per_byte(constant(QUARTERS), [row([3, 1, 0, 3]), row([3, 2, 0])])
    assert even.bits_per_byte_standard_error == pytest.approx(0)
    uneven = bits_per_byte(constant(QUARTERS), [row([0, 1, 2]), row([0, 0, 1])])
    assert uneven.bits_per_byte == pytest.approx(2.0)
    assert uneven.bits_per_byte_standard_error == pytest.approx(math.sqrt(2 * (1 + 1)) / 4)
    assert bits_per_byte(constant(QUARTERS), [row([0, 1])]).bits_per_byte_standard_error is None


def test_the_end_of_a_document_costs_bits_and_stands_for_no_byte():
    (window,) = text_windows_of("abc")
    assert window.num_bytes_T.tolist() == [1, 1, 1, 0]
    assert bits_per_byte(uniform(257), [window]).bits_per_byte == pytest.approx(3 * math.log2(257) / 2)


def text_windows_of(text):
    ids_T, num_bytes_T = ByteTokenizer().encode(text)
    return [row(ids_T.tolist(), num_bytes=num_bytes_T.tolist())]


def late_is_worse():
    """Token 0 has probability 1/2 up to position 3 of a sequence, then 1/16."""

    def logits(ids_T, positions_T):
        likely_T = torch.where(positions_T < 3, 1 / 2, 1 / 16)  # what stands at t is about t + 1
        return torch.stack([likely_T, 1 - likely_T], dim=1).log()

    return ScriptedModel(logits, 2)


def test_loss_by_position_tells_where_it_is_bad():
    found = bits_per_byte(late_is_worse(), [row([0] * 10)])
    spans = [(bucket.first_position, bucket.last_position, bucket.num_tokens) for bucket in found.by_position]
    assert spans == [(1, 1, 1), (2, 3, 2), (4, 7, 4), (8, 9, 2)]
    assert [bucket.bits_per_byte for bucket in found.by_position] == pytest.approx([1, 1, 4, 4])


def test_positions_are_those_within_a_sequence_of_a_packed_row():
    found = bits_per_byte(late_is_worse(), [row([0] * 10, starts=(0, 3, 6))])
    spans = [(bucket.first_position, bucket.last_position, bucket.num_tokens) for bucket in found.by_position]
    assert spans == [(1, 1, 3), (2, 3, 4)]
    assert found.bits_per_byte == pytest.approx(1)


def test_tokens_without_bytes_have_bits_per_token_alone():
    found = bits_per_byte(constant(QUARTERS), [row([0, 0, 1], num_bytes=[1, 1, 0])])
    assert [bucket.bits_per_byte for bucket in found.by_position] == [pytest.approx(1), None]
    assert found.by_position[1].bits_per_token == pytest.approx(2)


@pytest.mark.parametrize("operator", ["dense", "threshold", "kv_only", "masked", "topk"])
def test_a_packed_row_scores_as_its_sequences_alone(make_converted, operator):
    model = dense_model() if operator == "dense" else make_converted(operator=operator)
    packed = real_row(24, starts=(0, 9, 10))
    alone = [row(packed.ids_T[start:end].tolist()) for start, end in ((0, 9), (10, 24))]
    whole, parts = bits_per_byte(model, [packed, packed]), bits_per_byte(model, alone)
    assert whole.row_bits[0] == pytest.approx(sum(parts.row_bits), rel=FP32_TOLERANCE)
    assert whole.num_tokens == 2 * parts.num_tokens
    assert whole.row_bits[1] == pytest.approx(whole.row_bits[0], rel=FP32_TOLERANCE)


@torch.no_grad()
def test_a_converted_model_scores_as_the_oracle(make_converted):
    model, rows = make_converted(), [real_row(20), real_row(20, seed=4), real_row(7)]
    found = bits_per_byte(model, rows)
    kept = {1: 0, 3: 0}
    for one, bits in zip(rows, found.row_bits, strict=True):
        logits_TV, masks = naive_forward(model, one.ids_T)
        nats = torch.nn.functional.cross_entropy(logits_TV[:-1], one.ids_T[1:], reduction="sum")
        assert bits == pytest.approx(nats.item() / math.log(2), rel=1e-4)
        kept = {layer: kept[layer] + int(keep_T.sum()) for layer, keep_T in masks.items()}
    assert found.keep_ratio == {layer: count / 47 for layer, count in kept.items()}
    assert found.mean_keep_ratio == pytest.approx(sum(kept.values()) / 94)


def test_top_k_has_two_numbers_and_only_one_of_them_is_causal(make_converted):
    model, rows = make_converted(operator="topk", capacity=0.25), [real_row(40)]
    causal, non_causal = bits_per_byte(model, rows), bits_per_byte(model, rows, is_causal=False)
    assert (causal.is_causal, non_causal.is_causal) == (True, False)
    assert causal.bits_per_byte != non_causal.bits_per_byte
    assert list(non_causal.keep_ratio.values()) == [0.25, 0.25]
    other_end = [row([*rows[0].ids_T[:32].tolist(), *random_ids(1, 8, seed=9)[0].tolist()])]
    assert early_bits(bits_per_byte(model, other_end)) == pytest.approx(early_bits(causal), rel=1e-4)
    changed = early_bits(bits_per_byte(model, other_end, is_causal=False))
    assert changed != pytest.approx(early_bits(non_causal), rel=1e-4)


def early_bits(score):
    """Of the buckets up to position 31."""
    return [bucket.bits_per_token for bucket in score.by_position if bucket.last_position < 32]


def test_threshold_is_causal_whatever_is_asked(make_converted):
    found = bits_per_byte(make_converted(), [real_row(12)], is_causal=False)
    assert found.is_causal


def test_a_difference_of_pairs_has_a_smaller_error_than_either_model():
    rows = [row([0, 0, 0]), row([0, 3, 3]), row([0, 0, 3])]
    own, other = bits_per_byte(constant([0.25, 0.5, 0.125, 0.125]), rows), bits_per_byte(uniform(4), rows)
    difference = paired_difference(own, other)
    assert difference.value == pytest.approx(own.bits_per_byte - other.bits_per_byte)
    same = paired_difference(own, own)
    assert same == (0, 0)
    with pytest.raises(EvaluationError, match=r"rows: got 3 of 6 bytes and 1 of 1; expected the same ones"):
        paired_difference(own, bits_per_byte(uniform(4), [row([0, 1])]))


def test_a_model_in_training_is_in_training_afterwards(make_converted):
    model = make_converted().train()
    bits_per_byte(model, [real_row(8)])
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_does_not_fit_the_model_is_one_line():
    small = constant(QUARTERS, max_positions=3)
    for rows, expected in (
        ([], "rows: got none"),
        ([row([0, 1, 2, 3])], "got a row of 4 tokens; the model has 3 positions"),
        ([row([0, 4])], "text: got token 4; the model's vocabulary has 4"),
        ([row([0, 1], num_bytes=[1, 0])], "stand for no byte"),
    ):
        with pytest.raises(EvaluationError, match=expected):
            bits_per_byte(small, rows)


def test_a_loss_that_is_not_finite_is_an_error():
    with pytest.raises(EvaluationError, match="loss: not finite at token 2 of a row of source 'test'"):
        bits_per_byte(constant([1.0, 0.0]), [row([0, 0, 1])])


def test_windows_hold_every_token_of_every_file(tmp_path):
    (tmp_path / "a.txt").write_text("abcdefg")  # 8 tokens with the end
    (tmp_path / "b.txt").write_text("xy")
    rows = text_windows([tmp_path / "a.txt", tmp_path / "b.txt"], ByteTokenizer(), 5)
    assert [one.ids_T.tolist() for one in rows] == [[97, 98, 99, 100, 101], [102, 103, 256], [120, 121, 256]]
    assert [one.source for one in rows] == ["a.txt", "a.txt", "b.txt"]
    (tmp_path / "c.txt").write_bytes(b"ab\xff")
    with pytest.raises(DataError, match=r"c.txt: byte 2 is not UTF-8"):
        text_windows([tmp_path / "c.txt"], ByteTokenizer(), 5)


def test_held_out_rows_are_scored(tmp_path, make_converted):
    for index in range(20):
        (tmp_path / f"{index}.txt").write_text(f"text {index} " * 9)
    data = DataConfig(sources=(SourceConfig("text", path=str(tmp_path)),), sequence_length=32, held_out_share=0.5)
    rows = held_out_rows(data, ByteTokenizer(), 3)
    model = make_converted(model_overrides={"vocab_size": 257})
    found = bits_per_byte(model, rows)
    assert found.num_bytes == sum(one.num_bytes for one in rows)
    assert found.bits_per_byte > 8
