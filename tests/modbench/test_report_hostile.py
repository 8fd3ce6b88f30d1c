"""A record from a stranger runs no script, writes nowhere but into the output folder, and says nothing to a terminal."""

import csv
import io
import json
import unicodedata
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from modbench.analysis.compare import compare_all
from modbench.analysis.gate import gate_result
from modbench.analysis.history import build_history
from modbench.cli_options import ComparisonFormat, ReportFormat
from modbench.command_compare import compare_command
from modbench.command_export import export_command
from modbench.command_history import history_command, read_runs
from modbench.command_report import ReportOptions, report_command
from modbench.command_run import make_document
from modbench.errors import ModbenchError, OutputError
from modbench.report.console import render_console
from modbench.report.history import print_history, render_history_csv, render_history_html, write_history
from modbench.report.html import render_html
from modbench.report.junit import render_junit
from modbench.report.markdown import render_markdown
from modbench.report.pull_request import render_pull_request
from modbench.report.table_csv import FORMULA_STARTS, render_csv
from modbench.report.write import write_report
from modbench.side_files import load_side
from tests.modbench.hostile_records import TEXTS, write_hostile_run
from tests.modbench.test_report_golden import golden_document
from tests.modbench.test_report_history import golden_history

every_text = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
HARMLESS = "a harmless name"
ADDRESSES = ("href", "src", "srcset", "action", "formaction", "xlink:href", "data", "poster", "background")


class Structure(HTMLParser):
    """What a page consists of: elements with their attributes' names, addresses, and the texts of its scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: set[tuple[str, str]] = set()
        self.addresses: set[str] = set()
        self.code: list[str] = []
        self._is_code = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements |= {(tag, ""), *((tag, name) for name, _ in attrs)}
        self.addresses |= {value or "" for name, value in attrs if name in ADDRESSES}
        is_data = tag == "script" and dict(attrs).get("type", "") not in ("", "module", "text/javascript")
        self._is_code = tag in ("script", "style") and not is_data

    def handle_endtag(self, tag: str) -> None:
        self._is_code = False

    def handle_data(self, data: str) -> None:
        if self._is_code:
            self.code.append(data)


def printable(text: str) -> bool:
    """True if there is nothing in it that a terminal obeys, or that turns the direction of reading."""
    return not any(unicodedata.category(char) in ("Cc", "Cf", "Cs") for char in text.replace("\n", ""))


def assert_is_plain_markdown(text: str) -> None:
    """Rendered, with raw HTML as it is, it has no link, no element of a stranger's, and images of this package alone."""
    page = Structure(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))
    tags = {tag for tag, _ in page.elements}
    assert tags <= MARKDOWN_TAGS, tags - MARKDOWN_TAGS
    assert all(address.startswith("plots/") for address in page.addresses)
    assert {name for _, name in page.elements} <= {"", "src", "alt", "style"}


def assert_holds_no_formula(text: str) -> None:
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    assert cells
    assert [cell for cell in cells if cell.startswith(FORMULA_STARTS) and not is_number(cell)] == []


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


MARKDOWN_TAGS = {
    *("h1", "h2", "h3", "h4", "p", "ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td", "pre", "code", "img"),
    *("strong", "em", "sub", "details", "summary", "br"),
}


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Structure:
    """The page of the same run with a harmless name for everything."""
    folder = write_hostile_run(tmp_path_factory.mktemp("harmless") / "run", HARMLESS)
    return Structure(render_html(make_document(folder)))


@every_text
def test_the_page_has_the_elements_scripts_and_addresses_of_a_harmless_one(text, harmless, tmp_path):
    page = render_html(make_document(write_hostile_run(tmp_path / "run", text)))
    found = Structure(page)
    assert found.elements == harmless.elements
    assert found.code == harmless.code
    assert all(address.startswith(("#", "data:")) for address in found.addresses)
    assert str(7777 * 7) not in page, "a template was filled"
    assert len(page) < 2_000_000


@every_text
def test_markdown_csv_and_console_say_only_text(text, tmp_path):
    document = make_document(write_hostile_run(tmp_path / "run", text))
    assert_is_plain_markdown(render_markdown(document, [("plots/ttft.svg", "Time to the first token")]))
    assert_holds_no_formula(render_csv(document.summary))
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    render_console(document, console)
    assert printable(console.file.getvalue())


@every_text
def test_a_history_says_only_text(text, tmp_path):
    runs, unread = read_runs([write_hostile_run(tmp_path / "run", text)])
    history = build_history(runs)
    assert unread == []
    assert history.series
    page = Structure(render_history_html(history, []))
    assert not any(name.startswith("on") for _, name in page.elements)
    assert {tag for tag, _ in page.elements}.isdisjoint({"img", "iframe", "object", "embed"})
    assert "hacked" not in "".join(page.code)
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert_holds_no_formula(render_history_csv(history))
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    print_history(history, console)
    assert printable(console.file.getvalue())


@every_text
def test_an_export_and_comparisons_say_only_text(text, tmp_path, capsys):
    run = str(write_hostile_run(tmp_path / "run", text))
    said = {}
    for format in ComparisonFormat:
        if format.value != "html":
            compare_command(run, [run], 0.03, None, format, None, None)
            said[format.value] = capsys.readouterr().out
    assert printable(said["console"])
    assert_is_plain_markdown(said["markdown"])
    assert_holds_no_formula(said["csv"])
    assert json.loads(said["json"])
    export_command(Path(run), None)
    found = capsys.readouterr()
    assert json.loads(found.out)["benchmarks"]
    assert printable(found.err)


@pytest.mark.parametrize("name", ["break_out", "terminal", "mathtext", "long"])
def test_drawings_have_no_script_and_are_whole(name, tmp_path):
    folder = write_hostile_run(tmp_path / "run", TEXTS[name])
    write_report(folder, make_document(folder))
    runs, _ = read_runs([folder])
    write_history(folder / "history.html", build_history(runs))
    drawings = list(folder.rglob("*.svg"))
    assert len(drawings) > 5
    for drawing in drawings:
        tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(drawing.read_bytes()).iter()}
        assert tags.isdisjoint({"script", "foreignObject", "a", "image"})


@every_text
def test_what_a_gate_says_is_text(text, tmp_path):
    side = load_side(str(write_hostile_run(tmp_path / "run", text)))
    compared = compare_all(side, [side], 0.03, None, None)
    ET.fromstring(render_junit(compared))
    assert_is_plain_markdown(render_pull_request(compared, gate_result(compared), [text], text).partition("\n")[2])


@pytest.mark.parametrize("name", ["../../evil", "{outside}/evil", "evil\x00.html"])
def test_no_name_leads_a_write_out_of_the_output_folder(name, tmp_path, monkeypatch, capsys):
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = write_hostile_run(tmp_path / "a" / "b" / "run", name.format(outside=outside))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    before = set(tmp_path.rglob("*"))
    report_command(ReportOptions([folder], ReportFormat.CONSOLE))
    history_command([folder], [], Path("pages/history.html"), is_json=False)
    export_command(folder, Path("benchmark.json"))
    compare_command(str(folder), [str(folder)], 0.03, None, ComparisonFormat.CSV, Path("compared.csv"), None)
    written = {path.relative_to(tmp_path).as_posix() for path in set(tmp_path.rglob("*")) - before}
    own = (
        "a/b/run/report.",
        "a/b/run/summary.csv",
        "a/b/run/plots",
        "work/pages",
        "work/benchmark.json",
        "work/compared.csv",
    )
    assert {path for path in written if not path.startswith(own)} == set()
    assert list(outside.iterdir()) == []


def test_a_file_that_is_a_link_is_replaced_and_its_target_left_alone(tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    names = ("report.html", "report.md", "summary.csv", ".report.html.partial")
    for name in names:
        (folder / name).symlink_to(target)
    (folder / "plots").mkdir()
    (folder / "plots" / "ttft.svg").symlink_to(tmp_path / "not-there")
    write_report(folder, golden_document())
    write_history(folder / "report.html", golden_history())
    assert target.read_text() == "mine"
    assert not (tmp_path / "not-there").exists()
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_a_plots_folder_that_is_a_link_is_refused_in_one_line(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "plots").symlink_to(outside)
    with pytest.raises(OutputError, match="plots: got a link; expected a folder") as caught:
        write_report(folder, golden_document())
    assert "\n" not in str(caught.value)
    assert list(outside.iterdir()) == []


def test_a_folder_of_the_users_choice_may_be_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "latest").symlink_to(tmp_path / "real")
    write_report(tmp_path / "latest", golden_document())
    assert (tmp_path / "real" / "report.html").exists()


RUN_FILES = {
    "nested": "[" * 100_000,
    "nested_objects": '{"a":' * 100_000,
    "binary": "\x00\x01",
    "a_list": "[]",
    "wrong_type": json.dumps(
        {**dict.fromkeys(("run_id", "name", "question", "command"), "x"), "methods": [], "expect": 3, "overrides": []}
    ),
    "wrong_member": json.dumps(
        {
            **dict.fromkeys(("run_id", "name", "question", "command"), "x"),
            "methods": {"a": 1},
            "expect": [],
            "overrides": [],
        }
    ),
}


@pytest.mark.parametrize("text", RUN_FILES.values(), ids=RUN_FILES)
def test_a_damaged_run_file_is_one_printable_line(text, tmp_path):
    folder = write_hostile_run(tmp_path / "run", HARMLESS)
    (folder / "run.json").write_text(text)
    with pytest.raises(ModbenchError) as caught:
        report_command(ReportOptions([folder], ReportFormat.CONSOLE))
    assert printable(str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "expectation", ["\x1b[31m <script>", "threshold.ttft_s <", "x" * 100_000, "a.b < 1\n::error::x"]
)
def test_an_expectation_that_is_none_is_one_printable_line(expectation, tmp_path):
    folder = write_hostile_run(tmp_path / "run", HARMLESS)
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**facts, "expect": [expectation]}))
    with pytest.raises(ModbenchError) as caught:
        report_command(ReportOptions([folder], ReportFormat.CONSOLE))
    assert printable(str(caught.value))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_texts_without_end_and_nesting_without_end_cost_little(tmp_path, capsys):
    folder = write_hostile_run(tmp_path / "run", HARMLESS)
    lines = (folder / "records.jsonl").read_text().splitlines()
    endless = json.loads(lines[0])
    endless["environment"] |= {"big": "x" * 10_000_000, "y" * 10_000_000: 1}
    damaged = ["[" * 100_000, '{"a":' * 100_000, "z" * 10_000_000, "\x00"]
    (folder / "records.jsonl").write_text("\n".join([json.dumps(endless), *lines[1:], *damaged, ""]))
    report_command(ReportOptions([folder], ReportFormat.CONSOLE))
    assert "damaged" in capsys.readouterr().out
    assert (folder / "report.html").stat().st_size < 2_000_000


@pytest.mark.parametrize("value", ["\ud800", "a\ud800\udfff b"])
def test_half_a_character_is_dropped_or_refused(value, tmp_path):
    folder = write_hostile_run(tmp_path / "run", HARMLESS)
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**facts, "name": value, "question": value, "command": value}))
    write_report(folder, make_document(folder))
    assert (folder / "report.html").read_bytes().decode()
