"""Dotted keys of a scenario file: which exist, what each allows, and the value of one at a point.

In: key paths such as ("methods", "threshold", "keep_ratio"). Labels under `methods` are the user's own; `kinds` says of
which method each is.
"""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from modbench.errors import ScenarioError
from modbench.scenario.models import SETTINGS, Point, Scenario
from modbench.scenario.source import KeyPath
from modbench.scenario.wording import shorten, show, suggestion

FREE_FORM = ("options", "env")  # of a method: mappings whose keys are the user's own


def model_at(path: KeyPath, kinds: Mapping[str, str]) -> type[BaseModel] | None:
    """Return the model that describes the mapping at `path`, or None where the file holds something else."""
    model: type[BaseModel] | None = Scenario
    if len(path) >= 2 and path[0] == "methods":
        model, path = SETTINGS.get(kinds.get(str(path[1]), "")), path[2:]
    for part in path:
        field = model.model_fields.get(str(part)) if model else None
        model = _model_in(field.annotation) if field else None
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    candidates = (annotation, *get_args(annotation))
    found = [item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel)]
    return found[0] if len(found) == 1 else None


def unknown_key(parts: Sequence[str], kinds: Mapping[str, str]) -> str | None:
    """Say what is wrong with a dotted key, or return None if it names one value (not a section) of the file."""
    dotted = ".".join(parts)
    start = 2 if parts[0] == "methods" else 0
    if parts[0] == "methods":
        if len(parts) == 1:
            return "methods is a section; name one key in it, such as methods.threshold.threshold_p"
        if parts[1] not in kinds:
            return f"unknown method {show(parts[1])}; {suggestion(parts[1], list(kinds))}"
    for index in range(start, len(parts)):
        model = model_at(tuple(parts[:index]), kinds)
        if model is None:
            return (
                None
                if _is_free_form(parts, index)
                else f"{shorten('.'.join(parts[:index]))} has no keys inside it; name it alone"
            )
        if parts[index] not in model.model_fields:
            return f"unknown key {show(parts[index])}; {suggestion(parts[index], list(model.model_fields))}"
    inside = model_at(tuple(parts), kinds)
    if inside is not None and parts[-1] not in ("geometry", "prompt"):
        return f"{dotted} is a section; name one key in it, such as {dotted}.{next(iter(inside.model_fields))}"
    return None


def _is_free_form(parts: Sequence[str], index: int) -> bool:
    return parts[0] == "methods" and index >= 3 and parts[2] in FREE_FORM


def replaced(data: Mapping[str, Any], parts: Sequence[str], value: Any) -> dict[str, Any]:
    """Return scenario data with `value` at a dotted key, sharing everything else; missing sections are made.

    Raises:
        ScenarioError: without a location: something on the way is not a mapping.
    """
    if len(parts) == 1:
        return {**data, parts[0]: value}
    inner = data.get(parts[0])
    if inner is not None and not isinstance(inner, Mapping):
        raise ScenarioError(f"{parts[0]} is not a mapping; expected a key that exists; name {parts[0]} alone")
    return {**data, parts[0]: replaced(inner or {}, parts[1:], value)}


def value_at(point: Point | Mapping[str, Any], key: str) -> Any:
    """Return the value that a dotted key has at a point, or in nested mappings; None where it is not set."""
    value: Any = point
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
    return value
