"""Scenario with a search -> the launches of the search: a trial of one size, and the launches at the size found. Pure.

In: a loaded scenario with a `search`. Out: `RunSpec`s on demand; which sizes are tried is decided while it runs (`search.py`).

**Identity.** The launches of one search share a `cell_id` that does not know any size. A launch's `point_id` is that of its own
size: the same work has the same identity in a search and in a matrix.
"""

from dataclasses import dataclass, replace

from modbench.plan import Cell, Pair, Plan, RunSpec, build_plan, content_hash, plan_cell
from modbench.record import Role, Trial
from modbench.scenario import LoadedScenario, Point, Search

MAX_BATCH = 65_536
LAUNCHES_AT_LIMIT = 2  # with `launches: auto`: no verdict is sought there
TRIAL_MEASURE = {"samples": 1, "warmup": 0}


@dataclass(frozen=True)
class SearchLaunch:
    """One launch, and what its record says about its part in the search."""

    spec: RunSpec
    trial: Trial


@dataclass(frozen=True)
class SearchPlan:
    """The searches of a run, one per cell of the matrix and method; the cells of `plan` have their search's `cell_id`."""

    loaded: LoadedScenario
    search: Search
    plan: Plan
    device_kind: str

    @property
    def work_id(self) -> str:
        """Identity of what is searched, and in how much memory; from where and how closely may change when a run is resumed."""
        return content_hash([self.search.axis, self.loaded.scenario.measure.memory_limit, self.plan.work_id])

    def bound(self, cell_index: int) -> int:
        """The largest value that can be tried: the model's positions, or `MAX_BATCH`."""
        point = self.loaded.points[cell_index]
        if self.search.name == "batch":
            return MAX_BATCH
        return point.geometry.max_position_embeddings - point.workload.new_tokens

    def first(self, cell_index: int) -> int:
        """The value that the search of the first method starts from."""
        return min(self.search.first, self.bound(cell_index))

    def trial(self, cell_index: int, method_index: int, value: int) -> SearchLaunch:
        """Ask whether a value fits: one prefill and decode, without warm-up."""
        launch = self._launch(cell_index, method_index, value, "trial", 0)
        measure = {**launch.spec.measure, **TRIAL_MEASURE}
        return replace(launch, spec=launch.spec.model_copy(update={"measure": measure}))

    def at_limit(self, cell_index: int, method_index: int, value: int) -> list[SearchLaunch]:
        """Measure at a limit, as the scenario says."""
        launches = self.plan.launches if isinstance(self.plan.launches, int) else LAUNCHES_AT_LIMIT
        return [self._launch(cell_index, method_index, value, "limit", number) for number in range(launches)]

    def _launch(self, cell_index: int, method_index: int, value: int, role: Role, number: int) -> SearchLaunch:
        cell = self.plan.cells[cell_index]
        point = _at(self.loaded.points[cell_index], self.search, value)
        planned = plan_cell(point, self.loaded.path.parent, self.device_kind).methods[method_index]
        name = f"{self.plan.run_id}-{cell.cell_id}-{planned.point_id}-{planned.method}"
        spec = RunSpec(
            launch_id=f"{name}-{role}{number}",
            run_id=self.plan.run_id,
            point_id=planned.point_id,
            method=planned.method,
            kind=planned.kind,
            point=planned.work.model_copy(update={"cell_id": cell.cell_id}),
            measure=cell.measure,
            pair=Pair(quad=number, position=method_index),
        )
        return SearchLaunch(spec, Trial(axis=self.search.axis, role=role, bound=self.bound(cell_index)))


def build_search_plan(loaded: LoadedScenario, run_id: str, device_kind: str) -> SearchPlan:
    """Plan the searches of a scenario for one kind of device, "cpu" or "cuda".

    Raises:
        ScenarioError: two cells of the matrix are the same work.
    """
    search = loaded.search
    assert search is not None, "only a scenario with a search is planned here"
    smallest = replace(loaded, points=tuple(_at(point, search, 1) for point in loaded.points))
    plan = build_plan(smallest, run_id, device_kind)
    cells = tuple(_searched(cell, search) for cell in plan.cells)
    return SearchPlan(loaded, search, replace(plan, cells=cells), device_kind)


def _searched(cell: Cell, search: Search) -> Cell:
    return replace(cell, cell_id=content_hash({"search": search.axis, "cell": cell.cell_id}))


def _at(point: Point, search: Search, value: int) -> Point:
    return point.model_copy(update={"workload": point.workload.model_copy(update={search.name: value})})
