"""A training that is cut off goes on from its newest whole checkpoint and ends, bit for bit, where an uninterrupted one does."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from reference_impl.data import DataConfig
from reference_impl.errors import TrainingError
from reference_impl.training import mod_trainer, read_log
from tests.reference_impl.training.conftest import (
    BUDGET,
    CONFIG,
    assert_same,
    logged,
    run,
    small_converted,
    small_dense,
    weights,
)

# PEFT 0.21 knows no other name; transformers 5.23 has renamed it
pytestmark = pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing.*` is deprecated:FutureWarning")


class CutOffError(Exception):
    """A process that is killed."""


class _Cut(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        """After `step` steps, before anything else is written."""
        if state.global_step == self.step:
            raise CutOffError


@pytest.fixture
def cut_off(monkeypatch):
    """`cut_off(step, ...)` trains until `step` and no further."""

    def cut(step, *args, **changes):
        with monkeypatch.context() as patched:
            begin = mod_trainer.ModTrainer.__init__

            def begin_with_cut(trainer, *given, **kwargs):
                begin(trainer, *given, **kwargs)
                trainer.add_callback(_Cut(step))

            patched.setattr(mod_trainer.ModTrainer, "__init__", begin_with_cut)
            with pytest.raises(CutOffError):
                run(*args, **changes)

    return cut


RESUMED = {"call": {"is_resumed": True}}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"accumulation": 2},
        {"precision": "bf16"},
        {"mode": "router"},
        {"gradient_checkpointing": True},
        {"num_workers": 1},
    ],
    ids=lambda changes: next(iter(changes), "full"),
)
def test_a_resumed_training_ends_bit_for_bit_where_an_uninterrupted_one_does(data, tmp_path, cut_off, changes):
    changes = {"distillation": 0.5, "steps": 6, "warmup_steps": 2, **changes}
    settings = {**BUDGET, "budget_anneal": 0.5}

    def teacher():
        return {"teacher": small_dense()}

    expected = run(small_converted(**settings), data, tmp_path / "whole", **changes, call=teacher())
    cut_off(3, small_converted(**settings), data, tmp_path / "cut", **changes, call=teacher())
    assert not (tmp_path / "cut" / "model").exists()
    again = {**teacher(), "is_resumed": True}
    found = run(small_converted(**settings), data, tmp_path / "cut", **changes, call=again)
    assert_same(weights(found), weights(expected))
    whole, cut = ([{**line, "tokens_per_s": 0} for line in logged(tmp_path / name)] for name in ("whole", "cut"))
    assert cut == whole
    saved = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut")]
    assert_same(saved[1], saved[0])


def test_adapters_are_resumed_bit_for_bit_too(data, tmp_path, cut_off):
    pytest.importorskip("peft", reason="PEFT is not installed")
    changes = {"mode": "lora", "lora_rank": 2, "steps": 4, "learning_rate": 0.01}
    expected = run(small_converted(**BUDGET), data, tmp_path / "whole", **changes)
    cut_off(3, small_converted(**BUDGET), data, tmp_path / "cut", **changes)
    found = run(small_converted(**BUDGET), data, tmp_path / "cut", **changes, **RESUMED)
    assert_same(weights(found), weights(expected))


def test_a_training_cut_off_before_its_first_checkpoint_begins_again(data, tmp_path, cut_off):
    expected = run(small_converted(**BUDGET), data, tmp_path / "whole")
    cut_off(1, small_converted(**BUDGET), data, tmp_path / "cut")
    found = run(small_converted(**BUDGET), data, tmp_path / "cut", **RESUMED)
    assert_same(weights(found), weights(expected))
    assert [line["step"] for line in logged(tmp_path / "cut")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "damaged", ["trainer_state.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"]
)
def test_a_checkpoint_that_is_not_whole_is_passed_over(data, tmp_path, cut_off, damaged):
    expected = run(small_converted(**BUDGET), data, tmp_path / "whole", steps=6)
    cut_off(5, small_converted(**BUDGET), data, tmp_path / "cut", steps=6)
    path = tmp_path / "cut" / "checkpoints" / "checkpoint-4" / damaged
    path.write_bytes(path.read_bytes()[:-50])
    found = run(small_converted(**BUDGET), data, tmp_path / "cut", steps=6, **RESUMED)
    assert_same(weights(found), weights(expected))
    resumed = [
        json.loads(line) for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines() if "resumed" in line
    ]
    assert [line["step"] for line in resumed] == [2]


def test_a_training_that_has_ended_gives_its_model_and_changes_nothing(data, tmp_path):
    expected = run(small_converted(**BUDGET), data, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    found = run(small_converted(**BUDGET), data, tmp_path / "out", **RESUMED)
    assert_same(weights(found), weights(expected))
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}


def test_another_configuration_is_refused_by_its_first_difference(data, tmp_path, cut_off):
    output = tmp_path / "out"
    cut_off(3, small_converted(**BUDGET), data, output)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}

    def refused(message, model=None, text=data, **changes):
        call = {**changes.pop("call", {}), "is_resumed": True}
        with pytest.raises(TrainingError, match=message):
            run(model or small_converted(**BUDGET), text, output, **changes, call=call)

    refused(r"^training.batch_size: got 1; the training in .*out began with 2: resume it with that", batch_size=1)
    refused("^training.save_every: got 1", save_every=1)
    refused("^modification.target_keep_ratio: got 0.5", small_converted(**{**BUDGET, "target_keep_ratio": 0.5}))
    refused("^modification.objective: got 'load_reducing'", call={"objective": "load_reducing"})
    refused("^data.sequence_length: got 16", text=DataConfig(**{**vars(data), "sequence_length": 16}))
    refused("^model.weights: got", _other_weights())
    assert before == {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}


def _other_weights():
    model = small_converted(**BUDGET)
    torch.nn.init.zeros_(model.lm_head.weight)
    return model


def test_there_must_be_something_to_resume(data, tmp_path):
    with pytest.raises(TrainingError, match=r"training.json: not there, so there is nothing to resume"):
        run(small_converted(**BUDGET), data, tmp_path / "out", **RESUMED)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_refused_and_kept(data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(TrainingError, match="out: not empty; expected a new or empty folder, or --resume"):
        run(small_converted(**BUDGET), data, tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(TrainingError, match="a file is there"):
        run(small_converted(**BUDGET), data, tmp_path / "out")


def test_steps_done_anew_are_in_a_log_once(tmp_path):
    lines = [{"step": 1, "loss": 3}, {"step": 2, "loss": 2}, {"resumed": True, "step": 1}, {"step": 2, "loss": 1}]
    (tmp_path / "log").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "lo')
    assert read_log(tmp_path / "log") == [lines[0], lines[3]]


def test_only_the_newest_checkpoints_stay_and_the_end_needs_none(data, tmp_path):
    run(small_converted(**BUDGET), data, tmp_path / "out", steps=4, save_every=1, keep_checkpoints=2)
    names = sorted(path.name for path in (tmp_path / "out" / "checkpoints").iterdir())
    assert names == ["checkpoint-2", "checkpoint-3"]
    assert CONFIG["save_every"] == 2
