"""Which prompt tokens one method kept at which layer: the row's schema, and its file. Imports no torch.

In: `KeepMapRecord`s from workers. Out: `keep_maps.jsonl`, one JSON line per method.
"""

from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from modbench.launch_rows import LaunchRow, LaunchRows, identity, load_rows
from modbench.plan import RunSpec
from modbench.record import append_line

KEEP_MAPS_FILE = "keep_maps.jsonl"
MAX_MAPPED_TOKENS = 256  # of the prompt's first row: a text that is read at a glance
KEPT, SKIPPED = "1", "0"

Decisions = Annotated[str, Field(pattern=r"^[01]*$")]


class KeepMapRecord(LaunchRow):
    """The decisions about the first tokens of the prompt's first row at prefill, one entry or character per token.

    `texts` joined are the text, where the prompt is one; None for synthetic ids. `router` says how the routers came about, as the
    flag of the method's records does.
    """

    model_config = ConfigDict(extra="forbid")

    num_layers: int
    context: int = Field(description="tokens of the prompt's row")
    router: str | None = None
    token_ids: list[int] = Field(default_factory=list, max_length=MAX_MAPPED_TOKENS)
    texts: list[str] | None = None
    keep: dict[int, Decisions] = Field(default_factory=dict, description="routed layer -> 1 kept, 0 skipped, per token")

    @model_validator(mode="after")
    def _has_one_entry_per_token(self) -> "KeepMapRecord":
        rows = [*self.keep.values(), *([] if self.texts is None else [self.texts])]
        if any(len(row) != len(self.token_ids) for row in rows):
            raise ValueError("keep and texts have one entry per token")
        return self


def new_keep_map_record(spec: RunSpec, error: str | None = None) -> KeepMapRecord:
    """The row of a method with no decisions in it yet, or of a launch that failed."""
    return KeepMapRecord(
        **identity(spec),
        num_layers=spec.point.geometry.num_hidden_layers,
        context=spec.point.workload["context"],
        error=error,
    )


def append_keep_map(folder: Path, keep_map: KeepMapRecord) -> None:
    """Append one line to the folder's keep maps, on disk when this returns.

    Raises:
        OutputError: the file cannot be written.
    """
    append_line(folder / KEEP_MAPS_FILE, keep_map.model_dump_json())


def load_keep_maps(folder: Path) -> LaunchRows[KeepMapRecord]:
    """The keep maps of a run; none if none was asked for.

    Raises:
        OutputError: the file is there and cannot be read.
    """
    return load_rows(folder / KEEP_MAPS_FILE, KeepMapRecord, "keep maps")
