"""The shape of a scenario's model: from a preset, the scenario itself, or a Hugging Face folder's config.json.

In: `ModelSpec` and the scenario's folder. Out: `ResolvedModel`.
"""

from dataclasses import dataclass
from pathlib import Path

from modbench.errors import ScenarioError
from modbench.geometry import Geometry
from modbench.presets import PRESETS
from modbench.scenario.config_geometry import geometry_from_config, nested_config
from modbench.scenario.model_folder import read_model_folder
from modbench.scenario.models import ModelSpec
from modbench.scenario.wording import show, suggestion


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
    geometry = written_out(resolved.geometry)
    if model.max_positions is not None:
        geometry = geometry.model_copy(update={"max_position_embeddings": model.max_positions})
    return ResolvedModel(geometry, resolved.folder_sha256, resolved.has_tokenizer)


def written_out(geometry: Geometry) -> Geometry:
    """The geometry with its optional sizes filled in.

    Raises:
        ScenarioError: without a location: heads that do not divide, or that rotary positions cannot turn.
    """
    check_heads(geometry)
    return geometry.model_copy(update={"num_key_value_heads": geometry.kv_heads, "head_dim": geometry.size_per_head})


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


def _from_folder(model: ModelSpec, path: Path) -> ResolvedModel:
    folder = read_model_folder(path, reads_weights=not model.has_random_weights)
    where, config = folder.where, folder.config
    if not model.has_random_weights and not folder.has_weights:
        raise ScenarioError(
            f"got {show(str(path))}, which has no *.safetensors; expected weights, or set weights: random"
        )
    if folder.is_converted:
        raise ScenarioError(
            f"{where} is of a converted model, {show(config['model_type'])}; expected the dense model that it was made from; "
            "name the converted one as methods.<label>.checkpoint"
        )
    inner = nested_config(config)
    if inner is not None and not model.has_random_weights:
        raise ScenarioError(
            f"{where} is of a multimodal model, {show(config.get('model_type'))}; expected a language model, "
            "or set weights: random to measure its language model"
        )
    return ResolvedModel(geometry_from_config(inner or config, where), folder.sha256, folder.has_tokenizer)
