import html
import re
from dataclasses import replace
from importlib import resources

import pytest

from modbench.analysis import ExpectationOutcome, Footnote, summarise
from modbench.errors import OutputError
from modbench.report.answer import answers, figures, figures_title, opening_verdict
from modbench.report.console import render_console
from modbench.report.document import Document, axes_label, cell_label, footnote_text
from modbench.report.escaping import escape_markdown
from modbench.report.html import render_html, template_environment
from modbench.report.legend import legend, short_legend
from modbench.report.markdown import render_markdown
from modbench.report.tables import expectation_table, keep_ratio_table
from modbench.report.write import write_report
from tests.contrast import contrast
from tests.modbench.page_checks import assert_is_well_formed
from tests.modbench.record_factory import failed, make_quads, make_record
from tests.modbench.test_report_golden import console_text, golden_document


def test_written_page_is_well_formed_with_unique_ids_and_needs_no_network(tmp_path):
    write_report(tmp_path, golden_document())
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert_is_well_formed(page)
    addresses = re.findall(r'\s(?:xlink:)?(?:src|srcset|href|action|poster|data)="([^"]*)"', page)
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert not re.search(r"@import|url\((?!#)", page)
    assert "default-src 'none'" in page
    assert page.count('class="modbench-plot"') == 7


def test_answer_sentence_has_the_numbers():
    summary = summarise(make_quads(1, contexts=(1024, 4096), noise=0.0))
    (sentence,) = answers(summary)
    assert sentence == (
        "At context 4,096, threshold (11 % of tokens kept at routed layers, calibrated random router) "
        "needs 0.56× the KV cache of dense and is 1.78× as fast at prefill, 1.40× at decode; "
        "94 % of the possible time saving was realised at prefill, 61 % at decode."
    )
    assert opening_verdict(summary).text == "No verdict: two pairs of launches, 8 are needed"


def test_the_verdict_stands_beside_the_answer_from_enough_pairs_on():
    verdict = opening_verdict(summarise(make_quads(4)))
    assert (verdict.text, verdict.state) == ("Faster at prefill and decode: 8 pairs of launches, margin 3.0 %", "met")
    slower = changed_records(make_quads(4), "threshold", 1024, lambda record: with_samples(record, ttft_factor=3.0))
    verdict = opening_verdict(summarise(slower))
    assert verdict.text.startswith("Slower at prefill, faster at decode: 8 pairs")
    assert verdict.state == "missed"
    assert opening_verdict(summarise(make_quads(5))).text.startswith("Faster at prefill and decode: 8 pairs"), (
        "10 count as 8"
    )


def test_answer_says_wrong_failed_and_nothing():
    quads = make_quads(1)
    wrong = [
        record.model_copy(update={"guard": {"causal": "failed"}}) if record.method == "threshold" else record
        for record in quads
    ]
    assert "is wrong (identity causal failed), its speed counts for nothing" in answers(summarise(wrong))[0]
    lost = [failed(record) if record.method == "threshold" else record for record in quads]
    assert answers(summarise(lost)) == ["At context 1,024, threshold gave no numbers: oom in 2 of 2 launches."]
    assert answers(summarise([])) == ["Nothing was measured."]
    assert "nothing to compare" in answers(summarise([make_record()]))[0]
    alone = [failed(record) if record.method == "dense" else record for record in quads]
    assert "11 % of tokens kept at routed layers" in answers(summarise(alone))[0]
    assert answers(summarise(alone))[0].count("no baseline to compare with") == 1
    assert opening_verdict(summarise(alone)) is None


def changed_records(records, method, context, change):
    return [
        change(record) if (record.method, record.point.workload["context"]) == (method, context) else record
        for record in records
    ]


def test_answer_tells_of_launches_that_failed_and_points_without_numbers():
    records = changed_records(make_quads(2, contexts=(1024, 4096, 16384)), "threshold", 16384, failed)
    index = next(index for index, record in enumerate(records) if record.method == "threshold")
    records[index] = failed(records[index])
    (sentence,) = answers(summarise(records))
    assert sentence.startswith("At context 4,096, threshold ("), "the longest context with a comparison"
    assert sentence.endswith("at decode. It gave no numbers at context 16,384. 1 of 4 launches at other points failed.")
    last = max(index for index, record in enumerate(records) if record.point.workload["context"] == 4096)
    records[last] = failed(records[last], "timeout")
    records = changed_records(records, "dense", 16384, failed)
    found = answers(summarise(records))
    assert found[1:] == ["dense gave no numbers at context 16,384.", "1 of 8 launches of dense failed."]
    half = make_quads(2)
    half[1], half[2] = failed(half[1]), failed(half[2])
    assert answers(summarise(half))[0].endswith("at decode. 2 of 4 launches failed.")


def test_the_verdict_says_why_there_is_none_whatever_the_pairs():
    records = make_quads(4)
    short = records[1].samples.model_copy(update={"ttft_s": records[1].samples.ttft_s[:4]})
    records[1] = records[1].model_copy(update={"samples": short})
    assert opening_verdict(summarise(records)).text == "No verdict: fewer than 5 samples per launch"


def with_samples(record, ttft_factor=1.0):
    samples = record.samples.model_copy(update={"ttft_s": [value * ttft_factor for value in record.samples.ttft_s]})
    return record.model_copy(update={"samples": samples})


@pytest.mark.parametrize(
    ("ttft_factor", "words"),
    [
        (0.25, "; 63 % of the possible time saving was realised at decode, prefill is above the ideal (see doubts)."),
        (0.95, "; all of the possible time saving was realised at prefill, 63 % at decode."),
        (2.0, "; none of the possible time saving was realised at prefill, 63 % at decode."),
    ],
    ids=["above its ideal", "at its ideal", "slower"],
)
def test_a_share_of_the_saving_is_claimed_only_where_there_was_one(ttft_factor, words):
    records = changed_records(
        make_quads(1), "threshold", 1024, lambda record: with_samples(record, ttft_factor=ttft_factor)
    )
    assert answers(summarise(records))[0].endswith(words)


def test_a_speedup_above_its_ideal_has_no_share_in_the_figures():
    records = changed_records(make_quads(1), "threshold", 1024, lambda record: with_samples(record, ttft_factor=0.25))
    assert figures(summarise(records))[0].remark == "above its ideal: see doubts"


def test_the_answer_names_what_makes_its_numbers_doubtful():
    def busy(record):
        flags = [
            "contaminated: involuntary context switches",
            "contaminated: wall time exceeds CPU time",
            *record.flags,
        ]
        return record.model_copy(update={"flags": flags})

    quads = make_quads(1, contexts=(1024, 4096))
    for method in ("dense", "threshold"):
        (sentence,) = answers(summarise(changed_records(quads, method, 4096, busy)))
        assert sentence.endswith("at decode; doubtful: contaminated.")
    (sentence,) = answers(summarise(changed_records(quads, "threshold", 1024, busy)))
    assert "doubtful" not in sentence, "another point's"


def test_figures_are_those_of_the_method_and_never_of_a_control():
    quads = make_quads(1, ("dense", "masked", "skip_layers", "threshold"))
    summary = summarise(quads)
    assert figures_title(summary) == (
        "threshold against dense, context 1,024; no verdict: two pairs of launches, 8 are needed"
    )
    assert figures(summary)[-1].remark == "at routed layers (calibrated random router)"
    main, *others = answers(summary)
    assert main.startswith("At context 1,024, threshold (")
    assert others == [
        "skip_layers: 0.50× the KV cache of dense, 1.89× as fast at prefill, 1.67× at decode.",
        "masked: 1.00× the KV cache of dense, 0.95× as fast at prefill, 0.98× at decode.",
    ]
    lost = changed_records(quads, "threshold", 1024, failed)
    assert opening_verdict(summarise(lost)).text == "skip_layers: no verdict: two pairs of launches, 8 are needed"
    assert figures(summarise(make_quads(1, ("dense", "masked")))) == []
    lost = changed_records(make_quads(1, ("dense", "masked", "threshold"), (1024, 4096)), "threshold", 4096, failed)
    assert figures_title(summarise(lost)).startswith("threshold against dense, context 1,024")
    quads = changed_records(
        make_quads(1, ("dense", "skip_layers", "threshold"), (1024, 4096)), "threshold", 4096, failed
    )
    assert figures_title(summarise(quads)).startswith("threshold against dense, context 1,024")
    assert answers(summarise(quads))[0].endswith("It gave no numbers at context 4,096.")


def test_a_wrong_baseline_has_no_figures():
    records = changed_records(
        make_quads(4), "dense", 1024, lambda r: r.model_copy(update={"guard": {"causal": "failed"}})
    )
    assert figures(summarise(records)) == []
    assert "is wrong (baseline: identity causal failed)" in answers(summarise(records))[0]
    assert "faster" not in " ".join(answers(summarise(records)))


def test_the_legend_is_the_same_sentences_everywhere_with_the_margin_of_the_run():
    document = Document(summarise(make_quads(1), tolerance=0.05))
    page, text, short = render_html(document), render_markdown(document), console_text(document, 400, is_detailed=True)
    assert all(sentence in html.unescape(page).replace("\u00a0", " ") for sentence in legend(document.summary))
    assert all(escape_markdown(sentence) in text for sentence in legend(document.summary))
    assert " ".join(short_legend(document.summary)) in short
    assert set(short_legend(document.summary)) <= set(legend(document.summary))
    assert "δ of 5.0 %" in short
    assert "98.8 %" in short


def test_keep_ratios_are_listed_for_few_layers_and_ranged_for_many():
    (group,) = keep_ratio_table(summarise(make_quads(1))).groups
    assert [row.cells for row in group.rows] == [
        ("threshold", "1, 3, 5, 7", "11 %, 11 %, 11 %, 11 %", "11 %, 11 %, 11 %, 11 %")
    ]
    row = summarise(make_quads(1)).cells[0].rows[1]
    many = {"prefill": {layer: 0.1 + layer / 100 for layer in range(9)}, "decode": {}}
    summary = summarise(make_quads(1))
    cells = (replace(summary.cells[0], rows=(replace(row, keep_ratios=many),)),)
    (group,) = keep_ratio_table(replace(summary, cells=cells)).groups
    assert group.rows[0].cells == ("threshold", "9 layers", "10 % – 18 %", "–")
    assert keep_ratio_table(summarise([make_record()])) is None


def test_an_expectation_that_was_not_checked_is_neither_met_nor_missed():
    outcome = ExpectationOutcome("threshold.ttft_s < 1", None, None, None, "not checked: no measured cell matches it")
    (row,) = expectation_table(Document(summarise(make_quads(1)), outcomes=[outcome])).rows
    assert (row.cells[0], row.state) == ("–", "plain")


def test_axes_are_worded_like_cells():
    cell = summarise(make_quads(1, contexts=(4096,))).cells[0]
    assert axes_label(cell.axes) == cell_label(cell) == "context 4,096"
    assert axes_label({"workload.context": 1024, "workload.batch": 8}) == "context 1,024 · batch 8"
    assert axes_label({}) == "the only point"


def test_footnotes_name_at_most_three_cells():
    summary = summarise(make_quads(1, contexts=(1024, 2048, 4096, 8192, 16384)))
    ids = tuple(cell.cell_id for cell in summary.cells[:4])
    note = Footnote("busy", ("threshold",), ids)
    assert footnote_text(note, summary) == "busy (threshold; at context 1,024, context 2,048, context 4,096 and 1 more)"
    assert footnote_text(Footnote("busy", ("threshold",)), summary) == "busy (threshold)"


def test_wrong_rows_are_marked_in_html_and_console():
    document = golden_document()
    page = render_html(document)
    assert page.count('<tr class="wrong" data-method="masked"><th scope="row">masked (wrong)</th>') == 6, (
        "in each table of measurements"
    )
    assert re.search("masked .* wrong$", console_text(document, 80), re.MULTILINE)
    assert "masked (wrong)" in console_text(document, 80, is_detailed=True)


def test_a_summary_without_records_renders_everywhere(tmp_path):
    document = Document(summarise([]), name="empty")
    assert "Nothing was measured." in console_text(document, 80)
    paths = write_report(tmp_path, document)
    assert sorted(path.name for path in paths) == ["report.html", "report.json", "report.md", "summary.csv"]


def test_cell_label_without_axes_names_context_and_batch():
    record = make_record(batch=8)
    record = record.model_copy(update={"point": record.point.model_copy(update={"axes": {}})})
    assert cell_label(summarise([record]).cells[0]) == "context 1,024 · batch 8"


def test_unwritable_folder_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the report"):
        write_report(tmp_path / "file", Document(summarise([])))


def test_text_colours_have_aa_contrast_in_light_and_dark():
    css = resources.files("modbench.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    pairs = re.findall(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)", css)
    light, dark = ({name: pair[index] for name, *pair in pairs} for index in (0, 1))
    for scheme in (light, dark):
        for page in ("page", "raised"):
            for name, least in {**dict.fromkeys(("text", "muted", "accent", "bad", "good"), 4.5), "edge": 3.0}.items():
                assert contrast(scheme[name], scheme[page]) >= least, f"{name} on {page}"


def test_no_color_is_respected(monkeypatch):
    import io

    from rich.console import Console

    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    render_console(golden_document(), console)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", console.file.getvalue())


@pytest.mark.parametrize(
    ("text", "markup"),
    [
        ("an 8-layer model", 'an <span class="word">8-layer</span> model'),
        ("1-<b>&1-a", '1-&lt;b&gt;&amp;<span class="word">1-a</span>'),
        ("does threshold-p pay", 'does <span class="word">threshold-p</span> pay'),
        (f"1-{'x' * 20}", f"1-{'x' * 20}"),
        ("state-of-the-art", "state-of-the-art"),
    ],
)
def test_a_short_word_with_a_hyphen_is_not_broken_and_any_text_is_escaped(text, markup):
    assert template_environment().from_string("{{ text | unbroken }}").render(text=text) == markup


def test_a_fact_of_the_setting_is_not_told_again_of_the_machine():
    records = [record.model_copy(update={"environment": {"device": "cpu"}}) for record in make_quads(1)]
    assert render_html(Document(summarise(records))).count("<dt>device</dt><dd>cpu</dd>") == 1


def test_a_page_without_measurements_has_no_empty_tables():
    page = render_html(Document(summarise([])))
    assert "<table" not in page
    assert "of the first of 0 records" not in page
