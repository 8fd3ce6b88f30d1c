"""The scenario that the tests of `scenario` change, and how they load it."""

from pathlib import Path

import pytest

from modbench.errors import ScenarioError
from modbench.scenario import LoadedScenario, load_scenario

BASE = """\
name: x
model: {preset: tiny, dtype: bfloat16}
methods:
  dense:
  threshold: {threshold_p: 0.5, keep_ratio: 0.111}
workload: {context: 64, batch: 1, new_tokens: 10, prompt: {synthetic: true}}
measure: {launches: 4}
matrix:
  workload.context: [64, 128]
  workload.batch:
    - 1
    - 2
expect: ["threshold.kv_cache_reduction >= 1.75"]
"""


def load(folder: Path, text: str = BASE, overrides: tuple[str, ...] = ()) -> LoadedScenario:
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return load_scenario(path, overrides)


def errors(folder: Path, text: str = BASE, overrides: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        load(folder, text, overrides)
    assert caught.value.exit_code == 2, "a scenario error is a usage error"
    return str(caught.value).replace(str(folder / "x.yaml"), "x.yaml").splitlines()


def changed(old: str, new: str) -> str:
    assert old in BASE, f"{old!r} is not in the base scenario"
    return BASE.replace(old, new)


def test_the_example_is_valid(tmp_path: Path) -> None:
    assert load(tmp_path).scenario.name == "x"
