"""transformers' Trainer on a converted model, without an argument of its own."""

import copy

import pytest
import torch
from transformers import DataCollatorWithFlattening, Trainer, TrainingArguments

from reference_impl import load
from tests.reference_impl.conftest import FP32_TOLERANCE, random_ids

pytest.importorskip("accelerate", reason="Trainer needs accelerate, which is not installed")

# transformers 5.17 knows no other name; 5.23 has renamed it
pytestmark = pytest.mark.filterwarnings("ignore:`gradient_checkpointing.*` is deprecated:FutureWarning")
SMALL = {"num_hidden_layers": 2}  # the second one is routed
ONE_PLAIN_STEP = {
    "max_steps": 1,
    "optim": "sgd",
    "max_grad_norm": 0.0,
    "learning_rate": 0.1,
    "train_sampling_strategy": "sequential",
}
IN_HALVES = {**ONE_PLAIN_STEP, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
IGNORED = -100


def counting_texts(num_rows, length=12):
    """Learnable: every token is the one before plus the row's step. `source` is a column no model takes."""
    rows = [[1 + (start + start % 3 * position) % 40 for position in range(length)] for start in range(num_rows)]
    return [{"input_ids": row, "labels": row, "source": f"row {index}"} for index, row in enumerate(rows)]


def make_trainer(model, folder, texts, collator=None, **settings):
    settings = {
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "logging_steps": 1,
        **settings,
    }
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,  # there is no accelerator to pin for
        **settings,
    )
    return Trainer(model=model, args=arguments, train_dataset=texts, eval_dataset=texts, data_collator=collator)


def trained(model, folder, texts, collator=None, **settings):
    """The weights after training."""
    make_trainer(model, folder, texts, collator, **settings).train()
    return model.state_dict()


def losses_of(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def assert_same_weights(found, expected, tolerance=FP32_TOLERANCE):
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=tolerance, rtol=0, msg=name)


def test_the_loss_falls_and_routers_move(make_converted, tmp_path):
    model = make_converted(model_overrides=SMALL)
    before = copy.deepcopy(model.state_dict())
    trainer = make_trainer(model, tmp_path, counting_texts(16), max_steps=16)
    trainer.train()
    losses = losses_of(trainer)
    assert sum(losses[-4:]) < 0.6 * sum(losses[:4])
    assert not any(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_checkpoint_loads_to_the_same_logits_bit_for_bit(make_converted, tmp_path):
    model = make_converted(model_overrides=SMALL)
    trained(model, tmp_path, counting_texts(16), max_steps=2, save_strategy="steps", save_steps=2)
    again = load(tmp_path / "checkpoint-2").eval()
    ids = random_ids(2, 15)
    # on freshly allocated weights: CPU kernels round by the alignment of their inputs
    assert torch.equal(copy.deepcopy(again)(ids).logits, copy.deepcopy(model).eval()(ids).logits)
    assert again.routing.config == model.routing.config


def test_resuming_a_checkpoint_ends_where_an_uninterrupted_run_does(make_converted, tmp_path):
    texts, saving = counting_texts(16), {"max_steps": 5, "save_strategy": "steps", "save_steps": 3}
    expected = trained(make_converted(model_overrides=SMALL), tmp_path / "whole", texts, **saving)
    resumed = make_converted(model_overrides=SMALL, router_bias=1.0)  # overwritten by the checkpoint
    trainer = make_trainer(resumed, tmp_path / "resumed", texts, **saving)
    trainer.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert trainer.state.global_step == 5
    assert_same_weights(resumed.state_dict(), expected, tolerance=0)


def uneven_labels(texts):
    """All labels of the first half of the rows, few of the second: micro-batches of different weight."""
    for text in texts[len(texts) // 2 :]:
        text["labels"] = [IGNORED] * 7 + text["labels"][7:]
    return texts


@pytest.mark.parametrize("objective", ["none", "load_reducing"])
def test_accumulated_half_batches_equal_the_whole_batch(make_converted, tmp_path, objective):
    # the same texts in both halves: the objective, which is a product of means, is then the same in both
    texts = uneven_labels(counting_texts(2) + counting_texts(2))
    settings = {"model_overrides": SMALL, "objective": objective, "objective_alpha": 1.0}
    expected = trained(make_converted(**settings), tmp_path, texts, **ONE_PLAIN_STEP)
    found = trained(make_converted(**settings), tmp_path, texts, **IN_HALVES)
    assert_same_weights(found, expected)


def test_accumulation_weighs_each_half_by_its_labels(make_converted, tmp_path):
    texts = uneven_labels(counting_texts(4))
    settings = {"model_overrides": SMALL, "objective_alpha": 1.0}
    found = trained(make_converted(**settings), tmp_path, texts, **IN_HALVES)
    model = make_converted(**settings).train()
    num_labels = [22, 10]  # 11 and 5 per row
    for rows, weight in zip((texts[:2], texts[2:]), num_labels, strict=True):
        batch = {key: torch.tensor([row[key] for row in rows]) for key in ("input_ids", "labels")}
        (model(**batch).loss * weight / sum(num_labels)).backward()
    expected = {name: one.detach() - 0.1 * one.grad for name, one in model.named_parameters()}
    assert_same_weights({name: found[name] for name in expected}, expected)


def test_packed_batches_train_as_padded_ones_do(make_converted, tmp_path):
    texts = [
        {"input_ids": row["input_ids"][:length]} for row, length in zip(counting_texts(4), (12, 5, 2, 9), strict=True)
    ]

    def padded(rows):
        ids = [torch.tensor(row["input_ids"]) for row in rows]
        pad = torch.nn.utils.rnn.pad_sequence
        return {
            "input_ids": pad(ids, batch_first=True),
            "labels": pad(ids, batch_first=True, padding_value=IGNORED),
            "attention_mask": pad([torch.ones_like(row) for row in ids], batch_first=True),
        }

    settings = {"model_overrides": SMALL, "objective_alpha": 1.0}
    expected = trained(make_converted(**settings), tmp_path, texts, padded, **ONE_PLAIN_STEP)
    for collator in (DataCollatorWithFlattening(), DataCollatorWithFlattening(return_flash_attn_kwargs=True)):
        found = trained(make_converted(**settings), tmp_path, texts, collator, **ONE_PLAIN_STEP)
        assert_same_weights(found, expected)


def test_gradient_checkpointing_gives_the_same_weights(make_converted, tmp_path):
    texts = counting_texts(8)
    expected = trained(make_converted(model_overrides=SMALL), tmp_path, texts)
    for kwargs in (None, {"use_reentrant": False}):
        checkpointing = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": kwargs}
        found = trained(make_converted(model_overrides=SMALL), tmp_path, texts, **checkpointing)
        assert_same_weights(found, expected, tolerance=0)


def test_bf16_training_keeps_float32_weights_and_follows_float32(make_converted, tmp_path):
    texts = counting_texts(8)
    trainers = []
    for is_bf16 in (False, True):
        trainers.append(make_trainer(make_converted(model_overrides=SMALL), tmp_path, texts, bf16=is_bf16))
        trainers[-1].train()
    assert {weight.dtype for weight in trainers[1].model.state_dict().values()} == {torch.float32}
    assert losses_of(trainers[1]) == pytest.approx(losses_of(trainers[0]), rel=0.05)


def test_evaluation_reports_the_language_model_loss_alone(make_converted, tmp_path):
    model = make_converted(model_overrides=SMALL, objective_alpha=100.0)
    texts = counting_texts(4)
    trainer = make_trainer(model, tmp_path, texts)
    ids = torch.tensor([row["input_ids"] for row in texts])
    logits = model(ids).logits
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, abs=FP32_TOLERANCE)
    torch.testing.assert_close(torch.tensor(trainer.predict(texts).predictions), logits, atol=FP32_TOLERANCE, rtol=0)
