"""The matrix: dotted keys of the file and the values each takes; a cell is one choice of values.

In: `matrix` as written. Out: problems, and the cells in order, the first axis slowest.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from modbench.scenario.keys import unknown_key
from modbench.scenario.problems import Problem
from modbench.scenario.wording import show

MAX_CELLS = 2_000
_WHOLE_SCENARIO = ("name", "question", "quality", "matrix", "expect")
_SAME_WORK = (
    "launches",
    "samples",
    "warmup",
    "timeout_s",
    "device",
    "start",
    "memory_limit",
)  # two such cells would share their identity


def axis_problems(matrix: Mapping[str, Any], kinds: Mapping[str, str]) -> list[Problem]:
    """Say what is wrong with the axes: keys, empty or repeated values, overlap, and too many cells."""
    problems = []
    for key, values in matrix.items():
        path = ("matrix", key)
        reason = _key_problem(key, kinds) or _overlap(key, matrix)
        if reason:
            problems.append(Problem(path, reason))
        elif values == []:
            problems.append(Problem(path, "got an empty list; expected at least one value"))
        elif isinstance(values, list):
            problems += _repeated(key, values)
    total = num_cells({key: values for key, values in matrix.items() if isinstance(values, list)})
    if total > MAX_CELLS:
        problems.append(Problem(("matrix",), f"got {total:,} cells; expected at most {MAX_CELLS:,}; use shorter axes"))
    return problems


def _key_problem(key: str, kinds: Mapping[str, str]) -> str | None:
    parts = key.split(".")
    if parts[0] in _WHOLE_SCENARIO:
        return f"{parts[0]} cannot vary; expected a key under model, methods, workload or measure"
    if parts[0] == "measure" and len(parts) > 1 and parts[1] in _SAME_WORK:
        return f"{key} cannot vary: it changes the measuring, not the work; set it once"
    if parts[0] == "methods" and len(parts) == 3 and parts[2] == "method":
        return "the kind of a method cannot vary; expected one of its settings; write one method per kind"
    return unknown_key(parts, kinds)


def _overlap(key: str, matrix: Mapping[str, Any]) -> str | None:
    outer = next((axis for axis in matrix if key.startswith(f"{axis}.")), None)
    return f"is inside the axis {outer}; expected axes that do not overlap; drop one" if outer else None


def _repeated(key: str, values: list[Any]) -> list[Problem]:
    first: dict[str, int] = {}
    problems = []
    for index, value in enumerate(values):
        text = json.dumps(value, sort_keys=True)
        if text in first:
            reason = f"got {show(value)} again (first at [{first[text]}]); expected different values; remove one"
            problems.append(Problem(("matrix", key, index), reason))
        first.setdefault(text, index)
    return problems


def num_cells(matrix: Mapping[str, list[Any]]) -> int:
    """Return how many cells a matrix has; 1 without axes."""
    return math.prod(len(values) for values in matrix.values())


def cells(matrix: Mapping[str, list[Any]]) -> Iterator[dict[str, int]]:
    """Yield each cell as the index of its value per axis, the first axis slowest; one empty cell without a matrix."""
    for indices in itertools.product(*(range(len(values)) for values in matrix.values())):
        yield dict(zip(matrix, indices, strict=True))
