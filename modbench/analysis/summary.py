"""Records -> a summary: per cell and method the latencies, speed-ups, memory, ideals, doubts and failures.

In: the records of one or more runs of a scenario. Out: a `Summary`, which `report/` prints as it is.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from modbench.analysis.doubts import footnotes
from modbench.analysis.limits import is_lost, limit_doubts, limit_values, memory_limit_bytes, method_limits, size_of
from modbench.analysis.margins import margins_of, recorded_floors
from modbench.analysis.pairs import (
    FAMILY_METRICS,
    ComparisonKey,
    LatencyMetric,
    comparisons,
    has_few_samples,
    launch_latency,
    pair_values,
)
from modbench.analysis.resources import (
    device_times,
    energy_values,
    ideal_values,
    keep_values,
    memory_ratios,
    memory_values,
    peak_metric,
    quality_values,
    ratio,
    routed_keep_ratios,
    saving_realised,
)
from modbench.analysis.rows import (
    FROM_BASELINE,
    NO_GUARD,
    SPEEDUP_METRICS,
    CellSummary,
    Failure,
    LimitCell,
    MethodRow,
    Speedup,
    Spread,
    Summary,
)
from modbench.analysis.statistics import (
    MIN_PAIRS,
    MIN_SAMPLES,
    PERCENTILE_NEEDS,
    interval_of_speedup,
    log_ratios,
    median,
    percentile,
    ratio_interval,
    speedup_of,
)
from modbench.analysis.verdict import (
    DEFAULT_TOLERANCE,
    LAST_QUAD,
    Judgement,
    judge_family,
    pairs_at_look,
)
from modbench.plan import PointWork
from modbench.record import ROUTER_FLAGS, Record
from modbench.scenario import BASELINE, METRICS

LAST_MEMORY_METRICS = (  # of a device before the host's, a peak before what was held at the end
    "peak_device_used_bytes",
    "peak_reserved_bytes",
    "last_reserved_bytes",
    "peak_allocated_bytes",
    "last_allocated_bytes",
    "peak_rss_bytes",
    "last_rss_bytes",
)
Judgements = Mapping[ComparisonKey, Judgement]


def summarise(
    records: Sequence[Record],
    num_skipped_lines: int = 0,
    tolerance: float = DEFAULT_TOLERANCE,
) -> Summary:
    """Summarise records by cell and method; only `ok` launches give numbers.

    Args:
        records: launches in the order written; cells and methods appear in first-seen order, the baseline first.
        num_skipped_lines: damaged lines of the records file, for a footnote.
        tolerance: what counts as the same speed, as a share; the margin of verdicts is at least the noise floor of the records.
    """
    margins = margins_of(tolerance, recorded_floors(records))
    compared = [record for record in records if record.trial is None]
    searched = [record for record in records if record.trial is not None]
    judgements = _judgements(compared, margins)
    cells = tuple(_summarise_cell(cell_id, members, judgements) for cell_id, members in _by_cell(compared).items())
    limits = tuple(_summarise_search(cell_id, members) for cell_id, members in _by_cell(searched).items())
    rows_of = [*compared, *(record for record in searched if record.trial and record.trial.role == "limit")]
    environment, varying = _environments(records)
    return Summary(
        cells=cells,
        failures=_failures([*compared, *(record for record in searched if is_lost(record))]),
        footnotes=(
            *footnotes(rows_of, [*cells, *(found.cell for found in limits)], num_skipped_lines),
            *(note for found in limits for note in limit_doubts(found)),
        ),
        environment=environment,
        varying_environment=varying,
        num_records=len(records),
        tolerance=tolerance,
        margins=margins,
        run_ids=tuple(dict.fromkeys(record.run_id for record in records)),
        limits=limits,
    )


def _by_cell(records: Sequence[Record]) -> dict[str, list[Record]]:
    by_cell: dict[str, list[Record]] = {}
    for record in records:
        by_cell.setdefault(record.point.cell_id, []).append(record)
    return by_cell


def _judgements(records: Sequence[Record], margins: Mapping[str, float]) -> Judgements:
    """The verdicts of the run's family, without comparisons whose launches have too few samples."""
    short = {(record.point.cell_id, record.method) for record in records if has_few_samples(record)}
    finished = {record.point.cell_id for record in records if record.pair.quad >= LAST_QUAD}
    family = {
        key: differences
        for key, differences in comparisons(records).items()
        if not {(key.cell_id, key.method), (key.cell_id, BASELINE)} & short
    }
    judged = judge_family(
        family.values(), [margins[key.metric] for key in family], [key.cell_id in finished for key in family]
    )
    return dict(zip(family, judged, strict=True))


def _summarise_cell(cell_id: str, records: Sequence[Record], judgements: Judgements) -> CellSummary:
    by_method: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        by_method.setdefault((record.method, record.point_id), []).append(record)
    ordered = sorted(by_method.values(), key=lambda members: members[0].method != BASELINE)  # stable: first seen
    base_ok = [record for record in records if record.method == BASELINE and record.status == "ok"]
    rows = [_summarise_method(found, records, base_ok, judgements) for found in ordered]
    return _cell(cell_id, (base_ok or records)[0].point, rows)


def _cell(cell_id: str, point: PointWork, rows: Sequence[MethodRow]) -> CellSummary:
    return CellSummary(
        cell_id=cell_id,
        axes=point.axes,
        model={**point.model, "geometry": point.geometry.model_dump()},
        workload=point.workload,
        device_kind=point.device_kind,
        attention=point.attention,
        threads=point.threads,
        dtype=point.dtype,
        rows=_with_baseline_failures(rows),
    )


def _summarise_search(cell_id: str, records: Sequence[Record]) -> LimitCell:
    """The limits of one search, with a row for each method that was measured at its own."""
    trial, point = records[0].trial, records[0].point
    assert trial is not None, "the records of a search are trials"
    rows, limits = [], method_limits(records)
    for limit in limits:
        own = [record for record in records if record.method == limit.method and size_of(record) == limit.value]
        members = [record for record in own if record.trial and record.trial.role == "limit"]
        if members:  # no speed-ups: each method is at its own size
            row = _summarise_method(members, (), (), {})
            values = {**row.values, **limit_values(trial.name, limit)}
            rows.append(replace(row, values=values, itl_percentiles={}, no_verdict=""))
    workload = {**point.workload, trial.name: None}  # every method has its own
    cell = _cell(cell_id, point.model_copy(update={"workload": workload}), rows)
    budgets = {memory_limit_bytes(record) for record in records}
    return LimitCell(trial.axis, cell, limits, memory_limit_bytes(records[0]), has_one_budget=len(budgets) == 1)


def _with_baseline_failures(rows: Sequence[MethodRow]) -> tuple[MethodRow, ...]:
    """A wrong baseline makes every row that is compared with it wrong too."""
    inherited = tuple(FROM_BASELINE + name for row in rows if row.is_baseline for name in row.failed_identities)
    return tuple(
        row if row.is_baseline else replace(row, failed_identities=row.failed_identities + inherited) for row in rows
    )


def _summarise_method(
    members: Sequence[Record], cell: Sequence[Record], base_ok: Sequence[Record], judgements: Judgements
) -> MethodRow:
    first = members[0]
    is_baseline = first.method == BASELINE
    ok = [record for record in members if record.status == "ok"]
    latencies = _latencies(ok)
    speedups = {} if is_baseline else _speedups(first, cell, judgements)
    memory = memory_values(ok)
    base_memory = memory_values(base_ok) if base_ok and not is_baseline else None
    values: dict[str, float | None] = dict.fromkeys(METRICS)
    values |= memory | memory_ratios(memory, base_memory) | keep_values(ok) | ideal_values(ok)
    values |= _rates(first, latencies) | device_times(ok) | energy_values(ok)
    values |= quality_values(ok)
    values |= {name: speedup.value for name, speedup in speedups.items()}
    if is_baseline:
        values |= {"prefill_ideal_speedup": None, "decode_ideal_speedup": None}
    for phase in ("prefill", "decode"):
        speedup, ideal = values[f"{phase}_speedup"], values[f"{phase}_ideal_speedup"]
        values[f"{phase}_share_of_ideal"] = ratio(speedup, ideal)
        values[f"{phase}_saving_realised"] = saving_realised(speedup, ideal)
    itl = [gap for record in ok for gap in record.samples.itl_s]
    guard = _guard(members)
    return MethodRow(
        method=first.method,
        kind=first.kind,
        point_id=first.point_id,
        settings=first.point.settings,
        is_baseline=is_baseline,
        status_counts=dict(Counter(record.status for record in members)),
        num_launches=len(ok),
        latencies=latencies,
        speedups=speedups,
        itl_percentiles={percent: percentile(itl, percent) for percent in PERCENTILE_NEEDS},
        values=values,
        peak_memory_metric=peak_metric(memory),
        guard=guard,
        declared=_declared(members),
        failed_identities=failed_identities(members),
        router=next((flag for record in ok for flag in record.flags if flag in ROUTER_FLAGS), None),
        keep_ratios=routed_keep_ratios(ok),
        no_verdict="" if is_baseline else _no_verdict(speedups, [*ok, *base_ok]),
    )


def failed_identities(members: Sequence[Record]) -> tuple[str, ...]:
    """The identities of the same-work guard that failed in any launch, and `NO_GUARD` where an `ok` one has no outcome."""
    failed = tuple(name for name, result in _guard(members).items() if result == "failed")
    has_guard = all(record.guard for record in members if record.status == "ok")
    return failed if has_guard else (*failed, NO_GUARD)


def _no_verdict(speedups: Mapping[str, Speedup], ok: Sequence[Record]) -> str:
    if max((speedup.num_pairs for speedup in speedups.values()), default=0) < MIN_PAIRS:
        return f"no verdict below {MIN_PAIRS} pairs"
    if any(has_few_samples(record) for record in ok):
        return f"fewer than {MIN_SAMPLES} samples per launch: no verdict"
    return ""


def _latencies(ok: Sequence[Record]) -> dict[LatencyMetric, Spread]:
    spreads: dict[LatencyMetric, Spread] = {}
    for metric in SPEEDUP_METRICS.values():
        values = [value for record in ok if (value := launch_latency(record, metric)) is not None]
        if values:
            spreads[metric] = Spread(median(values), min(values), max(values), len(values), ratio_interval(values))
    return spreads


def _rates(record: Record, latencies: Mapping[LatencyMetric, Spread]) -> dict[str, float | None]:
    """Latencies in seconds and total rates of the batch in tokens per second."""
    ttft = latencies["ttft_s"].median if "ttft_s" in latencies else None
    tpot = latencies["tpot_s"].median if "tpot_s" in latencies else None
    batch, context = (record.point.workload.get(name) for name in ("batch", "context"))
    return {
        "ttft_s": ttft,
        "tpot_s": tpot,
        "prefill_tokens_per_s": ratio(batch * context if batch and context else None, ttft),
        "decode_tokens_per_s": ratio(batch, tpot),
    }


def _speedups(first: Record, cell: Sequence[Record], judgements: Judgements) -> dict[str, Speedup]:
    speedups = {}
    for name, metric in SPEEDUP_METRICS.items():
        differences = log_ratios(pair_values(cell, first.method, first.point_id, metric))
        if not differences:
            continue
        judgement = None
        if metric in FAMILY_METRICS:
            judgement = judgements.get(ComparisonKey(first.point.cell_id, first.method, first.point_id, metric))
        interval = interval_of_speedup(pairs_at_look(differences))
        speedups[name] = Speedup(speedup_of(differences), interval, len(differences), judgement)
    return speedups


def _guard(members: Sequence[Record]) -> dict[str, str]:
    """The worst result of each identity over the launches."""
    worst = {"passed": 0, "declared": 1, "failed": 2}
    results: dict[str, str] = {}
    for record in members:
        for name, result in record.guard.items():
            if worst[result] >= worst[results.get(name, "passed")]:
                results[name] = result
    return results


def _declared(members: Sequence[Record]) -> dict[str, str]:
    """The method's reasons for the identities that it declares not to hold."""
    reasons: dict[str, str] = {}
    for record in members:
        found = record.environment.get("declared")
        reasons |= {str(key): str(text) for key, text in found.items()} if isinstance(found, Mapping) else {}
    return reasons


def _failures(records: Sequence[Record]) -> tuple[Failure, ...]:
    groups: dict[tuple[str, str, str, str, str | None], list[Record]] = {}
    for record in records:
        if record.status != "ok":
            key = (record.point.cell_id, record.method, record.status, record.phase, record.error)
            groups.setdefault(key, []).append(record)
    return tuple(Failure(*key, _last_memory(members), len(members)) for key, members in groups.items())


def _last_memory(records: Sequence[Record]) -> float | None:
    """The largest memory that failed launches still reported, of the outermost kind known."""
    for name in LAST_MEMORY_METRICS:
        values = [value for record in records if (value := record.metrics.get(name)) is not None]
        if values:
            return max(values)
    return None


def _environments(records: Sequence[Record]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The first record's environment, and the dotted keys whose values differ in a later one."""
    if not records:
        return {}, ()
    first = flatten(records[0].environment)
    varying: dict[str, None] = {}
    for record in records[1:]:
        if record.environment is records[0].environment or record.environment == records[0].environment:
            continue
        other = flatten(record.environment)
        varying |= dict.fromkeys(key for key in {**first, **other} if first.get(key) != other.get(key))
    return records[0].environment, tuple(varying)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat
