import pytest

from modbench.analysis import evaluate_expectations, summarise
from modbench.plan import build_plan
from modbench.scenario import load_scenario, parse_expectation
from tests.modbench.record_factory import failed, make_quads, make_record

KINDS = {"dense": "dense", "threshold": "threshold", "topk": "topk"}


def outcomes(text: str, records, has_overrides: bool = False):
    return evaluate_expectations([parse_expectation(text, KINDS)], summarise(records), has_overrides)


def test_a_met_expectation_carries_the_measured_value():
    (outcome,) = outcomes("threshold.kv_cache_reduction >= 1.75", make_quads(1))
    assert (outcome.is_met, outcome.cell_id, outcome.reason) == (True, "cell-1024-1", "")
    assert outcome.measured == pytest.approx(1.80, abs=0.01)


def test_a_missed_expectation_says_why():
    (outcome,) = outcomes("threshold.prefill_speedup >= 1.9", make_quads(1))
    assert (outcome.is_met, outcome.reason) == (False, "prefill_speedup is not >= 1.9")


def test_conditions_choose_the_cells():
    records = make_quads(1, contexts=(1024, 4096, 8192))
    found = outcomes("threshold.prefill_speedup >= 1.5 @ workload.context >= 4096", records)
    assert [outcome.cell_id for outcome in found] == ["cell-4096-1", "cell-8192-1"]
    both = outcomes("threshold.prefill_speedup >= 1.5 @ workload.context >= 4096 and workload.batch == 2", records)
    assert [outcome.cell_id for outcome in both] == [None]


@pytest.mark.parametrize(
    "condition",
    ["workload.batch == 1", "model.preset == bench-8x512", "model.dtype == float32", "measure.threads == 1"],
)
def test_conditions_on_what_is_no_axis_read_the_resolved_point(condition):
    (outcome,) = outcomes(f"threshold.prefill_speedup >= 1.5 @ {condition}", make_quads(1))
    assert outcome.is_met


def test_an_expectation_that_matches_no_cell_is_not_met():
    (outcome,) = outcomes("threshold.prefill_speedup >= 1 @ workload.context >= 9999", make_quads(1))
    assert (outcome.is_met, outcome.cell_id, outcome.reason) == (False, None, "no measured cell matches it")


def test_with_overrides_an_expectation_that_matches_no_cell_is_not_checked():
    (outcome,) = outcomes(
        "threshold.prefill_speedup >= 1 @ workload.context >= 9999", make_quads(1), has_overrides=True
    )
    assert (outcome.is_met, outcome.cell_id) == (None, None)
    assert outcome.reason == "not checked: no measured cell matches it"
    (checked,) = outcomes("threshold.prefill_speedup >= 1.9", make_quads(1), has_overrides=True)
    assert checked.is_met is False


def test_a_wrong_baseline_meets_no_expectation():
    records = [
        record.model_copy(update={"guard": {"causal": "failed"}}) if record.method == "dense" else record
        for record in make_quads(1)
    ]
    (outcome,) = outcomes("threshold.prefill_speedup >= 1.5", records)
    assert outcome.is_met is False
    assert outcome.reason == "the method is wrong: baseline: identity causal failed"


def test_a_condition_holds_at_a_cell_as_it_did_when_the_scenario_was_loaded(tmp_path):
    keys = ["workload.batch == 2", "model.preset == tiny", "model.dtype == float32", "model.weights == random",
            "model.geometry.head_dim == 32", "methods.threshold.keep_ratio == 0.25", "methods.threshold.gate == shared",
            "measure.device == cpu", "measure.threads == 1", "measure.attention == auto"]  # fmt: skip
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: x\nmodel: {preset: tiny}\nmethods: {dense: {}, threshold: {keep_ratio: 0.25}}\n"
        "workload: {context: 8, new_tokens: 5, prompt: {synthetic: true}}\nmatrix: {workload.batch: [1, 2]}\nexpect:\n"
        + "".join(f"- threshold.ttft_s > 0 @ {key}\n" for key in keys)
    )
    loaded = load_scenario(path)
    works = [method for cell in build_plan(loaded, "run-1", "cpu").cells for method in cell.methods]
    records = [make_record(work.method, point=work.work, point_id=work.point_id) for work in works]
    summary = summarise(records)
    assert all(outcome.is_met for outcome in evaluate_expectations(loaded.expectations, summary))


def test_a_method_that_was_not_measured_is_not_met():
    (outcome,) = outcomes("topk.ttft_s <= 1000", make_quads(1))
    assert (outcome.is_met, outcome.reason) == (False, "the method was not measured at this cell")


def test_a_failed_row_is_not_met():
    records = [failed(record) if record.method == "threshold" else record for record in make_quads(1)]
    (outcome,) = outcomes("threshold.ttft_s <= 1000", records)
    assert (outcome.is_met, outcome.reason) == (False, "no launch succeeded: 2 oom")


def test_a_wrong_row_is_not_met_however_fast_it_is():
    records = make_quads(1)
    records = [
        record.model_copy(update={"guard": {"causal": "failed"}}) if record.method == "threshold" else record
        for record in records
    ]
    (outcome,) = outcomes("threshold.prefill_speedup >= 1.5", records)
    assert not outcome.is_met
    assert outcome.measured is not None
    assert "identity causal failed" in outcome.reason


def test_an_unknown_value_is_not_met():
    (outcome,) = outcomes("threshold.peak_device_used_bytes >= 0", make_quads(1))
    assert (outcome.is_met, outcome.measured, outcome.reason) == (False, None, "the metric is not known here")
