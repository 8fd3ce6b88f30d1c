"""`modbench calibrate`: A/A pairs of this machine -> its noise floor, the gate's false-alarm rate, the smallest change it finds.

In: a scenario, or none for modbench's own. Out: a printed table, `calibration.json` beside the records, and the floor that
verdicts on this machine use as their margin from then on.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console

from modbench.analysis.calibration import MIN_CALIBRATION_PAIRS, NoiseFigures, noise_figures
from modbench.analysis.pairs import FAMILY_METRICS
from modbench.code_under_test import Repository
from modbench.errors import LaunchError, OptionError, OutputError
from modbench.foreground import INTERRUPTED, display, end_as_interrupt
from modbench.noise_floor import GENERAL, NoiseFloor, keep
from modbench.provenance import PROJECT
from modbench.report.calibration import CalibratedRow, calibration_facts, render_calibration
from modbench.revision import working_tree
from modbench.run_folder import new_folder
from modbench.scenario import LoadedScenario, load_scenario
from modbench.side_budget import SideBudget
from modbench.side_by_side import Bench, measure_side_by_side
from modbench.side_session import SideSession, open_benches

OWN_SCENARIO = Path(__file__).with_name("calibration.yaml")
RESULT_FILE = "calibration.json"
DEFAULT_ROOT = Path("reports/calibration")


@dataclass(frozen=True)
class CalibrateOptions:
    """`num_pairs` of launches per method and point; `tolerance` is a share; `scenario` None for modbench's own."""

    scenario: LoadedScenario | None
    num_pairs: int
    tolerance: float
    output: Path | None
    budget_s: float | None
    allow_entry: bool
    is_json: bool
    is_quiet: bool
    command: str


def calibrate_command(options: CalibrateOptions, overrides: Sequence[str]) -> int:
    """Measure, print, keep; the exit code is 0, or 130 where it was interrupted.

    Raises:
        OptionError: too few pairs.
        LaunchError: launches failed, or the budget ended it, so that there are not enough pairs.
    """
    if options.num_pairs < MIN_CALIBRATION_PAIRS:
        raise OptionError(f"--pairs: got {options.num_pairs}; expected at least {MIN_CALIBRATION_PAIRS}")
    loaded = options.scenario or load_scenario(OWN_SCENARIO, overrides)
    folder = options.output or new_folder(DEFAULT_ROOT)
    here = working_tree(Repository(PROJECT, ()))
    console = Console(stderr=options.is_json)
    end_as_interrupt()
    try:
        with display(console, options.is_quiet) as progress:
            session = SideSession((here, here), folder, options.command, options.allow_entry, progress)
            with open_benches(session, [loaded], []) as (bench,):
                budget = SideBudget(options.budget_s, progress)
                budget.say_expected([bench], [options.num_pairs])
                measure_side_by_side([bench], [options.num_pairs], {}, lambda rounds: budget.may_go_on([bench], rounds))
                if budget.note:
                    raise LaunchError(_budget_error(bench, options.num_pairs))
                rows = _rows(bench, options.tolerance)
                floor = _floor(bench, rows, is_general=options.scenario is None)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; nothing was kept", markup=False, highlight=False)
        return INTERRUPTED
    keep(floor)
    facts = calibration_facts(floor, rows, options.tolerance)
    _write(folder / RESULT_FILE, facts)
    if options.is_json:
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
    else:
        render_calibration(floor, rows, options.tolerance, console)
        console.print(f"records: {folder}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _write(path: Path, facts: Mapping[str, Any]) -> None:
    try:
        path.write_text(json.dumps(facts, indent=2) + "\n")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); free some disk space") from error


def _rows(bench: Bench, tolerance: float) -> list[CalibratedRow]:
    cells, found = bench.plans[0].cells, bench.comparisons()
    rows = []
    for index, method, metric in product(range(len(cells)), bench.methods, FAMILY_METRICS):
        differences = found.get((index, method, metric), [])
        if len(differences) < MIN_CALIBRATION_PAIRS:
            raise LaunchError(
                f"calibrate: {method} {metric} has {len(differences)} pairs, since launches failed; "
                f"expected {MIN_CALIBRATION_PAIRS}; see {bench.candidate.folder.path}"
            )
        rows.append(CalibratedRow(cells[index].axes, method, metric, noise_figures(differences, tolerance)))
    return rows


def _floor(bench: Bench, rows: Sequence[CalibratedRow], is_general: bool) -> NoiseFloor:
    point = bench.candidate.loaded.points[0]
    probe = bench.candidate.device_probe(point.model.dtype, point.measure.threads)
    of_metric = {metric: [row.figures for row in rows if row.metric == metric] for metric in FAMILY_METRICS}
    return NoiseFloor(
        fingerprint=probe.environment["machine"]["fingerprint"],
        device_kind=probe.device_kind,
        threads=point.measure.threads,
        scenario=bench.candidate.loaded.scenario.name,
        cells=[GENERAL] if is_general else [cell.cell_id for cell in bench.plans[0].cells],
        num_pairs=min(row.figures.num_pairs for row in rows),
        measured_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        floors={metric: max(figures.noise_floor for figures in found) for metric, found in of_metric.items()},
        smallest_detectable={metric: _least_favourable(found) for metric, found in of_metric.items()},
    )


def _least_favourable(found: Sequence[NoiseFigures]) -> float | None:
    changes = [figures.smallest_detectable for figures in found]
    return None if None in changes else max(change for change in changes if change is not None)


def _budget_error(bench: Bench, num_pairs: int) -> str:
    found = min((len(differences) for differences in bench.comparisons().values()), default=0)
    return (
        f"calibrate: --budget ended it at {found} of {num_pairs} pairs, and nothing was kept; "
        "give it more time, or a scenario of fewer methods and points"
    )
