"""Side files of a run: one JSON line per launch that was traced or mapped, read with tolerance. Imports no torch.

In: the folder's file and the class of its rows. Out: `LaunchRows`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from modbench.errors import OutputError
from modbench.plan import RunSpec


class LaunchRow(BaseModel):
    """Which launch the row is about, and why there is nothing in it where that failed."""

    schema_version: Literal[1] = 1
    launch_id: str
    run_id: str
    point_id: str
    cell_id: str
    method: str
    kind: str
    error: str | None = None


RowT = TypeVar("RowT", bound=LaunchRow)


@dataclass(frozen=True)
class LaunchRows(Generic[RowT]):
    """The last row of each cell and method, in first-seen order; and how many lines of the file are no rows of this version."""

    rows: list[RowT] = field(default_factory=list)
    num_skipped_lines: int = 0


def identity(spec: RunSpec) -> dict[str, str]:
    """What a `LaunchRow` says about its launch."""
    return {
        "launch_id": spec.launch_id,
        "run_id": spec.run_id,
        "point_id": spec.point_id,
        "cell_id": spec.point.cell_id,
        "method": spec.method,
        "kind": spec.kind,
    }


def load_rows(path: Path, row_class: type[RowT], content: str) -> LaunchRows[RowT]:
    """The rows of a side file; none where it does not exist.

    A last line without newline is passed over (its writer was killed), and so are, counted, lines that are not whole rows of
    this version: what they were about can be measured again.

    Args:
        content: what the rows are, for the error.

    Raises:
        OutputError: the file is there and cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    except OSError as error:
        raise OutputError(f"{path}: cannot read {content}: {error.strerror}; make it readable, or delete it") from error
    rows: dict[tuple[str, str], RowT] = {}
    num_skipped = 0
    for line in lines:
        if not line.strip():
            continue
        try:
            row = row_class.model_validate_json(line)
        except ValidationError:
            num_skipped += 1
        else:
            rows[row.cell_id, row.method] = row
    return LaunchRows(list(rows.values()), num_skipped)
