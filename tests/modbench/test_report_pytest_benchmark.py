"""A run as pytest-benchmark's JSON: its fields, its statistics, and the real `pytest-benchmark compare` on two files."""

import json
import math
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from pytest_benchmark.stats import Stats

from modbench.analysis import summarise
from modbench.analysis.pairs import launch_latency
from modbench.plan import Pair
from modbench.record import append_record
from modbench.report.document import Document
from modbench.report.pytest_benchmark import benchmark_entries, launch_stats, pytest_benchmark_file
from tests.modbench.record_factory import failed, make_quads, make_record

STARTED = "2026-01-02T03:04:05+0000"
FACTS = {
    "run_id": "r",
    "name": "speed",
    "question": "",
    "methods": {"dense": "dense", "threshold": "threshold"},
    "expect": [],
    "overrides": [],
    "command": "modbench run",
    "started": STARTED,
}
COMPARE = Path(sys.executable).with_name("pytest-benchmark")


def document_of(records):
    return Document(summarise(records), "speed")


def write_run(folder: Path, records) -> Path:
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(FACTS))
    for record in records:
        append_record(folder / "records.jsonl", record)
    return folder


def export(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "modbench", "report", str(folder), "--format", "pytest-benchmark", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "values",
    [
        [0.3],
        [0.2, 0.2, 0.2],
        [0.1, 0.4],
        [5.0, 1.0, 2.0],
        [1.0, 2.0, 3.0, 4.0, 90.0],
        [3.0, 1.0, 2.0, 8.0, 5.0, 9.0, 4.0],
    ],
    ids=["one", "equal", "two", "three", "five with an outlier", "seven"],
)
def test_statistics_are_those_of_pytest_benchmark(values):
    theirs = Stats()
    for value in values:
        theirs.update(value)
    ours = launch_stats(values)
    expected = {**theirs.as_dict(), "data": values, "iterations": 1}
    assert set(ours) == set(expected)
    for name, value in expected.items():
        assert ours[name] == (value if isinstance(value, str) else pytest.approx(value)), name


def test_one_launch_and_equal_launches_have_finite_statistics():
    for values in ([0.5], [0.5] * 4, [0.0, 0.0]):
        numbers = [value for value in launch_stats(values).values() if isinstance(value, int | float)]
        assert all(math.isfinite(value) for value in numbers)
    assert launch_stats([0.5])["stddev"] == 0


def test_a_benchmark_per_cell_method_and_metric_has_the_launch_values_as_data():
    records = make_quads(2, contexts=(1024, 4096))
    entries = benchmark_entries(records, document_of(records))
    assert [found["fullname"] for found in entries.benchmarks] == [
        f"speed::{method} {metric}[context {context}]"
        for context in ("1,024", "4,096")
        for method in ("dense", "threshold")
        for metric in ("ttft", "tpot")
    ]
    own = [record for record in records if record.method == "threshold" and record.point.workload["context"] == 1024]
    assert entries.benchmarks[3]["stats"]["data"] == [launch_latency(record, "tpot_s") for record in own]
    assert entries.benchmarks[3]["stats"]["rounds"] == 4
    assert entries.notes == []


def test_what_a_time_rests_on_stands_beside_it():
    records = make_quads(2)
    dense, _, threshold, _ = benchmark_entries(records, document_of(records)).benchmarks
    extra = threshold["extra_info"]
    assert extra["keep_ratio_prefill"] == pytest.approx(0.11)
    assert extra["prefill_speedup"] == pytest.approx(1.78, rel=0.01)
    assert extra["guard"] == {"decode_equals_forward": "passed", "causal": "passed"}
    assert "calibrated random router" in extra["doubts"]
    assert "calibrated random router" not in dense["extra_info"]["doubts"]
    assert dense["extra_info"]["prefill_speedup"] is None


def test_commit_and_machine_are_those_of_the_records():
    environment = {
        "git_sha": "abc",
        "git_is_dirty": True,
        "machine": {"cpu": "Example CPU", "num_cores": 8, "system": "Linux x86_64", "fingerprint": "f"},
    }
    records = [make_record(method, environment=environment) for method in ("dense", "threshold")]
    document = document_of(records)
    entries = benchmark_entries(records, document)
    file = pytest_benchmark_file(entries.benchmarks, document.summary.environment, STARTED)
    assert (file["commit_info"]["id"], file["commit_info"]["dirty"]) == ("abc", True)
    assert (file["machine_info"]["system"], file["machine_info"]["machine"]) == ("Linux", "x86_64")
    assert datetime.fromisoformat(file["datetime"]) == datetime.fromisoformat(STARTED)
    assert {"machine_info", "commit_info", "benchmarks", "datetime", "version"} == set(file)


def test_wrong_and_failed_methods_are_left_out_with_a_note():
    methods = ("dense", "threshold", "masked")
    records = make_quads(1, methods)
    records = [
        record.model_copy(update={"guard": {"causal": "failed"}})
        if record.method == "threshold"
        else (failed(record) if record.method == "masked" else record)
        for record in records
    ]
    entries = benchmark_entries(records, document_of(records))
    assert {found["params"]["method"] for found in entries.benchmarks} == {"dense"}
    assert entries.notes == [
        "context 1,024: threshold: left out: wrong: identity causal failed",
        "context 1,024: masked: left out: no launch succeeded",
    ]


def test_pytest_benchmark_compares_two_files(tmp_path):
    for name, noise in (("before", 0.004), ("after", 0.02)):
        folder = write_run(tmp_path / name, make_quads(2, noise=noise))
        assert export(folder, "--output", str(tmp_path / f"{name}.json")).returncode == 0
    command = [str(COMPARE), "compare", "before.json", "after.json", "--name=long"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "benchmark 'speed ttft[context 1,024]': 4 tests" in done.stdout
    for source in ("before", "after"):
        assert f"speed::threshold tpot[context 1,024] ({source})" in done.stdout


def test_github_action_benchmark_finds_what_it_reads(tmp_path):
    """Its extractor for pytest takes name, value, range and extra from these fields of each benchmark."""
    records = [*make_quads(1), failed(make_record("threshold", quad=1))]
    done = export(write_run(tmp_path / "run", records))
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    for found in content["benchmarks"]:
        assert isinstance(found["fullname"], str)
        for name in ("ops", "stddev", "mean", "rounds"):
            assert math.isfinite(found["stats"][name])
        assert found["stats"]["ops"] == pytest.approx(1 / found["stats"]["mean"])
    assert len({found["fullname"] for found in content["benchmarks"]}) == len(content["benchmarks"]) == 4


def test_a_single_launch_can_be_exported(tmp_path):
    records = [make_record("dense"), make_record("threshold", pair=Pair(quad=0, position=1))]
    done = export(write_run(tmp_path / "run", records))
    assert {found["stats"]["stddev"] for found in json.loads(done.stdout)["benchmarks"]} == {0.0}


def test_notes_go_to_stderr_and_the_console_takes_no_output(tmp_path):
    records = [make_record("dense"), failed(make_record("threshold"))]
    folder = write_run(tmp_path / "run", records)
    done = export(folder)
    assert json.loads(done.stdout)["benchmarks"]
    assert done.stderr == "context 1,024: threshold: left out: no launch succeeded\n"
    refused = export(folder, "--format", "console", "--output", "x.json")
    assert refused.returncode == 2
    assert refused.stderr.startswith("--output: got x.json with --format console; expected a page")
    nowhere = export(folder, "--output", str(tmp_path / "missing" / "x.json"))
    assert nowhere.returncode == 2
    assert "cannot be written" in nowhere.stderr
