"""Which prompt tokens one method kept at which layer: the row's schema, its file, atomic append and tolerant reading. No torch.

In: `KeepMapRecord`s from workers. Out: `keep_maps.jsonl`, one JSON line per method.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from modbench.errors import OutputError
from modbench.plan import RunSpec
from modbench.record import append_line

KEEP_MAPS_FILE = "keep_maps.jsonl"
MAX_MAPPED_TOKENS = 256  # of the prompt's first row: a text that is read at a glance
KEPT, SKIPPED = "1", "0"

Decisions = Annotated[str, Field(pattern=r"^[01]*$")]


class KeepMapRecord(BaseModel):
    """The decisions about the first tokens of the prompt's first row at prefill, one entry or character per token.

    `texts` joined are the text, where the prompt is one; None for synthetic ids. `router` says how the routers came about, as the
    flag of the method's records does.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    launch_id: str
    run_id: str
    point_id: str
    cell_id: str
    method: str
    kind: str
    num_layers: int
    context: int = Field(description="tokens of the prompt's row")
    router: str | None = None
    token_ids: list[int] = Field(default_factory=list, max_length=MAX_MAPPED_TOKENS)
    texts: list[str] | None = None
    keep: dict[int, Decisions] = Field(default_factory=dict, description="routed layer -> 1 kept, 0 skipped, per token")
    error: str | None = None

    @model_validator(mode="after")
    def _has_one_entry_per_token(self) -> "KeepMapRecord":
        rows = [*self.keep.values(), *([] if self.texts is None else [self.texts])]
        if any(len(row) != len(self.token_ids) for row in rows):
            raise ValueError("keep and texts have one entry per token")
        return self


def new_keep_map_record(spec: RunSpec, error: str | None = None) -> KeepMapRecord:
    """The row of a method with no decisions in it yet, or of a launch that failed."""
    return KeepMapRecord(
        launch_id=spec.launch_id,
        run_id=spec.run_id,
        point_id=spec.point_id,
        cell_id=spec.point.cell_id,
        method=spec.method,
        kind=spec.kind,
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


def load_keep_maps(folder: Path) -> list[KeepMapRecord]:
    """The keep maps of a run, the last one of each cell and method; none if none was asked for.

    Lines that are not whole rows of this version are passed over: what they were about can be mapped again.

    Raises:
        OutputError: the file is there and cannot be read.
    """
    path = folder / KEEP_MAPS_FILE
    try:
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    except OSError as error:
        raise OutputError(f"{path}: cannot read keep maps: {error.strerror}; make it readable, or delete it") from error
    keep_maps: dict[tuple[str, str], KeepMapRecord] = {}
    for line in lines:
        try:
            keep_map = KeepMapRecord.model_validate_json(line)
        except ValidationError:
            continue
        keep_maps[keep_map.cell_id, keep_map.method] = keep_map
    return list(keep_maps.values())
