"""`--set KEY=VALUE`: changes to a scenario's data before it is validated.

In: plain data and override texts. Out: changed data, with each override recorded as the origin of what it replaced.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from modbench.errors import ScenarioError
from modbench.scenario.keys import replaced
from modbench.scenario.problems import ProblemList
from modbench.scenario.source import KeyPath, parse_override_value
from modbench.scenario.wording import shorten

EXAMPLE = "--set workload.batch=8"


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str], problems: ProblemList) -> dict[str, Any]:
    """Apply overrides in order; the last one for a key wins.

    A list given for an axis of the matrix replaces the axis; anything else removes the axis and sets the key.

    Raises:
        ScenarioError: `--set TEXT: ...`: no KEY=VALUE, a value that is not YAML, or a key inside something else.
    """
    result = dict(data)
    for text in overrides:
        where = f"--set {shorten(text)}"
        key, parts = _split_key(text, where)
        value = parse_override_value(text.partition("=")[2], where)
        matrix = result.get("matrix")
        axes = matrix if isinstance(matrix, Mapping) else {}
        _refuse_overlap(key, axes, where)
        path: KeyPath = tuple(parts)
        if key in axes and isinstance(value, list):
            path = ("matrix", key)
            result = {**result, "matrix": {**axes, key: value}}
        else:
            if key in axes:
                result["matrix"] = {axis: values for axis, values in axes.items() if axis != key}
            result = _replace(result, parts, value, where)
        for older in [known for known in problems.overrides if known[: len(path)] == path]:
            del problems.overrides[older]
        problems.overrides[path] = text
    return result


def _split_key(text: str, where: str) -> tuple[str, list[str]]:
    key, equals, _ = text.partition("=")
    parts = key.strip().split(".")
    if not equals:
        raise ScenarioError(f"{where}: got no '='; expected KEY=VALUE, such as {EXAMPLE}")
    if not all(parts):
        raise ScenarioError(f"{where}: got the key {shorten(key)!r}; expected a dotted key, such as {EXAMPLE}")
    return key.strip(), parts


def _refuse_overlap(key: str, axes: Mapping[str, Any], where: str) -> None:
    if key.startswith("matrix."):
        raise ScenarioError(
            f"{where}: got a key inside the matrix; expected the axis itself, such as --set workload.batch=[1,8]"
        )
    for axis in axes:
        if axis.startswith(f"{key}.") or key.startswith(f"{axis}."):
            raise ScenarioError(f"{where}: the matrix varies {axis}; expected that key; set {axis} instead of {key}")


def _replace(data: dict[str, Any], parts: list[str], value: Any, where: str) -> dict[str, Any]:
    try:
        return replaced(data, parts, value)
    except ScenarioError as error:
        raise ScenarioError(f"{where}: {error}") from None
