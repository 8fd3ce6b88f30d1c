"""Scores, and scores -> keep mask."""

import pytest
import torch

from reference_impl.router import Router, threshold_keep, topk_keep


def test_gate_is_the_sigmoid_of_weight_times_input_plus_bias():
    router = Router(2, bias=0.5, std=1.0)
    router.weight.data = torch.tensor([1.0, -2.0])
    logits = router(torch.tensor([[[3.0, 1.0]]]))
    assert logits.tolist() == [[1.5]]  # 3 - 2 + 0.5


def test_router_scores_half_precision_inputs_in_float32():
    router = Router(8, bias=0.0, std=1.0)
    assert router(torch.ones(1, 2, 8, dtype=torch.bfloat16)).dtype == torch.float32


def test_router_scores_in_float32_under_autocast():
    router = Router(64, bias=0.0, std=1.0)
    hidden = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(0))
    expected = router(hidden)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(router(hidden), expected)


def test_continuation_bias_starts_at_its_position():
    router = Router(1, bias=1.0, std=0.0)
    router.continuation = (2, -1.0)
    logits = router(torch.zeros(1, 4, 1), torch.tensor([[0, 1, 2, 3]]))
    assert logits.tolist() == [[1.0, 1.0, -1.0, -1.0]]


def test_threshold_keeps_gates_at_or_above_p_and_no_padding():
    gate = torch.tensor([[0.2, 0.5, 0.9]])
    assert threshold_keep(gate, 0.5, None).tolist() == [[False, True, True]]
    assert threshold_keep(gate, 0.5, torch.tensor([[True, True, False]])).tolist() == [[False, True, False]]


@pytest.mark.parametrize(("capacity", "kept"), [(0.2, [1]), (0.4, [1, 3]), (0.41, [1, 2, 3]), (1.0, [0, 1, 2, 3, 4])])
def test_topk_keeps_the_ceiling_of_capacity_times_tokens(capacity, kept):
    score = torch.tensor([[0.1, 0.9, 0.5, 0.7, 0.3]])
    assert topk_keep(score, capacity, None)[0].nonzero().squeeze(1).tolist() == kept


def test_topk_capacity_of_a_whole_share_is_not_rounded_up():
    assert topk_keep(torch.rand(1, 100), 0.11, None).sum() == 11


def test_topk_gives_a_tie_to_the_earlier_token():
    assert topk_keep(torch.zeros(1, 4), 0.5, None).tolist() == [[True, True, False, False]]


def test_topk_counts_only_real_tokens_of_a_padded_row():
    valid = torch.tensor([[False, False, True, True]])
    assert topk_keep(torch.tensor([[9.0, 8.0, 1.0, 2.0]]), 0.5, valid).tolist() == [[False, False, False, True]]
