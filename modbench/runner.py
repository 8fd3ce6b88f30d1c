"""Plan -> records -> report: probes the device, guards every method, runs the quads, resumes, prunes. Never imports torch.

In: a loaded scenario and its folder. Out: a folder with `records.jsonl` and the report, and an exit code (docs/measuring.md).
"""

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modbench import __version__, machine_cache
from modbench.analysis import comparisons, exhausted_methods, margins_of, undecided_cells
from modbench.analysis.verdict import DEFAULT_TOLERANCE
from modbench.budget import expected_text, quad_costs, source_text
from modbench.errors import EntryNotAllowedError, LaunchError, UnsupportedError
from modbench.executors.local import LocalExecutor
from modbench.job import OUTCOME_SUFFIX, TOKENS_SUFFIX, GuardReport, Job, Probe, failed_record
from modbench.keep_mapping import map_launches
from modbench.launch_costs import Expected, LaunchCosts
from modbench.memory_limit import automatic_limit, job_limits
from modbench.noise_floor import known_floor
from modbench.plan import Cell, Plan, RunSpec, build_plan, content_hash
from modbench.provenance import git_state, source_digest
from modbench.quality_launches import evaluate_methods
from modbench.record import NOISE_FLOOR, GuardResult, Record, append_record
from modbench.report.document import axes_label
from modbench.report.progress import RunProgress
from modbench.run_folder import LOG_FILE, PARTIAL_SUFFIX, RunFolder, claim_work, locked
from modbench.scenario import LoadedScenario, runs_foreign_code
from modbench.tracing import trace_launches

STOPS_SERIES = ("oom", "timeout", "crashed")  # a larger point of the same series would fare no better
PROBE_TIMEOUT_S = 300.0
RESULT_SUFFIX, PROGRESS_SUFFIX = ".result.json", ".progress.json"
GUARD_RAN = "guard_ran"  # stands in the place of the identities where the guard itself did not finish
RESUMED_FLAG = "a launch of its quad was measured in an earlier, interrupted run"


@dataclass
class Runner:
    """One run of one scenario into one folder."""

    loaded: LoadedScenario
    folder: RunFolder
    allow_entry: bool
    progress: RunProgress
    executor: LocalExecutor
    is_traced: bool = False
    is_mapped: bool = False
    records: dict[str, Record] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    noise_floors: Mapping[str, float] = field(default_factory=dict)
    free_memory_bytes: int | None = field(default_factory=automatic_limit)
    git_facts: Mapping[str, Any] = field(default_factory=git_state)
    sources_sha256: str = field(default_factory=source_digest)
    side_facts: Mapping[str, Any] = field(default_factory=dict)
    costs: LaunchCosts = field(default_factory=LaunchCosts)
    clock: Callable[[], float] = time.monotonic
    _probes: dict[tuple[str, int], Probe] = field(default_factory=dict)
    _guards: dict[str, GuardReport] = field(default_factory=dict)

    def run(self) -> None:
        """Measure everything that is planned and not on disk.

        Raises:
            UnsupportedError: the device is not there.
            OutputError: the folder is for other work.
            LaunchError: a launch server could not be started.
        """
        self.records = {record.launch_id: record for record in self.folder.records()}
        first = self.loaded.points[0]
        plan = build_plan(
            self.loaded, self.folder.run_id, self._probe(first.model.dtype, first.measure.threads).device_kind
        )
        claim_work(self.folder, plan.work_id)
        self._look_up_noise(plan)
        self._note_failures_on_disk(plan)
        for index in range(len(plan.cells)):  # all guards first, so that none stands between two launches
            for spec in plan.quads(index, 0, 1):
                if self._is_missing(spec):
                    self._guard(spec)
        self._run_looks(plan)
        if self.is_traced:
            trace_launches(
                plan,
                self.records.values(),
                self.folder.path,
                self.executor,
                lambda spec: self._job("trace", spec, {}, {}),
                self.progress,
            )
        if self.is_mapped:
            map_launches(
                plan,
                self.records.values(),
                self.folder.path,
                self.executor,
                lambda spec: self._job("keep_map", spec, {}, {}),
                self.progress,
            )
        if self.loaded.quality is not None:
            evaluate_methods(
                plan,
                self.loaded.quality,
                self.folder.path,
                self.executor,
                lambda spec: self._job("quality", spec, {}, {}),
                self.progress,
            )

    def _look_up_noise(self, plan: Plan) -> None:
        """What a calibration found here; nothing where there was none."""
        point = self.loaded.points[0]
        probe = self._probe(point.model.dtype, point.measure.threads)
        fingerprint = probe.environment["machine"]["fingerprint"]
        cell_ids = [cell.cell_id for cell in plan.cells]
        floor = known_floor(fingerprint, probe.device_kind, point.measure.threads, cell_ids)
        self.noise_floors = floor.floors if floor is not None else {}

    def _note_failures_on_disk(self, plan: Plan) -> None:
        for index, cell in enumerate(plan.cells):
            for record in self.records.values():
                if record.point.cell_id == cell.cell_id and record.status in STOPS_SERIES:
                    self._note_failure(plan, index, record)

    def _run_looks(self, plan: Plan) -> None:
        """The quads of every cell, look by look; a cell whose comparisons are all decided gets no further look."""
        open_cells, done_quads = list(range(len(plan.cells))), 0
        self._say_expected(plan)
        for look in plan.looks:
            specs_of = {index: plan.quads(index, done_quads, look - done_quads) for index in open_cells}
            missing = [spec for specs in specs_of.values() for spec in specs if self._is_missing(spec)]
            announce(self.progress, missing)
            for index, specs in specs_of.items():
                self._run_specs(plan, index, plan.cells[index], specs)
            done_quads = look
            open_cells = self._open_cells(plan, open_cells)

    def _open_cells(self, plan: Plan, cells: Iterable[int]) -> list[int]:
        """Those of the cells that another look could still decide."""
        records = list(self.records.values())
        margins = margins_of(DEFAULT_TOLERANCE, self.noise_floors)
        undecided = undecided_cells(comparisons(records), exhausted_methods(records) | set(self.failures), margins)
        return [index for index in cells if plan.cells[index].cell_id in undecided]

    def _say_expected(self, plan: Plan) -> None:
        """What the run will take, where earlier launches tell."""
        found = quad_costs(plan, range(len(plan.cells)), self._is_missing, self._expect)
        if found is not None and (text := expected_text(plan, found[0], source_text(found[1], is_from_this_run=False))):
            self.progress.say(text)

    def _is_missing(self, spec: RunSpec) -> bool:
        return spec.launch_id not in self.records

    def _expect(self, spec: RunSpec) -> Expected | None:
        """What a launch will take; nothing where it will be pruned."""
        if (spec.point.cell_id, spec.method) in self.failures:
            return Expected(0.0, is_scaled=False)
        return self.costs.expect(spec, self._machine(spec))

    def _machine(self, spec: RunSpec) -> str:
        """The fingerprint of the machine that runs it."""
        fingerprint: str = self._probe(spec.point.dtype, spec.point.threads).environment["machine"]["fingerprint"]
        return fingerprint

    def _run_specs(self, plan: Plan, index: int, cell: Cell, specs: Sequence[RunSpec]) -> None:
        """Measure what is not on disk yet; every record is appended before the next launch starts."""
        missing = [spec for spec in specs if self._is_missing(spec)]
        on_disk = {spec.pair.quad for spec in specs if not self._is_missing(spec)}
        quad = None
        for spec in missing:
            if spec.pair.quad != quad:  # a new server per quad
                self.executor.renew()
                quad = spec.pair.quad
            reason = self.failures.get((cell.cell_id, spec.method))
            started = self.clock()
            record = self._measure(spec, cell_label(cell, spec.method), reason)
            if reason is None:
                self.costs.add(spec, self._machine(spec), self.clock() - started)
            if spec.pair.quad in on_disk:
                record.flags.append(RESUMED_FLAG)
            append_record(self.folder.records_path, record)
            self.records[record.launch_id] = record
            if record.status in STOPS_SERIES:
                self._note_failure(plan, index, record)

    def _measure(self, spec: RunSpec, label: str, reason: str | None = None) -> Record:
        """One launch; with a `reason` it is pruned for that."""
        guard = self._guard(spec) if reason is None else GuardReport(identities={})
        guard_facts = {"guard_detail": guard.detail, "declared": guard.declared, "flip_ratio": guard.flip_ratio}
        job = self._job("launch", spec, guard.identities, guard_facts)
        started = time.monotonic()
        self.progress.start(label, spec.point.cell_id)
        if reason is not None:
            record = failed_record(job, "pruned", "start", reason, None)
        else:
            result = self.executor.run(job, spec.measure["timeout_s"])
            if result.record is None:
                raise LaunchError(f"launch {spec.launch_id}: the worker gave no record: {result.error}")
            record = result.record
        assert record.launch_id == spec.launch_id, "a result file belongs to one job"
        self.progress.done(label, record.status, time.monotonic() - started, work_tokens(spec), record.error or "")
        return record

    def _note_failure(self, plan: Plan, index: int, record: Record) -> None:
        """The rest of this point and all larger points of the series are pruned for this method."""
        cell = plan.cells[index]
        self.failures.setdefault(
            (cell.cell_id, record.method), f"an earlier launch of this point ended as {record.status} in {record.phase}"
        )
        for larger in plan.larger_cells(index):
            self.failures.setdefault(
                (plan.cells[larger].cell_id, record.method),
                f"the smaller point ({axes_label(cell.axes)}) ended as {record.status} in {record.phase}",
            )

    def _probe(self, dtype: str, threads: int) -> Probe:
        """The device and its ceilings at this dtype and thread count."""
        key = (dtype, threads)
        if key not in self._probes:
            self.progress.note("looking at the device")
            device = self.loaded.scenario.measure.device
            job = self._job("probe", None, {}, {}, device=device, dtype=dtype, threads=threads)
            result = self.executor.run(job, PROBE_TIMEOUT_S)
            if result.probe is None:
                raise UnsupportedError(f"device {device}: {result.error}")
            self._probes[key] = result.probe
        return self._probes[key]

    def _guard(self, spec: RunSpec) -> GuardReport:
        """The same-work guard's outcome for this method at this model geometry, measured once per version and machine kind."""
        environment = self._probe(spec.point.dtype, spec.point.threads).environment
        key = {
            "model": spec.point.model,
            "geometry": spec.point.geometry.model_dump(mode="json"),
            "method": [spec.kind, spec.point.settings],
            "seed": spec.point.workload["seed"],
            "numerics": [spec.point.dtype, spec.point.device_kind, spec.point.attention, spec.point.threads],
            "versions": environment["versions"],
            "machine": environment["machine"]["fingerprint"],
            "sources": self.sources_sha256,
        }
        name = content_hash(key)
        if name not in self._guards:
            cached = None if runs_foreign_code(spec.kind) else machine_cache.load("guard", key)
            if cached is not None:
                self._guards[name] = GuardReport.model_validate(cached)
            else:
                self._guards[name] = self._run_guard(spec)
                if GUARD_RAN not in self._guards[name].identities:
                    machine_cache.store("guard", key, self._guards[name].model_dump(mode="json"))
        return self._guards[name]

    def _run_guard(self, spec: RunSpec) -> GuardReport:
        self.progress.note(f"checking that {spec.method} does the same work")
        result = self.executor.run(self._job("guard", spec, {}, {}), spec.measure["timeout_s"])
        if result.guard is not None:
            return result.guard
        return GuardReport(identities={GUARD_RAN: "failed"}, detail=f"the guard did not finish: {result.error}")

    def _job(
        self,
        kind: Any,
        spec: RunSpec | None,
        guard: dict[str, GuardResult],
        facts: dict[str, Any],
        device: str = "",
        dtype: str = "float32",
        threads: int = 1,
    ) -> Job:
        limits = job_limits("auto", self.free_memory_bytes, "")
        if spec is not None:
            probe = self._probe(spec.point.dtype, spec.point.threads)
            device, dtype, threads = probe.device, spec.point.dtype, spec.point.threads
            limits = job_limits(self.loaded.scenario.measure.memory_limit, self.free_memory_bytes, probe.device_kind)
            facts = {**facts, **probe.environment, **self._common_facts(), **limits, "ceilings": probe.ceilings}
        name = secrets.token_hex(8)  # a late file of a killed child must not be taken for this job's
        folder = self.folder.path.resolve()  # another revision's server starts elsewhere
        return Job(
            kind=kind,
            spec=spec,
            device=device,
            dtype=dtype,
            threads=threads,
            allow_entry=self.allow_entry,
            **limits,
            counts_live_tensors=spec is not None and spec.pair.quad == 0 and self.loaded.search is None,
            returns_large_blocks=self.loaded.search is not None,  # its question is what fits, not how fast
            environment=facts,
            guard=guard,
            result_path=str(folder / f".{name}{RESULT_SUFFIX}"),
            progress_path=str(folder / f".{name}{PROGRESS_SUFFIX}"),
        )

    def _common_facts(self) -> dict[str, Any]:
        scenario = {
            "name": self.loaded.scenario.name,
            "question": self.loaded.scenario.question,
            "path": str(self.loaded.path),
            "text": self.loaded.text,
            "sha256": self.loaded.text_sha256,
            "overrides": list(self.loaded.overrides),
        }
        own: dict[str, Any] = {"scenario": scenario, "command": self.folder.command, "started": self.folder.started_utc}
        own |= {"modbench": __version__, **self.git_facts, **self.side_facts}
        own |= {NOISE_FLOOR: dict(self.noise_floors)} if self.noise_floors else {}
        return own


def refuse_entries(loaded: LoadedScenario, option: str = "--allow-entry") -> None:
    """Raise for the first method that would run code of the scenario's choice, which `option` allows.

    Raises:
        EntryNotAllowedError: there is one.
    """
    for label, settings in loaded.scenario.methods.items():
        what = getattr(settings, "foreign_code", None)
        if what is not None:
            raise EntryNotAllowedError(f"{loaded.path}: methods.{label}: {what}; pass {option} if you trust it")


def run_scenario(
    loaded: LoadedScenario,
    folder: RunFolder,
    allow_entry: bool,
    progress: RunProgress,
    is_traced: bool = False,
    make_runner: Callable[..., Runner] = Runner,
    is_mapped: bool = False,
) -> list[Record]:
    """Run a scenario into its folder; return the records of this run, those of earlier, interrupted tries among them.

    A KeyboardInterrupt leaves every finished record on disk and no process behind.
    """
    with locked(folder):  # the files of a run at work are its own
        try:
            with LocalExecutor(loaded.scenario.measure.start, folder.path / LOG_FILE) as executor:
                runner = make_runner(loaded, folder, allow_entry, progress, executor, is_traced, is_mapped)
                runner.run()
        finally:
            remove_leftovers(folder)
    return list(runner.records.values())


def remove_leftovers(folder: RunFolder) -> None:
    """Remove the hand-over files of this try, and of earlier ones that were killed."""
    for suffix in (RESULT_SUFFIX, PROGRESS_SUFFIX, PARTIAL_SUFFIX, TOKENS_SUFFIX, OUTCOME_SUFFIX):
        for leftover in folder.path.glob(f".*{suffix}"):
            leftover.unlink(missing_ok=True)


def exit_code(records: Iterable[Record], num_unmet: int) -> int:
    """0 done, 1 an expectation is not met, 5 a launch failed or nothing was measured (measurement contract)."""
    statuses = {record.status for record in records}
    if statuses != {"ok"}:
        return 5
    return 1 if num_unmet else 0


def announce(progress: RunProgress, specs: Iterable[RunSpec]) -> None:
    """Tell a display of launches to come, point by point."""
    by_point: dict[str, list[RunSpec]] = {}
    for spec in specs:
        by_point.setdefault(spec.point.cell_id, []).append(spec)
    for point, planned in by_point.items():
        progress.plan(len(planned), sum(work_tokens(spec) for spec in planned), point)


def work_tokens(spec: RunSpec) -> int:
    """What the progress display measures work in."""
    return spec.num_tokens


def cell_label(cell: Cell, method: str) -> str:
    """A launch in the progress display."""
    return f"{axes_label(cell.axes)}: {method}" if cell.axes else method
