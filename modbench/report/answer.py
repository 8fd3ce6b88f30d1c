"""The answer in sentences with numbers, written from the summary: what each method keeps, needs and gains."""

from dataclasses import dataclass

from modbench.analysis.rows import CellSummary, MethodRow, Summary
from modbench.analysis.statistics import MIN_PAIRS
from modbench.report.document import cell_label
from modbench.report.escaping import one_line
from modbench.report.tables import NOTHING, verdict_text
from modbench.units import format_factor, format_percent

NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven")


@dataclass(frozen=True)
class Figure:
    """One number of the opening: what it is, its text, and a remark."""

    name: str
    text: str
    remark: str = ""


def headline_cell(summary: Summary) -> CellSummary | None:
    """The cell the answer speaks of: the longest context at which something was compared, else the longest."""
    compared = [cell for cell in summary.cells if any(row.speedups and not row.is_wrong for row in cell.rows)]
    return max(compared or summary.cells, key=_context, default=None)


def answers(summary: Summary) -> list[str]:
    """One sentence per method at the headline cell, in the order of the scenario."""
    cell = headline_cell(summary)
    if cell is None:
        return ["Nothing was measured."]
    others = [row for row in cell.rows if not row.is_baseline]
    if not others:
        return [f"At {cell_label(cell)}, only the baseline was measured: there is nothing to compare."]
    return [_sentence(cell, row) for row in others]


def figures(summary: Summary) -> list[Figure]:
    """The numbers of the first method that can be compared, for the opening; [] if there is none."""
    cell = headline_cell(summary)
    rows = [row for row in cell.rows if row.speedups and not row.is_wrong] if cell else []
    if not rows:
        return []
    row = rows[0]
    found = [
        ("prefill", "prefill_speedup", format_factor, _share_text(row, "prefill")),
        ("decode", "decode_speedup", format_factor, _share_text(row, "decode")),
        ("less KV cache", "kv_cache_reduction", format_factor, ""),
        ("tokens kept", "keep_ratio_prefill", format_percent, "at routed layers"),
    ]
    values = [(name, row.values[metric], text, remark) for name, metric, text, remark in found]
    return [Figure(name, text(value), remark) for name, value, text, remark in values if value is not None]


def figures_title(summary: Summary) -> str:
    """What the figures are about: `threshold against dense, context 4,096`."""
    cell = headline_cell(summary)
    rows = [row for row in cell.rows if row.speedups and not row.is_wrong] if cell else []
    return f"{one_line(rows[0].method)} against dense, {cell_label(cell)}" if rows and cell else ""


def _context(cell: CellSummary) -> int:
    context = cell.workload.get("context")
    return context if isinstance(context, int) else 0


def _sentence(cell: CellSummary, row: MethodRow) -> str:
    start = f"At {cell_label(cell)}, {one_line(row.method)}"
    if row.has_failed:
        counts = ", ".join(f"{status} in {count}" for status, count in row.status_counts.items())
        return f"{start} gave no numbers: {counts} of {sum(row.status_counts.values())} launches."
    if row.is_wrong:
        identities = ", ".join(one_line(name) for name in row.failed_identities)
        return f"{start} does not do the same work as dense: it is wrong ({identities}), its speed counts for nothing."
    clauses = _clauses(row)
    if not clauses:
        return f"{start} was measured, and has no baseline to compare with."
    return f"{start} {_joined(clauses)}; {_confidence(row)}."


def _clauses(row: MethodRow) -> list[str]:
    clauses = []
    keep, reduction = row.values["keep_ratio_prefill"], row.values["kv_cache_reduction"]
    if keep is not None:
        router = f" ({row.router})" if row.router else ""
        clauses.append(f"keeps {format_percent(keep)} of tokens at routed layers{router}")
    if reduction is not None:
        clauses.append(f"needs {1 / reduction:.2f}× the KV cache of dense")
    for phase, verb in (("prefill", "prefills"), ("decode", "decodes")):
        speedup = row.values[f"{phase}_speedup"]
        if speedup is not None:
            share = _share_text(row, phase)
            clauses.append(f"{verb} {format_factor(speedup)} as fast" + (f" ({share})" if share else ""))
    return clauses


def _share_text(row: MethodRow, phase: str) -> str:
    share = row.values[f"{phase}_share_of_ideal"]
    return "" if share is None else f"{format_percent(share)} of the ideal speed-up"


def _confidence(row: MethodRow) -> str:
    num_pairs = max((speedup.num_pairs for speedup in row.speedups.values()), default=0)
    if num_pairs < MIN_PAIRS:
        return f"{NUMBER_WORDS[num_pairs]} pair{'s' * (num_pairs != 1)} of launches: no verdict"
    words = [(phase, verdict_text(row, f"{phase}_speedup")) for phase in ("prefill", "decode")]
    known = [f"{phase} {'undecided' if word == 'open' else word}" for phase, word in words if word != NOTHING]
    return f"verdict after {num_pairs} pairs of launches: {', '.join(known) or 'none'}"


def _joined(clauses: list[str]) -> str:
    return clauses[0] if len(clauses) == 1 else ", ".join(clauses[:-1]) + " and " + clauses[-1]
