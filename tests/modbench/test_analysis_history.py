"""Runs become series: in order of time, joined where the work is the same, broken where the machine changed."""

from pathlib import Path

import pytest

from modbench.analysis import summarise
from modbench.analysis.history import HistoryRun, build_history, lines, summarise_run
from modbench.errors import OptionError
from modbench.record import Record, RecordFile
from tests.modbench.record_factory import ENVIRONMENT, failed, make_quads


def make_run(
    name: str, day: int | None, records: list[Record] | None = None, machine: str = "m1", **facts: object
) -> HistoryRun:
    environment = {**ENVIRONMENT, "machine": {"cpu": "Example", "fingerprint": machine}, "git_sha": f"{name}-sha"}
    environment |= {"started": f"2026-11-{day:02d}T10:00:00+00:00"} if day else {}
    members = make_quads(4) if records is None else records
    changed = [
        record.model_copy(update={"run_id": name, "environment": {**environment, **facts}}) for record in members
    ]
    return summarise_run(name, RecordFile(Path(name), changed, 0), None)


def wrong(record: Record) -> Record:
    return (
        record.model_copy(update={"guard": {**record.guard, "causal": "failed"}}) if record.kind != "dense" else record
    )


def test_values_and_intervals_are_those_of_the_runs_own_report():
    records = make_quads(4)
    history = build_history([make_run("a", 1, records)])
    row = next(row for row in summarise(records).cells[0].rows if row.method == "threshold")
    by_metric = {series.metric: series.points[0] for series in history.series}
    assert list(by_metric) == ["prefill_speedup", "decode_speedup", "kv_cache_reduction"]
    assert by_metric["prefill_speedup"].value == row.values["prefill_speedup"]
    assert by_metric["prefill_speedup"].interval == row.speedups["prefill_speedup"].interval is not None
    assert by_metric["kv_cache_reduction"].value == row.values["kv_cache_reduction"]
    assert by_metric["kv_cache_reduction"].interval is None


def test_fewer_than_8_pairs_have_no_interval():
    history = build_history([make_run("a", 1, make_quads(1))])
    assert history.series[0].points[0].value is not None
    assert history.series[0].points[0].interval is None


def test_runs_are_ordered_by_their_start_and_undated_ones_come_first_by_name():
    runs = [make_run("d", 3), make_run("b", None), make_run("c", 1), make_run("a", None)]
    assert [run.name for run in build_history(runs).runs] == ["a", "b", "c", "d"]


def test_undated_runs_of_one_name_stay_in_the_order_given():
    runs = [make_run("first", None), make_run("second", None)]
    renamed = [HistoryRun(**{**vars(run), "name": "same"}) for run in runs]
    assert [run.git_sha for run in build_history(renamed).runs] == ["first-sha", "second-sha"]


def test_a_start_from_beside_the_records_counts_where_they_have_none():
    bare = RecordFile(Path("a"), make_quads(1), 0)
    assert summarise_run("a", bare, "2026-01-01T00:00:00+00:00").started == "2026-01-01T00:00:00+00:00"
    dated = [r.model_copy(update={"environment": {"started": "2026-02-02T00:00:00+00:00"}}) for r in make_quads(1)]
    run = summarise_run("a", RecordFile(Path("a"), dated, 0), "2026-01-01T00:00:00+00:00")
    assert run.started == "2026-02-02T00:00:00+00:00"


def test_other_work_is_another_series_and_is_said_so():
    other = [
        r.model_copy(
            update={"point_id": "changed", "point": r.point.model_copy(update={"cell_id": "other"})}
            if r.method == "threshold"
            else {"point_id": "changed-dense", "point": r.point.model_copy(update={"cell_id": "other"})}
        )
        for r in make_quads(4)
    ]
    history = build_history(
        [make_run("a", 1), make_run("b", 2, other), make_run("c", 3)], ["threshold.prefill_speedup"]
    )
    assert [[point.run for point in series.points] for series in history.series] == [[0, 2], [1]]
    assert any("threshold: its work is not the same in all runs" in doubt for doubt in history.doubts)


def test_the_same_work_everywhere_is_no_doubt():
    assert build_history([make_run("a", 1), make_run("b", 2)]).doubts == ()


def test_lines_join_points_of_one_machine_and_break_at_gaps():
    records = [failed(r) if r.method == "threshold" else r for r in make_quads(4)]
    runs = [
        make_run("a", 1),
        make_run("b", 2, machine="m2"),
        make_run("c", 3),
        make_run("d", 4, records),
        make_run("e", 5),
        make_run("f", 6, versions={"torch": "9.9"}),
    ]
    history = build_history(runs, ["threshold.prefill_speedup"])
    (series,) = history.series
    assert history.setup_of == (0, 1, 0, 0, 0, 2)
    assert sorted([point.run for point in part] for part in lines(history, series)) == [[0, 2], [1], [4], [5]]


@pytest.mark.parametrize(("change", "gap"), [(failed, "oom × 8"), (wrong, "wrong: identity causal failed")])
def test_failed_and_wrong_rows_are_gaps_with_their_reason(change, gap):
    records = [change(r) if r.method == "threshold" else r for r in make_quads(4)]
    history = build_history([make_run("a", 1), make_run("b", 2, records)], ["threshold.prefill_speedup"])
    point = history.series[0].points[1]
    assert (point.value, point.interval, point.gap) == (None, None, gap)


def test_a_method_that_a_run_does_not_have_is_no_gap():
    history = build_history([make_run("a", 1), make_run("b", 2, make_quads(4, ("dense", "masked")))])
    assert [len(series.points) for series in history.series if series.method == "threshold"] == [1, 1, 1]


def test_a_metric_without_a_method_is_drawn_for_all_that_have_it():
    history = build_history([make_run("a", 1)], ["ttft_s", "prefill_speedup", "dense.ttft_s"])
    found = [(series.metric, series.method) for series in history.series]
    assert found == [("ttft_s", "dense"), ("ttft_s", "threshold"), ("prefill_speedup", "threshold")]


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("threshold.prefil_speedup", "unknown metric; did you mean prefill_speedup?"),
        ("treshold.prefill_speedup", "no run has that method; did you mean threshold?"),
        ("", "unknown metric"),
    ],
)
def test_unknown_names_are_the_users_error(metric, message):
    with pytest.raises(OptionError, match="--metric: got") as caught:
        build_history([make_run("a", 1)], [metric])
    assert message in str(caught.value)


def test_copies_of_a_run_count_once():
    copy = HistoryRun(**{**vars(make_run("a", 1)), "name": "copy"})
    history = build_history([make_run("a", 1), copy, make_run("b", 2)])
    assert [run.name for run in history.runs] == ["copy", "b"]
    assert "a: left out, the same run as copy" in history.doubts


def test_a_run_of_several_commits_or_machines_says_so():
    records = make_quads(2)
    mixed = [r.model_copy(update={"environment": {"git_sha": str(i % 2)}}) for i, r in enumerate(records)]
    run = summarise_run("a", RecordFile(Path("a"), mixed, 2), None)
    assert run.git_sha == "0"
    assert run.doubts == (
        "launches of 2 commits; the first is shown",
        "2 damaged lines of its records were passed over",
    )
    moved = [
        r.model_copy(update={"environment": {"machine": {"fingerprint": str(i % 2)}}}) for i, r in enumerate(records)
    ]
    assert summarise_run("a", RecordFile(Path("a"), moved, 0), None).doubts == (
        "launches on 2 machines or versions; the first is shown",
    )


def test_an_empty_file_is_a_run_without_launches():
    history = build_history([summarise_run("a", RecordFile(Path("a"), [], 0), None)])
    assert history.series == ()
    assert history.doubts == ("a: no launches",)


def test_a_changed_tree_is_noted():
    assert make_run("a", 1, git_is_dirty=True).is_dirty
    assert not make_run("a", 1, git_is_dirty=None).is_dirty
