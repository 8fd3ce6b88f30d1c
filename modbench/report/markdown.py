"""A document as `report.md`: GitHub tables, the details folded, everything from outside escaped."""

from collections.abc import Sequence

from modbench.report.answer import answers, opening_verdict
from modbench.report.breakdown import breakdown_legend, breakdown_tables
from modbench.report.document import Document, environment_rows, footnote_text, machine_facts, setting_facts
from modbench.report.escaping import escape_markdown, one_line
from modbench.report.github_markdown import folded
from modbench.report.legend import legend
from modbench.report.limits import limit_legend, limit_tables
from modbench.report.quality import quality_legend, quality_tables
from modbench.report.tables import Table, expectation_table, failure_table, keep_ratio_table, measurement_tables


def render_markdown(document: Document, plots: Sequence[tuple[str, str]] = ()) -> str:
    """The report as Markdown text.

    Args:
        document: what to print.
        plots: (relative path, caption) of image files beside the report.
    """
    summary = document.summary
    parts = [f"# {escape_markdown(document.title)}"]
    parts += [escape_markdown(sentence, max_length=1000) for sentence in answers(summary)]
    verdict = opening_verdict(summary)
    parts += [f"**{escape_markdown(verdict.text)}.**"] if verdict is not None else []
    parts += [_facts("Setting", setting_facts(summary)), _facts("Machine", machine_facts(summary))]
    for table in [*limit_tables(summary), *measurement_tables(summary), *quality_tables(summary)]:
        parts.append(_folded_section(table) if table.is_detail else section(table))
    keep_ratios = keep_ratio_table(summary)
    if keep_ratios is not None:
        parts.append(_folded_section(keep_ratios))
    parts += [section(table) for table in breakdown_tables(document)]
    words = [*limit_legend(summary), *legend(summary), *quality_legend(summary), *breakdown_legend(document)]
    if words:
        parts.append("## Legend\n\n" + "\n".join(f"- {escape_markdown(text)}" for text in words))
    parts += [f"![{escape_markdown(caption)}]({path})" for path, caption in plots]
    failures, expectations = failure_table(summary), expectation_table(document)
    if failures is not None:
        parts.append(section(failures))
    if summary.footnotes:
        doubts = [escape_markdown(footnote_text(note, summary)) for note in summary.footnotes]
        parts.append("## Doubts\n\n" + "\n".join(f"- {text}" for text in doubts))
    if expectations is not None:
        parts.append(section(expectations))
    parts.append(_environment(document))
    if document.command:
        parts.append(f"## Reproduce\n\n{_code_block(document.command)}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(title: str, facts: Sequence[tuple[str, str]]) -> str:
    if not facts:
        return ""
    return f"**{title}:** " + " · ".join(f"{escape_markdown(key)} {escape_markdown(text)}" for key, text in facts)


def section(table: Table) -> str:
    """A table under its title."""
    return f"## {escape_markdown(table.title)}\n\n" + "\n\n".join(_tables(table))


def _folded_section(table: Table) -> str:
    return folded(escape_markdown(table.title), "\n\n".join(_tables(table)))


def _tables(table: Table) -> list[str]:
    """One GitHub table per group: GitHub has no row that spans columns."""
    header = "| " + " | ".join(escape_markdown(column.header) for column in table.columns) + " |"
    rule = "|" + "|".join(" ---: " if column.is_numeric else " :--- " for column in table.columns) + "|"
    texts = []
    for group in table.groups:
        lines = [f"### {escape_markdown(group.label)}", ""] if group.label else []
        lines += [header, rule]
        for row in group.rows:
            cells = [escape_markdown(text) for text in row.cells]
            if row.state == "wrong":
                cells = [f"<sub>{text}</sub>" for text in cells]
            elif row.state == "predicted":
                cells = [f"*{text}*" for text in cells]
            lines.append("| " + " | ".join(cells) + " |")
        texts.append("\n".join(lines))
    return texts


def _environment(document: Document) -> str:
    rows = environment_rows(document.summary)
    if not rows:
        return ""
    lines = ["| Key | Value |", "| :--- | :--- |"]
    lines += [f"| {escape_markdown(key)} | {escape_markdown(value)} |" for key, value in rows]
    return folded("Environment", "\n".join(lines))


def _code_block(text: str) -> str:
    """Indented code: no fence that the text could close."""
    return "    " + one_line(text, max_length=2000)
