"""Markdown for comments on GitHub, within their limit: escaped text, tables and folded parts. In: texts. Out: Markdown.

Whatever comes from outside renders as itself: no markup, link, mention, reference or emoji.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from modbench.report.escaping import escape_markdown, one_line

MARKER = "<!-- modbench -->"  # the first line of a gate's comment, by which a bot finds and replaces it
RUN_MARKER = "<!-- modbench run -->"  # of a run's comment
MAX_BYTES = 65_000  # GitHub takes 65,536 characters, of which UTF-8 never has more than bytes
MAX_CELL = 80
MAX_COMMAND_BYTES = 2_000
LEFT_OUT_BYTES = 100  # of the line that says how many rows are left out


def text(value: Any, max_length: int = MAX_CELL) -> str:
    """Escaped; GitHub looks for mentions, references and emoji after rendering, so that a zero-width space must part them too."""
    escaped = escape_markdown(value, max_length)
    escaped = escaped.replace("&#64;", "&#64;&#8203;").replace("\\#", "\\#&#8203;")
    escaped = re.sub(r":(?=[\w+\\-]+:)", ":&#8203;", escaped)
    return re.sub(r"(?i)\bgh-(?=\d)", "GH-&#8203;", escaped)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    num_rows: int,
    room: int,
    numeric: Collection[str] = (),
    elsewhere: str = "the job's log",
    max_cell: int = MAX_CELL,
) -> str:
    """A table of as many rows as fit into so many bytes, and a line that says how many did not; "" without rows.

    Args:
        columns: headers.
        rows: texts, from outside as well.
        num_rows: how many there are.
        room: bytes for the table.
        numeric: the columns that are set to the right.
        elsewhere: what has the rows that are left out.
        max_cell: characters of a cell.
    """
    if not num_rows:
        return ""
    lines = ["| " + " | ".join(text(column) for column in columns) + " |"]
    lines.append("|" + "|".join(" ---: " if column in numeric else " :--- " for column in columns) + "|")
    size = sum(len(line.encode()) + 1 for line in lines)
    for index, row in enumerate(rows):
        line = "| " + " | ".join(text(cell, max_cell) for cell in row) + " |"
        size += len(line.encode()) + 1
        if size > room - LEFT_OUT_BYTES:
            left_out = f"{num_rows - index} of {num_rows} rows are left out here; {elsewhere} has them."
            return "\n".join([*lines, "", left_out]) if index else left_out
        lines.append(line)
    return "\n".join(lines)


def folded(title: str, content: str, is_open: bool = False) -> str:
    """A part that folds and unfolds on a click; "" without content."""
    state = " open" if is_open else ""
    return f"<details{state}><summary>{title}</summary>\n\n{content}\n\n</details>" if content else ""


def code(command: str, max_length: int) -> str:
    """Indented code: no fence that the command could close; "" without a command."""
    line = one_line(command, max_length).encode()[:MAX_COMMAND_BYTES].decode(errors="ignore")
    return f"    {line}" if line else ""
