"""What a calibration found, in words and a table. In: its rows and the floor that is kept. Out: console text, and plain facts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from modbench.analysis.calibration import LARGEST_CHANGE, MAX_INCONCLUSIVE, NoiseFigures
from modbench.noise_floor import NoiseFloor
from modbench.report.console import print_table
from modbench.report.document import axes_label
from modbench.report.legend import PHASES
from modbench.report.tables import Column, Group, Row, Table
from modbench.units import format_percent


@dataclass(frozen=True)
class CalibratedRow:
    """One latency metric of one method at one cell, compared with itself."""

    axes: Mapping[str, Any]
    method: str
    metric: str
    figures: NoiseFigures


def calibration_facts(floor: NoiseFloor, rows: Sequence[CalibratedRow], tolerance: float) -> dict[str, Any]:
    """Everything as plain data; shares, not per cent."""
    return {"tolerance": tolerance, "kept": floor.model_dump(mode="json"), "rows": [asdict(row) for row in rows]}


def render_calibration(floor: NoiseFloor, rows: Sequence[CalibratedRow], tolerance: float, console: Console) -> None:
    """Print the table, then what it means for a gate on this machine."""
    print_table(_table(rows), console)
    console.print()
    for sentence in sentences(floor, rows, tolerance):
        console.print(Text(sentence))


def sentences(floor: NoiseFloor, rows: Sequence[CalibratedRow], tolerance: float) -> list[str]:
    """What a user must know: whether the tolerance can be held here, and the smallest change that is found."""
    texts = [
        _sentence(metric, [row.figures for row in rows if row.metric == metric], tolerance) for metric in floor.floors
    ]
    worst = max(row.figures.inconclusive_ratio for row in rows)
    alarms = max(row.figures.false_alarm_ratio for row in rows)
    texts.append(
        f"With nothing changed, at most {format_percent(alarms)} of checks say slower or faster, "
        f"and at most {format_percent(worst)} end inconclusive."
    )
    texts.append("Kept for this machine: the margins of its verdicts are at least these noise floors from now on.")
    return texts


def _sentence(metric: str, figures: Sequence[NoiseFigures], tolerance: float) -> str:
    """Of one latency, the least favourable of its rows."""
    wanted = format_percent(tolerance)
    noise_floor = max(found.noise_floor for found in figures)
    usable = _largest([found.usable_tolerance for found in figures])
    if noise_floor > tolerance:
        text = f"too noisy for a tolerance of {wanted}: the margin here is {format_percent(noise_floor)}"
    elif usable is None or usable > tolerance:
        most = max(found.inconclusive_ratio for found in figures)
        text = f"too noisy for a tolerance of {wanted}: {format_percent(most)} of checks of unchanged code end inconclusive"
    else:
        text = f"quiet enough for a tolerance of {wanted} (noise floor {format_percent(noise_floor)})"
    if usable is None:
        text += f"; not even a tolerance of {format_percent(LARGEST_CHANGE)} would help"
    elif usable > tolerance:
        text += f"; a tolerance of {format_percent(usable)} would leave at most {format_percent(MAX_INCONCLUSIVE)} inconclusive"
    found = _largest([found.smallest_detectable for found in figures])
    end = (
        f"not even {format_percent(LARGEST_CHANGE)} slower is found in 95 % of checks"
        if found is None
        else f"the smallest slow-down found in 95 % of checks is {format_percent(found)}"
    )
    return f"{PHASES.get(metric, metric)}: {text}; {end}."


def _largest(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None


def _table(rows: Sequence[CalibratedRow]) -> Table:
    columns = (
        Column("Method", is_numeric=False),
        Column("Phase", is_numeric=False),
        Column("Pairs"),
        Column("Pair σ"),
        Column("Noise floor"),
        Column("False alarms"),
        Column("Same"),
        Column("Finds from"),
    )
    groups: dict[str, list[Row]] = {}
    for row in rows:
        figures = row.figures
        cells = (
            row.method,
            PHASES.get(row.metric, row.metric),
            str(figures.num_pairs),
            format_percent(figures.sigma_ratio),
            format_percent(figures.noise_floor),
            format_percent(figures.false_alarm_ratio),
            format_percent(figures.same_ratio),
            "–" if figures.smallest_detectable is None else f"+{format_percent(figures.smallest_detectable)}",
        )
        groups.setdefault(axes_label(row.axes), []).append(Row(cells))
    return Table("The same code twice", columns, tuple(Group(label, tuple(found)) for label, found in groups.items()))
