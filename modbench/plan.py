"""Scenario -> ordered run specs: identities of the work, mirrored order, seeds. Pure: no device, file or clock.

In: a loaded scenario and a run id. Out: `RunSpec`s, one per launch, grouped in quads whose order cancels a linear drift.
"""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict

from modbench.presets import Geometry
from modbench.scenario import BASELINE, Point

LOOKS = (8, 12, 20)  # pairs at which `launches: auto` looks at the data (docs/measuring.md)


class Pair(BaseModel):
    """Where in the interleaving a launch stands: `quad` counts from 0 per cell, `position` within the quad."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quad: int
    position: int


class PointWork(BaseModel):
    """The resolved fields of one method at one cell: what `point_id` hashes, and what every record carries.

    `cell_id` names the cell of the matrix without the method: the launches of one cell are paired with each other.
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


def content_hash(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
