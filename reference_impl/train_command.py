"""`python -m reference_impl train`: a model folder and settings become a trained model in a folder of its own.

In: options as typed. Out: the folder, with progress shown on the way, or one of this package's errors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.console import Console

from reference_impl.config import TRAINING_SETTINGS
from reference_impl.data import DataConfig, load_tokenizer
from reference_impl.errors import TrainingError
from reference_impl.mod_model import ModModel
from reference_impl.model_folder import check_kind, load_folder
from reference_impl.objective import OBJECTIVES
from reference_impl.settings_file import read_data_config, read_settings
from reference_impl.training import TrainConfig, train
from reference_impl.training.folder import SETTINGS, TrainingFolder

OBJECTIVE_SETTINGS = tuple(name for name in TRAINING_SETTINGS if name != "objective")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


@dataclass(frozen=True)
class TrainOptions:
    """What was asked for; `changes` are `KEY=VALUE` of TrainConfig, or of ModConfig's `TRAINING_SETTINGS`.

    What is typed goes before the settings' file.
    """

    model: Path
    output: Path
    data: Path | None = None
    settings: Path | None = None
    steps: int | None = None
    teacher: Path | None = None
    objective: str | None = None
    target_keep_ratio: float | None = None
    changes: Sequence[str] = ()
    is_resumed: bool = False
    has_tensorboard: bool = False
    command: tuple[str, ...] = ()


def train_command(options: TrainOptions, console: Console | None) -> Path:
    """Train and return the folder of the trained model; None as console shows no progress.

    With `is_resumed`, what is not given is as in the training that is resumed, apart from code of the user's own.

    Raises:
        TrainingError: the training cannot begin, go on or be resumed as asked.
        UnsupportedModelError: a folder holds no model that can be trained, or cannot be read.
        ModConfigError: the objective or its target does not fit the model.
        DataError: the settings of the data, the text or the tokenizer cannot be used.
    """
    folder = TrainingFolder(options.output)
    recorded: dict[str, Any] = {}
    if options.is_resumed:
        recorded = folder.recorded()[SETTINGS]
    else:
        folder.check_new()  # before a large model is loaded
    for model_folder in (options.model, options.teacher):
        if model_folder is not None:
            check_kind(model_folder, "any")
    typed = _typed(options)
    config = _train_config(options, typed, recorded)
    data = _data_config(options, recorded)
    tokenizer = load_tokenizer(options.model)
    # what trains is float32; what is frozen stays as it is stored
    model = load_folder(options.model, "any", "float32" if config.mode == "full" else "auto")
    teacher = None if options.teacher is None else load_folder(options.teacher, "any", _teacher_dtype(config))
    objective = options.objective
    if isinstance(model, ModModel):
        objective = _objective(options, recorded)
        known = recorded.get("modification") or {}
        model.set_objective(**{name: known[name] for name in OBJECTIVE_SETTINGS if name in known} | typed.modification)
    elif typed.modification:
        raise TrainingError(
            f"{next(iter(typed.modification))}: got it for {options.model}, a dense model; convert it first"
        )
    train(
        model,
        data,
        config,
        options.output,
        tokenizer=tokenizer,
        teacher=teacher,
        objective=objective,
        is_resumed=options.is_resumed,
        has_tensorboard=options.has_tensorboard,
        copied=[options.model / name for name in TOKENIZER_FILES if (options.model / name).is_file()],
        command=options.command,
        console=console,
    )
    return folder.model


class _Typed(NamedTuple):
    """Settings that were typed: of TrainConfig, and of ModConfig."""

    training: dict[str, Any]
    modification: dict[str, Any]


def _typed(options: TrainOptions) -> _Typed:
    typed = _Typed({}, {})
    known = [field.name for field in fields(TrainConfig)]
    for text in options.changes:
        name, separator, value = text.partition("=")
        if not separator or name not in (*known, *OBJECTIVE_SETTINGS):
            expected = ", ".join((*known, *OBJECTIVE_SETTINGS))
            raise TrainingError(f"--set: got {text!r}; expected KEY=VALUE with one of {expected}")
        try:
            (typed.training if name in known else typed.modification)[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise TrainingError(f"--set: got {text!r}; expected a number or a word as value") from error
    if options.steps is not None:
        typed.training["steps"] = options.steps
    if options.target_keep_ratio is not None:
        typed.modification["target_keep_ratio"] = options.target_keep_ratio
    return typed


def _train_config(options: TrainOptions, typed: _Typed, recorded: Mapping[str, Any]) -> TrainConfig:
    settings = dict(recorded.get("training", {}))
    if options.settings is not None:
        settings |= read_settings(options.settings, TrainingError)
    try:
        return TrainConfig.from_dict(settings | typed.training)
    except TrainingError as error:
        where = "settings" if options.settings is None else options.settings
        raise TrainingError(f"{where}: {error}") from error


def _data_config(options: TrainOptions, recorded: Mapping[str, Any]) -> DataConfig:
    if options.data is None:
        return DataConfig.from_dict(recorded["data"]) if "data" in recorded else DataConfig()
    return read_data_config(options.data)


def _objective(options: TrainOptions, recorded: Mapping[str, Any]) -> str | None:
    """What was typed, else what the resumed training had; a user's own has to be typed, for it is code."""
    objective, known = options.objective, recorded.get("objective")
    if objective is None and known is not None:
        if known != "none" and known not in OBJECTIVES:
            raise TrainingError(
                f"--objective: missing; the training in {options.output} began with {known!r}, which is code: type it"
            )
        objective = known
    return objective


def _teacher_dtype(config: TrainConfig) -> str:
    return "bfloat16" if config.precision == "bf16" else "float32"
