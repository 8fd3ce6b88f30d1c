"""In what the work of two sides differs: model, methods, workload, device. In: their records. Out: `Difference`s.

Each key has all values that a side measured. A side's places of files are told only where what is in them differs too, and a
geometry only where the models' names do not tell it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from modbench.analysis.comparison import Difference
from modbench.analysis.summary import flatten
from modbench.record import Record

CONTENT_HASHES = {"model.path": "model.folder_sha256", "workload.prompt.text": "workload.prompt.sha256"}
NAMES, GEOMETRY = ("model.preset", "model.path"), "geometry."
METHODS = "methods"  # the key of the labels; with a dot it begins the settings of one


def work_differences(base: Sequence[Record], candidate: Sequence[Record]) -> tuple[Difference, ...]:
    """Fields of the resolved work that have other values on the other side, in the order of the work."""
    sides = [_work(base), _work(candidate)]
    methods = [set(side[METHODS]) for side in sides]
    for side in sides:
        _leave_out_methods_of_one_side(side, methods[0] & methods[1])
    keys = [key for key in {**sides[0], **sides[1]} if _distinct(sides[0], key) != _distinct(sides[1], key)]
    has_names = any(name in keys for name in NAMES) and all(any(name in side for name in NAMES) for side in sides)
    keys = [key for key in keys if _content_hash(key) in keys and not (has_names and key.startswith(GEOMETRY))]
    return tuple(Difference(key, *(_told(side.get(key)) for side in sides)) for key in keys)


def _content_hash(key: str) -> str:
    """The key whose value tells whether what is at the place of another one differs; of all else the key itself."""
    is_checkpoint = key.startswith(f"{METHODS}.") and key.endswith(".checkpoint")
    return f"{key}_sha256" if is_checkpoint else CONTENT_HASHES.get(key, key)


def _work(records: Sequence[Record]) -> dict[str, list[Any]]:
    """Dotted key -> its values in first-seen order; a searched size counts as the search that it belongs to."""
    work: dict[str, list[Any]] = {METHODS: list(dict.fromkeys(record.method for record in records))}
    one_of_each = {(record.method, record.point_id, record.trial): record for record in records}
    for record in one_of_each.values():
        facts = record.point.model_dump(exclude={"cell_id", "axes", "settings"})
        facts = flatten({**facts, METHODS: {record.method: record.point.settings}})
        if record.trial is not None:
            facts[record.trial.axis] = f"searched up to {record.trial.bound}"
        for key, value in facts.items():
            if value is not None and value not in work.setdefault(key, []):
                work[key].append(value)
    return work


def _leave_out_methods_of_one_side(side: dict[str, list[Any]], shared: set[str]) -> None:
    """Drop the settings of methods that the other side does not have: that they are missing is told by the labels."""
    for method in side[METHODS]:
        if method not in shared:
            for key in [key for key in side if key.startswith(f"{METHODS}.{method}.")]:
                del side[key]


def _distinct(side: Mapping[str, list[Any]], key: str) -> set[str]:
    return {json.dumps(value, sort_keys=True, default=str) for value in side.get(key, [])}


def _told(values: list[Any] | None) -> Any:
    """A single value as itself, several as a list, None where the side has none."""
    return None if not values else values[0] if len(values) == 1 else values
