"""`python -m reference_impl keepmap`: a folder and a text become a view in the terminal, a JSON file and a page.

In: options as typed. Out: printed and written results, or one of this package's errors.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.text import Text
from transformers import PreTrainedModel

from reference_impl.calibration import calibrate
from reference_impl.errors import RoutingError, TextError
from reference_impl.keep_map import KeepMap, check_vocabulary, keep_map
from reference_impl.keep_map_html import keep_map_page
from reference_impl.keep_map_terminal import print_keep_map
from reference_impl.model_folder import load_folder
from reference_impl.token_texts import TokenisedText, tokenise
from reference_impl.visible_text import visible_line


@dataclass(frozen=True)
class KeepMapOptions:
    """What was asked for; `keep_ratio` calibrates the routers on this text first."""

    folder: Path
    text: Path
    max_tokens: int
    layers: Sequence[int] = ()
    keep_ratio: float | None = None
    json: Path | None = None
    html: Path | None = None


def keepmap_command(options: KeepMapOptions, console: Console) -> None:
    """Print the map and write the files asked for.

    Raises:
        UnsupportedModelError: the folder holds no converted model, or cannot be read as one.
        TextError: the text cannot be read or does not fit the model, or a layer asked for is not routed.
        RoutingError: the routers cannot be calibrated as asked.
        OSError: a file cannot be written.
    """
    try:
        data = options.text.read_bytes()
    except OSError as error:
        raise TextError(f"{options.text}: cannot be read: {error.strerror}; name a file of text") from error
    model = load_folder(options.folder)
    try:
        tokens = tokenise(data, options.folder, options.max_tokens)
        ids_T = torch.tensor(tokens.ids)
        check_vocabulary(model, ids_T)
    except TextError as error:
        raise TextError(f"{options.text}: {error}") from error
    if options.keep_ratio is not None:
        _calibrate(model, ids_T, options.keep_ratio)
    found = keep_map(model, ids_T, tokens.texts)
    for layer in options.layers:
        if layer not in found.keep:
            raise TextError(f"--layer: got {layer}; expected a routed layer: {_layers_text(found)}")
    title = f"Which tokens of {options.text.name} are kept"
    sentences = _sentences(options, found, tokens)
    for line in (title, "", *sentences, ""):
        console.print(Text(visible_line(line) if line else ""))
    print_keep_map(found, console, options.layers)
    if options.json is not None:
        facts = {"calibrated_keep_ratio": options.keep_ratio, "num_text_tokens": tokens.num_tokens, **found.to_dict()}
        _write(options.json, json.dumps(facts) + "\n", console)
    if options.html is not None:
        _write(options.html, keep_map_page(found, title, sentences), console)


def _write(path: Path, text: str, console: Console) -> None:
    """Write the file and print where it is."""
    path.write_text(text, encoding="utf-8")
    console.print(Text(visible_line(f"keep map: {path}")), soft_wrap=True)


def _calibrate(model: PreTrainedModel, ids_T: torch.Tensor, keep_ratio: float) -> None:
    if model.routing.config.operator == "topk":
        raise RoutingError("--keep-ratio: got it for a model with operator topk, whose capacity decides; leave it out")
    calibrate(model, ids_T[None].to(model.device), keep_ratio)


def _sentences(options: KeepMapOptions, found: KeepMap, tokens: TokenisedText) -> list[str]:
    sentences = [
        f"{options.folder}: {len(found.keep)} of {found.num_layers} layers are routed ({_layers_text(found)}); {found.rule}.",
        found.sentence(),
    ]
    if found.num_tokens < tokens.num_tokens:
        sentences.append(f"These are the first {found.num_tokens:,} of {tokens.num_tokens:,} tokens.")
    if options.keep_ratio is not None:
        sentences.append(
            f"The routers were calibrated on these tokens to keep {options.keep_ratio:.1%}: which they keep is their choice, "
            "how many is not. Routers that were never trained choose at random."
        )
    return sentences


def _layers_text(found: KeepMap) -> str:
    return ", ".join(map(str, found.keep))
