"""The shape of a scenario's model: from a preset, the scenario itself, or a Hugging Face folder's config.json.

In: `ModelSpec` and the scenario's folder. Out: `ResolvedModel`. Of the weights only samples are read, to tell
checkpoints apart.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modbench.errors import ScenarioError
from modbench.geometry import Geometry
from modbench.presets import PRESETS
from modbench.scenario.config_geometry import geometry_from_config, nested_config
from modbench.scenario.models import ModelSpec
from modbench.scenario.source import is_irregular
from modbench.scenario.wording import show, suggestion

MAX_CONFIG_BYTES = 1024 * 1024
WEIGHT_SAMPLES, WEIGHT_SAMPLE_BYTES = 16, 64 * 1024


@dataclass(frozen=True)
class ResolvedModel:
    """A model's geometry with every optional size written out; `has_tokenizer` is of its folder."""

    geometry: Geometry
    folder_sha256: str | None = None
    has_tokenizer: bool = False


def resolve_model(model: ModelSpec, base: Path) -> ResolvedModel:
    """Resolve the geometry; a relative `model.path` is relative to `base`, the scenario file's folder.

    Raises:
        ScenarioError: without a location: unknown preset, unusable folder or config.json, heads that do not divide.
    """
    if model.path is not None:
        resolved = _from_folder(model, base / model.path)
    elif model.preset is not None:
        if model.preset not in PRESETS:
            raise ScenarioError(
                f"got the unknown preset {show(model.preset)}; {suggestion(model.preset, list(PRESETS))}"
            )
        resolved = ResolvedModel(PRESETS[model.preset])
    else:
        assert model.geometry is not None, "ModelSpec has exactly one source"
        resolved = ResolvedModel(model.geometry)
    geometry = resolved.geometry
    check_heads(geometry)
    sizes = {"num_key_value_heads": geometry.kv_heads, "head_dim": geometry.size_per_head}
    if model.max_positions is not None:
        sizes["max_position_embeddings"] = model.max_positions
    return ResolvedModel(geometry.model_copy(update=sizes), resolved.folder_sha256, resolved.has_tokenizer)


def check_heads(geometry: Geometry) -> None:
    """Refuse heads that do not divide, or that rotary positions cannot turn.

    Raises:
        ScenarioError: without a location.
    """
    heads, kv_heads = geometry.num_attention_heads, geometry.kv_heads
    if geometry.head_dim is None and geometry.hidden_size % heads:
        raise ScenarioError(
            f"got hidden_size {geometry.hidden_size} with {heads} attention heads; "
            "expected a multiple of num_attention_heads; give head_dim if it is meant"
        )
    if geometry.size_per_head % 2:
        raise ScenarioError(f"got a head size of {geometry.size_per_head}; expected an even one for rotary positions")
    if heads % kv_heads:
        raise ScenarioError(
            f"got {heads} attention heads with {kv_heads} key/value heads; expected a multiple of those"
        )


def _from_folder(model: ModelSpec, folder: Path) -> ResolvedModel:
    shown = show(str(folder))
    try:
        if not folder.is_dir():
            raise ScenarioError(f"got {shown}, which is not a folder; expected a Hugging Face folder with config.json")
        names = {path.name for path in folder.iterdir()}
        weights = sorted(name for name in names if name.endswith(".safetensors") and not model.has_random_weights)
        for name in ("config.json", *weights):
            if is_irregular(folder / name):
                raise ScenarioError(f"got {shown}, whose {name} is not a regular file; expected a Hugging Face folder")
        with (folder / "config.json").open("rb") as file:
            raw = file.read(MAX_CONFIG_BYTES + 1)
        digest = hashlib.sha256(raw)
        _add_weights(digest, folder, weights)
    except FileNotFoundError:
        raise ScenarioError(f"got {shown}, which has no config.json; expected a Hugging Face folder") from None
    except OSError as error:
        raise ScenarioError(
            f"got {shown}, which cannot be read ({error.strerror}); expected a readable folder"
        ) from None
    if not model.has_random_weights and not weights:
        raise ScenarioError(f"got {shown}, which has no *.safetensors; expected weights, or set weights: random")
    where = f"config.json in {shown}"
    config = parse_config(raw, where)
    inner = nested_config(config)
    if inner is not None and not model.has_random_weights:
        raise ScenarioError(
            f"{where} is of a multimodal model, {show(config.get('model_type'))}; expected a language model, "
            "or set weights: random to measure its language model"
        )
    geometry = geometry_from_config(inner or config, where)
    return ResolvedModel(geometry, digest.hexdigest(), "tokenizer.json" in names)


def _add_weights(digest: "hashlib._Hash", folder: Path, names: list[str]) -> None:
    """Add each file's name, size and evenly spread samples: enough to tell checkpoints apart, quick for any size."""
    for name in names:
        with (folder / name).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest.update(f"{name} {size}".encode())
            for sample in range(WEIGHT_SAMPLES):
                file.seek(max(0, size - WEIGHT_SAMPLE_BYTES) * sample // (WEIGHT_SAMPLES - 1))
                digest.update(file.read(WEIGHT_SAMPLE_BYTES))


def parse_config(raw: bytes, where: str) -> dict[str, Any]:
    """The JSON object of a config.json; `where` names the file in errors.

    Raises:
        ScenarioError: without a location: not JSON, not an object, too long.
    """
    try:
        config = json.loads(raw.decode("utf-8")) if len(raw) <= MAX_CONFIG_BYTES else None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ScenarioError(f"{where} is not valid JSON ({reason}); expected a JSON object") from None
    if not isinstance(config, dict):
        raise ScenarioError(f"{where} is not a JSON object below 1 MiB; expected one")
    return config
