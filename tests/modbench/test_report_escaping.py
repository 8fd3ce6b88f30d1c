import html
import io
import re
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from modbench.analysis import ExpectationOutcome, summarise
from modbench.report.console import render_console
from modbench.report.document import Document
from modbench.report.escaping import escape_markdown, one_line
from modbench.report.html import render_html
from modbench.report.markdown import render_markdown
from modbench.report.plots import draw_plots
from modbench.report.write import write_report
from tests.modbench.page_checks import foreign_scripts
from tests.modbench.record_factory import failed, make_quads

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></svg><script>x</script>",
    "a | b\n| --- |\n# title",
    "`code` [link](javascript:x) ![i](http://x.invalid/i.png) @everyone https://x.invalid www.x.invalid",
    "../../etc/passwd",
    "\x1b[31mred\x1b[0m\u202egnp.exe\x00",
    "[bold red]markup[/bold red] {{ 7 * 7 }} {% raw %}",
    "$\\alpha_{",
    "_hidden",
    "長い名前",
)


def hostile_document(text: str) -> Document:
    records = make_quads(1, ("dense", text))
    records = [
        record.model_copy(
            update={
                "flags": [text],
                "environment": {**record.environment, "machine": {"cpu": text}, text: {text: text}},
                "guard": {text: "declared"},
                "point": record.point.model_copy(update={"axes": {text: text}, "attention": text}),
            }
        )
        for record in records
    ]
    records.append(failed(records[1], error=text, phase=text).model_copy(update={"launch_id": "x"}))
    outcome = ExpectationOutcome(text, "cell-1024-1", False, 1.0, text)
    return Document(summarise(records), text, text, text, [outcome])


class TagCollector(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


@pytest.mark.parametrize("text", HOSTILE)
def test_html_shows_hostile_text_and_runs_none_of_it(text):
    document = hostile_document(text)
    page = render_html(document, draw_plots(document.summary))
    collector = TagCollector()
    collector.feed(page)
    assert not {"img", "iframe", "object", "link"} & set(collector.tags)
    assert collector.tags.count("script") == page.count("<script")
    assert foreign_scripts(page) == []
    assert not [name for name, _ in collector.attributes if name.startswith("on")]
    references = [value for name, value in collector.attributes if name.endswith(("href", "src"))]
    assert all(value is not None and value.startswith("#") for value in references), references
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "{{ 7 * 7 }}" not in text or "{{ 7 * 7 }}" in page, "text is not a template"


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_keeps_its_tables_and_shows_hostile_text(text):
    lines = render_markdown(hostile_document(text)).splitlines()
    for number, line in enumerate(lines):
        if re.match(r"\| ?:?---", line):
            columns = len(re.findall(r"(?<!\\)\|", line))
            for row in lines[number - 1 :]:
                if not row.startswith("|"):
                    break
                assert len(re.findall(r"(?<!\\)\|", row)) == columns, row
    outside_code = "\n".join(line for line in lines if not line.startswith("    "))
    without_own = re.sub(r"</?(sub|details|summary)>", "", outside_code)
    assert outside_code.count("<details>") == outside_code.count("</details>") == 3
    assert "<" not in without_own
    assert "http:" not in without_own
    assert not re.search(r"(?<!\\)`|(?<!\\)\[|@", without_own)
    assert [line for line in lines if line.startswith("# ")] == lines[:1]


@pytest.mark.parametrize("text", HOSTILE)
def test_console_prints_hostile_text_literally(text):
    console = Console(file=io.StringIO(), width=200, force_terminal=False, color_system=None)
    render_console(hostile_document(text), console)
    output = console.file.getvalue()
    assert "\x1b" not in output
    assert one_line(text)[:20] in output


def test_no_name_from_a_record_becomes_a_path(tmp_path):
    folder = tmp_path / "inside" / "report"
    paths = write_report(folder, hostile_document("../../escaped"))
    found = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert found == set(paths)
    assert all(path.is_relative_to(folder) for path in found)


def test_one_line_collapses_and_cuts():
    assert one_line(" a\n\tb ") == "a b"
    assert one_line("x" * 20, max_length=10) == "x" * 9 + "…"
    assert one_line("a\u200bb\u2066c\x07d") == "abcd"


def test_markdown_escapes_by_hand():
    assert escape_markdown("a|b") == "a\\|b"
    assert escape_markdown("<b>&") == "&lt;b&gt;&amp;"
    assert escape_markdown("see https://x") == "see https&#58;//x"


@pytest.mark.parametrize("text", ["- x", "1. x", "1) x", "+ x", "---", "- - -", "===", "# x", "> x", "-"])
def test_no_text_begins_a_list_a_rule_or_a_heading(text):
    assert MarkdownIt("commonmark").render(escape_markdown(text)) == f"<p>{html.escape(text)}</p>\n"


def test_numbers_are_left_as_they_are():
    assert [escape_markdown(text) for text in ("1.78×", "-5 %", "3.11.9")] == ["1.78×", "-5 %", "3.11.9"]
