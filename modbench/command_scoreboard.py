"""`modbench report --scoreboard`: a paper's claims, kept as scenarios, and runs -> what is claimed, possible and measured.

In: a folder of scenarios, run folders, a device for the ideals. Out: console, Markdown or JSON. Reaches no torch, measures nothing.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from modbench.analysis import Footnote, Summary, summarise
from modbench.analysis.estimate import Budget, Case
from modbench.analysis.memory_model import OVERHEAD_BYTES
from modbench.analysis.prediction import Ceilings, ceilings_from
from modbench.analysis.scoreboard import SameWork, same_work, score
from modbench.cli_options import ReportFormat
from modbench.devices import MEASURED, Device, measured_device, named_device
from modbench.errors import OptionError
from modbench.estimate_target import Options, case_of
from modbench.record import load_records
from modbench.report.scoreboard import Scoreboard, render_scoreboards, scoreboards_json, scoreboards_markdown
from modbench.run_folder import BUDGET_DOUBT, read_run_file
from modbench.scenario import BASELINE, LoadedScenario, load_scenario

DEFAULT_SCENARIOS = Path("scenarios") / "paper"
DEFAULT_DEVICE = "h200"


@dataclass(frozen=True)
class _Run:
    """A run's folder as it was named, with what its files say."""

    folder: Path
    summary: Summary
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class _Claims:
    """A scenario with what is predicted for its points."""

    loaded: LoadedScenario
    cases: tuple[Case, ...]

    @property
    def num_parameters(self) -> int:
        """Of the model at the first point."""
        return self.cases[0].geometry.num_parameters


def scoreboard_command(runs: Sequence[Path], scenarios: Path | None, device: str | None, format: ReportFormat) -> None:
    """Print the scoreboards of a folder of scenarios.

    Raises:
        OptionError: the format is none of the three; and what `make_scoreboards` raises.
    """
    if format not in (ReportFormat.CONSOLE, ReportFormat.MARKDOWN, ReportFormat.JSON):
        raise OptionError(f"--format: got {format.value} with --scoreboard; expected console, markdown or json")
    boards, notes = make_scoreboards(runs, scenarios or DEFAULT_SCENARIOS, device)
    if format is ReportFormat.JSON:
        sys.stdout.write(json.dumps(scoreboards_json(boards, notes), indent=2, allow_nan=False) + "\n")
    elif format is ReportFormat.MARKDOWN:
        sys.stdout.write(scoreboards_markdown(boards, notes))
    else:
        render_scoreboards(boards, notes, Console())


def make_scoreboards(
    runs: Sequence[Path], scenarios: Path, device: str | None = None
) -> tuple[list[Scoreboard], list[str]]:
    """A board per scenario and run that measured some of its work, the smallest model first; without one, a board of predictions.

    Returns the boards, and a line for each scenario that searches a size and each run that counts for none of the boards.

    Raises:
        OptionError: there are no scenarios of given sizes.
        ScenarioError: a scenario is wrong.
        RecordError, OutputError: a run cannot be read.
        UnsupportedError: no such device.
    """
    read = [_read_run(folder) for folder in runs]
    claims, searches = read_claims(scenarios)
    counted: set[Path] = set()
    boards = []
    for item in claims:
        found = [(run, same_work(item.loaded, run.summary)) for run in read]
        own = [(run, measured) for run, measured in found if measured]
        counted |= {run.folder for run, _ in own}
        boards += [_board(item, device, run, measured) for run, measured in own] or [_board(item, device)]
    notes = [
        f"{path}: left out: it searches a size, and a scoreboard scores points of given sizes" for path in searches
    ]
    return boards, notes + [_note(run) for run in read if run.folder not in counted]


def read_claims(folder: Path) -> tuple[list[_Claims], list[Path]]:
    """The scenarios of a folder, the smallest model first; and the files of those that search a size.

    Raises:
        OptionError: there are none of given sizes.
        ScenarioError: one is wrong, or says too little for a prediction.
    """
    claims, searches = [], []
    for path in sorted(folder.glob("*.yaml")):
        loaded = load_scenario(path)
        if loaded.search is not None:
            searches.append(path)
        else:
            claims.append(_Claims(loaded, tuple(case_of(point, str(path), Options()) for point in loaded.points)))
    if not claims:
        found = "where every scenario searches a size" if searches else "where no *.yaml is"
        raise OptionError(
            f"--scenarios: got {folder}, {found}; expected a folder of scenarios with claims; "
            "start in modbench's checkout, or name another with --scenarios DIR"
        )
    return sorted(claims, key=lambda item: item.num_parameters), searches


def _read_run(folder: Path) -> _Run:
    facts = read_run_file(folder)
    file = load_records(folder)
    summary = summarise(file.records, file.num_skipped_lines)
    if BUDGET_DOUBT in facts:
        summary = replace(summary, footnotes=(Footnote(str(facts[BUDGET_DOUBT])), *summary.footnotes))
    overrides = facts["overrides"] if isinstance(facts["overrides"], list) else []
    return _Run(folder, summary, tuple(str(text) for text in overrides))


def _note(run: _Run) -> str:
    changed = f" (it had --set {', '.join(run.overrides)})" if run.overrides else ""
    return f"{run.folder}: none of its points is the work of a scenario here, so it counts as no measurement{changed}"


def _board(
    item: _Claims, device_name: str | None, run: _Run | None = None, measured: Mapping[int, SameWork] | None = None
) -> Scoreboard:
    case, point, measured = item.cases[0], item.loaded.points[0], measured or {}
    device = _device(item, device_name, run)
    budget = Budget(
        Ceilings(device.copy_bytes_per_s, device.matmul_flops_per_s), device.memory_bytes, OVERHEAD_BYTES[device.kind]
    )
    return Scoreboard(
        scenario=item.loaded.scenario.name,
        question=item.loaded.scenario.question,
        model=point.model.preset or point.model.path or "its own geometry",
        num_parameters=item.num_parameters,
        dtype=case.dtype,
        device=device,
        scores=tuple(score(item.loaded, item.cases, budget, measured)),
        run=str(run.folder) if run else None,
        summary=run.summary if run else None,
        overrides=run.overrides if run else (),
        footnotes=_footnotes(item.loaded, run, measured) if run else (),
    )


def _device(item: _Claims, name: str | None, run: _Run | None) -> Device:
    """The one that was named, else the run's own by the ceilings it recorded, else a data sheet's."""
    point, dtype = item.loaded.points[0], item.cases[0].dtype
    if name == MEASURED:
        kind = None if point.measure.device == "auto" else point.measure.device.partition(":")[0]
        return measured_device(dtype, kind, point.measure.threads)
    recorded = _recorded_device(run, dtype) if run and name is None else None
    return recorded or named_device(name or DEFAULT_DEVICE, dtype)


def _recorded_device(run: _Run, dtype: str) -> Device | None:
    """The device that a run's records describe; None where they have no ceilings."""
    ceilings = ceilings_from(run.summary.environment)
    machine = run.summary.environment.get("machine")
    if ceilings is None or not isinstance(machine, Mapping):
        return None
    is_cuda = any(cell.device_kind == "cuda" for cell in run.summary.cells)
    memory = machine.get("gpu_memory_bytes" if is_cuda else "ram_bytes")
    return Device(
        name=str(machine.get("gpu" if is_cuda else "cpu", "a device without a name")),
        kind="cuda" if is_cuda else "cpu",
        memory_bytes=memory if isinstance(memory, int) else sys.maxsize,  # unknown: nothing is said to be missing
        dtype=dtype,
        copy_bytes_per_s=ceilings.copy_bytes_per_s,
        matmul_flops_per_s=ceilings.matmul_flops_per_s,
        source="measured ceilings",
    )


def _footnotes(loaded: LoadedScenario, run: _Run, measured: Mapping[int, SameWork]) -> tuple[Footnote, ...]:
    """The run's doubts about what is scored: claimed methods and the baseline, at the points that count."""
    cell_ids = {found.cell.cell_id for found in measured.values()}
    labels = {BASELINE, *(expectation.method for expectation in loaded.expectations)}
    methods = {row.method for found in measured.values() for label, row in found.rows.items() if label in labels}
    return tuple(
        note
        for note in run.summary.footnotes
        if (not note.methods or methods & set(note.methods)) and (not note.cell_ids or cell_ids & set(note.cell_ids))
    )
