"""A run on one screen: a row per method with all that is compared, and lines about the rest.

In: a `Document`. Out: a table and texts, one line each and not yet escaped for a format.
What does not fit is left out, column by column, the least telling ones first; `report.md` and `--details` have all of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modbench.analysis.pairs import LatencyMetric
from modbench.analysis.rows import MethodRow, Summary
from modbench.report.answer import headline_cell, main_row
from modbench.report.document import Document, cell_label, machine_facts, setting_facts
from modbench.report.doubts import brief_doubt, weighty_doubts
from modbench.report.escaping import one_line
from modbench.report.tables import (
    NOTHING,
    Column,
    Group,
    Row,
    RowState,
    Table,
    expectation_table,
    failure_table,
    peak_text,
    range_text,
    row_state,
    verdict_text,
)
from modbench.units import format_bytes, format_count, format_factor, format_percent, format_seconds

MAX_LISTED = 3  # failures, unmet expectations, doubts: of each
WHERE_MORE = "report.md, or --details"
SHORT_VERDICTS = {"inconclusive": "inconcl."}  # beside the other phase's
FACT_WORDS = {"gpu": "{}", "gpu memory": "{}", "cpu": "{}", "cores": "cores: {}", "ram": "{} RAM", "torch": "torch {}"}
SETTING_WORDS = {"model": "{}", "dtype": "{}", "threads": "threads: {}"}


@dataclass(frozen=True)
class Line:
    """A mark, one line of text, and how it is drawn."""

    mark: str
    text: str
    state: RowState = "plain"


@dataclass(frozen=True)
class _Field:
    """A column, its text, and its rank: columns of the highest rank are the first to go where there is no room."""

    column: Column
    text: Callable[[MethodRow], str]
    rank: int = 0


def overview_table(summary: Summary, fits: Callable[[Table], bool]) -> Table | None:
    """The widest table that fits, with a group per cell and a row per method; None where only limits were searched for."""
    if not summary.cells:
        return None
    fields = _known_fields(summary)
    while not fits(table := _table(summary, fields)) and (rank := max(field.rank for field in fields)):
        fields = [field for field in fields if field.rank < rank]
    return table


def overview_legend(table: Table) -> str:
    """The columns that do not explain themselves."""
    headers = [column.header for column in table.columns]
    is_mixed = "Verdict" in headers and any(", " in row.cells[headers.index("Verdict")] for row in table.rows)
    texts = ["Speed up, Less KV: dense / method"]
    texts += ["of ideal: of what the kept tokens allow"] if "of ideal" in headers else []
    texts += ["Verdict: prefill, decode"] if is_mixed else []
    return "; ".join(texts) + "."


def machine_line(document: Document) -> str:
    """What it ran on, and what ran, as far as that is the same everywhere."""
    machine = dict(machine_facts(document.summary))
    settings = dict(setting_facts(document.summary))
    groups = [
        ", ".join(text.format(facts[key]) for key, text in words.items() if key in facts)
        for facts, words in ((machine, FACT_WORDS), (settings, SETTING_WORDS))
    ]
    return " · ".join(group for group in groups if group)


def own_cost_line(document: Document) -> str:
    """What the main method adds to the traced phases at the headline cell, as shares of them; nothing where untraced."""
    cell, row = headline_cell(document.summary), main_row(document.summary)
    if cell is None or row is None or document.breakdowns is None:
        return ""
    traced = {
        found.phase: found.own_cost_share
        for found in document.breakdowns.phases
        if (found.cell_id, found.method) == (cell.cell_id, row.method)
    }
    names = {"prefill": "prefill", "decode": "a decode step"}
    shares = {name: share for phase, name in names.items() if (share := traced.get(phase)) is not None}
    texts = [f"{format_percent(share)} of {name}" for name, share in shares.items()]
    return f"Own cost of {one_line(row.method)}: {', '.join(texts)} (traced)." if texts else ""


def overview_lines(document: Document) -> list[Line]:
    """Failures, expectations and doubts: those that matter in a line each, and how many more there are."""
    summary = document.summary
    failures, expectations = failure_table(summary), expectation_table(document)
    outcomes = expectations.rows if expectations else ()
    lost = [Line("✗", _failure_text(row), "failed") for row in (failures.rows if failures else ())]
    missed = [Line("✗", _outcome_text(row), "missed") for row in outcomes if row.state == "missed"]
    doubts = [Line("!", brief_doubt(note, summary)) for note in weighty_doubts(summary)][:MAX_LISTED]
    num_untraced = len(document.breakdowns.failures) if document.breakdowns is not None else 0
    untraced = [Line("!", f"launches that could not be traced: {num_untraced} ({WHERE_MORE})")] if num_untraced else []
    lines = [*_first(lost, "failure{s}"), *_first(missed, "expectation{s} not met"), *doubts, *untraced]
    counts = _expectation_counts(outcomes)
    num_folded = len(summary.footnotes) - len(doubts)
    if num_folded:
        more = f" more doubt{'s' * (num_folded != 1)}" if doubts else f" doubt{'s' * (num_folded != 1)}"
        counts.append(f"{num_folded}{more}: {WHERE_MORE}")
    if counts:
        is_met = bool(outcomes) and all(row.state == "met" for row in outcomes)
        lines.append(Line("✓" if is_met else "·", "; ".join(counts), "met" if is_met else "plain"))
    return lines


def _first(lines: Sequence[Line], what: str) -> list[Line]:
    """As many as are listed, and a line about the rest: of `what`, with `{s}` where its plural has an s."""
    num_more = len(lines) - MAX_LISTED
    words = what.format(s="s" * (num_more != 1))
    rest = [Line("·", f"{num_more} more {words}: {WHERE_MORE}")] if num_more > 0 else []
    return [*lines[:MAX_LISTED], *rest]


def _expectation_counts(outcomes: Sequence[Row]) -> list[str]:
    num_met = sum(row.state == "met" for row in outcomes)
    num_unchecked = sum(row.state == "plain" for row in outcomes)
    texts = [f"{num_met} of {len(outcomes)} expectations met"] if outcomes else []
    return texts + ([f"{num_unchecked} not checked"] if num_unchecked else [])


def _failure_text(row: Row) -> str:
    method, where, status, phase, _, error = row.cells
    return f"{method}, {where}: {status} in {phase}: {error}"


def _outcome_text(row: Row) -> str:
    _, text, where, measured, reason = row.cells
    place = "" if where == NOTHING else f" · {where}"
    return f"{text}{place}: {reason if measured == NOTHING else measured}"


def _known_fields(summary: Summary) -> list[_Field]:
    """The columns of which something is known."""
    rows = [row for cell in summary.cells for row in cell.rows if not row.has_failed]
    fields = [
        _Field(Column("Method", is_numeric=False), lambda row: one_line(row.method)),
        *_phase_fields("prefill", "ttft_s"),
        *_phase_fields("decode", "tpot_s"),
        _field("KV cache", "kv_cache_bytes", format_bytes, 3),
        _field("Less KV", "kv_cache_reduction", format_factor, 0, is_joined=True),
        _Field(Column("Peak memory"), peak_text, 5),
        _field("Less peak", "peak_memory_reduction", format_factor, 5, is_joined=True),
        _field("Kept", "keep_ratio_prefill", format_percent, 2),
        _field("Bits/ byte", "bits_per_byte", "{:.3f}".format, 1),
        _field("to dense", "bits_per_byte_ratio", "{:.3f}×".format, 1, is_joined=True),
        _Field(Column("Verdict", is_numeric=False), _verdicts_text),
    ]
    known = [field for field in fields if not rows or any(field.text(row) != NOTHING for row in rows)]
    return known if len(known) > 1 else fields[:2]  # there is room for how a row ended


def _phase_fields(phase: str, metric: LatencyMetric) -> list[_Field]:
    speedup = f"{phase}_speedup"
    return [
        _field(metric.removesuffix("_s").upper(), metric, format_seconds, 0),
        _Field(Column("min – max"), lambda row: range_text(row.latencies.get(metric)), 7),
        _field("tok/s", f"{phase}_tokens_per_s", format_count, 6),
        _field("Speed up", speedup, format_factor, 0, is_joined=True),
        _Field(Column("Interval", is_joined=True), lambda row: _interval_text(row, speedup), 4),
        _field("of ideal", f"{phase}_share_of_ideal", format_percent, 1, is_joined=True),
    ]


def _field(header: str, name: str, text: Callable[[float], str], rank: int, is_joined: bool = False) -> _Field:
    def cell(row: MethodRow) -> str:
        value = row.values[name]
        return NOTHING if value is None else text(value)

    return _Field(Column(header, is_joined=is_joined), cell, rank)


def _interval_text(row: MethodRow, name: str) -> str:
    """Of a speed-up, from 8 pairs on: `[1.75, 1.81]`."""
    found = row.speedups.get(name)
    if found is None or found.interval is None:
        return NOTHING
    return f"[{', '.join(format_factor(end).rstrip('×') for end in found.interval)}]"


def _verdicts_text(row: MethodRow) -> str:
    """`faster` at both phases, or `faster, open`: prefill, decode."""
    if row.is_wrong:
        return "wrong"
    words = [verdict_text(row, f"{phase}_speedup") for phase in ("prefill", "decode")]
    return words[0] if len(set(words)) == 1 else ", ".join(SHORT_VERDICTS.get(word, word) for word in words)


def _table(summary: Summary, fields: Sequence[_Field]) -> Table:
    groups = tuple(
        Group(cell_label(cell), tuple(Row(_texts(row, fields), row_state(row)) for row in cell.rows))
        for cell in summary.cells
    )
    return Table("", tuple(field.column for field in fields), groups)


def _texts(row: MethodRow, fields: Sequence[_Field]) -> tuple[str, ...]:
    if not row.has_failed:
        return tuple(field.text(row) for field in fields)
    statuses = list(row.status_counts)
    ended = statuses[0] + (", …" if len(statuses) > 1 else "")
    return (one_line(row.method), ended, *[NOTHING] * len(fields))[: len(fields)]
