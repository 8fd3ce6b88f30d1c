"""Comparisons as files and for programs: GitHub Markdown, CSV and JSON.

In: `ComparedSides`. Out: text, or plain data for JSON. **JSON:** `{schema_version, compared}` with the fields of `ComparedSides`,
`Side`, `Comparison`, `Difference` and `Footnote` under their names, in base units, null where unknown. **CSV:** one line per
comparison, in the columns of `COLUMNS`.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from modbench.analysis.comparison import ComparedSides, Comparison
from modbench.report.comparison import LEGEND, comparison_view
from modbench.report.escaping import escape_markdown
from modbench.report.markdown import section
from modbench.report.table_csv import cell_text

JSON_SCHEMA_VERSION = 1
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
    """Every comparison as a chapter of GitHub Markdown, everything from outside escaped."""
    return "\n\n".join(_chapter(one) for one in compared) + "\n"


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


def _chapter(compared: ComparedSides) -> str:
    view = comparison_view(compared)
    parts = [f"# {escape_markdown(view.title)}"]
    parts.append("\n".join(f"- **{name}** {escape_markdown(text)}" for name, text in view.sides))
    parts += [_list("What differs", view.differences)]
    parts += [section(table) for table in view.tables]
    parts += [escape_markdown(view.unchanged), escape_markdown(LEGEND) if view.tables else ""]
    parts += [_list("Notes", view.notes, "{}."), _list("Doubts", view.doubts)]
    parts += [f"**{escape_markdown(view.verdict)}**"]
    return "\n\n".join(part for part in parts if part)


def _list(title: str, texts: Sequence[str], mark: str = "-") -> str:
    if not texts:
        return ""
    lines = [f"{mark.format(number)} {escape_markdown(text)}" for number, text in enumerate(texts, 1)]
    return f"## {title}\n\n" + "\n".join(lines)


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
