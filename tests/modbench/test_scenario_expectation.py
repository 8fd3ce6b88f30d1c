"""Expectations: the grammar, the names they may use, and where they apply."""

import re
from pathlib import Path

import pytest

from modbench.errors import ScenarioError
from modbench.scenario import METRICS, Condition, LoadedScenario, load_scenario
from modbench.scenario.expectation import parse_expectation

KINDS = {"dense": "dense", "threshold": "threshold", "p055": "threshold"}


def test_an_expectation_is_parsed_into_its_parts() -> None:
    parsed = parse_expectation("p055.prefill_speedup>=1.5@workload.context >= 32_768 and model.preset == tiny", KINDS)
    assert (parsed.method, parsed.metric, parsed.operator, parsed.value) == ("p055", "prefill_speedup", ">=", 1.5)
    assert parsed.conditions == (
        Condition("workload.context", ">=", 32768.0),
        Condition("model.preset", "==", "tiny"),
    )


BAD = {
    "no operator": ("threshold.ttft_s 5", "expected METHOD.METRIC OP NUMBER [@ AXIS OP VALUE [and ...]]"),
    "no metric": ("threshold >= 5", "expected METHOD.METRIC OP NUMBER"),
    "no number": ("threshold.ttft_s >= fast", "expected METHOD.METRIC OP NUMBER"),
    "infinite": ("threshold.ttft_s >= 1e999", "expected METHOD.METRIC OP NUMBER"),
    "single equals": ("threshold.ttft_s = 5", "expected METHOD.METRIC OP NUMBER"),
    "unknown method": ("treshold.ttft_s < 5", "unknown method 'treshold'; did you mean threshold?"),
    "unknown metric": (
        "threshold.prefil_speedup > 1",
        "unknown metric 'prefil_speedup'; did you mean prefill_speedup?",
    ),
    "unknown axis": ("threshold.ttft_s < 5 @ workload.contxt > 1", "unknown key 'contxt'; did you mean context?"),
    "axis is a section": ("threshold.ttft_s < 5 @ workload == 1", "workload is a section; name one key in it"),
    "axis of an unknown method": ("threshold.ttft_s < 5 @ methods.a.gate == unit", "unknown method 'a'"),
    "empty condition": ("threshold.ttft_s < 5 @", "cannot read '' after '@'"),
    "half a condition": ("threshold.ttft_s < 5 @ workload.batch > 1 and ", "cannot read '' after '@'"),
    "ordered text": ("threshold.ttft_s < 5 @ model.preset > tiny", "cannot compare 'tiny' with >; expected a number"),
}


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD)
def test_a_bad_expectation_says_what_it_found_and_what_is_allowed(text: str, expected: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_expectation(text, KINDS)
    assert expected in str(caught.value)
    assert str(caught.value).startswith(f"got {text!r}"[:60])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("operator", "met"),
    [
        (">=", [False, True, True]),
        ("<=", [True, True, False]),
        (">", [False, False, True]),
        ("<", [True, False, False]),
    ],
)
def test_is_met_compares_as_written(operator: str, met: list[bool]) -> None:
    expectation = parse_expectation(f"threshold.ttft_s {operator} 2", KINDS)
    assert [expectation.is_met(value) for value in (1.0, 2.0, 3.0)] == met


def test_a_condition_on_something_unset_never_holds() -> None:
    assert not Condition("model.max_positions", "<", 5.0).holds(None)
    assert not Condition("model.path", "==", "tiny").holds(None)
    assert not Condition("workload.batch", "==", 1.0).holds(True), "true is not 1"
    assert Condition("workload.prompt.synthetic", "==", "true").holds(True)


SCENARIO = (
    "name: x\nmodel: {preset: tiny}\nmethods: {dense: {}, threshold: {keep_ratio: 0.2}}\n"
    "workload: {context: 64, prompt: {synthetic: true}}\nmatrix: {workload.batch: [1, 8]}\nexpect:\n"
)


def load_with(folder: Path, condition: str, overrides: tuple[str, ...] = (), measure: str = "") -> LoadedScenario:
    path = folder / "x.yaml"
    path.write_text(f"{SCENARIO}- threshold.ttft_s < 5 @ {condition}\n{measure}")
    return load_scenario(path, overrides)


@pytest.mark.parametrize(
    "condition",
    [
        "workload.batch > 1 and model.preset == tiny",
        "methods.threshold.keep_ratio == 0.2",
        "model.geometry.hidden_size == 128",
        "model.weights == random",
        "measure.device == cpu",
        "measure.device == cuda",
        "measure.threads == 1",
    ],
)
def test_a_condition_may_be_on_any_key_that_is_recorded(tmp_path: Path, condition: str) -> None:
    assert load_with(tmp_path, condition).expectations


@pytest.mark.parametrize(
    ("condition", "named"),
    [
        ("workload.context >= 65 and workload.batch == 8", "workload.context >= 65"),
        ("workload.batch == 8 and workload.batch < 8", "workload.batch == 8 and workload.batch < 8"),
        ("measure.device == auto", "measure.device == auto"),
        ("model.weights == checkpoint", "model.weights == checkpoint"),
        ("model.geometry.hidden_size == 129", "model.geometry.hidden_size == 129"),
        ("methods.threshold.keep_ratio == 0.25", "methods.threshold.keep_ratio == 0.25"),
        ("model.path == somewhere", "model.path == somewhere"),
    ],
)
def test_conditions_that_no_cell_can_fulfil_are_an_error_at_load(tmp_path: Path, condition: str, named: str) -> None:
    with pytest.raises(ScenarioError, match=re.escape(f"no cell of the matrix has {named}; expected conditions")):
        load_with(tmp_path, condition)


def test_a_device_that_is_named_is_the_only_one_measured(tmp_path: Path) -> None:
    assert load_with(tmp_path, "measure.device == cuda", measure="measure: {device: 'cuda:1'}")
    with pytest.raises(ScenarioError, match=r"no cell of the matrix has measure\.device == cpu"):
        load_with(tmp_path, "measure.device == cpu", measure="measure: {device: 'cuda:1'}")


def test_overrides_may_leave_an_expectation_without_a_cell(tmp_path: Path) -> None:
    assert load_with(tmp_path, "workload.batch == 8", ("workload.batch=1",)).expectations


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("measure.samples >= 3", "expected one of measure.device"),
        ("methods.threshold.routed_layers == interleaved", "is not recorded as it is written"),
        ("workload.prompt.synthetic == true", "is not recorded as it is written"),
        ("workload.prompt == true", "is not recorded as it is written"),
        ("name == x", "is no part of the work; expected a key under model, methods, workload, measure"),
        ("question == x", "is no part of the work"),
        ("matrix == 3", "is no part of the work"),
    ],
)
def test_conditions_on_what_records_do_not_carry_are_refused(condition: str, reason: str) -> None:
    with pytest.raises(ScenarioError, match=reason):
        parse_expectation(f"threshold.ttft_s < 5 @ {condition}", KINDS)


def test_every_metric_has_a_unit_that_its_name_agrees_with() -> None:
    suffixes = {
        "_tokens_per_s": "tokens/s",
        "_bytes": "bytes",
        "_ratio": "ratio",
        "_reduction": "ratio",
        "_speedup": "ratio",
    }
    for name, metric in METRICS.items():
        unit = next((unit for suffix, unit in suffixes.items() if name.endswith(suffix)), None)
        assert unit in (None, metric.unit), f"{name} is in {metric.unit}"
        assert metric.description, f"{name} is described"
