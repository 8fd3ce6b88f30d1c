"""Every point as a row of one flat table, for pages that sort and filter: a row per cell and method.

In: a `Summary`. Out: texts, one line each and not yet escaped, with the base-unit numbers that they are sorted by.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from modbench.analysis.rows import CellSummary, MethodRow, Summary, failure_text
from modbench.report.document import axis_name, axis_value, cell_label
from modbench.report.escaping import one_line
from modbench.report.tables import (
    NOTHING,
    PEAK_NAMES,
    Column,
    RowState,
    latency_text,
    row_state,
    speedup_text,
    status_text,
    verdicts_text,
)
from modbench.units import format_bytes, format_factor, format_percent

UNNAMED_AXES = ("context", "batch")  # of the workload; where a run has one cell, these name it


@dataclass(frozen=True)
class PointCell:
    """A text, and the number in base units behind it; None for words and for what is unknown."""

    text: str
    value: float | None = None

    @property
    def sort_value(self) -> str | None:
        """The number as six significant digits, whole numbers as they are."""
        if self.value is None:
            return None
        return str(self.value) if isinstance(self.value, int) else f"{self.value:.6g}"


@dataclass(frozen=True)
class PointRow:
    """One method at one cell; `where` is the cell in words, `cells` follow the columns."""

    method: str
    where: str
    cells: tuple[PointCell, ...]
    state: RowState


@dataclass(frozen=True)
class PointsTable:
    """Columns and rows; `method_index` is the column that names the row."""

    columns: tuple[Column, ...]
    rows: tuple[PointRow, ...]
    method_index: int


_Field = tuple[str, Callable[[MethodRow], PointCell]]


def points_table(summary: Summary) -> PointsTable | None:
    """The table in the order of the run; None where nothing but limits was searched for."""
    if not summary.cells:
        return None
    axes = list(dict.fromkeys(key for cell in summary.cells for key in cell.axes))
    is_evaluated = any(row.quality for cell in summary.cells for row in cell.rows)
    fields = (*_FIELDS, *(_QUALITY_FIELDS if is_evaluated else ()))
    rows = tuple(_row(cell, row, axes, fields) for cell in summary.cells for row in cell.rows)
    names = [axis_name(key) for key in axes] or list(UNNAMED_AXES)
    is_numeric = [any(row.cells[index].value is not None for row in rows) for index in range(len(names))]
    headers = [one_line(key) if names.count(name) > 1 else name for key, name in zip(axes or names, names, strict=True)]
    columns = (
        *(
            Column(header[:1].upper() + header[1:], numeric)
            for header, numeric in zip(headers, is_numeric, strict=True)
        ),
        Column("Method", is_numeric=False),
        *(Column(header) for header, _ in fields),
        Column("Verdict", is_numeric=False),
    )
    return PointsTable(columns, rows, method_index=len(names))


def point_verdict(row: MethodRow) -> str:
    """What may be said of a row: why it has no numbers or none that count, its verdicts, or why there is none."""
    if row.has_failed:
        return status_text(row)
    if row.is_wrong:
        return "wrong: " + ", ".join(one_line(failure_text(name)) for name in row.failed_identities)
    if row.is_baseline:
        return "baseline"
    judged = verdicts_text(row)
    return judged if judged != NOTHING else one_line(row.no_verdict or NOTHING)


def _row(cell: CellSummary, row: MethodRow, axes: list[str], fields: Sequence[_Field]) -> PointRow:
    place = [cell.axes.get(key) for key in axes] or [cell.workload.get(name) for name in UNNAMED_AXES]
    measured = [PointCell(NOTHING) if row.has_failed else field(row) for _, field in fields]
    verdict = PointCell(point_verdict(row))
    cells = (*(_axis_cell(value) for value in place), PointCell(one_line(row.method)), *measured, verdict)
    return PointRow(one_line(row.method), cell_label(cell), cells, row_state(row))


def _axis_cell(value: Any) -> PointCell:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return PointCell(NOTHING if value is None else axis_value(value), value if is_number else None)


def _number(name: str, text: Callable[[float], str]) -> Callable[[MethodRow], PointCell]:
    def field(row: MethodRow) -> PointCell:
        value = row.values[name]
        return PointCell(NOTHING) if value is None else PointCell(text(value), value)

    return field


def _peak(row: MethodRow) -> PointCell:
    value, name = row.peak_memory_bytes, row.peak_memory_metric
    return PointCell(f"{format_bytes(value)} {PEAK_NAMES[name]}", value) if name else PointCell(NOTHING)


_FIELDS: tuple[_Field, ...] = (
    ("TTFT", lambda row: PointCell(latency_text(row.latencies.get("ttft_s")), row.values["ttft_s"])),
    ("Prefill speed-up", lambda row: PointCell(speedup_text(row, "prefill_speedup"), row.values["prefill_speedup"])),
    ("Of ideal", _number("prefill_share_of_ideal", format_percent)),
    ("TPOT", lambda row: PointCell(latency_text(row.latencies.get("tpot_s")), row.values["tpot_s"])),
    ("Decode speed-up", lambda row: PointCell(speedup_text(row, "decode_speedup"), row.values["decode_speedup"])),
    ("Of ideal", _number("decode_share_of_ideal", format_percent)),
    ("KV cache", _number("kv_cache_bytes", format_bytes)),
    ("KV reduction", _number("kv_cache_reduction", format_factor)),
    ("Peak memory", _peak),
    ("Kept", _number("keep_ratio_prefill", format_percent)),
)
_QUALITY_FIELDS: tuple[_Field, ...] = (
    ("Bits per byte", _number("bits_per_byte", "{:.4f}".format)),
    ("To dense", _number("bits_per_byte_ratio", "{:.4f}×".format)),
)
