"""`python -m reference_impl convert`: a folder with a dense model becomes one with a converted model, or with fewer layers.

In: options as typed. Out: a new folder, whole or not at all, and what was made, printed; or one of this package's errors.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.text import Text
from transformers import GenerationConfig, PreTrainedModel

from reference_impl.calibration import calibrate
from reference_impl.config import ModConfig
from reference_impl.convert import convert
from reference_impl.errors import CommandError, ModConfigError, TextError
from reference_impl.hf_families import decoder_layers, remove_layers
from reference_impl.keep_map import check_vocabulary
from reference_impl.model_folder import (
    GENERATION_FILE,
    check_kind,
    check_new_folder,
    copy_along,
    load_folder,
    new_folder,
)
from reference_impl.token_texts import tokenise
from reference_impl.visible_text import visible_line

CALIBRATION_TOKENS = 4096  # at most; our choice: the share that a router keeps is then known to about a percent


@dataclass(frozen=True)
class ConvertOptions:
    """What was asked for.

    Attributes:
        model: folder of a dense model.
        out: the folder to make.
        settings: fields of `ModConfig` that are not to have their default.
        dtype: of the weights written: auto (the checkpoint's), float32, bfloat16 or float16; routers are float32 in any case.
        seed: of the routers' random start.
        keep_ratio: share of the tokens of `text` that each routed layer is set to keep; None leaves `router_bias` as it is.
        text: what to calibrate on, with `keep_ratio`.
        remove_layers: take the layers out that would be routed, and add no router (the skip_layers baseline).
    """

    model: Path
    out: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "auto"
    seed: int = 0
    keep_ratio: float | None = None
    text: Path | None = None
    remove_layers: bool = False


@dataclass(frozen=True)
class Conversion:
    """What was made.

    Attributes:
        model_type: as `config.json` has it.
        dtype: of the weights, routers apart.
        num_layers: of the new model.
        layers: indices in the dense model of the layers that are routed now, or were removed.
        rule: what decides, in words; None where layers were removed.
        num_parameters: of the new model.
        num_changed: parameters added, or, below 0, removed.
        keep_ratio: routed layer -> share that it keeps of the calibration tokens; empty without a calibration.
        num_calibration_tokens: 0 without a calibration.
        copied: names of the files that were copied along.
    """

    model_type: str
    dtype: str
    num_layers: int
    layers: tuple[int, ...]
    rule: str | None
    num_parameters: int
    num_changed: int
    keep_ratio: Mapping[int, float]
    num_calibration_tokens: int
    copied: tuple[str, ...]


def convert_command(options: ConvertOptions, console: Console) -> None:
    """Convert, and print what was made and what to do next; raises what `convert_folder` does."""
    made = convert_folder(options)
    for line in (*_sentences(options, made), "", *_next_commands(options)):
        console.print(Text(visible_line(line) if line else ""), soft_wrap=True)


def convert_folder(options: ConvertOptions) -> Conversion:
    """Make the folder `options.out`.

    Raises:
        CommandError: the folder is there or cannot be, or options exclude each other.
        ModConfigError: a setting is out of its range, or a layer is beyond the model.
        UnsupportedModelError: the dense model is of another family, converted already, or damaged.
        TextError: the text to calibrate on cannot be read or does not fit the model.
        RoutingError: the routers cannot be calibrated as asked.
        OSError: the folder cannot be written.
    """
    config = _checked_config(options)
    check_new_folder(options.out, options.model)
    check_kind(options.model, "dense")
    text = _read(options.text)
    model = load_folder(options.model, "dense", options.dtype)
    num_before = model.num_parameters()
    layers = config.resolve_layers(len(decoder_layers(model)))
    keep_ratio: Mapping[int, float] = {}
    num_tokens = 0
    if options.remove_layers:
        _remove(model, layers)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            convert(model, config)
        if options.keep_ratio is not None and text is not None:
            keep_ratio, num_tokens = _calibrate(model, text, options)
    copied = _write(model, options)
    return Conversion(
        model_type=model.config.model_type,
        dtype=str(model.dtype).removeprefix("torch."),
        num_layers=len(decoder_layers(model)),
        layers=layers,
        rule=None if options.remove_layers else config.rule(),
        num_parameters=model.num_parameters(),
        num_changed=model.num_parameters() - num_before,
        keep_ratio=keep_ratio,
        num_calibration_tokens=num_tokens,
        copied=copied,
    )


def parse_routed_layers(text: str) -> str | tuple[int, ...] | float:
    """`interleaved`, indices such as `1,3,5`, or a share with a point such as `0.5`, as `ModConfig.routed_layers` takes it.

    Raises:
        ModConfigError: it is none of these.
    """
    if text == "interleaved":
        return text
    try:
        return float(text) if "." in text else tuple(int(index) for index in text.split(","))
    except ValueError as error:
        raise ModConfigError(
            f"--routed-layers: got {text!r}; expected interleaved, indices such as 1,3,5, or a share such as 0.5"
        ) from error


def _checked_config(options: ConvertOptions) -> ModConfig:
    """The settings, after every contradiction that can be told without the model."""
    config = ModConfig(**options.settings)
    if (options.keep_ratio is None) != (options.text is None):
        raise CommandError("--keep-ratio and --text belong together: the share to keep, and the text to calibrate on")
    if options.remove_layers:
        others = sorted(set(options.settings) - {"routed_layers"})
        if others or options.keep_ratio is not None:
            name = others[0] if others else "keep_ratio"
            raise CommandError(
                f"--{name.replace('_', '-')}: got it with --remove-layers, which adds no routers: leave one of them out"
            )
    if options.keep_ratio is not None:
        if not 0 <= options.keep_ratio <= 1:
            raise CommandError(f"--keep-ratio: got {options.keep_ratio}; expected a share in [0, 1]")
        if config.operator == "topk":
            raise CommandError(
                "--keep-ratio: got it with operator topk, whose capacity decides: set --capacity instead"
            )
    return config


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise TextError(f"{path}: cannot be read: {error.strerror}; name a file of text") from error


def _remove(model: PreTrainedModel, layers: tuple[int, ...]) -> None:
    num_layers = len(decoder_layers(model))
    if len(layers) == num_layers:
        raise ModConfigError(f"--remove-layers: got all {num_layers} layers; expected at least one to stay")
    remove_layers(model, layers)


def _calibrate(model: PreTrainedModel, text: bytes, options: ConvertOptions) -> tuple[dict[int, float], int]:
    """Set the biases on the first tokens of the text; share kept per layer, and tokens used."""
    assert options.keep_ratio is not None, "asked for"
    num_tokens = min(CALIBRATION_TOKENS, model.config.max_position_embeddings)
    try:
        ids_T = torch.tensor(tokenise(text, options.model, num_tokens).ids)
        check_vocabulary(model, ids_T)
    except TextError as error:
        raise TextError(f"{options.text}: {error}") from error
    calibrate(model, ids_T[None], options.keep_ratio)
    return model.routing_report().keep_ratio, len(ids_T)


def _write(model: PreTrainedModel, options: ConvertOptions) -> tuple[str, ...]:
    """The folder; the names of the files that were copied along."""
    if (options.model / GENERATION_FILE).exists():
        model.generation_config = GenerationConfig()  # the file is copied as it is, valid or not
    with new_folder(options.out) as folder:
        model.save_pretrained(folder)
        return copy_along(options.model, folder)


def _sentences(options: ConvertOptions, made: Conversion) -> list[str]:
    layers = ", ".join(map(str, made.layers))
    if made.rule is None:
        return [
            f"{options.out}: a dense {made.model_type} model of {made.num_layers} layers: {options.model} without {layers}.",
            f"{made.num_parameters:,} parameters, {-made.num_changed:,} fewer; {made.dtype}.",
        ]
    lines = [
        f"{options.out}: a {made.model_type} model of {made.num_layers} layers, {len(made.layers)} of them routed ({layers}); "
        f"{made.rule}.",
        f"{made.num_parameters:,} parameters, {made.num_changed:,} of them added, all in routers; {made.dtype}, routers float32. "
        f"Every other weight is that of {options.model}.",
    ]
    if made.keep_ratio:
        mean = sum(made.keep_ratio.values()) / len(made.keep_ratio)
        lines.append(
            f"The routers were calibrated on {made.num_calibration_tokens:,} tokens of {options.text} and keep {mean:.1%} of them "
            "on average. They were never trained: how many tokens they keep was set, which ones is random."
        )
    else:
        lines.append("The routers were never trained: which tokens they keep is random.")
    if made.copied:
        lines.append(f"Copied along: {', '.join(made.copied)}.")
    return lines


def _next_commands(options: ConvertOptions) -> list[str]:
    folder = shlex.quote(str(options.out))
    lines = [
        "Next:",
        f"  python -m reference_impl train {folder} TRAINED --steps N",
        f"  python -m reference_impl generate {folder} --prompt TEXT",
        f"  python -m reference_impl keepmap {folder} --text FILE",
        f"  python -m reference_impl lm-eval --model mod --model_args pretrained={folder} --tasks TASK",
    ]
    return lines[:3] if options.remove_layers else lines
