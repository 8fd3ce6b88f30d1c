"""`modbench compare`, and `modbench report` of several runs: from the sides as typed to a printed comparison, or a page of it.

Reaches no torch, measures nothing.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

from modbench.analysis.compare import SideRecords, compare_all
from modbench.analysis.comparison import ComparedSides, gate_exit_code
from modbench.analysis.verdict import DEFAULT_TOLERANCE
from modbench.cli_options import ComparisonFormat
from modbench.errors import OptionError
from modbench.output_files import put_text
from modbench.report.comparison import render_comparison
from modbench.report.comparison_formats import comparison_csv, comparison_json, comparison_markdown
from modbench.run_folder import DEFAULT_ROOT, noted_start
from modbench.side_files import load_side

FILE_COLUMNS = 80
DEFAULT_PAGE = DEFAULT_ROOT / "comparison.html"


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
        output: a file to write instead of printing; a page is always written, also to any *.html.
        inconclusive: what an inconclusive comparison counts as.
        margins: δ per latency metric where it is not the tolerance, as shares.

    Raises:
        RecordError: a side cannot be read, or has a latency that is no time.
        OutputError: the file cannot be written.
    """
    sides = [load_side(name) for name in (base, *candidates)]
    compared = compare_all(sides[0], sides[1:], tolerance, margins, metrics)
    if format is ComparisonFormat.HTML or (output is not None and output.suffix == ".html"):
        _write_page(sides, compared, output)
    else:
        publish(compared, format, output)
    verdicts = [line.verdict for one in compared for line in one.judged if line.verdict is not None]
    return gate_exit_code(verdicts, inconclusive)


def comparison_report(runs: Sequence[str], format: ComparisonFormat, output: Path | None) -> None:
    """Compare the first of several saved runs with each of the others: on the console with a page beside it, or in one format.

    Args:
        runs: two or more, the base first; each a run's folder, a records file, or a glob of these.
        format: CONSOLE prints and writes the page, HTML writes it, the others print or write what `compare` does.
        output: the file; None: stdout, and for the page `reports/comparison.html`.

    Raises:
        OptionError: there is one run, or a page is to have another name than *.html.
        RecordError: a side cannot be read, or has a latency that is no time.
        OutputError: the file cannot be written.
    """
    if len(runs) < 2:
        raise OptionError(
            f"report: got {len(runs)} run; expected two or more, the first is what the others are compared with"
        )
    has_page = format in (ComparisonFormat.CONSOLE, ComparisonFormat.HTML)
    if has_page and output is not None and output.suffix != ".html":
        raise OptionError(f"--output: got {output}; expected the name of a page, such as comparison.html")
    sides = [load_side(name) for name in runs]
    compared = compare_all(sides[0], sides[1:], DEFAULT_TOLERANCE)
    if format is not ComparisonFormat.HTML:
        publish(compared, format, None if has_page else output)
    if has_page:
        _write_page(sides, compared, output)


def _write_page(sides: Sequence[SideRecords], compared: Sequence[ComparedSides], output: Path | None) -> None:
    """Write the page and print where it is."""
    from modbench.report.comparison_page import write_comparison_page

    page = output or DEFAULT_PAGE
    starts = {side.label: noted_start(_folder(Path(side.label))) for side in sides}
    write_comparison_page(page, sides[0], sides[1:], compared, starts)
    Console().print(f"comparison: {page}", markup=False, highlight=False, soft_wrap=True)


def _folder(run: Path) -> Path:
    return run if run.is_dir() else run.parent


def publish(compared: Sequence[ComparedSides], format: ComparisonFormat, output: Path | None) -> None:
    """Print the comparisons, or write them into a file.

    Raises:
        OutputError: the file cannot be written.
    """
    if output is None and format is ComparisonFormat.CONSOLE:
        _render(compared, Console())
    else:
        put_text(_text(compared, format), output)


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
