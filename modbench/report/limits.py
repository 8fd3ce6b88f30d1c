"""The largest sizes that fit: a table per searched axis, sentences for the answer, and how to read them.

In: a `Summary` with limits. Out: texts, one line each and not yet escaped for a format; nothing where nothing was searched.
"""

from collections.abc import Callable

from modbench.analysis.rows import LimitCell, MethodLimit, MethodRow, Summary, failure_text
from modbench.report.document import cell_label
from modbench.report.escaping import one_line
from modbench.report.tables import NOTHING, Column, Group, Row, RowState, Table, latency_text
from modbench.scenario import BASELINE
from modbench.units import format_bytes, format_count, format_factor, format_percent, format_rate

TITLES = {"context": "Longest context that fits", "batch": "Largest batch that fits"}
UNITS = {"context": "tokens", "batch": "rows"}
BOUNDS = {"context": "position limit", "batch": "most that is tried"}


def limit_tables(summary: Summary) -> list[Table]:
    """A table per searched axis, with a group per cell and a row per method."""
    headers = ("Method", "Fits", "Fails at", "To dense", "Decode", "KV cache")
    details = ("TTFT", "Kept / any row", "Peak memory", "Tried")
    columns = (
        *(Column(header, is_numeric=header != "Method") for header in headers),
        *(Column(header, is_detail=True) for header in details),
    )
    tables = []
    for axis in dict.fromkeys(found.axis for found in summary.limits):
        searches = [found for found in summary.limits if found.axis == axis]
        groups = tuple(Group(_label(found), tuple(_row(found, limit) for limit in found.limits)) for found in searches)
        tables.append(Table(TITLES[searches[0].name], columns, groups))
    return tables


def limit_answers(summary: Summary) -> list[str]:
    """A sentence per method at the last search, the baseline only where no other method speaks of it."""
    if not summary.limits:
        return []
    found = summary.limits[-1]
    others = [limit for limit in found.limits if limit.method != BASELINE and limit.ratio is not None]
    told = [limit for limit in found.limits if limit.method != BASELINE or not others]
    return [
        f"{_opening(found, len(summary.limits))}{one_line(limit.method)} {_clause(found, limit)}." for limit in told
    ]


def limit_legend(summary: Summary) -> list[str]:
    """What the columns mean."""
    if not summary.limits:
        return []
    return [
        "Fits: the largest size of which no launch failed, below the smallest that did (Fails at).",
        "To dense: size / dense size, [the bounds that the failing sizes leave].",
        "Decode: total rate of all rows at that size. Kept / any row: decoded tokens kept at routed layers / decode steps "
        "that keep a token of any row there; only at these the layer's weights are read.",
    ]


def _label(found: LimitCell) -> str:
    memory = f"within {format_bytes(found.memory_limit_bytes)}" if found.memory_limit_bytes else ""
    return " · ".join(part for part in (cell_label(found.cell), memory) if part)


def _row(found: LimitCell, limit: MethodLimit) -> Row:
    row = found.row(limit.method)
    is_wrong = row is not None and row.is_wrong
    cells = (
        one_line(limit.method) + (" (wrong)" if is_wrong else ""),
        _value_text(limit),
        _failing_text(found, limit),
        _ratio_text(limit),
        *(NOTHING if row is None or row.has_failed else text(row) for text in _MEASURED),
        str(limit.num_trials),
    )
    state: RowState = "baseline" if limit.method == BASELINE else "plain"
    if limit.value is None or row is None or row.has_failed:
        state = "failed"
    return Row(cells, "wrong" if is_wrong else state, one_line(limit.method))


def _known(value: float | None, text: Callable[[float | None], str]) -> str:
    return NOTHING if value is None else text(value)


def _kept_text(row: MethodRow) -> str:
    kept = [row.values[name] for name in ("keep_ratio_decode", "keep_ratio_decode_any")]
    return NOTHING if None in kept else " / ".join(format_percent(value) for value in kept)


_MEASURED: tuple[Callable[[MethodRow], str], ...] = (
    lambda row: _known(row.values["decode_tokens_per_s"], format_rate),
    lambda row: _known(row.values["kv_cache_bytes"], format_bytes),
    lambda row: latency_text(row.latencies.get("ttft_s")),
    _kept_text,
    lambda row: _known(row.peak_memory_bytes, format_bytes),
)


def _value_text(limit: MethodLimit) -> str:
    if limit.value is None:
        return NOTHING
    return ("≥ " if limit.is_at_bound else "") + format_count(limit.value)


def _failing_text(found: LimitCell, limit: MethodLimit) -> str:
    if limit.is_at_bound:
        return BOUNDS[found.name]
    if limit.first_failing is None:
        return limit.status or "not finished"
    return f"{format_count(limit.first_failing)} ({limit.status})"


def _ratio_text(limit: MethodLimit) -> str:
    low, high = limit.ratio_bounds
    if limit.ratio is None or low is None:
        return NOTHING
    if high is None:
        return f"≥ {format_factor(low)}"
    ends = ", ".join(format_factor(end).rstrip("×") for end in (low, high))
    return f"{format_factor(limit.ratio)} [{ends}]"


def _decode_text(row: MethodRow, batch: int) -> str:
    rate, any_row = row.values["decode_tokens_per_s"], row.values["keep_ratio_decode_any"]
    if rate is None:
        return ""
    has_rows = batch > 1 and any_row is not None
    reads = f", reading a routed layer at {format_percent(any_row)} of steps" if has_rows else ""
    return f", and decodes there {format_rate(rate)}{reads}"


def _opening(found: LimitCell, num_searches: int) -> str:
    parts = [f"at {cell_label(found.cell)}"] if num_searches > 1 else []
    parts += [f"within {format_bytes(found.memory_limit_bytes)}"] if found.memory_limit_bytes else []
    text = ", ".join(parts)
    return f"{text[0].upper()}{text[1:]}, " if text else ""


def _clause(found: LimitCell, limit: MethodLimit) -> str:
    row, unit = found.row(limit.method), UNITS[found.name]
    if row is not None and row.is_wrong:
        reasons = ", ".join(one_line(failure_text(name)) for name in row.failed_identities)
        return f"is wrong ({reasons}), its limit counts for nothing"
    if limit.value is None:
        if limit.first_failing == 1:
            return f"fits at no {found.name}: {limit.status} in {limit.phase} at 1"
        reason = f": {limit.status} in {limit.phase}" if limit.first_failing is None and limit.status else ""
        return f"was not searched to the end{reason}"
    batch = limit.value if found.name == "batch" else found.cell.workload["batch"]
    end = "" if row is None else _decode_text(row, batch)
    size = f"{format_count(limit.value)} {unit}"
    if limit.is_at_bound:
        return f"fits at least {size} ({BOUNDS[found.name]}){end}"
    base = next((other for other in found.limits if other.method == BASELINE), None)
    if limit.ratio is None or base is None or base.value is None:
        return f"fits {size}{end}"
    factor = format_factor(limit.ratio)
    return f"fits {factor} the {found.name} of dense: {format_count(limit.value)} against {format_count(base.value)} {unit}{end}"
