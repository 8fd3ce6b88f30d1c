"""The tables and sentences of searches, and what a report of a search alone does not show."""

import pytest

from modbench.analysis import summarise
from modbench.record import KeepRatios
from modbench.report.answer import answers
from modbench.report.document import Document
from modbench.report.html import render_html
from modbench.report.limits import limit_answers, limit_legend, limit_tables
from modbench.report.markdown import render_markdown
from modbench.report.tables import measurement_tables
from modbench.report.write import write_report
from tests.modbench.record_factory import make_quads
from tests.modbench.test_analysis_limits import BOUND, both, searched, trial
from tests.modbench.test_report_golden import console_text


def cells_of(records, method: str) -> tuple[str, ...]:
    (table,) = limit_tables(summarise(records))
    return next(row.cells for row in table.rows if row.cells[0].startswith(method))


def within(records, limit_bytes: int):
    return [record.model_copy(update={"environment": {"memory_limit_bytes": limit_bytes}}) for record in records]


def test_the_answer_compares_with_dense():
    summary = summarise(within(searched("dense", 31744, 32256) + searched("threshold", 54272, 55296), 4 * 2**30))
    (sentence,) = answers(summary)
    rate = summary.limits[0].row("threshold").values["decode_tokens_per_s"]
    assert sentence == (
        "Within 4.00 GiB, threshold fits 1.71× the context of dense: 54,272 against 31,744 tokens, "
        f"and decodes there {rate:.1f} tok/s."
    )


def test_the_table_shows_the_bracket_and_the_ratio_with_its_bounds():
    (table,) = limit_tables(summarise(both()))
    assert table.title == "Longest context that fits"
    assert cells_of(both(), "dense")[:4] == ("dense", "1,000", "1,020 (oom)", "–")
    assert cells_of(both(), "threshold")[:4] == ("threshold", "1,700", "1,734 (oom)", "1.70× [1.67, 1.73]")
    assert cells_of(both(), "threshold")[7] == "11 % / 11 %"
    assert cells_of(both(), "threshold")[-1] == "2"


@pytest.mark.parametrize(
    ("records", "cells", "sentence"),
    [
        (
            searched("dense", 1000, 1020) + searched("threshold", BOUND, None),
            ("threshold", "≥ 65,520", "position limit", "≥ 64.2×"),
            "threshold fits at least 65,520 tokens (position limit), and decodes there",
        ),
        (
            searched("dense", BOUND, None) + searched("threshold", 1700, 1734),
            ("threshold", "1,700", "1,734 (oom)", "–"),
            "threshold fits 1,700 tokens, and decodes there",
        ),
        (
            [*searched("dense", 1000, 1020), trial("threshold", 2, "oom"), trial("threshold", 1, "oom")],
            ("threshold", "–", "1 (oom)", "–"),
            "threshold fits at no context: oom in prefill at 1.",
        ),
        (
            [*searched("dense", 1000, 1020), trial("threshold", 64), trial("threshold", 128, "failed")],
            ("threshold", "–", "failed", "–"),
            "threshold was not searched to the end: failed in prefill.",
        ),
        (
            [*searched("dense", 1000, 1020), trial("threshold", 64)],
            ("threshold", "–", "not finished", "–"),
            "threshold was not searched to the end.",
        ),
        (
            searched("dense", 1000, 1020) + searched("threshold", 1700, 1734, guard={"causal": "failed"}),
            ("threshold (wrong)", "1,700", "1,734 (oom)", "1.70× [1.67, 1.73]"),
            "threshold is wrong (identity causal failed), its limit counts for nothing.",
        ),
    ],
    ids=["at its bound", "baseline at its bound", "never fits", "failed", "interrupted", "wrong"],
)
def test_what_is_not_an_ordinary_limit_says_so(records, cells, sentence):
    assert cells_of(records, "threshold")[:4] == cells
    assert any(text.startswith(sentence) for text in limit_answers(summarise(records))), limit_answers(
        summarise(records)
    )


def test_batches_are_rows():
    records = [
        trial("dense", 64, status, role, batch=batch, axis="workload.batch", launch_id=f"{batch}{role}")
        for batch, status, role in ((8, "ok", "trial"), (9, "oom", "trial"), (8, "ok", "limit"))
    ]
    summary = summarise(records)
    assert limit_tables(summary)[0].title == "Largest batch that fits"
    assert limit_answers(summary)[0].startswith("dense fits 8 rows, and decodes there")
    assert limit_tables(summary)[0].groups[0].label == "context 64"


def test_a_batch_says_how_often_any_row_needs_the_weights():
    ratios = KeepRatios(prefill=[0.1] * 8, decode=[0.1] * 8, decode_any=[0.58] * 8)
    records = [
        trial(
            "threshold",
            64,
            status,
            role,
            batch=batch,
            axis="workload.batch",
            launch_id=f"{batch}{role}",
            keep_ratio=ratios,
        )
        for batch, status, role in ((8, "ok", "trial"), (9, "oom", "trial"), (8, "ok", "limit"))
    ]
    (sentence,) = limit_answers(summarise(records))
    assert sentence.endswith("tok/s, reading a routed layer at 58 % of steps.")
    assert cells_of(records, "threshold")[7] == "10 % / 58 %"


def test_the_answer_of_several_cells_names_its_cell():
    small = [record.model_copy(update={"launch_id": record.launch_id + "s"}) for record in both()]
    cell = {"cell_id": "other", "axes": {"workload.batch": 8}}
    large = [record.model_copy(update={"point": record.point.model_copy(update=cell)}) for record in both()]
    (sentence,) = answers(summarise(within(small + large, 2**30)))
    assert sentence.startswith("At batch 8, within 1.00 GiB, threshold fits 1.70× the context of dense")


def test_a_search_alone_has_no_measurement_tables(tmp_path):
    document = Document(summarise(both()), "x", "How long?", "modbench run x.yaml")
    assert measurement_tables(document.summary) == []
    texts = [render_markdown(document), render_html(document), console_text(document, 80), console_text(document, 160)]
    for text in texts:
        assert "Longest context that fits" in text
        assert all(number in text for number in ("1.70×", "1.67, 1.73", "1,734"))
        assert "Speed-up" not in text
        assert "Speed up" not in text
        assert "Verdict" not in text
    assert max(len(line) for line in texts[2].splitlines()) <= 80
    written = {path.name for path in write_report(tmp_path, document)}
    assert written == {"report.md", "report.html", "report.json", "summary.csv"}
    header, *rows = (tmp_path / "summary.csv").read_text().splitlines()
    assert "context_limit_ratio" in header
    assert len(rows) == 2


def test_a_run_without_a_search_shows_nothing_of_it():
    summary = summarise(make_quads(1))
    assert (limit_tables(summary), limit_answers(summary), limit_legend(summary)) == ([], [], [])
