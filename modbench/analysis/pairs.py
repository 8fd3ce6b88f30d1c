"""Records -> one value per launch, and pairs of launches with the baseline.

The order within a quad is mirrored (A B C C B A): launches of its first half are pairs of each other, and so are
those of the second. A pair exists only where both launches are `ok`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from modbench.analysis.statistics import MIN_SAMPLES, launch_value, log_ratios
from modbench.record import SIDE_BY_SIDE, Record
from modbench.scenario import BASELINE

LatencyMetric = Literal["ttft_s", "tpot_s", "end_to_end_s"]
Halves = dict[tuple[str, int, int], list[Record]]  # (run, quad, half) -> its launches
FAMILY_METRICS: tuple[LatencyMetric, ...] = ("ttft_s", "tpot_s")  # what verdicts are given on


@dataclass(frozen=True)
class ComparisonKey:
    """One comparison against the baseline."""

    cell_id: str
    method: str
    point_id: str
    metric: LatencyMetric


def launch_latency(record: Record, metric: LatencyMetric) -> float | None:
    """The launch's value in seconds; None without samples or for a launch that is not `ok`.

    End-to-end is put together per sample, ttft + tpot * (new_tokens - 1), the inverse of tpot's definition.
    """
    if record.status != "ok":
        return None
    samples = record.samples
    if metric == "end_to_end_s":
        new_tokens = record.point.workload.get("new_tokens")
        if not isinstance(new_tokens, int) or len(samples.ttft_s) != len(samples.tpot_s):
            return None
        both = zip(samples.ttft_s, samples.tpot_s, strict=True)
        values = [ttft + tpot * (new_tokens - 1) for ttft, tpot in both]
    else:
        values = samples.ttft_s if metric == "ttft_s" else samples.tpot_s
    return launch_value(values) if values else None


def split_quads(records: Sequence[Record]) -> Halves:
    """The records of one cell by (run, quad, half); the half is where the launch stands in the mirrored order.

    A method's two launches of a quad are one in each half. Of a single one (an interrupted run, an odd number of
    launches) the position tells: the first half has a place for each method of the cell.
    """
    num_methods = len({record.method for record in records})
    launches: dict[tuple[str, int, str, str], list[Record]] = {}
    for record in records:
        key = (record.run_id, record.pair.quad, record.method, record.point_id)
        launches.setdefault(key, []).append(record)
    halves: Halves = {}
    for (run_id, quad, _, _), members in launches.items():
        for index, record in enumerate(sorted(members, key=lambda member: member.pair.position)):
            num_first = 2 if SIDE_BY_SIDE in record.environment else num_methods
            is_second = index > 0 if len(members) > 1 else record.pair.position >= num_first
            halves.setdefault((run_id, quad, int(is_second)), []).append(record)
    return halves


def pair_values(
    records: Sequence[Record], method: str, point_id: str, metric: LatencyMetric
) -> list[tuple[float, float]]:
    """(baseline, method) values of the pairs of one cell, in order of quad and half.

    Raises:
        ValueError: a latency is not above 0, so that its pair has no ratio.
    """
    return pair_values_in(split_quads(records), method, point_id, metric)


def pair_values_in(halves: Halves, method: str, point_id: str, metric: LatencyMetric) -> list[tuple[float, float]]:
    """The same of a cell that `split_quads` has split already."""
    pairs = []
    for _, members in sorted(halves.items(), key=lambda item: item[0]):
        base = [launch_latency(record, metric) for record in members if record.method == BASELINE]
        other = [
            launch_latency(record, metric)
            for record in members
            if (record.method, record.point_id) == (method, point_id)
        ]
        if base and other and base[0] is not None and other[0] is not None:
            pairs.append((base[0], other[0]))
    if any(value <= 0 for pair in pairs for value in pair):
        raise ValueError(f"{method}: got a {metric} that is not above 0")
    return pairs


def comparisons(records: Sequence[Record]) -> dict[ComparisonKey, list[float]]:
    """The ln ratios of every (cell, method, latency metric) against the baseline: the family of one command.

    A method without an `ok` pair has an empty list; `verdict.undecided_cells` passes over it.
    """
    cells: dict[str, list[Record]] = {}
    for record in records:
        cells.setdefault(record.point.cell_id, []).append(record)
    family: dict[ComparisonKey, list[float]] = {}
    for cell_id, members in cells.items():
        others = dict.fromkeys((record.method, record.point_id) for record in members if record.method != BASELINE)
        for method, point_id in others:
            for metric in FAMILY_METRICS:
                key = ComparisonKey(cell_id, method, point_id, metric)
                family[key] = log_ratios(pair_values(members, method, point_id, metric))
    return family


def exhausted_methods(records: Sequence[Record]) -> frozenset[tuple[str, str]]:
    """(cell, method) for which further launches would decide nothing; the baseline stands for all of its cell.

    No launch of it in the cell's newest quad is `ok` (it has begun to fail), or it has launches of too few samples for
    a verdict.
    """
    newest: dict[str, int] = {}
    for record in records:
        newest[record.point.cell_id] = max(record.pair.quad, newest.get(record.point.cell_id, 0))
    tried, alive = set(), set()
    for record in records:
        key = (record.point.cell_id, record.method)
        if record.pair.quad == newest[key[0]]:
            tried.add(key)
            if record.status == "ok":
                alive.add(key)
    short = {(record.point.cell_id, record.method) for record in records if has_few_samples(record)}
    return frozenset(tried - alive | short)


def has_few_samples(record: Record) -> bool:
    """True for an `ok` launch whose quantile rests on too few samples for a verdict."""
    return record.status == "ok" and min(len(record.samples.ttft_s), len(record.samples.tpot_s)) < MIN_SAMPLES
