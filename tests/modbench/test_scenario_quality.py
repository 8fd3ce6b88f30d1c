"""The key `quality`: what is read, what is refused and how, and the schema that allows it."""

import hashlib
from pathlib import Path

import jsonschema
import pytest
import yaml

from modbench.scenario import json_schema
from tests.modbench.saved_models import save_converted, save_dense
from tests.modbench.test_scenario_example import errors, load

TEXT = """\
name: x
model: {preset: tiny}
methods:
  dense:
  threshold: {keep_ratio: 0.25}
  own: {entry: "a.b:c"}
workload: {context: 64, new_tokens: 37, prompt: {synthetic: true}}
quality: {probes: [bits_per_byte], text: held.txt, rows: 8, context: 128, trials: 2}
matrix: {workload.context: [32, 64]}
expect: ["threshold.bits_per_byte_ratio <= 1.01 @ workload.context == 64"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "held.txt").write_text("held out")
    return tmp_path


def test_what_is_evaluated_is_known_by_content(folder: Path) -> None:
    quality = load(folder, TEXT).quality
    assert quality is not None
    assert (quality.probes, quality.num_rows, quality.context, quality.num_trials) == (("bits_per_byte",), 8, 128, 2)
    assert quality.texts == (str(folder / "held.txt"),)
    assert quality.files_sha256 == (hashlib.sha256(b"held out").hexdigest(),)
    before = quality.identity
    later = load(folder, TEXT.replace("trials: 2", "trials: 2, timeout_s: 9")).quality
    assert later is not None and later.identity == before, "a time limit changes no number"
    (folder / "held.txt").write_text("other text")
    changed = load(folder, TEXT).quality
    assert changed is not None and changed.identity != before


def test_a_teacher_adds_the_agreement_to_the_default_probes(folder: Path) -> None:
    alone = load(folder, TEXT.replace("probes: [bits_per_byte], ", "")).quality
    assert alone is not None and alone.probes == ("bits_per_byte", "needle", "induction")
    save_dense(folder / "teacher")
    text = TEXT.replace("preset: tiny", "path: teacher").replace("probes: [bits_per_byte]", "teacher: teacher")
    found = load(folder, text).quality
    assert found is not None and found.probes == ("bits_per_byte", "needle", "induction", "agreement")
    assert found.teacher_sha256 is not None


def test_without_the_key_nothing_is_evaluated(folder: Path) -> None:
    text = "\n".join(line for line in TEXT.splitlines() if not line.startswith(("quality", "expect")))
    assert load(folder, text).quality is None


MISTAKES = {
    "key": ("rows: 8", "row: 8", "x.yaml:8: quality.row: unknown key; did you mean rows?"),
    "rows": ("rows: 8", "rows: 0", "x.yaml:8: quality.rows: got 0; expected an integer >= 1 and <= 1000000"),
    "probe": (
        "[bits_per_byte]",
        "[bits_per_bite]",
        "x.yaml:8: quality.probes: got ['bits_per_bite']; expected a list of some of bits_per_byte, needle, induction, agreement, "
        "each once",
    ),
    "twice": ("[bits_per_byte]", "[needle, needle]", "a probe is named twice"),
    "agreement alone": (
        "[bits_per_byte]",
        "[agreement]",
        "expected at least one of bits_per_byte, needle, induction",
    ),
    "no teacher": (
        "[bits_per_byte]",
        "[bits_per_byte, agreement]",
        "x.yaml:8: quality: got the probe agreement without a teacher; expected teacher: FOLDER of the dense model",
    ),
    "teacher unused": (
        "trials: 2",
        "teacher: d",
        "x.yaml:8: quality: got a teacher without the probe agreement; expected both; add agreement to the probes",
    ),
    "text and data": ("rows: 8", "data: d.yaml", "x.yaml:8: quality: got text and data; expected one of them"),
    "no text": ("held.txt", "lost.txt", "which does not exist"),
    "folder": ("held.txt", "sub", "which is a folder; expected a UTF-8 text file"),
    "no data": ("text: held.txt", "data: lost.yaml", "which is no file; expected YAML of training data"),
    "context": (
        "context: 128",
        "context: 999999",
        "x.yaml:8: quality.context: got 999999; expected 2 to ",
    ),
    "no folder": ("[bits_per_byte]", "[bits_per_byte, agreement], teacher: lost", "quality.teacher: got "),
    "axis": (
        "{workload.context: [32, 64]}",
        "{workload.context: [64], quality.rows: [1, 2]}",
        "x.yaml:9: matrix.quality.rows: quality cannot vary; expected a key under model, methods, workload or measure",
    ),
    "searched": (
        "context: 64",
        "context: 64, batch: {search: max}",
        "x.yaml:8: quality: is given with a search; expected sizes",
    ),
    "probe not run": (
        "threshold.bits_per_byte_ratio <= 1.01",
        "threshold.needle_accuracy >= 1",
        "needle_accuracy is the result of an evaluation; add needle to quality.probes",
    ),
    "of a stranger": (
        "threshold.bits_per_byte_ratio",
        "own.bits_per_byte_ratio",
        "own runs code of its own, which is not evaluated; expected a method of modbench",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(folder: Path, name: str) -> None:
    (folder / "sub").mkdir()
    old, new, line = MISTAKES[name]
    assert old in TEXT
    found = errors(folder, TEXT.replace(old, new))
    assert len(found) == 1, found
    assert line in found[0]


def test_an_expectation_needs_the_key(folder: Path) -> None:
    text = "\n".join(line for line in TEXT.splitlines() if not line.startswith("quality"))
    (line,) = errors(folder, text)
    assert line.endswith("bits_per_byte_ratio is the result of an evaluation; add quality: {probes: [bits_per_byte]}")


def test_a_converted_model_is_no_teacher_and_neither_is_one_of_another_vocabulary(folder: Path) -> None:
    save_converted(folder / "converted")
    save_dense(folder / "dense")
    for name, found in (("converted", "got a converted model in"), ("dense", "got a vocabulary of 300 in")):
        text = TEXT.replace("[bits_per_byte]", f"[bits_per_byte, agreement], teacher: {name}")
        (line,) = errors(folder, text)
        assert f"quality.teacher: {found}" in line


def test_the_json_schema_allows_what_is_read(folder: Path) -> None:
    schema = json_schema()
    for old, new in (("held.txt", "held.txt"), ("held.txt", "[held.txt, more.txt]"), ("text: held.txt, ", "")):
        jsonschema.validate(yaml.safe_load(TEXT.replace(old, new)), schema)
    for name in ("key", "rows", "probe", "twice"):
        old, new, _ = MISTAKES[name]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(yaml.safe_load(TEXT.replace(old, new)), schema)
