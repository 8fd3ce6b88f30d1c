"""What is wrong at a cell, in lines; the plugin's tests show the rest."""

from modbench.analysis import evaluate_expectations, summarise
from modbench.report.document import Document
from modbench.report.problems import cell_problems
from modbench.scenario import parse_expectation
from tests.modbench.record_factory import failed, make_quads, make_record
from tests.modbench.test_analysis_limits import both, searched, trial

KINDS = {"dense": "dense", "threshold": "threshold"}


def problems_of(records, *expectations: str) -> list[list[str]]:
    summary = summarise(records)
    outcomes = evaluate_expectations([parse_expectation(text, KINDS) for text in expectations], summary)
    document = Document(summary, outcomes=outcomes)
    return [cell_problems(document, cell) for cell in summary.all_cells]


def test_a_cell_as_expected_has_no_problems():
    assert problems_of(make_quads(1), "threshold.prefill_speedup >= 1.5") == [[]]


def test_an_expectation_is_told_at_its_own_cell_and_one_without_a_cell_at_all():
    records = make_quads(1, contexts=(1024, 4096), noise=0.0)
    first, second = problems_of(
        records,
        "threshold.prefill_speedup >= 3 @ workload.context == 4096",
        "threshold.prefill_speedup >= 1 @ measure.device == cuda",
    )
    nowhere = (
        "expectation not met: threshold.prefill_speedup >= 1 @ measure.device == cuda (no measured cell matches it)"
    )
    assert first == [nowhere]
    assert second == [
        "expectation not met: threshold.prefill_speedup >= 3 @ workload.context == 4096: measured 1.78 "
        "(prefill_speedup is not >= 3)",
        nowhere,
    ]


def test_failed_launches_are_counted():
    records = [make_record(), *(failed(make_record("threshold", half=half)) for half in (0, 1))]
    assert problems_of(records) == [["threshold: 2 launches ended as oom in prefill: out of memory"]]


def test_a_search_without_its_answer_is_a_problem():
    assert problems_of(both()) == [[]], "what did not fit is the answer"
    unmeasured = [*searched("dense", 1000, 1020), trial("threshold", 1700)]
    assert problems_of(unmeasured) == [["the search found no limit for a method, or could not measure there"]]
