"""`modbench compare`: from the sides as typed to a printed comparison. Reaches no torch, measures nothing."""

import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

from modbench.analysis.compare import compare_all
from modbench.analysis.comparison import ComparedSides, gate_exit_code
from modbench.cli_options import ComparisonFormat
from modbench.errors import OutputError
from modbench.report.comparison import render_comparison
from modbench.report.comparison_formats import comparison_csv, comparison_json, comparison_markdown
from modbench.side_files import load_side

FILE_COLUMNS = 80


def compare_command(
    base: str,
    candidates: Sequence[str],
    tolerance: float,
    metrics: Sequence[str] | None,
    format: ComparisonFormat,
    output: Path | None,
    inconclusive: Literal["pass", "fail"] | None,
    margins: Mapping[str, float] | None = None,
) -> int:
    """Compare, print or write, and return the exit code of a gate for all that was judged.

    Args:
        base, candidates: each a run's folder, a records file, or a glob of these.
        tolerance: what counts as the same speed, as a share.
        metrics: what is compared; None for everything.
        format: how it is printed.
        output: a file to write instead of printing.
        inconclusive: what an inconclusive comparison counts as.
        margins: δ per latency metric where it is not the tolerance, as shares.

    Raises:
        RecordError: a side cannot be read, or has a latency that is no time.
        OutputError: the file cannot be written.
    """
    compared = compare_all(load_side(base), [load_side(name) for name in candidates], tolerance, margins, metrics)
    publish(compared, format, output)
    verdicts = [line.verdict for one in compared for line in one.judged if line.verdict is not None]
    return gate_exit_code(verdicts, inconclusive)


def publish(compared: Sequence[ComparedSides], format: ComparisonFormat, output: Path | None) -> None:
    """Print the comparisons, or write them into a file.

    Raises:
        OutputError: the file cannot be written.
    """
    if output is None and format is ComparisonFormat.CONSOLE:
        _render(compared, Console())
        return
    text = _text(compared, format)
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror}; name another file with --output") from error


def _text(compared: Sequence[ComparedSides], format: ComparisonFormat) -> str:
    if format is ComparisonFormat.MARKDOWN:
        return comparison_markdown(compared)
    if format is ComparisonFormat.CSV:
        return comparison_csv(compared)
    if format is ComparisonFormat.JSON:
        return json.dumps(comparison_json(compared), indent=2, allow_nan=False) + "\n"
    file = io.StringIO()
    _render(compared, Console(file=file, width=FILE_COLUMNS, color_system=None))
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def _render(compared: Sequence[ComparedSides], console: Console) -> None:
    for one in compared:
        render_comparison(one, console)
