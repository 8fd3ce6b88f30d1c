"""Where models come from: geometry, a checkpoint folder with weights, its config alone."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from modbench.errors import UnsupportedError
from modbench.methods import METHODS
from modbench.methods.hf_model import build_model, hf_config, stock_attention
from modbench.presets import PRESETS
from reference_impl.mod_layer import sliding_windows
from tests.modbench.jobs import MICRO, SETTINGS, make_point

CPU = torch.device("cpu")
IDS = torch.arange(12)[None]


@pytest.fixture
def checkpoint(tmp_path):
    """A small Llama saved with other weights than any seed of ours gives."""
    torch.manual_seed(99)
    model = LlamaForCausalLM(hf_config(MICRO)).eval()
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model", model


@torch.inference_mode()
def test_a_checkpoint_folder_gives_its_own_weights(checkpoint):
    folder, original = checkpoint
    point = make_point(SETTINGS["dense"], model={"weights": "checkpoint", "path": str(folder)})
    logits, _ = METHODS["dense"](SETTINGS["dense"]).build(point, CPU).prefill(IDS)
    torch.testing.assert_close(logits, original(IDS).logits[:, -1:])


@torch.inference_mode()
def test_a_checkpoint_is_converted_with_its_weights(checkpoint):
    folder, original = checkpoint
    point = make_point(SETTINGS["threshold"], model={"weights": "checkpoint", "path": str(folder)})
    unit = METHODS["threshold"](SETTINGS["threshold"]).build_unit(point, CPU)
    torch.testing.assert_close(unit.prefill(IDS)[0], original(IDS).logits[:, -1:])


def test_random_weights_depend_on_the_seed_alone():
    first = build_model(make_point(SETTINGS["dense"]), CPU)
    again = build_model(make_point(SETTINGS["threshold"]), CPU)
    workload = {**make_point({}).workload, "seed": 1}
    other = build_model(make_point(SETTINGS["dense"], workload=workload), CPU)
    weights = [model.model.layers[0].mlp.up_proj.weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_folder_that_is_no_model_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    point = make_point(SETTINGS["dense"], model={"weights": "checkpoint", "path": str(tmp_path)})
    with pytest.raises(UnsupportedError, match=r"model\.path: .*") as caught:
        build_model(point, CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_becomes_the_config_and_the_model_it_describes(preset):
    geometry, config = PRESETS[preset], hf_config(PRESETS[preset])
    assert config.model_type == geometry.model_type
    assert config.num_key_value_heads == geometry.kv_heads
    rope = config.rope_parameters
    assert rope.get("full_attention", rope)["rope_theta"] == geometry.rope_theta
    assert config.tie_word_embeddings == geometry.tie_word_embeddings
    assert sliding_windows(config) == list(geometry.windows)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == geometry.num_parameters


def test_gemma2_is_capped_and_gemma3_has_two_rotary_bases():
    gemma2, gemma3 = hf_config(PRESETS["gemma2-2b"]), hf_config(PRESETS["gemma3-1b"])
    assert (gemma2.attn_logit_softcapping, gemma2.final_logit_softcapping) == (50.0, 30.0)
    assert gemma3.rope_parameters["sliding_attention"]["rope_theta"] == 1e4
    assert (gemma2.hidden_activation, gemma3.hidden_activation) == ("gelu_pytorch_tanh", "gelu_pytorch_tanh")


def test_attention_that_cannot_cap_is_not_put_under_a_model_that_caps():
    config = hf_config(PRESETS["gemma2-2b"])
    assert stock_attention("auto", config) == "eager"
    assert stock_attention("auto", hf_config(PRESETS["gemma3-1b"])) == "sdpa"
    with pytest.raises(
        UnsupportedError, match="got sdpa, which cannot cap the attention logits of gemma2; expected one"
    ):
        stock_attention("sdpa", config)


@torch.inference_mode()
def test_skip_layers_has_one_cache_slot_per_remaining_layer():
    subject = METHODS["skip_layers"](SETTINGS["skip_layers"]).build(make_point(SETTINGS["skip_layers"]), CPU)
    _, cache = subject.prefill(IDS)
    assert len(cache.layers) == 2
    assert cache.get_seq_length() == 12
