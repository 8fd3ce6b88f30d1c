"""`modbench estimate` as a black box: what is typed, what is printed, and that nothing heavy is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modbench import measured_devices
from modbench.command_estimate import parse_memory, parse_routed_layers
from modbench.errors import OptionError
from modbench.host import fingerprint, host_facts
from modbench.measured_devices import MeasuredDevice

PROJECT = Path(__file__).resolve().parents[2]
CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "vocab_size": 300,
    "max_position_embeddings": 4096,
}
SCENARIO = """\
name: two-models
model: {preset: tiny, dtype: float32}
methods:
  threshold: {keep_ratio: 0.25}
  dense: {}
  free: {method: threshold}
  mine: {method: entry, entry: "package.module:factory"}
workload: {context: 64, batch: 2, new_tokens: 17, prompt: {synthetic: true}}
measure: {device: cpu, threads: 2}
matrix: {model.preset: [tiny, bench-8x512], workload.context: [64, 128]}
"""
HEAVY = ("torch", "transformers", "pandas", "matplotlib", "jinja2")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # the session's cache is shared by all tests


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "80", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "modbench", "estimate", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def parsed(*arguments: str, folder: Path) -> dict:
    done = run(*arguments, "--format", "json", folder=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_preset_on_a_named_device_is_printed_in_80_columns_of_plain_text(tmp_path):
    done = run("llama2-7b", "--device", "h100-sxm", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    words = " ".join(done.stdout.split())
    assert (
        "Estimate of llama2-7b: 6.74 B weights, bfloat16, 256 new tokens From data-sheet peaks of NVIDIA H100 SXM"
        in words
    )
    assert "threshold keeps 11 % of tokens at 16 of 32 layers; skip_layers removes 16 of 32 layers." in words
    assert "The model has 4,096 positions; longer contexts are hypothetical." in words
    assert "context 131,072 · batch 8" in words
    assert "rows do not fit in 80.0 GiB" in words
    assert "At batch 1, threshold pays at any context from 1,024 to 131,072: at best 1." in words
    assert "routers, packing, norms, activations in memory and launch gaps are not counted" in words
    assert "measured" not in words


def test_json_has_base_units_and_the_source_of_the_ceilings_in_every_row(tmp_path):
    found = parsed("llama3-8b", "--device", "a100-80", "--context", "8192", "--batch", "4,1", folder=tmp_path)
    (case,) = found["cases"]
    assert [(row["context"], row["batch"], row["method"]) for row in case["rows"]] == [
        (8192, batch, method) for batch in (4, 1) for method in ("dense", "threshold", "skip_layers")
    ]
    listed = [*case["rows"], *case["longest_contexts"], *case["payoffs"]]
    assert {row["ceilings_source"] for row in listed} == {"data-sheet peaks"}
    threshold = case["rows"][1]
    assert threshold["memory"]["kv_cache_bytes"] == pytest.approx(4 * 128 * 1024 * (8192 + 255) * 1.111 / 2)
    assert threshold["is_fitting"] is True
    assert case["memory_bytes"] == 80 * 2**30


@pytest.mark.parametrize("name", ["model/config.json", "model"], ids=["config.json", "folder"])
def test_a_config_is_enough(tmp_path, name):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(CONFIG))
    options = [
        "--routed-layers",
        "1",
        "--keep-ratio",
        "0.5",
        "--dtype",
        "float32",
        "--new-tokens",
        "2",
        "--memory",
        "1GiB",
    ]
    found = parsed(name, "--device", "l4", *options, folder=tmp_path)
    (case,) = found["cases"]
    assert case["model"]["hidden_size"] == 64
    assert case["methods"][1]["routed_layers"] == [1]
    assert case["rows"][1]["kv_cache_reduction"] == pytest.approx(2 / 1.5)
    assert case["device"]["matmul_flops_per_s"] == 30.3e12
    assert case["memory_bytes"] == 2**30


def test_a_scenario_is_a_case_per_model_with_its_own_methods_and_sizes(tmp_path):
    (tmp_path / "s.yaml").write_text(SCENARIO)
    found = parsed("s.yaml", "--device", "l4", "--set", "methods.free.keep_ratio=0.5", folder=tmp_path)
    assert found["not_predicted"] == ["mine"]
    assert [case["label"] for case in found["cases"]] == ["preset tiny", "preset bench-8x512"]
    for case in found["cases"]:
        assert [method["label"] for method in case["methods"]] == ["dense", "threshold", "free"]
        assert [method["keep_ratio"] for method in case["methods"]] == [1.0, 0.25, 0.5]
        assert {(row["context"], row["batch"]) for row in case["rows"]} == {(64, 2), (128, 2)}
        assert (case["dtype"], case["new_tokens"]) == ("float32", 17)


def test_the_scenarios_memory_limit_is_the_budget_where_no_other_is_given(tmp_path):
    (tmp_path / "s.yaml").write_text(SCENARIO)
    limited = ("--device", "l4", "--set", "methods.free.keep_ratio=0.5", "--set", "measure.memory_limit=64 MiB")
    assert {case["memory_bytes"] for case in parsed("s.yaml", *limited, folder=tmp_path)["cases"]} == {64 * 2**20}
    done = run("s.yaml", *limited, folder=tmp_path)
    assert "memory 64.0 MiB, the scenario's limit." in " ".join(done.stdout.split())
    given = parsed("s.yaml", *limited, "--memory", "2GiB", folder=tmp_path)
    assert {case["memory_bytes"] for case in given["cases"]} == {2**31}


def test_a_longest_context_beyond_the_models_positions_is_hypothetical(tmp_path):
    short = ("--device", "h200", "--context", "1024", "--batch", "1")
    assert "The model has 4,096 positions" in run("llama2-7b", *short, folder=tmp_path).stdout


def test_options_go_before_the_scenario(tmp_path):
    (tmp_path / "s.yaml").write_text(SCENARIO)
    found = parsed(
        "s.yaml", "--device", "l4", "--keep-ratio", "0.1", "--context", "512", "--dtype", "float16", folder=tmp_path
    )
    for case in found["cases"]:
        assert [method["keep_ratio"] for method in case["methods"]] == [1.0, 0.1, 0.1]
        assert {(row["context"], row["batch"]) for row in case["rows"]} == {(512, 2)}
        assert case["dtype"] == "float16"


def test_what_was_measured_is_used_where_no_device_is_named(tmp_path):
    fields = {
        "name": "Example CPU",
        "kind": "cpu",
        "memory_bytes": 2**34,
        "machine": "m",
        "torch": "2.13.0",
        "threads": 2,
    }
    fields |= {
        "host": fingerprint(host_facts()),
        "dtype": "float32",
        "copy_bytes_per_s": 1e10,
        "matmul_flops_per_s": 1e11,
    }
    measured_devices.remember(MeasuredDevice(**fields))
    (tmp_path / "s.yaml").write_text(SCENARIO)
    done = run("s.yaml", "--keep-ratio", "0.5", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stdout.split())
    assert words.count("From measured ceilings of Example CPU (2 threads, torch 2.13.0): 10 GB/s, 0.1 TFLOP/s") == 2
    assert "memory 16.0 GiB, of which 300 MiB is taken before the first tensor" in words
    assert "mine: not predicted" in words
    assert "data-sheet" not in words


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["llama2-7B", "--device", "l4"], "TARGET: got 'llama2-7B', no such preset or file; expected"),
        (["llama2-7B", "--device", "l4"], "did you mean llama2-7b?"),
        (["nowhere", "--device", "l4"], "the presets are tiny, bench-8x512,"),
        (["empty", "--device", "l4"], "TARGET: config.json in 'empty' cannot be read (No such file or directory)"),
        (["absent.yaml", "--device", "l4"], "absent.yaml"),
        (["s.yaml", "--device", "l4"], "s.yaml: methods.free: got no keep_ratio; expected"),
        (
            ["llama2-7b"],
            "--device measured: no ceilings of bfloat16 were measured on this machine; run `modbench doctor",
        ),
        (["llama2-7b", "--device", "h2000"], "--device: got 'h2000'; expected one of measured, a100-40,"),
        (["llama2-7b", "--device", "l4", "--context", "4096,0"], "--context: got '4096,0'; expected integers from 1"),
        (["llama2-7b", "--device", "l4", "--batch", "many"], "--batch: got 'many'"),
        (["llama2-7b", "--device", "l4", "--keep-ratio", "0"], "--keep-ratio: got 0; expected a number above 0"),
        (["llama2-7b", "--device", "l4", "--routed-layers", "32"], "--routed-layers: got layer 32; expected"),
        (["llama2-7b", "--device", "l4", "--dtype", "bfloat"], "--dtype: got 'bfloat'; did you mean bfloat16?"),
        (["llama2-7b", "--device", "l4", "--new-tokens", "1"], "--new-tokens: got 1"),
        (["llama2-7b", "--device", "l4", "--set", "workload.batch=2"], "--set: got no scenario"),
        (["tiny", "--device", "l4", "--routed-layers", "0,1,2,3"], "methods.skip_layers: all 4 layers are removed"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(tmp_path, arguments, text):
    (tmp_path / "s.yaml").write_text(SCENARIO)
    (tmp_path / "empty").mkdir()
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_nothing_heavy_is_imported(tmp_path):
    probe = "import sys, modbench.cli as c; sys.argv = ['modbench', 'estimate', 'llama2-70b', '--device', 'h200']\n"
    probe += "try: c.main()\nexcept SystemExit: pass\n"
    probe += f"print([name for name in {HEAVY} if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert "Estimate of llama2-70b" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("text", "num_bytes"), [("24GiB", 24 * 2**30), ("1.5 GiB", 3 * 2**29), ("512MiB", 2**29), ("2000000", 2_000_000)]
)
def test_memory_is_bytes_or_has_a_unit(text, num_bytes):
    assert parse_memory(text) == num_bytes


@pytest.mark.parametrize("text", ["80", "80GB", "-1GiB", "", "lots"])
def test_memory_without_a_sensible_size_is_refused(text):
    with pytest.raises(OptionError, match="--memory: got"):
        parse_memory(text)


@pytest.mark.parametrize(
    ("text", "value"), [("interleaved", "interleaved"), ("3,1", (1, 3)), ("1", (1,)), ("0.5", 0.5)]
)
def test_routed_layers_are_typed_as_a_scenario_says_them(text, value):
    assert parse_routed_layers(text) == value


@pytest.mark.parametrize("text", ["1,1", "2.0", "odd", "", "nan", "1,,x"])
def test_routed_layers_that_mean_nothing_are_refused(text):
    with pytest.raises(OptionError, match="--routed-layers: got"):
        parse_routed_layers(text)
