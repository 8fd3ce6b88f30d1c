"""A scenario file -> `LoadedScenario`: the one function that reads, overrides, validates and resolves.

In: a path and `--set` texts. Out: everything a plan needs, or one `ScenarioError` with a line for each thing wrong.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from modbench.errors import ScenarioError
from modbench.scenario.cells import CellResolver
from modbench.scenario.expectation import Expectation, parse_expectation, unmatched_condition
from modbench.scenario.keys import replaced
from modbench.scenario.labels import name_kinds
from modbench.scenario.matrix import axis_problems, cells, num_cells
from modbench.scenario.models import Point, Scenario
from modbench.scenario.overrides import apply_overrides
from modbench.scenario.problems import Problem, ProblemList, pydantic_problems
from modbench.scenario.quality import QualityWork, quality_expectation_problems, resolve_quality
from modbench.scenario.search import Search, expectation_problems, take_search
from modbench.scenario.source import KeyPath, parse_scenario_text, read_scenario_text
from modbench.scenario.wording import shorten, show


@dataclass(frozen=True)
class LoadedScenario:
    """A valid scenario: its file, its models with overrides applied, and the cells of its matrix in order.

    With a `search`, the searched size of the scenario and its points is only where the search starts.
    """

    path: Path
    text: str
    text_sha256: str
    scenario: Scenario
    points: tuple[Point, ...]
    expectations: tuple[Expectation, ...]
    overrides: tuple[str, ...] = ()
    search: Search | None = None
    quality: QualityWork | None = None


def load_scenario(path: Path, overrides: Sequence[str] = ()) -> LoadedScenario:
    """Load a scenario file with `--set KEY=VALUE` overrides, and check every cell of its matrix.

    A list given for an axis of the matrix replaces the axis; anything else removes the axis and sets the key.
    Paths in the file are relative to the file's folder. Without overrides, every expectation applies at some cell.

    Raises:
        ScenarioError: one line per problem, at most 20: `FILE:LINE: KEY: found; allowed; what to do`.
    """
    text = read_scenario_text(path)
    source = parse_scenario_text(text, str(path))
    problems = ProblemList(str(path), source.lines)
    data = apply_overrides(source.data, overrides, problems)
    data, search, search_problems = take_search(data)
    problems.add(search_problems)
    scenario, data, kinds = _validate_file(data, problems)
    points = _resolve_cells(data, scenario.matrix, path.parent, problems)
    expectations = _parse_expectations(scenario.expect, kinds, problems)
    problems.add(expectation_problems(expectations, search))
    problems.add(quality_expectation_problems(expectations, scenario))
    quality, quality_problems = resolve_quality(scenario, points, path.parent, search is not None)
    problems.add(quality_problems)
    problems.raise_if_any(num_cells=num_cells(scenario.matrix))
    if not overrides:  # they may shrink the matrix for a short run: then the analysis leaves the expectation unchecked
        problems.add(_unmatched(expectations, points))
        problems.raise_if_any()
    return LoadedScenario(
        path=path,
        text=text,
        text_sha256=hashlib.sha256(text.encode()).hexdigest(),
        scenario=scenario,
        points=points,
        expectations=expectations,
        overrides=tuple(overrides),
        search=search,
        quality=quality,
    )


def _validate_file(data: dict[str, Any], problems: ProblemList) -> tuple[Scenario, dict[str, Any], dict[str, str]]:
    """Validate the file's own values and its axes; return the scenario, its data and the methods' kinds."""
    kinds: dict[str, str] = {}
    methods, matrix = data.get("methods"), data.get("matrix")
    label_problems: list[Problem] = []
    if isinstance(methods, Mapping):
        settings, kinds, label_problems = name_kinds(methods)
        data = {**data, "methods": settings}
        problems.add(label_problems)
    if isinstance(matrix, Mapping) and not label_problems:
        problems.add(axis_problems(matrix, kinds))
    scenario = _validate(data, kinds, problems)
    problems.raise_if_any()
    assert scenario is not None, "a scenario without problems is valid"
    return scenario, data, kinds


def _validate(
    data: dict[str, Any],
    kinds: Mapping[str, str],
    problems: ProblemList,
    moved: Mapping[KeyPath, KeyPath] | None = None,
    cell: str = "",
) -> Scenario | None:
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        problems.add(pydantic_problems(error, kinds), moved, cell)
        return None


def _resolve_cells(
    data: dict[str, Any], matrix: Mapping[str, list[Any]], base: Path, problems: ProblemList
) -> tuple[Point, ...]:
    resolver = CellResolver(base)
    kinds = {label: settings["method"] for label, settings in data["methods"].items()}
    points = []
    for indices in cells(matrix):
        axes = {key: matrix[key][index] for key, index in indices.items()}
        moved: dict[KeyPath, KeyPath] = {
            tuple(key.split(".")): ("matrix", key, index) for key, index in indices.items()
        }
        name = ", ".join(f"{key}={show(value)}" for key, value in axes.items())
        cell_data = {key: value for key, value in data.items() if key not in ("quality", "matrix", "expect")}
        try:
            for key, value in axes.items():
                cell_data = replaced(cell_data, key.split("."), value)
        except ScenarioError as error:
            problems.add([Problem(("matrix", key), str(error))])
            break
        scenario = _validate(cell_data, kinds, problems, moved, name)
        found = resolver.resolve(scenario, axes) if scenario else []
        if isinstance(found, Point):
            points.append(found)
        else:
            problems.add(found, moved, name)
    return tuple(points)


def _parse_expectations(
    texts: Sequence[str], kinds: Mapping[str, str], problems: ProblemList
) -> tuple[Expectation, ...]:
    expectations = []
    for index, text in enumerate(texts):
        try:
            expectations.append(parse_expectation(text, kinds))
        except ScenarioError as error:
            problems.add([Problem(("expect", index), str(error))])
    return tuple(expectations)


def _unmatched(expectations: Sequence[Expectation], points: Sequence[Point]) -> list[Problem]:
    problems = []
    for index, expectation in enumerate(expectations):
        condition = unmatched_condition(expectation.conditions, points)
        if condition is not None:
            text = (
                f"got {show(expectation.text)}: no cell of the matrix has {shorten(condition)}; "
                "expected conditions that hold at one cell or more; change them, or the matrix"
            )
            problems.append(Problem(("expect", index), text))
    return problems
