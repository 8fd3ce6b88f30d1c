"""`{search: max}` in the place of a size: which axis is searched, from where, and how closely.

In: the plain data of a scenario. Out: the same with a number in that place, and the `Search`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from modbench.scenario.expectation import METRICS, Expectation
from modbench.scenario.keys import replaced
from modbench.scenario.models import StrictModel
from modbench.scenario.problems import Problem, describe
from modbench.scenario.wording import show, suggestion

SMALLEST = 1  # stands for a searched size where none is given, so that what is checked of a cell holds for the smallest
COMPARISONS = frozenset(  # of a method with the baseline at the same size
    f"{phase}_{name}" for phase in ("prefill", "decode") for name in ("speedup", "share_of_ideal", "saving_realised")
) | {"end_to_end_speedup", "kv_cache_reduction", "peak_memory_reduction"}


@dataclass(frozen=True)
class Searchable:
    """How an axis is searched where the scenario does not say: first value, and the gap left as a share of the limit."""

    first: int
    resolution: float


SEARCHABLE: dict[str, Searchable] = {
    "workload.context": Searchable(1024, 0.02),
    "workload.batch": Searchable(1, 0.0),
}


class SearchSettings(StrictModel):
    """In the place of a number: the largest one that fits is searched for."""

    search: Literal["max"] = Field(description="max: the largest value that fits")
    first: Annotated[int, Field(ge=1)] | None = Field(None, alias="from", description="the first value that is tried")
    resolution: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="stop when the smallest failing value is within this share of the largest fitting one"
    )


@dataclass(frozen=True)
class Search:
    """A search along `axis`: the first value tried, and the gap that may be left as a share of the limit (0: one unit)."""

    axis: str
    first: int
    resolution: float

    @property
    def name(self) -> str:
        """The axis's key under `workload`."""
        return self.axis.rpartition(".")[2]


def take_search(data: Mapping[str, Any]) -> tuple[dict[str, Any], Search | None, list[Problem]]:
    """Replace a search by the value it starts from (or 1), and check that it is the only one and no axis of the matrix.

    Returns:
        The scenario's data with numbers only, the search if there is one, and what is wrong with it.
    """
    found, search, problems = dict(data), None, []
    workload, matrix = data.get("workload"), data.get("matrix")
    for axis, usual in SEARCHABLE.items():
        section, _, name = axis.partition(".")
        given = workload.get(name) if isinstance(workload, Mapping) else None
        if not isinstance(given, Mapping):
            continue
        found = replaced(found, [section, name], SMALLEST)
        try:
            settings = SearchSettings.model_validate(given)
        except ValidationError as error:
            problems += [_problem((section, name), finding) for finding in error.errors(include_url=False)]
            continue
        if search is not None:
            text = f"is searched as well as {search.axis}; expected one search; give one of them a number"
            problems.append(Problem((section, name), text))
            continue
        if isinstance(matrix, Mapping) and axis in matrix:
            text = "is searched, so it cannot vary; expected another axis; drop one of them"
            problems.append(Problem(("matrix", axis), text))
        found = replaced(found, [section, name], settings.first or SMALLEST)
        resolution = usual.resolution if settings.resolution is None else settings.resolution
        search = Search(axis, settings.first or usual.first, resolution)
    return found, search, problems


def _problem(path: tuple[str, str], finding: Any) -> Problem:
    key = str(finding["loc"][0])
    schemas = SearchSettings.model_json_schema()["properties"]
    if finding["type"] == "extra_forbidden":
        text = f"unknown key; {suggestion(key, list(schemas))}"
    elif finding["type"] == "missing":
        text = f"missing; expected {describe(schemas[key])}"
    else:
        text = f"got {show(finding['input'])}; expected {describe(schemas[key])}"
    return Problem((*path, key), text)


def expectation_problems(expectations: Sequence[Expectation], search: Search | None) -> list[Problem]:
    """Say which expectations are about a limit that is not searched, or about what a search does not give."""
    problems = []
    for index, expectation in enumerate(expectations):
        path, axis = ("expect", index), METRICS[expectation.metric].searched_axis
        if axis is not None and (search is None or search.axis != axis):
            text = f"got {show(expectation.text)}: {expectation.metric} is the result of a search; set {axis}: {{search: max}}"
            problems.append(Problem(path, text))
        if search is not None and expectation.metric in COMPARISONS:
            text = (
                f"got {show(expectation.text)}: in a search every method is at a size of its own, so there is no "
                f"{expectation.metric}; expected one such as {search.name}_limit_ratio"
            )
            problems.append(Problem(path, text))
        if search is not None and any(condition.axis == search.axis for condition in expectation.conditions):
            text = (
                f"got {show(expectation.text)}: {search.axis} is searched and has no value; expected other conditions"
            )
            problems.append(Problem(path, text))
    return problems
