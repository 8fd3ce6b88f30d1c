"""The `modbench` fixture's object: measure a scenario in a test, and ask for its numbers by name.

In: a scenario file and overrides. Out: numbers in base units, None where unknown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modbench.analysis import CellSummary, MethodRow, Summary, metric_value
from modbench.analysis.rows import failure_text
from modbench.errors import NoNumberError
from modbench.pytest_scenario import MeasuredRun, Measurements
from modbench.report.document import axis_name, cell_label
from modbench.scenario import METRICS


class ScenarioRunner:
    """Measures each scenario, with the same overrides, once per session."""

    def __init__(self, config: pytest.Config) -> None:
        self._measurements = Measurements.of(config)
        self._runs: dict[tuple[Path, tuple[str, ...]], MeasuredRun] = {}

    def run(self, scenario: Path | str, set: Sequence[str] = ()) -> "MeasuredScenario":
        """Measure every point of a scenario file, with `set` as `--set` of `modbench run`, and write its report.

        The `--modbench-*` options of the command line hold here too.

        Raises:
            ModbenchError: the scenario or an override is not valid, may not run, or could not be measured.
        """
        loaded = self._measurements.load(Path(scenario), set)
        key = (loaded.path.resolve(), loaded.overrides)
        if key not in self._runs:
            self._runs[key] = self._measurements.measure(loaded)
        return MeasuredScenario(self._runs[key])


@dataclass(frozen=True)
class MeasuredScenario:
    """A scenario that was measured."""

    run: MeasuredRun

    @property
    def folder(self) -> Path:
        """Where records and report are."""
        return self.run.folder

    @property
    def summary(self) -> Summary:
        """Everything that the report shows."""
        return self.run.document.summary

    def cell(self, **sizes: Any) -> "MeasuredCell":
        """The one cell with these values, by the last part of their keys: `cell(context=4096, batch=1)`.

        Raises:
            NoNumberError: no cell has them, or several do.
        """
        found = [cell for cell in self.summary.all_cells if sizes.items() <= _sizes(cell).items()]
        if len(found) != 1:
            known = ", ".join(cell_label(cell) for cell in self.summary.all_cells)
            raise NoNumberError(f"cell: got {sizes}, which {len(found)} cells have; expected one of: {known}")
        return MeasuredCell(found[0])

    def assert_expectations(self) -> None:
        """Fail the test, without a traceback, by whatever would fail the scenario as a test item."""
        problems = [
            f"{cell_label(cell)}: {text}" for cell in self.summary.all_cells for text in self.run.problems(cell)
        ]
        if problems or not self.summary.all_cells:
            pytest.fail("\n".join(problems) or "nothing was measured", pytrace=False)


@dataclass(frozen=True)
class MeasuredCell:
    """One point; `cell["threshold"]` has the numbers of a method."""

    summary: CellSummary

    def __getitem__(self, method: str) -> "MeasuredMethod":
        rows = {row.method: row for row in self.summary.rows}
        if method not in rows:
            raise NoNumberError(f"method: got {method!r}; expected one of: {', '.join(rows)}")
        return MeasuredMethod(rows[method])


@dataclass(frozen=True)
class MeasuredMethod:
    """One method at one point: every metric of the scenario language is an attribute, such as `prefill_speedup`.

    Reading one raises NoNumberError where no launch succeeded or the method is wrong: its numbers count for nothing.
    """

    row: MethodRow

    def __getattr__(self, metric: str) -> float | None:
        if metric not in METRICS:
            raise AttributeError(f"{metric!r} is no metric; expected one of: {', '.join(METRICS)}")
        if self.row.has_failed:
            raise NoNumberError(f"{self.row.method}.{metric}: no launch succeeded; look at the report")
        if self.row.is_wrong:
            reasons = ", ".join(failure_text(name) for name in self.row.failed_identities)
            raise NoNumberError(f"{self.row.method}.{metric}: the method is wrong: {reasons}")
        return metric_value(self.row, metric)


def _sizes(cell: CellSummary) -> dict[str, Any]:
    sizes = {key: cell.workload.get(key) for key in ("context", "batch", "new_tokens")}
    return sizes | {axis_name(key): value for key, value in cell.axes.items()}
