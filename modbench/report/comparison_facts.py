"""Who the sides of a comparison are and what differed, for a page: facts per side, and differences in groups.

In: records of a side, and `Difference`s. Out: short texts of one line each, not yet escaped for a format.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modbench.analysis.compare import SideRecords
from modbench.analysis.comparison import Difference
from modbench.analysis.sides import describe_side
from modbench.record import Record
from modbench.report.comparison import short_text
from modbench.report.document import axis_value
from modbench.report.escaping import one_line
from modbench.report.tables import NOTHING
from modbench.units import format_bytes

MAX_CELL, MAX_FULL = 72, 4000  # characters of a value: in its cell, and when unfolded
MAX_FACTS = 4  # values of one fact of a side
GROUPS: dict[str, tuple[str, ...]] = {  # title -> first parts of dotted keys
    "Scenario": (
        *("scenario", "methods", "model", "geometry", "workload"),
        *("dtype", "device_kind", "attention", "threads"),
    ),
    "Code": ("git_sha", "git_is_dirty", "git", "modbench"),
    "Machine": ("machine", "device", "gpu", "kernel", "cpu_capability", "memory_limit", "device_limit_bytes"),
    "Libraries": ("versions", "python"),
}
OTHER = "How it ran"
NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Cut:
    """A text, and the whole of it where it is too long to stand in a cell."""

    text: str
    full: str = ""


@dataclass(frozen=True)
class DifferenceRow:
    """One fact that is not the same on both sides."""

    key: str
    base: Cut
    candidate: Cut


def short_labels(labels: Sequence[str]) -> list[str]:
    """Labels without the folders that all of them begin with: `runs/main`, `runs/change` -> `main`, `change`."""
    parts = [one_line(label).rstrip("/").split("/") for label in labels]
    shortest = min(len(found) for found in parts)
    num_shared = 0
    while num_shared < shortest - 1 and len({found[num_shared] for found in parts}) == 1:
        num_shared += 1
    return ["/".join(found[num_shared:]) or NOTHING for found in parts]


def side_facts(side: SideRecords, noted_start: str | None = None) -> list[tuple[str, str]]:
    """What a side is: run, scenario, model, code, machine, when, launches; `noted_start` for records that do not say when."""
    described = describe_side(side.label, side.records)
    devices = [_device(record) for record in side.records]
    facts = [
        ("Run", one_line(side.label)),
        ("Scenario", _listed(described.scenario_names)),
        ("Model", _listed(_model(record) for record in side.records)),
        ("Code", _listed(_revision(sha) for sha in described.git_shas)),
        ("Machine", _listed(_machine(record) for record in side.records)),
        ("Device", _listed(device for device in devices if device)),
        ("When", _when(side.records, noted_start)),
        ("Launches", _launches(side.records)),
    ]
    return [(name, text or NOT_RECORDED) for name, text in facts]


def difference_groups(differences: Iterable[Difference]) -> list[tuple[str, list[DifferenceRow]]]:
    """Titles with what differed there: scenario, code, machine, libraries, and how it ran."""
    titles = {part: title for title, parts in GROUPS.items() for part in parts}
    groups: dict[str, list[DifferenceRow]] = {title: [] for title in (*GROUPS, OTHER)}
    for found in differences:
        row = DifferenceRow(one_line(found.key), _cut(found.key, found.base), _cut(found.key, found.candidate))
        groups[titles.get(found.key.split(".")[0], OTHER)].append(row)
    return [(title, rows) for title, rows in groups.items() if rows]


def _cut(key: str, value: Any) -> Cut:
    text = _value_text(key, value, MAX_FULL)
    short = _value_text(key, value, MAX_CELL)
    return Cut(short, text if text != short else "")


def _value_text(key: str, value: Any, max_length: int) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, list | tuple):
        return one_line(", ".join(_value_text(key, item, max_length) for item in value) or "[]", max_length)
    if key.endswith("_bytes") and isinstance(value, int | float):
        return format_bytes(value)
    if max_length == MAX_CELL and isinstance(value, str):
        return one_line(short_text(value), max_length)
    return one_line(axis_value(value) if not isinstance(value, str) else value, max_length)


def _revision(sha: str) -> str:
    return short_text(sha).replace("+dirty", ", with changes that were not committed")


def _model(record: Record) -> str:
    model = record.point.model
    return str(model.get("preset") or model.get("path") or "own geometry")


def _machine(record: Record) -> str:
    """`AMD EPYC, 8 cores (3f7adb7a383f8bc6)`; empty where the record says nothing."""
    machine = record.environment.get("machine")
    if not isinstance(machine, Mapping):
        return ""
    cores = machine.get("num_cores")
    parts = [machine.get("cpu"), f"{cores} core{'s' * (cores != 1)}" if cores else None]
    text = ", ".join(str(part) for part in parts if part)
    fingerprint = machine.get("fingerprint")
    return f"{text} ({fingerprint})" if text and fingerprint else text or str(fingerprint or "")


def _device(record: Record) -> str:
    gpu = record.environment.get("gpu")
    name = gpu.get("name") if isinstance(gpu, Mapping) else None
    return str(name or record.environment.get("device") or record.point.device_kind)


def _when(records: Sequence[Record], noted_start: str | None) -> str:
    """`2026-11-24 11:49 UTC`, or the first and the last start."""
    starts = sorted({str(record.environment["started"]) for record in records if record.environment.get("started")})
    starts = starts or ([noted_start] if noted_start else [])
    ends = dict.fromkeys(one_line(start)[:16].replace("T", " ") for start in (starts[:1] + starts[-1:]))
    return f"{' to '.join(ends)} UTC" if ends else ""


def _launches(records: Sequence[Record]) -> str:
    """`48`, or `48: 44 ok, 4 oom`."""
    counts = Counter(record.status for record in records)
    if set(counts) <= {"ok"}:
        return str(len(records))
    return f"{len(records)}: " + ", ".join(f"{count} {status}" for status, count in counts.items())


def _listed(texts: Iterable[str]) -> str:
    names = [one_line(text, 120) for text in dict.fromkeys(texts) if text]
    more = len(names) - MAX_FACTS
    return ", ".join(names[:MAX_FACTS]) + (f" and {more} more" if more > 0 else "")
