import re
import time
from html.parser import HTMLParser
from importlib import resources

import pytest

from modbench.analysis import summarise
from modbench.errors import OutputError
from modbench.report.answer import answers
from modbench.report.console import render_console
from modbench.report.document import Document, cell_label
from modbench.report.html import render_html
from modbench.report.write import write_report
from tests.modbench.record_factory import ORDER, failed, make_quads, make_record
from tests.modbench.test_report_golden import console_text, golden_document

VOID = {"meta", "br", "img", "hr", "link", "input"}


class Balance(HTMLParser):
    """Fails on a tag that is closed out of order, and collects ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"


def test_written_page_is_well_formed_with_unique_ids_and_needs_no_network(tmp_path):
    write_report(tmp_path, golden_document())
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    assert len(balance.ids) == len(set(balance.ids))
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert not re.search(r"https?://", without_namespaces)
    assert "default-src 'none'" in page
    assert page.count('<svg class="modbench-plot"') == 5


def test_answer_sentence_has_the_numbers():
    summary = summarise(make_quads(1, contexts=(1024, 4096), noise=0.0))
    (sentence,) = answers(summary)
    assert sentence == (
        "At context 4,096, threshold keeps 11 % of tokens at routed layers, needs 0.56× the KV cache of dense, "
        "prefills 1.78× as fast (95 % of the ideal speed-up) and decodes 1.40× as fast (74 % of the ideal speed-up); "
        "two pairs of launches: no verdict."
    )


def test_answer_gives_the_verdict_from_enough_pairs_on():
    (sentence,) = answers(summarise(make_quads(4)))
    assert sentence.endswith("verdict after 8 pairs of launches: prefill faster, decode faster.")


def test_answer_says_wrong_failed_and_nothing():
    quads = make_quads(1)
    wrong = [
        record.model_copy(update={"guard": {"causal": "failed"}}) if record.method == "threshold" else record
        for record in quads
    ]
    assert "it is wrong (causal), its speed counts for nothing" in answers(summarise(wrong))[0]
    lost = [failed(record) if record.method == "threshold" else record for record in quads]
    assert answers(summarise(lost)) == ["At context 1,024, threshold gave no numbers: oom in 2 of 2 launches."]
    assert answers(summarise([])) == ["Nothing was measured."]
    assert "nothing to compare" in answers(summarise([make_record()]))[0]
    alone = [failed(record) if record.method == "dense" else record for record in quads]
    assert "keeps 11 %" in answers(summarise(alone))[0]


def test_wrong_rows_are_marked_in_html_and_console():
    document = golden_document()
    page = render_html(document)
    assert page.count('<tr class="wrong"><th scope="row">masked (wrong)</th>') == 4
    assert "masked (wrong)" in console_text(document, 80)


def test_a_summary_without_records_renders_everywhere(tmp_path):
    document = Document(summarise([]), name="empty")
    assert "Nothing was measured." in console_text(document, 80)
    paths = write_report(tmp_path, document)
    assert sorted(path.name for path in paths) == ["report.html", "report.md"]


def test_cell_label_without_axes_names_context_and_batch():
    record = make_record(batch=8)
    record = record.model_copy(update={"point": record.point.model_copy(update={"axes": {}})})
    assert cell_label(summarise([record]).cells[0]) == "context 1,024 · batch 8"


def test_unwritable_folder_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the report"):
        write_report(tmp_path / "file", Document(summarise([])))


def test_a_thousand_records_are_summarised_and_rendered_within_five_seconds(tmp_path):
    records = make_quads(10, ORDER, tuple(2**power for power in range(6, 19)))
    assert len(records) >= 1000
    start = time.perf_counter()
    document = Document(summarise(records))
    console_text(document, 80)
    write_report(tmp_path, document)
    assert time.perf_counter() - start < 5


def luminance(colour: str) -> float:
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_colours_have_aa_contrast_in_light_and_dark():
    css = resources.files("modbench.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    schemes = [
        dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    ]
    assert len(schemes) == 2
    for scheme in schemes:
        for page in ("page", "raised"):
            for name in ("text", "muted", "accent", "bad", "good"):
                lighter, darker = sorted((luminance(scheme[name]), luminance(scheme[page])), reverse=True)
                assert (lighter + 0.05) / (darker + 0.05) >= 4.5, f"{name} on {page}"


def test_no_color_is_respected(monkeypatch):
    import io

    from rich.console import Console

    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    render_console(golden_document(), console)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", console.file.getvalue())
