"""Methods that are code of the user's own, as a scenario writes them: `entry:`, with and without `python:`, and `command:`."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from modbench.errors import EntryNotAllowedError
from modbench.plan import build_plan
from modbench.runner import refuse_entries
from modbench.scenario import json_schema
from tests.modbench.test_scenario_example import BASE, changed, errors, load

DENSE = "  dense:\n"


def with_method(line: str) -> str:
    return changed(DENSE, f"{DENSE}  {line}\n")


def planned(folder: Path, text: str, overrides: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """(label, kind, id, settings) of every method of every cell."""
    plan = build_plan(load(folder, text, overrides), "run", "cpu")
    return [
        {"label": item.method, "kind": item.kind, "id": item.point_id, **item.work.settings}
        for cell in plan.cells
        for item in cell.methods
    ]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("mine: {command: [./engine, --flag]}", "command"),
        ("command: {command: [./engine]}", "command"),
        ("mine: {method: command, command: [./engine]}", "command"),
        ("mine: {entry: 'a.b:make'}", "entry"),
        ("mine: {method: entry, entry: 'a.b:make', python: ./old/bin/python}", "entry"),
    ],
)
def test_the_key_of_foreign_code_says_which_kind_it_is(tmp_path: Path, line: str, kind: str) -> None:
    text = with_method(line)
    label = line.partition(":")[0]
    assert load(tmp_path, text).scenario.methods[label].method == kind
    jsonschema.validate(yaml.safe_load(text.replace("  dense:\n", "  dense: {}\n")), json_schema())


@pytest.mark.parametrize("settings", ["command: [./engine]", "entry: 'a.b:make'", "method: command, command: [x]"])
def test_the_baseline_may_be_foreign_code(tmp_path: Path, settings: str) -> None:
    text = changed(DENSE, f"  dense: {{{settings}}}\n")
    first = planned(tmp_path, text)[0]
    assert (first["label"], first["kind"]) == ("dense", "entry" if "entry" in settings else "command")
    jsonschema.validate(yaml.safe_load(text), json_schema())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("threshold_2: {method: threshold, command: [x]}", "methods.threshold_2.command: unknown key"),
        ("topk: {command: [x]}", "methods.topk.command: unknown key"),
        ("topk: {method: command, command: [x]}", "methods.topk.method: got 'command' under the name 'topk'"),
        ("mine: {command: ./engine --flag}", "methods.mine.command: got './engine --flag'; expected a list of words"),
        ("mine: {command: []}", "methods.mine.command: got []; expected a list of words"),
        ("mine: {command: ['']}", "methods.mine.command: got ['']; expected a list of words"),
        ("mine: {command: [x, 5]}", "methods.mine.command: got ['x', 5]; expected a list of words"),
        ("mine: {command: [x], comand: 1}", "methods.mine.comand: unknown key; did you mean command?"),
        ("mine: {command: [x], env: {A: 5}}", "methods.mine.env.A: got 5; expected text"),
        ("mine: {command: [x], env: {'A=B': c}}", "methods.mine.env: got {'A=B': 'c'}; expected names of letters"),
        ("mine: {command: [x], python: y}", "methods.mine.python: unknown key"),
        ("mine: {entry: 'a:b', python: ''}", "methods.mine.python: got ''"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, line: str, expected: str) -> None:
    (found,) = errors(tmp_path, with_method(line))
    assert found.startswith(f"x.yaml:5: {expected}")


def test_what_changes_the_work_changes_its_identity(tmp_path: Path) -> None:
    variants = [
        "command: [./engine]",
        "command: [./engine, --flag]",
        "command: [./engine], options: {depth: 1}",
        "command: [./engine], env: {DEPTH: '1'}",
        "entry: 'a:b'",
        "entry: 'a:b', python: ./old/bin/python",
    ]
    ids = [planned(tmp_path, with_method(f"mine: {{{variant}}}"))[1]["id"] for variant in variants]
    assert len(set(ids)) == len(variants)


def test_an_interpreter_that_is_not_named_is_no_part_of_the_identity(tmp_path: Path) -> None:
    assert "python" not in planned(tmp_path, with_method("mine: {entry: 'a:b'}"))[1]
    assert planned(tmp_path, with_method("mine: {entry: 'a:b', python: p}"))[1]["python"] == "p"


def test_commands_are_set_from_the_command_line_and_vary_in_a_matrix(tmp_path: Path) -> None:
    text = with_method("mine: {command: [./engine]}")
    override = ("methods.mine.command=[./other, --deep]",)
    assert planned(tmp_path, text, override)[1]["command"] == ["./other", "--deep"]
    override = ("methods.dense.command=[./baseline]",)
    assert planned(tmp_path, text, override)[0]["command"] == ["./baseline"]
    axes = "matrix:\n  methods.mine.command: [[./a], [./b]]\n  methods.mine.env.DEPTH: ['1', '2']\n"
    cells = planned(tmp_path, text.replace("matrix:\n", axes).replace("    - 2\n", ""))
    found = [(item["command"], item["env"]) for item in cells if item["label"] == "mine"]
    assert len({repr(item) for item in found}) == 4
    interpreters = with_method("mine: {entry: 'a:b'}").replace(
        "matrix:\n", "matrix:\n  methods.mine.python: [null, ./p]\n"
    )
    found = [item.get("python") for item in planned(tmp_path, interpreters) if item["label"] == "mine"]
    assert set(found) == {None, "./p"}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("mine: {command: [./engine, a b]}", "methods.mine: command runs \"./engine 'a b'\"; pass --allow-entry"),
        ("mine: {entry: 'a:b'}", "methods.mine: entry imports and runs 'a:b'; pass --allow-entry"),
        ("mine: {entry: 'a:b', python: p}", "methods.mine: entry imports and runs 'a:b' with 'p'; pass --allow-entry"),
    ],
)
def test_foreign_code_is_refused_in_words(tmp_path: Path, line: str, text: str) -> None:
    with pytest.raises(EntryNotAllowedError) as caught:
        refuse_entries(load(tmp_path, with_method(line)))
    assert text in str(caught.value)
    refuse_entries(load(tmp_path, BASE))
