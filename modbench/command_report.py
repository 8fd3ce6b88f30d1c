"""`modbench report`: the folder of a run, or of many, to what was asked for: a page, or text on stdout or in a file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from modbench.cli_options import ComparisonFormat, ReportFormat
from modbench.command_compare import comparison_report
from modbench.command_export import export_command
from modbench.command_history import history_command
from modbench.command_run import make_document, publish
from modbench.command_scoreboard import scoreboard_command
from modbench.errors import OptionError
from modbench.output_files import put_text
from modbench.report.document import Document
from modbench.report.report_json import render_json
from modbench.report.run_comment import render_run_comment
from modbench.report.table_csv import render_csv
from modbench.report.write import PAGE_FILE, write_report

TEXTS: dict[ReportFormat, Callable[[Document], str]] = {
    ReportFormat.MARKDOWN: render_run_comment,
    ReportFormat.CSV: lambda document: render_csv(document.summary),
    ReportFormat.JSON: render_json,
}


@dataclass(frozen=True)
class ReportOptions:
    """`modbench report` as typed: what to read, and what to make of it."""

    runs: Sequence[Path]
    format: ReportFormat
    has_history: bool = False
    is_scoreboard: bool = False
    scenarios: Path | None = None  # of the scoreboard, as `device` is
    device: str | None = None
    metrics: Sequence[str] = ()
    output: Path | None = None
    is_detailed: bool = False


def report_command(options: ReportOptions) -> None:
    """Print a finished or interrupted run anew, or write it to `output`; console and JSON renew its report files as well.

    Several runs are compared with the first; with a history or a scoreboard they are its sources.

    Raises:
        OptionError: options that do not go together.
        RecordError: the records cannot be read.
        OutputError: it is not the folder of a run, or something cannot be written.
    """
    format, output = options.format, options.output
    if options.is_scoreboard or options.scenarios or options.device:
        _refuse_beside_scoreboard(options)
        scoreboard_command(options.runs, options.scenarios, options.device, format)
        return
    if not options.runs:
        expected = (
            "run folders, record files or globs of them" if options.has_history else "a run's folder, or --scoreboard"
        )
        raise OptionError(f"report: got no RUN; expected {expected}")
    if options.has_history:
        if format not in (ReportFormat.CONSOLE, ReportFormat.JSON):
            raise OptionError(f"--format: got {format.value} with --history; expected console or json")
        history_command(options.runs, options.metrics, output, is_json=format is ReportFormat.JSON)
        return
    if options.metrics:
        raise OptionError("--metric: got it without --history; expected both, or neither")
    if len(options.runs) > 1:
        if format is ReportFormat.PYTEST_BENCHMARK:
            raise OptionError("--format: got pytest-benchmark for several runs; expected one run's folder")
        comparison_report([str(run) for run in options.runs], ComparisonFormat(format.value), output)
        return
    _report_run(options)


def _report_run(options: ReportOptions) -> None:
    folder, format, output = options.runs[0], options.format, options.output
    if format is ReportFormat.PYTEST_BENCHMARK:
        export_command(folder, output)
        return
    if format is ReportFormat.CONSOLE and output is not None and output.suffix != ".html":
        raise OptionError(
            f"--output: got {output} with --format console; expected a page, such as report.html, or a --format"
        )
    document = make_document(folder)
    if format is ReportFormat.HTML:
        publish(folder, document, None, page=output or folder / PAGE_FILE)
        return
    if format is ReportFormat.CONSOLE:
        publish(folder, document, Console(), options.is_detailed, output)
        return
    if format is ReportFormat.JSON:
        write_report(folder, document)
    put_text(TEXTS[format](document), output)


def _refuse_beside_scoreboard(options: ReportOptions) -> None:
    """A scoreboard's options are nothing without it, and others would silently do nothing beside it."""
    if not options.is_scoreboard:
        name = "--scenarios" if options.scenarios else "--device"
        raise OptionError(f"{name}: got it without --scoreboard; expected both, or neither")
    given = {"history": options.has_history, "metric": options.metrics, "output": options.output}
    for name, value in given.items():
        if value:
            raise OptionError(f"--{name}: got it with --scoreboard, which prints claims; leave one of them out")
