"""What makes a number doubtful, as values that a report prints beside it.

In: records and the rows made from them. Out: `Footnote`s.
"""

from collections.abc import Collection, Mapping, Sequence

from modbench.analysis.kv_cache import unexplained
from modbench.analysis.resources import varying_metrics
from modbench.analysis.rows import CellSummary, Footnote, MethodRow, failure_text
from modbench.analysis.statistics import PERCENTILE_NEEDS
from modbench.record import CHECKPOINT_ROUTER, Record

ABOVE_IDEAL = 1.05  # share of the ideal from which the prediction, not the method, needs an explanation


def footnotes(records: Sequence[Record], cells: Sequence[CellSummary], num_skipped_lines: int) -> tuple[Footnote, ...]:
    """Doubts of the file, of launches and of rows, in first-seen order.

    Each stands once with the methods it concerns, and with the cells where it is not all that a method has numbers at.
    """
    doubts: dict[str, dict[str, dict[str, None]]] = {}  # text -> method -> cells, all in first-seen order

    def doubt(text: str, method: str, cell_id: str) -> None:
        doubts.setdefault(text, {}).setdefault(method, {})[cell_id] = None

    by_row: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        if record.status != "ok":
            continue
        for flag in record.flags:
            if flag != CHECKPOINT_ROUTER:
                doubt(flag, record.method, record.point.cell_id)
        by_row.setdefault((record.point.cell_id, record.method, record.point_id), []).append(record)
    for (cell_id, method, _), members in by_row.items():
        for name in varying_metrics(members):
            doubt(f"{name} differs between launches; the median is shown", method, cell_id)
    for cell in cells:
        for row in cell.rows:
            for text in _row_doubts(row):
                doubt(text, row.method, cell.cell_id)
    everywhere: dict[str, set[str]] = {}
    for cell_id, method, _ in by_row:
        everywhere.setdefault(method, set()).add(cell_id)
    skipped = [Footnote(passed_over(num_skipped_lines, "the records"))]
    notes = [note for text, methods in doubts.items() for note in _notes(text, methods, everywhere)]
    return tuple(skipped * (num_skipped_lines > 0) + notes)


def passed_over(num_lines: int, content: str) -> str:
    """The doubt about a file with lines that could not be read."""
    lines, were = ("line", "was") if num_lines == 1 else ("lines", "were")
    return f"{num_lines} damaged {lines} of {content} {were} passed over"


def _notes(
    text: str, methods: Mapping[str, Mapping[str, None]], everywhere: Mapping[str, Collection[str]]
) -> list[Footnote]:
    """One footnote for all methods that have the doubt at the same cells, or at all of theirs."""
    grouped: dict[tuple[str, ...], list[str]] = {}
    for method, cell_ids in methods.items():
        is_everywhere = set(cell_ids) == everywhere[method]
        grouped.setdefault(() if is_everywhere else tuple(cell_ids), []).append(method)
    return [Footnote(text, tuple(names), cell_ids) for cell_ids, names in grouped.items()]


def _row_doubts(row: MethodRow) -> list[str]:
    if row.has_failed:
        return []
    doubts = [f"wrong: {failure_text(name)}; its speed counts for nothing" for name in row.failed_identities]
    doubts += _declarations(row)
    for phase in ("prefill", "decode"):
        share = row.values[f"{phase}_share_of_ideal"]
        if share is not None and share > ABOVE_IDEAL and not row.is_wrong:
            doubts.append(
                f"{phase}_speedup is above its ideal: the baseline does more, or the method less, than the prediction "
                "counts (a stock KV cache copies itself at each step), so not all of it need be due to skipped tokens"
            )
    doubts += unexplained(row.values)
    if not row.is_baseline:
        doubts += [row.no_verdict] if row.no_verdict else []
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


def _declarations(row: MethodRow) -> list[str]:
    """Identities that are declared away, each with its reason; one line where one reason goes for all there are."""
    reasons = {
        name: row.declared.get(name, "no reason given") for name, result in row.guard.items() if result == "declared"
    }
    if len(reasons) == len(row.guard) > 1 and len(set(reasons.values())) == 1:
        return [f"declared: no identity is checked: {reason}" for reason in set(reasons.values())]
    return [f"declared: identity {name} does not hold: {reason}" for name, reason in reasons.items()]


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
