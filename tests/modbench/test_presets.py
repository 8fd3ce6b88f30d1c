"""Presets reproduce the published parameter totals and KV-cache sizes."""

import pytest

from modbench.presets import PRESETS, Geometry
from modbench.scenario import resolve_routed_layers
from reference_impl import ModConfig

BYTES_BF16 = 2
# preset: parameters in units of 1e9, KV KiB per token in bfloat16 (the models' cards; Gemma 3 without its vision tower)
PUBLISHED = {
    "qwen3-0.6b": (0.596, 112),
    "gemma3-1b": (1.000, 26),
    "llama3.2-1b": (1.236, 32),
    "qwen3-1.7b": (1.721, 112),
    "gemma2-2b": (2.614, 104),
    "openllama-3b": (3.426, 325),
    "qwen2.5-3b": (3.086, 36),
    "llama3.2-3b": (3.213, 112),
    "gemma3-4b": (3.880, 136),
    "qwen3-4b": (4.022, 144),
    "llama2-7b": (6.738, 512),
    "mistral-7b-v0.1": (7.242, 128),
    "mistral-7b-v0.3": (7.248, 128),
    "olmo2-7b": (7.299, 512),
    "qwen2.5-7b": (7.616, 56),
    "llama3-8b": (8.030, 128),
    "llama3.1-8b": (8.030, 128),
    "qwen3-8b": (8.191, 144),
    "gemma2-9b": (9.242, 336),
    "gemma3-12b": (11.766, 384),
    "llama2-13b": (13.016, 800),
    "olmo2-13b": (13.716, 800),
    "phi-4": (14.660, 200),
    "qwen2.5-14b": (14.770, 192),
    "qwen3-14b": (14.768, 160),
    "gemma2-27b": (27.227, 368),
    "gemma3-27b": (27.009, 496),
    "olmo2-32b": (32.234, 256),
    "qwen2.5-32b": (32.764, 256),
    "qwen3-32b": (32.762, 256),
    "codellama-34b": (33.744, 192),
    "llama2-70b": (68.977, 320),
    "llama3-70b": (70.554, 320),
    "llama3.1-70b": (70.554, 320),
    "llama3.3-70b": (70.554, 320),
    "qwen2.5-72b": (72.706, 320),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_has_the_published_size(name: str) -> None:
    billions, kib_per_token = PUBLISHED[name]
    assert round(PRESETS[name].num_parameters / 1e9, 3) == billions
    assert PRESETS[name].kv_bytes_per_token(BYTES_BF16) == kib_per_token * 1024


def test_every_published_preset_is_checked() -> None:
    assert set(PRESETS) - {"tiny", "bench-8x512"} == set(PUBLISHED)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_divides_into_heads(name: str) -> None:
    geometry = PRESETS[name]
    assert geometry.head_dim or geometry.hidden_size % geometry.num_attention_heads == 0
    assert geometry.num_attention_heads % geometry.kv_heads == 0
    assert geometry.size_per_head % 2 == 0, "rotary positions turn pairs"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_passes_the_checks_of_a_written_geometry(name: str) -> None:
    assert Geometry.model_validate(PRESETS[name].model_dump()) == PRESETS[name]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("num_layers", [2, 7, 32])
def test_a_share_of_layers_means_the_same_to_scenario_and_model(share: float, num_layers: int) -> None:
    routed = resolve_routed_layers(share, num_layers) if round(share * num_layers) else (num_layers - 1,)
    assert ModConfig(routed_layers=share).resolve_layers(num_layers) == routed
