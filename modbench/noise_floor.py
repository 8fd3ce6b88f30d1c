"""This machine's noise floor, as `modbench calibrate` measured it: kept per machine, device kind, threads and work.

In: a machine's fingerprint and the cells that are to be compared. Out: the floor per latency metric, or None.
"""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modbench import machine_cache

KIND = "noise_floor"
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]
GENERAL = "general"  # stands in the place of cells for the calibration that came with no scenario


class NoiseFloor(BaseModel):
    """What one calibration found: shares by latency metric, the largest over its cells and methods.

    `smallest_detectable` is None for a metric where not even the largest change tried was found.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    fingerprint: str
    device_kind: str
    threads: int
    scenario: str
    cells: list[str] = Field(description="cell ids, or `general`")
    num_pairs: int
    measured_at: str = Field(description="UTC, ISO 8601")
    floors: dict[str, Share] = Field(min_length=1)
    smallest_detectable: dict[str, Share | None]


def keep(floor: NoiseFloor) -> None:
    """Store it in the place of an earlier one of the same work on the same machine."""
    machine_cache.store(KIND, _key(floor), floor.model_dump(mode="json"))


def known_floor(fingerprint: str, device_kind: str, threads: int, cell_ids: Iterable[str]) -> NoiseFloor | None:
    """The newest calibration of this machine at all of these cells, else its newest general one."""
    wanted = set(cell_ids)
    own = [
        floor
        for value in machine_cache.stored(KIND)
        if (floor := _read(value)) is not None
        and (floor.fingerprint, floor.device_kind, floor.threads) == (fingerprint, device_kind, threads)
    ]
    exact = [floor for floor in own if wanted and wanted <= set(floor.cells)]
    return next(iter(exact), next((floor for floor in own if GENERAL in floor.cells), None))


def _key(floor: NoiseFloor) -> dict[str, Any]:
    return floor.model_dump(mode="json", include={"fingerprint", "device_kind", "threads", "cells"})


def _read(value: Any) -> NoiseFloor | None:
    try:
        return NoiseFloor.model_validate(value)
    except ValidationError:
        return None
