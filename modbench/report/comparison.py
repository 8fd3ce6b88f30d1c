"""A comparison of two sides as tables, notes and a verdict line, the same for every renderer; and on a terminal.

In: `ComparedSides`. Out: a `ComparisonView`, whose texts are one line each and not yet escaped for a format.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from modbench.analysis.comparison import ComparedSides, Comparison, Difference, Ground, Side
from modbench.analysis.rows import Footnote
from modbench.analysis.verdict import Verdict
from modbench.report.console import print_list, print_table
from modbench.report.document import MAX_LABELS, axes_label
from modbench.report.escaping import one_line
from modbench.report.tables import NOTHING, Column, Group, Row, RowState, Table
from modbench.units import (
    format_bytes,
    format_change,
    format_change_interval,
    format_count,
    format_percent,
    format_seconds,
)

REFUSED = (Verdict.NOT_COMPARABLE, Verdict.FAILED)
STATES: dict[Verdict | None, RowState] = {Verdict.SLOWER: "missed", Verdict.FASTER: "met", Verdict.FAILED: "failed"}
TITLES: dict[Ground, str] = {
    "pairs": "Measured side by side",
    "ratio_to_dense": "Time / dense time, inside each run",
    "exact": "Bytes, tokens and sizes",
    "advisory": "No verdict: absolute times, and peaks across machines",
}
METRIC_NAMES = {
    "ttft_s": "TTFT",
    "tpot_s": "TPOT",
    "kv_cache_bytes": "KV cache",
    "kv_cache_allocated_bytes": "KV allocated",
    "kv_cache_allocator_bytes": "KV allocator",
    "weights_bytes": "weights",
    "peak_live_bytes": "peak live",
    "peak_allocated_bytes": "peak allocated",
    "keep_ratio_prefill": "kept, prefill",
    "keep_ratio_decode": "kept, decode",
    "context_limit": "context that fits",
    "batch_limit": "batch that fits",
}
WORDS = (
    "slower",
    "more",
    "fits less",
    "faster",
    "less",
    "fits more",
    "same",
    "inconclusive",
    "not comparable",
    "failed",
)
MAX_DIFFERENCES = 12
SHORT_ID = 12
HASH_LENGTHS = (40, 64)  # of a revision, of a SHA-256
LEGEND = "Change: candidate / base, with its exact interval of at least 98.8 % coverage. ~: nothing was shown. [n]: a note below."


@dataclass(frozen=True)
class ComparisonView:
    """What a renderer prints, from top to bottom."""

    title: str
    sides: tuple[tuple[str, str], ...]
    differences: tuple[str, ...]
    tables: tuple[Table, ...]
    unchanged: str  # a sentence in place of rows
    notes: tuple[str, ...]  # numbered from 1
    doubts: tuple[str, ...]
    verdict: str


def comparison_view(compared: ComparedSides) -> ComparisonView:
    """Everything in the order of reading: what differed, the numbers, the notes to them, the verdict."""
    notes: dict[str, int] = {}
    num_unchanged = sum(_is_unchanged_count(line) for line in compared.comparisons)
    shown = [line for line in compared.comparisons if not _is_unchanged_count(line) and line.verdict not in REFUSED]
    refused = [line for line in compared.comparisons if line.verdict in REFUSED]
    tables = [
        _table(ground, [line for line in shown if line.ground == ground], compared, notes)
        for ground in TITLES
        if any(line.ground == ground for line in shown)
    ]
    tables += [_refused_table(refused, compared)] if refused else []
    return ComparisonView(
        title=f"{one_line(compared.candidate.label)} compared with {one_line(compared.base.label)}",
        sides=(("base", _side_text(compared.base)), ("candidate", _side_text(compared.candidate))),
        differences=tuple(_difference_texts(compared.differences)),
        tables=tuple(tables),
        unchanged=f"{num_unchanged} counts of bytes and tokens are the same on both sides." if num_unchanged else "",
        notes=tuple(notes),
        doubts=tuple(_footnote_text(note, compared) for note in compared.footnotes),
        verdict=verdict_line(compared),
    )


def verdict_line(compared: ComparedSides) -> str:
    """How many lines have which verdict, and the margin: the whole comparison in a sentence."""
    counts = count_words(compared)
    if not counts:
        return "Verdict: nothing could be judged."
    texts = [f"{count} {word}" for word, count in counts.items()]
    return f"Verdict at {margin_text(compared)}: {', '.join(texts)}."


def count_words(compared: ComparedSides) -> dict[str, int]:
    """Words of verdicts with how many lines have them, in the order in which they are told."""
    counts = Counter("inconclusive" if line.word == "~" else line.word for line in compared.judged)
    return {word: counts[word] for word in WORDS if counts[word]}


def render_comparison(compared: ComparedSides, console: Console) -> None:
    """Print it. Nothing in it is read as rich markup; colours follow the console (`NO_COLOR`)."""
    view = comparison_view(compared)
    console.print()
    console.print(Text(view.title, style="bold"))
    print_list("Sides", [(name, text, "plain") for name, text in view.sides], console)
    if view.differences:
        print_list("What differs", [("-", text, "plain") for text in view.differences], console)
    for table in view.tables:
        print_table(table, console)
    if view.tables or view.unchanged:
        console.print()
        console.print(Text(f"{view.unchanged} {LEGEND}".strip(), style="dim"))
    if view.notes:
        print_list("Notes", [(f"[{number}]", text, "plain") for number, text in enumerate(view.notes, 1)], console)
    if view.doubts:
        print_list("Doubts", [("-", text, "plain") for text in view.doubts], console)
    console.print()
    console.print(Text(view.verdict, style="bold"))


def metric_name(metric: str) -> str:
    """A metric as tables call it."""
    return METRIC_NAMES.get(metric, metric)


def _is_unchanged_count(line: Comparison) -> bool:
    return line.ground == "exact" and line.verdict is Verdict.SAME and not line.metric.endswith("_limit")


def _table(ground: Ground, lines: Sequence[Comparison], compared: ComparedSides, notes: dict[str, int]) -> Table:
    columns = (
        Column("Method", is_numeric=False),
        Column("Metric", is_numeric=False),
        Column("Base"),
        Column("Candidate"),
        Column("Change"),
        Column("Verdict", is_numeric=False),
    )
    groups = [
        Group(label, tuple(_row(line, notes) for line in members)) for label, members in _by_cell(lines, compared)
    ]
    return Table(TITLES[ground], columns, tuple(groups))


def _row(line: Comparison, notes: dict[str, int]) -> Row:
    texts = [_reason_text(line), *line.doubts]
    numbers = [notes.setdefault(one_line(text), len(notes) + 1) for text in texts if text]
    marks = f" [{', '.join(str(number) for number in sorted(set(numbers)))}]" if numbers else ""
    change = format_change(line.ratio) if line.ratio is not None else NOTHING
    if line.interval is not None:
        change += f" {format_change_interval(line.interval)}"
    cells = (one_line(line.method), metric_name(line.metric), *_value_texts(line), change, f"{line.word}{marks}")
    return Row(cells, STATES.get(line.verdict, "plain"), one_line(line.method))


def _refused_table(lines: Sequence[Comparison], compared: ComparedSides) -> Table:
    """A row for all metrics of a method that are refused for one reason."""
    columns = tuple(Column(header, is_numeric=False) for header in ("Method", "Metrics", "Verdict", "Why"))
    groups = []
    for label, members in _by_cell(lines, compared):
        merged: dict[tuple[str, str, str], list[str]] = {}
        for line in members:
            names = merged.setdefault((line.method, line.word, line.reason), [])
            names += [name for name in [metric_name(line.metric)] if name not in names]
        rows = [
            Row((one_line(method), _listed(names), word, one_line(reason)), "failed")
            for (method, word, reason), names in merged.items()
        ]
        groups.append(Group(label, tuple(rows)))
    return Table("Not compared", columns, tuple(groups))


def _by_cell(lines: Iterable[Comparison], compared: ComparedSides) -> list[tuple[str, list[Comparison]]]:
    """Label -> the lines of a cell, with the scenario's name where there are several."""
    has_several = len({line.scenario for line in compared.comparisons}) > 1
    cells: dict[str, list[Comparison]] = {}
    labels: dict[str, str] = {}
    for line in lines:
        name = f"{one_line(line.scenario)}: " if has_several and line.scenario else ""
        labels[line.cell_id] = name + axes_label(line.axes)
        cells.setdefault(line.cell_id, []).append(line)
    return [(labels[cell_id], members) for cell_id, members in cells.items()]


def _value_texts(line: Comparison) -> tuple[str, str]:
    base, candidate = (_value_text(line, value) for value in (line.base, line.candidate))
    if base == candidate and line.base != line.candidate and line.metric.endswith("_bytes"):
        base, candidate = (format_count(value) for value in (line.base or 0, line.candidate or 0))  # to the byte
    return base, candidate


def _value_text(line: Comparison, value: float | None) -> str:
    if value is None:
        return NOTHING
    if line.ground == "ratio_to_dense":
        return f"{value:.3f}"
    if line.metric.endswith("_s"):
        return format_seconds(value)
    if line.metric.endswith("_bytes"):
        return format_bytes(value)
    return format_count(value) if line.metric.endswith("_limit") else f"{value:.4f}"


def _reason_text(line: Comparison) -> str:
    """Why there is no clearer verdict, and what it would take."""
    if not line.pairs_needed:
        return line.reason
    each = " a side" if line.ground == "ratio_to_dense" else ""
    return f"{line.reason}; about {format_count(line.pairs_needed)} pairs{each} would decide"


def margin_text(compared: ComparedSides) -> str:
    """`a margin of 3.0 %`, or those of several metrics."""
    margins = compared.margins or {"": compared.tolerance}
    if len(set(margins.values())) == 1:
        return f"a margin of {format_percent(next(iter(margins.values())))}"
    return "margins of " + " and ".join(
        f"{format_percent(value)} ({metric_name(name)})" for name, value in margins.items()
    )


def _side_text(side: Side) -> str:
    facts = [f"{side.num_records} launches"]
    names = (("of", side.scenario_names), ("code", side.git_shas), ("machine", side.machines))
    facts += [f"{word} {_listed([short_text(text) for text in texts])}" for word, texts in names if texts]
    return f"{one_line(side.label)}: {', '.join(facts)}"


def short_text(text: str) -> str:
    """Revisions and digests as short as people write them, the mark of a changed tree kept."""
    name, plus, mark = text.partition("+")
    is_hash = len(name) in HASH_LENGTHS and all(char in "0123456789abcdef" for char in name)
    return one_line((name[:SHORT_ID] if is_hash else name) + plus + mark)


def _difference_texts(differences: Sequence[Difference]) -> list[str]:
    texts = [
        f"{found.key}: {_fact(found.key, found.base)} → {_fact(found.key, found.candidate)}"
        for found in differences[:MAX_DIFFERENCES]
    ]
    more = len(differences) - len(texts)
    return [one_line(text) for text in texts] + ([f"and {more} more (all of them with --format json)"] if more else [])


def _fact(key: str, value: object) -> str:
    if isinstance(value, list | tuple):
        return _listed([_fact(key, item) for item in value]) or "[]"
    if key.endswith("_bytes") and isinstance(value, int | float):
        return format_bytes(value)
    return NOTHING if value is None else one_line(short_text(str(value)), max_length=60)


def _footnote_text(note: Footnote, compared: ComparedSides) -> str:
    methods = ", ".join(one_line(method) for method in note.methods)
    labels = [axes_label(compared.cells[cell_id]) for cell_id in note.cell_ids if cell_id in compared.cells]
    cells = f" at {_listed(labels)}" if labels else ""
    return one_line(note.text) + (f" ({methods}{cells})" if methods else "")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MAX_LABELS
    return ", ".join(names[:MAX_LABELS]) + (f" and {more} more" if more > 0 else "")
