"""What `modbench estimate` is asked about -> cases. In: a scenario, a preset's name or a config.json, and options. Out: a `Target`.

Everything a user can get wrong is raised here, or by the scenario's own loading. Reads no weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modbench.analysis.estimate import Case, PredictedMethod
from modbench.errors import OptionError, ScenarioError
from modbench.geometry import Geometry
from modbench.model_shape import ModelShape
from modbench.presets import PRESETS
from modbench.report.document import axes_label
from modbench.scenario import BASELINE, MethodSettings, Point, load_scenario, resolve_routed_layers
from modbench.scenario.checkpoint_settings import Checkpoint
from modbench.scenario.config_shape import shape_of_file
from modbench.scenario.models import (
    DenseSettings,
    RoutedLayersValue,
    SkipLayersSettings,
    ThresholdSettings,
    runs_foreign_code,
)
from modbench.scenario.wording import near_match, show

CONTEXTS = tuple(2**power for power in range(12, 18))  # 4,096 to 131,072
BATCHES = (1, 8)
NEW_TOKENS = 256
KEEP_RATIO = 0.111
DTYPE = "bfloat16"
SIZE_AXES = ("workload.context", "workload.batch")


@dataclass(frozen=True)
class Options:
    """What the command line says in place of the scenario's values, or of the defaults; None where it says nothing."""

    contexts: tuple[int, ...] | None = None
    batches: tuple[int, ...] | None = None
    keep_ratio: float | None = None
    routed_layers: RoutedLayersValue | None = None
    dtype: str | None = None
    new_tokens: int | None = None
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """What was asked about, and what a measured device for it should be: its kind and threads, where the scenario says so.

    `memory_limit_bytes`: what the scenario gives a launch, beyond what its process holds at the start. `not_predicted`: methods
    whose work only their own code knows.
    """

    name: str
    cases: tuple[Case, ...]
    device_kind: str | None = None
    threads: int | None = None
    memory_limit_bytes: int | None = None
    not_predicted: tuple[str, ...] = ()


def read_target(text: str, options: Options) -> Target:
    """A scenario ends in .yaml or .yml; everything else is a model, with default methods, contexts and batches.

    Raises:
        ScenarioError: the scenario or the model is of no use, or says too little for a prediction.
        OptionError: an option that needs a scenario.
    """
    if Path(text).suffix in (".yaml", ".yml"):
        return _scenario_target(Path(text), options)
    if options.overrides:
        raise OptionError("--set: got no scenario; expected one, whose keys can be set; use the other options")
    settings: dict[str, MethodSettings] = {
        "dense": DenseSettings(),
        "threshold": ThresholdSettings(keep_ratio=KEEP_RATIO),
        "skip_layers": SkipLayersSettings(),
    }
    geometry = read_model(text)
    methods = _predicted_methods(settings, {}, geometry.num_hidden_layers, options)
    sizes = _sizes(options.contexts or CONTEXTS, options.batches or BATCHES)
    case = Case("", geometry, options.dtype or DTYPE, options.new_tokens or NEW_TOKENS, methods, sizes)
    return Target(text, (case,))


def read_model(text: str) -> Geometry | ModelShape:
    """A model by its preset's name, by its config.json, or by the folder with one.

    Raises:
        ScenarioError: it is none of these, or its config is of no use.
    """
    if text in PRESETS:
        return PRESETS[text]
    if not Path(text).exists():
        near = near_match(text, PRESETS)
        advice = f"did you mean {near}?" if near else f"the presets are {', '.join(PRESETS)}"
        raise ScenarioError(
            f"TARGET: got {show(text)}, no such preset or file; expected a scenario, a preset or a config.json; {advice}"
        )
    try:
        return shape_of_file(Path(text))
    except ScenarioError as error:
        raise ScenarioError(f"TARGET: {error}") from None


def _scenario_target(path: Path, options: Options) -> Target:
    """Cells that differ in context and batch alone become one case."""
    loaded = load_scenario(path, options.overrides)
    cases: dict[Case, list[tuple[int, int]]] = {}
    for point in loaded.points:
        workload = point.workload
        sizes = _sizes(options.contexts or [workload.context], options.batches or [workload.batch])
        cases.setdefault(case_of(point, str(path), options), []).extend(sizes)
    measure = loaded.points[0].measure
    kind = None if measure.device == "auto" else measure.device.partition(":")[0]
    settings = loaded.scenario.methods
    return Target(
        name=loaded.scenario.name,
        cases=tuple(replace(case, sizes=tuple(dict.fromkeys(sizes))) for case, sizes in cases.items()),
        device_kind=kind,
        threads=measure.threads,
        memory_limit_bytes=None if measure.memory_limit == "auto" else measure.memory_limit,
        not_predicted=tuple(label for label, item in settings.items() if not _is_predicted(label, item)),
    )


def case_of(point: Point, where: str, options: Options) -> Case:
    """The point without its size; `where` begins the text of an error."""
    axes = {key: value for key, value in point.axes.items() if key not in SIZE_AXES}
    try:
        methods = _predicted_methods(point.methods, point.checkpoints, point.geometry.num_hidden_layers, options)
    except ScenarioError as error:
        raise ScenarioError(f"{where}: {error}") from None
    return Case(
        label=axes_label(axes) if axes else "",
        geometry=point.geometry,
        dtype=options.dtype or point.model.dtype,
        new_tokens=options.new_tokens or point.workload.new_tokens,
        methods=methods,
        sizes=(),
    )


def _sizes(contexts: Sequence[int], batches: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple((context, batch) for batch in batches for context in contexts)


def _is_predicted(label: str, settings: MethodSettings) -> bool:
    return label == BASELINE or not runs_foreign_code(settings.method)


def _predicted_methods(
    settings: Mapping[str, MethodSettings],
    checkpoints: Mapping[str, Checkpoint],
    num_layers: int,
    options: Options,
) -> tuple[PredictedMethod, ...]:
    """The baseline first, as the dense model whoever runs it; without other methods that are code of the user's own."""
    found = [
        _predicted_method(
            label, DenseSettings() if label == BASELINE else item, checkpoints.get(label), num_layers, options
        )
        for label, item in settings.items()
        if _is_predicted(label, item)
    ]
    return tuple(sorted(found, key=lambda method: method.label != BASELINE))


def _predicted_method(
    label: str, settings: Any, checkpoint: Checkpoint | None, num_layers: int, options: Options
) -> PredictedMethod:
    """What the settings, or the checkpoint, say of routed layers and the share kept there; options go before them."""
    value = getattr(settings, "routed_layers", None)
    if value is None:
        return PredictedMethod(label, settings.method)
    decided = checkpoint.settings if checkpoint else {}
    value = tuple(decided.get("routed_layers") or decided.get("counted_as_removed") or ()) or value
    routed = _routed_layers(value, num_layers, options)
    if getattr(settings, "removes_layers", False):
        if len(routed) == num_layers:
            raise ScenarioError(
                f"methods.{label}: all {num_layers} layers are removed; expected one at least that stays"
            )
        return PredictedMethod(label, settings.method, routed, keep_ratio=0.0, is_removing=True)
    ratio = decided.get(settings.target_key, getattr(settings, settings.target_key))
    if settings.target_key == "keep_ratio" and options.keep_ratio is not None:
        ratio = options.keep_ratio
    if ratio is None:
        found = "a checkpoint, whose keep ratio only a run can tell" if checkpoint else "no keep_ratio"
        raise ScenarioError(
            f"methods.{label}: got {found}; expected the share of tokens to predict for; pass --keep-ratio, such as 0.111"
        )
    return PredictedMethod(label, settings.method, routed, ratio)


def _routed_layers(value: RoutedLayersValue, num_layers: int, options: Options) -> tuple[int, ...]:
    if options.routed_layers is None:
        return resolve_routed_layers(value, num_layers)
    try:
        return resolve_routed_layers(options.routed_layers, num_layers)
    except ScenarioError as error:
        raise OptionError(f"--routed-layers: {error}") from None
