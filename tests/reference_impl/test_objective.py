"""The load-reducing objective against values computed by hand, and how it enters the loss."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from reference_impl import ModConfig, convert, load_reducing
from reference_impl.objective import LayerLoad
from tests.reference_impl.conftest import dense_model, random_ids


def load(gates: list[list[float]], threshold: float = 0.5, valid: list[list[bool]] | None = None) -> LayerLoad:
    gate_BT = torch.tensor(gates, requires_grad=True)
    valid_BT = None if valid is None else torch.tensor(valid)
    keep_BT = gate_BT >= threshold
    return LayerLoad(gate_BT, keep_BT if valid_BT is None else keep_BT & valid_BT, valid_BT)


def test_value_is_alpha_times_the_sum_of_kept_fraction_times_mean_gate():
    first = load([[0.9, 0.1, 0.5, 0.2]])  # F = 2/4, G = 1.7/4
    second = load([[0.8, 0.7, 0.6, 0.1]])  # F = 3/4, G = 2.2/4
    value = load_reducing([first, second], alpha=0.01)
    assert value.item() == pytest.approx(0.01 * (0.5 * 0.425 + 0.75 * 0.55))


def test_gradient_reaches_every_gate_through_the_mean_alone():
    first = load([[0.9, 0.1, 0.5, 0.2]])
    load_reducing([first], alpha=0.01).backward()
    # alpha * F / number of tokens, for kept and skipped gates alike; F itself has no gradient
    assert first.gate_BT.grad.tolist() == [pytest.approx([0.01 * 0.5 / 4] * 4)]


def test_a_layer_that_keeps_nothing_adds_neither_value_nor_gradient():
    none = load([[0.4, 0.1]])
    value = load_reducing([none], alpha=1.0)
    value.backward()
    assert value.item() == 0
    assert none.gate_BT.grad.tolist() == [[0, 0]]


def test_padding_counts_in_neither_factor():
    padded = load([[0.9, 0.9, 0.7, 0.3]], valid=[[False, False, True, True]])  # F = 1/2, G = 0.5
    value = load_reducing([padded], alpha=1.0)
    value.backward()
    assert value.item() == pytest.approx(0.25)
    assert padded.gate_BT.grad.tolist() == [pytest.approx([0, 0, 0.25, 0.25])]


def test_a_forward_of_padding_alone_is_zero():
    assert load_reducing([load([[0.9]], valid=[[False]])], alpha=1.0).item() == 0


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
    load_reducing(loads, 1.0).backward()
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
