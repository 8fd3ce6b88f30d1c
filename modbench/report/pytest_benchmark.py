"""A run as the JSON of pytest-benchmark, for `pytest-benchmark compare` and github-action-benchmark. Formatting only.

In: records and their document. Out: one benchmark per cell, method and latency metric; its data are the values of the launches
(docs/measuring.md, section 3), since a launch is what is replicated. Left out, with a note: methods that are wrong or have no
numbers, and searches, whose methods are each at a size of their own.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modbench.analysis.pairs import FAMILY_METRICS, LatencyMetric, launch_latency
from modbench.analysis.rows import SPEEDUP_METRICS, CellSummary, MethodRow, Summary, failure_text
from modbench.record import Record
from modbench.report.document import Document, cell_label
from modbench.report.escaping import one_line

FORMAT_VERSION = "5.1.0"  # of pytest-benchmark, whose fields these are
OPTIONS = {"disable_gc": False, "timer": "time.perf_counter", "warmup": True}
OUTLIER_IQRS = 1.5
EXTRA_METRICS = ("keep_ratio_prefill", "keep_ratio_decode", "kv_cache_bytes", "kv_cache_reduction")


@dataclass(frozen=True)
class BenchmarkEntries:
    """`benchmarks` as pytest-benchmark writes them, and a note for everything that is not among them."""

    benchmarks: list[dict[str, Any]]
    notes: list[str]


def pytest_benchmark_file(
    benchmarks: Sequence[Mapping[str, Any]], environment: Mapping[str, Any], started: str
) -> dict[str, Any]:
    """The whole file: commit and machine are those of the records' environment, `started` (ISO 8601) is when the run began."""
    return {
        "machine_info": _machine_info(environment),
        "commit_info": _commit_info(environment),
        "benchmarks": benchmarks,
        "datetime": _datetime(started),
        "version": FORMAT_VERSION,
    }


def _datetime(started: Any) -> str | None:
    try:
        return datetime.fromisoformat(started).isoformat()
    except (TypeError, ValueError):
        return None


def benchmark_entries(records: Sequence[Record], document: Document) -> BenchmarkEntries:
    """One benchmark per cell, method and latency metric, in the order of the report."""
    summary = document.summary
    benchmarks: list[dict[str, Any]] = []
    notes: list[str] = []
    by_row: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        by_row.setdefault((record.point.cell_id, record.method, record.point_id), []).append(record)
    for cell in summary.cells:
        for row in cell.rows:
            reason = _why_left_out(row)
            if reason:
                notes.append(f"{cell_label(cell)}: {row.method}: left out: {reason}")
                continue
            own = by_row[cell.cell_id, row.method, row.point_id]
            benchmarks += [_benchmark(document, cell, row, metric, own) for metric in FAMILY_METRICS]
    if summary.limits:
        notes.append("the search: left out: each method is measured at its own limit, so their times compare nothing")
    return BenchmarkEntries(benchmarks, notes)


def _why_left_out(row: MethodRow) -> str:
    if row.has_failed:
        return "no launch succeeded"
    if row.is_wrong:
        return "wrong: " + ", ".join(failure_text(name) for name in row.failed_identities)
    if any(metric not in row.latencies for metric in FAMILY_METRICS):
        return "no samples"
    return ""


def _benchmark(
    document: Document, cell: CellSummary, row: MethodRow, metric: LatencyMetric, own: Sequence[Record]
) -> dict[str, Any]:
    label, short = cell_label(cell), metric.removesuffix("_s")
    scenario = one_line(document.name) or "modbench"
    name = f"{row.method} {short}[{label}]"
    values = [value for record in own if (value := launch_latency(record, metric)) is not None]
    return {
        "group": f"{scenario} {short}[{label}]",
        "name": name,
        "fullname": f"{scenario}::{name}",
        "params": {
            **(cell.axes or {key: cell.workload.get(key) for key in ("context", "batch")}),
            "method": row.method,
        },
        "param": label,
        "extra_info": _extra_info(document.summary, cell, row, metric),
        "options": OPTIONS,
        "stats": launch_stats(values),
    }


def _extra_info(summary: Summary, cell: CellSummary, row: MethodRow, metric: LatencyMetric) -> dict[str, Any]:
    """What a time means nothing without: the work, its keep ratios, the guard, the doubts."""
    name = next(name for name, of_metric in SPEEDUP_METRICS.items() if of_metric == metric)
    speedup = row.speedups.get(name)
    judgement = speedup.judgement if speedup else None
    doubts = [
        note.text
        for note in summary.footnotes
        if (not note.methods or row.method in note.methods) and (not note.cell_ids or cell.cell_id in note.cell_ids)
    ]
    return {
        "point_id": row.point_id,
        "kind": row.kind,
        **{key: row.values[key] for key in EXTRA_METRICS},
        name: speedup.value if speedup else None,
        f"{name}_interval": list(speedup.interval) if speedup and speedup.interval else None,
        f"{name}_verdict": judgement.verdict.value if judgement else None,
        "guard": dict(row.guard),
        "git_sha": summary.environment.get("git_sha"),
        "doubts": doubts,
    }


def launch_stats(values: Sequence[float]) -> dict[str, Any]:
    """The fields of `stats` for launch values in seconds, at least one; nothing is NaN, also for one value or equal ones.

    Quartiles: the mean of those without and with the middle value in both halves, as pytest-benchmark has them.
    """
    ordered = sorted(values)
    count, half = len(ordered), len(ordered) // 2
    mean, total = statistics.mean(ordered), sum(values)
    stddev = statistics.stdev(ordered) if count > 1 else 0.0
    q1 = q3 = ordered[0]
    if count > 1:
        q1 = (statistics.median(ordered[:half]) + statistics.median(ordered[: count - half])) / 2
        q3 = (statistics.median(ordered[half:]) + statistics.median(ordered[count - half :])) / 2
    low, high = q1 - OUTLIER_IQRS * (q3 - q1), q3 + OUTLIER_IQRS * (q3 - q1)
    stddev_outliers = sum(not mean - stddev <= value <= mean + stddev for value in ordered)
    iqr_outliers = sum(not low <= value <= high for value in ordered)
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean,
        "stddev": stddev,
        "rounds": count,
        "median": statistics.median(ordered),
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": iqr_outliers,
        "stddev_outliers": stddev_outliers,
        "outliers": f"{stddev_outliers};{iqr_outliers}",
        "ld15iqr": min((value for value in ordered if value >= low), default=ordered[0]),
        "hd15iqr": max((value for value in ordered if value <= high), default=ordered[-1]),
        "ops": count / total if total else 0,
        "total": total,
        "data": list(values),
        "iterations": 1,
    }


def _machine_info(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Of the machine that measured; None where the records do not say."""
    found = environment.get("machine")
    machine = found if isinstance(found, Mapping) else {}
    system, _, architecture = str(machine.get("system", "")).partition(" ")
    return {
        "node": None,
        "processor": machine.get("cpu"),
        "machine": architecture or None,
        "python_version": environment.get("python"),
        "release": environment.get("kernel"),
        "system": system or None,
        "cpu": {"brand_raw": machine.get("cpu"), "count": machine.get("num_cores")},
        "fingerprint": machine.get("fingerprint"),
        "device": environment.get("device"),
        "gpu": environment.get("gpu"),
        "versions": environment.get("versions"),
    }


def _commit_info(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Of the code that ran; `unversioned` where that was in no checkout, as pytest-benchmark says it."""
    return {
        "id": environment.get("git_sha") or "unversioned",
        "time": None,
        "author_time": None,
        "dirty": bool(environment.get("git_is_dirty")),
        "project": "modbench",
        "branch": "(unknown)",
    }
