"""One run as Markdown for a pull request: what it asked, found and doubts in plain sight, the rest folded.

In: a `Document`. Out: text that fits a comment and can be found by its first line. Whatever comes from outside renders as itself.
Rows that do not fit are counted; those with failures, unmet expectations and the answer's numbers are kept first.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from modbench.analysis.rows import CellSummary, MethodRow, failure_text
from modbench.report.answer import answers, headline_cell, opening_verdict
from modbench.report.breakdown import breakdown_legend, breakdown_tables
from modbench.report.document import (
    Document,
    cell_label,
    environment_rows,
    footnote_text,
    machine_facts,
    setting_facts,
)
from modbench.report.doubts import weighty_doubts
from modbench.report.escaping import MAX_LENGTH
from modbench.report.github_markdown import LEFT_OUT_BYTES, MAX_BYTES, RUN_MARKER, code, folded, table, text
from modbench.report.legend import legend
from modbench.report.limits import limit_legend, limit_tables
from modbench.report.quality import quality_legend, quality_tables
from modbench.report.tables import (
    NOTHING,
    Column,
    Group,
    Row,
    Table,
    expectation_table,
    failure_table,
    keep_ratio_table,
    latency_text,
    measurement_tables,
    method_text,
    speedup_text,
    status_text,
    verdicts_text,
)
from modbench.units import format_factor, format_percent

ELSEWHERE = "report.md"
UNBOUNDED = 2**31
MAX_ANSWER, MAX_FACTS, MAX_COMMAND = 600, 400, 2_000  # characters
MAX_ANSWERS_BYTES, MAX_TABLE_BYTES, MAX_PROBLEMS_BYTES, MAX_ENVIRONMENT_BYTES = 10_000, 5_000, 6_000, 6_000
JOINING_BYTES = 1_000  # what joins the parts, and says what is left out
COLUMNS = (
    Column("Method", is_numeric=False),
    Column("TTFT"),
    Column("Prefill speed-up"),
    Column("TPOT"),
    Column("Decode speed-up"),
    Column("KV reduction"),
    Column("Kept"),
    Column("Verdict", is_numeric=False),
)


def render_run_comment(document: Document) -> str:
    """The comment, below GitHub's limit whatever the size of the run."""
    summary = document.summary
    overview, is_whole = _overview(document)
    plain = [RUN_MARKER, _heading(document), f"**{text(document.title, MAX_LENGTH)}**", *_answers(document)]
    verdict = opening_verdict(summary)
    plain += [f"**{text(verdict.text, MAX_ANSWER)}.**" if verdict else "", _facts(document)]
    plain += [_titled(found.title, _plain(found.compact(), MAX_TABLE_BYTES)) for found in limit_tables(summary)]
    plain += [_plain(overview, MAX_TABLE_BYTES, f"{overview.title}, below,"), *_problems(document)]
    tail = [_environment(document), _reproduction(document)]
    room = MAX_BYTES - JOINING_BYTES - len("\n\n".join([*plain, *tail]).encode())
    details = _details(document, [] if is_whole else [overview], room)
    return "\n\n".join(part for part in [*plain, *details, *tail] if part) + "\n"


def _heading(document: Document) -> str:
    """A symbol and the reasons for it, as counts."""
    rows = [row for cell in document.summary.all_cells for row in cell.rows]
    met = [outcome.is_met for outcome in document.outcomes if outcome.is_met is not None]
    bad = [
        _count(sum(failure.count for failure in document.summary.failures), "launch failed", "launches failed"),
        _count(sum(row.is_wrong for row in rows), "row is wrong", "rows are wrong"),
        _count(met.count(False), "expectation not met", "expectations not met"),
        "" if rows else "nothing was measured",
    ]
    good = _count(len(met), "expectation met", "expectations met") or "measured"
    name = f" {text(document.name)}" if document.name else ""
    said = ", ".join(part for part in bad if part)
    return f"### {'❌' if said else '✅'} modbench{name}: {said or good}"


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}" if number else ""


def _answers(document: Document) -> list[str]:
    """The first sentence, and as many of the others as fit."""
    first, *others = (text(sentence, MAX_ANSWER) for sentence in answers(document.summary))
    parts, room = [first], MAX_ANSWERS_BYTES - len(first.encode())
    for index, sentence in enumerate(others):
        room -= len(sentence.encode())
        if room < 0:
            left_out = _count(len(others) - index, "more sentence is", "more sentences are")
            return [*parts, f"{left_out} left out here; {ELSEWHERE} has them."]
        parts.append(sentence)
    return parts


def _facts(document: Document) -> str:
    facts = [*setting_facts(document.summary), *machine_facts(document.summary)]
    return text(" · ".join(f"{key} {value}" for key, value in facts), MAX_FACTS)


def _overview(document: Document) -> tuple[Table, bool]:
    """A row per cell and method, and whether all of them fit: in the run's order then, else the most important cells first."""
    cells = document.summary.cells
    overview = _overview_table(cells)
    if len(_plain(overview, UNBOUNDED).encode()) < MAX_TABLE_BYTES - LEFT_OUT_BYTES:
        return overview, True
    bad = {failure.cell_id for failure in document.summary.failures}
    bad |= {outcome.cell_id for outcome in document.outcomes if outcome.is_met is False and outcome.cell_id}
    bad |= {cell.cell_id for cell in cells if any(row.is_wrong for row in cell.rows)}
    headline = headline_cell(document.summary)
    first = sorted(cells, key=lambda cell: (cell is not headline, cell.cell_id not in bad))
    return _overview_table(first), False


def _overview_table(cells: Iterable[CellSummary]) -> Table:
    groups = tuple(Group(cell_label(cell), tuple(Row(_texts(row)) for row in cell.rows)) for cell in cells)
    return Table("All points", COLUMNS, groups)


def _texts(row: MethodRow) -> tuple[str, ...]:
    if row.has_failed:
        return (method_text(row), *[NOTHING] * (len(COLUMNS) - 2), status_text(row))
    return (
        method_text(row),
        latency_text(row.latencies.get("ttft_s")),
        speedup_text(row, "prefill_speedup"),
        latency_text(row.latencies.get("tpot_s")),
        speedup_text(row, "decode_speedup"),
        _known(row.values["kv_cache_reduction"], format_factor),
        _known(row.values["keep_ratio_prefill"], format_percent),
        _verdict_text(row),
    )


def _known(value: float | None, words: Callable[[float], str]) -> str:
    return NOTHING if value is None else words(value)


def _verdict_text(row: MethodRow) -> str:
    """Of both phases; of a wrong row what is wrong."""
    if row.is_wrong:
        return "wrong: " + ", ".join(failure_text(name) for name in row.failed_identities)
    return verdicts_text(row)


def _problems(document: Document) -> list[str]:
    """Failures, unmet expectations and doubts, of which the routine ones are the first to be left out."""
    unmet = [outcome for outcome in document.outcomes if outcome.is_met is False]
    weighty = weighty_doubts(document.summary)
    notes = [*weighty, *(note for note in document.summary.footnotes if note not in weighty)]
    doubts = _sentences("Doubts", [footnote_text(note, document.summary) for note in notes])
    failures, expectations = failure_table(document.summary), expectation_table(replace(document, outcomes=unmet))
    found = [("Failures", failures), ("Expectations not met", expectations), ("", doubts)]
    return [_titled(title, _plain(part, MAX_PROBLEMS_BYTES)) for title, part in found if part is not None]


def _details(document: Document, more: Sequence[Table], room: int) -> list[str]:
    """The full tables, each folded; those of which no row fits are named."""
    summary = document.summary
    words = [*limit_legend(summary), *legend(summary), *quality_legend(summary), *breakdown_legend(document)]
    tables = [
        *limit_tables(summary),
        *more,
        *measurement_tables(summary),
        *quality_tables(summary),
        keep_ratio_table(summary),
    ]
    tables += [*breakdown_tables(document), expectation_table(document), _sentences("How to read this", words)]
    parts, left_out = [], []
    for found in tables:
        content = _plain(found, room) if found is not None else ""
        if found is not None and content.startswith("|"):
            parts.append(folded(found.title, content))
            room -= len(parts[-1].encode()) + 2
        elif found is not None and content:
            left_out.append(found.title)
    named = f"Left out here: {', '.join(left_out)}; {ELSEWHERE} has them." if left_out else ""
    return [*parts, named]


def _sentences(title: str, sentences: Iterable[str]) -> Table:
    """One column: in a cell no text from outside begins a list or a heading."""
    return Table(
        title, (Column(title, is_numeric=False),), (Group("", tuple(Row((sentence,)) for sentence in sentences)),)
    )


def _titled(title: str, content: str) -> str:
    return f"**{title}**\n\n{content}" if title and content else content


def _environment(document: Document) -> str:
    rows = environment_rows(document.summary)
    content = table(("Key", "Value"), rows, len(rows), MAX_ENVIRONMENT_BYTES, (), ELSEWHERE, MAX_LENGTH)
    return folded("Environment", content)


def _reproduction(document: Document) -> str:
    return folded("Reproduce", code(document.command, MAX_COMMAND))


def _plain(found: Table, room: int, elsewhere: str = ELSEWHERE) -> str:
    """A table in one piece: groups become a column, for a comment has no room for a heading each."""
    has_labels = any(group.label for group in found.groups)
    columns = [*(["Where"] if has_labels else []), *(column.header for column in found.columns)]
    numeric = {column.header for column in found.columns if column.is_numeric}
    rows = [((group.label,) if has_labels else ()) + row.cells for group in found.groups for row in group.rows]
    return table(columns, rows, len(rows), room, numeric, elsewhere, MAX_LENGTH)
