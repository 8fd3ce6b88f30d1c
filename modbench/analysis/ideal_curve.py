"""The ideal speed-up over the keep ratio: what a perfect implementation of a method would reach here if it kept more or less. Pure.

In: a cell, one of its rows and the environment of the records. Out: an `IdealCurve`, from the same prediction as the ideals of the
rows (`prediction.py`), every routed layer keeping the same share.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from modbench.analysis.prediction import (
    BYTES_PER_ELEMENT,
    EVERY_SAVING,
    SAVES,
    Ceilings,
    Keeping,
    Work,
    ceilings_from,
    ideal_speedup,
    shares_from,
)
from modbench.analysis.rows import CellSummary, MethodRow
from modbench.geometry import Geometry

GRID: tuple[float, ...] = (0.0, 0.01, 0.02, 0.05, *(step / 10 for step in range(1, 11)))


@dataclass(frozen=True)
class IdealCurve:
    """Ideal speed-ups of both phases at the keep ratios of `GRID`, for routed layers that all keep the same share."""

    keep_ratios: tuple[float, ...]
    prefill: tuple[float, ...]
    decode: tuple[float, ...]


def ideal_curve(cell: CellSummary, row: MethodRow, environment: Mapping[str, Any]) -> IdealCurve | None:
    """The curve of the row's kind of method; None where routed layers, ceilings or sizes are unknown, or nothing is saved."""
    ceilings, work, layers = ceilings_from(environment), work_of(cell), _routed_layers(row)
    saves = SAVES.get(row.kind, EVERY_SAVING)
    if ceilings is None or work is None or not layers or max(layers) >= work.geometry.num_hidden_layers or not saves:
        return None
    points = [ideal_at(work, layers, ratio, row.kind, ceilings) for ratio in GRID]
    return IdealCurve(GRID, tuple(prefill for prefill, _ in points), tuple(decode for _, decode in points))


def ideal_at(
    work: Work, layers: frozenset[int], keep_ratio: float, kind: str, ceilings: Ceilings
) -> tuple[float, float]:
    """Ideal speed-up of prefill and decode where each routed layer keeps `keep_ratio` of its tokens."""
    num_layers = work.geometry.num_hidden_layers
    ratios = [keep_ratio if layer in layers else 1.0 for layer in range(num_layers)]
    kept = shares_from(ratios, ratios, (), num_layers, work.batch)
    assert kept is not None, "there is a ratio for every layer"
    ideal = ideal_speedup(work, Keeping.of(kept, SAVES.get(kind, EVERY_SAVING)), ceilings)
    return ideal.prefill, ideal.decode


def _routed_layers(row: MethodRow) -> frozenset[int]:
    found = row.settings.get("routed_layers")
    return (
        frozenset(layer for layer in found if isinstance(layer, int))
        if isinstance(found, list | tuple)
        else frozenset()
    )


def work_of(cell: CellSummary) -> Work | None:
    """The shape of the cell's launches; None where the prediction does not know it."""
    sizes = [cell.workload.get(name) for name in ("context", "batch", "new_tokens")]
    context, batch, new_tokens = sizes
    element = BYTES_PER_ELEMENT.get(cell.dtype)
    if element is None or not isinstance(context, int) or not isinstance(batch, int) or not isinstance(new_tokens, int):
        return None
    try:
        geometry = Geometry.model_validate(cell.model.get("geometry"))
    except ValidationError:
        return None
    return Work(geometry, context, batch, new_tokens, element)
