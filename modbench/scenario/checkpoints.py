"""`methods.<label>.checkpoint` -> a `Checkpoint`: the folder holds a model of this method and of the scenario's model's shape.

In: a method's settings, the folder, and the geometry of the scenario's model. Out: the folder's hash, and what its `config.json`
decides of the settings. Of the weights only samples are read.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modbench.errors import ScenarioError
from modbench.geometry import Geometry
from modbench.scenario.checkpoint_settings import Checkpoint
from modbench.scenario.config_geometry import geometry_from_config
from modbench.scenario.geometry import written_out
from modbench.scenario.model_folder import CONVERTED_PREFIX, ModelFolder, read_model_folder
from modbench.scenario.models import MethodSettings, RoutedLayers, RoutedLayersValue
from modbench.scenario.problems import describe
from modbench.scenario.routed_layers import resolve_routed_layers
from modbench.scenario.wording import show

THRESHOLD_RULE = ("threshold", "masked", "kv_only")  # operators that decide alike, so that one runs another's model
DECIDED_BY = {**dict.fromkeys(THRESHOLD_RULE, THRESHOLD_RULE), "topk": ("topk",)}  # method -> operators that it runs
# Of the model, and not of the work: neither a speed nor a byte depends on them.
NOT_COMPARED = ("rope_theta", "rms_norm_eps", "num_hidden_layers", "layer_types")


class _Modification(BaseModel):
    """What a converted model's config.json says of its routing; what concerns its training alone is not read."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    operator: str
    threshold_p: float = Field(ge=0, lt=1)
    capacity: float = Field(gt=0, le=1)
    routed_layers: RoutedLayers
    gate: str = Field(json_schema_extra={"enum": ["shared", "unit"]}, pattern="^(shared|unit)$")


def resolve_checkpoint(settings: MethodSettings, folder: Path, geometry: Geometry) -> Checkpoint:
    """Read and check the folder of a method's checkpoint.

    Args:
        settings: of a method that runs one.
        folder: opens from the folder that modbench was started in.
        geometry: of the scenario's model, its sizes written out.

    Raises:
        ScenarioError: without a location: an unusable folder, another kind of model than the method's, or another shape.
    """
    found = read_model_folder(folder, reads_weights=True)
    if not found.has_weights:
        raise ScenarioError(
            f"got {show(str(folder))}, which has no *.safetensors; expected the weights of a saved model"
        )
    is_routed = settings.method in DECIDED_BY
    if found.is_converted and not is_routed:
        raise ScenarioError(
            f"{found.where} is of a converted model, {show(found.config['model_type'])}; expected {geometry.model_type}, "
            f"which {settings.method} runs; name a dense one, or use a method that routes"
        )
    if is_routed and not found.is_converted:
        raise ScenarioError(
            f"{found.where} is of a dense model, {show(found.config.get('model_type'))}; expected "
            f"{CONVERTED_PREFIX}{geometry.model_type}, as a converted model is saved; leave checkpoint out to convert a dense one"
        )
    own = _geometry(found)
    _check_same_sizes(own, geometry, found.where)
    if getattr(settings, "removes_layers", False):
        return Checkpoint(
            sha256=found.sha256, settings={"counted_as_removed": _missing_layers(own, geometry, found.where)}
        )
    _check_same_layers(own, geometry, found.where)
    decided = _routing(settings.method, found, geometry.num_hidden_layers) if is_routed else {}
    return Checkpoint(sha256=found.sha256, settings=decided)


def _geometry(folder: ModelFolder) -> Geometry:
    config = folder.config
    if folder.is_converted:
        config = {**config, "model_type": config["model_type"].removeprefix(CONVERTED_PREFIX)}
    try:
        return written_out(geometry_from_config(config, folder.where))
    except ScenarioError as error:
        text = str(error)
        raise ScenarioError(text if text.startswith(folder.where) else f"{folder.where}: {text}") from None


def _check_same_sizes(own: Geometry, expected: Geometry, where: str) -> None:
    for key in Geometry.model_fields:
        if key not in NOT_COMPARED and getattr(own, key) != getattr(expected, key):
            raise ScenarioError(_differing(where, key, getattr(own, key), getattr(expected, key)))


def _check_same_layers(own: Geometry, expected: Geometry, where: str) -> None:
    if own.num_hidden_layers != expected.num_hidden_layers:
        raise ScenarioError(_differing(where, "num_hidden_layers", own.num_hidden_layers, expected.num_hidden_layers))
    for layer, (window, wanted) in enumerate(zip(own.windows, expected.windows, strict=True)):
        if window != wanted:
            raise ScenarioError(_differing(where, f"layer_types[{layer}]", _window(window), _window(wanted)))


def _differing(where: str, key: str, found: Any, expected: Any) -> str:
    return (
        f"{where}: {key}: got {found}; expected {expected}, as in the scenario's model; name a model made from that one"
    )


def _window(window: int | None) -> str:
    return "full attention" if window is None else f"a window of {window}"


def _missing_layers(own: Geometry, full: Geometry, where: str) -> list[int]:
    """Layers of the full model that stand for those that are not there: the checkpoint does not say which were removed.

    Layers of one window are alike in work and size, so any of them stand for any others. Taken are those that are left over when
    the checkpoint's layers are found in the model from its first layer on.
    """
    remaining, missing = list(own.windows), []
    for layer, window in enumerate(full.windows):
        if remaining and remaining[0] == window:
            remaining.pop(0)
        else:
            missing.append(layer)
    if remaining and own.num_hidden_layers < full.num_hidden_layers:
        raise ScenarioError(
            f"{where}: layer_types: got a layer with {_window(remaining[0])} where the scenario's model has none left; expected "
            "the model's layers in their order, some removed"
        )
    if not missing or remaining:
        raise ScenarioError(
            f"{where}: num_hidden_layers: got {own.num_hidden_layers}; expected fewer than the {full.num_hidden_layers} of the "
            "scenario's model; name a model with layers removed"
        )
    return missing


def _routing(method: str, folder: ModelFolder, num_layers: int) -> dict[str, Any]:
    """The settings that a converted model was saved with, of those that the method has."""
    given = folder.config.get("modification")
    if not isinstance(given, dict):
        raise ScenarioError(
            f"{folder.where}: modification: got {show(given)}; expected the settings of a converted model; save it again"
        )
    try:
        found = _Modification.model_validate(given)
    except ValidationError as error:
        raise ScenarioError(_first_finding(error, folder.where)) from None
    if found.operator not in DECIDED_BY[method]:
        raise ScenarioError(
            f"{folder.where}: modification.operator: got {show(found.operator)}; expected {' or '.join(DECIDED_BY[method])}, "
            f"which {method} runs"
        )
    knob = "capacity" if method == "topk" else "threshold_p"
    return {
        knob: getattr(found, knob),
        "routed_layers": _layers(found.routed_layers, num_layers, folder.where),
        "gate": found.gate,
    }


def _layers(value: RoutedLayersValue, num_layers: int, where: str) -> list[int]:
    """As the converted model resolves them: a share of less than one layer is one layer there."""
    try:
        return list(
            resolve_routed_layers(max(value, 1 / num_layers) if isinstance(value, float) else value, num_layers)
        )
    except ScenarioError as error:
        raise ScenarioError(f"{where}: modification.routed_layers: {error}") from None


def _first_finding(error: ValidationError, where: str) -> str:
    finding = error.errors(include_url=False)[0]
    key = str(finding["loc"][0])
    expected = describe(_Modification.model_json_schema()["properties"][key])
    found = "nothing" if finding["type"] == "missing" else show(finding["input"])
    return f"{where}: modification.{key}: got {found}; expected {expected}; save the converted model again"
