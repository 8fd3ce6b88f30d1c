"""The folder of one training: what it was asked to do, its log, its checkpoints, and the trained model at the end.

In: facts and models. Out: files. What is there is never overwritten; the model appears whole or not at all.

```
training.json   settings, start, versions, command
log.jsonl       a line per log
checkpoints/    checkpoint-STEP, as the Trainer writes them
failed-step-N/  the batch that ended a training, and the state before it
tensorboard/    if asked for
model/          the trained model, as `save_pretrained` writes it
```
"""

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from reference_impl.errors import TrainingError

FACTS_FILE = "training.json"
SETTINGS = "settings"  # of these facts, those that a resumed training must have too
STATE_FILE = "trainer_state.json"  # what the Trainer writes last
CHECKPOINT_PREFIX = "checkpoint-"
TORCH_FILES = (".pt", ".pth", ".bin")


class TrainingFolder:
    """Where a training writes.

    Attributes:
        path: the folder.
        log, checkpoints, tensorboard, model: what is in it, there or not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts = path / FACTS_FILE
        self.log = path / "log.jsonl"
        self.checkpoints = path / "checkpoints"
        self.tensorboard = path / "tensorboard"
        self.model = path / "model"

    def check_new(self) -> None:
        """Raise TrainingError unless the folder is empty or not there."""
        if self.path.exists() and not self.path.is_dir():
            raise TrainingError(f"{self.path}: a file is there; expected a new or empty folder")
        if self.path.is_dir() and any(self.path.iterdir()):
            raise TrainingError(
                f"{self.path}: not empty; expected a new or empty folder, or --resume to go on with the training in it"
            )

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Make the folder, with the facts in it.

        Raises:
            TrainingError: something is there, or the folder cannot be made.
        """
        self.check_new()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            beside = self.path / f"{FACTS_FILE}.unfinished"
            beside.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
            beside.rename(self.facts)
        except OSError as error:
            raise TrainingError(f"{self.path}: cannot be written: {error.strerror}; name another folder") from error

    def recorded(self) -> dict[str, Any]:
        """What the training in the folder was asked to do.

        Raises:
            TrainingError: there is none, or its file cannot be read.
        """
        try:
            facts = json.loads(self.facts.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise TrainingError(
                f"{self.facts}: not there, so there is nothing to resume; leave --resume out"
            ) from error
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"{self.facts}: cannot be read as JSON; restore it, or begin in another folder"
            ) from error
        if not isinstance(facts, dict) or not isinstance(facts.get(SETTINGS), dict):
            raise TrainingError(f"{self.facts}: no {SETTINGS}; expected what a training wrote")
        return facts

    def check_same(self, settings: Mapping[str, Any]) -> None:
        """Raise TrainingError, naming the first difference, unless the training in the folder has these settings."""
        recorded = dict(_flat(self.recorded()[SETTINGS]))
        given = dict(_flat(json.loads(json.dumps(settings))))  # as a file would give them back
        for key in (*recorded, *(key for key in given if key not in recorded)):
            if recorded.get(key) != given.get(key):
                raise TrainingError(
                    f"{key}: got {given.get(key)!r}; the training in {self.path} began with {recorded.get(key)!r}: resume it with "
                    "that, or begin in another folder"
                )

    def newest_checkpoint(self, num_processes: int, tell: Callable[[str], None]) -> Path | None:
        """The newest checkpoint that is whole, or None; `tell` hears of each that is not."""
        steps = sorted(
            int(path.name.removeprefix(CHECKPOINT_PREFIX))
            for path in self.checkpoints.glob(f"{CHECKPOINT_PREFIX}*")
            if path.name.removeprefix(CHECKPOINT_PREFIX).isdigit()
        )
        for step in reversed(steps):
            path = self.checkpoints / f"{CHECKPOINT_PREFIX}{step}"
            problem = damage(path, num_processes)
            if problem is None:
                return path
            tell(f"{path}: {problem}; looking for an older checkpoint")
        return None

    def write_model(self, save: Callable[[Path], None], copied: Sequence[Path], is_first: bool) -> None:
        """Let `save` write the model beside its place, copy files to it, and move it there.

        Args:
            save: writes into the folder it is given; every process calls it.
            copied: files that belong to the model, such as its tokenizer.
            is_first: whether this process writes.
        """
        beside = self.path / "model.unfinished"
        if is_first and beside.exists():
            shutil.rmtree(beside)
        save(beside)
        if is_first:
            for path in copied:
                shutil.copy(path, beside / path.name)
            beside.rename(self.model)


def damage(checkpoint: Path, num_processes: int) -> str | None:
    """What is wrong with a checkpoint, or None. It is whole if the file that is written last is there and all others open."""
    try:
        step = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))["global_step"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"its {STATE_FILE} is missing or cut off"
    if f"{CHECKPOINT_PREFIX}{step}" != checkpoint.name:
        return f"its {STATE_FILE} is of step {step}"
    states = ["rng_state.pth"] if num_processes == 1 else [f"rng_state_{rank}.pth" for rank in range(num_processes)]
    missing = [name for name in ("scheduler.pt", *states) if not (checkpoint / name).is_file()]
    if missing:
        return f"it has no {missing[0]}"
    for path in _files(checkpoint):
        if path.suffix in TORCH_FILES and not zipfile.is_zipfile(path):
            return f"{path.name} is damaged"
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="pt"):
                    pass
            except (SafetensorError, OSError):
                return f"{path.name} is damaged"
        if path.name.endswith(".index.json"):
            shards = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
            absent = sorted(shard for shard in shards if not (checkpoint / shard).is_file())
            if absent:
                return f"it has no {absent[0]}"
    return None


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in sorted(names))


def _flat(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings and lists as dotted keys."""
    if isinstance(settings, Mapping) and settings:
        for key, value in settings.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(settings, list) and any(isinstance(value, Mapping) for value in settings):
        for index, value in enumerate(settings):
            yield from _flat(value, f"{prefix}[{index}]")
    else:
        yield prefix, settings
