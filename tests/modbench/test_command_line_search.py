"""A search as a black box: a scenario, a command, its files and exit codes."""

import json

import pytest

from tests.modbench.test_command_line import modbench, records_of, write_scenario

SCENARIO = """\
name: longest
question: How long a context fits?
model:
  geometry: {num_hidden_layers: 2, hidden_size: 16, intermediate_size: 32, num_attention_heads: 2, vocab_size: 300}
  max_positions: 150
methods:
  dense: {}
  small: {method: entry, entry: "tests.modbench.subjects:holds", options: {tokens: 100}}
workload: {context: {search: max, from: 16, resolution: 0.05}, new_tokens: 4, prompt: {synthetic: true}}
measure: {launches: 1, samples: 1, warmup: 0, device: cpu}
expect: ["small.context_limit >= 96"]
"""
SEARCHED = [("dense", 16), ("dense", 32), ("dense", 64), ("dense", 128), ("dense", 146), ("dense", 146)]
SEARCHED += [("small", 146), ("small", 73), ("small", 96), ("small", 121), ("small", 108), ("small", 102)]


def tried(folder) -> list[tuple[str, int]]:
    return [(record["method"], record["point"]["workload"]["context"]) for record in records_of(folder)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = write_scenario(tmp_path_factory.mktemp("search"), SCENARIO)
    return folder, modbench("run", "s.yaml", "--output", "out", "--allow-entry", folder=folder)


def test_a_search_ends_with_limits_and_exit_code_0(finished):
    folder, done = finished
    assert done.returncode == 0, done.stdout + done.stderr
    assert "small: context 146: oom in" in done.stdout
    words = " ".join(done.stdout.split())  # the terminal breaks lines anywhere
    assert "dense fits at least 146 tokens (position limit), and decodes there" in words
    assert "✓ 1 of 1 expectations met" in done.stdout
    (search,) = json.loads(modbench("report", "out", "--format", "json", folder=folder).stdout)["searches"]
    dense, small = search["limits"]
    assert (dense["value"], dense["is_at_bound"]) == (146, True)
    assert small["value"] <= 100 < small["first_failing"]
    assert small["first_failing"] - small["value"] <= 0.05 * small["value"]
    assert {record["status"] for record in records_of(folder / "out")} == {"ok", "oom"}


def test_a_killed_search_resumes_with_the_next_value(finished, tmp_path):
    folder, _ = finished
    copy = write_scenario(tmp_path / "copy", SCENARIO)
    (copy / "out").mkdir()
    for name in ("run.json", "scenario.yaml"):
        (copy / "out" / name).write_bytes((folder / "out" / name).read_bytes())
    lines = (folder / "out" / "records.jsonl").read_text().splitlines(keepends=True)
    (copy / "out" / "records.jsonl").write_text("".join(lines[:-3]))
    done = modbench("run", "s.yaml", "--output", "out", "--allow-entry", "--resume", folder=copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[3/3]" in done.stdout
    assert tried(copy / "out") == tried(folder / "out")


def test_an_unmet_expectation_is_1_and_a_method_that_fits_nowhere_is_5(tmp_path):
    folder = write_scenario(tmp_path, SCENARIO)
    start = [
        "--allow-entry",
        "--quiet",
        "--set",
        "workload.context.from=146",
        "--set",
        "workload.context.resolution=0.9",
    ]
    done = modbench("run", "s.yaml", "--output", "one", *start, folder=folder)
    assert done.returncode == 1, done.stderr
    nowhere = ["--set", "methods.small.options={tokens: 0}"]
    done = modbench("run", "s.yaml", "--output", "two", *start, *nowhere, folder=folder)
    assert done.returncode == 5, done.stderr


def test_validate_says_what_is_searched(tmp_path):
    folder = write_scenario(tmp_path, SCENARIO)
    done = modbench("validate", "s.yaml", folder=folder)
    assert done.stdout == "s.yaml: valid: search for the longest context, 1 point x 2 methods\n"


@pytest.mark.parametrize("option", ["--trace", "--keep-map"])
def test_a_search_cannot_be_traced_or_mapped(tmp_path, option):
    folder = write_scenario(tmp_path, SCENARIO)
    done = modbench("run", "s.yaml", option, "--allow-entry", folder=folder)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{option}: got a scenario with a search; expected sizes")
    assert not (folder / "reports").exists()
