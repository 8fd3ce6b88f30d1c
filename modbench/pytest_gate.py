"""The gate of the pytest plugin: a run's records against an earlier run's, which `--modbench-baseline` names."""

from collections.abc import Sequence
from pathlib import Path

from modbench.analysis import ComparedSides, Comparison, SideRecords, Verdict, compare_all
from modbench.errors import RecordError
from modbench.record import Record
from modbench.report.comparison import metric_name
from modbench.report.gate import change_text
from modbench.side_files import load_side

NOTHING_COMPARED = "nothing was compared: no method and point in common"
WORSE = (Verdict.SLOWER, Verdict.FAILED, Verdict.NOT_COMPARABLE)  # what was not shown, be it for noise, fails nothing


def load_baseline(baseline: Path) -> SideRecords:
    """The earlier run.

    Raises:
        RecordError: it cannot be read.
    """
    try:
        return load_side(str(baseline))
    except RecordError as error:
        raise RecordError(f"--modbench-baseline: {error}") from error


def compare_with_baseline(records: Sequence[Record], baseline: SideRecords) -> ComparedSides:
    """A run's records beside an earlier run's."""
    (compared,) = compare_all(baseline, [SideRecords("this run", records)])
    return compared


def gate_failures(compared: ComparedSides) -> dict[str, list[str]]:
    """Cell id -> a line for everything that is worse than in the baseline; cells without one are left out.

    Where nothing could be judged at all, every cell has a line: a wrong baseline must not pass.
    """
    if not compared.judged:
        return {cell_id: [f"against {compared.base.label}: {NOTHING_COMPARED}"] for cell_id in compared.cells}
    failures: dict[str, list[str]] = {}
    for line in compared.judged:
        if line.verdict in WORSE:
            failures.setdefault(line.cell_id, []).append(f"against {compared.base.label}: {_text(line)}")
    return failures


def gate_notes(compared: ComparedSides) -> list[str]:
    """A line where something was not shown: a green item would look as if nothing were slower."""
    unclear = [line for line in compared.judged if line.verdict in (Verdict.INCONCLUSIVE, Verdict.UNDECIDED)]
    if not unclear:
        return []
    reasons = ", ".join(dict.fromkeys(line.reason for line in unclear if line.reason))
    told = f"{len(unclear)} of {len(compared.judged)} comparisons are inconclusive and fail nothing"
    return [f"against {compared.base.label}: {told}" + (f" ({reasons})" if reasons else "")]


def _text(line: Comparison) -> str:
    words = [line.method, metric_name(line.metric), line.word, change_text(line)]
    return " ".join(word for word in words if word) + (f": {line.reason}" if line.reason else "")
