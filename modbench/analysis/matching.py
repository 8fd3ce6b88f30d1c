"""Which launches of two sides belong together, and in what their work differs. Pure.

In: the records of both sides. Out: `Match`es, one per method and cell that both sides have, and the groups that only one side has.

Launches of the same work have the same ids. Ids are hashes, so where they differ, a method's label and its cell's axes tell what
was meant to be the same, and the resolved work tells which of its fields is not.
"""

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from modbench.analysis.pairs import Halves, split_quads
from modbench.analysis.summary import flatten
from modbench.record import Record
from modbench.scenario import BASELINE

PLACES = (
    "model.path",
    "settings.checkpoint",
    "workload.prompt.text",
)  # where files were found; what is in them has a hash beside it
NAMES = ("cell_id", "axes")  # of the work, and no part of it


@dataclass(frozen=True)
class CellLaunches:
    """The launches of all methods at one cell on one side, in the order written."""

    records: Sequence[Record]

    @cached_property
    def halves(self) -> Halves:
        """Those that are pairs of each other."""
        return split_quads(self.records)

    @cached_property
    def baseline(self) -> "Launches":
        """The baseline's; there may be none."""
        return Launches(tuple(record for record in self.records if record.method == BASELINE), self)


@dataclass(frozen=True)
class Launches:
    """The launches of one method at one cell on one side, in the order written."""

    records: tuple[Record, ...]
    cell: CellLaunches

    @property
    def first(self) -> Record:
        """Any one: what they share can be read from it."""
        return self.records[0]

    @cached_property
    def ok(self) -> tuple[Record, ...]:
        """Those that gave numbers."""
        return tuple(record for record in self.records if record.status == "ok")

    @cached_property
    def failed(self) -> tuple[Record, ...]:
        """Those that were tried and gave none."""
        return tuple(record for record in self.records if record.status not in ("ok", "pruned"))

    @property
    def axes(self) -> Mapping[str, Any]:
        """What names the cell; without a matrix its context and batch."""
        point = self.first.point
        return point.axes or {f"workload.{name}": point.workload.get(name) for name in ("context", "batch")}

    @property
    def scenario_name(self) -> str:
        """Of the scenario file; empty where the record does not say."""
        return scenario_name(self.first)


@dataclass(frozen=True)
class Match:
    """One method at one cell, on both sides."""

    base: Launches
    candidate: Launches

    @property
    def differing_work(self) -> tuple[str, ...]:
        """The dotted fields in which the work differs, such as `workload.prompt.sha256`; none where it is the same."""
        return differing_work(self.base.first, self.candidate.first)


@dataclass(frozen=True)
class Matching:
    """The matches in the base's order, each cell's baseline first, and what only one side has."""

    matches: tuple[Match, ...]
    only_base: tuple[Launches, ...]
    only_candidate: tuple[Launches, ...]


def match_launches(base: Sequence[Record], candidate: Sequence[Record]) -> Matching:
    """Match by identity; then what is left by axes and label, within scenarios of one name before others."""
    left, right = _groups(base), _groups(candidate)
    found: dict[int, Launches] = {}
    for identity in (_by_identity, _by_scenario, _by_label):
        _match(left, right, found, identity)
    matches = tuple(Match(group, found[id(group)]) for group in left if id(group) in found)
    taken = {id(group) for group in found.values()}
    return Matching(
        matches,
        tuple(group for group in left if id(group) not in found),
        tuple(group for group in right if id(group) not in taken),
    )


def differing_work(base: Record, candidate: Record) -> tuple[str, ...]:
    """The dotted fields of two points that differ; places of files only where nothing else does."""
    if base.point_id == candidate.point_id:
        return ()
    first, second = (flatten(record.point.model_dump(exclude=set(NAMES))) for record in (base, candidate))
    fields = [key for key in {**first, **second} if first.get(key) != second.get(key)]
    fields = [key for key in fields if key not in PLACES] or fields
    return tuple(fields) or ("point_id",)


def scenario_name(record: Record) -> str:
    """The name of the scenario that the record is of; empty where it does not say."""
    scenario = record.environment.get("scenario")
    name = scenario.get("name") if isinstance(scenario, Mapping) else None
    return name if isinstance(name, str) else ""


def _groups(records: Sequence[Record]) -> list[Launches]:
    cells: dict[str, list[Record]] = {}
    for record in records:
        cells.setdefault(record.point.cell_id, []).append(record)
    groups = []
    for members in cells.values():
        cell = CellLaunches(members)
        by_method: dict[tuple[str, str], list[Record]] = {}
        for record in members:
            by_method.setdefault((record.method, record.point_id), []).append(record)
        ordered = sorted(by_method.values(), key=lambda found: found[0].method != BASELINE)  # stable: first seen
        groups += [Launches(tuple(found), cell) for found in ordered]
    return groups


def _match(
    left: Sequence[Launches],
    right: Sequence[Launches],
    found: dict[int, Launches],
    identity: Callable[[Launches], Hashable],
) -> None:
    """Add to `found` what has the same identity and is not matched yet, in order."""
    taken = {id(group) for group in found.values()}
    free: dict[Hashable, list[Launches]] = {}
    for group in right:
        if id(group) not in taken:
            free.setdefault(identity(group), []).append(group)
    for group in left:
        if id(group) not in found and free.get(identity(group)):
            found[id(group)] = free[identity(group)].pop(0)


def _by_identity(group: Launches) -> Hashable:
    return group.first.point.cell_id, group.first.method, group.first.point_id


def _by_scenario(group: Launches) -> Hashable:
    return group.scenario_name, *_by_label(group)


def _by_label(group: Launches) -> tuple[str, str]:
    return group.first.method, json.dumps(group.axes, sort_keys=True, default=str)
