"""Records -> summaries, comparisons, verdicts, predictions. Pure: no torch, pandas, matplotlib, files or clock."""

from modbench.analysis.breakdown import Breakdowns, PhaseBreakdown, break_down
from modbench.analysis.compare import COMPARED_METRICS, SideRecords, compare_all, compare_sides
from modbench.analysis.comparison import ComparedSides, Comparison, Difference, Side, gate_exit_code
from modbench.analysis.expectations import ExpectationOutcome, evaluate_expectations
from modbench.analysis.limits import fits, size_of
from modbench.analysis.margins import margins_of, recorded_floors
from modbench.analysis.pairs import comparisons, exhausted_methods
from modbench.analysis.rows import (
    CellSummary,
    Failure,
    Footnote,
    LimitCell,
    MethodLimit,
    MethodRow,
    Summary,
    metric_value,
)
from modbench.analysis.side_pairs import session_of, side_by_side_comparisons
from modbench.analysis.summary import summarise
from modbench.analysis.verdict import Judgement, Verdict, judge, judge_family, margin, undecided_cells

__all__ = [
    "COMPARED_METRICS",
    "Breakdowns",
    "CellSummary",
    "ComparedSides",
    "Comparison",
    "Difference",
    "ExpectationOutcome",
    "Failure",
    "Footnote",
    "Judgement",
    "LimitCell",
    "MethodLimit",
    "MethodRow",
    "PhaseBreakdown",
    "Side",
    "SideRecords",
    "Summary",
    "Verdict",
    "break_down",
    "compare_all",
    "compare_sides",
    "comparisons",
    "evaluate_expectations",
    "exhausted_methods",
    "fits",
    "gate_exit_code",
    "judge",
    "judge_family",
    "margin",
    "margins_of",
    "metric_value",
    "recorded_floors",
    "session_of",
    "side_by_side_comparisons",
    "size_of",
    "summarise",
    "undecided_cells",
]
