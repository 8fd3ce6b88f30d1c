"""A document as one self-contained HTML page: no network, light and dark, everything escaped, complete without scripts.

Charts, sorting and filtering are this package's own scripts, which the page's policy names by their hashes.
"""

import gzip
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from modbench.report.answer import answers, figures, figures_title, opening_verdict
from modbench.report.breakdown import breakdown_legend, breakdown_tables
from modbench.report.document import Document, environment_rows, footnote_text, machine_facts, setting_facts
from modbench.report.escaping import one_line
from modbench.report.interactive import (
    chart_library,
    chart_licences,
    content_security_policy,
    data_url,
    page_script,
    script_json,
)
from modbench.report.keep_maps import keep_map_section
from modbench.report.legend import legend
from modbench.report.limits import limit_legend, limit_tables
from modbench.report.plots import Plot
from modbench.report.points_table import points_table
from modbench.report.quality import quality_legend, quality_tables
from modbench.report.swatches import swatches
from modbench.report.tables import Table, expectation_table, failure_table, keep_ratio_table, measurement_tables
from modbench.units import format_bytes

MAX_PAGE_BYTES = 2_000_000  # what mail and pull requests take without complaint
MAX_OPEN_ROWS = 12  # of a table of measurements; longer ones are folded
LEFT_OUT: tuple[Collection[str], ...] = (  # for a page that would be too large: tried in turn
    (),
    ("records",),
    ("tables",),
    ("records", "tables"),
    ("records", "tables", "charts"),
)


def render_html(document: Document, plots: Sequence[Plot] = ()) -> str:
    """The page as text. SVGs of `plots` go in as they are (this package drew them); all other text is escaped.

    A page over `MAX_PAGE_BYTES` leaves out its records, tables of measurements or charts, and says so. One that is over it
    without them, of far more than 500 points, stays as large as it is.
    """
    content = {**_opening(document), **_results(document, plots), **_sources(document)}
    specs = {plot.name: plot.spec for plot in plots if plot.spec is not None}
    page = ""
    for left_out in LEFT_OUT:
        charts = {} if "charts" in left_out else specs
        page = render_page("report.html.j2", {**content, "left_out": left_out}, charts)
        if len(page.encode()) <= MAX_PAGE_BYTES:
            break
    return page


def _opening(document: Document) -> dict[str, Any]:
    summary = document.summary
    sentences, settings = answers(summary), setting_facts(summary)
    return {
        "title": document.title,
        "name": one_line(document.name),
        "answer": sentences[0],
        "more_answers": sentences[1:],
        "verdict": opening_verdict(summary),
        "figures": figures(summary),
        "figures_title": figures_title(summary),
        "settings": settings,
        "machine": [fact for fact in machine_facts(summary) if fact not in settings],
        "num_unmet": sum(outcome.is_met is False for outcome in document.outcomes),
        "num_failures": sum(failure.count for failure in summary.failures),
    }


def _results(document: Document, plots: Sequence[Plot]) -> dict[str, Any]:
    summary = document.summary
    keep_ratios = keep_ratio_table(summary)
    drawn = swatches(row.method for cell in summary.all_cells for row in cell.rows)
    measured = [*limit_tables(summary), *measurement_tables(summary), *([keep_ratios] if keep_ratios else [])]
    return {
        "swatches": drawn,
        "symbol_ids": {swatch.method: swatch.symbol_id for swatch in drawn},
        "plots": [_plot_content(plot) for plot in plots],
        "points": points_table(summary),
        "tables": [
            _fold(table) for table in (*quality_tables(summary), *measured, *breakdown_tables(document)) if table.rows
        ],
        "legend": [*limit_legend(summary), *legend(summary), *quality_legend(summary), *breakdown_legend(document)],
        "keep_maps": keep_map_section(document),
        "failures": failure_table(summary),
        "doubts": [footnote_text(note, summary) for note in summary.footnotes],
        "expectations": expectation_table(document),
    }


def _sources(document: Document) -> dict[str, Any]:
    packed = gzip.compress(document.records, mtime=0) if document.records else b""
    return {
        "environment": environment_rows(document.summary),
        "command": one_line(document.command, max_length=2000),
        "scenario_text": _printable(document.scenario_text),
        "num_records": document.summary.num_records,
        "records_url": data_url(packed, "application/gzip") if packed else "",
        "records_size": format_bytes(len(document.records)),
        "packed_size": format_bytes(len(packed)),
        "page_size": f"{MAX_PAGE_BYTES / 1e6:g} MB",
    }


def _printable(text: str) -> str:
    """The lines as they are, without control and direction characters."""
    return "".join(char for char in text if char in "\n\t" or not unicodedata.category(char).startswith("C"))


def _fold(table: Table) -> dict[str, Any]:
    return {"table": table, "is_open": len(table.rows) <= MAX_OPEN_ROWS and not table.is_detail}


def _plot_content(plot: Plot) -> dict[str, Any]:
    return {"name": plot.name, "caption": plot.caption, "svg": inline_svg(plot), "has_chart": plot.spec is not None}


def inline_svg(plot: Plot) -> Any:
    """The drawing as markup, as this package drew it, named by the element `caption-NAME` of the page."""
    from markupsafe import Markup

    return Markup(plot.svg.replace("<svg ", f'<svg aria-labelledby="caption-{plot.name}" ', 1))


def render_page(template: str, content: Mapping[str, Any], charts: Mapping[str, Any] | None = None) -> str:
    """A template that extends `page.html.j2`, filled; `content` has its title. Everything but `Markup` is escaped.

    `charts` are Vega-Lite specs by the name of their plot. Only a page that has one carries the chart library.
    """
    from markupsafe import Markup

    environment = template_environment()
    style, _, _ = environment.loader.get_source(environment, "report.css")
    head, *scripts = [page_script(name) for name in ("page.js", "table.js", *(["charts.js"] if charts else []))]
    library = chart_library() if charts else None
    page = {
        "style": Markup(style),
        "head_script": Markup(head),
        "scripts": [Markup(script) for script in scripts],
        "policy": Markup(content_security_policy([head, *scripts, *([library.script] if library else [])])),
        "charts": Markup(script_json(charts)) if charts else "",
        "library": library.packed if library else "",
        "versions": library.versions if library else "",
        "licences": chart_licences() if library else [],
    }
    return environment.get_template(template).render(**page, **content)


def _tied(text: str) -> str:
    """Numbers and their units on one line."""
    return re.sub(r"(?<=\d) (?=%|[a-zµ]{1,2}\b|[KMG]iB)", "\u00a0", text)


def _unbroken(text: str) -> Any:
    """The text, escaped, with short words with a hyphen on one line: `8-layer`, `threshold-p`. Its characters stay as they are."""
    from markupsafe import Markup

    parts = re.split(r"(?<![\w-])(\w{1,12}-\w{1,12})(?![\w-])", text)  # every other part is such a word
    words = [
        Markup('<span class="word">{}</span>').format(part) if index % 2 else part for index, part in enumerate(parts)
    ]
    return Markup("").join(words)


def template_environment() -> Any:
    """The templates of this package; whatever goes into them is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("modbench.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(tied=_tied, unbroken=_unbroken)
    return environment
