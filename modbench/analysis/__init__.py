"""Records -> summaries, comparisons, verdicts, predictions. Pure: no torch, pandas, matplotlib, files or clock."""

from modbench.analysis.breakdown import Breakdowns, PhaseBreakdown, break_down
from modbench.analysis.expectations import ExpectationOutcome, evaluate_expectations
from modbench.analysis.pairs import comparisons, exhausted_methods
from modbench.analysis.rows import CellSummary, Failure, Footnote, MethodRow, Summary, metric_value
from modbench.analysis.summary import summarise
from modbench.analysis.verdict import Judgement, Verdict, judge, judge_family, margin, undecided_cells

__all__ = [
    "Breakdowns",
    "CellSummary",
    "ExpectationOutcome",
    "Failure",
    "Footnote",
    "Judgement",
    "MethodRow",
    "PhaseBreakdown",
    "Summary",
    "Verdict",
    "break_down",
    "comparisons",
    "evaluate_expectations",
    "exhausted_methods",
    "judge",
    "judge_family",
    "margin",
    "metric_value",
    "summarise",
    "undecided_cells",
]
