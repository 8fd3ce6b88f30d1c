"""YAML text -> plain data with a line number for every key path; everything YAML can do wrong is refused here.

In: a scenario file, or the value of one `--set`. Out: `Source(data, lines)`, where `lines` maps a path such as
`("workload", "batch")` to a line. The text is composed to nodes and converted here, so no tag can construct an object.
Limits hold before anything is expanded.
"""

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from modbench.errors import ScenarioError
from modbench.scenario.wording import show

MAX_FILE_BYTES = 1024 * 1024
MAX_NODES = 10_000  # after aliases are expanded
MAX_DEPTH = 32
_CORE = "tag:yaml.org,2002:"
_TEXT_TAGS = {_CORE + name for name in ("str", "timestamp", "value", "merge")}  # a date stays text
_SURPRISE = re.compile(r"[-+]?(0[0-9_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")  # YAML 1.1 octals and base 60

KeyPath = tuple[str | int, ...]
Where = Callable[[int], str]


@dataclass(frozen=True)
class Source:
    """Plain data, and the line of every key and list item in it (an alias has the line of what it stands for)."""

    data: Any
    lines: dict[KeyPath, int]


def read_scenario_text(path: Path) -> str:
    """Read a scenario file as text.

    Raises:
        ScenarioError: no such file, a folder, a pipe, unreadable, larger than `MAX_FILE_BYTES`, NUL bytes, or not UTF-8.
    """
    try:
        if is_irregular(path) and not path.is_dir():
            raise ScenarioError(f"{path}: is not a regular file; expected a scenario file (YAML)")
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ScenarioError(f"{path}: no such file; expected a scenario file (YAML)") from None
    except IsADirectoryError:
        raise ScenarioError(f"{path}: got a folder; expected a scenario file (YAML); name one file in it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ScenarioError(f"{str(path)!r}: cannot be read ({reason}); expected a readable scenario file") from None
    if len(raw) > MAX_FILE_BYTES:
        raise ScenarioError(f"{path}: got more than {MAX_FILE_BYTES:,} bytes; expected a scenario file below that size")
    if b"\0" in raw:
        line = raw[: raw.index(b"\0")].count(b"\n") + 1
        raise ScenarioError(f"{path}:{line}: got a NUL byte; expected UTF-8 text; save the file as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ScenarioError(
            f"{path}:{line}: got the byte 0x{raw[error.start]:02x}; expected UTF-8 text; save the file as UTF-8"
        ) from None


def is_irregular(path: Path) -> bool:
    """Return whether something other than a file stands there: reading a pipe could wait for ever."""
    return os.path.lexists(path) and not path.is_file()


def parse_scenario_text(text: str, file: str) -> Source:
    """Parse a whole scenario file, whose top level must be a mapping.

    Raises:
        ScenarioError: `FILE:LINE: ...` for anything that is not one plain YAML mapping within the limits.
    """

    def where(line: int) -> str:
        return f"{file}:{line}"

    source = _parse(text, where)
    if source is None:
        raise ScenarioError(
            f"{where(1)}: got an empty file; expected a scenario with name, model, methods and workload"
        )
    if not isinstance(source.data, dict):
        raise ScenarioError(
            f"{where(source.lines[()])}: got {_kind(source.data)} at the top level; "
            "expected a mapping with name, model, methods and workload"
        )
    return source


def parse_override_value(text: str, where: str) -> Any:
    """Parse the value of one `--set` as YAML; nothing at all is null.

    Raises:
        ScenarioError: `WHERE: ...` for anything that is not one plain YAML value within the limits.
    """
    source = _parse(text, lambda line: where)
    return None if source is None else source.data


def _parse(text: str, where: Where) -> Source | None:
    loader: _BoundedLoader | None = None
    try:
        loader = _BoundedLoader(text, where)
        node = loader.get_node() if loader.check_node() else None
        if node is None:
            return None
        if loader.check_node():
            line = loader.peek_event().start_mark.line + 1
            raise ScenarioError(f"{where(line)}: got a second YAML document; expected one; remove the '---' before it")
    except yaml.MarkedYAMLError as error:
        raise ScenarioError(_syntax_message(error, where)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ScenarioError(
            f"{where(line)}: got the character {text[error.position]!r}; expected printable text; remove it"
        ) from None
    except (ValueError, OverflowError):  # PyYAML lets these through for an escape such as "\UFFFFFFFF"
        line = 1 if loader is None else loader.line + 1
        raise ScenarioError(
            f"{where(line)}: got an escape or directive with an impossible number; expected valid YAML"
        ) from None
    _ExpandedSize(where).measure(node)
    lines: dict[KeyPath, int] = {}
    return Source(_convert(node, (), lines, where), lines)


class _BoundedLoader(yaml.SafeLoader):
    """PyYAML's safe loader, stopping at `MAX_DEPTH` and `MAX_NODES` while it composes."""

    def __init__(self, text: str, where: Where) -> None:
        super().__init__(text)
        self._where = where
        self._depth = 0
        self._num_nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        self._num_nodes += 1
        line = self.peek_event().start_mark.line + 1
        if self._depth > MAX_DEPTH:
            raise ScenarioError(f"{self._where(line)}: nested more than {MAX_DEPTH} levels deep; expected fewer")
        if self._num_nodes > MAX_NODES:
            raise ScenarioError(f"{self._where(line)}: got more than {MAX_NODES:,} keys and values; expected fewer")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _ExpandedSize:
    """Counts nodes and levels as if aliases were copied, each anchor once: a billion laughs costs a few additions.

    Aliases only point backwards, so what one stands for is counted already, or still open: then it contains itself.
    """

    def __init__(self, where: Where) -> None:
        self._where = where
        self._known: dict[int, tuple[int, int] | None] = {}

    def measure(self, node: yaml.Node) -> tuple[int, int]:
        """Return (nodes, levels) of the expanded node."""
        line = node.start_mark.line + 1
        if id(node) in self._known:
            known = self._known[id(node)]
            if known is None:
                raise ScenarioError(f"{self._where(line)}: got an anchor that contains itself; expected a finite value")
            return known
        self._known[id(node)] = None
        num_nodes, levels = 1, 0
        for child in _children(node):
            child_nodes, child_levels = self.measure(child)
            num_nodes += child_nodes
            levels = max(levels, child_levels)
            if num_nodes > MAX_NODES or levels >= MAX_DEPTH:
                raise ScenarioError(
                    f"{self._where(line)}: aliases expand to more than {MAX_NODES:,} values or {MAX_DEPTH} levels; "
                    "expected fewer; write out what is needed"
                )
        self._known[id(node)] = (num_nodes, levels + 1)
        return num_nodes, levels + 1


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _convert(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], where: Where) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode) and node.tag == _CORE + "map":
        return _convert_mapping(node, path, lines, where)
    if isinstance(node, yaml.SequenceNode) and node.tag == _CORE + "seq":
        return [_convert(item, (*path, index), lines, where) for index, item in enumerate(node.value)]
    return _scalar(node, where)


def _convert_mapping(node: yaml.MappingNode, path: KeyPath, lines: dict[KeyPath, int], where: Where) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = _key(key_node, where(line), where)
        if key in result:
            first = lines[(*path, key)]
            raise ScenarioError(
                f"{where(line)}: the key {show(key)} is given twice (first in line {first}); expected once; remove one"
            )
        lines[(*path, key)] = line
        result[key] = _convert(value_node, (*path, key), lines, where)
    return result


def _key(node: yaml.Node, here: str, where: Where) -> str:
    if node.tag == _CORE + "merge":
        raise ScenarioError(f"{here}: got the merge key '<<'; expected plain keys; write the merged keys out")
    if not isinstance(node, yaml.ScalarNode):
        raise ScenarioError(f"{here}: got a mapping or list as a key; expected text")
    key = _scalar(node, where)
    if not isinstance(key, str):
        found = f"{show(node.value)} ({_kind(key)})"
        raise ScenarioError(f"{here}: got the key {found}; expected text; quote it if it is meant")
    return key


def _scalar(node: yaml.Node, where: Where) -> Any:
    here = where(node.start_mark.line + 1)
    text = node.value
    converters: dict[str, Callable[[str, str], Any]] = {"bool": _bool, "int": _int, "float": _float}
    converter = converters.get(node.tag.removeprefix(_CORE))
    if not isinstance(node, yaml.ScalarNode) or not (converter or node.tag in {*_TEXT_TAGS, _CORE + "null"}):
        tag = node.tag.replace(_CORE, "!!")
        raise ScenarioError(f"{here}: got the tag {show(tag)}; expected plain YAML; remove the tag")
    if converter:
        return converter(text, here)
    if node.tag == _CORE + "null":
        return None
    if "\0" in text or any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise ScenarioError(f"{here}: got {show(text)}, with a NUL or half a surrogate pair; expected printable text")
    return text


def _bool(text: str, here: str) -> bool:
    value = yaml.SafeLoader.bool_values.get(text.lower())
    if value is None:
        raise ScenarioError(f"{here}: got {show(text)} as !!bool; expected true or false")
    return bool(value)


def _int(text: str, here: str) -> int:
    if _SURPRISE.fullmatch(text):
        raise ScenarioError(
            f"{here}: got {show(text)}, read in base 8 or 60 by YAML 1.1; expected a decimal; quote it if it is text"
        )
    try:
        value = int(text.replace("_", ""), 0)
    except ValueError:
        value = 2**64
    if abs(value) >= 2**63:
        raise ScenarioError(f"{here}: got {show(text)}; expected an integer of at most 64 bits")
    return value


def _float(text: str, here: str) -> float:
    try:
        value = float(text.replace("_", "").lower())
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ScenarioError(f"{here}: got {show(text)}; expected a finite decimal number, or quotes for text")
    return value


def _kind(value: Any) -> str:
    kinds: dict[type, str] = {dict: "a mapping", list: "a list", str: "text", bool: "a boolean", int: "an integer"}
    return "nothing" if value is None else kinds.get(type(value), "a number")


def _syntax_message(error: yaml.MarkedYAMLError, where: Where) -> str:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    problem = " ".join((error.problem or error.context or "syntax error").split())
    context = f" {' '.join(error.context.split())}" if error.context and error.problem else ""
    advice = "use spaces, not tabs" if "'\\t'" in problem else "check indentation, quotes and brackets"
    return f"{where(line)}: not valid YAML at column {column}{context}: {problem}; {advice}"
