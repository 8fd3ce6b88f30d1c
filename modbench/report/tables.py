"""A summary as tables of plain text, the same for every renderer: prefill, decode, memory, failures, expectations.

In: a `Document`. Out: `Table`s whose texts are one line each and not yet escaped for a format.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from modbench.analysis.kv_cache import differences
from modbench.analysis.pairs import LatencyMetric
from modbench.analysis.rows import MethodRow, Spread, Summary
from modbench.analysis.verdict import Verdict
from modbench.report.document import Document, cell_label
from modbench.report.escaping import one_line
from modbench.units import format_bytes, format_factor, format_percent, format_rate, format_seconds

RowState = Literal["plain", "baseline", "wrong", "failed", "met", "missed", "predicted"]
NOTHING = "–"
OUTCOMES: dict[bool | None, tuple[str, RowState]] = {
    True: ("✓", "met"),
    False: ("✗", "missed"),
    None: (NOTHING, "plain"),
}
MAX_LISTED_LAYERS = 8
PEAK_NAMES = {"peak_allocated_bytes": "allocated", "peak_tensor_bytes": "tensors", "peak_rss_bytes": "RSS"}


@dataclass(frozen=True)
class Column:
    """A header (at most two lines of it on a console), its side, and whether it is only for wide renderers.

    A joined column stands nearer to the one on its left, where columns are aligned by spaces.
    """

    header: str
    is_numeric: bool = True
    is_detail: bool = False
    is_joined: bool = False


@dataclass(frozen=True)
class Row:
    """Texts in the order of the columns, how to draw them, and the method that they measure, for readers who hide some."""

    cells: tuple[str, ...]
    state: RowState = "plain"
    method: str = ""


@dataclass(frozen=True)
class Group:
    """Rows under one label: a cell of the matrix, or no label."""

    label: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Table:
    """A titled table."""

    title: str
    columns: tuple[Column, ...]
    groups: tuple[Group, ...]
    is_detail: bool = False

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of all groups."""
        return tuple(row for group in self.groups for row in group.rows)

    def compact(self) -> "Table":
        """The same without the detail columns."""
        kept = [index for index, column in enumerate(self.columns) if not column.is_detail]
        groups = tuple(
            Group(group.label, tuple(replace(row, cells=tuple(row.cells[i] for i in kept)) for row in group.rows))
            for group in self.groups
        )
        return Table(self.title, tuple(self.columns[i] for i in kept), groups, self.is_detail)


_Field = tuple[Column, Callable[[MethodRow], str]]
_METHOD: _Field = (Column("Method", is_numeric=False), lambda row: method_text(row))


def measurement_tables(summary: Summary) -> list[Table]:
    """Prefill, decode, memory and (details) KV cache three ways and end to end, each with a group per cell and a row per method.

    There are none where only limits were searched for.
    """
    if summary.limits and not summary.cells:
        return []
    has_verdicts = any(
        speedup.interval for cell in summary.cells for row in cell.rows for speedup in row.speedups.values()
    )
    return [
        _table(summary, "Prefill", _latency_fields("prefill", "ttft_s", has_verdicts)),
        _table(summary, "Decode", _latency_fields("decode", "tpot_s", has_verdicts)),
        _table(summary, "Memory", _memory_fields()),
        _table(summary, "KV cache three ways", _kv_cache_fields(), is_detail=True),
        _table(summary, "End to end", _end_to_end_fields(), is_detail=True),
    ]


def keep_ratio_table(summary: Summary) -> Table | None:
    """Measured keep ratios of routed layers, one by one or as their range; None if no method routes."""
    groups = []
    for cell in summary.cells:
        rows = [row for row in cell.rows if any(row.keep_ratios.values())]
        texts = [Row((method_text(row), *_keep_ratio_texts(row)), row_state(row), one_line(row.method)) for row in rows]
        groups += [Group(cell_label(cell), tuple(texts))] if texts else []
    headers = ("Method", "Routed layers", "Prefill", "Decode")
    columns = tuple(Column(header, is_numeric=False) for header in headers)
    return Table("Keep ratios per routed layer", columns, tuple(groups)) if groups else None


def _keep_ratio_texts(row: MethodRow) -> list[str]:
    layers = list(next(ratios for ratios in row.keep_ratios.values() if ratios))
    is_short = len(layers) <= MAX_LISTED_LAYERS
    texts = [", ".join(str(layer) for layer in layers) if is_short else f"{len(layers)} layers"]
    for phase in ("prefill", "decode"):
        ratios = list(row.keep_ratios.get(phase, {}).values())
        ends = ratios if is_short else [min(ratios), max(ratios)] if ratios else []
        texts.append((", " if is_short else " – ").join(format_percent(ratio) for ratio in ends) or NOTHING)
    return texts


def failure_table(summary: Summary) -> Table | None:
    """Launches without numbers; None if there are none."""
    if not summary.failures:
        return None
    rows = tuple(
        Row(
            (
                one_line(failure.method),
                cell_label(summary.cell(failure.cell_id)),
                f"{failure.status} × {failure.count}" if failure.count > 1 else failure.status,
                one_line(failure.phase),
                format_bytes(failure.last_memory_bytes),
                one_line(failure.error or NOTHING),
            ),
            "failed",
        )
        for failure in summary.failures
    )
    headers = (("Method", False), ("Where", False), ("Status", False), ("Phase", False), ("Last memory", True))
    columns = (*(Column(header, is_numeric) for header, is_numeric in headers), Column("Error", is_numeric=False))
    return Table("Failures", columns, (Group("", rows),))


def expectation_table(document: Document) -> Table | None:
    """Expectations with ✓, ✗ or – (not checked), the value and the reason; None if the scenario has none."""
    if not document.outcomes:
        return None
    rows = []
    for outcome in document.outcomes:
        where = cell_label(document.summary.cell(outcome.cell_id)) if outcome.cell_id else NOTHING
        measured = NOTHING if outcome.measured is None else f"{outcome.measured:.4g}"
        mark, state = OUTCOMES[outcome.is_met]
        cells = (mark, one_line(outcome.text), where, measured, one_line(outcome.reason or NOTHING))
        rows.append(Row(cells, state))
    columns = (
        Column("Met", is_numeric=False),
        Column("Expectation", is_numeric=False),
        Column("Where", is_numeric=False),
        Column("Measured"),
        Column("Reason", is_numeric=False),
    )
    return Table("Expectations", columns, (Group("", tuple(rows)),))


def method_text(row: MethodRow) -> str:
    """The method's label; a wrong one says so."""
    return one_line(row.method) + (" (wrong)" if row.is_wrong else "")


def latency_text(spread: Spread | None) -> str:
    """Median over launches, and half the range as a share of it: `576 ms ±0.9%`."""
    if spread is None:
        return NOTHING
    text = format_seconds(spread.median)
    if spread.num_launches < 2 or spread.median == 0:
        return text
    half_range = (spread.high - spread.low) / 2 / spread.median
    return f"{text} ±{half_range:.1%}"


def speedup_text(row: MethodRow, name: str) -> str:
    """`1.78×`, with its exact interval from 8 pairs on: `1.78× [1.75, 1.81]`."""
    speedup = row.speedups.get(name)
    if speedup is None:
        return NOTHING
    text = format_factor(speedup.value)
    if speedup.interval is None:
        return text
    low, high = (format_factor(end).rstrip("×") for end in speedup.interval)
    return f"{text} [{low}, {high}]"


def verdict_of(row: MethodRow, name: str) -> Verdict | None:
    """The verdict on a speed-up; None where there are too few pairs, or the method is wrong."""
    speedup = row.speedups.get(name)
    if speedup is None or speedup.judgement is None or speedup.interval is None or row.is_wrong:
        return None
    return speedup.judgement.verdict


def verdict_text(row: MethodRow, name: str) -> str:
    """The verdict against the baseline in a word; `open` where another look could decide."""
    verdict = verdict_of(row, name)
    if verdict is None:
        return NOTHING
    return "open" if verdict is Verdict.UNDECIDED else verdict.value


def verdicts_text(row: MethodRow) -> str:
    """The verdicts of both phases: one word where they agree."""
    words = {phase: verdict_text(row, f"{phase}_speedup") for phase in ("prefill", "decode")}
    if len(set(words.values())) == 1:
        return words["prefill"]
    return ", ".join(f"{phase} {word}" for phase, word in words.items() if word != NOTHING)


def status_text(row: MethodRow) -> str:
    """How the launches ended: `oom × 2`."""
    counts = row.status_counts.items()
    return ", ".join(status if count == 1 else f"{status} × {count}" for status, count in counts)


def row_state(row: MethodRow) -> RowState:
    """How a row of measurements is drawn."""
    if row.has_failed:
        return "failed"
    if row.is_wrong:
        return "wrong"
    return "baseline" if row.is_baseline else "plain"


def _table(summary: Summary, title: str, fields: Sequence[_Field], is_detail: bool = False) -> Table:
    """A detail column that would be empty is left out."""
    measured = [row for cell in summary.cells for row in cell.rows if not row.has_failed]
    fields = [
        (column, text)
        for column, text in fields
        if not column.is_detail or any(text(row) != NOTHING for row in measured)
    ]
    groups = []
    for cell in summary.cells:
        rows = tuple(Row(_texts(row, fields), row_state(row), one_line(row.method)) for row in cell.rows)
        groups.append(Group(cell_label(cell), rows))
    return Table(title, tuple(column for column, _ in fields), tuple(groups), is_detail)


def _texts(row: MethodRow, fields: Sequence[_Field]) -> tuple[str, ...]:
    if not row.has_failed:
        return tuple(text(row) for _, text in fields)
    return (method_text(row), status_text(row), *[NOTHING] * (len(fields) - 2))


def _latency_fields(phase: str, metric: LatencyMetric, has_verdicts: bool) -> list[_Field]:
    name = f"{phase}_speedup"
    fields: list[_Field] = [
        _METHOD,
        (Column(metric.removesuffix("_s").upper()), lambda row: latency_text(row.latencies.get(metric))),
        (Column("Speed-up"), lambda row: speedup_text(row, name)),
    ]
    if has_verdicts:
        fields.append((Column("Verdict", is_numeric=False), lambda row: verdict_text(row, name)))
    fields += [
        (Column("Ideal (reached)"), lambda row: _ideal_text(row, phase)),
        (Column("Kept"), lambda row: _percent(row, f"keep_ratio_{phase}")),
        (Column("Saving", is_detail=True), lambda row: _percent(row, f"{phase}_saving_realised")),
        (Column("Device time", is_detail=True), lambda row: _seconds(row, metric.replace("_s", "_device_s"))),
        (Column("Rate", is_detail=True), lambda row: format_rate(row.values[f"{phase}_tokens_per_s"])),
    ]
    if phase == "decode":
        fields.append((Column("ITL p50 / p99", is_detail=True), _itl_text))
    fields.append((Column("min – max", is_detail=True), lambda row: range_text(row.latencies.get(metric))))
    return fields


def _end_to_end_fields() -> list[_Field]:
    return [
        _METHOD,
        (Column("Time"), lambda row: latency_text(row.latencies.get("end_to_end_s"))),
        (Column("Speed-up"), lambda row: speedup_text(row, "end_to_end_speedup")),
        (Column("min – max", is_detail=True), lambda row: range_text(row.latencies.get("end_to_end_s"))),
        (Column("Energy", is_detail=True), lambda row: _joules(row, "energy_j")),
        (Column("Above idle", is_detail=True), lambda row: _joules(row, "energy_above_idle_j")),
        (Column("Mean power", is_detail=True), _power_text),
        (Column("Launches", is_detail=True), lambda row: str(row.num_launches)),
    ]


def _memory_fields() -> list[_Field]:
    return [
        _METHOD,
        (Column("KV cache"), lambda row: _bytes(row, "kv_cache_bytes")),
        (Column("KV reduction"), lambda row: _factor(row, "kv_cache_reduction")),
        (Column("KV allocated"), lambda row: _bytes(row, "kv_cache_allocated_bytes")),
        (Column("Weights", is_detail=True), lambda row: _bytes(row, "weights_bytes")),
        (Column("Peak memory"), peak_text),
        (Column("Peak reduction"), lambda row: _factor(row, "peak_memory_reduction")),
        (Column("Peak RSS", is_detail=True), _rss_text),
        (Column("Reserved", is_detail=True), lambda row: _bytes(row, "peak_reserved_bytes")),
        (Column("Fragmented", is_detail=True), lambda row: _bytes(row, "fragmentation_bytes")),
        (Column("Device used", is_detail=True), lambda row: _bytes(row, "peak_device_used_bytes")),
        (Column("By process", is_detail=True), lambda row: _bytes(row, "peak_process_device_bytes")),
    ]


def _kv_cache_fields() -> list[_Field]:
    return [
        _METHOD,
        (Column("Formula"), lambda row: _bytes(row, "kv_cache_expected_bytes")),
        (Column("Occupied"), lambda row: _bytes(row, "kv_cache_bytes")),
        (Column("Allocated"), lambda row: _bytes(row, "kv_cache_allocated_bytes")),
        (Column("Allocator"), lambda row: _bytes(row, "kv_cache_allocator_bytes")),
        (Column("Reconciled", is_numeric=False), lambda row: "; ".join(differences(row.values)) or NOTHING),
    ]


def range_text(spread: Spread | None) -> str:
    """The smallest and the largest launch: `570 ms – 581 ms`."""
    return NOTHING if spread is None else f"{format_seconds(spread.low)} – {format_seconds(spread.high)}"


def _ideal_text(row: MethodRow, phase: str) -> str:
    ideal, share = row.values[f"{phase}_ideal_speedup"], row.values[f"{phase}_share_of_ideal"]
    if ideal is None:
        return NOTHING
    return format_factor(ideal) + ("" if share is None else f" ({format_percent(share)})")


def _itl_text(row: MethodRow) -> str:
    parts = []
    for percent in (50, 99):
        found = row.itl_percentiles[percent]
        parts.append(format_seconds(found.value) if found.value is not None else f"n/a ({found.reason})")
    return " / ".join(parts)


def peak_text(row: MethodRow) -> str:
    """The peak and its kind: `13.8 MiB tensors`."""
    name = row.peak_memory_metric
    return f"{format_bytes(row.values[name])} {PEAK_NAMES[name]}" if name else NOTHING


def _rss_text(row: MethodRow) -> str:
    """The resident set beside a peak of another kind."""
    return NOTHING if row.peak_memory_metric == "peak_rss_bytes" else _bytes(row, "peak_rss_bytes")


def _factor(row: MethodRow, name: str) -> str:
    value = row.values[name]
    return NOTHING if value is None else format_factor(value)


def _percent(row: MethodRow, name: str) -> str:
    value = row.values[name]
    return NOTHING if value is None else format_percent(value)


def _seconds(row: MethodRow, name: str) -> str:
    value = row.values[name]
    return NOTHING if value is None else format_seconds(value)


def _joules(row: MethodRow, name: str) -> str:
    value = row.values[name]
    return NOTHING if value is None else f"{value:.3g} J"


def _power_text(row: MethodRow) -> str:
    value = row.values["mean_power_w"]
    return NOTHING if value is None else f"{value:.0f} W"


def _bytes(row: MethodRow, name: str) -> str:
    value = row.values[name]
    return NOTHING if value is None else format_bytes(value)
