"""The page of a comparison: order, honesty about what is not comparable, escaping and size. No number here was measured."""

import html
import re
from typing import Any

import pytest

from modbench.analysis.compare import SideRecords, compare_all
from modbench.analysis.comparison import ComparedSides, Comparison, Difference
from modbench.analysis.verdict import Verdict
from modbench.record import Record
from modbench.report.comparison import TITLES
from modbench.report.comparison_facts import MAX_CELL, difference_groups, short_labels, side_facts
from modbench.report.comparison_opening import NOTHING_JUDGED, badge, opening_sentences
from modbench.report.comparison_page import GROUNDS, NO_SHARED_NUMBERS, OTHER_MACHINES, render_comparison_page
from modbench.report.comparison_plots import draw_changes, draw_times
from modbench.report.comparison_rows import MAX_ROWS, change_rows, change_scale, change_text, time_rows
from modbench.report.own_numbers import MAX_GROUPS, own_numbers_table
from tests.modbench.comparison_factory import HOSTILE, inconclusive, line, sides, slower
from tests.modbench.page_checks import assert_is_well_formed, foreign_scripts
from tests.modbench.record_factory import failed, make_quads
from tests.modbench.side_factory import changed, make_interleaved, make_side, scaled, with_facts, with_metrics
from tests.modbench.test_analysis_limits import searched
from tests.modbench.test_analysis_work_differences import with_point

MAX_PAGE_BYTES = 2_000_000
PARTS = ("What is compared", "What differed", "Numbers", "Notes and doubts", "Verdict")
OTHER_MACHINE = {"cpu": "Other CPU", "num_cores": 64, "fingerprint": "beef"}


def page_of(base: list[Record], *candidates: list[Record], names: tuple[str, ...] = ("B", "C", "D")) -> str:
    """The page of runs named A, B, …, its texts as a reader sees them, checked for balance and unique ids."""
    loaded = [SideRecords("A", base), *(SideRecords(*pair) for pair in zip(names, candidates, strict=False))]
    return checked(render_comparison_page(loaded[0], loaded[1:], compare_all(loaded[0], loaded[1:])))


def checked(page: str) -> str:
    assert_is_well_formed(page)
    return page


def text_of(page: str) -> str:
    text = re.sub(r"<(svg|style|script)\b.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def two_commits() -> tuple[list[Record], list[Record]]:
    base = with_facts(make_side(contexts=(1024, 4096)), git_sha="a" * 40, started="2026-11-20T10:12:00+00:00")
    candidate = make_side("new", contexts=(1024, 4096), slower={"threshold": 1.1})
    return base, with_facts(candidate, git_sha="b" * 40, git_is_dirty=True, started="2026-11-21T09:00:00+00:00")


def two_scenarios() -> tuple[list[Record], list[Record]]:
    workload = {"context": 1024, "batch": 1, "new_tokens": 64, "prompt": {"synthetic": True}, "seed": 0}
    return make_side(), with_point(make_side("new", slower={"threshold": 0.5}), workload=workload)


def test_the_page_is_self_contained():
    page = page_of(*two_commits())
    addresses = re.findall(r'\s(?:xlink:)?(?:src|srcset|href|action|poster|data)="([^"]*)"', page)
    assert all(address.startswith("#") for address in addresses)
    assert "default-src 'none'" in page
    assert not foreign_scripts(page)


def test_a_chapter_reads_from_what_differed_over_the_numbers_to_the_verdict():
    page = page_of(*two_commits())
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", page)[:-1] == list(PARTS)
    start, end = (text_of(part) for part in (page[: page.index("<h2")], page[page.rindex("Verdict</h2>") :]))
    assert "▶ slower 16 comparisons at a margin of 3.0 %: 4 slower, 12 same. Worst: " in start
    assert "▶ slower Verdict at a margin of 3.0 %: 4 slower, 12 same." in end


def test_both_sides_tell_commit_machine_time_and_launches():
    facts = dict(side_facts(SideRecords("runs/b", two_commits()[1])))
    assert facts["Code"] == "bbbbbbbbbbbb, with changes that were not committed"
    assert facts["Machine"] == "Example CPU @ 2.0 GHz, 8 cores (f00d)"
    assert (facts["When"], facts["Launches"]) == ("2026-11-21 09:00 UTC", "32")
    silent = [failed(record) if record.method == "dense" else record for record in make_quads(1)]
    facts = dict(side_facts(SideRecords("x", silent), "2026-11-24T07:40:00+00:00"))
    assert (facts["When"], facts["Launches"]) == ("2026-11-24 07:40 UTC", "4: 2 oom, 2 ok")
    assert (facts["Scenario"], facts["Code"]) == ("not recorded", "not recorded")


def test_that_nothing_differed_is_said():
    assert "Nothing, as far as the records tell" in text_of(page_of(make_side(), make_side("new")))


def test_differences_are_grouped_and_long_values_can_be_unfolded():
    long = "x" * 500
    found = difference_groups(
        [
            Difference("workload.context", [1024, 4096], 1024),
            Difference("versions.torch", "2.1", None),
            Difference("git_sha", "a" * 40, "b" * 40),
            Difference("machine.ram_bytes", 2**30, 2**31),
            Difference("note", long, "y"),
        ]
    )
    assert [title for title, _ in found] == ["Scenario", "Code", "Machine", "Libraries", "How it ran"]
    rows = {row.key: row for _, members in found for row in members}
    assert rows["workload.context"].base.text == "1,024, 4,096"
    assert rows["versions.torch"].candidate.text == "–"
    assert (rows["git_sha"].base.text, rows["git_sha"].base.full) == ("a" * 12, "a" * 40)
    assert rows["machine.ram_bytes"].candidate.text == "2.00 GiB"
    assert (len(rows["note"].base.text), rows["note"].base.full) == (MAX_CELL, long)
    page = page_of(with_facts(make_side(), note=long), with_facts(make_side("new"), note="y"))
    assert f"…</summary>{long}</details>" in page


def test_several_candidates_have_an_overview_and_a_chapter_each():
    base, candidate = two_commits()
    page = page_of(base, candidate, make_side("same", contexts=(1024, 4096)))
    text = text_of(page)
    assert "2 runs compared with A" in text
    assert "Of 2 candidates: 1 slower; 1 same." in text
    assert re.search(r"Candidate Verdict slower same B ▶ slower 4 \d+ C ■ same – \d+ ", text)
    for number, name in ((1, "B"), (2, "C")):
        assert f'<a href="#c{number}">{name}</a>' in page
        assert f'<h2 id="c{number}">{name} compared with A</h2>' in page


@pytest.mark.parametrize(
    ("lines", "word", "state"),
    [
        ([], NOTHING_JUDGED, "refused"),
        ([line(None, ground="advisory")], NOTHING_JUDGED, "refused"),
        ([line(), inconclusive()], "inconclusive", "open"),
        ([line(), line(Verdict.FASTER, ratio=0.9)], "faster", "better"),
        ([line(Verdict.FASTER, ground="exact", metric="kv_cache_bytes")], "needs less", "better"),
        ([line(), line()], "same", "same"),
        ([slower(), line(Verdict.SLOWER, ground="exact", metric="kv_cache_bytes")], "slower, needs more", "worse"),
        ([line(Verdict.SLOWER, ground="exact", metric="context_limit")], "fits less", "worse"),
        ([line(Verdict.NOT_COMPARABLE), line()], "not comparable", "refused"),
        ([line(Verdict.FAILED), slower()], "failed", "refused"),
    ],
)
def test_the_badge_is_the_gravest_verdict(lines, word, state):
    found = badge(sides(*lines))
    assert (found.word, found.state) == (word, state)


def test_states_of_badges_have_shapes_of_their_own():
    kinds = [[slower()], [line(Verdict.FASTER)], [line()], [inconclusive()], []]
    assert len({badge(sides(*lines)).shape for lines in kinds}) == 5


def test_the_opening_tells_the_worst_and_the_best():
    faster = line(Verdict.FASTER, 1024, ratio=0.8, interval=(0.79, 0.81), ground="ratio_to_dense")
    found = opening_sentences(sides(slower(), slower(8192, ratio=1.2, interval=(1.1, 1.3)), faster, line()))
    assert found == [
        "4 comparisons at a margin of 3.0 %: 2 slower, 1 faster, 1 same.",
        "Worst: TPOT of threshold at context 8,192: +20.0 % [+10.0, +30.0].",
        "Best: TPOT of threshold, relative to dense, at context 1,024: -20.0 % [-21.0, -19.0].",
    ]
    assert opening_sentences(sides()) == ["Nothing could be judged: the runs share no point."]


def test_two_scenarios_are_not_comparable_and_each_run_answers_for_itself():
    text = text_of(page_of(*two_scenarios()))
    assert "✕ not comparable The two cannot be compared with each other: the work differs: workload.new_tokens" in text
    assert "workload.new_tokens 16 64" in text
    assert NO_SHARED_NUMBERS in text
    assert text.count("is 1.78× as fast at prefill") == 1
    assert text.count("is 3.56× as fast at prefill") == 1
    assert "threshold TTFT 576 ms ±0.5% 288 ms ±0.5%" in text
    assert "each of its own work" in text, "no reader takes the times for a comparison"
    assert "~: nothing was shown" not in text, "there is no table that the legend explains"


def test_a_search_and_a_matrix_stand_beside_each_other_without_a_verdict():
    text = text_of(page_of(make_side(), searched("dense", 1000, 1020) + searched("threshold", 1500, 1600)))
    assert "✕ nothing judged Nothing could be judged: the runs share no point." in text
    assert "threshold context that fits – 1,500" in text
    assert "workload.context 1,024 searched up to" in text


def test_two_machines_are_judged_relative_to_dense_and_their_times_shown_without_a_verdict():
    base = make_side()
    text = text_of(page_of(base, with_facts([scaled(record, 3) for record in make_side("new")], machine=OTHER_MACHINE)))
    assert "The machines are not the same, or not known" in text[: text.index("What is compared")]
    assert OTHER_MACHINES in text
    assert "dense TTFT 1.03 s ±0.5% 3.08 s ±0.5%" in text
    assert "machine.cpu Example CPU @ 2.0 GHz Other CPU" in text
    assert TITLES["ratio_to_dense"] in text


def test_why_absolute_times_have_no_verdict_stands_below_them():
    text = text_of(page_of(*two_commits()))
    assert text.index(TITLES["advisory"]) < text.index(GROUNDS["advisory"])
    paired = text_of(page_of(*make_interleaved(6, 1.1)))
    assert GROUNDS["pairs"] in paired
    assert GROUNDS["advisory"] not in paired


def test_failures_are_told_as_such():
    base, candidate = make_side(), [failed(record) for record in make_side("new")]
    text = text_of(page_of(base, candidate))
    assert "✕ failed" in text
    assert "cannot be compared with each other: no launch of the candidate is ok: " in text
    assert "dense TTFT 1.03 s ±0.5% oom × 8" in text


def test_own_numbers_are_cut_with_a_count_and_wrong_ones_marked():
    from modbench.analysis import summarise

    wrong = changed(make_quads(1), "threshold", guard={"causal": "failed"})
    table = own_numbers_table(summarise(make_quads(1)), summarise(wrong))
    assert {row.state for row in table.rows if row.cells[0] == "threshold (wrong)"} == {"wrong"}
    many = make_quads(1, contexts=tuple(range(64, 64 + MAX_GROUPS + 5)))
    table = own_numbers_table(summarise(many), summarise([]))
    assert len(table.groups) == MAX_GROUPS
    assert table.title.endswith(f"(the first {MAX_GROUPS} of {MAX_GROUPS + 5} points)")


def wide(num_points: int) -> ComparedSides:
    """Every line that a point may have, none of them unchanged."""
    lines: list[Comparison] = []
    for point in range(num_points):
        method, context = f"method-{point % 4}", 1024 + point // 4
        for metric in ("ttft_s", "tpot_s"):
            lines.append(slower(context, method=method, metric=metric, ground="ratio_to_dense"))
            lines.append(line(None, context, method=method, metric=metric, ground="advisory"))
        for metric in ("kv_cache_bytes", "kv_cache_allocated_bytes", "peak_allocated_bytes"):
            lines.append(
                line(Verdict.SLOWER, context, method=method, metric=metric, ground="exact", base=1, candidate=2)
            )
    return sides(*lines)


def test_a_page_of_two_times_500_points_stays_below_its_limit():
    records = [SideRecords(name, make_side(name)) for name in ("base", "new")]
    page = checked(render_comparison_page(records[0], records[1:], [wide(500)]))
    assert page.count("<tr") > 500 * 7
    assert len(page.encode()) < MAX_PAGE_BYTES


def test_plots_draw_the_gravest_and_count_the_rest():
    many = sides(*(line(context=context) for context in range(64, 64 + MAX_ROWS + 4)), slower(8192))
    rows, num_rows = change_rows(many)
    assert (len(rows), num_rows) == (MAX_ROWS, MAX_ROWS + 5)
    assert [row.style.word for row in rows].count("slower") == 1
    (plot,) = draw_changes(many, "changes")
    assert plot.caption.endswith("5 more are in the tables.")
    (plot,) = draw_times(time_rows(many), "times")
    assert plot.caption.endswith("5 more are in the tables.")


def test_a_change_is_drawn_with_its_interval_margin_and_verdict():
    (row,), _ = change_rows(sides(slower(), margins={"tpot_s": 0.05}))
    assert row.change == pytest.approx(0.061)
    assert row.interval == pytest.approx((0.04, 0.083))
    assert row.margin == pytest.approx((1 / 1.05 - 1, 0.05))
    assert (row.panel, row.label, row.style.word) == ("TPOT", "threshold, context 4,096", "slower")
    assert change_rows(sides(line(None, ground="advisory"), line(Verdict.NOT_COMPARABLE), line(ground="exact"))) == (
        [],
        0,
    )
    (plot,) = draw_changes(sides(slower()), "changes")
    for text in ("Change of TPOT", "threshold, context 4,096", "+6.1 %", "slower", "margin"):
        assert f">{text}<" in plot.svg
    assert draw_changes(sides(slower()), "changes")[0].svg == plot.svg, "the same comparison gives the same drawing"
    assert draw_changes(sides(), "changes") == []
    assert draw_times([], "times") == []


def test_specs_can_hide_methods_and_are_drawn_by_vega():
    import vl_convert

    compared = sides(slower(), line(context=1024, method="dense"), inconclusive(metric="ttft_s", interval=None))
    for plot in (*draw_changes(compared, "changes"), *draw_times(time_rows(compared), "times")):
        spec: dict[str, Any] = dict(plot.spec or {})
        assert spec["params"] == [{"name": "hidden", "value": []}]
        assert {"filter": "indexof(hidden, datum.method) < 0"} in spec["transform"]
        assert (spec["width"], spec["background"]) == ("container", None)
        assert all("method" in value for value in spec["data"]["values"])
        svg = vl_convert.vegalite_to_svg({**spec, "width": 400})
        assert "threshold, context 4,096" in svg


def test_each_metric_has_a_plot_of_its_own_with_times_in_our_units():
    compared = sides(slower(), slower(metric="ttft_s"))
    changes, times = draw_changes(compared, "changes"), draw_times(time_rows(compared), "times")
    assert [plot.name for plot in (*changes, *times)] == ["changes-1", "changes-2", "times-1", "times-2"]
    for plot in times:
        axis = dict(plot.spec or {})["layer"][0]["encoding"]["x"]["axis"]
        assert len(axis["values"]) <= 3
        assert " ms'" in axis["labelExpr"] or " s'" in axis["labelExpr"]


def test_ticks_of_changes_are_round_and_on_both_sides_of_zero():
    rows, _ = change_rows(sides(slower(), line()))
    scale = change_scale(rows)
    assert 0.0 in scale.ticks
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks)
    assert [change_text(tick) for tick in (-0.025, 0.0, 0.1)] == ["-2.5 %", "0 %", "+10 %"]


def test_a_verdict_is_one_badge_and_runs_without_shared_points_have_no_method_boxes():
    page = render_comparison_page(SideRecords("a", make_side()), [SideRecords("b", make_side())], [sides()])
    assert 'class="verdict' not in page
    assert '<fieldset id="methods"' not in page


def test_rows_of_one_name_stay_apart_in_a_spec():
    (plot,) = draw_changes(sides(slower(), slower(ratio=1.2)), "changes")
    names = [value["row"] for value in (plot.spec or {})["data"]["values"]]
    assert len(set(names)) == 2


@pytest.mark.parametrize(
    ("labels", "short"),
    [
        (["runs/main", "runs/change"], ["main", "change"]),
        (["a", "b/a"], ["a", "b/a"]),
        (["runs/x", "runs/x"], ["x", "x"]),
        (["runs", "runs/x"], ["runs", "runs/x"]),
        (["", "/"], ["–", "–"]),
    ],
)
def test_labels_lose_the_folders_that_all_share(labels, short):
    assert short_labels(labels) == short


@pytest.mark.parametrize("text", [*HOSTILE, "</style><script>alert(1)</script>", "{{ 7 * 7777 }}"])
def test_names_from_outside_are_only_text(text):
    def hostile(run: str) -> list[Record]:
        facts = {text: f"{run} {text * 20}", "git_sha": f"{run} {text}", "started": text, "scenario": {"name": text}}
        records = with_facts(make_side(run, methods=("dense", text)), **facts, machine={"cpu": text, text: run})
        return [
            record.model_copy(update={"flags": [text], "point": record.point.model_copy(update={"axes": {text: text}})})
            for record in records
        ]

    broken = [failed(record, error=text, phase=text) for record in hostile("broken")]
    page = page_of(hostile("base"), with_metrics(hostile("new"), text, kv_cache_bytes=1), broken, names=(text, "x"))
    assert not foreign_scripts(page)
    assert not re.search(r"<(img|a href=\"(?!#c\d|#main))", page)
    assert "onerror=" not in re.sub(r"(&lt;|\\u003c)img src=x onerror=", "", page)
    assert page.count("</style>") == page.count("<style")
    assert not set("\x1b\x00\u202e\ufffe") & set(page)
    assert "54439" not in page, "no template reads it"
