"""Saved runs -> how a metric of a method went over commits. No verdicts: absolute times of two runs are two stories.

In: the records of each run, in any order. Out: a `History` of series, whose points are the same work (`cell_id` and `point_id`).
A series is one line only where machine and library versions stay the same.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modbench.analysis.doubts import passed_over
from modbench.analysis.rows import CellSummary, MethodRow, failure_text
from modbench.analysis.summary import summarise
from modbench.errors import OptionError
from modbench.record import RecordFile
from modbench.scenario import METRICS
from modbench.scenario.wording import show, suggestion

UNKNOWN = "n/a"  # the gap of a row that has launches and not this metric
DEFAULT_METRICS = ("prefill_speedup", "decode_speedup", "kv_cache_reduction")


@dataclass(frozen=True)
class Setup:
    """What a run ran on: the machine by its fingerprint and its name, and the versions of the libraries."""

    fingerprint: str | None
    machine: str
    versions: Mapping[str, str | None]


@dataclass(frozen=True)
class HistoryRun:
    """One run: where it came from, when it began (ISO 8601 in UTC; None where not known), which code ran, and its cells."""

    name: str
    started: str | None
    git_sha: str | None
    is_dirty: bool
    setup: Setup
    run_ids: tuple[str, ...]
    cells: tuple[CellSummary, ...]
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class HistoryPoint:
    """A run's value; None with the reason in `gap`. `interval` is exact, and there for speed-ups from 8 pairs on."""

    run: int
    value: float | None
    interval: tuple[float, float] | None = None
    gap: str = ""


@dataclass(frozen=True)
class Series:
    """One metric of one method at one cell, for one and the same work, in the order of the runs."""

    metric: str
    method: str
    cell: CellSummary
    point_id: str
    points: tuple[HistoryPoint, ...]


@dataclass(frozen=True)
class History:
    """The runs in order, the setups in first-seen order with the one that each run had, the series, and doubts."""

    runs: tuple[HistoryRun, ...]
    setups: tuple[Setup, ...]
    setup_of: tuple[int, ...]
    series: tuple[Series, ...]
    doubts: tuple[str, ...]


def summarise_run(name: str, file: RecordFile, started: str | None) -> HistoryRun:
    """One run from its records; `started` is used where the records don't say when it began."""
    summary = summarise(file.records, file.num_skipped_lines)
    environments = [record.environment for record in file.records]
    commits = list(dict.fromkeys(str(sha) for found in environments if (sha := found.get("git_sha")) is not None))
    setups = list({repr(setup): setup for setup in map(_setup, environments)}.values())
    doubts = [f"launches of {len(commits)} commits; the first is shown"] if len(commits) > 1 else []
    doubts += [f"launches on {len(setups)} machines or versions; the first is shown"] if len(setups) > 1 else []
    doubts += ["no launches"] if not file.records else []
    doubts += ["searches for a limit are not drawn"] if summary.limits else []
    doubts += [passed_over(file.num_skipped_lines, "its records")] if file.num_skipped_lines else []
    noted = [found["started"] for found in environments if isinstance(found.get("started"), str)]
    return HistoryRun(
        name=name,
        started=min(noted, default=started),
        git_sha=commits[0] if commits else None,
        is_dirty=any(found.get("git_is_dirty") is True for found in environments),
        setup=setups[0] if setups else Setup(None, "", {}),
        run_ids=summary.run_ids,
        cells=summary.cells,
        doubts=tuple(doubts),
    )


def build_history(runs: Sequence[HistoryRun], wanted: Sequence[str] = ()) -> History:
    """Put runs in order and follow each metric through them.

    Runs that don't say when they began come first, by name and then in the order given.

    Args:
        runs: of one or more scenarios.
        wanted: `METHOD.METRIC`, or `METRIC` for all methods that have it; none: `DEFAULT_METRICS` of all but baselines.

    Raises:
        OptionError: a metric does not exist, or no run has the method.
    """
    ordered, doubts = _without_copies(runs)
    ordered.sort(key=lambda run: (run.started is not None, run.started or run.name))
    chosen = _chosen(ordered, wanted)
    setups = list({repr(run.setup): run.setup for run in ordered}.values())
    series = [found for metric, method in chosen for found in _follow(ordered, metric, method)]
    doubts += [f"{run.name}: {doubt}" for run in ordered for doubt in run.doubts]
    return History(
        runs=tuple(ordered),
        setups=tuple(setups),
        setup_of=tuple(setups.index(run.setup) for run in ordered),
        series=tuple(series),
        doubts=(*_changes_of_work(series), *doubts),
    )


def lines(history: History, series: Series) -> list[list[HistoryPoint]]:
    """The points that may be joined: of one setup each, and without a gap in between."""
    found: dict[int, list[list[HistoryPoint]]] = {}
    for point in series.points:
        parts = found.setdefault(history.setup_of[point.run], [[]])
        if point.value is None:
            parts.append([])
        else:
            parts[-1].append(point)
    return [part for parts in found.values() for part in parts if part]


def _setup(environment: Mapping[str, Any]) -> Setup:
    machine, versions = environment.get("machine"), environment.get("versions")
    facts = machine if isinstance(machine, Mapping) else {}
    known = versions if isinstance(versions, Mapping) else {}
    fingerprint = facts.get("fingerprint")
    return Setup(
        fingerprint=None if fingerprint is None else str(fingerprint),
        machine=str(facts.get("gpu") or facts.get("cpu") or ""),
        versions={str(name): None if found is None else str(found) for name, found in sorted(known.items())},
    )


def _without_copies(runs: Iterable[HistoryRun]) -> tuple[list[HistoryRun], list[str]]:
    """Every run once, and which were left out; a copy may be from before its run was resumed, so the later one counts."""
    kept: dict[tuple[str, ...], HistoryRun] = {}
    doubts = []
    for run in runs:
        key = run.run_ids or (run.name,)
        if key in kept:
            doubts.append(f"{kept[key].name}: left out, the same run as {run.name}")
        kept[key] = run
    return list(kept.values()), doubts


def _chosen(runs: Sequence[HistoryRun], wanted: Sequence[str]) -> list[tuple[str, str]]:
    """(metric, method) of every line to draw."""
    rows = [row for run in runs for cell in run.cells for row in cell.rows]
    methods = list(dict.fromkeys(row.method for row in rows))
    others = list(dict.fromkeys(row.method for row in rows if not row.is_baseline))
    if not wanted:
        return [(metric, method) for metric in DEFAULT_METRICS for method in others]
    chosen: dict[tuple[str, str], None] = {}
    for text in wanted:
        method, _, metric = text.rpartition(".")
        if metric not in METRICS:
            raise OptionError(f"--metric: got {show(text)}: unknown metric; {suggestion(metric, list(METRICS))}")
        if method and method not in methods:
            raise OptionError(f"--metric: got {show(text)}: no run has that method; {suggestion(method, methods)}")
        chosen |= dict.fromkeys((metric, name) for name in ([method] if method else methods))
    return list(chosen)


def _follow(runs: Sequence[HistoryRun], metric: str, method: str) -> list[Series]:
    """The series of one metric of one method, one per work; none for work that cannot have the metric."""
    found: dict[tuple[str, str], tuple[CellSummary, list[HistoryPoint]]] = {}
    for index, run in enumerate(runs):
        for cell in run.cells:
            for row in cell.rows:
                if row.method == method:
                    _, points = found.setdefault((cell.cell_id, row.point_id), (cell, []))
                    points.append(_point(index, row, metric))
    return [
        Series(metric, method, cell, point_id, tuple(points))
        for (_, point_id), (cell, points) in found.items()
        if any(point.gap != UNKNOWN for point in points)
    ]


def _point(run: int, row: MethodRow, metric: str) -> HistoryPoint:
    """A wrong or failed row is a gap, whatever its numbers."""
    if row.has_failed:
        statuses = ", ".join(f"{status} × {count}" for status, count in row.status_counts.items())
        return HistoryPoint(run, None, gap=statuses)
    if row.is_wrong:
        return HistoryPoint(run, None, gap=f"wrong: {failure_text(row.failed_identities[0])}")
    value = row.values[metric]
    if value is None:
        return HistoryPoint(run, None, gap=UNKNOWN)
    speedup = row.speedups.get(metric)
    return HistoryPoint(run, value, speedup.interval if speedup else None)


def _changes_of_work(series: Sequence[Series]) -> list[str]:
    """Which methods are several works at what looks like one cell: their points are not joined."""
    works = {
        (found.method, tuple(map(repr, found.cell.axes.items())), found.cell.cell_id, found.point_id)
        for found in series
    }
    counts = Counter((method, axes) for method, axes, _, _ in works)
    methods = sorted({method for (method, _), count in counts.items() if count > 1})
    return [f"{method}: its work is not the same in all runs; only the same work is joined" for method in methods]
