"""`train`: what each mode changes, what it leaves in its folder, and what it refuses before anything is written."""

import copy
import pickle

import pytest
import torch
from transformers import AutoModelForCausalLM

from reference_impl import UnsupportedModelError, load
from reference_impl.data import ByteTokenizer, DataConfig
from reference_impl.errors import DataError, ModConfigError, TrainingError
from reference_impl.hf_families import remove_layers
from tests.reference_impl.conftest import dense_model, random_ids
from tests.reference_impl.training.conftest import (
    BUDGET,
    CONFIG,
    SMALL,
    VOCAB_SIZE,
    assert_same,
    facts_of,
    logged,
    run,
    small_converted,
    small_dense,
    weights,
)

# PEFT 0.21 knows no other name; transformers 5.23 has renamed it
pytestmark = pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing.*` is deprecated:FutureWarning")


def changed(before, after):
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


def test_full_trains_everything_and_saves_what_it_returns(data, tmp_path):
    model = small_converted(**BUDGET)
    before = weights(model)
    found = run(model, data, tmp_path / "out", router_learning_rate=0.01)
    assert found is model
    assert changed(before, weights(found)) == set(before)
    again = load(tmp_path / "out" / "model")
    assert_same(weights(again), weights(found))
    assert again.routing.config == model.routing.config
    assert not list((tmp_path / "out" / "model").glob("*.bin")), "nothing that has to be unpickled"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_trained_model_is_as_usable_as_the_one_that_was_given(data, tmp_path, precision):
    model = small_converted(**BUDGET)
    found = run(model, data, tmp_path / "out", precision=precision)
    assert not found.training
    assert found.config.use_cache
    assert all(parameter.requires_grad for parameter in found.parameters())
    assert found(random_ids(1, 5)).logits.dtype == torch.float32
    assert pickle.loads(pickle.dumps(found.state_dict())).keys() == found.state_dict().keys()
    assert "forward" not in vars(found), "autocast of the training is gone"
    assert load(tmp_path / "out" / "model").config.use_cache
    assert found.routing.progress == 1


def test_router_trains_the_routers_alone(data, tmp_path):
    model = small_converted(**BUDGET)
    before = weights(model)
    found = run(model, data, tmp_path / "out", mode="router")
    routers = {name for name in before if ".router." in name}
    assert len(routers) == 2
    assert changed(before, weights(found)) == routers
    assert all(parameter.requires_grad for parameter in found.parameters())


def test_lora_trains_adapters_and_routers_and_merges_them(data, tmp_path):
    pytest.importorskip("peft", reason="PEFT is not installed")
    model = small_converted(**BUDGET)
    before = weights(model)
    found = run(model, data, tmp_path / "out", mode="lora", lora_rank=2, learning_rate=0.01)
    after = weights(found)
    assert after.keys() == before.keys(), "no adapter is left"
    assert changed(before, after) == {name for name in before if "_proj." in name or ".router." in name}
    assert type(found).__name__ == "ModLlamaForCausalLM"
    assert all(parameter.requires_grad for parameter in found.parameters())
    assert_same(weights(load(tmp_path / "out" / "model")), after)
    assert (
        torch.linalg.matrix_rank(
            after["model.layers.0.mlp.up_proj.weight"] - before["model.layers.0.mlp.up_proj.weight"]
        )
        == 2
    )


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_a_dense_model_trains_as_it_is_and_logs_no_routing(data, tmp_path, mode):
    model = small_dense()
    remove_layers(model, (1,))
    before = weights(model)
    found = run(model, data, tmp_path / "out", mode=mode, learning_rate=0.01)
    assert changed(before, weights(found))
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model")).__name__ == "LlamaForCausalLM"
    assert facts_of(tmp_path / "out")["settings"]["modification"] is None
    for line in logged(tmp_path / "out"):
        assert line["loss"] == pytest.approx(line["lm_loss"])
        assert not [name for name in line if "gate" in name or "keep" in name or name == "objective"]


def test_the_folder_says_what_was_done(data, tmp_path):
    call = {"command": ["train", "x"], "teacher": small_dense()}
    run(small_converted(**BUDGET), data, tmp_path / "out", distillation=0.5, call=call)
    facts = facts_of(tmp_path / "out")
    settings = facts["settings"]
    assert facts["command"] == ["train", "x"]
    assert facts["versions"]["torch"] == torch.__version__
    assert settings["training"]["steps"] == CONFIG["steps"]
    assert settings["modification"]["target_keep_ratio"] == 0.25
    assert settings["objective"] == "keep_budget"
    assert settings["data"] == data.to_dict()
    assert settings["tokenizer"] == {"vocab_size": VOCAB_SIZE, "end_of_document": 256}
    assert settings["teacher"]["class"] == "LlamaForCausalLM"
    assert settings["model"]["weights"] != settings["teacher"]["weights"]
    assert settings["num_processes"] == 1


def test_a_log_holds_losses_apart_routing_per_layer_pace_and_held_out_loss(data, tmp_path):
    call = {"teacher": small_dense()}
    run(
        small_converted(**BUDGET, budget_anneal=1.0),
        data,
        tmp_path / "out",
        distillation=0.5,
        evaluate_every=4,
        call=call,
    )
    lines = logged(tmp_path / "out")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    for line in lines:
        parts = line["lm_loss"] + line["objective"] + 0.5 * line["distillation"]
        assert line["loss"] == pytest.approx(parts, rel=1e-5)
        assert line["keep_ratio"] == line["keep_ratio/layer_1"]
        assert 0 < line["mean_gate/layer_1"] < 1
        assert sum(line["gate_histogram"]["1"]) == 2 * 32, "the tokens of a step"
        assert line["tokens_per_s"] > 0
    # progress 0, 1/4, 2/4, 3/4 before the forwards of these steps
    assert [line["target_keep_ratio"] for line in lines] == pytest.approx([1.0, 0.8125, 0.625, 0.4375])
    text = (tmp_path / "out" / "log.jsonl").read_text()
    assert text.count("eval_loss") == 1
    assert "_per_second" not in text


def test_the_chosen_keep_ratio_is_reached(data, tmp_path):
    changes = {"steps": 60, "batch_size": 8, "save_every": 0, "log_every": 10}
    for target in (0.5, 1 / 9):
        model = small_converted(**{**BUDGET, "target_keep_ratio": target, "router_bias": 2.0})
        output = tmp_path / f"{target:.2f}"
        run(model, data, output, **changes)
        first, last = logged(output)[0], logged(output)[-1]
        assert first["keep_ratio"] > 0.9
        assert last["keep_ratio"] == pytest.approx(target, abs=0.03)


def test_without_the_budget_the_bias_is_an_ordinary_weight(data, tmp_path):
    model = small_converted(objective="none")
    before = model.model.layers[1].router.bias.item()
    run(model, data, tmp_path / "out", steps=3, bias_learning_rate=0.01, schedule="constant")
    # AdamW's first steps are as long as its learning rate
    assert abs(model.model.layers[1].router.bias.item() - before) == pytest.approx(0.03, abs=0.02)


def test_an_objective_asked_for_takes_the_place_of_the_models_and_is_saved(data, tmp_path):
    model = small_converted(objective="load_reducing")
    run(model, data, tmp_path / "out", call={"objective": "keep_budget"})
    assert load(tmp_path / "out" / "model").routing.config.objective == "keep_budget"
    assert facts_of(tmp_path / "out")["settings"]["objective"] == "keep_budget"


def test_a_users_own_objective_trains_and_is_recorded_but_not_kept(data, tmp_path, monkeypatch):
    (tmp_path / "gates_down.py").write_text(
        "def lower():\n    return lambda loads, config, progress: sum(load.mean_gate() for load in loads) * 10\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = small_converted(**BUDGET)
    run(model, data, tmp_path / "out", steps=8, router_learning_rate=0.05, call={"objective": "gates_down:lower"})
    lines = logged(tmp_path / "out")
    assert lines[-1]["mean_gate/layer_1"] < lines[0]["mean_gate/layer_1"] - 0.05
    assert lines[0]["objective"] == pytest.approx(10 * lines[0]["mean_gate/layer_1"], rel=1e-5)
    assert facts_of(tmp_path / "out")["settings"]["objective"] == "gates_down:lower"
    assert model.routing.objective is None
    assert load(tmp_path / "out" / "model").routing.objective is None


def test_tokenizer_files_come_along(data, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    run(small_converted(), data, tmp_path / "out", call={"copied": [tmp_path / "tokenizer.json"]})
    assert (tmp_path / "out" / "model" / "tokenizer.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("make", "changes", "error", "message"),
    [
        (small_dense, {"mode": "router"}, TrainingError, "mode: got router for LlamaForCausalLM, which has none"),
        (small_dense, {"call": {"objective": "none"}}, TrainingError, "objective: got none for Llama.*routes nothing"),
        (small_converted, {"call": {"objective": "half"}}, ModConfigError, "got 'half'; expected one of load_reducing"),
        (small_converted, {"call": {"objective": "topk_predictor"}}, ModConfigError, "expected operator topk"),
        (small_converted, {"call": {"objective": "nowhere:f"}}, TrainingError, "no module 'nowhere' to import"),
        (small_converted, {"distillation": 1.0}, TrainingError, "distillation: got 1.0 and no teacher"),
        (
            lambda: small_converted(operator="topk"),
            {},
            TrainingError,
            "boundaries: got respect; operator topk takes one",
        ),
        (lambda: small_converted().to(torch.bfloat16), {}, TrainingError, "got weights of torch.bfloat16"),
        (lambda: small_converted().to(torch.bfloat16), {"mode": "router", "steps": 0}, TrainingError, "steps: got 0"),
        (lambda: dense_model("llama", **SMALL, max_position_embeddings=16), {}, DataError, "sequence_length: got 32"),
        (
            lambda: dense_model("llama", num_hidden_layers=2),
            {},
            DataError,
            "its ids go up to 256; the model knows 0 to 210",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(data, tmp_path, make, changes, error, message):
    with pytest.raises(error, match=message):
        run(make(), data, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_a_teacher_must_fit(data, tmp_path):
    def refused(message, teacher, model=None, distillation=0.5):
        with pytest.raises(TrainingError, match=message):
            run(
                model or small_converted(), data, tmp_path / "out", distillation=distillation, call={"teacher": teacher}
            )

    refused("teacher: got vocab_size 300; the model has 257", small_dense(vocab_size=300))
    refused("teacher: got max_position_embeddings 64; the model has 256", small_dense(max_position_embeddings=64))
    model = small_converted()
    refused("teacher: got the model itself", model, model)
    refused("got 0.0 and a teacher", small_dense(), distillation=0.0)
    assert not (tmp_path / "out").exists()


def test_a_family_without_support_is_refused(data, tmp_path):
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    sizes = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=257, **sizes))
    with pytest.raises(UnsupportedModelError, match="got GPTNeoXForCausalLM; supported: "):
        run(model, data, tmp_path / "out")


def test_top_k_trains_on_whole_rows_with_its_predictor(data, tmp_path):
    whole_rows = DataConfig(**{**vars(data), "boundaries": "ignore"})
    model = small_converted(operator="topk", capacity=0.25, objective="topk_predictor", objective_alpha=1.0)
    run(model, whole_rows, tmp_path / "out", steps=30, save_every=0, router_learning_rate=0.02, bias_learning_rate=0.05)
    lines = logged(tmp_path / "out")
    assert all(line["keep_ratio"] == pytest.approx(0.25) for line in lines)
    assert lines[-1]["objective"] < 0.8 * lines[0]["objective"], "gates learn which tokens top-k keeps"


def test_the_same_seed_gives_the_same_model_and_a_teacher_is_left_as_it_is(data, tmp_path):
    teacher = small_dense()
    before = copy.deepcopy(teacher.state_dict())
    changes = {"distillation": 1.0, "call": {"teacher": teacher, "tokenizer": ByteTokenizer()}}
    first = run(small_converted(**BUDGET), data, tmp_path / "first", **changes)
    second = run(small_converted(**BUDGET), data, tmp_path / "second", **changes)
    assert_same(weights(first), weights(second))
    assert_same(teacher.state_dict(), before)
