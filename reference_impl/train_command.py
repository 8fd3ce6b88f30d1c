"""`python -m reference_impl train`: a model folder and settings become a trained model in a folder of its own.

In: options as typed. Out: the folder, with progress shown on the way, or one of this package's errors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
import yaml
from rich.console import Console
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from reference_impl.config import TRAINING_SETTINGS
from reference_impl.data import DataConfig, load_tokenizer
from reference_impl.errors import DataError, TrainingError, UnsupportedModelError
from reference_impl.hf_families import FAMILIES
from reference_impl.mod_layer import MODEL_TYPE_PREFIX
from reference_impl.mod_model import ModModel
from reference_impl.objective import OBJECTIVES
from reference_impl.training import TrainConfig, train
from reference_impl.training.folder import SETTINGS, TrainingFolder

MAX_SETTINGS_BYTES = 2**20
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
            _check_is_model(model_folder)
    typed = _typed(options)
    config = _train_config(options, typed, recorded)
    data = _data_config(options, recorded)
    tokenizer = load_tokenizer(options.model)
    transformers.utils.logging.disable_progress_bar()
    # what trains is float32; what is frozen stays as it is stored
    model = load_trainable(options.model, torch.float32 if config.mode == "full" else "auto")
    teacher = None if options.teacher is None else load_trainable(options.teacher, _teacher_dtype(config))
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


def load_trainable(folder: Path, dtype: torch.dtype | str) -> PreTrainedModel:
    """The converted or stock model of a local folder, whole: no weight is missing, nothing is looked up elsewhere.

    Raises:
        UnsupportedModelError: another family, or the folder cannot be read as a model.
    """
    _check_is_model(folder)
    try:
        model_type = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        if model_type.removeprefix(MODEL_TYPE_PREFIX) not in FAMILIES:
            allowed = ", ".join(FAMILIES)
            raise UnsupportedModelError(
                f"{folder}: got model_type {model_type!r}; expected one of {allowed}, or converted ones"
            )
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=dtype, output_loading_info=True
        )
    except UnsupportedModelError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UnsupportedModelError(f"{folder}: cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    for problem in ("missing_keys", "mismatched_keys"):
        if info[problem]:
            some = ", ".join(sorted(str(key) for key in info[problem])[:3])
            raise UnsupportedModelError(
                f"{folder}: {problem.replace('_', ' ')}: {some}; expected all weights of the model"
            )
    return model


def _check_is_model(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise UnsupportedModelError(
            f"{folder}: no config.json there; expected a folder that save_pretrained of a model wrote"
        )


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
        settings |= _mapping(options.settings, TrainingError)
    try:
        return TrainConfig.from_dict(settings | typed.training)
    except TrainingError as error:
        where = "settings" if options.settings is None else options.settings
        raise TrainingError(f"{where}: {error}") from error


def _data_config(options: TrainOptions, recorded: Mapping[str, Any]) -> DataConfig:
    if options.data is None:
        return DataConfig.from_dict(recorded["data"]) if "data" in recorded else DataConfig()
    try:
        return DataConfig.from_dict(_mapping(options.data, DataError), options.data.parent)
    except DataError as error:
        raise DataError(f"{options.data}: {error}") from error


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


def _teacher_dtype(config: TrainConfig) -> torch.dtype:
    return torch.bfloat16 if config.precision == "bf16" else torch.float32


def _mapping(path: Path, error_class: type[ValueError]) -> dict[str, Any]:
    """A YAML or JSON file of settings."""
    try:
        if path.stat().st_size > MAX_SETTINGS_BYTES:
            raise error_class(f"{path}: larger than 1 MiB; expected a file of settings")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise error_class(f"{path}: cannot be read: {error.strerror}; name a file of settings") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise error_class(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise error_class(f"{path}: got {type(content).__name__}; expected a mapping of settings to values")
    return content
