"""The scenario as frozen, strict models: what a user may write, with defaults and limits.

In: plain data from `source.py`. Out: `Scenario`, and per matrix cell a `Point` (made by `cells.py`).
Every message raised here says what was found and what is allowed; `problems.py` puts file and line before it.
"""

import re
import shlex
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveInt,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from modbench.presets import PRESETS, Geometry, Positions
from modbench.scenario.checkpoint_settings import Checkpoint, CheckpointSettings
from modbench.scenario.quality_settings import QualitySettings
from modbench.scenario.strict_model import StrictModel
from modbench.units import MIB, SIZE_PATTERN, SIZE_TEXT, parse_bytes

Dtype = Literal["float32", "bfloat16", "float16"]
RoutedLayersValue = Literal["interleaved"] | tuple[int, ...] | float
MAX_SEED = 2**63 - 1
MAX_COUNT = 10_000  # launches, samples, warm-ups
MAX_TIMEOUT_S = 604_800  # a week
MAX_THREADS = 1024
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"  # of the environment
MIN_MEMORY_LIMIT_BYTES, MAX_MEMORY_LIMIT_BYTES = MIB, 2**50
KEEP_RATIO_RELATIVE = 0.10  # a measured keep ratio off its target by more than 10 % of it (or 0.01) is invalid
KEEP_RATIO_ABSOLUTE = 0.01


def _parse_routed_layers(value: Any) -> RoutedLayersValue:
    allowed = 'expected "interleaved", a list of layer indices such as [1, 3], or a fraction in (0, 1]'
    if value == "interleaved":
        return "interleaved"
    if isinstance(value, list | tuple):
        if not value or any(isinstance(item, bool) or not isinstance(item, int) or item < 0 for item in value):
            raise ValueError(allowed)
        if len(set(value)) != len(value):
            raise ValueError(f"a layer is named twice; {allowed}")
        return tuple(sorted(value))
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1:
        return float(value)
    raise ValueError(allowed)


def _parse_launches(value: Any) -> Any:
    if value == "auto" or _is_count(value, 1):
        return value
    raise ValueError(f'expected "auto" (the three looks: 8, 12 and 20 pairs) or an integer from 1 to {MAX_COUNT}')


def _parse_warmup(value: Any) -> Any:
    if value == "auto" or _is_count(value, 0):
        return value
    raise ValueError(f'expected "auto" (until the samples are stationary) or an integer from 0 to {MAX_COUNT}')


def _parse_memory_limit(value: Any) -> Any:
    if value == "auto":
        return value
    allowed = f'"auto" (what the machine has left, less a reserve) or {SIZE_TEXT}'
    try:
        size = parse_bytes(value)
    except ValueError:
        raise ValueError(f"expected {allowed}") from None
    if not MIN_MEMORY_LIMIT_BYTES <= size <= MAX_MEMORY_LIMIT_BYTES:
        raise ValueError(f"expected {allowed}, from 1 MiB to 1024 TiB")
    return size


def _parse_command(value: Any) -> Any:
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value) and value[0]:
        return value
    raise ValueError('expected a list of words, the program first, such as ["./engine", "--flag"]; quote numbers')


def _check_variables(value: dict[str, str]) -> dict[str, str]:
    if all(re.fullmatch(VARIABLE, name) for name in value):
        return value
    raise ValueError("expected names of letters, digits and '_', no digit first")


def _is_count(value: Any, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= MAX_COUNT


RoutedLayers = Annotated[
    RoutedLayersValue,
    BeforeValidator(_parse_routed_layers),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": "interleaved"},
                {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "uniqueItems": True},
                {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            ]
        }
    ),
]


def _auto_or_integer(minimum: int) -> WithJsonSchema:
    integer = {"type": "integer", "minimum": minimum, "maximum": MAX_COUNT}
    return WithJsonSchema({"anyOf": [{"const": "auto"}, integer]})


MemoryLimit = Annotated[
    Literal["auto"] | int,
    BeforeValidator(_parse_memory_limit),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": "auto"},
                {"type": "integer", "minimum": MIN_MEMORY_LIMIT_BYTES, "maximum": MAX_MEMORY_LIMIT_BYTES},
                {"type": "string", "pattern": f"^{SIZE_PATTERN}$"},
            ]
        }
    ),
]


class ModelSpec(StrictModel):
    """Which model: exactly one of preset, path and geometry."""

    preset: str | None = Field(
        None, description="a published geometry by name", json_schema_extra={"enum": list(PRESETS)}
    )
    path: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="a local Hugging Face folder: config.json, with weights unless weights: random"
    )
    geometry: Geometry | None = None
    dtype: Dtype = "float32"
    weights: Literal["random", "checkpoint"] | None = Field(
        None, description="default: checkpoint for a path, random for a preset or a geometry"
    )
    max_positions: Positions | None = Field(
        None, description="raises the model's position limit; only with random weights, and recorded"
    )

    @model_validator(mode="after")
    def _one_source(self) -> "ModelSpec":
        given = [name for name in ("preset", "path", "geometry") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"got {found}; expected exactly one of preset, path, geometry")
        if self.path is None and self.weights == "checkpoint":
            raise ValueError(f"weights: checkpoint needs a path; a {given[0]} has random weights only")
        return self

    @property
    def has_random_weights(self) -> bool:
        """True if the weights are drawn from the seed instead of read from `path`."""
        return self.weights == "random" or (self.weights is None and self.path is None)


class DenseSettings(CheckpointSettings):
    """The original model. `kv_cache: chunked` gives it this project's growing cache instead of the stock one."""

    method: Literal["dense"] = "dense"
    kv_cache: Literal["stock", "chunked"] = "stock"


class SkipLayersSettings(CheckpointSettings):
    """The model with its routed layers removed: the cheapest thing a user could do instead. A checkpoint has fewer layers."""

    removes_layers: ClassVar[bool] = True
    decided_by_checkpoint: ClassVar[tuple[str, ...]] = ("routed_layers",)

    method: Literal["skip_layers"] = "skip_layers"
    routed_layers: RoutedLayers = "interleaved"
    kv_cache: Literal["stock", "chunked"] = "stock"


class _RoutedSettings(CheckpointSettings):
    routed_layers: RoutedLayers = "interleaved"
    gate: Literal["shared", "unit"] = Field("shared", description="shared: scales attention and MLP; unit: keeps only")


class _ThresholdRule(_RoutedSettings):
    decided_by_checkpoint: ClassVar[tuple[str, ...]] = ("threshold_p", "keep_ratio", "routed_layers", "gate")

    threshold_p: float = Field(0.5, gt=0, lt=1)
    keep_ratio: float | None = Field(
        None, gt=0, le=1, description="calibrate the routers so that this share of tokens is kept at routed layers"
    )
    target_key: ClassVar[str] = "keep_ratio"


class ThresholdSettings(_ThresholdRule):
    """Threshold-p: a token is kept where its gate reaches `threshold_p`."""

    method: Literal["threshold"] = "threshold"


class MaskedSettings(_ThresholdRule):
    """Control: threshold-p decisions, everything computed and stored, what is skipped is zeroed."""

    method: Literal["masked"] = "masked"


class KvOnlySettings(_ThresholdRule):
    """Control: threshold-p decisions, everything computed, only kept keys stored and attended to."""

    method: Literal["kv_only"] = "kv_only"


class TopkSettings(_RoutedSettings):
    """MoD as published: per sequence the `capacity` share with the highest scores; at decode a causal predictor."""

    target_key: ClassVar[str] = "capacity"
    decided_by_checkpoint: ClassVar[tuple[str, ...]] = ("capacity", "routed_layers", "gate")

    method: Literal["topk"] = "topk"
    capacity: float = Field(0.125, gt=0, le=1)


class EntrySettings(StrictModel):
    """A user's own implementation; imported in the worker, or by another interpreter, and only with `--allow-entry`."""

    runs_foreign_code: ClassVar[bool] = True

    method: Literal["entry"] = "entry"
    entry: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="package.module:factory")
    options: dict[str, Any] = Field(default_factory=dict, description="handed to the factory as they are")
    python: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="another interpreter that imports and times it: Python 3.10 or newer with torch"
    )

    @property
    def foreign_code(self) -> str:
        """What would run, in words."""
        return f"entry imports and runs {self.entry!r}" + (f" with {self.python!r}" if self.python else "")

    @model_serializer(mode="wrap")
    def _without_absent_python(self, serialize: Callable[["EntrySettings"], dict[str, Any]]) -> dict[str, Any]:
        """Where no interpreter is named, none is part of the identity of the work."""
        return {key: value for key, value in serialize(self).items() if key != "python" or value is not None}


class CommandSettings(StrictModel):
    """A program that builds, runs and times itself and answers with JSON (docs/engines.md); only with `--allow-entry`."""

    runs_foreign_code: ClassVar[bool] = True

    method: Literal["command"] = "command"
    command: Annotated[
        list[str],
        BeforeValidator(_parse_command),
        WithJsonSchema({"type": "array", "items": {"type": "string"}, "minItems": 1}),
    ] = Field(description="the program and its arguments; no shell reads them")
    options: dict[str, Any] = Field(default_factory=dict, description="handed to the program as they are")
    env: Annotated[
        dict[str, str],
        AfterValidator(_check_variables),
        WithJsonSchema(
            {"type": "object", "additionalProperties": {"type": "string"}, "propertyNames": {"pattern": VARIABLE}}
        ),
    ] = Field(default_factory=dict, description="environment variables of the program, beside those of modbench")

    @property
    def foreign_code(self) -> str:
        """What would run, in words."""
        return f"command runs {shlex.join(self.command)!r}"


MethodSettings = (
    DenseSettings
    | ThresholdSettings
    | TopkSettings
    | SkipLayersSettings
    | MaskedSettings
    | KvOnlySettings
    | EntrySettings
    | CommandSettings
)
LabelledSettings = Annotated[MethodSettings, Field(discriminator="method")]
SETTINGS: dict[str, type[StrictModel]] = {
    "dense": DenseSettings,
    "threshold": ThresholdSettings,
    "topk": TopkSettings,
    "skip_layers": SkipLayersSettings,
    "masked": MaskedSettings,
    "kv_only": KvOnlySettings,
    "entry": EntrySettings,
    "command": CommandSettings,
}
BASELINE = "dense"


def runs_foreign_code(kind: str) -> bool:
    """Whether methods of this kind run code that the scenario names: only with `--allow-entry`, and checked anew in every run."""
    return getattr(SETTINGS[kind], "runs_foreign_code", False)


class Prompt(StrictModel):
    """Where the tokens come from: a text file or folder (bytes, or the checkpoint's tokenizer), or seeded noise."""

    text: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="a UTF-8 file, or a folder whose *.md and *.txt are joined in name order"
    )
    synthetic: bool = Field(False, description="uniform random token ids from the seed")

    @model_validator(mode="after")
    def _one_source(self) -> "Prompt":
        if (self.text is not None) == self.synthetic:
            found = "both" if self.synthetic else "neither"
            raise ValueError(f"got {found}; expected either text: FILE or synthetic: true")
        return self


class Workload(StrictModel):
    """What each launch runs: `batch` rows of `context` prompt tokens, then `new_tokens` decoded ones."""

    context: PositiveInt = Field(description="prompt tokens per row")
    batch: PositiveInt = 1
    new_tokens: Annotated[int, Field(ge=2)] = Field(64, description="output tokens per row; the first one ends prefill")
    prompt: Prompt
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = Field(0, description="weights, routers and synthetic prompts")


class Measure(StrictModel):
    """How it is measured."""

    launches: Annotated[Literal["auto"] | int, BeforeValidator(_parse_launches), _auto_or_integer(1)] = Field(
        "auto", description="auto: the three looks; an integer: that many per method, no verdict below 8 pairs"
    )
    samples: Annotated[int, Field(ge=1, le=MAX_COUNT)] = Field(5, description="timed samples per launch")
    warmup: Annotated[Literal["auto"] | int, BeforeValidator(_parse_warmup), _auto_or_integer(0)] = "auto"
    timeout_s: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_S)] = Field(600.0, description="per launch, from its start")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:INDEX")
    attention: Literal["auto", "sdpa", "flash_attn", "torch_varlen"] = "auto"
    threads: Annotated[int, Field(ge=1, le=MAX_THREADS)] = Field(1, description="CPU threads of a launch")
    start: Literal["auto", "fork", "spawn"] = Field("auto", description="auto: fork on Linux, spawn elsewhere")
    memory_limit: MemoryLimit = Field(
        "auto",
        description="of a launch: host memory on a CPU, device memory on CUDA; auto: what is left, less a reserve",
    )


class Scenario(StrictModel):
    """One question and everything needed to answer it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="letters, digits, '.', '_', '-'")
    question: str = Field("", max_length=500)
    model: ModelSpec
    methods: dict[str, LabelledSettings]
    workload: Workload
    measure: Measure = Measure()
    quality: QualitySettings | None = None
    matrix: dict[str, list[Any]] = Field(default_factory=dict, description="dotted key of this file -> values")
    expect: list[str] = Field(default_factory=list, description='such as "threshold.kv_cache_reduction >= 1.75"')


class Point(StrictModel):
    """One cell of the matrix, resolved: the axes that name it, and the settings in force."""

    axes: dict[str, Any]
    model: ModelSpec
    geometry: Geometry = Field(description="resolved: max_positions applied, heads and head size written out")
    methods: dict[str, LabelledSettings]
    checkpoints: dict[str, Checkpoint] = Field(
        default_factory=dict, description="by label, of the methods that run one"
    )
    workload: Workload
    measure: Measure
    folder_sha256: str | None = Field(None, description="of the model folder's config and weights, for a path")
    prompt_sha256: str | None = Field(None, description="of the prompt's text, for a text prompt")

    def settings_in_force(self, label: str) -> dict[str, Any]:
        """A method's settings, with what its checkpoint decides."""
        settings = self.methods[label].model_dump(mode="json")
        checkpoint = self.checkpoints.get(label)
        return settings | ({"checkpoint_sha256": checkpoint.sha256, **checkpoint.settings} if checkpoint else {})
