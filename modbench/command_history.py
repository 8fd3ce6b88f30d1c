"""`modbench report --history`: saved runs -> how metrics went over commits, from record files alone.

In: run folders, record files, or globs of them. Out: a table or JSON, and a page with plots and a CSV.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from modbench.analysis.history import HistoryRun, build_history, summarise_run
from modbench.errors import OptionError, RecordError
from modbench.record import RECORDS_FILE, load_records
from modbench.report.history import history_facts, print_history, write_history
from modbench.run_folder import DEFAULT_ROOT, noted_start

DEFAULT_PAGE = DEFAULT_ROOT / "history.html"


def history_command(sources: Sequence[Path], metrics: Sequence[str], output: Path | None, is_json: bool) -> None:
    """Print the history, and write it to `output` and beside it; runs that cannot be read are named and left out.

    Raises:
        OptionError: nothing is named that way, a metric is unknown, or the output is no .html.
        RecordError: no run can be read.
        OutputError: the page cannot be written.
    """
    page = output or DEFAULT_PAGE
    if page.suffix != ".html":
        raise OptionError(f"-o: got {page}; expected the name of a page, such as history.html")
    runs, unread = read_runs(expand(sources))
    if not runs:
        raise RecordError(unread[0] if unread else "--history: no runs")
    history = build_history(runs, metrics)
    history = replace(history, doubts=(*history.doubts, *(f"left out: {text}" for text in unread)))
    write_history(page, history)
    if is_json:
        sys.stdout.write(json.dumps(history_facts(history), indent=2) + "\n")
        return
    print_history(history, Console())
    Console().print(f"history: {page}", markup=False, highlight=False, soft_wrap=True)


def expand(sources: Sequence[Path]) -> list[Path]:
    """Every source once, globs as the files and folders that they match, in name order.

    Raises:
        OptionError: nothing is there, or nothing matches.
    """
    found: dict[Path, Path] = {}
    for source in sources:
        matches = [source] if source.exists() else _matching(source)
        if not matches:
            raise OptionError(
                f"RUN: got {source}: nothing is there; expected run folders, record files or globs of them"
            )
        for match in matches:
            found.setdefault(match.resolve(), match)
    return list(found.values())


def _matching(pattern: Path) -> list[Path]:
    return sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))


def read_runs(paths: Sequence[Path]) -> tuple[list[HistoryRun], list[str]]:
    """The runs of these folders and files, and why others could not be read."""
    runs, unread = [], []
    for path in paths:
        folder = path if path.is_dir() else path.parent
        name = folder.resolve().name if path.is_dir() or path.name == RECORDS_FILE else path.stem
        try:
            runs.append(summarise_run(name, load_records(path), noted_start(folder)))
        except RecordError as error:
            unread.append(str(error))
    return runs, unread
