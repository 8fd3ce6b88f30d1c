"""Training a converted model: its gradients, gradient checkpointing and autocast."""

from collections import Counter

import pytest
import torch

from reference_impl import UnsupportedModelError
from reference_impl.naive import naive_forward
from tests.reference_impl.conftest import FAMILY_SETTINGS, FP32_TOLERANCE, random_ids

FAMILIES = sorted(FAMILY_SETTINGS)
OPERATORS = ["threshold", "topk", "masked", "kv_only"]
GRADIENT_RTOL = 1e-4  # gradients of enlarged weights reach 10 and more, where 1e-5 is beyond float32
BF16_RATIO = 0.05  # bfloat16 rounds by 0.004; four layers of it add up to 0.015 in logits and 0.02 in gradients
# transformers 5.17 knows no other name; 5.23 has renamed it
pytestmark = pytest.mark.filterwarnings("ignore:`gradient_checkpointing_.*able` is deprecated:FutureWarning")
NON_REENTRANT, REENTRANT = {"use_reentrant": False}, {"use_reentrant": True}


def keep_masks(model):
    return {layer: last.keep_BT for layer, last in model.routing.last.items()}


def gradients(model):
    """Every parameter's gradient, taken off the model."""
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    return found


def loss_and_gradients(model, ids, **inputs):
    loss = model(ids, labels=ids, **inputs).loss
    loss.backward()
    return loss.detach(), gradients(model)


def relative_error(found, expected):
    """Norm of the difference over the norm of what is expected, all tensors taken together; NaN compares as too large."""
    found, expected = (torch.cat([one.detach().float().flatten() for one in some]) for some in (found, expected))
    return ((found - expected).norm() / expected.norm()).item()


def assert_same_gradients(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=FP32_TOLERANCE, rtol=GRADIENT_RTOL, msg=name)
    assert any(gradient.abs().sum() > 0 for name, gradient in expected.items() if "router.weight" in name)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_equal_those_of_the_naive_layer(make_converted, family, operator):
    model = make_converted(family, operator=operator, capacity=0.4)
    ids = random_ids(2, 18)
    model(ids).logits.square().mean().backward()
    fast, masks = gradients(model), keep_masks(model)
    rows = [naive_forward(model, ids[row], {layer: keep[row] for layer, keep in masks.items()})[0] for row in range(2)]
    torch.stack(rows).square().mean().backward()
    assert_same_gradients(fast, gradients(model))


@pytest.mark.parametrize("kept", [0.0, 1.0], ids=["nothing", "everything"])
def test_gradients_equal_those_of_the_naive_layer_where_a_row_keeps(make_converted, kept):
    model = make_converted()
    ids = random_ids(2, 12)
    model(ids)
    masks = keep_masks(model)
    for keep_BT in masks.values():
        keep_BT[1] = bool(kept)
    with model.routing.replay(masks):
        model(ids).logits.square().mean().backward()
    fast = gradients(model)
    rows = [naive_forward(model, ids[row], {layer: keep[row] for layer, keep in masks.items()})[0] for row in range(2)]
    torch.stack(rows).square().mean().backward()
    assert_same_gradients(fast, gradients(model))


@pytest.mark.parametrize("operator", OPERATORS)
def test_gradients_are_those_of_the_language_model_loss_and_the_objective(make_converted, operator):
    model = make_converted(operator=operator, capacity=0.5, objective_alpha=1.0)
    ids, gates = random_ids(2, 15), []
    hooks = [
        model.model.layers[layer].router.register_forward_hook(lambda *call: gates.append(torch.sigmoid(call[-1])))
        for layer in model.routed_layers
    ]
    loss = model(ids, labels=ids).loss  # evaluation: the language-model loss alone
    for gate_BT, keep_BT in zip(gates, keep_masks(model).values(), strict=True):
        loss = loss + keep_BT.float().mean() * gate_BT.mean()
    loss.backward()
    expected = gradients(model)
    for hook in hooks:
        hook.remove()
    found_loss, found = loss_and_gradients(model.train(), ids)
    torch.testing.assert_close(found_loss, loss.detach(), atol=FP32_TOLERANCE, rtol=0)
    assert_same_gradients(found, expected)


def test_a_step_in_which_nothing_is_kept_has_finite_gradients(make_converted):
    model = make_converted(router_bias=-9.0).train()
    loss, found = loss_and_gradients(model, random_ids(1, 9))
    assert not any(keep.any() for keep in keep_masks(model).values())
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in found.values() if gradient is not None)


@pytest.mark.parametrize("operator", OPERATORS)
def test_padding_adds_nothing_to_loss_and_gradients(make_converted, operator):
    model = make_converted(operator=operator, capacity=0.5).train()
    ids, padding = random_ids(2, 15), 4
    expected_loss, expected = loss_and_gradients(model, ids)
    for side in ("left", "right"):
        sides = (padding, 0) if side == "left" else (0, padding)
        padded = torch.nn.functional.pad(ids, sides)
        labels = torch.nn.functional.pad(ids, sides, value=-100)
        if side == "left":
            labels[:, padding] = -100  # without padding, nothing predicts the first token
        mask = torch.nn.functional.pad(torch.ones_like(ids), sides)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        loss = model(padded, attention_mask=mask, position_ids=positions, labels=labels).loss
        loss.backward()
        torch.testing.assert_close(loss.detach(), expected_loss, atol=FP32_TOLERANCE, rtol=0)
        assert_same_gradients(gradients(model), expected)


@pytest.mark.parametrize("objective", ["load_reducing", "none"])
@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointing_changes_neither_loss_nor_gradients(make_converted, family, objective):
    model = make_converted(family, objective=objective, objective_alpha=1.0).train()
    ids = random_ids(2, 14)
    loss, expected = loss_and_gradients(model, ids)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=NON_REENTRANT)
    again, found = loss_and_gradients(model, ids)
    assert torch.equal(again, loss)
    assert_same_gradients(found, expected)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("checkpointing", [NON_REENTRANT, REENTRANT], ids=["non-reentrant", "reentrant"])
def test_every_operator_can_be_checkpointed(make_converted, operator, checkpointing):
    model = make_converted(operator=operator, capacity=0.5, objective="none").train()
    ids = random_ids(2, 14)
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    loss, expected = loss_and_gradients(model, ids, attention_mask=mask)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=checkpointing)
    again, found = loss_and_gradients(model, ids, attention_mask=mask)
    assert torch.equal(again, loss)
    assert_same_gradients(found, expected)


@pytest.mark.parametrize("checkpointing", [NON_REENTRANT, REENTRANT], ids=["non-reentrant", "reentrant"])
def test_checkpointing_computes_routed_layers_twice_and_counts_them_once(make_converted, checkpointing):
    model = make_converted(objective="none").train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=checkpointing)
    num_calls = Counter()
    for layer in model.routed_layers:
        router = model.model.layers[layer].router
        router.register_forward_hook(lambda *_, layer=layer: num_calls.update([layer]))
    loss_and_gradients(model, random_ids(1, 9))
    assert num_calls == {1: 2, 3: 2}


def test_reentrant_checkpointing_with_an_objective_is_refused(make_converted):
    model = make_converted().train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=REENTRANT)
    with pytest.raises(UnsupportedModelError, match="'use_reentrant': False"):
        model(random_ids(1, 9), labels=random_ids(1, 9))
    model.eval()
    assert model(random_ids(1, 9), labels=random_ids(1, 9)).loss.isfinite(), "evaluation needs no gradient of the gates"


def test_reentrant_checkpointing_of_some_layers_with_an_objective_is_refused(make_converted):
    model = make_converted(routed_layers=(0, 1, 2, 3)).train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=REENTRANT, every_n_layers=2)
    with pytest.raises(UnsupportedModelError, match="'use_reentrant': False"):
        model(random_ids(1, 9), labels=random_ids(1, 9))


def test_a_refused_training_step_leaves_the_model_usable(make_converted):
    model = make_converted().train()
    ids = random_ids(1, 9)
    expected = loss_and_gradients(model, ids)[0]
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=REENTRANT)
    with pytest.raises(UnsupportedModelError):
        model(ids, labels=ids)
    model.gradient_checkpointing_disable()
    assert torch.equal(loss_and_gradients(model, ids)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_routers_compute_in_float32_under_autocast(make_converted, dtype):
    router = make_converted().model.layers[1].router
    hidden = torch.randn(2, 40, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = router(hidden)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = router(hidden)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("family", FAMILIES)
def test_autocast_stays_close_to_float32(make_converted, family, operator):
    model = make_converted(family, operator=operator, capacity=0.5).train()
    ids = random_ids(2, 16)
    expected = model(ids, labels=ids)
    expected.loss.backward()
    expected_gradients = gradients(model)
    with model.routing.replay(keep_masks(model)), torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(ids, labels=ids)
    output.loss.backward()
    found = gradients(model)
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    assert relative_error([output.logits], [expected.logits]) < BF16_RATIO
    assert relative_error([output.loss], [expected.loss]) < BF16_RATIO
    assert relative_error(found.values(), expected_gradients.values()) < BF16_RATIO


def test_checkpointing_under_autocast_changes_neither_loss_nor_gradients(make_converted):
    model = make_converted(objective_alpha=1.0).train()
    ids = random_ids(2, 14)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, expected = loss_and_gradients(model, ids)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=NON_REENTRANT)
        again, found = loss_and_gradients(model, ids)
    assert torch.equal(again, loss)
    assert_same_gradients(found, expected)


@pytest.mark.parametrize("operator", OPERATORS)
@torch.no_grad()
def test_a_cache_filled_under_autocast_continues_the_text(make_converted, operator):
    model = make_converted(operator=operator, capacity=0.5)
    ids = random_ids(2, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        full = model(ids).logits
        with model.routing.replay(keep_masks(model)):
            cache = model.new_cache()
            steps = [
                model(ids[:, start:end], past_key_values=cache).logits for start, end in [(0, 12), (12, 19), (19, 20)]
            ]
        tokens = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)
    assert relative_error(steps, [full[:, :12], full[:, 12:19], full[:, 19:]]) < BF16_RATIO
    assert tokens.shape == (2, 24)
