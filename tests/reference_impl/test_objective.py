"""The objectives against values computed by hand, and how they enter the loss."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from reference_impl import ModConfig, convert, load_reducing
from reference_impl.objective import BUDGET_SCALE, LayerLoad, keep_budget, target_at, topk_predictor
from reference_impl.routing import centred
from tests.reference_impl.conftest import dense_model, random_ids


def load(gates: list[list[float]], threshold: float = 0.5, valid: list[list[bool]] | None = None) -> LayerLoad:
    gate_BT = torch.tensor(gates, requires_grad=True)
    valid_BT = None if valid is None else torch.tensor(valid)
    keep_BT = gate_BT >= threshold
    return LayerLoad(gate_BT, keep_BT if valid_BT is None else keep_BT & valid_BT, valid_BT)


def test_value_is_alpha_times_the_sum_of_kept_fraction_times_mean_gate():
    first = load([[0.9, 0.1, 0.5, 0.2]])  # F = 2/4, G = 1.7/4
    second = load([[0.8, 0.7, 0.6, 0.1]])  # F = 3/4, G = 2.2/4
    value = load_reducing([first, second], ModConfig(objective_alpha=0.01))
    assert value.item() == pytest.approx(0.01 * (0.5 * 0.425 + 0.75 * 0.55))


def test_gradient_reaches_every_gate_through_the_mean_alone():
    first = load([[0.9, 0.1, 0.5, 0.2]])
    load_reducing([first], ModConfig(objective_alpha=0.01)).backward()
    # alpha * F / number of tokens, for kept and skipped gates alike; F itself has no gradient
    assert first.gate_BT.grad.tolist() == [pytest.approx([0.01 * 0.5 / 4] * 4)]


def test_a_layer_that_keeps_nothing_adds_neither_value_nor_gradient():
    none = load([[0.4, 0.1]])
    value = load_reducing([none], ModConfig(objective_alpha=1.0))
    value.backward()
    assert value.item() == 0
    assert none.gate_BT.grad.tolist() == [[0, 0]]


def test_padding_counts_in_neither_factor():
    padded = load([[0.9, 0.9, 0.7, 0.3]], valid=[[False, False, True, True]])  # F = 1/2, G = 0.5
    value = load_reducing([padded], ModConfig(objective_alpha=1.0))
    value.backward()
    assert value.item() == pytest.approx(0.25)
    assert padded.gate_BT.grad.tolist() == [pytest.approx([0, 0, 0.25, 0.25])]


def test_a_forward_of_padding_alone_is_zero():
    assert load_reducing([load([[0.9]], valid=[[False]])], ModConfig(objective_alpha=1.0)).item() == 0


def lm_loss(model, ids):
    model.eval()
    loss = model(ids, labels=ids, use_cache=False).loss
    model.train()
    return loss


def test_training_loss_has_the_objective_added_and_evaluation_has_not(make_converted):
    model = make_converted(objective_alpha=0.5).train()
    ids = random_ids(2, 12)
    loss = model(ids, labels=ids, use_cache=False).loss
    report = model.routing_report()
    expected = 0.5 * sum(report.keep_ratio[layer] * report.mean_gate[layer] for layer in (1, 3))
    assert (loss - lm_loss(model, ids)).item() == pytest.approx(expected, rel=1e-5)
    tuple_loss = model(ids, labels=ids, use_cache=False, return_dict=False)[0]
    assert torch.equal(tuple_loss, loss)


def test_without_an_objective_or_labels_nothing_is_added(make_converted):
    model = make_converted(objective="none").train()
    ids = random_ids(2, 12)
    assert torch.equal(model(ids, labels=ids, use_cache=False).loss, lm_loss(model, ids))
    assert make_converted().train()(ids, use_cache=False).loss is None


def test_micro_batches_add_up_to_the_mean_weighted_by_tokens(make_converted):
    model = make_converted(objective_alpha=0.5).train()
    ids = random_ids(2, 12)
    labels = ids.clone()
    labels[1, :7] = -100  # 11 labels count in the first row, 5 in the second
    total, weighted = 0.0, 0.0
    for row, count in ((0, 11), (1, 5)):
        part = slice(row, row + 1)
        settings = {"labels": labels[part], "use_cache": False}
        model.eval()
        share = model(ids[part], num_items_in_batch=16, **settings).loss
        model.train()
        total += (model(ids[part], num_items_in_batch=16, **settings).loss - share).item()
        report = model.routing_report()
        weighted += 0.5 * sum(report.keep_ratio[k] * report.mean_gate[k] for k in (1, 3)) * count / 16
    assert total == pytest.approx(weighted, rel=1e-4)


def test_the_objective_lowers_gates_and_leaves_the_rest_alone_when_it_is_all_there_is():
    model = convert(dense_model(), ModConfig(router_bias=0.0, objective_alpha=1.0)).train()
    ids = random_ids(1, 16)
    with model.routing.collecting() as loads:
        model(ids, use_cache=False)
    load_reducing(loads, ModConfig(objective_alpha=1.0)).backward()
    for layer in (1, 3):
        assert model.model.layers[layer].router.bias.grad.item() > 0, "descending lowers every gate"
    assert model.lm_head.weight.grad is None


def test_threads_that_share_a_routing_collect_apart(make_converted):
    model = make_converted(objective_alpha=1.0).train()
    texts = [random_ids(1, 12, seed) for seed in range(4)]
    expected = [model(ids, labels=ids, use_cache=False).loss.item() for ids in texts]
    with ThreadPoolExecutor(4) as pool:  # as replicas of nn.DataParallel run
        for _ in range(10):
            losses = pool.map(lambda ids: model(ids, labels=ids, use_cache=False).loss.item(), texts)
            assert list(losses) == pytest.approx(expected)


def budgeted(gates, target, valid=None, **settings):
    """(value, gradient at the bias, gradient at the gates) of one layer's budget."""
    given = load(gates, valid=valid)
    bias = torch.tensor(0.3, requires_grad=True)
    config = ModConfig(objective="keep_budget", target_keep_ratio=target, **settings)
    value = keep_budget([given._replace(bias=bias)], config)
    value.backward()
    return value.item(), bias.grad.item(), given.gate_BT.grad


@pytest.mark.parametrize(
    ("target", "last_kept"),
    # of 0.9, 0.8, 0.5, 0.2: the 1st, 2nd, 3rd and 4th; at least one token, however small the target
    [(0.25, 0.9), (0.5, 0.8), (0.75, 0.5), (1.0, 0.2), (0.01, 0.9)],
)
def test_a_layers_budget_pulls_the_bias_by_the_distance_of_p_from_the_gate_that_should_be_the_last_kept(
    target, last_kept
):
    value, at_bias, at_gates = budgeted([[0.9, 0.2], [0.5, 0.8]], target)  # F = 3/4
    assert value == pytest.approx((0.75 - target) ** 2)
    assert at_bias == pytest.approx(BUDGET_SCALE * math.log(last_kept / (1 - last_kept)), abs=1e-7)
    assert at_gates is None


def test_a_layers_budget_counts_no_padding_and_reads_the_threshold():
    valid = [[False, False, True, True]]
    value, at_bias, _ = budgeted([[0.9, 0.9, 0.7, 0.3]], 0.5, valid, threshold_p=0.6)  # F of gates >= 0.5 is 1/2
    assert value == pytest.approx(0)
    assert at_bias == pytest.approx(BUDGET_SCALE * (math.log(0.7 / 0.3) - math.log(0.6 / 0.4)), rel=1e-5)
    value, at_bias, _ = budgeted([[0.9]], 0.5, [[False]])  # padding alone
    assert math.isfinite(at_bias)


def test_taking_the_distance_off_the_bias_meets_the_budget_at_once(make_converted):
    model = make_converted(objective="keep_budget", target_keep_ratio=0.25, routed_layers=[1]).train()
    ids = random_ids(2, 50)
    router = model.model.layers[1].router
    assert model(ids, labels=ids).loss.backward() is None
    with torch.no_grad():
        router.bias -= router.bias.grad / BUDGET_SCALE
    model(ids)
    assert model.routing_report().keep_ratio[1] == pytest.approx(0.25, abs=0.011), "one token of a hundred"


def test_under_a_budget_per_layer_the_language_model_loss_reaches_only_the_difference_between_tokens(make_converted):
    """Neither the bias nor what the weights do to all tokens alike."""
    ids, seen, found = random_ids(2, 20), {}, {}
    for objective in ("none", "keep_budget"):
        settings = {"objective": objective, "skipped_gradient": "straight_through", "target_keep_ratio": 1.0}
        model = make_converted(routed_layers=[3], **settings).train()
        router = model.model.layers[3].router
        router.register_forward_pre_hook(lambda _, inputs: seen.update(hidden_BTD=inputs[0].detach()))
        model(ids, labels=ids, use_cache=False).loss.backward()
        found[objective] = router.weight.grad, router.bias.grad.item()
        with model.routing.collecting() as loads:
            model(ids, use_cache=False)
        distance = BUDGET_SCALE * loads[0].distance_to(1.0, 0.5).item()
    (weight, bias), (lm_weight, lm_bias) = found["keep_budget"], found["none"]
    assert abs(lm_bias) > 1e-5, "the loss would move it"
    assert bias == pytest.approx(distance, rel=1e-4)
    mean_D = seen["hidden_BTD"].mean(dim=(0, 1))
    torch.testing.assert_close(weight, lm_weight - lm_bias * mean_D, atol=1e-6, rtol=1e-4)


def test_padding_has_no_part_in_what_tokens_differ_by():
    gradient_BT, valid_BT = torch.tensor([[9.0, 1.0, 3.0]]), torch.tensor([[False, True, True]])
    assert centred(gradient_BT, valid_BT).tolist() == [[0.0, -1.0, 1.0]]
    assert centred(gradient_BT, None).tolist() == [
        [pytest.approx(14 / 3), pytest.approx(-10 / 3), pytest.approx(-4 / 3)]
    ]


def test_a_models_budget_pulls_every_gate_by_the_distance_of_the_mean():
    first, second = load([[0.9, 0.1, 0.5, 0.2]]), load([[0.8, 0.7, 0.6, 0.1]])  # F = 2/4 and 3/4, mean 5/8
    config = ModConfig(objective="keep_budget", budget="model", target_keep_ratio=0.125)
    value = keep_budget([first, second], config)
    value.backward()
    assert value.item() == pytest.approx(0.25)
    for one in (first, second):  # 2 * 1/2 * d(mean of two mean gates)/dg = 1 / (2 * 4)
        assert one.gate_BT.grad.tolist() == [pytest.approx([1 / 8] * 4)]


def test_a_models_budget_leaves_the_bias_to_the_loss_too(make_converted):
    model = make_converted(objective="keep_budget", budget="model")
    assert not model.routing.is_bias_budgeted


@pytest.mark.parametrize(
    ("anneal", "progress", "target"),
    [(0.0, 0.0, 0.2), (0.5, 0.0, 1.0), (0.5, 0.25, 0.6), (0.5, 0.5, 0.2), (0.5, 0.9, 0.2), (1.0, 0.75, 0.4)],
)
def test_the_target_falls_evenly_from_one_and_stays(anneal, progress, target):
    config = ModConfig(objective="keep_budget", target_keep_ratio=0.2, budget_anneal=anneal)
    assert target_at(config, progress) == pytest.approx(target)
    one = load([[0.9, 0.1]])._replace(bias=torch.tensor(0.0))
    assert keep_budget([one], config, progress).item() == pytest.approx((0.5 - target) ** 2)


def test_the_predictor_of_top_k_learns_by_cross_entropy_what_was_kept():
    gate_BT = torch.tensor([[0.8, 0.4, 0.3, 0.9]], requires_grad=True)
    keep_BT = torch.tensor([[True, True, False, False]])
    valid_BT = torch.tensor([[True, True, True, False]])
    config = ModConfig(operator="topk", objective="topk_predictor", objective_alpha=0.5)
    value = topk_predictor([LayerLoad(gate_BT, keep_BT, valid_BT)], config)
    value.backward()
    assert value.item() == pytest.approx(-0.5 * (math.log(0.8) + math.log(0.4) + math.log(0.7)) / 3)
    expected = [-0.5 / 0.8 / 3, -0.5 / 0.4 / 3, 0.5 / 0.7 / 3, 0.0]
    assert gate_BT.grad.tolist() == [pytest.approx(expected)]


def test_the_predictor_is_finite_where_gates_are_saturated():
    gate_BT = torch.tensor([[1.0, 0.0]], requires_grad=True)
    value = LayerLoad(gate_BT, torch.tensor([[False, True]]), None).predictor_loss()
    value.backward()
    assert value.isfinite()
    assert gate_BT.grad.isfinite().all()


def test_objectives_can_be_computed_under_autocast(make_converted):
    ids = random_ids(2, 16)
    for settings in (
        {"objective": "keep_budget", "skipped_gradient": "straight_through"},
        {"operator": "topk", "objective": "topk_predictor"},
    ):
        model = make_converted(**settings).train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(ids, labels=ids, use_cache=False)
        output.loss.backward()
        assert model.routing.last_objective.dtype == torch.float32
        assert all(model.model.layers[layer].router.weight.grad.abs().max() > 0 for layer in model.routed_layers)


def test_the_value_that_was_added_can_be_read(make_converted):
    model = make_converted(objective_alpha=0.5).train()
    ids = random_ids(2, 12)
    loss = model(ids, labels=ids, use_cache=False).loss
    torch.testing.assert_close(loss - model.routing.last_objective, lm_loss(model, ids))


@pytest.mark.parametrize("router_gradient", ["through", "detached"])
def test_detached_routers_read_the_hidden_states_and_do_not_steer_them(make_converted, router_gradient):
    ids = random_ids(2, 16)
    embedding, routers = [], []
    for alpha in (0.0, 1.0):
        model = make_converted(objective_alpha=alpha, router_gradient=router_gradient).train()
        model(ids, labels=ids, use_cache=False).loss.backward()
        embedding.append(model.get_input_embeddings().weight.grad)
        routers.append(torch.stack([model.model.layers[layer].router.weight.grad for layer in model.routed_layers]))
    assert torch.equal(*embedding) == (router_gradient == "detached")
    assert (routers[1] - routers[0]).abs().amax(dim=1).min() > 1e-6
