"""The answer in sentences with numbers, written from the summary: what each method keeps, needs and gains."""

from dataclasses import dataclass

from modbench.analysis.doubts import ABOVE_IDEAL
from modbench.analysis.prediction import SAVES
from modbench.analysis.rows import CellSummary, MethodRow, Summary, failure_text
from modbench.analysis.statistics import MIN_PAIRS
from modbench.report.document import cell_label, cell_labels
from modbench.report.escaping import one_line
from modbench.report.limits import limit_answers
from modbench.report.tables import NOTHING, RowState, verdict_text
from modbench.scenario import BASELINE
from modbench.units import format_factor, format_percent

SPOKEN_OF_FIRST = ("threshold", "topk")  # kinds; the controls come last, and never stand in the figures
NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven")


@dataclass(frozen=True)
class Figure:
    """One number of the opening: what it is, its text, and a remark."""

    name: str
    text: str
    remark: str = ""


@dataclass(frozen=True)
class OpeningVerdict:
    """What may be said of the main method at the headline cell: `text` is one line, `state` how it is drawn."""

    text: str
    state: RowState


def headline_cell(summary: Summary) -> CellSummary | None:
    """The cell the answer speaks of: the longest context at which the main method was compared, else of all cells."""
    first = min((_rank(row) for cell in summary.cells for row in _compared(cell)), default=None)
    compared = [cell for cell in summary.cells if first in [_rank(row) for row in _compared(cell)]]
    return max(compared or summary.cells, key=_context, default=None)


def answers(summary: Summary) -> list[str]:
    """One sentence per method at the headline cell, the main one first, and what was lost of the baseline."""
    cell = headline_cell(summary)
    if cell is None:
        return limit_answers(summary) or ["Nothing was measured."]
    others = sorted((row for row in cell.rows if not row.is_baseline), key=_rank)
    if not others:
        sentences = [f"At {cell_label(cell)}, only the baseline was measured: there is nothing to compare."]
    else:
        sentences = [_sentence(summary, cell, row) for row in others]
    losses = _losses(summary, BASELINE, None, BASELINE)
    return sentences + [f"{text}." for text in losses] + limit_answers(summary)


def figures(summary: Summary) -> list[Figure]:
    """The numbers of the main method that can be compared, for the opening; [] if there is none."""
    row = _figure_row(summary)
    if row is None:
        return []
    found = [
        ("prefill", "prefill_speedup", format_factor, _share_text(row, "prefill")),
        ("decode", "decode_speedup", format_factor, _share_text(row, "decode")),
        ("less KV cache", "kv_cache_reduction", format_factor, ""),
        ("tokens kept", "keep_ratio_prefill", format_percent, f"at routed layers{_router_text(row)}"),
    ]
    values = [(name, row.values[metric], text, remark) for name, metric, text, remark in found]
    return [Figure(name, text(value), remark) for name, value, text, remark in values if value is not None]


def figures_title(summary: Summary) -> str:
    """What the figures are about: `threshold against dense, context 4,096; two pairs of launches: no verdict`."""
    cell, row = headline_cell(summary), _figure_row(summary)
    if cell is None or row is None:
        return ""
    return f"{one_line(row.method)} against dense, {cell_label(cell)}; {_confidence(row)}"


def opening_verdict(summary: Summary) -> OpeningVerdict | None:
    """The verdict of the figures, or why there is none; None where nothing was compared."""
    row = _figure_row(summary)
    if row is None:
        return None
    words = {verdict_text(row, f"{phase}_speedup") for phase in ("prefill", "decode")}
    state: RowState = "missed" if "slower" in words else "met" if "faster" in words else "plain"
    text = _confidence(row)
    return OpeningVerdict(text[0].upper() + text[1:], state)


def _compared(cell: CellSummary) -> list[MethodRow]:
    return [row for row in cell.rows if row.speedups and not row.is_wrong]


def _is_control(row: MethodRow) -> bool:
    return row.kind in SAVES


def _rank(row: MethodRow) -> int:
    """The place of a row's kind in sentences and figures."""
    if row.kind in SPOKEN_OF_FIRST:
        return SPOKEN_OF_FIRST.index(row.kind)
    return len(SPOKEN_OF_FIRST) + _is_control(row)


def _figure_row(summary: Summary) -> MethodRow | None:
    cell = headline_cell(summary)
    rows = [row for row in _compared(cell) if not _is_control(row)] if cell else []
    return min(rows, key=_rank, default=None)


def _context(cell: CellSummary) -> int:
    context = cell.workload.get("context")
    return context if isinstance(context, int) else 0


def _sentence(summary: Summary, cell: CellSummary, row: MethodRow) -> str:
    start = f"At {cell_label(cell)}, {one_line(row.method)}"
    losses = "".join(f"; {text}" for text in _losses(summary, row.method, cell, "it"))
    num_launches = sum(row.status_counts.values())
    if row.has_failed:
        counts = ", ".join(f"{status} in {count}" for status, count in row.status_counts.items())
        return f"{start} gave no numbers: {counts} of {num_launches} launches{losses}."
    if row.num_launches < num_launches:
        losses = f"; {num_launches - row.num_launches} of {num_launches} launches failed{losses}"
    if row.is_wrong:
        reasons = ", ".join(one_line(failure_text(name)) for name in row.failed_identities)
        return f"{start} is wrong ({reasons}), its speed counts for nothing{losses}."
    clauses = _clauses(row)
    if not clauses:
        return f"{start} was measured, and has no baseline to compare with{losses}."
    return f"{start} {_joined(clauses)}; {_confidence(row)}{losses}."


def _losses(summary: Summary, method: str, told: CellSummary | None, subject: str) -> list[str]:
    """What the method lost at all cells but the one that is `told` of already."""
    rows = [(cell, row) for cell in summary.cells if cell is not told for row in cell.rows if row.method == method]
    lost = [cell.cell_id for cell, row in rows if row.has_failed]
    launches = [(row.num_launches, sum(row.status_counts.values())) for _, row in rows if not row.has_failed]
    num_failed = sum(total - ok for ok, total in launches)
    elsewhere = " at other points" if told else f" of {subject}"
    texts = [f"{subject} gave no numbers at {cell_labels(summary, lost)}"] if lost else []
    total = sum(total for _, total in launches)
    return texts + ([f"{num_failed} of {total} launches{elsewhere} failed"] if num_failed else [])


def _clauses(row: MethodRow) -> list[str]:
    clauses = []
    keep, reduction = row.values["keep_ratio_prefill"], row.values["kv_cache_reduction"]
    if keep is not None:
        clauses.append(f"keeps {format_percent(keep)} of tokens at routed layers{_router_text(row)}")
    if reduction is not None:
        clauses.append(f"needs {1 / reduction:.2f}× the KV cache of dense")
    for phase, verb in (("prefill", "prefills"), ("decode", "decodes")):
        speedup = row.values[f"{phase}_speedup"]
        if speedup is not None:
            share = _share_text(row, phase)
            clauses.append(f"{verb} {format_factor(speedup)} as fast" + (f" ({share})" if share else ""))
    return clauses


def _router_text(row: MethodRow) -> str:
    return f" ({row.router})" if row.router else ""


def _share_text(row: MethodRow, phase: str) -> str:
    share = row.values[f"{phase}_share_of_ideal"]
    if share is not None and share > ABOVE_IDEAL:
        return "above its ideal: see doubts"
    return "" if share is None else f"{format_percent(share)} of the ideal speed-up"


def _confidence(row: MethodRow) -> str:
    """The verdicts, or the number of pairs and why there is none."""
    num_pairs = max((speedup.num_pairs for speedup in row.speedups.values()), default=0)
    if row.no_verdict:
        count = NUMBER_WORDS[num_pairs] if num_pairs < len(NUMBER_WORDS) else num_pairs
        reason = "no verdict" if num_pairs < MIN_PAIRS else row.no_verdict
        return f"{count} pair{'s' * (num_pairs != 1)} of launches: {reason}"
    words = [(phase, verdict_text(row, f"{phase}_speedup")) for phase in ("prefill", "decode")]
    known = [f"{phase} {'undecided' if word == 'open' else word}" for phase, word in words if word != NOTHING]
    judged = max((item.judgement.num_pairs for item in row.speedups.values() if item.judgement), default=num_pairs)
    return f"verdict after {judged} pairs of launches: {', '.join(known) or 'none'}"


def _joined(clauses: list[str]) -> str:
    return clauses[0] if len(clauses) == 1 else ", ".join(clauses[:-1]) + " and " + clauses[-1]
