"""What a report is about: a summary with its question, expectations and command; and words for its cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modbench.analysis.breakdown import Breakdowns
from modbench.analysis.expectations import ExpectationOutcome
from modbench.analysis.rows import CellSummary, Footnote, Summary
from modbench.analysis.summary import flatten
from modbench.keep_map_record import KeepMapRecord
from modbench.report.escaping import one_line
from modbench.units import format_bytes, format_count

MACHINE_KEYS = ("machine", "device", "gpu", "versions", "libraries")
HIDDEN_FACTS = ("fingerprint",)  # for machines; it stands in the environment
LONG_TEXT = 120
MAX_LABELS = 3


@dataclass(frozen=True)
class Document:
    """Everything the renderers read. Only the summary is needed; `command` is what reproduces the run.

    `scenario_text` and `records` are the run's files as they are on disk, for a page that holds them.
    """

    summary: Summary
    name: str = ""
    question: str = ""
    command: str = ""
    outcomes: Sequence[ExpectationOutcome] = ()
    breakdowns: Breakdowns | None = None
    keep_maps: Sequence[KeepMapRecord] = ()
    scenario_text: str = ""
    records: bytes = b""

    @property
    def title(self) -> str:
        """The question, or the scenario's name, as one line."""
        return one_line(self.question or self.name or "modbench report")


def cell_label(cell: CellSummary) -> str:
    """The cell in words: `context 4,096 · batch 8`; without a matrix its context and batch."""
    return axes_label(cell.axes or {name: cell.workload.get(name) for name in ("context", "batch")})


def axes_label(axes: Mapping[str, Any]) -> str:
    """The same words for a cell that is known by its axes alone, before anything is summarised."""
    parts = [f"{axis_name(key)} {axis_value(value)}" for key, value in axes.items() if value is not None]
    return one_line(" · ".join(parts)) or "the only point"


def cell_labels(summary: Summary, cell_ids: Sequence[str]) -> str:
    """Some cells in words: `context 4,096, context 8,192 and 3 more`."""
    labels = [cell_label(summary.cell(cell_id)) for cell_id in cell_ids[:MAX_LABELS]]
    more = len(cell_ids) - len(labels)
    return ", ".join(labels) + (f" and {more} more" if more else "")


def axis_name(key: str) -> str:
    """The last part of a dotted key: `workload.context` -> `context`."""
    return one_line(key.rsplit(".", 1)[-1])


def axis_value(value: Any) -> str:
    """Numbers with thousands separated, the rest as it is."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return format_count(value) if is_whole else one_line(value)


def footnote_text(note: Footnote, summary: Summary) -> str:
    """The doubt, with the methods it concerns, and the cells where it is not all of theirs."""
    methods = ", ".join(one_line(method) for method in note.methods)
    cells = f"; at {cell_labels(summary, note.cell_ids)}" if note.cell_ids else ""
    return one_line(note.text) + (f" ({methods}{cells})" if methods else "")


def environment_rows(summary: Summary) -> list[tuple[str, str]]:
    """The first record's environment as (dotted key, text); keys that vary between launches say so."""
    varying = set(summary.varying_environment)
    return [
        (one_line(key), one_line(value) + (" (differs between launches)" if key in varying else ""))
        for key, value in flatten(summary.environment).items()
    ]


def machine_facts(summary: Summary) -> list[tuple[str, str]]:
    """The short facts about machine and versions for the opening: (last part of the key, text)."""
    flat = flatten({key: value for key, value in summary.environment.items() if key in MACHINE_KEYS})
    facts = [_fact(axis_name(key), value) for key, value in flat.items() if value is not None]
    facts = [(key, text) for key, text in facts if key not in HIDDEN_FACTS]
    return [(key, text) for key, text in facts if text and len(text) <= LONG_TEXT]


def _fact(name: str, value: Any) -> tuple[str, str]:
    is_bytes = name.endswith("_bytes") and isinstance(value, int | float)
    text = format_bytes(value) if is_bytes else axis_value(value)
    return name.removesuffix("_bytes").removeprefix("num_").replace("_", " "), text


def setting_facts(summary: Summary) -> list[tuple[str, str]]:
    """What every cell ran with, where it is the same everywhere: model, precision, device, attention, workload."""
    per_cell = []
    for cell in summary.all_cells:
        model = cell.model.get("preset") or cell.model.get("path") or "own geometry"
        facts = {"model": model, "dtype": cell.dtype, "device": cell.device_kind, "attention": cell.attention}
        facts |= {"threads": cell.threads, "context": cell.workload.get("context"), "batch": cell.workload.get("batch")}
        per_cell.append(facts | {"new tokens": cell.workload.get("new_tokens")})
    if not per_cell:
        return []
    first = per_cell[0]
    shared = [key for key in first if first[key] is not None and all(facts[key] == first[key] for facts in per_cell)]
    return [(key, axis_value(first[key])) for key in shared]
