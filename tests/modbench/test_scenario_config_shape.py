"""Any decoder-only config gives a shape of the right size, or one line that names the key which says why not."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from modbench.errors import ScenarioError
from modbench.model_shape import ModelShape
from modbench.presets import PRESETS
from modbench.scenario.config_geometry import geometry_from_config
from modbench.scenario.config_shape import shape_of_config, shape_of_file
from reference_impl.mod_layer import sliding_windows

SIZE_TOLERANCE = 0.01  # norms, biases and learned positions are left out

FAMILIES = (
    "apertus", "arcee", "bloom", "codegen", "cohere", "cohere2", "ernie4_5", "ernie4_5_moe", "exaone4", "falcon",
    "flex_olmo", "gemma", "glm4", "gpt2", "gpt_bigcode", "gpt_neox", "gpt_oss", "gptj", "granite", "granitemoe",
    "granitemoeshared", "mixtral", "mpt", "nanochat", "olmo", "olmo3", "olmoe", "persimmon", "phi", "phimoe",
    "qwen2_moe", "qwen3_moe", "seed_oss", "smollm3", "stablelm", "starcoder2", "xglm",
)  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_the_size_of_its_class(family: str) -> None:
    config = AutoConfig.for_model(family)
    shape = shape_of_config(json.loads(config.to_json_string(use_diff=False)))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    exact = sum(parameter.numel() for parameter in model.parameters())
    assert shape.num_parameters == pytest.approx(exact, rel=SIZE_TOLERANCE)
    assert shape.num_hidden_layers == config.num_hidden_layers
    if getattr(config, "layer_types", None):
        assert [layer.window for layer in shape.layers] == sliding_windows(config)


# As in the published files: name, keys, parameters in units of 1e9, KV KiB per token in bfloat16.
MIXTRAL = {
    "model_type": "mixtral", "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 14336,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000, "hidden_act": "silu",
    "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": None, "tie_word_embeddings": False,
    "max_position_embeddings": 32768,
}  # fmt: skip
QWEN3_30B_A3B = {
    "model_type": "qwen3_moe", "num_hidden_layers": 48, "hidden_size": 2048, "intermediate_size": 6144,
    "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936, "hidden_act": "silu",
    "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "decoder_sparse_step": 1,
    "mlp_only_layers": [], "tie_word_embeddings": False,
}  # fmt: skip
FALCON_7B = {
    "model_type": "falcon", "num_hidden_layers": 32, "hidden_size": 4544, "num_attention_heads": 71,
    "num_kv_heads": 71, "multi_query": True, "new_decoder_architecture": False, "vocab_size": 65024,
}  # fmt: skip
DBRX = {
    "model_type": "dbrx", "n_layers": 40, "d_model": 6144, "n_heads": 48, "vocab_size": 100352, "max_seq_len": 32768,
    "attn_config": {"kv_n_heads": 8}, "tie_word_embeddings": False,
    "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4},
}  # fmt: skip
PUBLISHED: dict[str, tuple[dict[str, Any], float, float]] = {
    "mixtral-8x7b": (MIXTRAL, 46.70, 128),
    "qwen3-30b-a3b": (QWEN3_30B_A3B, 30.53, 96),
    "falcon-7b": (FALCON_7B, 6.92, 8),
    "dbrx": (DBRX, 131.6, 160),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_has_the_published_size(name: str) -> None:
    config, billions, kib_per_token = PUBLISHED[name]
    shape = shape_of_config(config)
    assert shape.num_parameters / 1e9 == pytest.approx(billions, abs=0.05)
    assert shape.kv_bytes_per_token(2) == kib_per_token * 1024


def test_a_mixture_computes_its_experts_per_token_and_shared_ones() -> None:
    layer = shape_of_config(MIXTRAL).layers[0]
    assert layer.experts is not None
    assert (layer.experts.num_experts, layer.experts.num_per_token) == (8, 2)
    assert layer.experts.parameters == 3 * 4096 * 14336
    assert layer.mlp_parameters == 4096 * 8, "the router alone"
    shared = shape_of_config(MIXTRAL | {"n_shared_experts": 2, "moe_intermediate_size": 1000}).layers[0]
    assert shared.mlp_parameters == 4096 * 8 + 3 * 4096 * 2000


@pytest.mark.parametrize(
    ("changes", "sparse"),
    [
        ({}, [0, 1, 2, 3]),
        ({"first_k_dense_replace": 2}, [2, 3]),
        ({"decoder_sparse_step": 2}, [1, 3]),
        ({"mlp_only_layers": [0, 3]}, [1, 2]),
        ({"moe_layer_start_index": 1, "moe_layer_end_index": 2}, [1, 2]),
        ({"mlp_layer_types": ["dense", "sparse", "dense", "dense"]}, [1]),
        ({"num_local_experts": 0}, []),
    ],
)
def test_only_some_layers_are_mixtures(changes: dict[str, Any], sparse: list[int]) -> None:
    layers = shape_of_config(MIXTRAL | {"num_hidden_layers": 4} | changes).layers
    assert [index for index, layer in enumerate(layers) if layer.experts] == sparse
    dense = [layer.mlp_parameters for index, layer in enumerate(layers) if index not in sparse]
    assert dense == [3 * 4096 * 14336] * (4 - len(sparse))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sliding_window": 9}, [9, 9, 9, 9]),
        ({"sliding_window": 9, "use_sliding_window": False}, [None] * 4),
        ({"sliding_window": 9, "use_sliding_window": True, "max_window_layers": 3}, [None, None, None, 9]),
        ({"sliding_window": 9, "sliding_window_pattern": 2}, [9, None, 9, None]),
        ({"sliding_window": 9, "layer_types": ["full_attention", "sliding_attention"] * 2}, [None, 9, None, 9]),
        ({"sliding_window": 9, "model_type": "gpt_oss"}, [9, None, 9, None]),
    ],
)
def test_windows_are_read_in_every_spelling(changes: dict[str, Any], expected: list[int | None]) -> None:
    shape = shape_of_config(MIXTRAL | {"num_hidden_layers": 4} | changes)
    assert [layer.window for layer in shape.layers] == expected


def test_a_family_that_runs_is_estimated_as_it_runs() -> None:
    config = {"model_type": "mistral", "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96,
              "num_attention_heads": 4, "vocab_size": 300, "max_position_embeddings": 128}  # fmt: skip
    shape = shape_of_config(config)
    assert shape == geometry_from_config(config, "").shape()
    assert shape.layers[0].window == 4096, "left out, as the class has it"


def test_a_multimodal_model_is_its_language_model() -> None:
    inner = {key: value for key, value in PRESETS["mistral-7b-v0.3"].model_dump().items() if value is not None}
    outer = {"model_type": "llava", "vision_config": {}, "text_config": inner | {"sliding_window": None}}
    assert shape_of_config(outer) == PRESETS["mistral-7b-v0.3"].shape()


REFUSED = {
    "encoder-decoder": ({"is_encoder_decoder": True}, "is_encoder_decoder: got true, an encoder-decoder model; expected"),
    "latent attention": ({"kv_lora_rank": 512}, "kv_lora_rank: got 512, multi-head latent attention; expected"),
    "state space": ({"mamba_d_state": 16}, "mamba_d_state: got 16, state-space layers; expected"),
    "linear": ({"layer_types": ["linear_attention"]}, "layer_types: got 'linear_attention'; expected full_attention and"),
    "family": ({"model_type": "jetmoe"}, "model_type: got 'jetmoe', experts in its attention; expected"),
    "masked": ({"architectures": ["BertForMaskedLM"]}, "architectures: got 'BertForMaskedLM'; expected a causal language model"),
    "no inner size": ({"intermediate_size": None}, "has no intermediate_size; expected a decoder-only model's config"),
    "too few types": ({"sliding_window": 9, "layer_types": ["full_attention"]}, "got 1 layer_types; expected one for each"),
    "text": ({"hidden_size": "big"}, "hidden_size: got 'big'; expected an integer >= 1 and <= 16777216"),
    "huge": ({"num_hidden_layers": 10**9}, "num_hidden_layers: got 1000000000; expected an integer >= 1 and <= 10000"),
    "per layer": ({"intermediate_size": [1, 2]}, "intermediate_size: got [1, 2]; expected an integer"),
    "heads": ({"num_attention_heads": 5}, "got hidden_size 4096 with 5 attention heads; expected a multiple"),
    "experts": ({"num_experts_per_tok": 9}, "got 9 experts per token of 8; expected at most all"),
    "no experts per token": ({"num_experts_per_tok": None}, "has no num_experts_per_tok"),
    "no activation": ({"hidden_act": None}, "has no hidden_act; expected one, which tells whether the MLP has a gate"),
    "no layers": ({"num_hidden_layers": None}, "has no num_hidden_layers; expected a decoder-only model's config"),
    "known family": ({"model_type": "llama", "num_attention_heads": 5, "head_dim": 3}, "got a head size of 3; expected an even"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_described_is_one_line(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        shape_of_config(MIXTRAL | changes)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config", [MIXTRAL, DBRX, QWEN3_30B_A3B | {"sliding_window": 9, "layer_types": ["full_attention"] * 48}]
)
@pytest.mark.parametrize("value", [True, -1, 2.5, "x", [3], {"y": 1}], ids=repr)
def test_a_value_of_any_kind_is_read_or_refused(config: dict[str, Any], value: object) -> None:
    for key in (*config, "mlp_only_layers", "mlp_layer_types", "first_k_dense_replace", "architectures", "text_config"):
        with suppress(ScenarioError):  # anything else fails the test
            shape_of_config(config | {key: value})


def test_a_file_or_its_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MIXTRAL))
    expected = shape_of_config(MIXTRAL)
    assert isinstance(expected, ModelShape)
    assert shape_of_file(tmp_path) == shape_of_file(tmp_path / "config.json") == expected


@pytest.mark.parametrize("kind", ["missing", "pipe", "text"])
def test_a_file_that_is_no_config_is_one_line(tmp_path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(tmp_path / "config.json")
    elif kind == "text":
        (tmp_path / "config.json").write_text("layers: 3")
    with pytest.raises(ScenarioError, match=r"config\.json") as caught:
        shape_of_file(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_window_that_sees_nothing_before_itself_is_refused() -> None:
    config = json.loads(AutoConfig.for_model("starcoder2").to_json_string(use_diff=False)) | {"sliding_window": 1}
    with pytest.raises(ScenarioError, match="sliding_window: got 1; expected at least 2, or none"):
        shape_of_config(config)
