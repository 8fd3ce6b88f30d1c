"""What a user names as one side of a comparison -> its records.

In: a run's folder, a records file, or a glob of these. Out: `SideRecords`; several files are one side.
"""

import gc
import glob
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modbench.analysis.compare import SideRecords
from modbench.errors import RecordError
from modbench.record import RECORDS_FILE, Record, load_records


def load_side(*names: str) -> SideRecords:
    """The records of all files that are meant, as one side; of several records of one launch the last counts.

    Raises:
        RecordError: there is no such file, one cannot be read, or there are no records in any.
    """
    records: dict[str, Record] = {}
    num_skipped_lines = 0
    with _collector_paused():
        for path in (path for name in names for path in _paths(name)):
            file = load_records(path)
            records |= {record.launch_id: record for record in file.records}
            num_skipped_lines += file.num_skipped_lines
    label = ", ".join(names)
    if not records:
        raise RecordError(f"{label}: no complete record in it; expected a run that has measured something")
    return SideRecords(label, list(records.values()), num_skipped_lines)


def _paths(name: str) -> list[Path]:
    """The path itself, or what the glob matches; of matched folders those of runs."""
    if Path(name).exists():
        return [Path(name)]
    matches = [Path(match) for match in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207 (takes absolute globs)
    found = [path for path in matches if path.is_file() or (path / RECORDS_FILE).is_file()]
    if not found:
        raise RecordError(
            f"{name}: no records there; expected a run's folder, a {RECORDS_FILE}, or a quoted glob of these"
        )
    return found


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Records have no cycles, and looking for some takes longer than reading them; what was read is not looked at again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
