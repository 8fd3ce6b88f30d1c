"""The page of a run beyond its tables: opening, doubts in plain sight, records, scenario, size."""

import base64
import gzip
import html
import random
import re
from dataclasses import replace
from itertools import pairwise

import pytest

from modbench.analysis import Footnote, summarise
from modbench.command_run import make_document
from modbench.errors import OutputError
from modbench.report.answer import answers
from modbench.report.document import Document
from modbench.report.html import LEFT_OUT, MAX_PAGE_BYTES, render_html
from modbench.report.plots import Plot
from modbench.report.style import KNOWN, SPARE
from modbench.report.swatches import DASHES, MARKERS, swatches
from modbench.report.write import write_page
from tests.modbench.record_factory import make_quads, make_record
from tests.modbench.test_report_golden import golden_document

RECORDS = b'{"launch_id": "</script>"}\n'
SPEC = {"data": {"values": []}, "mark": "point"}


@pytest.fixture(scope="module")
def page():
    return render_html(replace(golden_document(), records=RECORDS, scenario_text="name: x # <b>&\u202e\n  a: 1\n"))


def text_of(pattern, page):
    return html.unescape(re.sub(r"<[^>]+>", "", re.search(pattern, page, re.DOTALL).group(1))).replace("\u00a0", " ")


def outside_details(page):
    return re.sub(r"<details.*?</details>", "", page, flags=re.DOTALL)


def test_the_opening_has_question_answer_verdict_figures_and_machine(page):
    opening = re.search(r'<header class="opening">.*?</header>', page, re.DOTALL).group()
    document = golden_document()
    assert text_of(r"<h1>(.*?)</h1>", opening) == document.question
    assert text_of(r'<p class="answer">(.*?)</p>', opening) == answers(document.summary)[0]
    assert text_of(r'<p class="verdict plain">(.*?)</p>', opening) == "No verdict: one pair of launches, 8 are needed"
    assert re.findall(r"<strong>([^<]*)</strong>", opening) == ["1.77×", "1.39×", "1.80×", "11 %"]
    assert "<dd>Example CPU @ 2.0 GHz</dd>" in opening


def test_a_run_without_a_comparison_has_no_verdict_and_no_figures():
    page = render_html(Document(summarise([make_record()]), "alone"))
    assert 'class="verdict' not in page
    assert 'class="figures"' not in page


def test_the_opening_points_at_unmet_expectations_failed_launches_and_doubts(page):
    notice = re.search(r'<p class="notice">.*?</p>', page, re.DOTALL).group()
    assert re.findall(r'href="(#\w+)">([^<]*)<', notice) == [
        ("#expectations", "2 expectations not met"),
        ("#doubts", "3 launches failed"),
        ("#doubts", "6 doubts about these numbers"),
    ]
    summary = replace(summarise(make_quads(1)), footnotes=())
    assert 'class="notice"' not in render_html(Document(summary))


def test_failures_doubts_and_expectations_are_never_folded():
    document = replace(
        golden_document(), summary=replace(golden_document().summary, footnotes=(Footnote("busy <host>"),))
    )
    plain = outside_details(render_html(document))
    assert "<li>busy &lt;host&gt;</li>" in plain
    assert "<td>out of memory</td>" in plain
    assert "<td>decode_speedup is not &gt;= 1.5</td>" in plain


def test_headings_leave_no_gap_and_there_is_one_h1(page):
    levels = [int(level) for level in re.findall(r"<h(\d)", page)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_every_link_within_the_page_has_its_target(page):
    targets = set(re.findall(r'\sid="([^"]*)"', page))
    assert set(re.findall(r'href="#([^"]*)"', page)) <= targets


def test_rows_and_check_boxes_name_methods_alike(page):
    boxes = re.findall(r'<input type="checkbox" checked data-method="([^"]*)">', page)
    assert boxes == ["dense", "threshold", "masked"]
    rows = re.findall(r'<tr class="\w+" data-method="([^"]*)">', page)
    assert set(rows) == set(boxes)
    assert len(re.findall(r"<tr[^>]*data-method=", page.split('<table id="points">')[1].split("</table>")[0])) == 6


def test_the_records_are_a_download_of_the_bytes_on_disk(page):
    url = re.search(r'<a id="records" download="records.jsonl.gz" href="data:application/gzip;base64,([^"]*)"', page)
    assert gzip.decompress(base64.b64decode(url.group(1))) == RECORDS


def test_a_page_made_without_records_says_where_they_are():
    assert "records.jsonl" in text_of(r'<p id="records">(.*?)</p>', render_html(golden_document()))


def test_scenario_and_command_are_text(page):
    assert "<code>name: x # &lt;b&gt;&amp;\n  a: 1\n</code>" in page
    assert '<pre id="reproduce"><code>modbench run scenarios/golden.yaml</code></pre>' in page


def test_hostile_texts_stay_texts():
    evil = '"><img src=x onerror=alert(1)></script><script>alert(1)</script>'
    records = [record.model_copy(update={"method": evil}) for record in make_quads(1)]
    document = Document(summarise(records), evil, evil, evil, scenario_text=evil)
    page = render_html(document)
    assert "<img" not in page
    assert "alert(1)</script>" not in page
    assert page.count("<script") == 2


def test_a_run_of_500_points_fits_and_says_what_is_left_out():
    records = [make_record(method, context=1024 + 64 * n) for n in range(500) for method in ("dense", "threshold")]
    raw = "".join(f"{record.model_dump_json()}\n" for record in records).encode()
    plot = Plot("ttft", "Time", f"<svg>{'x' * 400_000}</svg>", b"", SPEC)
    page = render_html(Document(summarise(records), "large", records=raw), [plot])
    assert len(page.encode()) <= MAX_PAGE_BYTES
    assert page.count('data-method="threshold"') >= 500
    assert "so that this page stays under 2 MB" in page


@pytest.mark.parametrize(("num_bytes", "left_out"), [(1_000, ()), (1_500_000, ("records",))])
def test_records_that_do_not_fit_are_named_with_their_size(num_bytes, left_out):
    raw = random.Random(0).randbytes(num_bytes)  # does not compress
    page = render_html(replace(golden_document(), records=raw))
    assert len(page.encode()) <= MAX_PAGE_BYTES
    assert ('<a id="records"' in page) is (left_out == ())
    if left_out:
        assert text_of(r'<p id="records">(.*?)</p>', page).startswith("The 30 records, 1.43 MiB or 1.43 MiB packed")


def test_what_is_left_out_grows_and_ends_with_the_charts():
    assert LEFT_OUT[0] == ()
    plot = Plot("ttft", "Time", f"<svg>{'x' * MAX_PAGE_BYTES}</svg>", b"", SPEC)
    page = render_html(golden_document(), [plot])
    assert "modbench-library" not in page
    assert "The interactive charts are left out, so that this page stays under 2 MB." in page
    assert 'class="chart"' not in page


def test_a_document_has_the_scenario_and_the_records_of_its_folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    facts = (
        '{"run_id": "r", "name": "n", "question": "q", "methods": {}, "expect": [], "overrides": [], "command": "c"}'
    )
    (folder / "run.json").write_text(facts)
    raw = make_record().model_dump_json().encode() + b"\n"
    (folder / "records.jsonl").write_bytes(raw)
    assert make_document(folder).records == raw
    assert make_document(folder).scenario_text == ""
    (folder / "scenario.yaml").write_text("name: n\n")
    assert make_document(folder).scenario_text == "name: n\n"


def test_write_page_replaces_the_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "new" / "page.html"
    document = Document(summarise([]), name="empty")
    write_page(path, document)
    write_page(path, replace(document, name="second"))
    assert ">second</p>" in path.read_text(encoding="utf-8")
    assert list(path.parent.iterdir()) == [path]


def test_a_page_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.html").mkdir()
    for path in (tmp_path / "file" / "page.html", tmp_path / "folder.html"):
        with pytest.raises(OutputError, match=r"cannot be written: [^\n]*; choose another file with -o$"):
            write_page(path, Document(summarise([])))
    assert not list(tmp_path.glob(".*"))


def test_every_style_of_a_method_has_a_swatch():
    for style in (*KNOWN.values(), *SPARE):
        assert style.marker in MARKERS
        assert style.line in DASHES
    found = swatches(["dense", "evil\nname", "dense"])
    assert [(swatch.method, swatch.symbol_id) for swatch in found] == [("dense", "swatch-0"), ("evil name", "swatch-1")]
    assert found[0].colour == "currentColor"
