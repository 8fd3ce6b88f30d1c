"""Writes a document into a folder: `report.md`, `report.html`, `report.json`, `summary.csv`, and `plots/` as SVG and PNG."""

from pathlib import Path

from modbench.errors import OutputError
from modbench.output_files import write_files
from modbench.report.breakdown import draw_breakdowns
from modbench.report.document import Document
from modbench.report.html import render_html
from modbench.report.markdown import render_markdown
from modbench.report.plots import draw_plots
from modbench.report.report_json import render_json
from modbench.report.table_csv import render_csv

PLOTS_FOLDER = "plots"
PAGE_FILE = "report.html"


def write_page(path: Path, document: Document) -> None:
    """Write the page to a file of any name, in one step: a reader finds the old page or the new one.

    Raises:
        OutputError: the file cannot be written.
    """
    page = render_html(document, draw_plots(document.summary) + draw_breakdowns(document))
    try:
        write_files(path.parent, {path.name: page.encode()})
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}; choose another file with -o") from error


def write_report(folder: Path, document: Document) -> list[Path]:
    """Write the report files, replacing those of an earlier report; returns their paths.

    Raises:
        OutputError: the folder cannot be written, or its `plots` is a link.
    """
    plots = draw_plots(document.summary) + draw_breakdowns(document)
    links = [(f"{PLOTS_FOLDER}/{plot.name}.svg", plot.caption) for plot in plots]
    files = {
        "report.md": render_markdown(document, links).encode(),
        PAGE_FILE: render_html(document, plots).encode(),
        "report.json": render_json(document).encode(),
        "summary.csv": render_csv(document.summary).encode(),
    }
    for plot in plots:
        files[f"{PLOTS_FOLDER}/{plot.name}.svg"] = plot.standalone_svg.encode()
        files[f"{PLOTS_FOLDER}/{plot.name}.png"] = plot.png
    try:
        return write_files(folder, files)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot write the report: {error.strerror}; name a folder that can be written"
        ) from error
