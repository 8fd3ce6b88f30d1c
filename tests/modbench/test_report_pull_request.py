import html
import re

import pytest
from markdown_it import MarkdownIt

from modbench.analysis.comparison import Difference
from modbench.analysis.gate import gate_result
from modbench.analysis.rows import Footnote
from modbench.analysis.verdict import Verdict
from modbench.report.github_markdown import MARKER
from modbench.report.pull_request import render_pull_request
from tests.modbench.comparison_factory import HOSTILE, inconclusive, line, sides, slower

GITHUB_LIMIT = 65_536


def page(*compared, lines=("what the gate says",), command="modbench check x"):
    return render_pull_request(compared, gate_result(compared), lines, command)


def test_the_comment_reads_from_the_verdict_down():
    compared = sides(
        line(context=512),
        slower(doubts=("too few cores",)),
        line(Verdict.FASTER, 128, ratio=0.8, interval=None),
        differences=(Difference("environment.cpu", "A", None),),
        margins={"tpot_s": 0.048, "ttft_s": 0.03},
        footnotes=(Footnote("a doubt about all"),),
    )
    text = page(compared)
    parts = [
        f"{MARKER}\n\n### ❌ modbench: slower\n\n**what the gate says**\n",
        "| environment.cpu | A | – |",
        "| ci | main \\(0123456789ab\\) | working tree \\(fedcba987654\\+dirty\\) | 3 %; 4.8 % of tpot\\_s",
        "| slower | threshold tpot\\_s | context 4,096 | 1.00 ms | 1.06 ms | \\+6.1 % \\[\\+4.0, \\+8.3\\] |  |",
        "| faster | threshold tpot\\_s | context 128 |",
        "<details><summary>1 that are the same, or shown without a verdict</summary>",
        "| same | threshold tpot\\_s | context 512 |",
        "| a doubt about all | all |",
        "| too few cores | threshold tpot\\_s at context 4,096 |",
        "Reproduce with\n\n    modbench check x\n",
    ]
    places = [text.find(part) for part in parts]
    assert -1 not in places, parts[places.index(-1)]
    assert places == sorted(places)
    assert text.startswith(MARKER)


@pytest.mark.parametrize(
    ("lines", "symbol"),
    [
        ([line()], "✅"),
        ([inconclusive()], "⚠️"),
        ([line(Verdict.NOT_COMPARABLE)], "⚠️"),
        ([line(Verdict.FAILED)], "❌"),
        ([], "❌"),
    ],
)
def test_the_heading_has_a_symbol(lines, symbol):
    assert f"### {symbol} modbench: " in page(sides(*lines))


def test_an_inconclusive_that_fails_the_gate_has_its_symbol():
    compared = [sides(inconclusive())]
    text = render_pull_request(compared, gate_result(compared, "fail"), [])
    assert "### ❌ modbench: inconclusive" in text


def test_the_text_is_the_same_every_time_and_the_gravest_rows_come_first():
    lines = [inconclusive(1), slower(2), line(Verdict.FAILED, 3), slower(4, ratio=1.5)]
    assert page(sides(*lines)) == page(sides(*lines))
    assert re.findall(r"context (\d)", page(sides(*lines))) == ["3", "4", "2", "1"]


@pytest.mark.parametrize("method", ["threshold", "@`|" * 200, "長い名前" * 100])
def test_five_thousand_comparisons_fit_and_say_how_many_rows_are_left_out(method):
    changed = [slower(context, method=method, reason=method, doubts=(method,)) for context in range(2500)]
    same = [line(context=context, method=method) for context in range(2500, 5000)]
    differences = tuple(Difference(f"{method}{index}", method, method) for index in range(500))
    compared = [sides(*changed, *same, differences=differences), *(sides(margins={method: 1.0}) for _ in range(99))]
    text = page(*compared, lines=(method * 100,) * 2, command=method)
    assert len(text.encode()) < GITHUB_LIMIT
    left_out = [int(number) for number in re.findall(r"(\d+) of 2500 rows are left out here", text)]
    shown = [len(re.findall(rf"^\| {word} \|", text, re.MULTILINE)) for word in ("slower", "same")]
    assert left_out == [2500 - number for number in shown]
    assert shown[0] > 10
    assert text.count("<details>") == text.count("</details>") == 2
    assert "Reproduce with" in text


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_render_as_themselves(text):
    hostile = slower(method=text, metric=text, reason=text, doubts=(text,), axes={text: text})
    result = page(
        sides(hostile, line(context=512), differences=(Difference(text, text, text),)), lines=(text,), command=text
    )
    rendered = MarkdownIt("commonmark").enable("table").render(result)
    tags = set(re.findall(r"<(\w+)", rendered))
    assert " ".join(sorted(tags)) == "code details h3 p pre strong summary table tbody td th thead tr"
    visible, code = rendered.split("<pre><code>")
    assert not re.search(r"@\w|#\d|GH-\d", html.unescape(visible)), "GitHub links these after rendering"
    assert not re.search(r"https?:", result.partition("Reproduce")[0]), "and these while rendering"
    assert visible.count("<tr>") == 10, "no row of its own: differences, sides, changed, the same, doubts"
    assert code.count("\n") == 2, "the command is one line of code"


def test_the_commits_are_no_difference_besides_the_code():
    text = page(
        sides(line(), differences=(Difference("git_sha", "0123", "fedc"), Difference("git_is_dirty", False, True)))
    )
    assert "differ in more than the code" not in text
