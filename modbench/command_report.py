"""`modbench report`: the folder of a run, or of many, to what was asked for: a page, or text on stdout or in a file."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from modbench.cli_options import ReportFormat
from modbench.command_export import export_command
from modbench.command_history import history_command
from modbench.command_run import make_document, publish
from modbench.errors import OptionError
from modbench.report.document import Document
from modbench.report.report_json import render_json
from modbench.report.run_comment import render_run_comment
from modbench.report.table_csv import render_csv
from modbench.report.write import put_text, write_report

TEXTS: dict[ReportFormat, Callable[[Document], str]] = {
    ReportFormat.MARKDOWN: render_run_comment,
    ReportFormat.CSV: lambda document: render_csv(document.summary),
    ReportFormat.JSON: render_json,
}


def report_command(
    runs: Sequence[Path], format: ReportFormat, has_history: bool, metrics: Sequence[str], output: Path | None
) -> None:
    """Print a finished or interrupted run anew, or write it to `output`; console and JSON renew its report files as well.

    Raises:
        OptionError: options that do not go together.
        RecordError: the records cannot be read.
        OutputError: it is not the folder of a run, or something cannot be written.
    """
    if has_history:
        if format not in (ReportFormat.CONSOLE, ReportFormat.JSON):
            raise OptionError(f"--format: got {format.value} with --history; expected console or json")
        history_command(runs, metrics, output, is_json=format is ReportFormat.JSON)
        return
    if len(runs) > 1 or metrics:
        raise OptionError("report: got several runs, or --metric; expected one run's folder; add --history")
    folder = runs[0]
    if format is ReportFormat.PYTEST_BENCHMARK:
        export_command(folder, output)
        return
    if format is ReportFormat.CONSOLE and output is not None:
        others = ", ".join(other.value for other in ReportFormat if other is not format)
        raise OptionError(f"--output: got it with --format console; expected --history, or --format {others}")
    document = make_document(folder)
    if format is ReportFormat.CONSOLE:
        publish(folder, document, Console())
        return
    if format is ReportFormat.JSON:
        write_report(folder, document)
    put_text(TEXTS[format](document), output)
