"""Programs of one's own as methods and as the baseline, through the whole program."""

import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from tests.modbench.engines import write_engine
from tests.modbench.test_command_line import PROJECT, modbench, records_of

SCENARIO = """\
name: engines
model:
  geometry: {num_hidden_layers: 2, hidden_size: 16, intermediate_size: 32, num_attention_heads: 2, vocab_size: 300}
methods:
  dense: {command: COMMAND, options: {scale: 1}}
  mine: {command: COMMAND, options: {scale: 0.5}}
workload: {context: 16, new_tokens: 5, prompt: {synthetic: true}}
measure: {launches: 2, samples: 5, warmup: 0, device: cpu}
matrix: {workload.context: [16, 32]}
expect: ["mine.prefill_speedup >= 1.9", "mine.kv_cache_reduction >= 1.9"]
"""
CHANGE = """
scale = request["point"]["settings"]["options"]["scale"]
samples["ttft_s"] = [2e-5 * scale * (1 + number / 100) for number in range(num_samples)]
answer["metrics"] = {"kv_cache_bytes": int(1000 * scale)}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    write_engine(folder, CHANGE)
    command = json.dumps([sys.executable, "-I", "-S", "engine.py"])
    (folder / "s.yaml").write_text(SCENARIO.replace("COMMAND", command))
    return folder, modbench("run", "s.yaml", "--output", "out", "--allow-entry", "--trace", folder=folder)


def test_two_programs_are_compared_with_each_other(finished):
    folder, done = finished
    assert done.returncode == 0, done.stdout + done.stderr
    records = records_of(folder / "out")
    assert [record["method"] for record in records] == ["dense", "mine", "mine", "dense"] * 2
    assert {(record["kind"], record["status"]) for record in records} == {("command", "ok")}
    assert "✓ 4 of 4 expectations met" in done.stdout
    doubts = (folder / "out" / "report.md").read_text()
    assert "declared: no identity is checked: it is timed by a program of its own" in doubts
    assert not [path.name for path in (folder / "out").iterdir() if path.name.startswith(".")]


def test_its_traces_are_rows_that_say_why_there_are_none(finished):
    traces = [json.loads(line) for line in (finished[0] / "out" / "traces.jsonl").read_text().splitlines()]
    assert len(traces) == 4
    assert all("a program of its own cannot be traced" in trace["error"] for trace in traces)


def test_a_run_of_programs_is_resumed_and_reported_again(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    lines = (copy / "out" / "records.jsonl").read_text().splitlines(keepends=True)
    (copy / "out" / "records.jsonl").write_text("".join(lines[:-1]))
    done = modbench("run", "s.yaml", "--output", "out", "--allow-entry", "--resume", folder=copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[1/1]" in done.stdout
    assert len(records_of(copy / "out")) == len(lines)
    assert modbench("report", "out", folder=copy).returncode == 0


def test_nothing_is_started_without_permission(finished):
    refused = modbench("run", "s.yaml", "--output", "out2", folder=finished[0])
    assert refused.returncode == 2
    assert "methods.dense: command runs " in refused.stderr
    assert not (finished[0] / "out2").exists()


def test_an_estimate_takes_the_baseline_as_the_dense_model_and_leaves_the_others_out(finished):
    done = modbench("estimate", "s.yaml", "--device", "h100-sxm", "--format", "json", folder=finished[0])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["not_predicted"] == ["mine"]


def test_the_example_for_readers_runs(tmp_path):
    scenario = "examples/engines/matmul.yaml"
    assert modbench("validate", scenario, folder=PROJECT).returncode == 0
    command = f"[{sys.executable}, {PROJECT / 'examples' / 'engines' / 'matmul.py'}]"
    sets = [f"methods.{label}.command={command}" for label in ("dense", "narrow")]
    sets += ["measure.launches=1", "workload.context=8", "expect=[]"]
    options = [word for text in sets for word in ("--set", text)]
    output = Path(tmp_path / "out")
    done = modbench("run", scenario, "--output", str(output), "--allow-entry", *options, folder=PROJECT)
    assert done.returncode == 0, shlex.join(options) + done.stdout + done.stderr
    assert [record["status"] for record in records_of(output)] == ["ok", "ok"]


def test_the_schema_of_the_protocol_is_printed(tmp_path):
    schema = json.loads(modbench("schema", "--command-protocol", folder=tmp_path).stdout)
    assert {"Request", "Answer", "Refusal"} <= set(schema["$defs"])
