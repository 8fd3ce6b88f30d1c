"""The program as a black box: a scenario in a folder, a command, its files and exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCENARIO = """\
name: micro
question: Does it run?
model:
  geometry: {num_hidden_layers: 4, hidden_size: 48, intermediate_size: 96, num_attention_heads: 4, vocab_size: 300}
methods:
  dense: {}
  threshold: {keep_ratio: 0.25}
  skip_layers: {}
workload: {context: 64, batch: 2, new_tokens: 17, prompt: {text: prose}, seed: 1}
measure: {launches: 2, samples: 2, warmup: 1, device: cpu}
matrix: {workload.context: [64, 128]}
expect: ["threshold.kv_cache_reduction >= 1.5"]
"""
FAILING_ENTRY = """\
name: failing
model:
  geometry: {num_hidden_layers: 2, hidden_size: 16, intermediate_size: 32, num_attention_heads: 2, vocab_size: 300}
methods:
  dense: {}
  mine: {method: entry, entry: "tests.modbench.subjects:dies", options: {signal: SIGSEGV}}
workload: {context: 16, new_tokens: 4, prompt: {synthetic: true}}
measure: {launches: 2, samples: 1, warmup: 0, device: cpu}
matrix: {workload.context: [16, 32]}
"""
PROJECT = Path(__file__).resolve().parents[2]


def modbench(*arguments: str, folder: Path, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "80", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "modbench", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, **options)


def write_scenario(folder: Path, text: str = SCENARIO) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prose").mkdir(exist_ok=True)
    (folder / "prose" / "a.md").write_text("It was a bright cold day in April, and the clocks were striking. " * 9)
    (folder / "s.yaml").write_text(text)
    return folder


def records_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One whole run, shared by the tests that only look at it."""
    folder = write_scenario(tmp_path_factory.mktemp("run"))
    return folder, modbench("run", "s.yaml", "--output", "out", folder=folder)


def test_a_run_ends_with_the_report_and_exit_code_0(finished):
    folder, done = finished
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().splitlines()[-1] == "report: out/report.html"
    assert "Does it run?" in done.stdout
    assert "✓ 2 of 2 expectations met" in done.stdout
    written = {path.relative_to(folder / "out").as_posix() for path in (folder / "out").rglob("*") if path.is_file()}
    assert {"records.jsonl", "run.json", "scenario.yaml", "report.md", "report.html", "worker.log"} <= written
    assert any(name.startswith("plots/") and name.endswith(".png") for name in written)
    assert not [name for name in written if name.startswith(".")]


def test_launches_are_mirrored_around_each_quad(finished):
    records = records_of(finished[0] / "out")
    order = ["dense", "threshold", "skip_layers"]
    assert [record["method"] for record in records] == (order + order[::-1]) * 2
    assert [record["pair"]["position"] for record in records] == [0, 1, 2, 3, 4, 5] * 2
    assert {record["status"] for record in records} == {"ok"}


def test_every_record_says_what_ran_where(finished):
    for record in records_of(finished[0] / "out"):
        environment = record["environment"]
        assert environment["scenario"]["text"] == SCENARIO
        assert environment["machine"]["fingerprint"]
        assert environment["versions"]["torch"]
        assert environment["ceilings"]["matmul_flops_per_s"] > 0
        assert set(record["guard"].values()) <= {"passed", "declared"}
        assert len(record["samples"]["itl_s"]) == 2 * 16


def test_all_methods_of_a_cell_ran_on_the_same_tokens(finished):
    records = records_of(finished[0] / "out")
    for context in (64, 128):
        cell = [record for record in records if record["point"]["workload"]["context"] == context]
        assert len({record["environment"]["tokens_sha256"] for record in cell}) == 1


def test_resume_measures_only_what_is_missing(finished, tmp_path):
    folder, _ = finished
    copy = write_scenario(tmp_path / "copy")
    (copy / "out").mkdir()
    for name in ("run.json", "scenario.yaml"):
        (copy / "out" / name).write_bytes((folder / "out" / name).read_bytes())
    lines = (folder / "out" / "records.jsonl").read_text().splitlines(keepends=True)
    cut = "".join(lines[:10]) + lines[10][:200]  # as a killed writer leaves it
    (copy / "out" / "records.jsonl").write_text(cut)
    done = modbench("run", "s.yaml", "--output", "out", "--resume", folder=copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[2/2]" in done.stdout
    text = (copy / "out" / "records.jsonl").read_text()
    assert text.startswith("".join(lines[:10]))
    whole = [json.loads(line) for line in text.splitlines() if line != lines[10][:200]]
    assert [record["launch_id"] for record in whole] == [json.loads(line)["launch_id"] for line in lines]
    assert any("interrupted run" in flag for flag in whole[-1]["flags"])


def test_a_comment_in_the_scenario_does_not_break_resume(finished, tmp_path):
    folder, _ = finished
    copy = write_scenario(tmp_path / "copy", "# a comment\n" + SCENARIO.replace("name: micro", "name: renamed"))
    (copy / "out").mkdir()
    for path in (folder / "out").iterdir():
        if path.is_file():
            (copy / "out" / path.name).write_bytes(path.read_bytes())
    done = modbench("run", "s.yaml", "--output", "out", "--resume", folder=copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(records_of(copy / "out")) == 12


def test_a_folder_with_a_run_is_not_overwritten(finished):
    folder, _ = finished
    before = (folder / "out" / "records.jsonl").read_bytes()
    done = modbench("run", "s.yaml", "--output", "out", folder=folder)
    assert done.returncode == 2
    assert done.stderr == "out: it holds a run already; pass --resume to go on with it, or another --output\n"
    assert (folder / "out" / "records.jsonl").read_bytes() == before


def test_report_is_made_again_from_the_records_alone(finished):
    folder, _ = finished
    before = (folder / "out" / "report.md").read_text()
    (folder / "out" / "report.md").unlink()
    done = modbench("report", "out", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "out" / "report.md").read_text() == before
    (folder / "out" / "report.json").unlink()
    printed = modbench("report", "out", "--format", "json", folder=folder).stdout
    assert len(json.loads(printed)["cells"]) == 2
    assert (folder / "out" / "report.json").read_text() == printed


def test_an_unmet_expectation_is_exit_code_1(tmp_path):
    folder = write_scenario(tmp_path)
    override = 'expect=["threshold.kv_cache_reduction >= 3"]'
    one = ["--set", "workload.context=32", "--set", "measure.launches=1", "--set", override]
    done = modbench("run", "s.yaml", "--output", "out", *one, "--quiet", folder=folder)
    assert done.returncode == 1, done.stderr
    assert done.stdout == "report: out/report.html\n"


def test_failed_launches_are_rows_their_series_is_pruned_and_the_exit_code_is_5(tmp_path):
    folder = write_scenario(tmp_path, FAILING_ENTRY)
    refused = modbench("run", "s.yaml", "--output", "out", folder=folder)
    assert refused.returncode == 2
    assert "pass --allow-entry if you trust it" in refused.stderr
    done = modbench("run", "s.yaml", "--output", "out2", "--allow-entry", folder=folder)
    assert done.returncode == 5, done.stderr
    found = [(r["method"], r["point"]["workload"]["context"], r["status"]) for r in records_of(folder / "out2")]
    assert found.count(("dense", 16, "ok")) == found.count(("dense", 32, "ok")) == 2
    assert found.count(("mine", 16, "crashed")) == 1
    assert found.count(("mine", 16, "pruned")) == 1
    assert found.count(("mine", 32, "pruned")) == 2
    assert "SIGSEGV" in done.stdout


def heed_interrupts() -> None:
    """A test run in the background of a shell ignores interrupts, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_leaves_finished_records_and_a_resumable_run(tmp_path):
    folder = write_scenario(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "modbench", "run", "s.yaml", "--output", "out", "--set", "measure.samples=40"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = subprocess.Popen(command, cwd=folder, env=environment, preexec_fn=heed_interrupts, **pipes)
    deadline = time.monotonic() + 120
    while not (folder / "out" / "records.jsonl").exists():
        assert time.monotonic() < deadline, "no record was written"
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert b"Go on with: modbench run s.yaml --output out --set measure.samples=40 --resume" in errors
    kept = records_of(folder / "out")
    assert 1 <= len(kept) < 12
    done = modbench("run", "s.yaml", "--output", "out", "--resume", "--set", "measure.samples=40", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [record["launch_id"] for record in records_of(folder / "out")][: len(kept)] == [r["launch_id"] for r in kept]
    assert len(records_of(folder / "out")) == 12


def test_validate_names_every_bad_file_and_imports_nothing_heavy(tmp_path):
    folder = write_scenario(tmp_path)
    (folder / "bad.yaml").write_text(SCENARIO.replace("batch: 2", "batch: 0"))
    done = modbench("validate", "s.yaml", "bad.yaml", folder=folder)
    assert done.returncode == 2
    assert done.stdout == "s.yaml: valid: 2 points x 3 methods, 12 launches\n"
    assert done.stderr.startswith("bad.yaml:9: workload.batch: got 0;")
    assert done.stderr.count("\n") == 1
    probe = "import sys, modbench.cli as c; sys.argv = ['modbench', 'validate', 's.yaml']\n"
    probe += "try: c.main()\nexcept SystemExit: pass\n"
    probe += "print([name for name in ('torch', 'transformers', 'pandas', 'matplotlib') if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    loaded = subprocess.run(
        [sys.executable, "-c", probe], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "absent.yaml"], "absent.yaml"),
        (["run", "s.yaml", "--set", "workload.batch=0"], "workload.batch"),
        (["run", "s.yaml", "--device", "tpu"], "device"),
        (["run", "s.yaml", "--resume", "--output", "nowhere"], "no run there"),
        (["report", "nowhere"], "nowhere"),
        (["validate", "s.yaml", "--set", "nonsense"], "nonsense"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(tmp_path, arguments, text):
    done = modbench(*arguments, folder=write_scenario(tmp_path))
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_schemas_and_version_are_printed(tmp_path):
    assert json.loads(modbench("schema", folder=tmp_path).stdout)["type"] == "object"
    assert "launch_id" in json.loads(modbench("schema", "--record", folder=tmp_path).stdout)["properties"]
    assert "cells" in json.loads(modbench("schema", "--report", folder=tmp_path).stdout)["properties"]
    assert modbench("--version", folder=tmp_path).stdout == "modbench 0.1.0\n"
    assert "validate" in modbench("--help", folder=tmp_path).stdout


def test_a_traced_run_says_where_the_time_went_and_measures_the_same(finished, tmp_path):
    folder = write_scenario(tmp_path)
    overrides = ("--set", "workload.context=64", "--set", "measure.launches=1")
    arguments = ("run", "s.yaml", "--output", "out", "--trace", *overrides)
    done = modbench(*arguments, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    first_half = [record["point_id"] for record in records_of(finished[0] / "out")][:3]
    assert [record["point_id"] for record in records_of(folder / "out")] == first_half
    rows = (folder / "out" / "traces.jsonl").read_text()
    traces = [json.loads(line) for line in rows.splitlines()]
    assert [(trace["method"], trace["error"]) for trace in traces] == [
        ("dense", None),
        ("threshold", None),
        ("skip_layers", None),
    ]
    files = sorted(path.relative_to(folder / "out").as_posix() for path in (folder / "out" / "traces").iterdir())
    assert files == sorted(trace["trace_file"] for trace in traces)
    assert "Own cost of threshold: " in done.stdout
    details = modbench("report", "out", "--details", folder=folder).stdout
    for text in (details, (folder / "out" / "report.md").read_text(), (folder / "out" / "report.html").read_text()):
        assert "Where a decode step went" in text
    assert (folder / "out" / "plots" / "breakdown_prefill.svg").exists()
    again = modbench(*arguments, "--resume", folder=folder)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "tracing" not in again.stdout
    assert (folder / "out" / "traces.jsonl").read_text() == rows
    parsed = json.loads(modbench("report", "out", "--format", "json", folder=folder).stdout)
    assert len(parsed["breakdowns"]["phases"]) == 2 * len(traces)


def test_a_mapped_run_shows_what_its_routed_methods_keep_and_measures_nothing_more(tmp_path):
    folder = write_scenario(tmp_path)
    overrides = ("--set", "measure.launches=1")
    arguments = ("run", "s.yaml", "--output", "out", "--keep-map", *overrides)
    done = modbench(*arguments, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(records_of(folder / "out")) == 6
    rows = (folder / "out" / "keep_maps.jsonl").read_text()
    (row,) = map(json.loads, rows.splitlines())
    assert (row["method"], row["context"], row["router"]) == ("threshold", 128, "calibrated random router")
    assert "".join(row["texts"]).startswith("It was a bright cold day")
    page = (folder / "out" / "report.html").read_text()
    assert "threshold at context 128" in page
    assert "how many tokens it keeps was set for this run" in page
    again = modbench(*arguments, "--resume", folder=folder)
    assert again.returncode == 0, again.stdout + again.stderr
    assert (folder / "out" / "keep_maps.jsonl").read_text() == rows
