"""Prefill of the threshold model against stock dense, on even and on very uneven rows. Targets: docs/performance.md.

Run with: .venv/bin/python -m pytest benchmarks/test_reference_speed.py
About eight minutes on one core of an otherwise idle machine. Scenarios calibrate one share over all rows; here keep masks
are replayed, so each row has the share that the case gives it, at every routed layer, with other tokens at each layer.
Measured in mirrored order (dense, packed, packed, dense) in one process, on the same weight tensors; per side the 25th
percentile of the samples. The ideal is the ratio of the FLOPs of modbench's prediction, summed over rows: attention goes
with the square of a row's kept tokens. Nothing is asserted: the table says what is met, and a noisy machine is no failure.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from paired_models import PairedModels, keep_masks

from modbench.analysis.prediction import Ceilings, Keeping, Shares, Work, predict
from modbench.analysis.statistics import launch_value
from modbench.presets import PRESETS

ROUNDS = 3  # of two samples per side
TARGET_SHARE_OF_IDEAL = 0.97
TARGET_SPEEDUP_ALL_KEPT = 0.98
UNEVEN_SHARES = {
    "4 rows, mean 1/9": (0.0, 0.02, 0.1, 0.3244),
    "4 rows, mean 1/2": (0.0, 0.02, 0.98, 1.0),
    "8 rows, mean 1/9": (0.0, 0.0, 0.0, 0.005, 0.01, 0.02, 0.1, 0.7539),
    "8 rows, mean 1/2": (0.0, 0.01, 0.02, 0.3, 0.67, 1.0, 1.0, 1.0),
}
TITLE = (
    f"Prefill (targets: share of ideal at least {TARGET_SHARE_OF_IDEAL}; "
    f"with all kept, speed-up at least {TARGET_SPEEDUP_ALL_KEPT})"
)
HEADER = ("rows", "context", "dense s", "packed s", "speed-up", "ideal", "share", "share by round", "target")
NO_CEILINGS = Ceilings(1.0, 1.0)  # only FLOPs are read


@dataclass(frozen=True)
class Case:
    name: str
    shares: tuple[float, ...]
    is_contiguous: bool = False

    @property
    def context(self) -> int:
        return 1024 if len(self.shares) <= 4 else 512

    @property
    def keeps_all(self) -> bool:
        return set(self.shares) == {1.0}


EVEN = [
    Case(f"{batch} x {name}", (ratio,) * batch)
    for batch in (1, 2, 4, 8)
    for name, ratio in (("1/9", 1 / 9), ("1/2", 1 / 2), ("1", 1.0))
]
UNEVEN = [
    Case(f"{name}, {'contiguous' if is_contiguous else 'scattered'}", shares, is_contiguous)
    for name, shares in UNEVEN_SHARES.items()
    for is_contiguous in (False, True)
]


@pytest.fixture(scope="module")
def models() -> PairedModels:
    return PairedModels.build(PRESETS["bench-8x512"])


def prefill_flops(models: PairedModels, case: Case, is_dense: bool) -> float:
    num_layers = models.geometry.num_hidden_layers
    work = Work(models.geometry, case.context, batch=1, new_tokens=2, bytes_per_element=4)
    total = 0.0
    for share in case.shares:
        routed = 1.0 if is_dense else round(share * case.context) / case.context
        per_layer = tuple(routed if layer in models.packed.routed_layers else 1.0 for layer in range(num_layers))
        total += predict(work, Keeping.of(Shares(per_layer, per_layer, per_layer)), NO_CEILINGS).prefill.flops
    return total


def seconds(run: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - start


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", [*EVEN, *UNEVEN], ids=lambda case: case.name.replace(" ", "-"))
def test_prefill(benchmark, models, case, add_row):
    ids = models.prompt(len(case.shares), case.context)
    masks = keep_masks(case.shares, case.context, models.packed.routed_layers, case.is_contiguous)
    dense: list[float] = []
    packed: list[float] = []

    def mirrored() -> None:
        dense.append(seconds(models.prefill_dense, ids))
        packed.append(seconds(models.prefill_packed, ids, masks))
        packed.append(seconds(models.prefill_packed, ids, masks))
        dense.append(seconds(models.prefill_dense, ids))

    models.prefill_packed(ids, masks)  # warm-up
    models.prefill_dense(ids)
    benchmark.pedantic(mirrored, rounds=ROUNDS)
    ideal = prefill_flops(models, case, is_dense=True) / prefill_flops(models, case, is_dense=False)
    speedup = launch_value(dense) / launch_value(packed)
    by_round = [
        (dense[first] + dense[first + 1]) / (packed[first] + packed[first + 1]) / ideal
        for first in range(0, len(dense), 2)
    ]
    target = TARGET_SPEEDUP_ALL_KEPT if case.keeps_all else TARGET_SHARE_OF_IDEAL
    is_met = speedup / ideal >= target
    benchmark.extra_info.update(
        kept_shares=case.shares,
        is_contiguous=case.is_contiguous,
        context=case.context,
        dense_s=dense,
        packed_s=packed,
        speedup=speedup,
        ideal_speedup=ideal,
        share_of_ideal=speedup / ideal,
        target=target,
        is_met=is_met,
    )
    figures = (launch_value(dense), launch_value(packed), speedup, ideal, speedup / ideal)
    spread = f"{min(by_round):.3f} - {max(by_round):.3f}"
    cells = (case.name, str(case.context), *(f"{figure:.3f}" for figure in figures), spread)
    add_row(TITLE, HEADER, (*cells, "met" if is_met else "NOT MET"))
