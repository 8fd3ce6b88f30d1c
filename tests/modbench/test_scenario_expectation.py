"""Expectations: the grammar, the names they may use, and where they apply."""

from pathlib import Path

import pytest

from modbench.errors import ScenarioError
from modbench.scenario import METRICS, Condition, load_scenario
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


def test_an_expectation_applies_by_any_key_of_the_scenario(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "name: x\nmodel: {preset: tiny}\nmethods: {dense: {}, threshold: {keep_ratio: 0.2}}\n"
        "workload: {context: 64, prompt: {synthetic: true}}\nmatrix: {workload.batch: [1, 8]}\nexpect:\n"
        "- threshold.ttft_s < 5 @ workload.batch > 1 and model.preset == tiny\n"
        "- threshold.ttft_s < 5 @ methods.threshold.keep_ratio == 0.2\n"
        "- threshold.ttft_s < 5 @ workload.context >= 65\n"
    )
    loaded = load_scenario(path)
    applies = [[expectation.applies_to(point) for point in loaded.points] for expectation in loaded.expectations]
    assert applies == [[False, True], [True, True], [False, False]]


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
