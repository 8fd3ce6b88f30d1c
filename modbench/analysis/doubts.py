"""What makes a number doubtful, as values that a report prints beside it.

In: records and the rows made from them. Out: `Footnote`s.
"""

from collections.abc import Sequence

from modbench.analysis.resources import varying_metrics
from modbench.analysis.rows import CellSummary, Footnote, MethodRow
from modbench.analysis.statistics import MIN_PAIRS, PERCENTILE_NEEDS
from modbench.record import Record

ABOVE_IDEAL = 1.05  # share of the ideal from which the prediction, not the method, needs an explanation


def footnotes(records: Sequence[Record], cells: Sequence[CellSummary], num_skipped_lines: int) -> tuple[Footnote, ...]:
    """Doubts of the file, of launches and of rows, each once with the methods it concerns, in first-seen order."""
    doubts: dict[str, dict[str, None]] = {}  # text -> methods, both in first-seen order

    def doubt(text: str, method: str) -> None:
        doubts.setdefault(text, {})[method] = None

    for record in records:
        for flag in record.flags if record.status == "ok" else ():
            doubt(flag, record.method)
    by_row: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        if record.status == "ok":
            by_row.setdefault((record.point.cell_id, record.method, record.point_id), []).append(record)
    for members in by_row.values():
        for name in varying_metrics(members):
            doubt(f"{name} differs between launches; the median is shown", members[0].method)
    for cell in cells:
        for row in cell.rows:
            for text in _row_doubts(row):
                doubt(text, row.method)
    skipped = [Footnote(f"{num_skipped_lines} damaged line(s) of the records file were passed over")]
    notes = [Footnote(text, tuple(methods)) for text, methods in doubts.items()]
    return tuple(skipped * (num_skipped_lines > 0) + notes)


def _row_doubts(row: MethodRow) -> list[str]:
    if row.has_failed:
        return []
    doubts = [f"wrong: identity {name} failed; its speed counts for nothing" for name in row.failed_identities]
    for name in (name for name, result in row.guard.items() if result == "declared"):
        doubts.append(f"declared: identity {name} does not hold: {row.declared.get(name, 'no reason given')}")
    for phase in ("prefill", "decode"):
        share = row.values[f"{phase}_share_of_ideal"]
        if share is not None and share > ABOVE_IDEAL and not row.is_wrong:
            doubts.append(
                f"{phase}_speedup is above its ideal: the baseline does more, or the method less, than the prediction "
                "counts (a stock KV cache copies itself at each step), so not all of it need be due to skipped tokens"
            )
    if not row.is_baseline:
        num_pairs = max((speedup.num_pairs for speedup in row.speedups.values()), default=0)
        if num_pairs < MIN_PAIRS:
            doubts.append(f"no verdict below {MIN_PAIRS} pairs")
        doubts += [] if row.is_wrong else _open_questions(row)
        if row.values["prefill_ideal_speedup"] is None:
            doubts.append("ideal speed-up n/a: ceilings or keep ratios are missing")
    missing = [percent for percent, found in row.itl_percentiles.items() if found.value is None and percent > 50]
    if missing and row.itl_percentiles[50].value is not None:
        doubts.append(
            "percentiles of inter-token latency: "
            + ", ".join(f"p{p} n/a (needs {PERCENTILE_NEEDS[p]})" for p in missing)
        )
    return doubts


def _open_questions(row: MethodRow) -> list[str]:
    """Comparisons with enough pairs for a look that are not decided, and what it would take."""
    questions = []
    for name, speedup in row.speedups.items():
        judgement = speedup.judgement
        if judgement is None or judgement.interval is None or not judgement.reason:
            continue
        needed = judgement.pairs_needed
        effort = (
            f"about {needed} pairs would decide" if needed else "no number of pairs that is worth while would decide"
        )
        questions.append(f"{name} is {judgement.verdict.value}: {judgement.reason}; {effort}")
    return questions
