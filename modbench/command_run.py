"""`modbench run`: from a loaded scenario, or a run's folder, to printed and written results."""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from modbench.analysis import ExpectationOutcome, Footnote, break_down, evaluate_expectations, summarise
from modbench.budget_runner import BudgetRunner
from modbench.errors import OptionError
from modbench.foreground import INTERRUPTED, display, end_as_interrupt
from modbench.keep_map_record import load_keep_maps
from modbench.record import RECORDS_FILE, load_records
from modbench.report.console import render_console
from modbench.report.document import Document
from modbench.report.write import write_page, write_report
from modbench.run_folder import BUDGET_DOUBT, SCENARIO_FILE, RunFolder, open_run_folder, read_run_file
from modbench.runner import Runner, exit_code, refuse_entries, run_scenario
from modbench.scenario import LoadedScenario, parse_expectation
from modbench.search_runner import SearchRunner, search_exit_code
from modbench.trace_record import load_traces


def run_command(
    loaded: LoadedScenario,
    output: Path | None,
    is_resumed: bool,
    allow_entry: bool,
    is_quiet: bool,
    command: str,
    is_traced: bool = False,
    budget_s: float | None = None,
    is_mapped: bool = False,
) -> int:
    """Measure, report, and return the exit code of `modbench run`; a `budget_s` begins to run now."""
    if is_traced and loaded.search:
        raise OptionError(
            "--trace: got a scenario with a search; expected sizes; trace the limit it finds in a run of its own"
        )
    if is_mapped and loaded.search:
        raise OptionError(
            "--keep-map: got a scenario with a search; expected sizes; map the limit it finds in a run of its own"
        )
    if budget_s is not None and loaded.search:
        raise OptionError(
            "--budget: got a scenario with a search; expected sizes; leave --budget out, or search no size"
        )
    if not allow_entry:
        refuse_entries(loaded)
    console = Console()
    make_runner: Callable[..., Runner] = SearchRunner if loaded.search else Runner
    if budget_s is not None:
        make_runner = partial(BudgetRunner, budget_s=budget_s, started_s=time.monotonic())
    folder = open_run_folder(loaded, output, is_resumed, command)
    end_as_interrupt()
    try:
        with display(console, is_quiet) as progress:
            records = run_scenario(loaded, folder, allow_entry, progress, is_traced, make_runner, is_mapped)
        document = make_document(folder.path)
        publish(folder.path, document, None if is_quiet else console)
    except KeyboardInterrupt:
        again = _again(folder, command, is_resumed, output)
        text = f"interrupted; {len(folder.records())} launches are on disk. Go on with: {again}"
        Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
        return INTERRUPTED
    if BUDGET_DOUBT in read_run_file(folder.path):
        again = _again(folder, command, is_resumed, output)
        text = f"the budget is used up. Go on for as long again, or with another --budget or none, with: {again}"
        Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
    num_unmet = sum(outcome.is_met is False for outcome in document.outcomes)
    if loaded.search:
        return search_exit_code(document.summary.limits, num_unmet)
    return exit_code(records, num_unmet)


def _again(folder: RunFolder, command: str, is_resumed: bool, output: Path | None) -> str:
    """The command that goes on with the run."""
    again = command if is_resumed else f"{command} --resume"
    return again + ("" if output is not None else f" --output {shlex.quote(str(folder.path))}")


def make_document(folder: Path) -> Document:
    """Everything a report shows, from the files of a run's folder alone.

    Raises:
        RecordError: the records cannot be read.
        OutputError: it is not the folder of a run.
    """
    run = read_run_file(folder)
    file = load_records(folder)
    summary = summarise(file.records, file.num_skipped_lines)
    if BUDGET_DOUBT in run:
        summary = replace(summary, footnotes=(Footnote(str(run[BUDGET_DOUBT])), *summary.footnotes))
    expectations = [parse_expectation(text, run["methods"]) for text in run["expect"]]
    outcomes: Sequence[ExpectationOutcome] = evaluate_expectations(expectations, summary, bool(run["overrides"]))
    return Document(
        summary,
        run["name"],
        run["question"],
        run["command"],
        outcomes,
        break_down(load_traces(folder)),
        load_keep_maps(folder),
        scenario_text=_scenario_text(folder),
        records=(folder / RECORDS_FILE).read_bytes(),
    )


def _scenario_text(folder: Path) -> str:
    """The scenario as it was given; nothing where its file is not there."""
    path = folder / SCENARIO_FILE
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def publish(folder: Path, document: Document, console: Console | None, page: Path | None = None) -> None:
    """Print (unless quiet) and write the report, or its page alone to `page`; the last line is where it is."""
    if console is not None:
        render_console(document, console)
    if page is None:
        write_report(folder, document)
    else:
        write_page(page, document)
    Console().print(f"report: {page or folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
