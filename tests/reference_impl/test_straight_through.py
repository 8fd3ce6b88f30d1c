"""What skipped tokens tell their routers, against the layer computed anew for each of them; and that nothing else changes."""

import pytest
import torch

from reference_impl.errors import UnsupportedModelError
from reference_impl.mod_layer import sliding_windows
from reference_impl.naive import naive_layer
from tests.reference_impl.conftest import FAMILY_SETTINGS, FP32_TOLERANCE, random_ids

LENGTH = 14
LAYER = 3
pytestmark = pytest.mark.filterwarnings("ignore:`gradient_checkpointing.*` is deprecated:FutureWarning")


def estimating(make_converted, family="llama", **settings):
    settings = {"objective": "none", "skipped_gradient": "straight_through", "routed_layers": [LAYER], **settings}
    return make_converted(family, **settings).train()


def gradients(model, ids, direction_BTD, **inputs):
    """(gates (B, T), their gradients, input (B, T, D) of the routed layer, its keep mask) for the loss <output, direction>."""
    seen = {}
    layer = model.get_decoder().layers[LAYER]

    def note_input(_, args, kwargs):
        seen.update(x=args[0] if args else kwargs["hidden_states"], tables=kwargs["position_embeddings"])

    hooks = [
        layer.register_forward_pre_hook(note_input, with_kwargs=True),
        layer.register_forward_hook(lambda _, args, output: seen.update(y=output)),
    ]
    with model.routing.collecting() as loads:
        model(ids, use_cache=False, **inputs)
    for hook in hooks:
        hook.remove()
    (gradient_BT,) = torch.autograd.grad((seen["y"] * direction_BTD).sum(), loads[0].gate_BT, retain_graph=True)
    return loads[0], gradient_BT, seen


def would_add(model, x_TD, tables, keep_T, gate_T, token, first=0):
    """What the layer adds to one token if it is kept beside those that are: the layer run on these alone."""
    layer = model.get_decoder().layers[LAYER]
    window = sliding_windows(model.config)[LAYER]
    chosen = [index for index in range(first, token + 1) if keep_T[index] or index == token]
    gate_S = torch.stack([gate_T[index].clamp(min=0.5) for index in chosen])
    cos_TH, sin_TH = (table[0] for table in tables)
    rows = torch.tensor(chosen)
    out_SD = naive_layer(layer, x_TD[rows], gate_S, cos_TH[rows], sin_TH[rows], rows, window)
    return (out_SD[-1] - x_TD[token]).detach()


@pytest.mark.parametrize("family", FAMILY_SETTINGS)
def test_a_skipped_tokens_gate_learns_what_keeping_it_would_add(make_converted, family):
    model = estimating(make_converted, family)
    direction_BTD = torch.randn(
        2, LENGTH, 64 if family != "llama-head-dim-12" else 48, generator=torch.Generator().manual_seed(1)
    )
    load, gradient_BT, seen = gradients(model, random_ids(2, LENGTH), direction_BTD)
    skipped = (~load.keep_BT).nonzero().tolist()
    assert 4 <= len(skipped) < 2 * LENGTH
    for row, token in skipped:
        added_D = would_add(model, seen["x"][row], seen["tables"], load.keep_BT[row], load.gate_BT[row].detach(), token)
        expected = (direction_BTD[row, token] @ added_D).item()
        assert gradient_BT[row, token].item() == pytest.approx(expected, abs=20 * FP32_TOLERANCE)


def test_a_kept_tokens_gate_has_the_estimate_on_top_of_its_own_gradient(make_converted):
    ids = random_ids(2, LENGTH)
    direction_BTD = torch.randn(2, LENGTH, 64, generator=torch.Generator().manual_seed(1))
    load, own_BT, _ = gradients(estimating(make_converted, skipped_gradient="none"), ids, direction_BTD)
    model = estimating(make_converted)
    _, gradient_BT, seen = gradients(model, ids, direction_BTD)
    kept = load.keep_BT.nonzero().tolist()
    assert kept
    assert not own_BT[~load.keep_BT].any()
    for row, token in kept:
        added_D = would_add(model, seen["x"][row], seen["tables"], load.keep_BT[row], load.gate_BT[row].detach(), token)
        estimate = (direction_BTD[row, token] @ added_D).item()
        assert (gradient_BT - own_BT)[row, token].item() == pytest.approx(estimate, abs=20 * FP32_TOLERANCE)


@pytest.mark.parametrize("gate", ["shared", "unit"])
def test_outputs_and_the_gradients_of_all_other_weights_do_not_change(make_converted, gate):
    ids = random_ids(2, LENGTH)
    found = []
    for skipped_gradient in ("none", "straight_through"):
        model = estimating(make_converted, skipped_gradient=skipped_gradient, gate=gate)
        output = model(ids, labels=ids, use_cache=False)
        output.loss.backward()
        router = {name for name, _ in model.named_parameters() if ".router." in name or ".layers.0." in name}
        # layers in front of the router are reached through its gate
        behind = {
            name: weight.grad
            for name, weight in model.named_parameters()
            if f".layers.{LAYER}." in name and name not in router
        }
        found.append((output.logits, behind))
    assert torch.equal(found[0][0], found[1][0])
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, atol=0, rtol=0, msg=name)


def test_documents_that_share_a_row_do_not_see_each_other(make_converted):
    model = estimating(make_converted)
    ids, cut = random_ids(1, LENGTH), 6
    position_ids = torch.cat([torch.arange(cut), torch.arange(LENGTH - cut)])[None]
    direction_BTD = torch.randn(1, LENGTH, 64, generator=torch.Generator().manual_seed(1))
    _, packed_BT, _ = gradients(model, ids, direction_BTD, position_ids=position_ids)
    alone = [gradients(model, ids[:, part], direction_BTD[:, part])[1] for part in (slice(0, cut), slice(cut, None))]
    torch.testing.assert_close(packed_BT, torch.cat(alone, dim=1), atol=20 * FP32_TOLERANCE, rtol=0)


def test_padding_tells_nothing_and_changes_nothing(make_converted):
    model = estimating(make_converted)
    ids = random_ids(1, LENGTH)
    direction_BTD = torch.randn(1, LENGTH, 64, generator=torch.Generator().manual_seed(1))
    _, alone_BT, _ = gradients(model, ids, direction_BTD)
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], dim=1)
    mask = torch.cat([torch.zeros(1, 3, dtype=torch.long), torch.ones_like(ids)], dim=1)
    direction_BTD = torch.cat([torch.zeros(1, 3, 64), direction_BTD], dim=1)
    positions = torch.cat([torch.zeros(3, dtype=torch.long), torch.arange(LENGTH)])[None]
    _, padded_BT, _ = gradients(model, padded, direction_BTD, attention_mask=mask, position_ids=positions)
    torch.testing.assert_close(padded_BT[:, 3:], alone_BT, atol=20 * FP32_TOLERANCE, rtol=0)


def test_checkpointing_gives_the_same_gradients(make_converted):
    ids = random_ids(2, LENGTH)
    found = []
    for is_checkpointed in (False, True):
        model = estimating(make_converted)
        if is_checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model(ids, labels=ids).loss.backward()
        found.append(model.get_decoder().layers[LAYER].router.weight.grad)
    assert found[0].abs().max() > 0
    torch.testing.assert_close(*found, atol=FP32_TOLERANCE, rtol=0)


def test_a_cache_in_training_is_refused_and_none_is_made(make_converted):
    model = estimating(make_converted)
    assert model(random_ids(1, 8)).past_key_values is None
    with pytest.raises(UnsupportedModelError, match="skipped_gradient straight_through expects whole sequences"):
        model(random_ids(1, 8), past_key_values=model.new_cache())
    with pytest.raises(
        UnsupportedModelError, match="use_cache: got True in training; skipped_gradient straight_through"
    ):
        model(random_ids(1, 8), use_cache=True)


def test_evaluation_and_generation_are_as_ever(make_converted):
    ids = random_ids(2, LENGTH)
    plain = make_converted(routed_layers=[LAYER])
    model = estimating(make_converted).eval()
    assert torch.equal(model(ids).logits, plain(ids).logits)
    model.train()
    with torch.no_grad():
        assert model(ids, use_cache=True).past_key_values is not None
