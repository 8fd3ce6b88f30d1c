"""Everything wrong with a scenario, collected and turned into lines: where, found, allowed, what to do.

In: problems at key paths, pydantic's among them. Out: one `ScenarioError` with one line per problem, in file order.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from modbench.errors import ScenarioError
from modbench.scenario.keys import model_at
from modbench.scenario.models import Scenario
from modbench.scenario.source import KeyPath
from modbench.scenario.wording import near_match, shorten, show, suggestion

MAX_PROBLEMS = 20
_LOOKS_NUMERIC = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True)
class Problem:
    """Something wrong at a key path of the scenario."""

    path: KeyPath
    text: str


@dataclass
class ProblemList:
    """Collects problems and knows where every value came from: a line of the file, the matrix, or a `--set`.

    `overrides` maps the paths that a `--set` replaced to its text, `KEY=VALUE`.
    """

    file: str
    lines: Mapping[KeyPath, int]
    overrides: dict[KeyPath, str] = field(default_factory=dict)
    _found: dict[tuple[int, str], list[str]] = field(default_factory=dict)

    def add(self, problems: Iterable[Problem], moved: Mapping[KeyPath, KeyPath] | None = None, cell: str = "") -> None:
        """Add problems; those under a path in `moved` are reported at the matrix value that was put there.

        Equal problems are kept once. `cell` names the matrix cell for problems that no axis value alone causes.
        """
        for problem in problems:
            path = problem.path
            origin = _longest_prefix(path, moved or {})
            if origin is not None and moved:
                path = (*moved[origin], *path[len(origin) :])
            line, where = self._locate(path)
            cells = self._found.setdefault((line, f"{where}: {problem.text}"), [])
            if origin is None and cell:
                cells.append(cell)

    def _locate(self, path: KeyPath) -> tuple[int, str]:
        override = _longest_prefix(path, self.overrides)
        if override is not None:
            inside = format_path(path[len(override) :])
            return 0, f"--set {shorten(self.overrides[override])}" + (f": {inside}" if inside else "")
        known = _longest_prefix(path, self.lines) or ()
        line = self.lines.get(known, 1)
        return line, f"{self.file}:{line}" + (f": {format_path(path)}" if path else "")

    def raise_if_any(self, num_cells: int = 1) -> None:
        """Raise one `ScenarioError` with at most `MAX_PROBLEMS` lines, or return if nothing was found.

        A problem of some of the `num_cells` cells, and not of all, says which is the first.
        """
        if not self._found:
            return
        rows = sorted(self._found.items(), key=lambda item: item[0][0])
        shown = [
            f"{text} (cell {cells[0]})" if 0 < len(cells) < num_cells else text
            for (_, text), cells in rows[:MAX_PROBLEMS]
        ]
        if len(rows) > MAX_PROBLEMS:
            shown.append(f"{self.file}: {len(rows) - MAX_PROBLEMS} more problems; mend these first")
        raise ScenarioError("\n".join(shown))


def _longest_prefix(path: KeyPath, known: Mapping[KeyPath, Any]) -> KeyPath | None:
    prefixes = (path[:length] for length in range(len(path), -1, -1))
    return next((prefix for prefix in prefixes if prefix in known), None)


def format_path(path: KeyPath) -> str:
    """Write a key path as users do: `matrix.workload.batch[2]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f"{'.' if text else ''}{shorten(part)}"
    return text


def pydantic_problems(error: ValidationError, kinds: Mapping[str, str]) -> list[Problem]:
    """Turn pydantic's findings on scenario data into problems at the paths of the file."""
    problems = []
    for finding in error.errors(include_url=False):
        path: KeyPath = finding["loc"]
        if path[:1] == ("methods",) and len(path) > 2:
            path = (*path[:2], *path[3:])  # the third element is the union's tag, not a key
        kind, found = finding["type"], finding["input"]
        reason = finding.get("ctx", {}).get("error")
        problems.append(Problem(path, _problem_text(path, kind, found, reason, kinds)))
    return problems


def _problem_text(path: KeyPath, kind: str, found: Any, reason: object, kinds: Mapping[str, str]) -> str:
    if kind == "extra_forbidden":
        model = model_at(path[:-1], kinds)
        return f"unknown key; {suggestion(str(path[-1]), list(model.model_fields) if model else [])}"
    if kind == "value_error":
        is_whole_sentence = model_at(path, kinds) is not None
        return str(reason) if is_whole_sentence else f"got {show(found)}; {reason}"
    schema = _schema_at(path, kinds)
    if kind == "missing":
        return f"missing; expected {describe(schema)}"
    return f"got {show(found)}; expected {describe(schema)}{_hint(found, schema)}"


def _schema_at(path: KeyPath, kinds: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON Schema of the value at a path, references followed."""
    length = next(size for size in range(len(path), -1, -1) if model_at(path[:size], kinds) is not None)
    model = model_at(path[:length], kinds) or Scenario
    root = model.model_json_schema()
    schema = root
    for part in path[length:]:
        lists = (option["items"] for option in (schema, *schema.get("anyOf", [])) if "items" in option)
        inner = next(lists, {}) if isinstance(part, int) else schema.get("additionalProperties", {})
        inner = schema.get("properties", {}).get(part, inner)
        schema = inner if isinstance(inner, dict) else {}
    return _resolve(schema, root.get("$defs", {}))


def _resolve(schema: dict[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return _resolve(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
    if "anyOf" in schema:
        return {**schema, "anyOf": [_resolve(option, definitions) for option in schema["anyOf"]]}
    return schema


def describe(schema: Mapping[str, Any]) -> str:
    """Say in words what a JSON Schema allows: `an integer >= 1`, `one of a, b`."""
    if "enum" in schema:
        return f"one of {', '.join(str(value) for value in schema['enum'])}"
    if "const" in schema:
        return str(schema["const"])
    if "anyOf" in schema:
        return " or ".join(describe(option) for option in schema["anyOf"] if option.get("type") != "null")
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return _describe_number(schema)
    if kind == "string":
        if "pattern" in schema:
            return schema.get("description") or f"text matching {schema['pattern']}"
        return f"text of at most {schema['maxLength']} characters" if "maxLength" in schema else "text"
    if kind == "array":
        return "a list"
    if kind == "object":
        keys = ", ".join(schema.get("properties", {}))
        return f"a mapping with keys among {keys}" if keys else "a mapping"
    return "true or false" if kind == "boolean" else "a valid value"


def _describe_number(schema: Mapping[str, Any]) -> str:
    is_integer = schema["type"] == "integer"
    bounds = []
    for name, sign in (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<")):
        if name in schema:
            bound = schema[name]
            if is_integer and name == "exclusiveMinimum":
                sign, bound = ">=", bound + 1
            bounds.append(f"{sign} {bound:g}" if abs(bound) < 1e6 else f"{sign} {bound}")
    return f"{'an integer' if is_integer else 'a number'} {' and '.join(bounds)}".rstrip()


def _hint(found: Any, schema: Mapping[str, Any]) -> str:
    """What to do, where YAML's own rules or a misspelling explain the value."""
    options = [schema, *schema.get("anyOf", [])]
    types = {option.get("type") for option in options}
    enum = [str(value) for option in options for value in option.get("enum", [])]
    if isinstance(found, str) and types & {"integer", "number"} and _LOOKS_NUMERIC.fullmatch(found.strip()):
        return "; YAML reads this as text: write digits without quotes or exponent (10000, not 1e4)"
    if isinstance(found, str) and enum:
        near = near_match(found, enum)
        return f"; did you mean {near}?" if near else ""
    if isinstance(found, bool):
        return "; YAML reads yes, no, on and off as true or false: quote the word"
    return ""
