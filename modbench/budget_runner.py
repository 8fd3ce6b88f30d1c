"""A run within a time budget: plan how many quads fit, measure them round by round, end cleanly when the time is up.

In: a loaded scenario, its folder and a budget. Out: as of any run, and a doubt in the run's file where something was left out.
Quads run through all cells before the next round begins, so that cells are reduced alike however wrong the estimates were.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from modbench.budget import (
    QuadPlan,
    chosen_text,
    cut_text,
    missing_launches,
    plan_quads,
    quad_costs,
    source_text,
    unknown_text,
)
from modbench.plan import Plan, RunSpec
from modbench.run_folder import note_budget_doubt
from modbench.runner import Runner, announce


@dataclass
class BudgetRunner(Runner):
    """One run of one scenario into one folder, within `budget_s` from `started_s` of its clock: probe and guards count."""

    budget_s: float = 0.0
    started_s: float = 0.0
    _chosen: QuadPlan | None = None  # None while the expected times are not known
    _num_before: int = 0
    _announced: set[str] = field(default_factory=set)

    def _run_looks(self, plan: Plan) -> None:
        """As without a budget, but a round of quads at a time; ends after the quad in hand when the time is up."""
        self._num_before = len(self.records)
        open_cells, done_quads = list(range(len(plan.cells))), 0
        for look in plan.looks:
            if not self._run_rounds(plan, open_cells, range(done_quads, look)):
                whole = [self._whole_quads(plan, index) for index in range(len(plan.cells))]
                left = [index for index in open_cells if whole[index] < plan.looks[-1]]
                note_budget_doubt(self.folder, cut_text(plan, self.budget_s, whole, left))
                return
            done_quads = look
            open_cells = self._open_cells(plan, open_cells)

    def _run_rounds(self, plan: Plan, open_cells: Sequence[int], quads: Iterable[int]) -> bool:
        """Measure these quads of all open cells; False where the budget ended it."""
        for quad in quads:
            for index in open_cells:
                specs = plan.quads(index, quad, 1)
                if not any(self._is_missing(spec) for spec in specs):
                    continue
                if not self._has_room(plan, open_cells, quad, specs):
                    return False
                self._announce(specs)
                self._run_specs(plan, index, plan.cells[index], specs)
        return True

    def _has_room(self, plan: Plan, open_cells: Sequence[int], quad: int, specs: Sequence[RunSpec]) -> bool:
        """Whether the plan, made anew where it is used up, holds this quad; the first quad of a try is always measured."""
        if self._chosen is None or quad >= self._chosen.num_quads:
            self._choose(plan, open_cells)
        if len(self.records) == self._num_before:
            return True
        left_s = self._seconds_left()
        if self._chosen is None or quad < self._chosen.num_quads:
            return left_s > 0
        if self._chosen.num_quads > 0:
            return False
        expected = [self._expect(spec) for spec in specs if self._is_missing(spec)]
        return sum(found.seconds for found in expected if found is not None) <= left_s

    def _choose(self, plan: Plan, open_cells: Sequence[int]) -> None:
        """Plan what is missing within the time left, and say so; once a look was reached, only another look is worth it."""
        found = quad_costs(plan, open_cells, self._is_missing, self._expect)
        if found is None:
            if len(self.records) == self._num_before:
                self.progress.say(unknown_text(self.budget_s))
            return
        costs_s, is_scaled = found
        chosen, before = plan_quads(costs_s, plan.looks, self._seconds_left()), self._chosen
        if before is not None and (chosen.num_quads <= before.num_quads or (before.is_look and not chosen.is_look)):
            return
        self._chosen = chosen
        missing = missing_launches(plan, open_cells, chosen.num_quads, self._is_missing)
        self._announce(missing)
        source = source_text(is_scaled, is_from_this_run=len(self.records) > self._num_before)
        self.progress.say(chosen_text(plan, chosen, len(missing), costs_s, self.budget_s, source))

    def _announce(self, specs: Iterable[RunSpec]) -> None:
        """Tell the display of launches that it does not expect yet."""
        new = [spec for spec in specs if self._is_missing(spec) and spec.launch_id not in self._announced]
        self._announced |= {spec.launch_id for spec in new}
        announce(self.progress, new)

    def _seconds_left(self) -> float:
        return self.budget_s - (self.clock() - self.started_s)

    def _whole_quads(self, plan: Plan, index: int) -> int:
        """How many quads of a cell are measured in full."""
        quads = (plan.quads(index, quad, 1) for quad in range(plan.looks[-1]))
        return sum(not any(self._is_missing(spec) for spec in specs) for specs in quads)
