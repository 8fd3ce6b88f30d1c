"""Two gloo processes train as one does with twice the rows; they stop, save and resume together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from packaging.version import Version

from reference_impl.errors import TrainingError
from reference_impl.training.request import CPU_RANKS_RESUME_SINCE
from tests.reference_impl.conftest import FP32_TOLERANCE
from tests.reference_impl.test_distributed import end_with_children
from tests.reference_impl.training import data_parallel_rank
from tests.reference_impl.training.conftest import assert_same, facts_of, logged, run, small_converted, small_dense

PROJECT = Path(__file__).resolve().parents[3]
NUM_RANKS = 2
LAUNCH_TIMEOUT_S = 200.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "texts").mkdir()
    for index in range(40):
        words = " ".join(f"word{(index * step) % 17}" for step in range(1, 4 + index % 9))
        (folder / "texts" / f"{index:02}.txt").write_text(f"text {index}: {words}\n")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(NUM_RANKS)]
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*launcher, "-m", data_parallel_rank.__name__, str(folder)],
            cwd=PROJECT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        exit_code = process.wait(LAUNCH_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        exit_code = None
    finally:
        end_with_children(process)
    assert exit_code == 0, f"exit code {exit_code}\n{log.read_text()}"
    return folder


def of_ranks(folder, name):
    return [torch.load(folder / f"{name}-{rank}.pt") for rank in range(NUM_RANKS)]


def test_two_processes_train_as_one_with_twice_the_rows(folder, tmp_path):
    first, second = of_ranks(folder, "plain")
    assert_same(first, second)
    settings = {**data_parallel_rank.SETTINGS, "batch_size": 2 * NUM_RANKS}
    model = small_converted(**data_parallel_rank.PLAIN)
    data = data_parallel_rank.data_of(folder)
    one = run(model, data, tmp_path / "one", **settings, call={"teacher": small_dense()})
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(first[name], tensor, atol=10 * FP32_TOLERANCE, rtol=0, msg=name)
    for found, expected in zip(logged(folder / "plain"), logged(tmp_path / "one"), strict=True):
        for name in ("loss", "lm_loss", "distillation", "keep_ratio", "mean_gate/layer_1"):
            assert found[name] == pytest.approx(expected[name], rel=1e-4), name
        assert found["gate_histogram"] == expected["gate_histogram"]


def test_with_a_budget_too_they_end_the_same_and_log_its_value_apart(folder):
    assert_same(*of_ranks(folder, "budget"))
    lines = logged(folder / "budget")
    # before the first step both trainings have the same model, so the same language-model loss
    assert lines[0]["lm_loss"] == pytest.approx(logged(folder / "plain")[0]["lm_loss"], rel=1e-5)
    assert lines[0]["objective"] > 1e-3, "enough for its share to show in the other"
    for line in lines:
        assert line["loss"] == pytest.approx(line["lm_loss"] + line["objective"] + 0.5 * line["distillation"], rel=1e-5)
        assert sum(line["gate_histogram"]["1"]) == NUM_RANKS * 2 * 2 * 32, (
            "tokens of both micro-batches of both processes"
        )


def test_they_resume_from_the_newest_whole_checkpoint_bit_for_bit(folder):
    if Version(transformers.__version__) < CPU_RANKS_RESUME_SINCE:
        error = json.loads((folder / "resumed-0.json").read_text())
        assert "does not read the optimizer of several CPU processes" in error
        pytest.skip(f"transformers {transformers.__version__} does not resume several CPU processes")
    expected = of_ranks(folder, "budget")[0]
    for found in of_ranks(folder, "resumed"):
        assert_same(found, expected)
    assert '{"resumed": true, "step": 1' in (folder / "budget" / "log.jsonl").read_text()


def test_one_process_does_not_resume_what_two_began(folder, tmp_path):
    assert facts_of(folder / "plain")["settings"]["num_processes"] == NUM_RANKS
    call = {"teacher": small_dense(), "is_resumed": True}
    with pytest.raises(TrainingError, match=r"^num_processes: got 1; the training in .*plain began with 2"):
        run(
            small_converted(**data_parallel_rank.PLAIN), data_parallel_rank.data_of(folder), folder / "plain",
            **data_parallel_rank.SETTINGS, call=call,
        )  # fmt: skip


def test_a_loss_lost_on_one_process_stops_both(folder):
    errors = [json.loads((folder / f"lost-{rank}.json").read_text()) for rank in range(NUM_RANKS)]
    assert "step 2: the loss of another process is no number" in errors[0]
    assert "step 2: the loss is nan" in errors[1]
    failed = folder / "lost" / "failed-step-2"
    assert (failed / "batch-0.json").is_file()
    assert (failed / "batch-1.json").is_file()
    assert (failed / "checkpoint-1" / "model.safetensors").is_file()


def test_sharded_weights_get_the_gradients_of_one_process_where_one_of_two_keeps_no_token(folder):
    for rank in range(NUM_RANKS):
        distances = json.loads((folder / f"sharded-{rank}.json").read_text())
        assert len(distances) > 20
        assert max(distances.values()) < FP32_TOLERANCE, distances
