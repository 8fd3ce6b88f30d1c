"""Models given as folders, position limits and prompts: what is read, and what is refused."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from modbench.errors import ScenarioError
from modbench.scenario import load_scenario
from tests.modbench.test_scenario_example import changed, errors, load

CONFIG: dict[str, Any] = {
    "model_type": "qwen2",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 256,
    "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"},
    "unknown_to_us": 1,
}


def model_folder(folder: Path, config: object, *, weights: bool = True) -> str:
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if weights:
        (model / "model.safetensors").write_bytes(b"")
    return changed("preset: tiny", "path: model")


def test_a_model_folder_gives_its_geometry(tmp_path: Path) -> None:
    point = load(tmp_path, model_folder(tmp_path, CONFIG)).points[0]
    geometry = point.geometry
    assert (geometry.num_hidden_layers, geometry.kv_heads, geometry.size_per_head) == (2, 2, 16)
    assert geometry.rope_theta == 5e5, "transformers 5 keeps it under rope_parameters"
    assert geometry.attention_bias, "qwen2 has biases without saying so"
    assert point.folder_sha256 is not None


def test_a_windowed_model_keeps_its_windows(tmp_path: Path) -> None:
    config = CONFIG | {"model_type": "gemma3_text", "sliding_window": 32, "head_dim": 16}
    assert load(tmp_path, model_folder(tmp_path, config)).points[0].geometry.windows == (32, 32)


def test_a_multimodal_model_can_be_measured_as_its_language_model_with_random_weights(tmp_path: Path) -> None:
    config = {"model_type": "gemma3", "text_config": CONFIG | {"model_type": "gemma3_text", "head_dim": 16}}
    text = model_folder(tmp_path, config, weights=False).replace("path: model", "path: model, weights: random")
    geometry = load(tmp_path, text).points[0].geometry
    assert (geometry.model_type, geometry.tie_word_embeddings, geometry.sliding_window) == ("gemma3_text", True, 4096)


def test_a_folders_hash_covers_its_config_and_its_weights(tmp_path: Path) -> None:
    text = model_folder(tmp_path, CONFIG)
    first = load(tmp_path, text).points[0].folder_sha256
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other")
    assert load(tmp_path, text).points[0].folder_sha256 != first


def test_rope_theta_is_also_read_from_the_top_of_a_config(tmp_path: Path) -> None:
    config = {key: value for key, value in CONFIG.items() if key != "rope_parameters"} | {"rope_theta": 123.0}
    assert load(tmp_path, model_folder(tmp_path, config)).points[0].geometry.rope_theta == 123.0


BAD_CONFIGS = {
    "not JSON": ("{", "config.json in 'FOLDER/model' is not valid JSON"),
    "too deep": ("[" * 100_000, "config.json in 'FOLDER/model' is not valid JSON"),
    "not an object": ("[]", "config.json in 'FOLDER/model' is not a JSON object"),
    "missing keys": ({"hidden_size": 64}, "config.json in 'FOLDER/model' has no num_hidden_layers, intermediate_size"),
    "wrong type": (
        CONFIG | {"hidden_size": "64"},
        "config.json in 'FOLDER/model': hidden_size: got '64'; expected an integer >= 1",
    ),
    "heads": (CONFIG | {"num_attention_heads": 5}, "got hidden_size 64 with 5 attention heads; expected a multiple"),
    "key/value heads": (
        CONFIG | {"num_key_value_heads": 3},
        "got 4 attention heads with 3 key/value heads; expected a multiple",
    ),
    "too many layers": (
        CONFIG | {"num_hidden_layers": 10**12},
        "config.json in 'FOLDER/model': num_hidden_layers: got 1000000000000; expected an integer >= 1 and <= 10000",
    ),
    "another family": (
        CONFIG | {"model_type": "gpt2"},
        "config.json in 'FOLDER/model': model_type: got 'gpt2'; expected one of llama, mistral, "
        "qwen2, qwen3, phi3, olmo2, gemma2, gemma3_text",
    ),
    "a family misspelt": (
        CONFIG | {"model_type": "qwen22"},
        "config.json in 'FOLDER/model': model_type: got 'qwen22'; expected one of llama, mistral, "
        "qwen2, qwen3, phi3, olmo2, gemma2, gemma3_text; did you mean qwen2?",
    ),
    "no family": (
        {key: value for key, value in CONFIG.items() if key != "model_type"},
        "config.json in 'FOLDER/model' has no model_type",
    ),
    "sliding window": (
        CONFIG | {"layer_types": ["full_attention", "sliding_attention"]},
        "config.json in 'FOLDER/model' has sliding-window layers without a sliding_window; expected both or none",
    ),
    "multimodal": (
        {"model_type": "gemma3", "text_config": CONFIG | {"model_type": "gemma3_text"}},
        "config.json in 'FOLDER/model' is of a multimodal model, 'gemma3'; expected a language model, or set weights: random",
    ),
    "odd head size": (CONFIG | {"head_dim": 15}, "got a head size of 15; expected an even one"),
}  # fmt: skip


@pytest.mark.parametrize(("config", "expected"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_a_bad_config_is_exactly_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: object, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FOLDER").mkdir()
    lines = errors(Path("FOLDER"), model_folder(Path("FOLDER"), config))
    assert len(lines) == 1, f"expected one line, got {lines}"
    assert lines[0].startswith(f"x.yaml:2: model.path: {expected}")


def test_a_checkpoint_needs_weights_unless_they_are_random(tmp_path: Path) -> None:
    text = model_folder(tmp_path, CONFIG, weights=False)
    assert "has no *.safetensors; expected weights, or set weights: random" in errors(tmp_path, text)[0]
    assert load(tmp_path, text.replace("path: model", "path: model, weights: random")).points


def test_max_positions_is_applied_and_needs_random_weights(tmp_path: Path) -> None:
    raised = load(tmp_path, changed("preset: tiny", "preset: tiny, max_positions: 99999"))
    assert raised.points[0].geometry.max_position_embeddings == 99999
    text = model_folder(tmp_path, CONFIG).replace("path: model", "path: model, max_positions: 512")
    assert errors(tmp_path, text) == [
        "x.yaml:2: model.max_positions: got 512 with checkpoint weights; expected no max_positions, or weights: random"
    ]


def test_a_checkpoint_with_too_few_positions_is_not_told_to_raise_them(tmp_path: Path) -> None:
    text = model_folder(tmp_path, CONFIG | {"max_position_embeddings": 100})
    lines = errors(tmp_path, text)
    assert len(lines) == 1
    assert lines[0].endswith("expected at most 100 positions in all; lower the context")


def test_byte_prompts_need_a_vocabulary_or_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "prose.txt").write_text("prose")
    text = model_folder(tmp_path, CONFIG | {"vocab_size": 200}).replace("synthetic: true", "text: prose.txt")
    text = text.replace("path: model", "path: model, weights: random")
    assert errors(tmp_path, text)[0].startswith(
        "x.yaml:6: workload.prompt: got a vocabulary of 200 without a tokenizer; expected at least 256"
    )
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    assert load(tmp_path, text).points[0].prompt_sha256 == hashlib.sha256(b"prose").hexdigest()


def test_a_prompt_folder_is_its_texts_in_name_order(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for name, content in (("b.txt", "two"), ("a.md", "one"), ("c.py", "no"), (".d.txt", "hidden")):
        (texts / name).write_text(content)
    point = load(tmp_path, changed("synthetic: true", "text: texts")).points[0]
    assert point.prompt_sha256 == hashlib.sha256(b"one\ntwo").hexdigest()


@pytest.mark.parametrize(("content", "reason"), [(b" \n", "holds no text"), (b"\xff", "is not UTF-8 at byte 0")])
def test_a_prompt_is_text(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "p.txt").write_bytes(content)
    lines = errors(tmp_path, changed("synthetic: true", "text: p.txt"))
    assert len(lines) == 1
    assert reason in lines[0]


def test_a_checkpoint_without_a_tokenizer_cannot_read_text(tmp_path: Path) -> None:
    (tmp_path / "prose.txt").write_text("prose")
    text = model_folder(tmp_path, CONFIG).replace("synthetic: true", "text: prose.txt")
    assert errors(tmp_path, text) == [
        "x.yaml:6: workload.prompt: got a checkpoint without tokenizer.json; expected one, or prompt: {synthetic: true}"
    ]
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    assert load(tmp_path, text).points


def irregular(path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path)


@pytest.mark.parametrize("kind", ["pipe", "loop"])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str) -> None:
    irregular(tmp_path / "s.yaml", kind)
    with pytest.raises(ScenarioError, match=r"s\.yaml: is not a regular file; expected a scenario file"):
        load_scenario(tmp_path / "s.yaml")
    irregular(tmp_path / "p.txt", kind)
    assert "which is not a regular file" in errors(tmp_path, changed("synthetic: true", "text: p.txt"))[0]
    text = model_folder(tmp_path, CONFIG, weights=False)
    irregular(tmp_path / "model" / "model.safetensors", kind)
    assert "whose model.safetensors is not a regular file" in errors(tmp_path, text)[0]
    (tmp_path / "model" / "config.json").unlink()
    irregular(tmp_path / "model" / "config.json", kind)
    assert "whose config.json is not a regular file" in errors(tmp_path, text)[0]
