"""`evaluate` as a command: a folder in; tables and JSON out; one line for what the user can mend, and nothing lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from reference_impl.cli import main
from reference_impl.data import train_tokenizer, write_byte_tokenizer
from reference_impl.data.config import DataConfig, SourceConfig
from reference_impl.evaluation import bits_per_byte, text_windows
from reference_impl.model_folder import load_folder
from tests.reference_impl.conftest import dense_model

PROJECT = Path(__file__).resolve().parents[3]
SMALL = {"vocab_size": 257, "num_hidden_layers": 2, "max_position_embeddings": 300}
PROSE = "It was a bright cold day in April, and the clocks were striking thirteen.\n" * 3


@pytest.fixture
def folder(make_converted, tmp_path, monkeypatch):
    """Models with their tokenizers, a text, and settings of data, in the working directory."""
    for name, model in (("mod", make_converted(model_overrides=SMALL)), ("dense", dense_model(**SMALL))):
        model.save_pretrained(tmp_path / name)
        write_byte_tokenizer(tmp_path / name)
    (tmp_path / "prose.txt").write_text(PROSE)
    (tmp_path / "texts").mkdir()
    for index in range(12):
        (tmp_path / "texts" / f"{index}.txt").write_text(f"text {index} " * 20)
    data = {
        "sequence_length": 40,
        "held_out_share": 0.5,
        "sources": [{"kind": "text", "path": "texts"}],
    }
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(data))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["reference_impl", "evaluate", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


def failure(monkeypatch, capsys, *arguments):
    """The one line of a command that must fail."""
    code = command(monkeypatch, *arguments)
    printed = capsys.readouterr()
    assert code == 2, printed
    assert printed.out == ""
    assert printed.err.count("\n") == 1, printed.err
    return printed.err


def result(monkeypatch, *arguments):
    Path("out.json").unlink(missing_ok=True)
    assert command(monkeypatch, *arguments, "--json", "out.json", "--quiet") == 0
    return json.loads(Path("out.json").read_text())


def test_a_folder_is_measured_with_every_probe_and_a_teacher(folder):
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "80", "NO_COLOR": "1"}
    options = ["--text", "prose.txt", "--teacher", "dense", "--trials", "1", "--json", "out.json"]
    done = subprocess.run(
        [sys.executable, "-m", "reference_impl", "evaluate", "mod", *options],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == "bits_per_byte …\nneedle …\ninduction …\nagreement …\n"
    assert "mod: mod_llama" in done.stdout
    assert "against dense" in done.stdout
    assert done.stdout.endswith("evaluation: out.json\n")
    found = json.loads((folder / "out.json").read_text())
    expected = bits_per_byte(load_folder(folder / "mod"), windows(folder, "prose.txt", 300))
    assert found["held_out"]["bits_per_byte"] == pytest.approx(expected.bits_per_byte)
    assert found["text"]["sources"] == {"prose.txt": 1}
    assert [one["context_tokens"] for one in found["needle"]["cells"]] == [300] * 5
    assert found["agreement"]["kl_bits_per_token"] > 0


def windows(folder, name, context):
    from reference_impl.data import ByteTokenizer

    return text_windows([folder / name], ByteTokenizer(), context)


def test_held_out_rows_of_ones_own_data_are_measured(folder, monkeypatch):
    options = ("--data", "data.yaml", "--probes", "bits_per_byte,induction", "--rows", "2")
    found = result(monkeypatch, "dense", *options)
    assert (found["text"]["num_rows"], found["text"]["sequence_length"]) == (2, 40)
    assert found["settings"]["context"] == 40
    assert [one["copy_tokens"] for one in found["induction"]["lengths"]] == [10, 20]
    assert found["needle"] is None
    assert result(monkeypatch, "mod", *options)["text"]["hash"] == found["text"]["hash"]
    assert result(monkeypatch, "dense", *options, "--context", "20")["text"]["sequence_length"] == 20


def test_the_default_text_is_that_of_every_machine(folder, monkeypatch):
    found = result(monkeypatch, "mod", "--probes", "bits_per_byte", "--rows", "3")
    assert set(found["text"]["sources"]) <= {"stdlib", "docstrings", "repository"}
    assert found["text"]["sequence_length"] == 300  # the positions of the model, which are fewer than 1,024


def test_a_model_can_be_measured_in_another_dtype(folder, monkeypatch):
    options = ("--text", "prose.txt", "--probes", "bits_per_byte")
    half = result(monkeypatch, "mod", *options, "--dtype", "bfloat16")
    assert half["model"]["dtype"] == "bfloat16"
    assert half["kv_cache"]["dense_kv_cache_bytes_per_token"] == 2 * 2 * 2 * 16 * 2
    assert result(monkeypatch, "mod", *options)["model"]["dtype"] == "float32"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("no",), "no: no config.json there"),
        (("mod", "--teacher", "no"), "no: no config.json there"),
        (("mod", "--text", "no.txt"), "no.txt: cannot be read"),
        (("mod", "--text", "prose.txt", "--data", "data.yaml"), "--text: got it with --data"),
        (
            ("mod", "--text", "prose.txt", "--context", "301"),
            "--context: got 301; expected 2 to 300, the positions of mod",
        ),
        (("mod", "--text", "prose.txt", "--probes", "humaneval"), "probes: got 'humaneval'"),
        (("mod", "--text", "prose.txt", "--device", "abacus"), "--device: got 'abacus'; expected auto, cpu"),
        (("mod", "--text", "prose.txt", "--device", "cuda:99"), "--device: got 'cuda:99'; expected auto, cpu"),
        (("mod", "--text", "prose.txt", "--dtype", "int8"), "--dtype: got 'int8'; expected one of auto, float32"),
        (("mod", "--text", "prose.txt", "--context", "100"), "the needle's prompt needs"),
        (("mod", "--data", "prose.txt"), "prose.txt: got str; expected a mapping"),
        (("mod", "--data", "data.yaml", "--rows", "900"), "held-out documents end after"),
        (("mod", "--text", "prose.txt", "--json", "prose.txt"), "prose.txt: is there already"),
        (("mod", "--text", "prose.txt", "--json", "no/out.json"), "its folder is not there"),
    ],
)
def test_what_the_user_can_mend_is_one_line(folder, monkeypatch, capsys, arguments, expected):
    assert expected in failure(monkeypatch, capsys, *arguments)
    assert (folder / "prose.txt").read_text() == PROSE


@pytest.mark.parametrize(
    ("content", "expected"), [(b"", "bad.txt: the text is empty"), (b"ab\xff", "bad.txt: byte 2 is not UTF-8")]
)
def test_text_that_cannot_be_read_is_one_line_and_no_file(folder, monkeypatch, capsys, content, expected):
    (folder / "bad.txt").write_bytes(content)
    assert expected in failure(monkeypatch, capsys, "mod", "--text", "bad.txt", "--json", "out.json")
    assert not (folder / "out.json").exists()


def test_a_broken_checkpoint_is_one_line(folder, monkeypatch, capsys):
    shard = folder / "mod" / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    assert "mod/model.safetensors: damaged: " in failure(monkeypatch, capsys, "mod", "--text", "prose.txt")
    settings = json.loads((folder / "dense" / "config.json").read_text())
    (folder / "dense" / "config.json").write_text(json.dumps({**settings, "model_type": "gpt2"}))
    assert "dense: got model_type 'gpt2'" in failure(monkeypatch, capsys, "dense", "--text", "prose.txt")
    (folder / "dense" / "config.json").write_text(json.dumps(settings))
    (folder / "dense" / "tokenizer.json").unlink()
    assert "tokenizer.json: cannot be read" in failure(monkeypatch, capsys, "dense", "--text", "prose.txt")


def test_a_teacher_with_other_tokens_is_one_line(folder, monkeypatch, capsys):
    (folder / "dense" / "tokenizer.json").unlink()
    (folder / "dense" / "tokenizer_config.json").unlink()
    data = DataConfig(sources=(SourceConfig("text", path="texts"),), held_out_share=0.5)
    train_tokenizer(data, folder / "dense", 258)
    arguments = ("mod", "--text", "prose.txt", "--teacher", "dense")
    assert "dense/tokenizer.json: not the tokenizer of the model" in failure(monkeypatch, capsys, *arguments)
