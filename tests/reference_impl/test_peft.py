"""LoRA by PEFT on a converted model: routers train and are saved with the adapter where `modules_to_save` names them."""

import copy

import pytest
import torch
from transformers import Trainer, TrainingArguments

from reference_impl import ModConfig, UnsupportedModelError, calibrate, convert, load
from tests.reference_impl.conftest import FP32_TOLERANCE, dense_model, random_ids

peft = pytest.importorskip("peft", reason="PEFT is not installed")

# PEFT 0.21 and transformers 5.17 know no other names; transformers 5.23 has renamed them
pytestmark = pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing.*` is deprecated:FutureWarning")
TARGETS = ["q_proj", "v_proj", "down_proj"]


def lora(model, modules_to_save=("router",)):
    settings = peft.LoraConfig(
        r=4, target_modules=TARGETS, modules_to_save=list(modules_to_save), task_type="CAUSAL_LM"
    )
    torch.manual_seed(5)
    return peft.get_peft_model(model, settings)


def train(model, num_steps=4):
    """A few large steps on the same text, so that adapters and routers are well away from where they started."""
    model.train()
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=0.02)
    losses = []
    for _ in range(num_steps):
        loss = model(input_ids=random_ids(2, 16), labels=random_ids(2, 16)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return losses


def other_base():
    """The same dense weights, other routers."""
    torch.manual_seed(99)
    return convert(dense_model(), ModConfig(router_bias=0.0))


def logits_of(model):
    """On freshly allocated weights: CPU kernels round by the alignment of their inputs."""
    return copy.deepcopy(model)(input_ids=random_ids(2, 19)).logits


def test_routers_and_adapters_train_and_the_base_does_not(make_converted):
    model = lora(make_converted())
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    losses = train(model)
    assert losses[-1] < losses[0]
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {name for name in before if "lora_" in name or "modules_to_save" in name}
    assert {name for name in changed if "router" in name} == {
        f"base_model.model.model.layers.{layer}.router.modules_to_save.default.{part}"
        for layer in (1, 3)
        for part in ("weight", "bias")
    }


@torch.no_grad()
def test_without_the_adapter_the_converted_base_is_back(make_converted):
    base = make_converted()
    expected = logits_of(base)
    model = lora(base)
    with torch.enable_grad():
        train(model)
    assert not torch.equal(logits_of(model), expected)
    with model.disable_adapter():
        assert torch.equal(logits_of(model), expected)


@torch.no_grad()
def test_a_saved_adapter_on_a_freshly_converted_base_gives_the_same_logits_bit_for_bit(make_converted, tmp_path):
    model = lora(make_converted())
    with torch.enable_grad():
        train(model)
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(other_base(), tmp_path).eval()
    assert torch.equal(logits_of(again), logits_of(model))


@torch.no_grad()
def test_merging_gives_a_converted_model_that_saves_and_loads(make_converted, tmp_path):
    model = lora(make_converted())
    with torch.enable_grad():
        train(model)
    expected = logits_of(model)
    merged = copy.deepcopy(model).merge_and_unload()
    assert type(merged).__name__ == "ModLlamaForCausalLM"
    torch.testing.assert_close(logits_of(merged), expected, atol=FP32_TOLERANCE, rtol=0)
    ids = random_ids(1, 8)
    assert merged.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False).shape == (1, 11)
    merged.save_pretrained(tmp_path)
    assert torch.equal(logits_of(load(tmp_path).eval()), logits_of(merged))


@torch.no_grad()
def test_routers_left_out_of_modules_to_save_stay_frozen_and_are_not_saved(make_converted, tmp_path):
    model = lora(make_converted(), modules_to_save=())
    with torch.enable_grad():
        train(model)
    routers = [layer.router for layer in model.base_model.model.model.layers[1::2]]
    assert not any(parameter.requires_grad for router in routers for parameter in router.parameters())
    model.save_pretrained(tmp_path)
    on_the_same_base = peft.PeftModel.from_pretrained(make_converted(), tmp_path).eval()
    assert torch.equal(logits_of(on_the_same_base), logits_of(model))
    on_another = peft.PeftModel.from_pretrained(other_base(), tmp_path).eval()
    assert not torch.allclose(logits_of(on_another), logits_of(model), atol=1e-3)


@torch.no_grad()
def test_routers_stay_in_float32_in_a_half_precision_base():
    model = lora(convert(dense_model().to(torch.bfloat16), ModConfig(router_bias=0.0)))
    with torch.enable_grad():
        train(model)
    dtypes = {parameter.dtype for name, parameter in model.named_parameters() if "router" in name}
    assert dtypes == {torch.float32}


@pytest.mark.parametrize("use_reentrant", [False, True], ids=["non-reentrant", "reentrant"])
def test_checkpointing_changes_no_gradient_of_adapters_and_routers(make_converted, use_reentrant):
    objective = "none" if use_reentrant else "load_reducing"
    model = lora(make_converted(objective=objective, objective_alpha=1.0))
    train(model, num_steps=1)  # an adapter starts at zero, where half of its gradients are zero too
    model.train()
    found = []
    for is_checkpointed in (False, True):
        if is_checkpointed:
            model.base_model.model.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": use_reentrant}
            )
        model(input_ids=random_ids(2, 14), labels=random_ids(2, 14)).loss.backward()
        found.append({name: one.grad for name, one in model.named_parameters() if one.requires_grad})
        model.zero_grad()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=FP32_TOLERANCE, rtol=1e-4, msg=name)
        assert gradient.abs().sum() > 0, name


@pytest.mark.parametrize("prompt_length", [None, 20])
@torch.no_grad()
def test_calibration_reaches_the_routers_that_the_adapter_trains(make_converted, prompt_length):
    model = lora(make_converted())
    ids = random_ids(2, 40)
    calibrate(model, ids, 0.25, prompt_length)
    model(input_ids=ids)
    for last in model.routing.last.values():
        for segment in (last.keep_BT[:, :20], last.keep_BT[:, 20:]) if prompt_length else (last.keep_BT,):
            assert abs(segment.float().mean().item() - 0.25) < 0.02
    if prompt_length:
        with pytest.raises(UnsupportedModelError, match="calibrated by position"):
            model.merge_and_unload().save_pretrained("unused")


def test_trainer_saves_adapters_with_their_routers(make_converted, tmp_path):
    pytest.importorskip("accelerate", reason="Trainer needs accelerate, which is not installed")
    model = lora(make_converted())
    texts = [
        {"input_ids": row.tolist(), "labels": row.tolist(), "source": "a column no model takes"}
        for row in random_ids(8, 12)
    ]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,  # there is no accelerator to pin for
        learning_rate=0.02,
        max_steps=3,
        save_steps=3,
    )
    Trainer(model=model, args=arguments, train_dataset=texts).train()
    again = peft.PeftModel.from_pretrained(other_base(), tmp_path / "checkpoint-3").eval()
    assert torch.equal(logits_of(again), logits_of(model.eval()))


def test_a_budget_moves_the_bias_that_the_adapter_trains(make_converted):
    model = lora(make_converted(objective="keep_budget", target_keep_ratio=0.25))
    model.train()
    model(input_ids=random_ids(2, 16), labels=random_ids(2, 16)).loss.backward()
    for layer in model.base_model.model.model.layers[1::2]:
        assert layer.router.modules_to_save["default"].bias.grad.abs().item() > 0
        assert layer.router.original_module.bias.grad is None
