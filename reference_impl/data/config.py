"""DataConfig: where training text comes from, in which shares, and how it becomes rows.

In: keyword arguments, or the plain data of a YAML or JSON file. Out: frozen, validated objects. No file is opened here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from reference_impl.errors import DataError

BOUNDARIES = ("respect", "ignore")
FILE_SETTINGS = {"path": None, "field": "text", "skip_empty": False}

# kind -> its settings beside kind, weight and name, with their defaults; None has to be given or may be left out (REQUIRED)
KINDS: dict[str, dict[str, Any]] = {
    "text": {"path": None, "suffixes": (".md", ".txt"), "skip_empty": False},
    "jsonl": FILE_SETTINGS,
    "parquet": FILE_SETTINGS,
    "datasets": {
        "dataset": None,
        "subset": None,
        "split": "train",
        "revision": None,
        "field": "text",
        "skip_empty": False,
    },
    "stdlib": {},
    "docstrings": {},
    "repository": {},
}
REQUIRED = {"text": "path", "jsonl": "path", "parquet": "path", "datasets": "dataset"}


@dataclass(frozen=True)
class SourceConfig:
    """One source of documents. A setting that its kind has no use for is an error.

    Attributes:
        kind: `text` (a file, or a folder's files, one document each), `jsonl` (an object per line), `parquet` (a row per
            document; needs pyarrow), `datasets` (a data set on disk or on the Hugging Face Hub, streamed; needs datasets), and,
            without any download, `stdlib` (the modules of the installed Python), `docstrings` (their documentation strings) and
            `repository` (this project's documentation and sources).
        weight: its share of the training tokens, relative to the other weights; >= 0, and 0 leaves it out.
        name: what it is called in reports; by default the last part of its path or data set, or its kind.
        path: `text`, `jsonl`, `parquet`: a file, or a folder that is searched with its subfolders.
        suffixes: `text`: which files of a folder are read; by default .md and .txt.
        field: `jsonl`, `parquet`, `datasets`: key or column that holds the text; by default `text`.
        dataset, subset, split, revision: `datasets`: as `load_dataset` takes them; split is `train` by default.
        skip_empty: whether documents without text are passed over; they are an error by default.

    Raises:
        DataError: a value is out of its range, missing, or of another kind.
    """

    kind: str
    weight: float = 1.0
    name: str = ""
    path: str | None = None
    suffixes: tuple[str, ...] | None = None
    field: str | None = None
    dataset: str | None = None
    subset: str | None = None
    split: str | None = None
    revision: str | None = None
    skip_empty: bool | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in KINDS:
            raise DataError(f"kind: got {self.kind!r}; expected one of {', '.join(KINDS)}")
        if not _is_number(self.weight) or not 0 <= self.weight < math.inf:
            raise DataError(f"weight: got {self.weight!r}; expected a finite number >= 0")
        settings = KINDS[self.kind]
        for name in SETTINGS:
            value = getattr(self, name)
            if name not in settings and value is not None:
                raise DataError(f"{name}: got {value!r}; kind {self.kind} takes {', '.join(settings) or 'no settings'}")
            if name in settings:
                object.__setattr__(self, name, _checked_setting(name, settings[name] if value is None else value))
        required = REQUIRED.get(self.kind)
        if required is not None and not getattr(self, required):
            raise DataError(f"{required}: missing; kind {self.kind} needs it")
        if not isinstance(self.name, str):
            raise DataError(f"name: got {self.name!r}; expected a text")
        if not self.name:
            object.__setattr__(self, "name", Path(self.path or self.dataset or self.kind).name or self.kind)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready settings, those of its kind only."""
        named = ("kind", "weight", "name", *KINDS[self.kind])
        values = {name: getattr(self, name) for name in named}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None
        }

    @classmethod
    def from_dict(cls, settings: Any, folder: Path | None = None) -> "SourceConfig":
        """Plain data -> SourceConfig; a relative `path` starts at `folder`.

        Raises:
            DataError: a key is unknown, or a value out of its range.
        """
        config = cls(**_known_settings(cls, settings, required="kind"))
        if folder is not None and config.path is not None:
            object.__setattr__(config, "path", str(folder / config.path))
        return config


SETTINGS = tuple(one.name for one in fields(SourceConfig) if one.name not in ("kind", "weight", "name"))


def default_sources() -> tuple[SourceConfig, ...]:
    """What is on every machine with this project: code for the most part, and text about it."""
    return (
        SourceConfig("stdlib", weight=0.7),
        SourceConfig("docstrings", weight=0.15),
        SourceConfig("repository", weight=0.15),
    )


@dataclass(frozen=True)
class DataConfig:
    """How the documents of the sources become rows for training, and which are held out. All defaults are our choice.

    Attributes:
        sources: at least one with a weight above 0, of different names. The default needs no download.
        sequence_length: tokens per row, >= 2.
        held_out_share: share of the documents in [0, 1) that training never sees (split.py says which).
        seed: decides the order of files, rows and sources. It does not touch the split or the held-out rows.
        boundaries: `respect` computes every document as if it were alone: positions restart at 0, and a document's first token
            is not predicted. `ignore` makes each row one sequence, in which documents follow each other; for operators that
            take one sequence per row.
        shuffle_rows: rows of each source that are held back to draw from, >= 1; 1 keeps their order.

    Raises:
        DataError: a value is out of its range.
    """

    sources: tuple[SourceConfig, ...] = field(default_factory=default_sources)
    sequence_length: int = 1024
    held_out_share: float = 0.05
    seed: int = 0
    boundaries: Literal["respect", "ignore"] = "respect"
    shuffle_rows: int = 256

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", _checked_sources(self.sources))
        for name, least in (("sequence_length", 2), ("shuffle_rows", 1)):
            value = getattr(self, name)
            if not _is_integer(value) or value < least:
                raise DataError(f"{name}: got {value!r}; expected an integer >= {least}")
        if not _is_integer(self.seed):
            raise DataError(f"seed: got {self.seed!r}; expected an integer")
        if not _is_number(self.held_out_share) or not 0 <= self.held_out_share < 1:
            raise DataError(f"held_out_share: got {self.held_out_share!r}; expected a number in [0, 1)")
        if self.boundaries not in BOUNDARIES:
            raise DataError(f"boundaries: got {self.boundaries!r}; expected one of {', '.join(BOUNDARIES)}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready settings; `from_dict` reads them back."""
        settings = {setting.name: getattr(self, setting.name) for setting in fields(self)}
        return {**settings, "sources": [source.to_dict() for source in self.sources]}

    @classmethod
    def from_dict(cls, settings: Any, folder: Path | None = None) -> "DataConfig":
        """The plain data of a YAML or JSON file -> DataConfig; what is left out has its default.

        Args:
            settings: a mapping; `sources` is a list of mappings.
            folder: where relative paths of sources start; the working directory if None.

        Raises:
            DataError: a key is unknown, or a value out of its range; the text starts with the key, such as `sources[1].weight`.
        """
        known = _known_settings(cls, settings)
        if "sources" in known:
            if not isinstance(known["sources"], list | tuple):
                raise DataError(f"sources: got {known['sources']!r}; expected a list of sources")
            known["sources"] = tuple(_source_at(index, given, folder) for index, given in enumerate(known["sources"]))
        return cls(**known)


def _source_at(index: int, given: Any, folder: Path | None) -> SourceConfig:
    try:
        return SourceConfig.from_dict(given, folder)
    except DataError as error:
        raise DataError(f"sources[{index}].{error}") from error


def _checked_sources(sources: Any) -> tuple[SourceConfig, ...]:
    if not isinstance(sources, list | tuple) or not all(isinstance(source, SourceConfig) for source in sources):
        raise DataError(f"sources: got {sources!r}; expected SourceConfig objects")
    if not any(source.weight > 0 for source in sources):
        raise DataError(
            f"sources: got {len(sources)} sources and no weight above 0; expected at least one source with a positive weight"
        )
    names = [source.name for source in sources]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise DataError(f"sources[{index}].name: got {name!r} a second time; give each source a name of its own")
    return tuple(sources)


def _checked_setting(name: str, value: Any) -> Any:
    """A source's setting in its stored form."""
    if name == "suffixes":
        if isinstance(value, str) or not isinstance(value, list | tuple) or not value:
            raise DataError(f"suffixes: got {value!r}; expected a list such as ['.md', '.txt']")
        for suffix in value:
            if not isinstance(suffix, str) or not suffix.startswith(".") or len(suffix) < 2:
                raise DataError(f"suffixes: got {suffix!r}; expected a suffix with its dot, such as '.txt'")
        return tuple(value)
    if name == "skip_empty":
        if not isinstance(value, bool):
            raise DataError(f"skip_empty: got {value!r}; expected true or false")
        return value
    if name == "path" and isinstance(value, Path):
        return str(value)
    if value is not None and (not isinstance(value, str) or not value):
        raise DataError(f"{name}: got {value!r}; expected a text")
    return value


def _known_settings(cls: type, settings: Any, required: str | None = None) -> dict[str, Any]:
    if not isinstance(settings, Mapping):
        raise DataError(f"settings: got {settings!r}; expected a mapping of names to values")
    known = [setting.name for setting in fields(cls)]
    unknown = sorted(str(key) for key in settings if key not in known)
    if unknown:
        raise DataError(f"{unknown[0]}: unknown setting; expected some of {', '.join(known)}")
    if required is not None and required not in settings:
        raise DataError(f"{required}: missing; expected one of {', '.join(KINDS)}")
    return dict(settings)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
