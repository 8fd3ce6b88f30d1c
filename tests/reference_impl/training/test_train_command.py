"""`train` as a command: a folder in, a trained model out; one line for what the user can mend."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForCausalLM

from reference_impl import load
from reference_impl.cli import main
from reference_impl.data import write_byte_tokenizer
from tests.reference_impl.training.conftest import (
    assert_same,
    facts_of,
    logged,
    small_converted,
    small_dense,
    weights,
)

PROJECT = Path(__file__).resolve().parents[3]
# PEFT 0.21 knows no other name; transformers 5.23 has renamed it
pytestmark = pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing.*` is deprecated:FutureWarning")


@pytest.fixture
def folder(data, tmp_path, monkeypatch):
    """Models with their tokenizers, and settings, in the working directory."""
    for name, model in (("mod", small_converted()), ("dense", small_dense())):
        model.save_pretrained(tmp_path / name)
        write_byte_tokenizer(tmp_path / name)
    text = {**data.to_dict(), "sources": [{"kind": "text", "path": "texts"}]}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(text))
    settings = {
        "steps": 4,
        "batch_size": 2,
        "log_every": 1,
        "save_every": 2,
        "evaluate_rows": 2,
        "learning_rate": 0.001,
    }
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(tmp_path)
    return tmp_path


FILES = ("--data", "data.yaml", "--settings", "settings.yaml")


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["reference_impl", "train", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


def trained(monkeypatch, capsys, *arguments):
    code = command(monkeypatch, *arguments)
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed


def failure(monkeypatch, capsys, *arguments):
    """The one line of a command that must fail."""
    assert command(monkeypatch, *arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1, printed.err
    return printed.err


def test_a_converted_model_is_trained_to_a_chosen_keep_ratio_with_a_teacher(folder):
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "80", "NO_COLOR": "1"}
    options = [
        "--teacher",
        "dense",
        "--set",
        "distillation=0.5",
        "--set",
        "skipped_gradient=straight_through",
        "--objective",
        "keep_budget",
        "--target-keep-ratio",
        "0.25",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "reference_impl", "train", "mod", "out", *FILES, *options],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "model: out/model\n"), done.stderr
    assert "step 4/4 · loss " in done.stderr
    assert "\x1b" not in done.stderr
    model = load(folder / "out" / "model")
    assert model.routing.config.objective == "keep_budget"
    assert model.routing.config.target_keep_ratio == 0.25
    assert model.routing.config.skipped_gradient == "straight_through"
    assert (folder / "out" / "model" / "tokenizer.json").read_bytes() == (
        folder / "mod" / "tokenizer.json"
    ).read_bytes()
    assert facts_of(folder / "out")["command"][1:4] == ["train", "mod", "out"]
    assert facts_of(folder / "out")["settings"]["data"]["sources"][0]["path"] == "texts"


def test_options_go_before_the_file_and_quiet_shows_nothing(folder, monkeypatch, capsys):
    printed = trained(monkeypatch, capsys, "mod", "out", *FILES, "--steps", "2", "--set", "mode=router", "--quiet")
    assert (printed.out, printed.err) == ("model: out/model\n", "")
    settings = facts_of(folder / "out")["settings"]["training"]
    assert (settings["steps"], settings["mode"], settings["batch_size"]) == (2, "router", 2)


def test_a_dense_folder_is_trained_as_it_is(folder, monkeypatch, capsys):
    trained(monkeypatch, capsys, "dense", "out", *FILES)
    assert type(AutoModelForCausalLM.from_pretrained(folder / "out" / "model")).__name__ == "LlamaForCausalLM"
    assert "target_keep_ratio: got it for dense, a dense model; convert it first" in failure(
        monkeypatch, capsys, "dense", "other", *FILES, "--target-keep-ratio", "0.5"
    )


def test_resuming_needs_nothing_typed_again_and_takes_nothing_else(folder, monkeypatch, capsys):
    options = ("--objective", "keep_budget", "--target-keep-ratio", "0.25", "--set", "budget_anneal=0.5")
    trained(monkeypatch, capsys, "mod", "whole", *FILES, *options)
    trained(monkeypatch, capsys, "mod", "out", *FILES, *options)
    (folder / "out" / "model").rename(folder / "cut-off")
    for refused, message in (
        (("--steps", "9"), "training.steps: got 9; the training in out began with 4"),
        (
            ("--target-keep-ratio", "0.5"),
            "modification.target_keep_ratio: got 0.5; the training in out began with 0.25",
        ),
        (("--objective", "none"), "modification.objective: got 'none'; the training in out began with 'keep_budget'"),
    ):
        assert failure(monkeypatch, capsys, "mod", "out", "--resume", *refused).startswith(message)
    printed = trained(monkeypatch, capsys, "mod", "out", "--resume")
    assert "resumed at step 2 of 4" in printed.err
    assert_same(weights(load(folder / "out" / "model")), weights(load(folder / "whole" / "model")))
    assert "out/model is there: this training has ended" in trained(monkeypatch, capsys, "mod", "out", "--resume").err


def test_a_users_own_objective_is_typed_again_to_be_resumed(folder, monkeypatch, capsys):
    (folder / "own.py").write_text("def gates():\n    return lambda loads, config, progress: loads[0].mean_gate()\n")
    monkeypatch.syspath_prepend(folder)
    trained(monkeypatch, capsys, "mod", "out", *FILES, "--objective", "own:gates")
    (folder / "out" / "model").rename(folder / "cut-off")
    error = failure(monkeypatch, capsys, "mod", "out", "--resume")
    assert "--objective: missing; the training in out began with 'own:gates', which is code: type it" in error
    trained(monkeypatch, capsys, "mod", "out", "--resume", "--objective", "own:gates")
    assert logged(folder / "out")[-1]["objective"] > 0


def test_what_is_wrong_is_one_line_and_nothing_is_written(folder, monkeypatch, capsys):
    def refused(message, *arguments, files=FILES):
        assert message in failure(monkeypatch, capsys, *arguments, *files)
        assert not (folder / "out").exists()

    refused("no: no config.json there", "no", "out")
    refused("settings: steps: missing", "mod", "out", files=())
    refused("settings.yaml: batch_size: got 0", "mod", "out", "--set", "batch_size=0")
    refused("nowhere.yaml: cannot be read: No such file", "mod", "out", files=("--settings", "nowhere.yaml"))
    refused("distillation: got 0.5 and no teacher", "mod", "out", "--set", "distillation=0.5")
    refused("--set: got 'speed=2'; expected KEY=VALUE with one of steps, ", "mod", "out", "--set", "speed=2")
    refused("--set: got 'mode'; expected KEY=VALUE", "mod", "out", "--set", "mode")
    refused("--set: got 'seed=['; expected a number or a word", "mod", "out", "--set", "seed=[")
    refused("budget: got 'all'; expected one of layer, model", "mod", "out", "--set", "budget=all")
    refused("objective: got 'half'; expected one of", "mod", "out", "--objective", "half")
    refused("target_keep_ratio: got 2.0; expected a number in (0, 1]", "mod", "out", "--target-keep-ratio", "2")
    refused("nothing to resume; leave --resume out", "mod", "out", "--resume")
    (folder / "list.yaml").write_text("- 1\n")
    refused("list.yaml: got list; expected a mapping", "mod", "out", files=("--settings", "list.yaml"))
    (folder / "broken.yaml").write_text("steps: [1\n")
    refused("broken.yaml: not YAML: while parsing", "mod", "out", files=("--settings", "broken.yaml"))
    refused("list.yaml: got list; expected a mapping", "mod", "out", files=("--data", "list.yaml", "--steps", "1"))
    long = yaml.safe_dump({**yaml.safe_load((folder / "data.yaml").read_text()), "sequence_length": 1024})
    (folder / "long.yaml").write_text(long)
    refused("sequence_length: got 1024; expected 2 to 256", "mod", "out", files=("--data", "long.yaml", "--steps", "1"))
    (folder / "mod" / "tokenizer.json").unlink()
    refused("tokenizer.json: cannot be read", "mod", "out")


@pytest.mark.parametrize("broken", ["cut", "missing weight", "family", "nothing"])
def test_a_folder_that_cannot_be_read_whole_is_one_line(folder, monkeypatch, capsys, broken):
    path = folder / "dense" / "model.safetensors"
    if broken == "cut":
        path.write_bytes(path.read_bytes()[:-100])
        message = "dense/model.safetensors: damaged: "
    elif broken == "missing weight":
        from safetensors.torch import load_file, save_file

        kept = load_file(path)
        del kept["model.norm.weight"]
        save_file(kept, path, metadata={"format": "pt"})
        message = "dense: missing keys: model.norm.weight, 1 in all; expected every weight that config.json asks for"
    elif broken == "family":
        config = json.loads((folder / "dense" / "config.json").read_text())
        (folder / "dense" / "config.json").write_text(json.dumps({**config, "model_type": "gpt_neox"}))
        message = "dense: got model_type 'gpt_neox'; expected one of llama, "
    else:
        path.unlink()
        message = "dense: no model.safetensors or "
    assert message in failure(monkeypatch, capsys, "dense", "out", *FILES)
    assert not (folder / "out").exists()
