"""A history as text: tables for the console and the page, a flat CSV, and a self-contained page with its plots.

In: a `History`. Out: printed tables, and `NAME.html`, `NAME.csv` and `NAME-METRIC.svg|png` beside each other.
"""

import csv
import io
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from modbench.analysis.history import History, HistoryPoint, HistoryRun, Setup
from modbench.errors import OutputError
from modbench.output_files import write_files
from modbench.report.console import print_table
from modbench.report.document import cell_label
from modbench.report.escaping import one_line
from modbench.report.history_plots import draw_history, setup_name, value_text
from modbench.report.html import inline_svg, render_page
from modbench.report.plots import Plot
from modbench.report.table_csv import cell_text
from modbench.report.tables import NOTHING, Column, Group, Row, RowState, Table
from modbench.scenario import METRICS

MAX_CONSOLE_ROWS = 20  # of a series; the newest
COLUMNS = (
    Column("Commit", is_numeric=False),
    Column("Started", is_numeric=False),
    Column("Value"),
    Column("Interval, or why no value", is_numeric=False),
    Column("Setup", is_numeric=False),
    Column("Run", is_numeric=False, is_detail=True),
)
CSV_COLUMNS = (
    *("metric", "method", "cell", "cell_id", "point_id", "run", "started", "git_sha", "git_is_dirty"),
    *("setup", "machine", "value", "low", "high", "gap"),
)
LEGEND = (
    "Intervals are exact, from 8 pairs on; * marks a tree with changes; times are UTC.",
    "Points of one setup (machine and library versions) and the same work are joined; nothing is judged between runs.",
)


def history_title(history: History) -> str:
    """How much there is."""
    commits = {run.git_sha for run in history.runs if run.git_sha}
    return f"History of {_count(len(history.runs), 'run')} and {_count(len(commits), 'commit')}"


def commit_text(run: HistoryRun) -> str:
    """The first 9 digits, marked where the tree was changed."""
    return (one_line(run.git_sha)[:9] if run.git_sha else NOTHING) + ("*" if run.is_dirty else "")


def started_text(run: HistoryRun) -> str:
    """`2026-11-24 11:49`."""
    return one_line(run.started)[:16].replace("T", " ") if run.started else NOTHING


def series_labels(history: History) -> list[str]:
    """`threshold · context 1,024`, with its work's id where two series of a metric would have the same name."""
    names = [f"{one_line(found.method)} · {cell_label(found.cell)}" for found in history.series]
    counts = Counter((found.metric, name) for found, name in zip(history.series, names, strict=True))
    return [
        name if counts[found.metric, name] == 1 else f"{name} · work {one_line(found.point_id)[:8]}"
        for found, name in zip(history.series, names, strict=True)
    ]


def history_tables(history: History, max_rows: int | None = None) -> list[Table]:
    """A table per metric, a group per series, a row per run, the newest last; `max_rows` of each series."""
    groups: dict[str, list[Group]] = {}
    for found, label in zip(history.series, series_labels(history), strict=True):
        points = found.points if max_rows is None else found.points[-max_rows:]
        num_cut = len(found.points) - len(points)
        label += f" ({num_cut} earlier runs in the CSV)" if num_cut else ""
        rows = tuple(_row(history, found.metric, point) for point in points)
        groups.setdefault(found.metric, []).append(Group(label, rows))
    return [
        Table(f"{metric}: {METRICS[metric].description}", COLUMNS, tuple(members)) for metric, members in groups.items()
    ]


def setup_lines(history: History) -> list[str]:
    """`A: Example CPU (machine 0123…), torch 2.11.0`, one per setup."""
    return [f"{setup_name(index)}: {_setup_text(setup)}" for index, setup in enumerate(history.setups)]


def print_history(history: History, console: Console) -> None:
    """Print the tables; nothing in them is read as rich markup."""
    console.print()
    console.print(Text(history_title(history), style="bold"))
    for table in history_tables(history, MAX_CONSOLE_ROWS):
        print_table(table, console)
    console.print()
    console.print(Text(" ".join(LEGEND), style="dim"))
    doubts = [one_line(text) for text in history.doubts]
    for title, texts in (("Setups", setup_lines(history)), ("Doubts", doubts)):
        if texts:
            console.print()
            console.print(Text(title, style="bold"))
            for text in texts:
                console.print(Text(f"- {text}"))


def history_facts(history: History) -> dict[str, Any]:
    """The same for machines: runs, setups and series in base units, null where unknown."""
    runs = []
    for run, setup in zip(history.runs, history.setup_of, strict=True):
        facts = {"name": run.name, "started": run.started, "git_sha": run.git_sha, "git_is_dirty": run.is_dirty}
        runs.append({**facts, "run_ids": run.run_ids, "setup": setup})
    series = []
    for found, label in zip(history.series, series_labels(history), strict=True):
        ids = {"cell_id": found.cell.cell_id, "point_id": found.point_id, "axes": found.cell.axes}
        points = [asdict(point) for point in found.points]
        series.append({"label": label, "metric": found.metric, "method": found.method, **ids, "points": points})
    setups = [asdict(setup) for setup in history.setups]
    return {"runs": runs, "setups": setups, "series": series, "doubts": history.doubts}


def render_history_csv(history: History) -> str:
    """A row per point, in base units, empty where unknown."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for found in history.series:
        for point in found.points:
            run, setup = history.runs[point.run], history.setups[history.setup_of[point.run]]
            low, high = point.interval or (None, None)
            names = (found.method, cell_label(found.cell), found.cell.cell_id, found.point_id, run.name)
            facts = (run.started or "", run.git_sha or "", str(run.is_dirty).lower())
            where = (setup_name(history.setup_of[point.run]), setup.fingerprint or "")
            texts = [cell_text(value) for value in (*names, *facts, *where)]
            writer.writerow([found.metric, *texts, point.value, low, high, cell_text(point.gap)])
    return text.getvalue()


def render_history_html(history: History, plots: list[Plot]) -> str:
    """The page: SVGs go in as they are (this package drew them), all other text is escaped."""
    content: dict[str, Any] = {
        "title": history_title(history),
        "plots": [{"name": plot.name, "caption": plot.caption, "svg": inline_svg(plot)} for plot in plots],
        "tables": history_tables(history),
        "legend": LEGEND,
        "setups": setup_lines(history),
        "doubts": [one_line(text) for text in history.doubts],
    }
    return render_page("history.html.j2", content)


def write_history(path: Path, history: History) -> list[Path]:
    """Write the page to `path`, and CSV and plots beside it; returns their paths.

    Raises:
        OutputError: they cannot be written.
    """
    plots = draw_history(history)
    stem = path.with_suffix("").name
    files = {
        path.name: render_history_html(history, plots).encode(),
        f"{stem}.csv": render_history_csv(history).encode(),
    }
    for plot in plots:
        files[f"{stem}-{plot.name}.svg"] = plot.standalone_svg.encode()
        files[f"{stem}-{plot.name}.png"] = plot.png
    try:
        return write_files(path.parent, files)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}; choose another file with -o") from error


def _row(history: History, metric: str, point: HistoryPoint) -> Row:
    run, setup = history.runs[point.run], setup_name(history.setup_of[point.run])
    value, remark, state = NOTHING, one_line(point.gap), _gap_state(point)
    if point.value is not None:
        value, remark = value_text(metric, point.value), NOTHING
    if point.interval is not None:
        remark = f"[{', '.join(value_text(metric, end).rstrip('×') for end in point.interval)}]"
    return Row((commit_text(run), started_text(run), value, remark, setup, one_line(run.name)), state)


def _gap_state(point: HistoryPoint) -> RowState:
    if not point.gap:
        return "plain"
    return "wrong" if point.gap.startswith("wrong") else "failed"


def _setup_text(setup: Setup) -> str:
    versions = [f"{name} {version}" for name, version in setup.versions.items() if version is not None]
    machine = f"{setup.machine or 'unknown machine'} ({setup.fingerprint or 'no fingerprint'})"
    return one_line(", ".join([machine, *versions]))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
