"""`keepmap` as a command: a saved folder in; a view, a page and JSON out; one line for what the user can mend."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from reference_impl.cli import app, main
from reference_impl.naive import naive_forward
from tests.reference_impl.conftest import dense_model
from tests.reference_impl.small_tokenizer import write_tokenizer

TEXT = "It was a bright cold day in April,\nand the clocks were striking thirteen. \x1b[31m<script>\n"
PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(make_converted, tmp_path):
    make_converted(model_overrides={"vocab_size": 256}).save_pretrained(tmp_path / "model")
    (tmp_path / "prose.txt").write_text(TEXT)
    return tmp_path


def failure(monkeypatch, capsys, *arguments) -> str:
    """The one line of a command that must fail."""
    monkeypatch.setattr(sys, "argv", ["reference_impl", "keepmap", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


def view(*arguments) -> str:
    done = CliRunner().invoke(app, ["keepmap", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@torch.no_grad()
def test_a_saved_folder_is_shown_as_the_model_decides(folder, make_converted):
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "80", "NO_COLOR": "1"}
    command = ["keepmap", "model", "--text", "prose.txt", "--html", "map.html", "--json", "map.json", "--layer", "3"]
    done = subprocess.run(
        [sys.executable, "-m", "reference_impl", *command],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads((folder / "map.json").read_text())
    assert "".join(token["text"] for token in facts["tokens"]) == TEXT
    model = make_converted(model_overrides={"vocab_size": 256})
    _, masks = naive_forward(model, torch.tensor(list(TEXT.encode())))
    assert {row["layer"]: row["keep"] for row in facts["layers"]} == {
        layer: keep_T.tolist() for layer, keep_T in masks.items()
    }
    assert "model: 2 of 4 layers are routed (1, 3); threshold, p = 0.5." in done.stdout
    assert "It␣was␣a␣bright␣cold␣day␣in␣April,⏎" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    page = (folder / "map.html").read_text()
    assert "&lt;" in page
    assert "<script" not in page


def test_a_calibration_is_said(folder):
    output = view(folder / "model", "--text", folder / "prose.txt", "--keep-ratio", "0.25", "--json", folder / "m.json")
    assert "were calibrated on these tokens to keep 25.0%" in output
    facts = json.loads((folder / "m.json").read_text())
    assert facts["calibrated_keep_ratio"] == 0.25
    for row in facts["layers"]:
        assert row["keep_ratio"] == pytest.approx(0.25, abs=0.01)


def test_only_the_first_tokens_are_shown_and_that_is_said(folder):
    output = view(folder / "model", "--text", folder / "prose.txt", "--max-tokens", "10")
    assert f"These are the first 10 of {len(TEXT)} tokens." in output
    assert "It␣was␣a␣b\n" in output


def test_the_tokenizer_of_the_folder_names_the_tokens(folder):
    write_tokenizer(folder / "model")
    (folder / "cat.txt").write_text("the cat sat")
    assert "the␣cat␣sat\n" in view(folder / "model", "--text", folder / "cat.txt")


def test_what_is_not_there_is_one_line(folder, monkeypatch, capsys):
    model, text = folder / "model", folder / "prose.txt"
    assert "no config.json there" in failure(monkeypatch, capsys, folder / "no", "--text", text)
    assert "cannot be read: No such file" in failure(monkeypatch, capsys, model, "--text", folder / "no.txt")
    (folder / "empty.txt").write_text("")
    assert "empty.txt: the text is empty" in failure(monkeypatch, capsys, model, "--text", folder / "empty.txt")


def test_a_dense_folder_is_one_line_that_says_what_to_do(folder, monkeypatch, capsys):
    dense_model().save_pretrained(folder / "dense")
    error = failure(monkeypatch, capsys, folder / "dense", "--text", folder / "prose.txt")
    assert "got model_type 'llama'; expected one of mod_llama" in error
    assert error.endswith("convert the dense model first (python -m reference_impl convert)\n")


@pytest.mark.parametrize("broken", ["config.json", "model.safetensors"])
def test_a_damaged_folder_is_one_line(folder, monkeypatch, capsys, broken):
    (folder / "model" / broken).write_text("{")
    error = failure(monkeypatch, capsys, folder / "model", "--text", folder / "prose.txt")
    assert "model" in error


def test_text_beyond_the_vocabulary_and_layers_that_are_not_routed_are_one_line(
    folder, make_converted, monkeypatch, capsys
):
    make_converted().save_pretrained(folder / "small")
    (folder / "bytes.txt").write_bytes(b"a\xf0")
    error = failure(monkeypatch, capsys, folder / "small", "--text", folder / "bytes.txt")
    assert "the text has token 240; the model's vocabulary has 211" in error
    arguments = (folder / "model", "--text", folder / "prose.txt", "--layer", "2")
    assert "--layer: got 2; expected a routed layer: 1, 3" in failure(monkeypatch, capsys, *arguments)


def test_top_k_takes_no_keep_ratio(folder, make_converted, monkeypatch, capsys):
    make_converted(operator="topk", model_overrides={"vocab_size": 256}).save_pretrained(folder / "topk")
    arguments = (folder / "topk", "--text", folder / "prose.txt", "--keep-ratio", "0.5")
    assert "--keep-ratio: got it for a model with operator topk" in failure(monkeypatch, capsys, *arguments)
