"""What two runs measured, each for itself, beside each other: for runs that did other work, or ran on other machines.

In: their `Summary`s. Out: a table and the times for a plot. Nothing here is a comparison, and nothing has a verdict.
"""

from collections.abc import Callable, Iterator, Sequence

from modbench.analysis.rows import MethodRow, Summary
from modbench.report.comparison_rows import TimeRow, row_label
from modbench.report.document import cell_label
from modbench.report.escaping import one_line
from modbench.report.tables import NOTHING, Column, Group, Row, Table, latency_text, method_text, speedup_text
from modbench.units import format_bytes, format_count, format_factor, format_percent

MAX_GROUPS = 40
TITLE = "Each run for itself"
_Rows = dict[tuple[str, str], MethodRow]


def _known(format: Callable[[float], str], name: str) -> Callable[[MethodRow], str]:
    return lambda row: NOTHING if (value := row.values[name]) is None else format(value)


NUMBERS: tuple[tuple[str, Callable[[MethodRow], str]], ...] = (
    ("TTFT", lambda row: latency_text(row.latencies.get("ttft_s"))),
    ("prefill speed-up against dense", lambda row: speedup_text(row, "prefill_speedup")),
    ("TPOT", lambda row: latency_text(row.latencies.get("tpot_s"))),
    ("decode speed-up against dense", lambda row: speedup_text(row, "decode_speedup")),
    ("KV cache", _known(format_bytes, "kv_cache_bytes")),
    ("KV reduction", _known(format_factor, "kv_cache_reduction")),
    ("kept, prefill", _known(format_percent, "keep_ratio_prefill")),
    ("peak memory", lambda row: NOTHING if row.peak_memory_bytes is None else format_bytes(row.peak_memory_bytes)),
)


def own_numbers_table(base: Summary, candidate: Summary) -> Table:
    """A group per cell, a row per method and number that either run has; cells of one name stand beside each other."""
    sides = [_rows(summary) for summary in (base, candidate)]
    groups: dict[str, list[Row]] = {}
    for cell, method in dict.fromkeys((*sides[0], *sides[1])):
        groups.setdefault(cell, []).extend(_number_rows(method, [side.get((cell, method)) for side in sides]))
    for label, rows in _limit_groups(base, candidate):
        groups.setdefault(label, []).extend(rows)
    shown = [Group(label, tuple(rows)) for label, rows in groups.items() if rows][:MAX_GROUPS]
    more = len(groups) - len(shown)
    title = TITLE + (f" (the first {len(shown)} of {len(groups)} points)" if more > 0 else "")
    columns = (
        Column("Method", is_numeric=False),
        Column("Number", is_numeric=False),
        Column("Base"),
        Column("Candidate"),
    )
    return Table(title, columns, tuple(shown))


def own_times(base: Summary, candidate: Summary) -> list[TimeRow]:
    """Median times of methods at cells that both runs have by name."""
    sides = [_rows(summary) for summary in (base, candidate)]
    rows = []
    for name, metric in (("TTFT", "ttft_s"), ("TPOT", "tpot_s")):
        for cell, method in sides[0]:
            times = [_time(side.get((cell, method)), metric) for side in sides]
            if times[0] and times[1]:
                rows.append(TimeRow(name, row_label(method, cell), one_line(method), times[0], times[1]))
    return rows


def _time(row: MethodRow | None, metric: str) -> float | None:
    return None if row is None or row.is_wrong else row.values[metric]


def _rows(summary: Summary) -> _Rows:
    """By cell and method; a name that two points of a run have counts once."""
    rows: _Rows = {}
    for cell in summary.cells:
        for row in cell.rows:
            rows.setdefault((cell_label(cell), row.method), row)
    return rows


def _number_rows(method: str, rows: Sequence[MethodRow | None]) -> Iterator[Row]:
    found = [row for row in rows if row is not None]
    is_wrong = any(row.is_wrong for row in found)
    name = next((method_text(row) for row in found if row.is_wrong), one_line(method))
    for number, text in NUMBERS:
        texts = [NOTHING if row is None else _status(row) if row.has_failed else text(row) for row in rows]
        if any(found != NOTHING for found in texts):
            yield Row((name, number, *texts), "wrong" if is_wrong else "plain")
        if all(row.has_failed for row in found):
            return


def _status(row: MethodRow) -> str:
    return ", ".join(f"{status} × {count}" for status, count in row.status_counts.items())


def _limit_groups(base: Summary, candidate: Summary) -> Iterator[tuple[str, list[Row]]]:
    """What fits, per searched size."""
    sides: list[dict[tuple[str, str], int | None]] = [
        {(found.name, limit.method): limit.value for found in summary.limits for limit in found.limits}
        for summary in (base, candidate)
    ]
    groups: dict[str, list[Row]] = {}
    for name, method in dict.fromkeys((*sides[0], *sides[1])):
        values = [side.get((name, method)) for side in sides]
        texts = [NOTHING if value is None else format_count(value) for value in values]
        groups.setdefault(f"search {name}", []).append(Row((one_line(method), f"{name} that fits", *texts)))
    yield from groups.items()
