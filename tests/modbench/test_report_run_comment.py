"""A run's comment: what is in plain sight, what stays when not all of it fits, and texts from outside."""

import html
import re
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from modbench.analysis import ExpectationOutcome, break_down, summarise
from modbench.report.document import Document
from modbench.report.github_markdown import RUN_MARKER
from modbench.report.github_markdown import text as escaped
from modbench.report.run_comment import render_run_comment
from tests.modbench.comparison_factory import HOSTILE as HOSTILE_TO_GITHUB
from tests.modbench.record_factory import failed, make_quads, make_record
from tests.modbench.test_analysis_limits import both
from tests.modbench.test_report_escaping import HOSTILE, hostile_document
from tests.modbench.test_report_golden import golden_document

GITHUB_LIMIT = 65_536
HOSTILE_TO_COMMENTS = (
    "</details></summary> @user/team user/repo#12 #3 GH-4 a@b.invalid",
    ":tada: x:shipit:y :+1: :smile_cat:",
    "``` </code> ```",
    "- x",
    "1. [x] `y`",
    "@" * 400,
    "|`@" * 200,
)


def tags_of(text: str) -> set[str]:
    return set(re.findall(r"<(\w+)", MarkdownIt("commonmark").enable("table").render(text)))


def plain_sight(text: str) -> str:
    return re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)


def wide_document(num_cells: int, method: str = "threshold") -> Document:
    """Many points; the tenth has a failed launch, the twentieth an unmet expectation."""
    records = make_quads(1, ("dense", method), tuple(range(1000, 1000 + num_cells)))
    contexts = [record.point.workload["context"] for record in records]
    at = contexts.index(1010)
    records.append(failed(records[at], error=method).model_copy(update={"launch_id": "lost"}))
    outcomes = [ExpectationOutcome(method, "cell-1020-1", False, 1.0, method)]
    return Document(summarise(records), method, method, method, outcomes)


def test_failures_unmet_expectations_and_doubts_are_in_plain_sight():
    text = render_run_comment(golden_document())
    seen = plain_sight(text)
    assert text.startswith(f"{RUN_MARKER}\n")
    for part in (
        "**Failures**",
        "out of memory",
        "**Expectations not met**",
        "| ✗ |",
        "| Doubts |",
        "no verdict below",
    ):
        assert part in seen
    assert "| ✓ |" not in seen
    assert "| ✓ |" in text
    folded = re.findall(r"<details><summary>(.*?)</summary>", text)
    assert folded[:3] == ["Prefill", "Decode", "Memory"]
    assert folded[-3:] == ["How to read this", "Environment", "Reproduce"]


def test_a_good_run_says_so_in_its_heading():
    summary = summarise(make_quads(1))
    met = ExpectationOutcome("x", "cell-1024-1", True, 1.0)
    assert "### ✅ modbench ci: 1 expectation met\n" in render_run_comment(Document(summary, "ci", outcomes=[met]))
    assert "### ✅ modbench ci: measured\n" in render_run_comment(Document(summary, "ci"))
    unchecked = replace(met, is_met=None)
    assert "### ✅ modbench ci: measured\n" in render_run_comment(Document(summary, "ci", outcomes=[unchecked]))


def test_a_wrong_baseline_and_an_empty_run_are_no_success():
    wrong = [record.model_copy(update={"guard": {"causal": "failed"}}) for record in make_quads(1)]
    text = render_run_comment(Document(summarise(wrong), "ci"))
    assert "### ❌ modbench ci: 2 rows are wrong\n" in text
    assert "wrong: identity causal failed, baseline: identity causal failed |" in text
    assert "### ❌ modbench: nothing was measured\n" in render_run_comment(Document(summarise([])))


def test_verdicts_of_both_phases_are_one_word_where_they_agree():
    slow_decode = [
        record.model_copy(update={"samples": record.samples.model_copy(update={"tpot_s": [1.0] * 5})})
        for record in make_quads(10, noise=0.0)
    ]
    assert "| faster |\n" in render_run_comment(Document(summarise(make_quads(10, noise=0.0))))
    assert "| prefill faster, decode same |\n" in render_run_comment(Document(summarise(slow_decode)))


def test_a_search_shows_its_limits_in_plain_sight():
    seen = plain_sight(render_run_comment(Document(summarise(both()), "x", "How long?")))
    assert "**Longest context that fits**\n\n| Where | Method | Fits |" in seen
    assert "| 1,700 | 1,734 \\(oom\\) |" in seen


@pytest.mark.parametrize("method", ["threshold", "@" * 400, "長い名前" * 100])
def test_five_hundred_points_fit_and_the_important_ones_are_kept(method):
    text = render_run_comment(wide_document(500, method))
    assert len(text) < GITHUB_LIMIT
    assert len(text.encode()) < GITHUB_LIMIT
    assert text.count("<details>") == text.count("</details>")
    assert "rows are left out here; All points, below, has them." in plain_sight(text)
    tables = text.split("| Prefill speed-up |")[1:]
    assert len(tables) == 2, "in plain sight, and all that fit"
    for table in tables:
        shown, left_out = re.split(r"(\d+) of 1000 rows are left out here", table)[:2]
        rows = re.findall(r"^\| context ([\d,]+) \|", shown, re.MULTILINE)
        assert len(rows) == 1000 - int(left_out)
        first = list(dict.fromkeys(rows))[:3]
        assert first == ["1,499", "1,010", "1,020"][: len(first)], "the answer's point, then those with problems"
    assert "Left out here: " in text, "tables of which not one row fits"
    assert "**Failures**" in text
    assert "**Expectations not met**" in text


def test_many_long_texts_of_every_kind_fit():
    long = "@`|" * 200
    records = make_quads(1, tuple(["dense"] + [f"{index}{long}" for index in range(60)]))
    records = [
        record.model_copy(update={"flags": [f"{index}{long}"], "environment": {f"{i}{long}": long for i in range(90)}})
        for index, record in enumerate(records)
    ]
    records += [failed(make_record(context=index), error=f"{index}{long}") for index in range(60)]
    outcomes = [ExpectationOutcome(long, None, False, 1.0, long)] * 60
    text = render_run_comment(Document(summarise(records), long, long, long, outcomes))
    assert len(text.encode()) < GITHUB_LIMIT
    assert "more sentences are left out here" in text
    assert text.count("rows are left out here") >= 4
    assert "<details><summary>Reproduce</summary>" in text


def test_points_that_fit_stay_in_the_order_of_the_run():
    seen = plain_sight(render_run_comment(wide_document(21)))
    overview = seen.partition("| Prefill speed-up |")[2].partition("**Failures**")[0]
    rows = re.findall(r"^\| context ([\d,]+) \|", overview, re.MULTILINE)
    assert rows == [f"1,0{index:02}" for index in range(21) for _ in range(2)]


@pytest.mark.parametrize("text", [*HOSTILE, *HOSTILE_TO_COMMENTS, *HOSTILE_TO_GITHUB[:2]])
def test_texts_from_outside_render_as_themselves(text):
    result = render_run_comment(hostile_document(text))
    own = tags_of(render_run_comment(replace(hostile_document("plain"), breakdowns=break_down([]))))
    assert tags_of(result) == own
    outside_code = [line for line in result.splitlines() if not line.startswith("    ")]
    assert len([line for line in outside_code if "<details>" in line]) == outside_code.count("</details>") > 5
    visible, code = MarkdownIt("commonmark").enable("table").render(result).split("<pre><code>")
    assert not re.search(r"@\w|#\d|GH-\d|:[\w+-]+:", html.unescape(visible)), "GitHub makes these something else"
    assert not re.search(r"(https?|ftp):|www\.", result.partition("<summary>Reproduce")[0])
    assert code.partition("</code>")[0].count("\n") == 1, "the command is one line of code"
    assert [line for line in result.splitlines() if line.startswith("#")] == [result.splitlines()[2]]


def test_emoji_names_are_parted_by_a_space_without_width():
    assert html.unescape(escaped(":tada: 12:30 a::b")) == ":\u200btada: 12:30 a::b"
