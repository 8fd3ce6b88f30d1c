"""YAML text -> plain data with lines: everything YAML can do wrong is one clean error."""

from pathlib import Path

import pytest

from modbench.errors import ScenarioError
from modbench.scenario.source import MAX_FILE_BYTES, parse_override_value, parse_scenario_text, read_scenario_text

BILLION_LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)

BAD_TEXTS = {
    "syntax": ("name: x\nmodel: {a: 1\nb: 2\n", "f.yaml:3: not valid YAML at column 2 while parsing a flow mapping:"),
    "tab": ("a:\n\tb: 1\n", "f.yaml:2: not valid YAML at column 1 while scanning for the next token:"),
    "duplicate key": ("a: 1\nb: 2\na: 3\n", "f.yaml:3: the key 'a' is given twice (first in line 1); expected once"),
    "nested duplicate": ("m:\n  a: 1\n  a: 1\n", "f.yaml:3: the key 'a' is given twice (first in line 2)"),
    "billion laughs": (BILLION_LAUGHS, "aliases expand to more than 10,000 values"),
    "too many values": ("a: [" + "1, " * 10_001 + "]", "f.yaml:1: got more than 10,000 keys and values"),
    "deep nesting": ("a: " + "[" * 5_000, "f.yaml:1: nested more than 32 levels deep"),
    "deep through aliases": (
        "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 200)),
        "aliases expand to more than 10,000 values or 32 levels",
    ),
    "recursive anchor": ("a: &a [*a]\n", "f.yaml:1: got an anchor that contains itself"),
    "undefined alias": ("a: *b\n", "f.yaml:1: not valid YAML at column 4: found undefined alias"),
    "integer key": ("a: 1\n2: b\n", "f.yaml:2: got the key '2' (an integer); expected text; quote it"),
    "boolean key": ("on: 1\n", "f.yaml:1: got the key 'on' (a boolean); expected text; quote it"),
    "list key": ("? [a]\n: 1\n", "f.yaml:1: got a mapping or list as a key; expected text"),
    "python tag": (
        "a: !!python/object/apply:os.system [x]\n",
        "f.yaml:1: got the tag '!!python/object/apply:os.system'",
    ),
    "own tag": ("a: 1\nb: !mine x\n", "f.yaml:2: got the tag '!mine'; expected plain YAML; remove the tag"),
    "binary tag": ("a: !!binary aGk=\n", "f.yaml:1: got the tag '!!binary'"),
    "set tag": ("a: !!set {x}\n", "f.yaml:1: got the tag '!!set'"),
    "bad explicit bool": ("a: !!bool maybe\n", "f.yaml:1: got 'maybe' as !!bool; expected true or false"),
    "two documents": ("a: 1\n---\nb: 2\n", "f.yaml:2: got a second YAML document; expected one; remove the '---'"),
    "empty": ("", "f.yaml:1: got an empty file; expected a scenario with name, model, methods and workload"),
    "comment only": ("# nothing\n", "f.yaml:1: got an empty file"),
    "list": ("- a\n", "f.yaml:1: got a list at the top level; expected a mapping"),
    "text": ("\nhello\n", "f.yaml:2: got text at the top level; expected a mapping"),
    "merge key": ("a: &a {x: 1}\nb:\n  <<: *a\n", "f.yaml:3: got the merge key '<<'; expected plain keys"),
    "octal": ("a: 0755\n", "f.yaml:1: got '0755', read in base 8 or 60 by YAML 1.1; expected a decimal"),
    "base 60": ("a: 1:30\n", "f.yaml:1: got '1:30', read in base 8 or 60 by YAML 1.1"),
    "not a number": ("a: .nan\n", "f.yaml:1: got '.nan'; expected a finite decimal number"),
    "infinite": ("a: 1.0e+999\n", "f.yaml:1: got '1.0e+999'; expected a finite decimal number"),
    "endless integer": ("a: " + "9" * 5_000, "expected an integer of at most 64 bits"),
    "control character": ("a: 1\nb: \x07\n", "f.yaml:2: got the character '\\x07'; expected printable text"),
    "escaped NUL": ('a: "x\\0"\n', "f.yaml:1: got 'x\\x00', with a NUL or half a surrogate pair"),
    "lone surrogate": ('a: "\\ud800"\n', "f.yaml:1: got '\\ud800', with a NUL or half a surrogate pair"),
    "impossible escape": ('a: "\\UFFFFFFFF"\n', "f.yaml:1: got an escape or directive with an impossible number"),
}


@pytest.mark.parametrize(("text", "expected"), BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_bad_yaml_is_one_line_with_file_and_line(text: str, expected: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario_text(text, "f.yaml")
    message = str(caught.value)
    assert expected in message
    assert message.startswith("f.yaml:"), "the error says where"
    assert "\n" not in message, "the error is one line"
    assert caught.value.exit_code == 2, "a scenario error is a usage error"


@pytest.mark.timeout(10)  # it fails in milliseconds; expanded it would fill the memory
def test_a_billion_laughs_is_counted_before_anything_is_expanded() -> None:
    with pytest.raises(ScenarioError, match="aliases expand"):
        parse_scenario_text(BILLION_LAUGHS, "f.yaml")


def test_lines_are_those_of_keys_and_items() -> None:
    source = parse_scenario_text("a: 1\nb:\n  c:\n    - x\n    - y\n", "f.yaml")
    assert source.data == {"a": 1, "b": {"c": ["x", "y"]}}
    assert source.lines[("a",)] == 1
    assert source.lines[("b", "c")] == 3
    assert source.lines[("b", "c", 1)] == 5


def test_aliases_are_copied() -> None:
    data = parse_scenario_text("a: &a {x: [1]}\nb: *a\n", "f.yaml").data
    assert data["b"] == data["a"]
    assert data["b"] is not data["a"], "changing one copy must not change the other"


def test_scalars_have_their_plain_types() -> None:
    data = parse_scenario_text(
        "[1_000, -2, 0x10, 1.5, true, off, null, ~, 2026-01-02, '5', 1e4, =]".join(("a: ", "\n")), "f"
    )
    assert data.data["a"] == [1000, -2, 16, 1.5, True, False, None, None, "2026-01-02", "5", "1e4", "="]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: 1\nb: \0\n", ":2: got a NUL byte; expected UTF-8 text"),
        (b"a: 1\nb: \xff\n", ":2: got the byte 0xff; expected UTF-8 text"),
        (b"#" * (MAX_FILE_BYTES + 1), ": got more than 1,048,576 bytes"),
    ],
    ids=["NUL", "not UTF-8", "too large"],
)
def test_a_file_that_is_not_small_text_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    with pytest.raises(ScenarioError) as caught:
        read_scenario_text(path)
    assert str(caught.value).startswith(f"{path}{expected}")


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="no such file"):
        read_scenario_text(tmp_path / "none.yaml")
    with pytest.raises(ScenarioError, match="got a folder"):
        read_scenario_text(tmp_path)
    with pytest.raises(ScenarioError, match="cannot be read"):
        read_scenario_text(Path("a\0b"))


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\n")
    assert parse_scenario_text(read_scenario_text(path), "f").data == {"a": 1}


def test_an_override_value_is_any_yaml_value() -> None:
    assert parse_override_value("[1, 8]", "--set x") == [1, 8]
    assert parse_override_value("", "--set x") is None
    with pytest.raises(ScenarioError, match=r"^--set x=\[1: not valid YAML at column"):
        parse_override_value("[1", "--set x=[1")
