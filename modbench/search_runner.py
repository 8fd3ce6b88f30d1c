"""Searches -> records: per cell and method the largest size that fits, then launches that are measured there. Never imports torch.

In: a loaded scenario with a search, and its folder. Out: a folder with every trial in `records.jsonl`. Which size comes next
follows from the records alone, so a resumed run goes on where the interrupted one stopped.
"""

from collections.abc import Collection

from modbench.analysis import LimitCell, fits, size_of
from modbench.errors import OutputError
from modbench.plan import Cell
from modbench.record import Record, append_record
from modbench.report.document import axis_value
from modbench.run_folder import claim_work
from modbench.runner import Runner, announce, cell_label
from modbench.search import LimitSearch
from modbench.search_plan import SearchLaunch, SearchPlan, build_search_plan
from modbench.units import format_bytes

SAME_BUDGET_RATIO = 0.05  # what `auto` leaves free is enough for this much


class SearchRunner(Runner):
    """One run of one scenario with a search."""

    def run(self) -> None:
        """Search every cell and method, dense first; what is on disk is not run again.

        Raises:
            UnsupportedError: the device is not there.
            OutputError: the folder is for other work.
            LaunchError: a launch server could not be started.
        """
        self.records = {record.launch_id: record for record in self.folder.records()}
        first = self.loaded.points[0]
        device_kind = self._probe(first.model.dtype, first.measure.threads).device_kind
        plan = build_search_plan(self.loaded, self.folder.run_id, device_kind)
        claim_work(self.folder, plan.work_id)
        self._keep_budget()
        for cell in plan.plan.cells:  # how many launches each takes is not known, how many points there are is
            self.progress.plan(0, 0, cell.cell_id)
        for index, cell in enumerate(plan.plan.cells):
            start = plan.first(index)
            for method_index in range(len(cell.methods)):
                start = self._search(plan, index, method_index, start) or start

    def _keep_budget(self) -> None:
        """A resumed search goes on in the memory that it began with, which `auto` may find otherwise by now.

        Raises:
            OutputError: less than that is free now.
        """
        limits = [record.environment.get("memory_limit_bytes") for record in self.records.values()]
        begun_with = next((limit for limit in limits if isinstance(limit, int)), None)
        if begun_with is None or self.loaded.scenario.measure.memory_limit != "auto":
            return
        if self.free_memory_bytes is not None and self.free_memory_bytes < begun_with * (1 - SAME_BUDGET_RATIO):
            raise OutputError(
                f"{self.folder.path}: the search began with {format_bytes(begun_with)} of memory and finds "
                f"{format_bytes(self.free_memory_bytes)} now; free some, or start a new run with measure.memory_limit"
            )
        self.free_memory_bytes = begun_with

    def _search(self, plan: SearchPlan, index: int, method_index: int, start: int) -> int | None:
        """Find the limit of one method and measure there; `start` is the first value tried, whatever fitted others."""
        cell = plan.plan.cells[index]
        method = cell.methods[method_index].method
        search = LimitSearch(start, plan.bound(index), plan.search.resolution)
        for record in self.records.values():
            if (record.point.cell_id, record.method) == (cell.cell_id, method):
                search.note(size_of(record), fits(record))
        while (launch := self._next_launch(plan, index, method_index, search)) is not None:
            self._guard(plan.trial(index, method_index, plan.first(index)).spec)  # at a size that is no strain
            record = self._run(plan, cell, launch)
            search.note(size_of(record), fits(record))
        return search.largest_fitting

    def _next_launch(self, plan: SearchPlan, index: int, method_index: int, search: LimitSearch) -> SearchLaunch | None:
        """A trial while the limit is open, then each launch at the limit; one that does not fit opens the search again."""
        if search.has_failed:
            return None
        value = search.next_value()
        if value is not None:
            return plan.trial(index, method_index, value)
        if search.largest_fitting is None:
            return None
        launches = plan.at_limit(index, method_index, search.largest_fitting)
        return next((launch for launch in launches if launch.spec.launch_id not in self.records), None)

    def _run(self, plan: SearchPlan, cell: Cell, launch: SearchLaunch) -> Record:
        """Measure one launch and append its record."""
        spec, role = launch.spec, launch.trial.role
        size = axis_value(spec.point.workload[plan.search.name])
        label = f"{cell_label(cell, spec.method)}: {plan.search.name} {size}"
        label += ", at the limit" if role == "limit" else ""
        if role == "limit":
            self.executor.renew()
        announce(self.progress, [spec])
        record = self._measure(spec, label)
        record.trial = launch.trial
        append_record(self.folder.records_path, record)
        self.records[record.launch_id] = record
        return record


def search_exit_code(limits: Collection[LimitCell], num_unmet: int) -> int:
    """0 every limit was found, 1 an expectation is not met, 5 a method has no limit or no numbers at it."""
    if not limits or not all(found.is_complete for found in limits):
        return 5
    return 1 if num_unmet else 0
