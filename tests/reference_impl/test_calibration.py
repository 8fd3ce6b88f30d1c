"""Router biases for a chosen keep ratio."""

import pytest
import torch

from reference_impl import RoutingError, UnsupportedModelError, calibrate
from reference_impl.calibration import bias_for_share
from tests.reference_impl.conftest import dense_model, random_ids


def kept(logits: torch.Tensor, bias: float, p: float) -> int:
    return int((torch.sigmoid(logits + bias) >= p).sum())


@pytest.mark.parametrize("p", [0.5, 0.55, 0.9])
@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.1, 2), (0.5, 10), (1.0, 20)])
def test_bias_keeps_the_asked_share_at_any_p(p, share, count):
    logits = torch.randn(20, generator=torch.Generator().manual_seed(0))
    assert kept(logits, bias_for_share(logits, share, p), p) == count


def test_bias_lies_midway_between_two_scores():
    assert bias_for_share(torch.tensor([1.0, 2.0, 4.0, 8.0]), 0.5, 0.5) == -3.0


def test_bias_takes_the_widest_gap_near_the_target():
    logits = torch.arange(1000.0)
    logits[:510] -= 50.0  # a gap between ranks 490 and 491, within 2 % of the target 500
    assert kept(logits, bias_for_share(logits, 0.5, 0.5), 0.5) == 490


@torch.no_grad()
def test_prompt_and_continuation_each_keep_the_target_at_every_layer(make_converted):
    model = make_converted(threshold_p=0.55)
    ids = random_ids(2, 90)
    calibrate(model, ids, 0.25, prompt_length=60)
    cache = model.new_cache()
    model(ids[:, :60], past_key_values=cache)
    assert model.routing_report().keep_ratio == pytest.approx({1: 0.25, 3: 0.25}, abs=0.02)
    kept_tokens = {1: 0, 3: 0}
    for position in range(60, 90):
        model(ids[:, position : position + 1], past_key_values=cache)
        for layer, decision in model.routing.last.items():
            kept_tokens[layer] += int(decision.keep_BT.sum())
    assert kept_tokens == {1: 15, 3: 15}


def test_calibrating_again_starts_over(make_converted):
    model = make_converted()
    ids = random_ids(1, 40)
    calibrate(model, ids, 0.2, prompt_length=20)
    calibrate(model, ids, 0.5)
    model(ids)
    assert model.routing_report().keep_ratio == pytest.approx({1: 0.5, 3: 0.5})
    assert model.model.layers[1].router.continuation is None


def test_bad_requests_are_refused(make_converted):
    ids = random_ids(1, 10)
    with pytest.raises(RoutingError, match=r"keep_ratio: got 1\.5"):
        calibrate(make_converted(), ids, 1.5)
    with pytest.raises(RoutingError, match="prompt_length: got 10; expected 1 to 9"):
        calibrate(make_converted(), ids, 0.5, prompt_length=10)
    with pytest.raises(UnsupportedModelError, match="expected a converted model"):
        calibrate(dense_model(), ids, 0.5)


def test_a_threshold_of_zero_has_nothing_to_calibrate(make_converted):
    with pytest.raises(RoutingError, match="threshold_p: got 0, at which every token is kept"):
        calibrate(make_converted(threshold_p=0.0), random_ids(1, 9), 0.5)
