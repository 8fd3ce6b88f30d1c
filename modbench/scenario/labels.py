"""Methods as users write them -> settings with their kind spelled out.

`threshold: {...}` is the method threshold; a name of one's own says which: `threshold_p055: {method: threshold, ...}`. A key that
is a kind's name says it as well: `mine: {command: [...]}`, `mine: {entry: ...}`. The baseline may be code of the user's own.
"""

import re
from collections.abc import Mapping
from typing import Any

from modbench.scenario.models import BASELINE, SETTINGS, runs_foreign_code
from modbench.scenario.problems import Problem
from modbench.scenario.wording import near_match, show, suggestion

KINDS_BY_KEY = tuple(kind for kind, model in SETTINGS.items() if kind in model.model_fields)
LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")  # no dot: expectations say METHOD.METRIC


def name_kinds(methods: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], list[Problem]]:
    """Give every method its `method:` key.

    Returns:
        The settings of the methods that have a known kind, their kinds by label, and what is wrong with the others.
    """
    settings: dict[str, Any] = {}
    kinds: dict[str, str] = {}
    problems: list[Problem] = []
    for label, raw in methods.items():
        given = {} if raw is None else raw
        problem = _problem(label, given)
        if problem:
            problems.append(problem)
            continue
        kinds[label] = _kind(label, given)
        settings[label] = {**given, "method": kinds[label]}
    if BASELINE not in methods:
        problems.append(
            Problem(("methods",), f"no method {BASELINE!r}; expected `{BASELINE}: {{}}`: every ratio is against it")
        )
    return settings, kinds, problems


def _kind(label: str, given: Mapping[str, Any]) -> Any:
    """The kind that is written out, else that of the name, else the one that a key is named after."""
    if "method" in given or (label in SETTINGS and label != BASELINE):
        return given.get("method", label)
    return next((kind for kind in KINDS_BY_KEY if kind in given), label)


def _problem(label: str, given: Any) -> Problem | None:
    path = ("methods", label)
    if not LABEL.fullmatch(label):
        return Problem(
            path, f"got the name {show(label)}; expected a letter, then up to 63 letters, digits, '_' or '-'"
        )
    if not isinstance(given, Mapping):
        return Problem(path, f"got {show(given)}; expected a mapping of settings, or nothing for the defaults")
    known = ", ".join(SETTINGS)
    kind = _kind(label, given)
    if "method" not in given:
        if kind in SETTINGS:
            return None
        near = near_match(label, SETTINGS)
        advice = f"did you mean {near}?" if near else "a name of your own needs method: KIND inside"
        return Problem(path, f"got the unknown method {show(label)}; expected one of {known}; {advice}")
    if not isinstance(kind, str) or kind not in SETTINGS:
        advice = suggestion(kind, list(SETTINGS)) if isinstance(kind, str) else f"expected one of {known}"
        return Problem((*path, "method"), f"got {show(kind)}; {advice}")
    is_own_baseline = label == BASELINE and runs_foreign_code(kind)
    if label in SETTINGS and kind != label and not is_own_baseline:
        return Problem(
            (*path, "method"), f"got {kind!r} under the name {label!r}; expected {label}; give it a name of its own"
        )
    return None
