"""`--set KEY=VALUE`: what it changes, and errors that name it instead of a line."""

from pathlib import Path

import pytest

from tests.modbench.test_scenario_example import errors, load

OVERRIDES = {
    "value": ("workload.new_tokens=1", "--set workload.new_tokens=1: got 1; expected an integer >= 2"),
    "item of an axis": ("workload.batch=[1, 0]", "--set workload.batch=[1, 0]: [1]: got 0; expected an integer >= 1"),
    "inside a section": (
        "measure={samples: 0}",
        "--set measure={samples: 0}: samples: got 0; expected an integer >= 1",
    ),
    "unknown key": ("workload.bach=1", "--set workload.bach=1: unknown key; did you mean batch?"),
    "unknown method": ("methods.treshold={}", "--set methods.treshold={}: got the unknown method 'treshold'"),
    "no equals sign": (
        "workload.batch",
        "--set workload.batch: got no '='; expected KEY=VALUE, such as --set workload.batch=8",
    ),
    "no key": ("=8", "--set =8: got the key ''; expected a dotted key, such as --set workload.batch=8"),
    "empty part": (
        "workload..batch=8",
        "--set workload..batch=8: got the key 'workload..batch'; expected a dotted key",
    ),
    "not YAML": ("workload.batch=[1", "--set workload.batch=[1: not valid YAML at column 3"),
    "inside the matrix": (
        "matrix.workload.batch=[1]",
        "--set matrix.workload.batch=[1]: got a key inside the matrix; expected the axis",
    ),
    "inside text": ("name.x=1", "--set name.x=1: name is not a mapping; expected a key that exists; name name alone"),
    "around an axis": (
        "workload={context: 5}",
        "--set workload={context: 5}: the matrix varies workload.context; expected that key",
    ),
    "preset": (
        "model.preset=llama",
        "--set model.preset=llama: got the unknown preset 'llama'; did you mean llama3-8b?",
    ),
    "surrogate": ("name=\udcff", "--set name=\\udcff: got the character '\\udcff'; expected printable text"),
}  # fmt: skip


@pytest.mark.parametrize(("override", "expected"), OVERRIDES.values(), ids=OVERRIDES)
def test_a_bad_override_is_named_instead_of_a_line(tmp_path: Path, override: str, expected: str) -> None:
    lines = errors(tmp_path, overrides=(override,))
    assert len(lines) == 1, f"expected one line, got {lines}"
    assert lines[0].startswith(expected)


def test_an_override_sets_a_value_and_the_last_one_wins(tmp_path: Path) -> None:
    loaded = load(tmp_path, overrides=("workload.seed=0x10", "measure.samples=0", "measure.samples=7"))
    assert loaded.scenario.workload.seed == 16
    assert loaded.scenario.measure.samples == 7


def test_an_override_replaces_or_collapses_an_axis(tmp_path: Path) -> None:
    replaced = load(tmp_path, overrides=("workload.batch=[4, 8, 16]",))
    assert [point.workload.batch for point in replaced.points] == [4, 8, 16] * 2
    collapsed = load(tmp_path, overrides=("workload.batch=4",))
    assert [point.axes for point in collapsed.points] == [{"workload.context": 64}, {"workload.context": 128}]
    assert {point.workload.batch for point in collapsed.points} == {4}
