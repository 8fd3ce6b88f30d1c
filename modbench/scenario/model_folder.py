"""A Hugging Face folder, as far as a scenario reads it: its config.json, its files' names, and a hash that tells checkpoints apart.

In: a folder. Out: a `ModelFolder`. Only regular files are opened; of the weights only samples are read.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modbench.errors import ScenarioError
from modbench.scenario.source import is_irregular
from modbench.scenario.wording import show

MAX_CONFIG_BYTES = 1024 * 1024
WEIGHT_SAMPLES, WEIGHT_SAMPLE_BYTES = 16, 64 * 1024
CONVERTED_PREFIX = "mod_"  # of the model_type that a converted model saves


@dataclass(frozen=True)
class ModelFolder:
    """What a folder holds: `where` names its config.json in errors, `sha256` is of the config and of samples of the weights."""

    where: str
    config: dict[str, Any]
    sha256: str
    has_weights: bool
    has_tokenizer: bool

    @property
    def is_converted(self) -> bool:
        """Whether a converted model was saved here."""
        return str(self.config.get("model_type")).startswith(CONVERTED_PREFIX)


def read_model_folder(folder: Path, *, reads_weights: bool) -> ModelFolder:
    """Read a folder; without `reads_weights` they are neither looked for nor hashed.

    Raises:
        ScenarioError: without a location: no folder, no config.json or one of no use, irregular or unreadable files.
    """
    shown = show(str(folder))
    try:
        if not folder.is_dir():
            raise ScenarioError(f"got {shown}, which is not a folder; expected a Hugging Face folder with config.json")
        names = {path.name for path in folder.iterdir()}
        weights = sorted(name for name in names if name.endswith(".safetensors") and reads_weights)
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
    where = f"config.json in {shown}"
    return ModelFolder(where, parse_config(raw, where), digest.hexdigest(), bool(weights), "tokenizer.json" in names)


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
