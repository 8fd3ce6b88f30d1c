import shlex

import pytest

from modbench.analysis.comparison import ONLY_BASE
from modbench.analysis.gate import gate_result
from modbench.analysis.rows import Footnote
from modbench.analysis.verdict import Verdict
from modbench.report.gate import cell_names, change_text, gate_lines, rerun_command, subject_text, value_text
from modbench.scenario.overrides import apply_overrides
from modbench.scenario.problems import ProblemList
from tests.modbench.comparison_factory import HOSTILE, inconclusive, line, sides, slower

COMMAND = "modbench check --against main scenarios/ci.yaml"


def said(*lines, counts_as=None, rerun=lambda _: COMMAND, **changes):
    return gate_lines(gate_result([sides(*lines, **changes)], counts_as), rerun)


def test_slower_names_the_worst_point_with_its_interval_and_how_to_rerun_it_alone():
    assert said(slower(1024, ratio=1.05), slower(), line(), line(None)) == [
        "slower: threshold tpot_s at context 4,096 +6.1 % [+4.0, +8.3] and 1 more of 3; rerun that point alone: "
        f"{COMMAND} --set workload.context=4096",
        "also: 1 same",
    ]


def test_all_the_same_says_how_many_at_which_margin():
    assert said(line(), line(Verdict.FASTER, 512)) == ["same or faster: 2 of 2 comparisons (margin 3 %)"]


def test_nothing_compared_has_failed_and_says_so():
    assert said() == ["failed: nothing was compared; give two sides with methods, points and metrics in common"]


def test_counted_values_are_more_and_need_no_rerun():
    more = slower(metric="kv_cache_bytes", ground="exact", base=1000.0, candidate=1061.0, interval=None)
    assert said(more) == [
        "more: threshold kv_cache_bytes at context 4,096 +6.1 %; counted, so a rerun would say the same"
    ]


def test_inconclusive_says_what_would_decide():
    assert said(inconclusive(), inconclusive(512, ratio=0.99), line()) == [
        "inconclusive: 2 of 3 comparisons, first threshold tpot_s at context 4,096 (the interval crosses the margin); "
        "about 40 pairs would decide, more than the 20 that count: use a quieter machine or a larger --tolerance",
        "also: 1 same",
    ]
    assert said(inconclusive(pairs_needed=12), counts_as="pass") == [
        "inconclusive (counts as passed): 1 of 1 comparison, first threshold tpot_s at context 4,096 "
        f"(the interval crosses the margin); about 12 pairs would decide; rerun that point alone: {COMMAND} "
        "--set workload.context=4096"
    ]
    hopeless = said(inconclusive(pairs_needed=12), inconclusive(pairs_needed=None))[0]
    assert hopeless.endswith(
        "; no number of pairs that is worth while would decide: use a quieter machine or a larger --tolerance"
    )
    assert said(inconclusive(pairs_needed=None, interval=None), rerun=None)[0].endswith(
        "; measure on a quieter machine"
    )


def test_of_saved_runs_more_pairs_count_than_a_look_has():
    saved = inconclusive(ground="ratio_to_dense")
    assert said(saved, rerun=None)[0].endswith("; about 40 pairs a side would decide")
    many = said(inconclusive(ground="ratio_to_dense", pairs_needed=1201), rerun=None)[0]
    assert "about 1,201 pairs a side would decide, more than the 200 that count" in many


def test_not_comparable_and_failed_give_the_reason_and_the_next_step():
    assert said(line(Verdict.NOT_COMPARABLE, reason="keep ratios differ"), rerun=None) == [
        "not comparable: threshold tpot_s at context 4,096 (keep ratios differ); give both sides the same work"
    ]
    assert said(line(Verdict.FAILED, reason="candidate: oom in decode"), slower()) == [
        "failed: threshold tpot_s at context 4,096 (candidate: oom in decode); mend that, "
        f"then rerun that point alone: {COMMAND} --set workload.context=4096",
        "also: 1 slower",
    ]


def test_a_margin_above_the_tolerance_is_the_machines_noise():
    assert said(line(), margins={"tpot_s": 0.048, "ttft_s": 0.03}) == [
        "same or faster: 1 of 1 comparison (margin 4.8 %)",
        "this machine is too noisy for 3 %: the margin is 4.8 % of tpot_s",
    ]


def test_without_a_command_no_rerun_is_suggested():
    for rerun in (None, lambda _: ""):
        assert said(slower(), rerun=rerun) == ["slower: threshold tpot_s at context 4,096 +6.1 % [+4.0, +8.3]"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_on_one_line(text):
    lines = said(slower(method=text, axes={text: text}, reason=text), line(metric=text, cell_id=text))
    assert all(item.isprintable() for item in lines)
    assert len(lines) == 2


@pytest.mark.parametrize(
    "value",
    [4096, 0.5, True, "float32", "yes", "1e3", "a b", "$(touch x)", "o'clock", [1, 3], {"text": "../docs"}, None],
)
def test_a_rerun_sets_an_axis_to_the_same_value(value):
    words = shlex.split(rerun_command(COMMAND, {"workload.x": value}))
    assert words[:-2] == COMMAND.split()
    assert words[-2] == "--set"
    data = {"workload": {}, "matrix": {"workload.x": [0, value]}}
    changed = apply_overrides(data, [words[-1]], ProblemList("x.yaml", {}))
    assert changed["matrix"].get("workload.x", [changed["workload"].get("x")]) == [value]


def test_changes_are_signed_and_counted_bytes_are_told_apart():
    assert change_text(line(ratio=0.5, interval=None)) == "-50.0 %"
    assert change_text(line(ratio=None)) == ""
    tiny = line(ground="exact", metric="kv_cache_bytes", base=2.0**30, candidate=2.0**30 + 24, ratio=1 + 24 / 2**30)
    assert change_text(tiny) == "+24 B"


def test_values_have_the_unit_of_their_metric():
    assert value_text(line(), 1e-3) == "1.00 ms"
    assert value_text(line(metric="kv_cache_bytes"), 2048) == "2.00 KiB"
    assert value_text(line(metric="decode_tokens_per_s"), 1234.5) == "1,234.5"
    assert value_text(line(), None) == "–"
    relative = line(ground="ratio_to_dense")
    assert (subject_text(relative), value_text(relative, 0.5)) == ("threshold tpot_s relative to dense", "0.50×")


def test_cells_of_the_same_words_are_told_apart_by_id():
    lines = [line(), line(context=512), line(cell_id="other")]
    assert cell_names(lines) == {
        "cell-4096": "context 4,096 [cell-4096]",
        "cell-512": "context 512",
        "other": "context 4,096 [other]",
    }


def test_what_the_candidate_lacks_is_told():
    missing = (Footnote(ONLY_BASE, ("masked",)), Footnote("another doubt", ("dense",)))
    assert said(line(), footnotes=missing) == [
        "same or faster: 1 of 1 comparison (margin 3 %)",
        "not judged, for the candidate lacks it: masked",
    ]


def test_a_setting_that_is_there_already_is_not_repeated():
    command = f"{COMMAND} --set workload.context=64"
    assert rerun_command(command, {"workload.context": 64, "workload.batch": 1}) == f"{command} --set workload.batch=1"
