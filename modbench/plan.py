"""Scenario -> ordered run specs: identities of the work, mirrored order, looks, pruning. Pure: no device, no clock.

In: a loaded scenario, a run id and a device kind. Out: a `Plan`, whose `quads` are `RunSpec`s, one per launch.

**Order.** A quad runs the methods in scenario order, the dense baseline first, then mirrored: A B B A, with more
methods A B C D D C B A. Position i and its mirror image are equally far from the middle, so each method's two pairs
with dense see a linear drift (a warming machine) with opposite signs, and it cancels in their mean, at about half the
launches that separate quads per method would take. What a neighbour leaves behind (caches, heat) does not cancel: in
odd quads the methods after dense are rotated by one, so that no method always stands next to dense.

**Identity.** `point_id` hashes what changes the work of one method: model, geometry, the method's own settings with its
routed layers as indices, workload with the prompt's content, device kind, attention and threads. Names, comments,
expectations and how often or how long is measured are not in it. `cell_id` names the cell that launches are paired in:
the same without the method's settings, with the cell's axes under `methods.`.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from modbench.errors import ScenarioError
from modbench.presets import Geometry
from modbench.scenario import BASELINE, LoadedScenario, Point, resolve_routed_layers, value_at

LOOKS = (8, 12, 20)  # pairs at which `launches: auto` looks at the data (docs/measuring.md)
PAIRS_PER_QUAD = 2
SIZE_AXES = ("workload.context", "workload.batch")  # a point that is larger in these needs more memory


class Pair(BaseModel):
    """Where in the interleaving a launch stands: `quad` counts from 0 per cell, `position` within the quad."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quad: int
    position: int


class PointWork(BaseModel):
    """The resolved work of one method at one cell, as the worker needs it and every record carries it.

    `cell_id` names the cell of the matrix without the method: the launches of one cell are paired with each other.
    File paths in `model`, `settings` and `workload` open from the folder that modbench was started in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cell_id: str
    axes: dict[str, Any]
    model: dict[str, Any]
    geometry: Geometry
    settings: dict[str, Any]
    workload: dict[str, Any]
    dtype: str
    device_kind: str
    attention: str
    threads: int


class RunSpec(BaseModel):
    """One launch of one method at one point, as the worker reads it (JSON)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    launch_id: str
    run_id: str
    point_id: str
    method: str
    kind: str
    point: PointWork
    measure: dict[str, Any]
    pair: Pair

    @property
    def num_tokens(self) -> int:
        """Tokens of one sample: enough to guess how much longer a larger point takes."""
        workload = self.point.workload
        return workload["batch"] * (workload["context"] + workload["new_tokens"])


@dataclass(frozen=True)
class PlannedMethod:
    """One method at one cell: its label, its kind, and its work with the identity of that work."""

    method: str
    kind: str
    point_id: str
    work: PointWork


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix; `methods` are in scenario order with dense first."""

    cell_id: str
    axes: dict[str, Any]
    methods: tuple[PlannedMethod, ...]
    measure: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """Every launch of a run, made on demand: `launches` is the number per method, or "auto"."""

    run_id: str
    cells: tuple[Cell, ...]
    launches: int | str

    @property
    def looks(self) -> tuple[int, ...]:
        """Quads per cell after which to stop or go on, in total: (4, 6, 10) for auto, one look for a fixed number."""
        if isinstance(self.launches, int):
            return (-(-self.launches // PAIRS_PER_QUAD),)
        return tuple(pairs // PAIRS_PER_QUAD for pairs in LOOKS)

    @property
    def work_id(self) -> str:
        """Identity of everything a run's records are of: resuming with another one would mix two runs."""
        cells = [
            [cell.cell_id, [[planned.method, planned.point_id] for planned in cell.methods]] for cell in self.cells
        ]
        return content_hash([cells, [[cell.measure["samples"], cell.measure["warmup"]] for cell in self.cells]])

    def quads(self, cell_index: int, first_quad: int, num_quads: int) -> list[RunSpec]:
        """Return the launches of some quads of a cell in the order to run them.

        Quads past the last look do not exist. With an odd number of launches the last quad is only its first half.
        """
        cell = self.cells[cell_index]
        specs = []
        for quad in range(first_quad, min(first_quad + num_quads, self.looks[-1])):
            order = _first_half(cell.methods, quad)
            is_half = isinstance(self.launches, int) and PAIRS_PER_QUAD * (quad + 1) > self.launches
            for position, planned in enumerate(order if is_half else order + order[::-1]):
                specs.append(self.spec(cell, planned, Pair(quad=quad, position=position)))
        return specs

    def spec(self, cell: Cell, planned: PlannedMethod, pair: Pair) -> RunSpec:
        """One launch of a method of the cell."""
        # The cell is in the id because cells that differ in one method's settings share every other method's point.
        name = f"{self.run_id}-{cell.cell_id}-{planned.point_id}-{planned.method}"
        return RunSpec(
            launch_id=f"{name}-q{pair.quad}p{pair.position}",
            run_id=self.run_id,
            point_id=planned.point_id,
            method=planned.method,
            kind=planned.kind,
            point=planned.work,
            measure=cell.measure,
            pair=pair,
        )

    def larger_cells(self, cell_index: int) -> list[int]:
        """Return the cells of the same series that need more memory: no size axis smaller, at least one larger."""
        axes = self.cells[cell_index].axes
        size = _size(axes)
        return [
            index
            for index, cell in enumerate(self.cells)
            if _series(cell.axes) == _series(axes)
            and _size(cell.axes) != size
            and all(other >= own for other, own in zip(_size(cell.axes), size, strict=True))
        ]


def build_plan(loaded: LoadedScenario, run_id: str, device_kind: str) -> Plan:
    """Plan every cell of a scenario for one kind of device, "cpu" or "cuda".

    Raises:
        ScenarioError: two cells of the matrix are the same work, so their launches could not be told apart.
    """
    assert device_kind in ("cpu", "cuda"), f"device kind is cpu or cuda, got {device_kind!r}"
    cells = tuple(plan_cell(point, loaded.path.parent, device_kind) for point in loaded.points)
    first: dict[str, int] = {}
    for index, cell in enumerate(cells):
        if cell.cell_id in first:
            raise ScenarioError(
                f"{loaded.path}: matrix: cells {first[cell.cell_id]} and {index} are the same work "
                f"({cells[first[cell.cell_id]].axes} and {cell.axes}); expected different work; drop one value"
            )
        first[cell.cell_id] = index
    return Plan(run_id, cells, loaded.scenario.measure.launches)


def content_hash(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _first_half(methods: tuple[PlannedMethod, ...], quad: int) -> tuple[PlannedMethod, ...]:
    dense, others = methods[:1], methods[1:]
    return dense + (others[1:] + others[:1] if quad % 2 else others)


def plan_cell(point: Point, base: Path, device_kind: str) -> Cell:
    """One cell with the identities of its work; `base` is the scenario file's folder."""
    shared = _shared_identity(point, device_kind)
    settings = {label: _resolved_settings(point, label) for label in point.methods}
    method_axes = {key: _axis_value(key, point, settings) for key in point.axes if key.startswith("methods.")}
    cell_id = content_hash({**shared, "axes": method_axes})
    labels = [BASELINE, *(label for label in point.methods if label != BASELINE)]
    methods = tuple(
        PlannedMethod(
            method=label,
            kind=point.methods[label].method,
            point_id=content_hash({**shared, "settings": settings[label]}),
            work=_work(point, cell_id, settings[label], base, device_kind),
        )
        for label in labels
    )
    return Cell(cell_id, point.axes, methods, point.measure.model_dump(mode="json"))


def _shared_identity(point: Point, device_kind: str) -> dict[str, Any]:
    """What every method of the cell shares and what changes the work: files by content, not by place."""
    prompt = {"sha256": point.prompt_sha256} if point.prompt_sha256 else {"synthetic": True}
    return {
        "model": {
            "preset": point.model.preset,
            "path": point.model.path,
            "folder_sha256": point.folder_sha256,
            "weights": _weights(point),
        },
        "geometry": point.geometry.model_dump(mode="json"),
        "workload": {**point.workload.model_dump(mode="json"), "prompt": prompt},
        "dtype": point.model.dtype,
        "device_kind": device_kind,
        "attention": point.measure.attention,
        "threads": point.measure.threads,
    }


def _weights(point: Point) -> str:
    return "random" if point.model.has_random_weights else "checkpoint"


def _resolved_settings(point: Point, label: str) -> dict[str, Any]:
    """The settings in force with layers as indices; a checkpoint says them so already."""
    settings = point.settings_in_force(label)
    routed_layers = getattr(point.methods[label], "routed_layers", None)
    if routed_layers is not None and label not in point.checkpoints:
        settings["routed_layers"] = list(resolve_routed_layers(routed_layers, point.geometry.num_hidden_layers))
    return settings


def _axis_value(key: str, point: Point, settings: dict[str, dict[str, Any]]) -> Any:
    _, label, name, *inside = key.split(".")
    return value_at(point, key) if inside else settings[label].get(name)


def _work(point: Point, cell_id: str, settings: dict[str, Any], base: Path, device_kind: str) -> PointWork:
    model = point.model.model_dump(mode="json", exclude={"geometry", "dtype"})
    model |= {"weights": _weights(point), "folder_sha256": point.folder_sha256}
    workload = point.workload.model_dump(mode="json")
    if settings.get("checkpoint") is not None:
        settings = {**settings, "checkpoint": str(base / settings["checkpoint"])}
    if point.model.path is not None:
        model["path"] = str(base / point.model.path)
    if point.workload.prompt.text is not None:
        workload["prompt"] = {"text": str(base / point.workload.prompt.text), "sha256": point.prompt_sha256}
    return PointWork(
        cell_id=cell_id,
        axes=point.axes,
        model=model,
        geometry=point.geometry,
        settings=settings,
        workload=workload,
        dtype=point.model.dtype,
        device_kind=device_kind,
        attention=point.measure.attention,
        threads=point.measure.threads,
    )


def _size(axes: dict[str, Any]) -> tuple[int, ...]:
    return tuple(axes.get(key, 0) for key in SIZE_AXES)


def _series(axes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in axes.items() if key not in SIZE_AXES}
