"""Comparisons as files and for programs: GitHub Markdown, CSV and JSON.

In: `ComparedSides`. Out: text, or plain data for JSON. **JSON:** `{schema_version, compared}` with the fields of `ComparedSides`,
`Side`, `Comparison`, `Difference` and `Footnote` under their names, in base units, null where unknown. **CSV:** one line per
comparison, in the columns of `COLUMNS`.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from modbench.analysis.comparison import ComparedSides, Comparison
from modbench.report.comparison import LEGEND, TITLES, comparison_view
from modbench.report.escaping import escape_markdown
from modbench.report.github_markdown import MAX_BYTES, folded
from modbench.report.markdown import section
from modbench.report.table_csv import cell_text
from modbench.report.tables import Table

JSON_SCHEMA_VERSION = 1
ROOM_OF_TITLES = 1_500  # bytes of a chapter: titles of tables, and the lines that say what is left out
MAX_LISTED = 24  # notes, and doubts
COLUMNS = (
    "base_label",
    "candidate_label",
    "scenario",
    "cell_id",
    "axes",
    "method",
    "metric",
    "ground",
    "verdict",
    "base",
    "candidate",
    "ratio",
    "interval_low",
    "interval_high",
    "num_values_base",
    "num_values_candidate",
    "reason",
    "pairs_needed",
    "doubts",
)


def comparison_markdown(compared: Sequence[ComparedSides]) -> str:
    """Every comparison as a chapter of GitHub Markdown, together small enough for a comment, everything from outside escaped."""
    room = MAX_BYTES // max(len(compared), 1)
    return "\n\n".join(_chapter(one, room) for one in compared) + "\n"


def comparison_json(compared: Sequence[ComparedSides]) -> dict[str, Any]:
    """All fields of all comparisons as plain data."""
    return {"schema_version": JSON_SCHEMA_VERSION, "compared": [asdict(one) for one in compared]}


def comparison_csv(compared: Sequence[ComparedSides]) -> str:
    """One line per comparison, numbers in full precision, empty where unknown."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for one in compared:
        labels = {"base_label": cell_text(one.base.label), "candidate_label": cell_text(one.candidate.label)}
        writer.writerows({**labels, **_columns(line)} for line in one.comparisons)
    return file.getvalue()


def _chapter(compared: ComparedSides, room: int) -> str:
    """What differed, tables as far as they have room, notes and the verdict; what has no verdict is folded."""
    view = comparison_view(compared)
    starts = [f"# {escape_markdown(view.title)}"]
    starts += ["\n".join(f"- **{name}** {escape_markdown(text)}" for name, text in view.sides)]
    starts += [folded("What differs", _list(view.differences), is_open=True)]
    ends = [escape_markdown(view.unchanged), escape_markdown(LEGEND) if view.tables else ""]
    ends += [_titled("Notes", _list(view.notes, "{}.")), _titled("Doubts", _list(view.doubts))]
    ends += [f"**{escape_markdown(view.verdict)}**"]
    room -= sum(len(part.encode()) for part in (*starts, *ends)) + ROOM_OF_TITLES
    tables = []
    for table in view.tables:
        text = _fitting(table, room)
        room -= len(text.encode())
        tables.append(folded(table.title, text) if table.title == TITLES["advisory"] else _titled(table.title, text))
    return "\n\n".join(part for part in (*starts, *tables, *ends) if part)


def _fitting(table: Table, room: int) -> str:
    """The table's groups as far as they have room, and how many rows are left out."""
    texts: list[str] = []
    for index, group in enumerate(table.groups):
        text = section(replace(table, groups=(group,))).removeprefix(section(replace(table, groups=())))
        room -= len(text.encode()) + len("\n\n")
        if room < 0:
            num_left_out = sum(len(group.rows) for group in table.groups[index:])
            rows = f"{num_left_out} of {len(table.rows)} rows are"
            return "\n\n".join([*texts, f"{rows} left out here for want of room; `--format csv` has all."])
        texts.append(text)
    return "\n\n".join(texts)


def _titled(title: str, text: str) -> str:
    return f"## {escape_markdown(title)}\n\n{text}" if text else ""


def _list(texts: Sequence[str], mark: str = "-") -> str:
    lines = [f"{mark.format(number)} {escape_markdown(text)}" for number, text in enumerate(texts[:MAX_LISTED], 1)]
    more = len(texts) - MAX_LISTED
    return "\n".join([*lines, *(["", f"and {more} more; `--format json` has all."] if more > 0 else [])])


def _columns(line: Comparison) -> dict[str, Any]:
    low, high = line.interval or (None, None)
    texts = {
        "scenario": line.scenario,
        "cell_id": line.cell_id,
        "axes": json.dumps(dict(line.axes), sort_keys=True, default=str),
        "method": line.method,
        "metric": line.metric,
        "ground": line.ground,
        "verdict": line.verdict.value if line.verdict else "",
        "reason": line.reason,
        "doubts": "; ".join(line.doubts),
    }
    numbers = {
        "base": line.base,
        "candidate": line.candidate,
        "ratio": line.ratio,
        "interval_low": low,
        "interval_high": high,
        "num_values_base": line.num_values[0],
        "num_values_candidate": line.num_values[1],
        "pairs_needed": line.pairs_needed,
    }
    return {name: cell_text(text) for name, text in texts.items()} | numbers
