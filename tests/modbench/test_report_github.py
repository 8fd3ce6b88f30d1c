import re

import pytest

from modbench.analysis.gate import gate_result
from modbench.analysis.verdict import Verdict
from modbench.report.github import MAX_SUMMARY_BYTES, annotations, cut_summary, escape_data, escape_property
from tests.modbench.comparison_factory import HOSTILE, inconclusive, line, sides, slower

COMMAND = re.compile(r"::(error|warning|notice) title=([^:,\n]*)::([^\r\n]*)")


def kinds(*lines, counts_as=None):
    return [
        COMMAND.fullmatch(text)[1] for text in annotations(gate_result([sides(*lines)], counts_as), ["what it says"])
    ]


def test_escaping_is_githubs():
    assert escape_data("50 %\r\na: b, c") == "50 %25%0D%0Aa: b, c"
    assert escape_property("50 %\r\na: b, c") == "50 %25%0D%0Aa%3A b%2C c"


def test_the_gates_line_comes_first_and_then_each_finding():
    assert annotations(gate_result([sides(slower(reason="100 %"), line())]), ["slower: x"]) == [
        "::error title=modbench%3A slower::slower: x",
        "::error title=modbench%3A slower::threshold tpot_s at context 4,096 slower +6.1 %25 [+4.0, +8.3] (100 %25)",
    ]


def test_inconclusive_warns_and_is_an_error_only_where_it_fails_the_gate():
    assert kinds(inconclusive()) == ["warning", "warning"]
    assert kinds(inconclusive(), counts_as="pass") == ["warning", "warning"]
    assert kinds(inconclusive(), counts_as="fail") == ["error", "error"]


def test_what_is_faster_is_a_notice():
    assert kinds(line(), line(Verdict.FASTER)) == ["notice", "notice"]
    assert kinds(line(Verdict.NOT_COMPARABLE), line(Verdict.FASTER)) == ["error", "error", "notice"]


def test_of_each_kind_there_are_ten_at_most_and_the_last_counts_the_rest():
    lines = [*(slower(context) for context in range(40)), *(inconclusive(context) for context in range(40, 50))]
    texts = annotations(gate_result([sides(*lines)]), ["x"])
    errors = [text for text in texts if text.startswith("::error")]
    assert len(errors) == 10
    assert errors[-1].endswith("::and 32 more; the step summary and the log have them"), "41 with the gate's own line"
    assert len([text for text in texts if text.startswith("::warning")]) == 10


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_make_no_command_of_their_own(text):
    found = annotations(gate_result([sides(slower(method=text, reason=text))]), ["x"])
    assert len(found) == 2
    assert all(COMMAND.fullmatch(command) for command in found)


def test_a_summary_that_fits_is_left_as_it_is():
    assert cut_summary("a\nb\n", 100) == "a\nb\n"


def test_a_summary_is_cut_at_a_line_and_says_so_below_githubs_limit():
    text = "<details>\n" + "ä|row\n" * 300_000
    for before in (0, MAX_SUMMARY_BYTES - 1000):
        cut = cut_summary(text, before)
        assert len(cut.encode()) + before <= MAX_SUMMARY_BYTES < 2**20
        assert cut.endswith(
            "ä|row\n</details>\n\n**Cut here: a step summary holds 1 MiB; the job's log has everything.**\n"
        )
    assert cut_summary(text, MAX_SUMMARY_BYTES - 10) == ""
    assert cut_summary(text, 2**21) == ""
