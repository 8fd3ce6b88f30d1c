"""Scenario files as pytest collectors, one item per point; a scenario is measured when its first selected item runs.

In: a scenario file of a pytest session. Out: a run folder with its report, and items that fail with a line per problem.
"""

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from modbench.analysis import CellSummary
from modbench.command_run import make_document
from modbench.errors import ModbenchError, OutputError
from modbench.plan import build_plan
from modbench.pytest_gate import compare_with_baseline, gate_failures, gate_notes, load_baseline
from modbench.record import RECORDS_FILE, Record
from modbench.report.document import Document, axes_label, axis_name
from modbench.report.problems import cell_problems
from modbench.report.progress import PlainProgress, QuietProgress
from modbench.report.pytest_benchmark import benchmark_entries
from modbench.report.write import write_report
from modbench.run_folder import RunFolder, open_run_folder
from modbench.runner import Runner, refuse_entries, run_scenario
from modbench.scenario import LoadedScenario, Point, load_scenario
from modbench.scenario.expectation import unmatched_condition
from modbench.search_runner import SearchRunner

MEASUREMENTS = "modbench-measurements"  # a name among pytest's plugins
REPORTED_METRICS = (
    "ttft_s",
    "tpot_s",
    "prefill_speedup",
    "decode_speedup",
    "kv_cache_bytes",
    "kv_cache_reduction",
    "keep_ratio_prefill",
    "keep_ratio_decode",
)


class PointError(Exception):
    """A point is not as its scenario expects it; the text has a line per problem."""


@dataclass(frozen=True)
class MeasuredRun:
    """A run that was measured and reported. `gate` has lines per cell id."""

    folder: Path
    records: list[Record]
    document: Document
    gate: dict[str, list[str]]

    def problems(self, cell: CellSummary) -> list[str]:
        """Everything that fails this cell's item."""
        return cell_problems(self.document, cell) + self.gate.get(cell.cell_id, [])


@dataclass(eq=False)
class Measurements:
    """The runs of one pytest session; itself a plugin, which says at the end where they are."""

    config: pytest.Config
    folders: list[tuple[LoadedScenario, RunFolder]] = field(default_factory=list)
    reports: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, config: pytest.Config) -> "Measurements":
        """The session's own, registered at the first call."""
        found: Measurements | None = config.pluginmanager.get_plugin(MEASUREMENTS)
        if found is None:
            found = cls(config)
            config.pluginmanager.register(found, MEASUREMENTS)
        return found

    def load(self, path: Path, overrides: Sequence[str] = ()) -> LoadedScenario:
        """Load a scenario with the options of the command line, then `overrides`; paths are as the user would type them."""
        option = self.config.option
        texts = [*option.modbench_set, *overrides]
        if option.modbench_device is not None:
            texts.append(f"measure.device={option.modbench_device}")
        loaded = load_scenario(Path(os.path.relpath(path)), texts)
        build_plan(loaded, run_id="", device_kind="cpu")  # finds cells that are the same work
        return loaded

    def measure(self, loaded: LoadedScenario) -> MeasuredRun:
        """Measure into a folder of its own and write the report; with `-s` it prints a line per launch.

        A KeyboardInterrupt leaves every finished record on disk.

        Raises:
            ModbenchError: the scenario may not run (`entry:`), or could not be measured.
        """
        allow_entry = self.config.option.modbench_allow_entry
        if not allow_entry:
            refuse_entries(loaded, "--modbench-allow-entry")
        baseline = self.config.option.modbench_baseline
        base = load_baseline(baseline) if baseline else None  # before hours of measuring
        command = shlex.join(["pytest", *map(str, self.config.invocation_params.args)])
        folder = open_run_folder(loaded, self._new_folder(loaded.scenario.name), False, command)
        self.folders.append((loaded, folder))
        make_runner = SearchRunner if loaded.search else Runner
        is_watched = self.config.getoption("capture") == "no"  # captured lines would stand between failures
        progress = PlainProgress(Console()) if is_watched else QuietProgress()
        records = run_scenario(loaded, folder, allow_entry, progress, make_runner=make_runner)
        document = make_document(folder.path)
        write_report(folder.path, document)
        self.reports.append(folder.path)
        self._add_benchmarks(records, document)
        if base is None:
            return MeasuredRun(folder.path, records, document, {})
        compared = compare_with_baseline(records, base)
        self.notes += gate_notes(compared)
        return MeasuredRun(folder.path, records, document, gate_failures(compared))

    def _new_folder(self, name: str) -> Path | None:
        """The folder of the next run of this name in this session, counted from the second on; None for the default."""
        root = self.config.option.modbench_output
        if root is None:
            return None
        count = 1 + sum(loaded.scenario.name == name for loaded, _ in self.folders)
        folder: Path = root / (name if count == 1 else f"{name}-{count}")
        if (folder / RECORDS_FILE).exists():
            raise OutputError(f"--modbench-output: {folder} holds a run already; name another folder")
        return folder

    def _add_benchmarks(self, records: Sequence[Record], document: Document) -> None:
        """Hand the results to pytest-benchmark, where it writes a file or compares with one: they stand among its own."""
        session: Any = self.config.pluginmanager.get_plugin("pytest-benchmark")
        if session is None or not (session.json or session.save or session.autosave or session.compare):
            return
        entries = benchmark_entries(records, document)
        session.benchmarks.extend(BenchmarkEntry(facts) for facts in entries.benchmarks)
        self.notes += [f"pytest-benchmark: {note}" for note in entries.notes]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The path of each report, and what is on disk of a run that did not finish."""
        if not self.folders:
            return
        terminalreporter.section("modbench")
        for _, folder in self.folders:
            is_reported = folder.path in self.reports
            unfinished = f"{folder.path}: not finished; {len(folder.records())} launches are on disk"
            terminalreporter.line(f"report: {folder.path / 'report.html'}" if is_reported else unfinished)
        for note in self.notes:
            terminalreporter.line(note)


class BenchmarkEntry:
    """One result as pytest-benchmark's session asks for it: its `Metadata`, without a fixture."""

    has_error = False

    def __init__(self, facts: dict[str, Any]) -> None:
        self._facts = facts
        self.fullname: str = facts["fullname"]

    def __getitem__(self, key: str) -> Any:
        return {**self._facts, **self._facts["stats"]}[key]

    def as_dict(
        self, include_data: bool = True, flat: bool = False, stats: bool = True, cprofile: Any = None
    ) -> dict[str, Any]:
        """The facts as a file has them; `flat` puts the statistics beside them."""
        facts = {key: value for key, value in self._facts.items() if key != "stats"}
        numbers = {key: value for key, value in self._facts["stats"].items() if include_data or key != "data"}
        if stats:
            facts |= numbers if flat else {"stats": numbers}
        return facts


class ScenarioFile(pytest.File):
    """A scenario file; its items are the points of its matrix."""

    _loaded: LoadedScenario
    _outcome: MeasuredRun | ModbenchError | None = None

    def collect(self) -> Iterator["PointItem"]:
        """One item per point.

        Raises:
            CollectError: the scenario is not valid; the text has a line per problem.
        """
        try:
            self._loaded = Measurements.of(self.config).load(self.path)
        except ModbenchError as error:
            raise self.CollectError(str(error)) from None
        searched = self._loaded.search.name if self._loaded.search else ""
        for point in self._loaded.points:
            yield PointItem.from_parent(self, name=point_name(point, searched), point=point)

    def measured(self) -> MeasuredRun:
        """The run of this session's selected points: measured at the first call, or the error that it ended with."""
        if self._outcome is None:
            try:
                self._outcome = Measurements.of(self.config).measure(self._selected())
            except ModbenchError as error:
                self._outcome = error
        if isinstance(self._outcome, ModbenchError):
            raise PointError(str(self._outcome))
        return self._outcome

    def _selected(self) -> LoadedScenario:
        """The scenario with the points of the selected items, and the expectations that are about them."""
        loaded = self._loaded
        chosen = [item for item in self.session.items if isinstance(item, PointItem) and item.parent is self]
        points = tuple(point for point in loaded.points if any(item.point is point for item in chosen))
        if points == loaded.points:
            return loaded
        kept = [one for one in loaded.expectations if unmatched_condition(one.conditions, points) is None]
        scenario = loaded.scenario.model_copy(update={"expect": [one.text for one in kept]})
        return replace(loaded, scenario=scenario, points=points, expectations=tuple(kept))


class PointItem(pytest.Item):
    """One point of a scenario."""

    def __init__(self, *, point: Point, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.point = point
        self.fixturenames = ["benchmark"]  # so that --benchmark-only and --benchmark-skip count it among benchmarks
        axes = point.axes or {"context": point.workload.context, "batch": point.workload.batch}
        self.extra_keyword_matches |= {f"{axis_name(key)}_{value}" for key, value in axes.items()}  # -k context_4096
        if self.config.pluginmanager.hasplugin("timeout"):  # each launch has the scenario's own limit
            self.add_marker(pytest.mark.timeout(0))

    def runtest(self) -> None:
        """Measure, if no item of the scenario has, and look at this point.

        Raises:
            PointError: a method is wrong, a launch failed, an expectation is not met, or the gate says so.
        """
        run = self.parent.measured() if isinstance(self.parent, ScenarioFile) else None
        assert run is not None, "points are items of scenario files"
        cell = next((cell for cell in run.document.summary.all_cells if cell.axes == self.point.axes), None)
        if cell is None:
            raise PointError("nothing was measured")
        self.user_properties += [("report", str(run.folder / "report.html")), *_properties(cell)]
        problems = run.problems(cell)
        if problems:
            raise PointError("\n".join(problems))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The problems alone; a traceback for anything unforeseen."""
        if isinstance(excinfo.value, PointError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where it stands and what it is called in headlines."""
        return self.path, None, self.name


def point_name(point: Point, searched: str) -> str:
    """The point in words that are easy to type: `context 4,096, batch 8`; a searched size has no value to name."""
    axes = point.axes or {name: getattr(point.workload, name) for name in ("context", "batch") if name != searched}
    return axes_label(axes).replace(" · ", ", ")


def _properties(cell: CellSummary) -> Iterator[tuple[str, float]]:
    """The main numbers of the methods that are not wrong, as `method.metric`."""
    for row in cell.rows:
        for name in REPORTED_METRICS:
            value = row.values[name]
            if value is not None and not row.is_wrong:
                yield f"{row.method}.{name}", value
