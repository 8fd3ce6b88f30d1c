"""A config.json of a known family becomes the geometry that transformers would build, with what it leaves out filled in."""

import json
from typing import Any

import pytest
from transformers import AutoConfig

from modbench.errors import ScenarioError
from modbench.geometry import FAMILIES, Geometry, window_kind
from modbench.scenario.config_geometry import IMPLIED, IMPLIED_INSIDE, geometry_from_config, nested_config
from reference_impl.mod_layer import sliding_windows

SMALL: dict[str, Any] = {
    "num_hidden_layers": 8,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 256,
    "pad_token_id": None,
}


def read(config: dict[str, Any]) -> Geometry:
    return geometry_from_config(json.loads(json.dumps(config)), "config.json")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("is_saved_in_full", [True, False], ids=["full", "as written by hand"])
def test_windows_heads_and_ends_are_those_of_the_class(family: str, is_saved_in_full: bool) -> None:
    config = AutoConfig.for_model(family, **SMALL)
    geometry = read(config.to_dict() if is_saved_in_full else {"model_type": family, **SMALL})
    assert geometry.model_type == family
    assert list(geometry.windows) == sliding_windows(config)
    assert geometry.size_per_head == (getattr(config, "head_dim", None) or 16)
    assert geometry.tie_word_embeddings == config.tie_word_embeddings


OLD_WINDOWS = {
    "unused": ({"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 32}, [None] * 8),
    "by number": (
        {"model_type": "qwen3", "use_sliding_window": True, "sliding_window": 32, "max_window_layers": 6},
        [None] * 6 + [32] * 2,
    ),
    "by pattern": (
        {"model_type": "gemma3_text", "sliding_window": 32, "sliding_window_pattern": 4},
        [32, 32, 32, None] * 2,
    ),
    "null": ({"model_type": "mistral", "sliding_window": None}, [None] * 8),
    "alike": ({"model_type": "mistral", "sliding_window": 32, "layer_types": ["sliding_attention"] * 8}, [32] * 8),
    "all full": ({"model_type": "mistral", "sliding_window": 32, "layer_types": ["full_attention"] * 8}, [None] * 8),
    "ignored": ({"model_type": "llama", "sliding_window": 32}, [None] * 8),
}


@pytest.mark.parametrize(("changes", "expected"), OLD_WINDOWS.values(), ids=OLD_WINDOWS)
def test_older_spellings_of_windows_are_read(changes: dict[str, Any], expected: list[int | None]) -> None:
    assert list(read({**SMALL, **changes}).windows) == expected


def test_layer_types_that_are_the_familys_own_are_not_written_out() -> None:
    types = ["sliding_attention", "full_attention"] * 4
    own, other = ({"model_type": "gemma2", "layer_types": order, **SMALL} for order in (types, types[::-1]))
    assert read(own).layer_types is None
    assert read(other).layer_types == tuple(types[::-1])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rope_theta": 5e5}, 5e5),
        ({"rope_parameters": {"full_attention": {"rope_theta": 3e5}, "sliding_attention": {"rope_theta": 1e4}}}, 3e5),
        ({}, 1e6),
    ],
)
def test_the_rotary_base_is_that_of_full_attention(changes: dict[str, Any], expected: float) -> None:
    assert read({"model_type": "gemma3_text", **SMALL, **changes}).rope_theta == expected


@pytest.mark.parametrize("family", sorted({*IMPLIED, *IMPLIED_INSIDE}))
def test_what_a_config_leaves_out_is_what_the_class_has(family: str) -> None:
    config = AutoConfig.for_model(family, **({"use_sliding_window": True} if family.startswith("qwen") else {}))
    implied = {**IMPLIED.get(family, {}), **IMPLIED_INSIDE.get(family, {})}
    assert implied == {key: getattr(config, key) for key in implied}


def test_every_window_that_a_class_has_by_itself_is_known() -> None:
    for family in FAMILIES:
        if window_kind(family) != "none" and not family.startswith("qwen"):
            window = getattr(AutoConfig.for_model(family), "sliding_window", None)
            assert IMPLIED.get(family, {}).get("sliding_window") == window, family


def test_the_language_model_inside_a_multimodal_config_is_found() -> None:
    gemma = {
        "model_type": "gemma3", "vision_config": {"hidden_size": 1152},
        "text_config": {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
                        "num_hidden_layers": 34, "sliding_window": 1024},
    }  # fmt: skip
    inner = nested_config(gemma)
    assert inner is not None
    assert round(read(inner).num_parameters / 1e9, 3) == 3.880
    llava = {
        "model_type": "llava",
        "text_config": {"model_type": "llama", "max_position_embeddings": 4096, "vocab_size": 32064},
    }
    inner = nested_config(llava)
    assert inner is not None
    assert (read(inner).num_hidden_layers, read(inner).vocab_size) == (32, 32064)
    assert nested_config(SMALL) is None


def test_embeddings_of_a_multimodal_model_are_tied_by_the_outer_config() -> None:
    inner = nested_config({"tie_word_embeddings": True, "text_config": {"model_type": "llama"}})
    assert inner is not None
    assert read(inner).tie_word_embeddings


BAD = {
    "no window": (
        {"model_type": "qwen3", "layer_types": ["full_attention", "sliding_attention"] * 4},
        "config.json has sliding-window layers without a sliding_window; expected both or none",
    ),
    "mixed": (
        {"model_type": "mistral", "sliding_window": 9, "layer_types": ["full_attention", "sliding_attention"] * 4},
        "config.json has sliding-window layers among others, which mistral cannot have",
    ),
    "never": (
        {"model_type": "llama", "sliding_window": 9, "layer_types": ["sliding_attention"] * 8},
        "config.json has sliding-window layers among others, which llama cannot have",
    ),
    "too few": (
        {"model_type": "gemma2", "layer_types": ["sliding_attention"]},
        "config.json: got 1 layer_types; expected one for each of the layers",
    ),
    "another kind": (
        {"model_type": "gemma2", "layer_types": ["linear_attention"] * 8},
        "config.json: layer_types: got 'linear_attention'; expected one of full_attention, sliding_attention; "
        "did you mean sliding_attention?",
    ),
    "tiny window": (
        {"model_type": "mistral", "sliding_window": 1},
        "config.json: sliding_window: got 1; expected an integer >= 2 and <= 2147483648",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "expected"), BAD.values(), ids=BAD)
def test_windows_that_cannot_be_are_one_line(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        read({**SMALL, **changes})
    assert str(caught.value) == expected
