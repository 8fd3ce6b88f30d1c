"""Every bad scenario is one clean line: file, line, key, what was found, what is allowed, what to do."""

from pathlib import Path

import pytest

from tests.modbench.test_scenario_example import changed, errors

CHANGES = {
    "number too small": (
        "new_tokens: 10", "new_tokens: 1",
        "x.yaml:6: workload.new_tokens: got 1; expected an integer >= 2",
    ),
    "text for a number": (
        "batch: 1,", "batch: many,", "x.yaml:6: workload.batch: got 'many'; expected an integer >= 1",
    ),
    "float for an integer": ("batch: 1,", "batch: 1.5,", "x.yaml:6: workload.batch: got 1.5; expected an integer >= 1"),
    "null for a number": ("batch: 1,", "batch: ,", "x.yaml:6: workload.batch: got nothing; expected an integer >= 1"),
    "exponent without a dot": (
        "batch: 1,", "batch: 1e4,",
        "x.yaml:6: workload.batch: got '1e4'; expected an integer >= 1; "
        "YAML reads this as text: write digits without quotes or exponent (10000, not 1e4)",
    ),
    "yes for a number": (
        "batch: 1,", "batch: yes,",
        "x.yaml:6: workload.batch: got true; expected an integer >= 1; "
        "YAML reads yes, no, on and off as true or false: quote the word",
    ),
    "out of an open range": (
        "threshold_p: 0.5", "threshold_p: 1.0",
        "x.yaml:5: methods.threshold.threshold_p: got 1.0; expected a number > 0 and < 1",
    ),
    "unknown key, near": ("batch: 1,", "bach: 1,", "x.yaml:6: workload.bach: unknown key; did you mean batch?"),
    "unknown key, far": (
        "batch: 1,", "zzz: 1,",
        "x.yaml:6: workload.zzz: unknown key; expected one of context, batch, new_tokens, prompt, seed",
    ),
    "unknown key of a method": (
        "threshold_p: 0.5", "treshold_p: 0.5", "x.yaml:5: methods.threshold.treshold_p: unknown key; did you mean threshold_p?",
    ),
    "unknown section": ("measure:", "mesure:", "x.yaml:7: mesure: unknown key; did you mean measure?"),
    "missing key": ("context: 64, ", "", "x.yaml:6: workload.context: missing; expected an integer >= 1"),
    "missing section": (
        "workload: {context: 64, batch: 1, new_tokens: 10, prompt: {synthetic: true}}\n", "",
        "x.yaml:1: workload: missing; expected a mapping with keys among context, batch, new_tokens, prompt, seed",
    ),
    "not one of": (
        "bfloat16", "bf16", "x.yaml:2: model.dtype: got 'bf16'; expected one of float32, bfloat16, float16; did you mean bfloat16?",
    ),
    "bad name": ("name: x", "name: a b", "x.yaml:1: name: got 'a b'; expected letters, digits, '.', '_', '-'"),
    "section is text": (
        "measure: {launches: 4}", "measure: 4",
        "x.yaml:7: measure: got 4; expected a mapping with keys among ",
    ),
    "launches": ("launches: 4", "launches: 0", 'x.yaml:7: measure.launches: got 0; expected "auto" (the three looks'),
    "device": (
        "launches: 4", "device: tpu",
        "x.yaml:7: measure.device: got 'tpu'; expected auto, cpu, cuda or cuda:INDEX",
    ),
    "two prompts": (
        "synthetic: true", "synthetic: true, text: a",
        "x.yaml:6: workload.prompt: got both; expected either text: FILE or synthetic: true",
    ),
    "unknown preset": (
        "preset: tiny", "preset: lama2-7b",
        "x.yaml:2: model.preset: got the unknown preset 'lama2-7b'; did you mean llama2-7b?",
    ),
    "no model": (
        "preset: tiny, ", "",
        "x.yaml:2: model: got none of them; expected exactly one of preset, path, geometry",
    ),
    "checkpoint of a preset": (
        "preset: tiny,", "preset: tiny, weights: checkpoint,",
        "x.yaml:2: model: weights: checkpoint needs a path; a preset has random weights only",
    ),
    "missing dense": ("  dense:\n", "", "x.yaml:3: methods: no method 'dense'; expected `dense: {}`"),
    "dense of another kind": (
        "dense:", "dense: {method: topk}",
        "x.yaml:4: methods.dense.method: got 'topk' under the name 'dense'; expected dense; give it a name of its own",
    ),
    "unknown method": (
        "threshold: {", "treshold: {",
        "x.yaml:5: methods.treshold: got the unknown method 'treshold'; expected one of dense, threshold, topk, "
        "skip_layers, masked, kv_only, entry, command; did you mean threshold?",
    ),
    "unknown kind": (
        "threshold: {", "mine: {method: treshold, ", "x.yaml:5: methods.mine.method: got 'treshold'; did you mean threshold?",
    ),
    "label with a dot": (
        "threshold: {", "a.b: {method: threshold, ",
        "x.yaml:5: methods.a.b: got the name 'a.b'; expected a letter",
    ),
    "method is a number": (
        "dense:", "dense: 5",
        "x.yaml:4: methods.dense: got 5; expected a mapping of settings, or nothing",
    ),
    "layer twice": (
        "threshold_p: 0.5", "routed_layers: [1, 1]",
        "x.yaml:5: methods.threshold.routed_layers: got [1, 1]; a layer is named twice; expected",
    ),
    "layer out of range": (
        "threshold_p: 0.5", "routed_layers: [1, 4]",
        "x.yaml:5: methods.threshold.routed_layers: got layer 4; expected indices from 0 to 3",
    ),
    "fraction of no layer": (
        "threshold_p: 0.5", "routed_layers: 0.1",
        "x.yaml:5: methods.threshold.routed_layers: got 0.1, which routes none of the model's 4 layers",
    ),
    "all layers skipped": (
        "dense:\n", "dense:\n  skip_layers: {routed_layers: 1.0}\n",
        "x.yaml:5: methods.skip_layers.routed_layers: got all 4 layers, which leaves no model",
    ),
    "matrix key, near": (
        "workload.batch:\n", "workload.bach:\n",
        "x.yaml:10: matrix.workload.bach: unknown key 'bach'; did you mean batch?",
    ),
    "matrix of an unknown method": (
        "workload.batch:\n", "methods.treshold.keep_ratio:\n",
        "x.yaml:10: matrix.methods.treshold.keep_ratio: unknown method 'treshold'; did you mean threshold?",
    ),
    "matrix of a section": (
        "workload.batch:\n", "measure:\n",
        "x.yaml:10: matrix.measure: measure is a section; name one key in it",
    ),
    "matrix of a method": (
        "workload.batch:\n", "methods.threshold:\n", "x.yaml:10: matrix.methods.threshold: methods.threshold is a section;",
    ),
    "matrix of the name": (
        "workload.batch:\n", "name:\n",
        "x.yaml:10: matrix.name: name cannot vary; expected a key under model",
    ),
    "matrix of launches": (
        "workload.batch:\n", "measure.launches:\n",
        "x.yaml:10: matrix.measure.launches: measure.launches cannot vary",
    ),
    "matrix below a value": (
        "workload.batch:\n", "workload.seed.x:\n", "x.yaml:10: matrix.workload.seed.x: workload.seed has no keys inside it",
    ),
    "matrix axis is no list": ("[64, 128]", "64", "x.yaml:9: matrix.workload.context: got 64; expected a list"),
    "matrix axis is empty": (
        "[64, 128]", "[]",
        "x.yaml:9: matrix.workload.context: got an empty list; expected at least one value",
    ),
    "matrix value twice": (
        "    - 2\n", "    - 1\n", "x.yaml:12: matrix.workload.batch[1]: got 1 again (first at [0]); expected different values",
    ),
    "matrix value": (
        "    - 2\n", "    - 2\n    - 0\n",
        "x.yaml:13: matrix.workload.batch[2]: got 0; expected an integer >= 1",
    ),
    "axes overlap": (
        "workload.batch:\n    - 1\n    - 2\n", "workload.prompt: [{synthetic: true}]\n  workload.prompt.text: [a]\n",
        "x.yaml:11: matrix.workload.prompt.text: is inside the axis workload.prompt; expected axes that do not overlap",
    ),
    "context beyond positions": (
        "[64, 128]", "[64, 65536]",
        "x.yaml:9: matrix.workload.context[1]: got 65536 with 10 new tokens; expected at most 65536 positions in all; "
        "set model.max_positions: 65546, or lower the context",
    ),
    "expectation syntax": (
        ">= 1.75", "at least 2",
        "x.yaml:13: expect[0]: got 'threshold.kv_cache_reduction at least 2'; expected METHOD.METRIC OP",
    ),
    "expectation is no text": (
        '["threshold.kv_cache_reduction >= 1.75"]', "[3]",
        "x.yaml:13: expect[0]: got 3; expected text",
    ),
    "expectation of no cell": (
        "kv_cache_reduction >= 1.75", "ttft_s < 5 @ workload.context >= 99999 and workload.batch == 1",
        "x.yaml:13: expect[0]: got 'threshold.ttft_s < 5 @ workload.context >= 99999 and wor...: "
        "no cell of the matrix has workload.context >= 99999; expected conditions that hold at one cell or more",
    ),
    "too long a time limit": (
        "launches: 4", "timeout_s: 604801",
        "x.yaml:7: measure.timeout_s: got 604801; expected a number > 0 and <= 604800",
    ),
    "a memory limit without a known unit": (
        "launches: 4", "memory_limit: 8 GB",
        'x.yaml:7: measure.memory_limit: got \'8 GB\'; expected "auto" (what the machine has left, less a reserve) '
        "or a size such as 8 GiB or 512 MiB, or an integer of bytes",
    ),
    "a memory limit in the wrong unit": (
        "launches: 4", "memory_limit: 8",
        'x.yaml:7: measure.memory_limit: got 8; expected "auto" (what the machine has left, less a reserve) '
        "or a size such as 8 GiB or 512 MiB, or an integer of bytes, from 1 MiB to 1024 TiB",
    ),
    "too many launches": ("launches: 4", "launches: 10001", 'x.yaml:7: measure.launches: got 10001; expected "auto" (the'),
    "too many warm-ups": ("launches: 4", "warmup: 10001", 'x.yaml:7: measure.warmup: got 10001; expected "auto" (until'),
    "too many samples": (
        "launches: 4", "samples: 10001", "x.yaml:7: measure.samples: got 10001; expected an integer >= 1 and <= 10000",
    ),
    "too many threads": (
        "launches: 4", "threads: 1025", "x.yaml:7: measure.threads: got 1025; expected an integer >= 1 and <= 1024",
    ),
    "too many positions": (
        "preset: tiny", "preset: tiny, max_positions: 2147483649",
        "x.yaml:2: model.max_positions: got 2147483649; expected an integer >= 1 and <= 2147483648",
    ),
    "too many layers": (
        "preset: tiny", "geometry: {num_hidden_layers: 10001, hidden_size: 8, intermediate_size: 8, "
        "num_attention_heads: 2, vocab_size: 9}",
        "x.yaml:2: model.geometry.num_hidden_layers: got 10001; expected an integer >= 1 and <= 10000",
    ),
    "too large a vocabulary": (
        "preset: tiny", "geometry: {num_hidden_layers: 1, hidden_size: 8, intermediate_size: 8, "
        "num_attention_heads: 2, vocab_size: 16777217}",
        "x.yaml:2: model.geometry.vocab_size: got 16777217; expected an integer >= 1 and <= 16777216",
    ),
    "family": (
        "preset: tiny", "geometry: {model_type: lama, num_hidden_layers: 1, hidden_size: 8, intermediate_size: 8, "
        "num_attention_heads: 2, vocab_size: 9}",
        "x.yaml:2: model.geometry.model_type: got 'lama'; expected one of llama, mistral, qwen2, qwen3, phi3, "
        "olmo2, gemma2, gemma3_text; did you mean llama?",
    ),
    "a kind of layer": (
        "preset: tiny", "geometry: {model_type: qwen3, num_hidden_layers: 1, hidden_size: 8, intermediate_size: 8, "
        "num_attention_heads: 2, vocab_size: 9, layer_types: [linear_attention]}",
        "x.yaml:2: model.geometry.layer_types[0]: got 'linear_attention'; expected one of full_attention, sliding_attention",
    ),
    "a window for a family without": (
        "preset: tiny", "geometry: {num_hidden_layers: 1, hidden_size: 8, intermediate_size: 8, "
        "num_attention_heads: 2, vocab_size: 9, sliding_window: 4}",
        "x.yaml:2: model.geometry: got a sliding_window for llama, which has none; expected no sliding_window",
    ),
    "keep ratio of too few tokens": (
        "keep_ratio: 0.111", "keep_ratio: 0.05",
        "x.yaml:6: workload.new_tokens: got 10, so 9 decoded tokens, of which no whole number is near "
        "methods.threshold.keep_ratio 0.05; expected more; set workload.new_tokens: 18 (cell",
    ),
    "capacity of too few tokens": (
        "  dense:\n", "  dense:\n  topk: {capacity: 0.3}\n",
        "x.yaml:7: workload.new_tokens: got 10, so 9 decoded tokens, of which no whole number is near "
        "methods.topk.capacity 0.3; expected more; set workload.new_tokens: 11 (cell",
    ),
    "missing prompt": (
        "synthetic: true", "text: none.txt", "x.yaml:6: workload.prompt.text: got 'FOLDER/none.txt', which does not exist",
    ),
    "missing model folder": (
        "preset: tiny", "path: none",
        "x.yaml:2: model.path: got 'FOLDER/none', which is not a folder; expected a Hugging Face folder",
    ),
    "NUL in a path": ("preset: tiny", 'path: "a\\0"', "x.yaml:2: got 'a\\x00', with a NUL"),
    "endless path": ("preset: tiny", "path: " + "a" * 300, "x.yaml:2: model.path: got 'FOLDER"),
    "endless prompt path": ("synthetic: true", "text: " + "a" * 300, "x.yaml:6: workload.prompt.text: got 'FOLDER"),
    "endless key": (
        "batch: 1,", "b" * 900 + ": 1,",
        "x.yaml:6: workload." + "b" * 57 + "...: unknown key; expected one of",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), CHANGES.values(), ids=CHANGES)
def test_a_bad_scenario_is_exactly_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)  # relative, so that paths in messages stay short
    Path("FOLDER").mkdir()
    lines = errors(Path("FOLDER"), changed(old, new))
    assert len(lines) == 1, f"expected one line, got {lines}"
    assert lines[0].startswith(expected)
    assert len(lines[0]) < 400, "a message is read in a terminal"
    assert "pydantic" not in lines[0]


def test_all_problems_are_reported_in_file_order(tmp_path: Path) -> None:
    text = changed("dtype: bfloat16", "dtype: 5").replace("batch: 1,", "bach: 1,").replace("launches: 4", "samples: 0")
    assert [line.split(": ")[1] for line in errors(tmp_path, text)] == [
        "model.dtype",
        "workload.bach",
        "measure.samples",
    ]


def test_at_most_twenty_problems_are_shown(tmp_path: Path) -> None:
    lines = errors(tmp_path, changed("[64, 128]", str([-value for value in range(30)])))
    assert len(lines) == 21
    assert lines[-1] == "x.yaml: 10 more problems; mend these first"


def test_a_problem_of_some_cells_names_the_first(tmp_path: Path) -> None:
    text = changed("workload.context: [64, 128]", "model.max_positions: [80, 50, 60]")
    lines = errors(tmp_path, text)
    assert len(lines) == 2, "one line per limit, not per cell"
    assert lines[0].startswith("x.yaml:6: workload.context: got 64 with 10 new tokens; expected at most 50 positions")
    assert lines[0].endswith("(cell model.max_positions=50, workload.batch=1)")


def test_too_many_cells_are_refused(tmp_path: Path) -> None:
    lines = errors(tmp_path, changed("[64, 128]", str(list(range(1, 1002)))))
    assert lines == ["x.yaml:8: matrix: got 2,002 cells; expected at most 2,000; use shorter axes"]


def test_an_axis_inside_a_plain_option_is_a_problem_of_the_axis(tmp_path: Path) -> None:
    text = changed("  dense:\n", "  dense:\n  entry: {entry: 'a:b', options: {depth: 5}}\n")
    lines = errors(tmp_path, text.replace("workload.batch:\n", "methods.entry.options.depth.x:\n"))
    assert lines == [
        "x.yaml:11: matrix.methods.entry.options.depth.x: "
        "depth is not a mapping; expected a key that exists; name depth alone"
    ]
