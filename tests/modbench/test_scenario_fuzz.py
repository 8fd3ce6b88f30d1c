"""Whatever the input, a scenario loads or raises `ScenarioError` with a place on every line."""

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modbench.errors import ScenarioError
from modbench.presets import PRESETS
from modbench.scenario import load_scenario
from tests.modbench.test_scenario_example import BASE

KEYS = st.sampled_from(
    [
        "name",
        "model",
        "methods",
        "workload",
        "matrix",
        "expect",
        "measure",
        "dense",
        "preset",
        "context",
        "command",
        "env",
    ]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from([*PRESETS])
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=8), inner, max_size=4)
)


def assert_only_scenario_errors(path: Path, overrides: tuple[str, ...] = ()) -> None:
    try:
        load_scenario(path, overrides)
    except ScenarioError as error:
        for line in str(error).splitlines():
            assert line.startswith((str(path), "--set ")), f"every line says where: {line!r}"


quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_arbitrary_bytes_never_escape_as_another_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(content)
    assert_only_scenario_errors(path)


@quick
@given(data=st.data())
def test_arbitrary_values_anywhere_never_escape_as_another_error(tmp_path: Path, data: st.DataObject) -> None:
    sections = ["name", "model", "methods", "workload", "measure", "matrix", "expect"]
    good: dict[str, Any] = {
        "name": "x",
        "model": {"preset": "tiny"},
        "methods": {"dense": {}, "threshold": {}},
        "workload": {"context": 8, "prompt": {"synthetic": True}},
        "measure": {},
        "matrix": {"workload.batch": [1]},
        "expect": ["threshold.ttft_s > 0"],
    }
    good[data.draw(st.sampled_from(sections))] = data.draw(VALUES)
    section = good[data.draw(st.sampled_from(sections))]
    if isinstance(section, dict):
        section[data.draw(st.sampled_from(["a", "batch", "preset", "options", *section]))] = data.draw(VALUES)
    path = tmp_path / "any.yaml"
    path.write_text(json.dumps(good))
    assert_only_scenario_errors(path)


@quick
@given(override=st.text(max_size=30) | st.tuples(KEYS, st.text(max_size=20)).map(lambda pair: f"{pair[0]}.x={pair[1]}"))
def test_arbitrary_overrides_never_escape_as_another_error(tmp_path: Path, override: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(BASE)
    assert_only_scenario_errors(path, (override,))
