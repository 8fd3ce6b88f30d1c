"""One screen: what is on it, what is left out where there is no room, and where the rest is."""

import io
import itertools
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from modbench.analysis import ExpectationOutcome, Footnote, summarise
from modbench.report.console import render_console
from modbench.report.document import Document
from modbench.report.doubts import brief_doubt, doubts_about, weighty_doubts
from modbench.report.overview import MAX_LISTED, machine_line, overview_lines, overview_table
from tests.modbench.record_factory import failed, make_quads
from tests.modbench.test_report_golden import console_text, golden_document

METHODS = ("dense", "threshold", "skip_layers")
LAST_LINE = 1  # the command prints where the report is


def document_of(records, outcomes=()):
    return Document(summarise(records), "x", "Does threshold-p pay?", "modbench run x.yaml", outcomes)


def headers(document, width):
    table = overview_table(document.summary, lambda table: table_width(table) <= width)
    return [column.header for column in table.columns]


def table_width(table):
    """What the columns need at least, gaps not counted."""
    texts = zip(*(row.cells for row in table.rows), strict=True)
    return sum(max(cell_len(text) for text in column) for column in texts)


@pytest.mark.parametrize("num_quads", [1, 4], ids=["no verdict", "verdicts"])
def test_two_points_of_three_methods_are_one_screen(num_quads):
    outcomes = [ExpectationOutcome("threshold.kv_cache_reduction >= 1.5", "cell-1024-1", True, 1.8, None)]
    lines = console_text(document_of(make_quads(num_quads, METHODS, (1024, 4096)), outcomes), 80).splitlines()
    assert len(lines) + LAST_LINE <= 24
    assert max(len(line) for line in lines) <= 80


def test_a_larger_run_grows_by_its_rows():
    lines = [
        len(console_text(document_of(make_quads(1, METHODS, contexts)), 80).splitlines())
        for contexts in ((1024, 4096), (1024, 2048, 4096))
    ]
    assert lines[1] - lines[0] == len(METHODS) + 1, "and the line that names the point"


@pytest.mark.parametrize(
    ("width", "is_detailed"), [(30, False), (80, False), (119, False), (120, False), (60, True), (120, True)]
)
def test_no_line_is_wider_than_the_terminal(width, is_detailed):
    text = console_text(golden_document(), width, is_detailed)
    assert max(cell_len(line) for line in text.splitlines()) <= width


def test_what_does_not_fit_goes_column_by_column_the_least_telling_first():
    document = document_of(make_quads(4, METHODS, (1024,)))
    kept = [headers(document, width) for width in (200, 100, 60, 20)]
    assert "min – max" in kept[0]
    assert "tok/s" in kept[0]
    assert kept[-1] == ["Method", "TTFT", "Speed up", "TPOT", "Speed up", "Less KV", "Verdict"]
    for wider, narrower in itertools.pairwise(kept):
        assert set(narrower) < set(wider)


def test_a_wide_terminal_shows_more_and_details_show_everything():
    document = document_of(make_quads(4, METHODS, (1024,)))
    narrow, wide, details = (console_text(document, *how) for how in ((80,), (160,), (80, True)))
    for words in ("Interval", "peak", "tok/s"):
        assert words not in narrow
        assert words in wide
    assert {"Prefill", "Decode", "Memory", "Doubts"} <= set(details.splitlines())
    assert "Verdict at a margin δ" in " ".join(details.split())


def test_a_column_of_nothing_is_left_out():
    assert "Verdict" not in headers(document_of(make_quads(1)), 200)
    assert "Verdict" in headers(document_of(make_quads(4)), 200)


@pytest.mark.parametrize(("factor", "word"), [(1.0, "faster"), (3.0, "slower, faster")])
def test_the_verdict_of_both_phases_is_one_word_where_they_agree(factor, word):
    records = [
        record.model_copy(
            update={
                "samples": record.samples.model_copy(update={"ttft_s": [factor * x for x in record.samples.ttft_s]})
            }
        )
        if record.method == "threshold"
        else record
        for record in make_quads(4)
    ]
    row = console_text(document_of(records), 80).split("threshold  ")[1].splitlines()[0]
    assert row.endswith(f" {word}")
    assert ("Verdict: prefill, decode" in console_text(document_of(records), 120)) == ("," in word)


def test_a_point_where_everything_failed_shows_how_it_ended():
    records = [failed(record) for record in make_quads(1)]
    text = console_text(document_of(records), 80)
    assert re.search("threshold +oom", text)
    assert "✗ threshold, context 1,024: oom × 2 in prefill: out of memory" in text


def test_only_the_first_of_many_are_listed_and_the_rest_is_counted():
    outcomes = [ExpectationOutcome(f"threshold.ttft_s < {i}", "cell-1024-1", False, 9.0, None) for i in range(9)]
    outcomes.append(ExpectationOutcome("threshold.tpot_s < 1", None, None, None, "no measured cell matches it"))
    lines = overview_lines(document_of(make_quads(1), outcomes))
    assert [line.mark for line in lines].count("✗") == MAX_LISTED
    assert lines[MAX_LISTED].text == "6 more expectations not met: report.md, or --details"
    assert lines[-1].text == "0 of 10 expectations met; 1 not checked; 3 doubts: report.md, or --details"
    assert lines[-1].mark == "·"


def test_routine_doubts_are_counted_and_others_named_in_few_words():
    records = make_quads(1, contexts=(1024, 4096))
    flag = "decode_speedup is above its ideal: the baseline does more, or the method less, than the prediction counts"
    records[1] = records[1].model_copy(update={"flags": [flag, *records[1].flags]})
    document = document_of(records)
    assert [line.text for line in overview_lines(document)] == [
        "decode_speedup is above its ideal (threshold; 1/2 points)",
        "3 more doubts: report.md, or --details",
    ]


def test_a_doubt_about_the_whole_run_is_about_every_number():
    summary = summarise(make_quads(1), num_skipped_lines=2)
    (note,) = weighty_doubts(summary)
    assert brief_doubt(note, summary) == "2 damaged lines of the records were passed over"
    assert doubts_about(summary, ("threshold",), "cell-1024-1") == [note.text]
    long = Footnote("word " * 40, ("threshold",))
    assert len(brief_doubt(long, summary)) < 80


def test_the_machine_is_one_line():
    document = document_of(make_quads(1))
    assert machine_line(document) == (
        "Example CPU @ 2.0 GHz, cores: 8, 32.0 GiB RAM, torch 2.11.0 · bench-8x512, float32, threads: 1"
    )
    assert machine_line(document_of([])) == ""
    shown = console_text(document, 40).splitlines()
    assert [line for line in shown if line.startswith("Example CPU")] == ["Example CPU @ 2.0 GHz, cores: 8, 32.0 G…"]


def test_no_color_leaves_no_colour_code(monkeypatch):
    outputs = {}
    for name in ("NO_COLOR", "COLOUR"):
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv(name, "1")
        monkeypatch.setenv("TERM", "xterm-256color")
        console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard")
        render_console(golden_document(), console)
        outputs[name] = console.file.getvalue()
    assert "\x1b[31m" in outputs["COLOUR"], "a failure is red"
    assert "\x1b[31m" not in outputs["NO_COLOR"]
