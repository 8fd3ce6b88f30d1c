"""Save -> load -> the same model, and nothing that looks like one but is not."""

import copy
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from reference_impl import ModConfig, UnsupportedModelError, calibrate, convert, load
from tests.reference_impl.conftest import dense_model, random_ids

SETTINGS = {"threshold_p": 0.55, "routed_layers": (0, 2), "gate": "shared", "router_bias": 0.1}


@pytest.fixture
def saved(make_converted, tmp_path):
    model = make_converted(**SETTINGS)
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model", model


def same_logits(first, second) -> bool:
    """Bit for bit, both on freshly allocated weights: CPU kernels round by the alignment of their inputs."""
    ids = random_ids(2, 19)
    return torch.equal(copy.deepcopy(first)(ids).logits, copy.deepcopy(second)(ids).logits)


def change_weights(folder, change) -> None:
    """Rewrite the folder's weights after `change(tensors)`."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@torch.no_grad()
def test_a_loaded_model_gives_the_same_logits_bit_for_bit(make_converted, tmp_path, family):
    model = make_converted(family, **SETTINGS)
    model.save_pretrained(tmp_path)
    again = load(tmp_path).eval()
    assert type(again) is type(model)
    assert again.routing.config == model.routing.config == ModConfig(**SETTINGS)
    assert same_logits(again, model)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == f"mod_{family}"


@torch.no_grad()
def test_auto_classes_load_it_in_half_precision_with_routers_in_float32(saved):
    folder, _ = saved
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    assert model.model.layers[0].router.weight.dtype == torch.float32
    assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    assert torch.isfinite(model(random_ids(1, 7)).logits).all()


@torch.no_grad()
def test_sharded_checkpoints_load(saved, tmp_path):
    _, model = saved
    model.save_pretrained(tmp_path / "shards", max_shard_size="60KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert same_logits(load(tmp_path / "shards").eval(), model)


def test_missing_router_weights_are_an_error(saved):
    folder, _ = saved
    change_weights(folder, lambda tensors: tensors.pop("model.layers.2.router.weight"))
    with pytest.raises(UnsupportedModelError, match=r"missing keys: model\.layers\.2\.router\.weight"):
        load(folder)


def test_alien_router_weights_are_an_error(saved):
    folder, _ = saved
    change_weights(folder, lambda tensors: tensors.update({"model.layers.1.router.weight": torch.zeros(64)}))
    with pytest.raises(UnsupportedModelError, match=r"unexpected keys: model\.layers\.1\.router\.weight"):
        load(folder)


def test_a_dense_folder_is_not_taken_for_a_converted_one(tmp_path):
    dense_model().save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="got model_type 'llama'; expected one of mod_llama"):
        load(tmp_path)


def test_a_reader_without_this_package_fails_instead_of_loading_a_dense_model(saved):
    folder, _ = saved
    code = f"from transformers import AutoModelForCausalLM; AutoModelForCausalLM.from_pretrained({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "mod_llama" in done.stderr


@torch.no_grad()
def test_a_calibration_by_position_is_not_saved_in_silence(make_converted, tmp_path):
    model = make_converted()
    ids = random_ids(1, 40)
    calibrate(model, ids, 0.25, prompt_length=20)
    with pytest.raises(UnsupportedModelError, match="calibrated by position"):
        model.save_pretrained(tmp_path)
    calibrate(model, ids, 0.25)
    model.save_pretrained(tmp_path)
    assert same_logits(load(tmp_path).eval(), model)


@torch.no_grad()
def test_settings_of_a_checkpoint_are_checked(saved):
    folder, _ = saved
    config = json.loads((folder / "config.json").read_text())
    config["modification"]["threshold_p"] = 7.0
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"threshold_p: got 7\.0"):
        load(folder)


@torch.no_grad()
def test_converting_leaves_other_configs_alone():
    stock, converted = dense_model(), convert(dense_model())
    assert stock.config.model_type == "llama"
    assert converted.config.model_type == "mod_llama"
