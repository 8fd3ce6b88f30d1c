"""Trained checkpoints as a black box: run, reported, resumed and estimated."""

import json
from pathlib import Path

import pytest

from modbench.geometry import Geometry
from reference_impl.data.tokenizer_files import write_byte_tokenizer
from tests.modbench.jobs import MICRO
from tests.modbench.saved_models import ROUTED, save_converted, save_dense, save_shorter
from tests.modbench.test_command_line import modbench, records_of

GEOMETRY = Geometry.model_validate({**MICRO.model_dump(), "vocab_size": 257})
SCENARIO = """\
name: trained
question: What does the trained router save?
model: {path: base}
methods:
  dense: {checkpoint: continued}
  threshold: {checkpoint: converted}
  skip_layers: {checkpoint: shorter}
workload: {context: 64, batch: 2, new_tokens: 17, prompt: {text: prose.txt}}
measure: {launches: 2, samples: 2, warmup: 1, device: cpu}
expect:
  - threshold.keep_ratio_prefill < 0.9
  - skip_layers.kv_cache_reduction >= 1.9
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One whole run, shared by the tests that only look at it."""
    folder = tmp_path_factory.mktemp("run")
    save_dense(folder / "base", GEOMETRY, seed=1)
    write_byte_tokenizer(folder / "base")
    save_dense(folder / "continued", GEOMETRY, seed=2)
    save_converted(folder / "converted", GEOMETRY, seed=3)
    save_shorter(folder / "shorter", (0, 2), GEOMETRY, seed=4)
    (folder / "prose.txt").write_text("It was a bright cold day in April, and the clocks were striking. " * 9)
    (folder / "s.yaml").write_text(SCENARIO)
    return folder, modbench("run", "s.yaml", "--output", "out", folder=folder)


def by_method(folder: Path) -> dict[str, dict]:
    return {record["method"]: record for record in records_of(folder / "out")}


def test_trained_models_are_measured_and_nothing_is_calibrated(finished):
    folder, done = finished
    assert done.returncode == 0, done.stdout + done.stderr
    found = by_method(folder)
    assert {name: record["status"] for name, record in found.items()} == dict.fromkeys(found, "ok")
    assert found["threshold"]["point"]["settings"]["routed_layers"] == list(ROUTED)
    assert found["threshold"]["point"]["settings"]["threshold_p"] == 0.55
    assert found["threshold"]["guard"]["dense_at_p0"] == "passed"
    assert found["skip_layers"]["keep_ratio"]["prefill"] == [1.0, 1.0, 0.0, 0.0]
    assert {record["environment"]["tokens_sha256"] for record in found.values()} == {
        found["dense"]["environment"]["tokens_sha256"]
    }, "all methods read the text with the model's tokenizer"


def test_the_answer_says_whose_router_it_was_and_does_not_doubt_it(finished):
    folder, _ = finished
    report = json.loads((folder / "out" / "report.json").read_text())
    text = json.dumps(report)
    assert "of tokens kept at routed layers, router of the checkpoint)" in text
    assert "calibrated" not in text
    assert not [note for note in report["doubts"] if "router of the checkpoint" in json.dumps(note)]


def test_a_resumed_run_goes_on_with_the_same_checkpoints_only(finished):
    folder, _ = finished
    again = modbench("run", "s.yaml", "--output", "out", "--resume", folder=folder)
    assert again.returncode == 0, again.stdout + again.stderr
    weights = folder / "converted" / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-4] + b"\0\0\1\0")
    try:
        refused = modbench("run", "s.yaml", "--output", "out", "--resume", folder=folder)
    finally:
        weights.write_bytes(before)
    assert refused.returncode == 2
    assert "points, methods, samples or warm-up changed since this run was started" in refused.stderr


def test_an_estimate_asks_for_the_share_that_only_a_run_can_tell(finished):
    folder, _ = finished
    refused = modbench("estimate", "s.yaml", "--device", "h100-sxm", folder=folder)
    assert refused.returncode == 2
    assert refused.stderr.strip().endswith(
        "methods.threshold: got a checkpoint, whose keep ratio only a run can tell; expected the share of tokens to predict "
        "for; pass --keep-ratio, such as 0.111"
    )
    done = modbench("estimate", "s.yaml", "--device", "h100-sxm", "--keep-ratio", "0.2", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "2 of 4 layers" in done.stdout


def test_a_checkpoint_of_another_model_is_refused_before_anything_starts(finished, tmp_path):
    folder, _ = finished
    save_converted(tmp_path / "other", MICRO)
    done = modbench("validate", "s.yaml", "--set", f"methods.threshold.checkpoint={tmp_path / 'other'}", folder=folder)
    assert done.returncode == 2
    assert "vocab_size: got 300; expected 257, as in the scenario's model" in done.stdout + done.stderr
