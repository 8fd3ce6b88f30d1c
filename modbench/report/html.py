"""A document as one self-contained HTML page: no script, no network, light and dark, everything escaped."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from modbench.report.answer import answers, figures, figures_title
from modbench.report.breakdown import breakdown_legend, breakdown_tables
from modbench.report.document import Document, environment_rows, footnote_text, machine_facts, setting_facts
from modbench.report.escaping import one_line
from modbench.report.keep_maps import keep_map_section
from modbench.report.legend import legend
from modbench.report.limits import limit_legend, limit_tables
from modbench.report.plots import Plot
from modbench.report.tables import expectation_table, failure_table, keep_ratio_table, measurement_tables


def render_html(document: Document, plots: Sequence[Plot] = ()) -> str:
    """The page as text. SVGs of `plots` go in as they are (this package drew them); all other text is escaped."""
    from markupsafe import Markup

    summary = document.summary
    sentences = answers(summary)
    content: dict[str, Any] = {
        "title": document.title,
        "name": one_line(document.name),
        "answer": sentences[0],
        "more_answers": sentences[1:],
        "figures": figures(summary),
        "figures_title": figures_title(summary),
        "settings": setting_facts(summary),
        "machine": machine_facts(summary),
        "tables": [*limit_tables(summary), *measurement_tables(summary), *breakdown_tables(document)],
        "keep_ratios": keep_ratio_table(summary),
        "legend": [*limit_legend(summary), *legend(summary), *breakdown_legend(document)],
        "plots": [{"name": plot.name, "caption": plot.caption, "svg": Markup(plot.svg)} for plot in plots],
        "keep_maps": keep_map_section(document),
        "failures": failure_table(summary),
        "doubts": [footnote_text(note, summary) for note in summary.footnotes],
        "expectations": expectation_table(document),
        "environment": environment_rows(summary),
        "command": one_line(document.command, max_length=2000),
        "num_records": summary.num_records,
    }
    return render_page("report.html.j2", content)


def render_page(template: str, content: Mapping[str, Any]) -> str:
    """A template that extends `page.html.j2`, filled; `content` has its title. Everything but `Markup` is escaped."""
    from markupsafe import Markup

    environment = template_environment()
    style, _, _ = environment.loader.get_source(environment, "report.css")
    return environment.get_template(template).render(style=Markup(style), **content)


def _tied(text: str) -> str:
    """Numbers and their units on one line."""
    return re.sub(r"(?<=\d) (?=%|[a-zµ]{1,2}\b|[KMG]iB)", "\u00a0", text)


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
    environment.filters["tied"] = _tied
    return environment
