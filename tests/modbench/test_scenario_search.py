"""`{search: max}` in a scenario: what is read, what is refused and how, and the schema that allows it."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from modbench.scenario import Search, json_schema
from tests.modbench.test_scenario_example import errors, load

SEARCHING = """\
name: x
model: {preset: tiny}
methods:
  dense:
  threshold: {keep_ratio: 0.25}
workload: {context: {search: max}, new_tokens: 5, prompt: {synthetic: true}}
matrix: {workload.new_tokens: [5, 9]}
expect: ["threshold.context_limit_ratio >= 1.5 @ workload.new_tokens == 9"]
"""


def test_a_search_starts_at_1024_tokens_and_ends_within_2_percent(tmp_path: Path) -> None:
    loaded = load(tmp_path, SEARCHING)
    assert loaded.search == Search("workload.context", 1024, 0.02)
    assert len(loaded.points) == 2


def test_a_search_of_the_batch_starts_at_1_row_and_ends_at_the_row(tmp_path: Path) -> None:
    text = SEARCHING.replace("context: {search: max}", "context: 64, batch: {search: max}").replace(
        "context_", "batch_"
    )
    assert load(tmp_path, text).search == Search("workload.batch", 1, 0.0)


def test_from_and_resolution_are_the_users(tmp_path: Path) -> None:
    text = SEARCHING.replace("{search: max}", "{search: max, from: 4096, resolution: 0.1}")
    loaded = load(tmp_path, text)
    assert loaded.search == Search("workload.context", 4096, 0.1)
    assert loaded.points[0].workload.context == 4096


def test_a_default_start_may_be_beyond_the_models_positions(tmp_path: Path) -> None:
    assert load(tmp_path, SEARCHING, ("model.max_positions=100",)).search is not None


def test_overrides_reach_into_a_search_and_replace_it(tmp_path: Path) -> None:
    found = load(tmp_path, SEARCHING, ("workload.context.from=64",)).search
    assert found == Search("workload.context", 64, 0.02)
    assert load(tmp_path, SEARCHING, ("workload.context=64", "expect=[]")).search is None


MISTAKES = {
    "misspelt": ("{search: max}", "{search: max, form: 2}", "x.yaml:6: workload.context.form: unknown key; did you mean from?"),
    "not max": ("{search: max}", "{search: min}", "x.yaml:6: workload.context.search: got 'min'; expected max"),
    "no search": ("{search: max}", "{from: 4}", "x.yaml:6: workload.context.search: missing; expected max"),
    "from": ("max}", "max, from: 0}", "x.yaml:6: workload.context.from: got 0; expected an integer >= 1"),
    "resolution": (
        "max}", "max, resolution: 2}", "x.yaml:6: workload.context.resolution: got 2; expected a number >= 0 and < 1",
    ),
    "from beyond the positions": (
        "max}", "max, from: 70000}",
        "x.yaml:6: workload.context: got 70000 with 9 new tokens; expected at most 65536 positions in all;",
    ),
    "searched twice": (
        "max}", "max}, batch: {search: max}",
        "x.yaml:6: workload.batch: is searched as well as workload.context; expected one search; give one of them a number",
    ),
    "in the matrix": (
        "workload.new_tokens: [5, 9]", "workload.context: [5, 9]",
        "x.yaml:7: matrix.workload.context: is searched, so it cannot vary; expected another axis; drop one of them",
    ),
    "a search as a value of the matrix": (
        "workload.new_tokens: [5, 9]", "workload.batch: [{search: max}]",
        "x.yaml:7: matrix.workload.batch[0]: got {'search': 'max'}; expected an integer >= 1",
    ),
    "the limit of another axis": (
        "context_limit_ratio", "batch_limit_ratio",
        "batch_limit_ratio is the result of a search; set workload.batch: {search: max}",
    ),
    "what compares methods at one size": (
        "context_limit_ratio", "kv_cache_reduction",
        "there is no kv_cache_reduction; expected one such as context_limit_ratio",
    ),
    "a saving at one size": (
        "context_limit_ratio", "prefill_saving_realised",
        "there is no prefill_saving_realised; expected one such as context_limit_ratio",
    ),
    "a condition on what is searched": (
        "workload.new_tokens == 9", "workload.context > 9",
        "workload.context is searched and has no value; expected other conditions",
    ),
    "a limit without a search": (
        "{search: max}", "64", "context_limit_ratio is the result of a search; set workload.context: {search: max}",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "text"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_one_line_each(tmp_path: Path, old: str, new: str, text: str) -> None:
    assert old in SEARCHING
    found = errors(tmp_path, SEARCHING.replace(old, new))
    assert any(text in line for line in found), found
    assert all("workload.context: got {" not in line for line in found)


@pytest.mark.parametrize("name", ["context", "batch"])
def test_the_schema_allows_a_number_or_a_search(name: str) -> None:
    data: dict[str, Any] = yaml.safe_load(SEARCHING)
    schema = json_schema()
    for value in (1, {"search": "max"}, {"search": "max", "from": 8, "resolution": 0.1}):
        jsonschema.validate({**data, "workload": {**data["workload"], name: value}}, schema)
    for value in (0, "max", {"search": "min"}, {"search": "max", "form": 8}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**data, "workload": {**data["workload"], name: value}}, schema)
