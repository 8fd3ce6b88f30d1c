"""What families add to the sizes of a geometry: biases, norms, windows; and dumps that older records agree with."""

from typing import Any

import pytest
from pydantic import ValidationError

from modbench.geometry import FAMILIES, Geometry
from modbench.presets import PRESETS
from reference_impl import hf_families

SIZES: dict[str, Any] = {
    "num_hidden_layers": 6,
    "hidden_size": 8,
    "intermediate_size": 6,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 10,
}


def geometry(**changes: Any) -> Geometry:
    return Geometry(**{**SIZES, **changes})


def test_families_are_those_that_can_be_converted() -> None:
    assert set(FAMILIES) == set(hf_families.FAMILIES)


def test_parameters_are_counted_piece_by_piece() -> None:
    one = geometry(model_type="qwen2", num_hidden_layers=1, hidden_size=4)
    # q 4x4, o 4x4, k and v 2x4 each, biases 4 + 2 + 2; mlp 3 x 4x6; two norms; final norm; two 10x4 embeddings
    assert one.num_parameters == (16 + 16 + 8 + 8 + 8) + 72 + 8 + 4 + 80
    assert one.model_copy(update={"tie_word_embeddings": True}).num_parameters == one.num_parameters - 40


def test_a_family_has_the_biases_that_it_has_whatever_is_asked() -> None:
    for family, plain, biased in (("llama", 0, 24), ("qwen2", 16, 16), ("mistral", 0, 0)):  # q 8, k 4, v 4, o 8
        counts = [geometry(model_type=family, attention_bias=asked).attention_parameters for asked in (False, True)]
        assert counts == [192 + plain, 192 + biased], family


def test_norms_are_those_of_the_family() -> None:
    found = {family: geometry(model_type=family).norm_parameters for family in FAMILIES}
    # per layer two norms of 8, Gemma four; two of a head's 4, or of all 2 + 1 heads
    assert found == {
        "llama": 16, "mistral": 16, "qwen2": 16, "phi3": 16, "qwen3": 16 + 8, "olmo2": 16 + 12, "gemma2": 32,
        "gemma3_text": 32 + 8,
    }  # fmt: skip


WINDOWS = {
    "mistral": [9, 9, 9, 9, 9, 9],
    "phi3": [9, 9, 9, 9, 9, 9],
    "qwen3": [9, 9, 9, 9, 9, 9],
    "gemma2": [9, None, 9, None, 9, None],
    "gemma3_text": [9, 9, 9, 9, 9, None],
}


@pytest.mark.parametrize("family", WINDOWS)
def test_a_window_is_in_the_layers_that_the_family_says(family: str) -> None:
    windowed = geometry(model_type=family, sliding_window=9)
    assert list(windowed.windows) == WINDOWS[family]
    assert [layer.window for layer in windowed.shape().layers] == WINDOWS[family]
    assert set(geometry(model_type=family).windows) == {None}


def test_layer_types_say_it_for_each_layer() -> None:
    types = ["full_attention"] * 2 + ["sliding_attention"] * 4
    windowed = geometry(model_type="gemma3_text", sliding_window=9, layer_types=types)
    assert windowed.windows == (None, None, 9, 9, 9, 9)
    assert hash(windowed) == hash(Geometry.model_validate_json(windowed.model_dump_json()))


REFUSED = {
    "llama": ({"sliding_window": 9}, "got a sliding_window for llama, which has none; expected no sliding_window"),
    "olmo2": ({"sliding_window": 9}, "got a sliding_window for olmo2"),
    "mistral": ({"layer_types": ["full_attention"] * 6}, "got layer_types for mistral, whose layers are all alike"),
    "qwen2": ({"layer_types": ["full_attention"] * 5}, "got 5 layer_types; expected one for each of the layers"),
    "qwen3": (
        {"layer_types": ["sliding_attention"] * 6},
        "got sliding_attention in layer_types without a sliding_window",
    ),
    "gemma2": ({"layer_types": ["linear_attention"] * 6}, "Input should be 'full_attention' or 'sliding_attention'"),
    "phi3": ({"sliding_window": 1}, "greater than or equal to 2"),
}


@pytest.mark.parametrize("family", REFUSED)
def test_windows_that_a_family_cannot_have_are_refused(family: str) -> None:
    changes, expected = REFUSED[family]
    with pytest.raises(ValidationError, match=expected):
        geometry(model_type=family, **changes)


def test_a_dump_without_windows_is_what_records_and_ids_were_made_of() -> None:
    assert PRESETS["tiny"].model_dump(mode="json") == {
        "model_type": "llama", "num_hidden_layers": 4, "hidden_size": 128, "intermediate_size": 344,
        "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": None, "vocab_size": 512,
        "max_position_embeddings": 65536, "rope_theta": 10000.0, "rms_norm_eps": 1e-05,
        "tie_word_embeddings": False, "attention_bias": False,
    }  # fmt: skip
    assert PRESETS["mistral-7b-v0.1"].model_dump(mode="json")["sliding_window"] == 4096


def test_a_shape_says_the_same_as_its_geometry() -> None:
    for preset in PRESETS.values():
        shape = preset.shape()
        assert shape.num_hidden_layers == preset.num_hidden_layers
        assert shape.num_parameters == preset.num_parameters
        assert shape.kv_bytes_per_token(2) == preset.kv_bytes_per_token(2)
        assert shape.shape() is shape
