"""What modbench itself costs: start-up, validation, the report of 1,000 records, reading and comparing 10,000. Targets:
docs/performance.md.

Run with: .venv/bin/python -m pytest benchmarks/test_own_cost.py
The records are the published quickstart's, repeated under new ids, so that their size is that of real ones.
"""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from modbench.analysis import summarise
from modbench.plan import Pair
from modbench.record import RECORDS_FILE, append_record, load_records, read_records
from modbench.report.document import Document
from modbench.report.write import write_report

PROJECT = Path(__file__).resolve().parents[1]
PUBLISHED = PROJECT / "reports" / "published" / "quickstart-epyc"
NUM_RECORDS = 1000
NUM_COMPARED = 10_000


def run_program(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "modbench", *arguments], cwd=PROJECT, capture_output=True, check=True)


@pytest.fixture(scope="module")
def thousand_records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A records file of 1,000 launches: the published ones with quads counted on."""
    path = tmp_path_factory.mktemp("records") / "records.jsonl"
    published = read_records(PUBLISHED)
    for number, record in zip(range(NUM_RECORDS), itertools.cycle(published), strict=False):
        repetition = number // len(published)
        update = {"launch_id": f"{record.launch_id}-{repetition}"}
        pair = Pair(quad=repetition, position=record.pair.position)
        append_record(path, record.model_copy(update={**update, "pair": pair}))
    return path


@pytest.fixture(scope="module")
def two_long_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of two runs with 10,000 launches together: the published ones with quads counted on."""
    published = read_records(PUBLISHED)
    folders = []
    for run_id in ("first", "second"):
        folder = tmp_path_factory.mktemp(run_id)
        lines = []
        for number, record in zip(range(NUM_COMPARED // 2), itertools.cycle(published), strict=False):
            repetition = number // len(published)
            update = {"launch_id": f"{run_id}-{record.launch_id}-{repetition}", "run_id": run_id}
            pair = Pair(quad=repetition, position=record.pair.position)
            lines.append(record.model_copy(update={**update, "pair": pair}).model_dump_json() + "\n")
        (folder / RECORDS_FILE).write_text("".join(lines))
        folders.append(folder)
    return folders


def test_help_starts(benchmark):
    benchmark.pedantic(run_program, args=("--help",), rounds=10, warmup_rounds=1)


def test_validate_starts(benchmark):
    benchmark.pedantic(run_program, args=("validate", "scenarios/quickstart.yaml"), rounds=10, warmup_rounds=1)


def test_estimate_of_a_70b_model(benchmark):
    command = ("estimate", "llama3.1-70b", "--device", "h200")
    benchmark.pedantic(run_program, args=command, rounds=10, warmup_rounds=1)


def test_compare_of_10000_records(benchmark, two_long_runs):
    command = ("compare", *(str(folder) for folder in two_long_runs))
    benchmark.pedantic(run_program, args=command, rounds=3, warmup_rounds=1)


def test_reading_of_10000_records(benchmark, two_long_runs):
    def read_both() -> int:
        return sum(len(read_records(folder)) for folder in two_long_runs)

    assert benchmark.pedantic(read_both, rounds=3, warmup_rounds=1) == NUM_COMPARED


def test_analysis_and_report_of_1000_records(benchmark, thousand_records, tmp_path):
    def analyse_and_report() -> None:
        file = load_records(thousand_records)
        assert len(file.records) == NUM_RECORDS
        write_report(tmp_path, Document(summarise(file.records, file.num_skipped_lines)))

    benchmark.pedantic(analyse_and_report, rounds=3, warmup_rounds=1)
