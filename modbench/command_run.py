"""`modbench run`: from a loaded scenario, or a run's folder, to printed and written results."""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from modbench.analysis import ExpectationOutcome, Footnote, break_down, evaluate_expectations, summarise
from modbench.analysis.doubts import passed_over
from modbench.analysis.quality import with_quality
from modbench.budget_runner import BudgetRunner
from modbench.errors import OptionError, RecordError
from modbench.foreground import INTERRUPTED, display, end_as_interrupt
from modbench.keep_map_record import load_keep_maps
from modbench.quality_record import load_quality
from modbench.record import RECORDS_FILE, load_records
from modbench.report.console import render_console
from modbench.report.document import Document
from modbench.report.write import PAGE_FILE, write_page, write_report
from modbench.run_folder import BUDGET_DOUBT, SCENARIO_FILE, RunFolder, open_run_folder, read_run_file
from modbench.runner import Runner, exit_code, refuse_entries, run_scenario
from modbench.scenario import LoadedScenario, parse_expectation
from modbench.search_runner import SearchRunner, search_exit_code
from modbench.trace_record import load_traces


@dataclass(frozen=True)
class RunOptions:
    """`modbench run` as typed, its scenario aside. `budget_s` begins to run with the command; `command` is what reproduces it."""

    output: Path | None
    is_resumed: bool
    allow_entry: bool
    is_quiet: bool
    command: str
    is_traced: bool = False
    is_mapped: bool = False
    budget_s: float | None = None
    is_detailed: bool = False


def run_command(loaded: LoadedScenario, options: RunOptions) -> int:
    """Measure, report, and return the exit code of `modbench run`."""
    _refuse_beside_search(loaded, options)
    if not options.allow_entry:
        refuse_entries(loaded)
    console = Console()
    make_runner: Callable[..., Runner] = SearchRunner if loaded.search else Runner
    if options.budget_s is not None:
        make_runner = partial(BudgetRunner, budget_s=options.budget_s, started_s=time.monotonic())
    folder = open_run_folder(loaded, options.output, options.is_resumed, options.command)
    end_as_interrupt()
    try:
        with display(console, options.is_quiet) as progress:
            records = run_scenario(
                loaded, folder, options.allow_entry, progress, options.is_traced, make_runner, options.is_mapped
            )
        document = make_document(folder.path)
        if not options.is_quiet:
            console.print()  # between what it did and what it found
        publish(folder.path, document, None if options.is_quiet else console, options.is_detailed)
    except KeyboardInterrupt:
        text = f"interrupted; {len(folder.records())} launches are on disk. Go on with: {_again(folder, options)}"
        Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
        return INTERRUPTED
    if BUDGET_DOUBT in read_run_file(folder.path):
        again = _again(folder, options)
        text = f"the budget is used up. Go on for as long again, or with another --budget or none, with: {again}"
        Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
    num_unmet = sum(outcome.is_met is False for outcome in document.outcomes)
    if loaded.search:
        return search_exit_code(document.summary.limits, num_unmet)
    return exit_code(records, num_unmet)


def _refuse_beside_search(loaded: LoadedScenario, options: RunOptions) -> None:
    refusals = {
        "--trace": (options.is_traced, "trace the limit it finds in a run of its own"),
        "--keep-map": (options.is_mapped, "map the limit it finds in a run of its own"),
        "--budget": (options.budget_s is not None, "leave --budget out, or search no size"),
    }
    for name, (is_given, remedy) in refusals.items():
        if is_given and loaded.search:
            raise OptionError(f"{name}: got a scenario with a search; expected sizes; {remedy}")


def _again(folder: RunFolder, options: RunOptions) -> str:
    """The command that goes on with the run."""
    again = options.command if options.is_resumed else f"{options.command} --resume"
    return again + ("" if options.output is not None else f" --output {shlex.quote(str(folder.path))}")


def make_document(folder: Path) -> Document:
    """Everything a report shows, from the files of a run's folder alone.

    Raises:
        RecordError: the records cannot be read.
        OutputError: it is not the folder of a run.
    """
    run = read_run_file(folder)
    file = load_records(folder)
    if file.num_skipped_lines and not file.records:
        raise RecordError(
            f"{file.path}: none of its {file.num_skipped_lines} lines is a record; restore it, or measure again"
        )
    traces, keep_maps, quality = load_traces(folder), load_keep_maps(folder), load_quality(folder)
    summary = with_quality(summarise(file.records, file.num_skipped_lines), quality.rows)
    damaged = {"the traces": traces.num_skipped_lines, "the keep maps": keep_maps.num_skipped_lines}
    damaged["the evaluations"] = quality.num_skipped_lines
    doubts = [str(run[BUDGET_DOUBT])] if BUDGET_DOUBT in run else []
    doubts += [passed_over(number, content) for content, number in damaged.items() if number]
    summary = replace(summary, footnotes=(*map(Footnote, doubts), *summary.footnotes))
    expectations = [parse_expectation(text, run["methods"]) for text in run["expect"]]
    outcomes: Sequence[ExpectationOutcome] = evaluate_expectations(expectations, summary, bool(run["overrides"]))
    return Document(
        summary,
        run["name"],
        run["question"],
        run["command"],
        outcomes,
        break_down(traces.rows),
        keep_maps.rows,
        scenario_text=_own_bytes(folder / SCENARIO_FILE).decode(errors="replace"),
        records=_own_bytes(folder / RECORDS_FILE),
    )


def _own_bytes(path: Path) -> bytes:
    """What a page may carry along: nothing where there is no such file, or a link, which could lead to a private one."""
    return path.read_bytes() if path.is_file() and not path.is_symlink() else b""


def publish(
    folder: Path, document: Document, console: Console | None, is_detailed: bool = False, page: Path | None = None
) -> None:
    """Write the report, or its page alone to `page`, and then print it (unless quiet); the last line is where it is."""
    if page is None:
        write_report(folder, document)
    else:
        write_page(page, document)
    if console is not None:
        render_console(document, console, is_detailed)
    Console().print(f"report: {page or folder / PAGE_FILE}", markup=False, highlight=False, soft_wrap=True)
