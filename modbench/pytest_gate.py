"""The gate of the pytest plugin: a run's records against an earlier run's, which `--modbench-baseline` names."""

from collections.abc import Sequence
from pathlib import Path

from modbench.analysis import Comparison, SideRecords, Verdict, compare_all
from modbench.record import Record
from modbench.report.comparison import metric_name
from modbench.report.gate import change_text
from modbench.side_files import load_side

WORSE = (Verdict.SLOWER, Verdict.FAILED, Verdict.NOT_COMPARABLE)  # what was not shown, be it for noise, fails nothing


def gate_failures(records: Sequence[Record], baseline: Path) -> dict[str, list[str]]:
    """Cell id -> a line for everything that is worse than in the run at `baseline`; cells without one are left out.

    Raises:
        RecordError: the baseline cannot be read.
    """
    (compared,) = compare_all(load_side(str(baseline)), [SideRecords("this run", records)])
    failures: dict[str, list[str]] = {}
    for line in compared.judged:
        if line.verdict in WORSE:
            failures.setdefault(line.cell_id, []).append(f"against {baseline}: {_text(line)}")
    return failures


def _text(line: Comparison) -> str:
    words = [line.method, metric_name(line.metric), line.word, change_text(line)]
    return " ".join(word for word in words if word) + (f": {line.reason}" if line.reason else "")
