"""Limits by hand: brackets, ratios with their bounds, values at the limit, doubts, expectations."""

import pytest

from modbench.analysis import evaluate_expectations, fits, size_of, summarise
from modbench.analysis.limits import STOCK_CACHE
from modbench.record import KeepRatios, Record, Samples, Trial
from modbench.scenario import parse_expectation
from tests.modbench.record_factory import failed, make_record

KINDS = {"dense": "dense", "threshold": "threshold"}
BOUND = 65_520


def trial(method: str, context: int, status: str = "ok", role: str = "trial", quad: int = 0, **changes) -> Record:
    record = make_record(method, context=context, batch=changes.pop("batch", 1), quad=quad)
    point = record.point.model_copy(update={"cell_id": changes.pop("cell_id", "search"), "axes": {}})
    mark = Trial(axis=changes.pop("axis", "workload.context"), role=role, bound=changes.pop("bound", BOUND))
    record = record.model_copy(
        update={"point": point, "trial": mark, "launch_id": f"{method}-{context}-{role}{quad}", **changes}
    )
    return record if status == "ok" else failed(record, status)


def searched(method: str, fitting: int, failing: int | None, **changes) -> list[Record]:
    """Two trials that bracket a limit, and two launches at it."""
    trials = [trial(method, fitting, **changes)] + ([trial(method, failing, "oom", **changes)] if failing else [])
    return trials + [trial(method, fitting, role="limit", quad=quad, **changes) for quad in (0, 1)]


def both() -> list[Record]:
    return searched("dense", 1000, 1020) + searched("threshold", 1700, 1734)


def test_the_ratio_is_of_the_fitting_sizes_and_its_bounds_of_the_failing_ones():
    (found,) = summarise(both()).limits
    dense, threshold = found.limits
    assert (dense.value, dense.first_failing, dense.status) == (1000, 1020, "oom")
    assert (dense.ratio, dense.ratio_bounds) == (None, (None, None))
    assert threshold.ratio == 1.7
    assert threshold.ratio_bounds == (1700 / 1020, 1734 / 1000)


def test_at_its_bound_a_method_has_an_open_ratio_and_a_baseline_there_gives_none():
    (found,) = summarise(searched("dense", 1000, 1020) + searched("threshold", BOUND, None)).limits
    threshold = found.limits[1]
    assert threshold.is_at_bound
    assert threshold.ratio_bounds == (BOUND / 1020, None)
    (found,) = summarise(searched("dense", BOUND, None) + searched("threshold", 1700, 1734)).limits
    assert found.limits[1].ratio is None


def test_what_was_measured_at_the_limit_is_of_the_launches_there_alone():
    records = both()
    for index, (record, tpot) in enumerate(zip(records, [9.0, 9.0, 0.01, 0.03, 9.0, 9.0, 0.01, 0.02], strict=True)):
        if record.status == "ok":
            records[index] = record.model_copy(update={"samples": Samples(ttft_s=[4.0], tpot_s=[tpot])})
    (found,) = summarise(records).limits
    dense, threshold = found.row("dense"), found.row("threshold")
    assert dense.values["decode_tokens_per_s"] == pytest.approx(1 / 0.02)
    assert threshold.values["decode_tokens_per_s"] == pytest.approx(1 / 0.015)
    assert threshold.values["ttft_s"] == 4.0
    assert threshold.values["kv_cache_bytes"] == records[-1].metrics["kv_cache_bytes"]
    assert (threshold.values["context_limit"], threshold.values["context_limit_ratio"]) == (1700, 1.7)
    assert threshold.values["kv_cache_reduction"] is None, "dense is at another size"
    assert threshold.speedups == {}


def test_the_joint_keep_ratio_is_the_mean_over_routed_layers():
    any_row = [1.0, 0.2, 1.0, 0.4, 1.0, 0.6, 1.0, 0.8]
    ratios = KeepRatios(prefill=any_row, decode=[0.1] * 8, decode_any=any_row)
    records = searched("dense", 1000, 1020) + searched("threshold", 1700, 1734, keep_ratio=ratios)
    row = summarise(records).limits[0].row("threshold")
    assert row.values["keep_ratio_decode_any"] == pytest.approx(0.5)
    assert row.values["keep_ratio_decode"] == pytest.approx(0.1)


def test_the_rate_at_a_limit_is_the_total_of_all_rows():
    records = []
    for batch, status, role in ((8, "ok", "trial"), (9, "oom", "trial"), (8, "ok", "limit")):
        record = trial("dense", 64, status, role, batch=batch, axis="workload.batch", launch_id=f"{batch}-{role}")
        samples = Samples(ttft_s=[1.0], tpot_s=[0.5]) if status == "ok" else Samples()
        records.append(record.model_copy(update={"samples": samples}))
    (found,) = summarise(records).limits
    assert found.row("dense").values["decode_tokens_per_s"] == 16
    assert found.row("dense").values["batch_limit"] == 8
    assert found.row("dense").values["context_limit"] is None
    assert (found.cell.workload["batch"], found.cell.workload["context"]) == (None, 64)


def test_without_a_launch_at_the_limit_a_search_is_not_finished():
    (found,) = summarise([trial("dense", 1000), trial("dense", 1020, "oom")]).limits
    assert (found.limits[0].value, found.limits[0].first_failing) == (None, 1020)
    assert found.row("dense") is None
    assert not found.is_complete


def test_a_wrong_method_is_marked_at_its_limit_and_a_wrong_baseline_marks_all():
    wrong = {"causal": "failed"}
    found = summarise(searched("dense", 1000, 1020) + searched("threshold", 1700, 1734, guard=wrong)).limits[0]
    assert [row.is_wrong for row in found.cell.rows] == [False, True]
    found = summarise(searched("dense", 1000, 1020, guard=wrong) + searched("threshold", 1700, 1734)).limits[0]
    assert found.row("threshold").failed_identities == ("baseline: causal",)


@pytest.mark.parametrize(
    ("status", "expected"),
    [("ok", True), ("invalid", True), ("oom", False), ("timeout", False), ("crashed", False), ("failed", None),
     ("unsupported", None)],
)  # fmt: skip
def test_what_each_status_says_about_a_size(status, expected):
    record = trial("dense", 64, status)
    assert fits(record) is expected
    assert size_of(record) == 64


@pytest.mark.parametrize(
    ("environment", "device_kind", "expected"),
    [
        ({}, "cpu", None),
        ({"memory_limit_bytes": 2**30}, "cpu", 2**30),
        ({"machine": {"gpu_memory_bytes": 2**36}}, "cuda", 2**36),
        ({"machine": {"gpu_memory_bytes": 2**36}}, "cpu", None),
        ({"machine": {"gpu_memory_bytes": 2**36}, "memory_limit_bytes": 2**30}, "cuda", 2**36),
        ({"machine": {"gpu_memory_bytes": 2**36}, "device_limit_bytes": 2**30}, "cuda", 2**30),
    ],
)
def test_the_memory_to_stay_within_is_the_limit_given_or_the_gpus(environment, device_kind, expected):
    records = [record.model_copy(update={"environment": environment}) for record in both()]
    point = records[0].point.model_copy(update={"device_kind": device_kind})
    records[0] = records[0].model_copy(update={"point": point})
    assert summarise(records).limits[0].memory_limit_bytes == expected


@pytest.mark.parametrize(
    ("text", "is_met", "measured"),
    [
        ("threshold.context_limit_ratio >= 1.5", True, 1.7),
        ("threshold.context_limit_ratio >= 1.5 @ workload.batch == 1", True, 1.7),
        ("threshold.context_limit >= 2000", False, 1700),
        ("dense.context_limit >= 1000", True, 1000),
        ("threshold.prefill_speedup >= 1", False, None),
        ("dense.context_limit_ratio >= 1", False, None),
    ],
)
def test_expectations_are_checked_at_a_search(text, is_met, measured):
    (outcome,) = evaluate_expectations([parse_expectation(text, KINDS)], summarise(both()))
    assert (outcome.is_met, outcome.measured, outcome.cell_id) == (is_met, measured, "search")


def test_a_limit_that_was_not_found_meets_no_expectation():
    records = [*searched("dense", 1000, 1020), trial("threshold", 1000), trial("threshold", 2000, "failed")]
    (outcome,) = evaluate_expectations([parse_expectation("threshold.context_limit >= 1", KINDS)], summarise(records))
    assert (outcome.is_met, outcome.reason) == (False, "the method was not measured at this cell")


def test_a_search_beside_measured_cells_leaves_them_as_they_are():
    measured = [make_record(method, half=half) for half in (0, 1) for method in ("dense", "threshold")]
    alone, mixed = summarise(measured), summarise([*measured, *both()])
    assert mixed.cells == alone.cells
    assert len(mixed.limits) == 1
    assert mixed.cell("search").workload["context"] is None


def test_launches_under_different_limits_are_a_doubt_about_all_of_them():
    limited = [
        record.model_copy(update={"environment": {"memory_limit_bytes": size}})
        for size, record in zip((2**30, 2**30, 2**31, 2**31), searched("dense", 1000, 1020), strict=False)
    ]
    texts = [note.text for note in summarise(limited).footnotes]
    assert "launches of the search had different memory limits: their limits are not comparable" in texts
    same = [record.model_copy(update={"environment": {"memory_limit_bytes": 2**30}}) for record in limited]
    assert not [note for note in summarise(same).footnotes if "memory limits" in note.text]


def test_a_baseline_on_the_stock_cache_is_a_doubt_about_the_comparison():
    def texts(kv_cache: str) -> list[str]:
        records = searched("dense", 1000, 1020) + searched("threshold", 1700, 1734)
        for index, record in enumerate(records):
            if record.method == "dense":
                settings = {**record.point.settings, "kv_cache": kv_cache}
                records[index] = record.model_copy(
                    update={"point": record.point.model_copy(update={"settings": settings})}
                )
        return [note.text for note in summarise(records).footnotes]

    assert STOCK_CACHE in texts("stock")
    assert STOCK_CACHE not in texts("chunked")
