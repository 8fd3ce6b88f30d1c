"""Presets reproduce the published parameter totals and KV-cache sizes."""

import pytest

from modbench.presets import FAMILIES, PRESETS, Geometry
from modbench.scenario import resolve_routed_layers
from reference_impl import ModConfig, hf_families

BYTES_BF16 = 2
# preset: parameters in units of 1e9, KV KiB per token in bfloat16 (docs of the models, as in the platform notes)
PUBLISHED = {
    "openllama-3b": (3.426, 325),
    "qwen2.5-3b": (3.086, 36),
    "llama2-7b": (6.738, 512),
    "qwen2.5-7b": (7.616, 56),
    "llama3-8b": (8.030, 128),
    "llama2-13b": (13.016, 800),
    "qwen2.5-32b": (32.764, 256),
    "codellama-34b": (33.744, 192),
    "llama2-70b": (68.977, 320),
    "llama3-70b": (70.554, 320),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_has_the_published_size(name: str) -> None:
    billions, kib_per_token = PUBLISHED[name]
    assert round(PRESETS[name].num_parameters / 1e9, 3) == billions
    assert PRESETS[name].kv_bytes_per_token(BYTES_BF16) == kib_per_token * 1024


def test_every_large_preset_is_checked() -> None:
    assert {name for name, geometry in PRESETS.items() if geometry.num_parameters > 1e9} == set(PUBLISHED)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_divides_into_heads(name: str) -> None:
    geometry = PRESETS[name]
    assert geometry.size_per_head * geometry.num_attention_heads == geometry.hidden_size
    assert geometry.num_attention_heads % geometry.kv_heads == 0
    assert geometry.size_per_head % 2 == 0, "rotary positions turn pairs"


def test_parameters_are_counted_piece_by_piece() -> None:
    geometry = Geometry(
        num_hidden_layers=1, hidden_size=4, intermediate_size=6, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=10, attention_bias=True,
    )  # fmt: skip
    # q 4x4, o 4x4, k and v 2x4 each, biases 4 + 2 + 2; mlp 3 x 4x6; two norms; final norm; two 10x4 embeddings
    assert geometry.num_parameters == (16 + 16 + 8 + 8 + 8) + 72 + 8 + 4 + 80
    assert geometry.model_copy(update={"tie_word_embeddings": True}).num_parameters == geometry.num_parameters - 40


def test_families_can_all_be_converted() -> None:
    assert set(FAMILIES) <= set(hf_families.FAMILIES)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("num_layers", [2, 7, 32])
def test_a_share_of_layers_means_the_same_to_scenario_and_model(share: float, num_layers: int) -> None:
    routed = resolve_routed_layers(share, num_layers) if round(share * num_layers) else (num_layers - 1,)
    assert ModConfig(routed_layers=share).resolve_layers(num_layers) == routed
