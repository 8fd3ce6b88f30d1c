"""ModTrainer: learning rates by group, distillation against hand computation, and the stop at a loss that is no number."""

import json

import pytest
import torch
from transformers import TrainingArguments

from reference_impl import load
from reference_impl.errors import TrainingError
from reference_impl.objective import keep_budget
from reference_impl.training import ModTrainer, TrainConfig, read_log
from tests.reference_impl.conftest import FP32_TOLERANCE, random_ids
from tests.reference_impl.training.conftest import (
    BUDGET,
    assert_same,
    run,
    small_converted,
    small_dense,
    weights,
)

IGNORED = -100


def make_trainer(model, folder, rows, *, teacher=None, config=None, **arguments):
    settings = {
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.1,
        "train_sampling_strategy": "sequential",
        **arguments,
    }
    return ModTrainer(
        config or TrainConfig(steps=1, distillation=0.5 if teacher is not None else 0.0),
        teacher=teacher,
        failures=folder,
        model=model,
        args=TrainingArguments(
            output_dir=str(folder / "checkpoints"),
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_steps=1,
            **settings,
        ),
        train_dataset=rows,
    )


def uneven_rows(num_rows):
    rows = [{"input_ids": ids, "labels": ids.clone()} for ids in random_ids(num_rows, 12)]
    for row in rows[num_rows // 2 :]:
        row["labels"][:7] = IGNORED
    return rows


def test_routers_have_their_own_learning_rates_and_do_not_decay(tmp_path):
    config = TrainConfig(steps=1, weight_decay=0.1, router_learning_rate=0.02, bias_learning_rate=0.03)
    model = small_converted()
    trainer = make_trainer(model, tmp_path, uneven_rows(2), config=config, weight_decay=0.1)
    groups = {id(one): group for group in trainer.create_optimizer().param_groups for one in group["params"]}
    assert len(groups) == len(list(model.parameters())), "each parameter is in a group"
    router = model.model.layers[1].router
    found = {
        name: (groups[id(one)]["lr"], groups[id(one)]["weight_decay"])
        for name, one in {
            "weight": router.weight,
            "bias": router.bias,
            "matrix": model.model.layers[0].mlp.up_proj.weight,
            "norm": model.model.norm.weight,
        }.items()
    }
    assert found == {"weight": (0.02, 0.0), "bias": (0.03, 0.0), "matrix": (0.1, 0.1), "norm": (0.1, 0.0)}


def test_the_rate_of_a_budget_stays_while_the_others_rise_and_fall(tmp_path):
    config = TrainConfig(steps=8, budget_rate=0.3)
    trainer = make_trainer(
        small_converted(**BUDGET), tmp_path, uneven_rows(2), config=config, max_steps=8, warmup_steps=2
    )
    rates = []
    trainer.create_optimizer_and_scheduler(8)
    for _ in range(8):
        rates.append([group["lr"] for group in trainer.optimizer.param_groups])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    body, *_, budget = zip(*rates, strict=True)
    assert set(budget) == {0.3}
    assert body[0] == 0 < body[1] < body[2] > body[7]


@pytest.mark.parametrize(("distance", "step"), [(-0.001, -0.0005), (30.0, 0.1)])
def test_a_budgets_step_is_half_of_a_small_distance_and_bounded_for_a_large_one(tmp_path, distance, step):
    model = small_converted(**BUDGET)
    trainer = make_trainer(model, tmp_path, uneven_rows(2))
    trainer.create_optimizer()
    bias = model.model.layers[1].router.bias
    for count in (1, 2):  # it remembers nothing
        before = bias.item()
        bias.grad = torch.full((1,), 0.01 * distance)
        trainer.optimizer.step()
        assert before - bias.item() == pytest.approx(step, rel=0.01), count


def divergence_by_hand(model, teacher, row):
    """Sum over labelled positions of sum_v q (log q - log p), q the teacher."""
    with torch.no_grad():
        teacher_logits = teacher(row["input_ids"][None]).logits[0]
    logits = model(row["input_ids"][None], use_cache=False).logits[0]
    total = 0.0
    for position in range(len(row["labels"]) - 1):
        if row["labels"][position + 1] != IGNORED:
            log_q, log_p = teacher_logits[position].log_softmax(-1), logits[position].log_softmax(-1)
            total = total + (log_q.exp() * (log_q - log_p)).sum()
    return total


@pytest.mark.parametrize("accumulation", [1, 2])
def test_distillation_adds_the_divergence_over_all_labels_of_the_step(tmp_path, accumulation):
    rows, teacher = uneven_rows(4), small_dense()
    torch.nn.init.normal_(teacher.lm_head.weight, std=0.3)
    arguments = {
        "per_device_train_batch_size": 4 // accumulation,
        "gradient_accumulation_steps": accumulation,
        "optim": "sgd",
        "max_grad_norm": 0.0,
    }
    model = small_converted(objective="none")
    config = TrainConfig(steps=1, distillation=0.5, router_learning_rate=0.1, bias_learning_rate=0.1)
    trainer = make_trainer(model, tmp_path, rows, teacher=teacher, config=config, **arguments)
    trainer.train()

    by_hand = small_converted(objective="none")
    num_labels = 2 * 11 + 2 * 5
    divergence = sum(divergence_by_hand(by_hand, teacher, row) for row in rows) / num_labels
    batch = {name: torch.stack([row[name] for row in rows]) for name in ("input_ids", "labels")}
    loss = by_hand(**batch, use_cache=False).loss
    (loss + 0.5 * divergence).backward()
    for name, one in by_hand.named_parameters():
        torch.testing.assert_close(
            model.get_parameter(name).detach(), one.detach() - 0.1 * one.grad, atol=FP32_TOLERANCE, rtol=0, msg=name
        )
    line = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert line["distillation"] == pytest.approx(divergence.item(), rel=1e-5)
    assert line["lm_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert line["loss"] == pytest.approx((loss + 0.5 * divergence).item(), rel=1e-5)


def test_the_objective_is_logged_apart_as_its_mean_weighted_by_labels(tmp_path):
    rows = uneven_rows(4)
    expected, by_hand = 0.0, small_converted(objective_alpha=1.0).train()
    for part, weight in ((rows[:2], 22), (rows[2:], 10)):
        by_hand(**{name: torch.stack([row[name] for row in part]) for name in ("input_ids", "labels")})
        expected += by_hand.routing.last_objective.item() * weight / 32
    trainer = make_trainer(small_converted(objective_alpha=1.0), tmp_path, rows, gradient_accumulation_steps=2)
    trainer.train()
    line = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert line["objective"] == pytest.approx(expected, rel=1e-5)
    assert line["loss"] == pytest.approx(line["lm_loss"] + line["objective"], rel=1e-5)


def spoil(model, layer=0):
    """A weight that makes every loss a NaN."""
    with torch.no_grad():
        model.model.layers[layer].mlp.up_proj.weight[0, 0] = float("nan")


def test_a_loss_that_is_no_number_stops_with_step_batch_and_state(data, tmp_path, monkeypatch):
    model, output = small_converted(**BUDGET), tmp_path / "out"
    states, begin = {}, ModTrainer.compute_loss

    def compute_loss(trainer, *args, **kwargs):
        if trainer.state.global_step == 2:
            states["before"] = weights(model)
            loss = begin(trainer, *args, **{**kwargs, "return_outputs": False})
            assert loss.isfinite()
            trainer._check_loss(loss * float("nan"))
        return begin(trainer, *args, **kwargs)

    monkeypatch.setattr(ModTrainer, "compute_loss", compute_loss)
    with pytest.raises(TrainingError, match=r"^step 3: the loss is nan; its batch is in .*failed-step-3/batch.json"):
        run(model, data, output, steps=5)
    monkeypatch.undo()
    failed = output / "failed-step-3"
    facts = json.loads((failed / "batch.json").read_text())
    assert facts["step"] == 3
    assert [len(row) for batch in facts["batches"] for row in batch["input_ids"]] == [32, 32]
    assert facts["batches"][0].keys() >= {"input_ids", "labels", "position_ids"}
    assert_same(weights(load(failed / "checkpoint-2")), states["before"])
    assert (failed / "checkpoint-2" / "optimizer.pt").is_file()
    assert (output / "checkpoints" / "checkpoint-2").is_dir(), "nothing is lost"
    assert not (output / "model").exists()

    expected = run(small_converted(**BUDGET), data, tmp_path / "whole", steps=5)
    found = run(small_converted(**BUDGET), data, output, steps=5, call={"is_resumed": True})
    assert_same(weights(found), weights(expected))
    assert [line["step"] for line in read_log(output / "log.jsonl") if "loss" in line] == [1, 2, 3, 4, 5]


def test_a_second_failure_at_the_same_step_overwrites_nothing(data, tmp_path):
    output = tmp_path / "out"
    for is_resumed in (False, True):
        model = small_converted()
        spoil(model)
        with pytest.raises(TrainingError, match="step 1: the loss is nan"):
            run(model, data, output, call={"is_resumed": is_resumed})
    assert sorted(path.name for path in output.glob("failed*")) == ["failed-step-1", "failed-step-1-again-1"]


@pytest.mark.parametrize("max_gradient_norm", [0.0, 1.0])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_gradient_that_is_no_number_stops_before_it_reaches_a_weight(data, tmp_path, value, max_gradient_norm):
    model = small_converted(**BUDGET)
    before = weights(model)
    model.model.norm.weight.register_hook(lambda gradient: gradient + value)
    with pytest.raises(TrainingError, match=r"^step 1: its gradient is not finite; its batch is in"):
        run(model, data, tmp_path / "out", max_gradient_norm=max_gradient_norm)
    assert_same(weights(model), before)
    assert_same(weights(load(tmp_path / "out" / "failed-step-1" / "checkpoint-0")), before)


def test_a_model_whose_objective_was_replaced_leaves_no_bias_to_the_budget():
    model = small_converted(**BUDGET).train()
    ids = random_ids(2, 16)
    assert model.routing.is_bias_budgeted
    assert model.routing.objective is keep_budget
    model.routing.objective = lambda loads, config, progress: loads[0].mean_gate()
    assert not model.routing.is_bias_budgeted
    model(ids, labels=ids).loss.backward()
    with_gate = model.model.layers[1].router.bias.grad.item()
    model.zero_grad()
    model.routing.objective = None
    model(ids, labels=ids).loss.backward()
    assert model.model.layers[1].router.bias.grad.item() not in (0.0, pytest.approx(with_gate, rel=1e-6))
