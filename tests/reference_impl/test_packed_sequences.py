"""Training batches that pack several sequences into a row: each is computed as if it were alone."""

import pytest
import torch
from transformers import DataCollatorWithFlattening

from reference_impl import UnsupportedModelError
from tests.reference_impl.conftest import FAMILY_SETTINGS, FP32_TOLERANCE, dense_model, random_ids

FAMILIES = sorted(FAMILY_SETTINGS)
GRADIENT_RTOL = 1e-4  # gradients of enlarged weights reach 10 and more, where 1e-5 is beyond float32
LENGTHS = [[7, 1, 14], [11, 11], [22]]  # three rows of 22 tokens


def packed_positions(lengths):
    return torch.stack([torch.cat([torch.arange(length) for length in row]) for row in lengths])


def sequences_of(packed, lengths):
    """The pieces (1, T, ...) of a packed tensor, in order."""
    return [piece[None] for row, sizes in zip(packed, lengths, strict=True) for piece in row.split(sizes)]


def gradients(model):
    """Every parameter's gradient, taken off the model."""
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    return found


def assert_same_gradients(found, expected):
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=FP32_TOLERANCE, rtol=GRADIENT_RTOL, msg=name)
    assert any(gradient.abs().sum() > 0 for name, gradient in expected.items() if "router.weight" in name)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_equal_those_of_separate_forwards(make_converted, family):
    model = make_converted(family).train()
    ids = random_ids(3, 22)
    output = model(ids, position_ids=packed_positions(LENGTHS))
    assert output.past_key_values is None
    output.logits.square().mean().backward()
    found = gradients(model)
    alone = [model(piece).logits for piece in sequences_of(ids, LENGTHS)]
    for piece, logits in zip(sequences_of(output.logits, LENGTHS), alone, strict=True):
        torch.testing.assert_close(piece, logits, atol=FP32_TOLERANCE, rtol=0)
    torch.cat(alone, dim=1).square().mean().backward()
    assert_same_gradients(found, gradients(model))


@pytest.mark.parametrize("gate", ["shared", "unit"])
@torch.no_grad()
def test_decisions_equal_those_of_separate_forwards(make_converted, gate):
    model = make_converted(gate=gate)
    ids = random_ids(3, 22)
    model(ids, position_ids=packed_positions(LENGTHS))
    packed = {layer: last.keep_BT for layer, last in model.routing.last.items()}
    pieces = {layer: sequences_of(keep, LENGTHS) for layer, keep in packed.items()}
    for index, piece in enumerate(sequences_of(ids, LENGTHS)):
        model(piece)
        for layer, last in model.routing.last.items():
            assert torch.equal(pieces[layer][index], last.keep_BT)


@pytest.mark.parametrize("kept", [[0, 1, 14], [7, 0, 14], [0, 0, 0], [7, 1, 14], [1, 0, 1]], ids=str)
@torch.no_grad()
def test_sequences_of_very_different_keep_counts(make_converted, kept):
    model = make_converted()
    ids, lengths = random_ids(1, 22), [[7, 1, 14]]
    keep = torch.cat([torch.arange(length) < count for length, count in zip(lengths[0], kept, strict=True)])[None]
    with model.routing.replay({1: keep, 3: keep}):
        packed = model(ids, position_ids=packed_positions(lengths)).logits
    for index, piece in enumerate(sequences_of(ids, lengths)):
        mask = sequences_of(keep, lengths)[index]
        with model.routing.replay({1: mask, 3: mask}):
            expected = model(piece).logits
        torch.testing.assert_close(sequences_of(packed, lengths)[index], expected, atol=FP32_TOLERANCE, rtol=0)


POSITIONS = {
    "restarts": [[0, 1, 2, 3, 0, 1, 2, 0, 1, 2]],
    "jumps": [[0, 1, 2, 3, 7, 8, 9, 20, 21, 22]],
    "restarts and jumps": [[0, 1, 2, 3, 7, 8, 9, 0, 1, 2]],
    "the same position again": [[0, 0, 1, 2, 2, 3, 4, 5, 0, 0]],
    "starts other than 0": [[5, 6, 7, 8, 3, 4, 5, 6, 7, 8]],
    "rows of their own": [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]],
}


@pytest.mark.parametrize("use_cache", [None, False], ids=["default cache", "no cache"])
@pytest.mark.parametrize("positions", POSITIONS.values(), ids=POSITIONS)
@torch.no_grad()
def test_dense_and_routed_layers_read_the_same_sequences_out_of_positions(make_converted, positions, use_cache):
    positions = torch.tensor(positions)
    ids = random_ids(2, 10)
    model = make_converted(threshold_p=0.0, gate="unit")
    found = model(ids, position_ids=positions, use_cache=use_cache).logits
    is_packed = use_cache is False or bool((positions.diff() < 1).any())
    expected = dense_model()(ids, position_ids=positions, use_cache=not is_packed).logits
    torch.testing.assert_close(found, expected, atol=FP32_TOLERANCE, rtol=0)


# transformers 5.17 knows no other name; 5.23 has renamed it
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
def test_checkpointing_changes_neither_loss_nor_gradients_of_a_packed_batch(make_converted):
    model = make_converted(objective_alpha=1.0).train()
    ids, positions = random_ids(3, 22), packed_positions(LENGTHS)
    loss = model(ids, position_ids=positions, labels=ids).loss
    loss.backward()
    expected = gradients(model)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    again = model(ids, position_ids=positions, labels=ids).loss
    again.backward()
    assert torch.equal(again, loss)
    assert_same_gradients(gradients(model), expected)


@pytest.mark.parametrize("options", [{}, {"return_flash_attn_kwargs": True}], ids=["position_ids", "both"])
def test_the_loss_of_a_flattened_batch_is_the_mean_over_its_tokens(make_converted, options):
    model = make_converted(objective="none").train()
    texts = [random_ids(1, length, seed=length)[0] for length in (9, 2, 13)]
    batch = DataCollatorWithFlattening(**options)([{"input_ids": text.tolist()} for text in texts])
    assert batch["input_ids"].shape == (1, 24)
    loss = model(**batch).loss
    loss.backward()
    found = gradients(model)
    losses = [model(text[None], labels=text[None]).loss * (len(text) - 1) for text in texts]
    expected = sum(losses) / (24 - 3)
    torch.testing.assert_close(loss, expected, atol=FP32_TOLERANCE, rtol=0)
    expected.backward()
    assert_same_gradients(found, gradients(model))


@torch.no_grad()
def test_cumulative_lengths_alone_say_where_sequences_start(make_converted):
    model = make_converted()
    ids = random_ids(1, 22)
    texts = [{"input_ids": piece[0].tolist()} for piece in sequences_of(ids, [[7, 1, 14]])]
    batch = DataCollatorWithFlattening(return_flash_attn_kwargs=True)(texts)
    expected = model(ids, position_ids=batch["position_ids"]).logits
    del batch["labels"]
    assert torch.equal(model(**batch).logits, expected)
    del batch["position_ids"]
    assert torch.equal(model(**batch).logits, expected)
    one = torch.tensor([0, 22], dtype=torch.int32)
    whole = model(ids, cu_seq_lens_q=one, cu_seq_lens_k=one, max_length_q=22, max_length_k=22).logits
    torch.testing.assert_close(whole, model(ids).logits, atol=FP32_TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("cu_seqlens", "positions"),
    [([0, 5, 10], [0, 1, 2, 0, 1, 2, 3, 4, 5, 6]), ([0, 5, 10], list(range(10))), ([0, 5, 9], None)],
    ids=["other lengths", "one sequence", "too few tokens"],
)
def test_cumulative_lengths_that_contradict_the_batch_are_refused(make_converted, cu_seqlens, positions):
    cu_seqlens = torch.tensor(cu_seqlens, dtype=torch.int32)
    positions = None if positions is None else torch.tensor([positions])
    with pytest.raises(UnsupportedModelError, match="cu_seq_lens_q"):
        make_converted()(random_ids(1, 10), position_ids=positions, cu_seq_lens_q=cu_seqlens, cu_seq_lens_k=cu_seqlens)


@pytest.mark.parametrize("operator", ["topk", "masked", "kv_only"])
def test_other_operators_refuse_packed_sequences(make_converted, operator):
    model = make_converted(operator=operator)
    with pytest.raises(UnsupportedModelError, match=f"operator '?{operator}"):
        model(random_ids(3, 22), position_ids=packed_positions(LENGTHS), use_cache=False)


@pytest.mark.parametrize("given", ["use_cache", "past_key_values", "attention_mask"])
def test_packed_sequences_take_no_cache_and_no_mask(make_converted, given):
    model = make_converted()
    ids = random_ids(3, 22)
    settings = {
        "use_cache": {"use_cache": True},
        "past_key_values": {"past_key_values": model.new_cache()},
        "attention_mask": {"attention_mask": torch.ones_like(ids), "use_cache": False},
    }
    with pytest.raises(UnsupportedModelError, match="restart within a row"):
        model(ids, position_ids=packed_positions(LENGTHS), **settings[given])


@torch.no_grad()
def test_positions_that_repeat_at_padding_start_no_sequence(make_converted):
    model = make_converted()
    ids = random_ids(2, 12)
    mask = torch.ones_like(ids)
    mask[0, :4] = mask[1, 9:] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    expected = model(ids, attention_mask=mask).logits[1, :9]
    found = model(ids, attention_mask=mask, position_ids=positions).logits[1, :9]
    torch.testing.assert_close(found, expected, atol=FP32_TOLERANCE, rtol=0)


@torch.no_grad()
def test_a_decoder_called_by_itself_separates_sequences_too(make_converted):
    model = make_converted()
    ids = random_ids(1, 20)
    positions = torch.arange(10).repeat(2)[None]
    packed = model.model(ids, position_ids=positions, use_cache=False).last_hidden_state
    alone = torch.cat([model.model(part, use_cache=False).last_hidden_state for part in ids.split(10, dim=1)], dim=1)
    torch.testing.assert_close(packed, alone, atol=FP32_TOLERANCE, rtol=0)
    with pytest.raises(UnsupportedModelError, match="operator masked takes one sequence per row"):
        make_converted(operator="masked").model(ids, position_ids=positions, use_cache=False)
