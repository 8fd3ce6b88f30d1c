"""Trials -> the largest size that fits, per method, and its ratio to the baseline's. Pure.

In: the records of one search. Out: `MethodLimit`s. What a trial says: `ok` and `invalid` ones held their memory and fit, `oom`,
`timeout` and `crashed` ones do not fit, and any other failure says nothing about sizes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from modbench.analysis.resources import ratio
from modbench.analysis.rows import Footnote, LimitCell, MethodLimit
from modbench.record import Record
from modbench.scenario import BASELINE
from modbench.search import LimitSearch

FITTING = ("ok", "invalid")
NOT_FITTING = ("oom", "timeout", "crashed")


def size_of(record: Record) -> int:
    """The size that the launch of a search was about."""
    assert record.trial is not None, "only launches of a search have a size that is looked for"
    size = record.point.workload[record.trial.name]
    assert isinstance(size, int), f"a searched size is an integer, got {size!r}"
    return size


def fits(record: Record) -> bool | None:
    """Whether the launch's size fits; None where its failure says nothing about that.

    A launch at the limit that takes too long fits, as the trial of that size did: it runs more samples.
    """
    is_late_at_limit = record.status == "timeout" and record.trial is not None and record.trial.role == "limit"
    if record.status in FITTING or is_late_at_limit:
        return True
    return False if record.status in NOT_FITTING else None


def is_lost(record: Record) -> bool:
    """True for a launch of a search that gave no answer, or no numbers at the limit: a failure, not a result."""
    assert record.trial is not None, "only launches of a search are asked about"
    return fits(record) is None or (record.trial.role == "limit" and record.status != "ok" and fits(record) is True)


def method_limits(records: Sequence[Record]) -> tuple[MethodLimit, ...]:
    """The limit of every method of one search, the baseline first, the others in first-seen order."""
    by_method: dict[str, list[Record]] = {}
    for record in records:
        by_method.setdefault(record.method, []).append(record)
    limits = {method: _limit(method, members) for method, members in by_method.items()}
    base = limits.get(BASELINE)
    ordered = sorted(limits.values(), key=lambda limit: limit.method != BASELINE)
    return tuple(limit if limit is base or base is None else _with_ratio(limit, base) for limit in ordered)


def limit_values(name: str, limit: MethodLimit) -> Mapping[str, float | None]:
    """The metrics that a search of `name`, context or batch, gives."""
    return {f"{name}_limit": limit.value, f"{name}_limit_ratio": limit.ratio}


STOCK_CACHE = (
    "decodes on the stock cache, which copies itself at each step: rates beside it, and limits, are not due to routing alone "
    "(dense: {kv_cache: chunked} has the same cache)"
)


def memory_limit_bytes(record: Record) -> float | None:
    """What the launch's memory had to stay within: of a GPU the limit it was given, or else its size; of a CPU the limit."""
    environment = record.environment
    if record.point.device_kind == "cuda":
        machine = environment.get("machine")
        gpu = machine.get("gpu_memory_bytes") if isinstance(machine, Mapping) else None
        found = environment.get("device_limit_bytes") or gpu
    else:
        found = environment.get("memory_limit_bytes")
    return found if isinstance(found, int | float) else None


def limit_doubts(found: LimitCell) -> list[Footnote]:
    """What makes the limits of one search doubtful."""
    doubts: dict[str, list[str]] = {}
    if not found.has_one_budget:
        doubts["launches of the search had different memory limits: their limits are not comparable"] = []
    base = next((row for row in found.cell.rows if row.is_baseline), None)
    if base is not None and base.settings.get("kv_cache") == "stock" and len(found.cell.rows) > 1:
        doubts[STOCK_CACHE] = [base.method]
    for limit in found.limits:
        if limit.num_invalid:
            text = "launches of the search missed their keep ratio: they count as fitting, and give no rate"
            doubts.setdefault(text, []).append(limit.method)
        if limit.value is not None and limit.status in ("timeout", "crashed"):
            text = f"the limit is where a launch ended as {limit.status}, which need not be for want of memory"
            doubts.setdefault(text, []).append(limit.method)
    return [Footnote(text, tuple(methods), (found.cell.cell_id,)) for text, methods in doubts.items()]


def _limit(method: str, records: Sequence[Record]) -> MethodLimit:
    """The bracket that the trials leave; it is a limit once it was measured at."""
    trial = records[0].trial
    assert trial is not None, "the records of a search are trials"
    search = LimitSearch(first=1, bound=trial.bound)
    for record in records:
        search.note(size_of(record), fits(record))
    value = search.largest_fitting
    was_measured = any(
        record.trial is not None and record.trial.role == "limit" and size_of(record) == value for record in records
    )
    failed = [record for record in records if fits(record) is None]
    failing = [record for record in records if fits(record) is False and size_of(record) == search.first_failing]
    cause = next(iter(failed + failing), None)
    return MethodLimit(
        method=method,
        value=value if was_measured and not failed else None,
        first_failing=None if failed else search.first_failing,
        is_at_bound=search.is_at_bound,
        num_trials=len({size_of(record) for record in records}),
        num_invalid=sum(record.status == "invalid" for record in records),
        status=cause.status if cause else None,
        phase=cause.phase if cause else None,
        error=cause.error if cause else None,
    )


def _with_ratio(limit: MethodLimit, base: MethodLimit) -> MethodLimit:
    if base.first_failing is None or base.value is None or limit.value is None:
        return limit
    bounds = (ratio(limit.value, base.first_failing), ratio(limit.first_failing, base.value))
    return replace(limit, ratio=ratio(limit.value, base.value), ratio_bounds=bounds)
