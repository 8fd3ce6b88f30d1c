"""Claims against ideals and measurements: what counts as a measurement, and when a claim is met."""

import pytest

from modbench.analysis import summarise
from modbench.analysis.estimate import Budget
from modbench.analysis.prediction import Ceilings
from modbench.analysis.scoreboard import same_work, score
from modbench.estimate_target import Options, case_of
from modbench.scenario import load_scenario
from tests.modbench.record_factory import failed
from tests.modbench.scoreboard_factory import CLAIMS, records_of, write_claims

BUDGET = Budget(Ceilings(1e10, 1e11), memory_bytes=2**40, overhead_bytes=0.0)


@pytest.fixture
def loaded(tmp_path):
    return load_scenario(write_claims(tmp_path))


def scores_of(loaded, records=(), budget=BUDGET):
    cases = [case_of(point, "", Options()) for point in loaded.points]
    return score(loaded, cases, budget, same_work(loaded, summarise(records)) if records else {})


def with_claim(tmp_path, claim):
    head = CLAIMS[: CLAIMS.index("expect:")]
    return load_scenario(write_claims(tmp_path, head + f'expect: ["{claim}"]\n'))


def test_without_a_run_every_claim_is_predicted_and_open(loaded):
    scores = scores_of(loaded)
    assert len(scores) == 6
    assert {(item.source, item.outcome, item.measured) for item in scores} == {("predicted", "open", None)}
    assert all(item.predicted == item.ideal for item in scores)
    assert [item.ideal for item in scores[:2]] == pytest.approx([2 / 1.111] * 2)


def test_a_run_of_the_same_work_is_measured_and_the_prediction_stays_the_ideal(loaded):
    scores = scores_of(loaded, records_of(loaded))
    assert {item.source for item in scores} == {"measured"}
    assert {item.predicted for item in scores} == {None}
    by_claim = {item.expectation.metric: item for item in scores if item.axes == {"workload.context": 4096}}
    assert by_claim["kv_cache_reduction"].outcome == "met"
    assert by_claim["prefill_speedup"].measured == pytest.approx(1.78, abs=0.02)
    assert by_claim["prefill_speedup"].outcome == "met"
    assert by_claim["decode_speedup"].outcome == "not met"
    predicted = {item.expectation.text: item.ideal for item in scores_of(loaded)}
    assert {item.expectation.text: item.ideal for item in scores} == predicted


def test_a_run_on_another_kind_of_device_is_a_measurement_too(loaded):
    assert {item.source for item in scores_of(loaded, records_of(loaded, device_kind="cuda"))} == {"measured"}


def test_two_pairs_decide_bytes_but_no_time(loaded):
    scores = scores_of(loaded, records_of(loaded, num_quads=1))
    assert [item.outcome for item in scores] == ["met", "met", "open", "open", "open", "open"]
    assert {item.reason for item in scores[2:]} == {"no verdict below 8 pairs"}


def test_an_interval_around_the_claimed_value_leaves_it_open(tmp_path, loaded):
    measured = scores_of(loaded, records_of(loaded))[2]
    low, high = measured.interval
    assert low < high
    middle = with_claim(tmp_path, f"threshold.prefill_speedup >= {(low + high) / 2:.6f} @ workload.context == 1024")
    (item,) = scores_of(middle, records_of(middle))
    assert (item.source, item.outcome, item.reason) == ("measured", "open", "its interval holds the claimed value")


@pytest.mark.parametrize(
    "override",
    [
        "model.preset=tiny",
        "model.dtype=bfloat16",
        "methods.threshold.keep_ratio=0.2",
        "methods.dense.kv_cache=chunked",
        "workload.batch=2",
        "measure.threads=2",
    ],
)
def test_other_work_under_the_same_name_is_no_measurement(tmp_path, loaded, override):
    other = load_scenario(tmp_path / "small.yaml", [override])
    scores = scores_of(loaded, records_of(other))
    assert {(item.source, item.measured) for item in scores} == {("predicted", None)}


def test_overrides_that_leave_the_work_alone_are_a_measurement(tmp_path, loaded):
    same = load_scenario(tmp_path / "small.yaml", ["measure.launches=8", "workload.context=[4096]"])
    scores = scores_of(loaded, records_of(same))
    assert [item.source for item in scores] == ["predicted", "measured"] * 3


def test_a_method_under_another_label_is_known_by_its_work(loaded):
    records = [
        record.model_copy(update={"method": "mine"}) if record.method == "threshold" else record
        for record in records_of(loaded)
    ]
    assert {item.source for item in scores_of(loaded, records)} == {"measured"}


def test_a_point_that_ran_out_of_memory_has_no_number_and_says_why(loaded):
    records = [failed(record) if record.point.workload["context"] == 4096 else record for record in records_of(loaded)]
    scores = scores_of(loaded, records)
    assert [item.source for item in scores] == ["measured", "no number"] * 3
    assert {item.reason for item in scores[1::2]} == {"no launch succeeded: 8 oom"}
    assert all(item.ideal is not None and item.predicted is None for item in scores[1::2])


def test_a_wrong_method_has_no_number_that_counts(loaded):
    records = [
        record.model_copy(update={"guard": {"causal": "failed"}}) if record.method == "threshold" else record
        for record in records_of(loaded)
    ]
    scores = scores_of(loaded, records)
    assert {(item.source, item.measured) for item in scores} == {("no number", None)}
    assert {item.reason for item in scores} == {"the method is wrong: identity causal failed"}


def test_what_no_prediction_knows_is_not_run(tmp_path):
    (first, second) = scores_of(with_claim(tmp_path, "threshold.energy_j <= 5"))
    assert (first.source, first.ideal, first.outcome) == ("not run", None, "open")
    assert second.axes == {"workload.context": 4096}


def test_a_claim_about_a_card_is_not_measured_by_a_cpu(tmp_path):
    loaded = with_claim(tmp_path, "threshold.prefill_speedup >= 1.2 @ measure.device == cuda")
    assert len(scores_of(loaded)) == 2
    assert scores_of(loaded, records_of(loaded)) == []
    assert len(scores_of(loaded, records_of(loaded, device_kind="cuda"))) == 2


def test_a_claim_stands_only_at_the_points_it_is_about(tmp_path):
    (item,) = scores_of(with_claim(tmp_path, "threshold.prefill_speedup >= 1.2 @ workload.context >= 4096"))
    assert item.axes == {"workload.context": 4096}


def test_a_device_that_is_too_small_says_what_is_missing_to_either_side(loaded):
    small = Budget(BUDGET.ceilings, memory_bytes=2**26, overhead_bytes=0.0)
    scores = scores_of(loaded, budget=small)
    assert all(item.missing_bytes > 0 for item in scores)
    assert {item.missing_bytes for item in scores_of(loaded)} == {0.0}
