"""Quality as a black box: trained models run, evaluated, gated, resumed and reported."""

import json

import pytest

from modbench.geometry import Geometry
from reference_impl.data.tokenizer_files import write_byte_tokenizer
from tests.modbench.jobs import MICRO
from tests.modbench.saved_models import save_converted, save_dense
from tests.modbench.test_command_line import modbench

GEOMETRY = Geometry.model_validate({**MICRO.model_dump(), "vocab_size": 257})
SCENARIO = """\
name: good
model: {path: base}
methods:
  dense: {}
  threshold: {checkpoint: converted}
workload: {context: 64, new_tokens: 17, prompt: {text: prose.txt}}
measure: {launches: 1, samples: 1, warmup: 1, device: cpu}
quality: {probes: [bits_per_byte], text: held.txt, context: 128}
expect:
  - threshold.bits_per_byte_ratio <= 2
  - threshold.bits_per_byte_ratio <= 0.5
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One whole run, shared by the tests that only look at it."""
    folder = tmp_path_factory.mktemp("run")
    save_dense(folder / "base", GEOMETRY, seed=1)
    write_byte_tokenizer(folder / "base")
    save_converted(folder / "converted", GEOMETRY, seed=3)
    (folder / "prose.txt").write_text("It was a bright cold day in April, and the clocks were striking. " * 9)
    (folder / "held.txt").write_text("The quick brown fox jumps over the lazy dog, and does so daily. " * 9)
    (folder / "s.yaml").write_text(SCENARIO)
    return folder, modbench("run", "s.yaml", "--output", "out", folder=folder)


def test_models_are_evaluated_and_gated_both_ways(finished):
    folder, done = finished
    assert done.returncode == 1, done.stdout + done.stderr
    rows = [json.loads(line) for line in (folder / "out" / "quality.jsonl").read_text().splitlines()]
    assert [(row["method"], row["status"], row["schema_version"]) for row in rows] == [
        ("dense", "ok", 1),
        ("threshold", "ok", 1),
    ]
    report = json.loads((folder / "out" / "report.json").read_text())
    dense, threshold = report["cells"][0]["methods"]
    ratio = threshold["metrics"]["bits_per_byte_ratio"]
    assert ratio == pytest.approx(threshold["metrics"]["bits_per_byte"] / dense["metrics"]["bits_per_byte"])
    assert {found["text"]: found["is_met"] for found in report["expectations"]} == {
        "threshold.bits_per_byte_ratio <= 2": True,
        "threshold.bits_per_byte_ratio <= 0.5": False,
    }
    plots = {path.stem for path in (folder / "out" / "plots").iterdir()}
    assert {"quality_ttft", "quality_kv_cache", "bits_per_byte_position"} <= plots
    assert not [note for note in report["doubts"] if note["text"].startswith("quality")], "trained models have no doubt"


def test_a_resumed_run_evaluates_nothing_again_and_reports_the_same(finished):
    folder, _ = finished
    before = (folder / "out" / "quality.jsonl").read_text()
    again = modbench("run", "s.yaml", "--output", "out", "--resume", folder=folder)
    assert again.returncode == 1, again.stdout + again.stderr
    assert "evaluating" not in again.stdout + again.stderr
    assert (folder / "out" / "quality.jsonl").read_text() == before


def test_a_time_limit_ends_an_evaluation_and_leaves_the_run_whole(finished):
    folder, _ = finished
    changes = ["--set", "quality.timeout_s=0.01", "--set", "quality.rows=2", "--set", "expect=[]"]
    done = modbench("run", "s.yaml", "--output", "slow", *changes, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (folder / "slow" / "quality.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["failed", "failed"]
    assert all("raise quality.timeout_s" in row["error"] for row in rows)
    assert "quality n/a: killed after 0.01 s" in (folder / "slow" / "report.md").read_text()


def test_other_commands_take_the_key(finished):
    folder, _ = finished
    assert modbench("validate", "s.yaml", folder=folder).returncode == 0
    estimate = modbench("estimate", "s.yaml", "--keep-ratio", "0.3", "--device", "h200", folder=folder)
    assert estimate.returncode == 0, estimate.stdout + estimate.stderr
    compared = modbench("compare", "out", "out", folder=folder)
    assert compared.returncode == 0, compared.stdout + compared.stderr
