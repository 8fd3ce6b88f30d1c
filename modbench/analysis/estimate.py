"""The prediction for a model that nobody has loaded: times and memory of each method at each size, and what fits.

In: a `Case` (geometry, methods, sizes) and the `Budget` of the device it is predicted for. Out: `Estimate`s and `Limit`s in base
units. Times are those of `prediction.py`, so they are at best: what it does not count comes on top.
"""

from dataclasses import dataclass

from modbench.analysis.memory_model import MemoryPrediction, longest_context, predict_memory
from modbench.analysis.prediction import (
    BYTES_PER_ELEMENT,
    EVERY_SAVING,
    SAVES,
    Ceilings,
    Keeping,
    Work,
    predict,
    shares_from,
)
from modbench.geometry import Geometry
from modbench.model_shape import ModelShape


@dataclass(frozen=True)
class PredictedMethod:
    """A method by what it keeps: the share `keep_ratio` of tokens at routed layers, everything at others.

    Removed layers are routed layers that keep nothing and have no weights.
    """

    label: str
    kind: str
    routed_layers: tuple[int, ...] = ()
    keep_ratio: float = 1.0
    is_removing: bool = False

    @property
    def removed_layers(self) -> tuple[int, ...]:
        """Layers without weights."""
        return self.routed_layers if self.is_removing else ()

    def keeping(self, num_layers: int, batch: int) -> Keeping:
        """Shares per layer; the rows of a batch decide independently."""
        ratios = [self.keep_ratio if layer in self.routed_layers else 1.0 for layer in range(num_layers)]
        shares = shares_from(ratios, ratios, [], num_layers, batch)
        assert shares is not None, "there is a ratio for each layer"
        return Keeping.of(shares, SAVES.get(self.kind, EVERY_SAVING))


@dataclass(frozen=True)
class Case:
    """One model with its methods, the baseline first, at some sizes (context, batch). `label` tells it from other cases."""

    label: str
    geometry: Geometry | ModelShape
    dtype: str
    new_tokens: int
    methods: tuple[PredictedMethod, ...]
    sizes: tuple[tuple[int, int], ...]

    @property
    def batches(self) -> list[int]:
        """Every batch among the sizes once, the smallest first."""
        return sorted({batch for _, batch in self.sizes})

    def work(self, context: int, batch: int) -> Work:
        """The work of a launch at a size."""
        return Work(self.geometry, context, batch, self.new_tokens, BYTES_PER_ELEMENT[self.dtype])

    def keeping(self, method: PredictedMethod, batch: int) -> Keeping:
        """What a method keeps of this model's layers."""
        return method.keeping(self.geometry.num_hidden_layers, batch)


@dataclass(frozen=True)
class Budget:
    """What the device gives: its ceilings, its memory, and what of that is taken before the first tensor."""

    ceilings: Ceilings
    memory_bytes: float
    overhead_bytes: float


@dataclass(frozen=True)
class Estimate:
    """One method at one size. Speed-ups and reductions are dense / method; `missing_bytes` is 0 where it fits."""

    method: str
    context: int
    batch: int
    prefill_s: float
    decode_s: float
    end_to_end_s: float
    prefill_speedup: float
    decode_speedup: float
    end_to_end_speedup: float
    kv_cache_reduction: float
    memory_reduction: float
    memory: MemoryPrediction
    missing_bytes: float


@dataclass(frozen=True)
class Limit:
    """The longest context that fits, 0 where none does; `ratio` is to the baseline's, None where that fits at none."""

    method: str
    batch: int
    context: int
    ratio: float | None


@dataclass(frozen=True)
class _Costs:
    prefill_s: float
    decode_s: float
    end_to_end_s: float
    memory: MemoryPrediction


def estimates(case: Case, budget: Budget) -> list[Estimate]:
    """Every method at every size of the case."""
    return [estimate_method(case, budget, method, *size) for size in case.sizes for method in case.methods]


def estimate_method(case: Case, budget: Budget, method: PredictedMethod, context: int, batch: int) -> Estimate:
    """One method at one size, against the baseline there."""
    dense = _costs(case, budget, case.methods[0], context, batch)
    found = dense if method is case.methods[0] else _costs(case, budget, method, context, batch)
    return Estimate(
        method=method.label,
        context=context,
        batch=batch,
        prefill_s=found.prefill_s,
        decode_s=found.decode_s,
        end_to_end_s=found.end_to_end_s,
        prefill_speedup=dense.prefill_s / found.prefill_s,
        decode_speedup=dense.decode_s / found.decode_s,
        end_to_end_speedup=dense.end_to_end_s / found.end_to_end_s,
        kv_cache_reduction=dense.memory.kv_cache_bytes / found.memory.kv_cache_bytes,
        memory_reduction=dense.memory.peak_bytes / found.memory.peak_bytes,
        memory=found.memory,
        missing_bytes=max(0.0, found.memory.peak_bytes - budget.memory_bytes),
    )


def limits(case: Case, budget: Budget) -> list[Limit]:
    """The longest context that fits, for every batch and method of the case."""
    found = []
    for batch in case.batches:
        contexts = [context_limit(case, budget, method, batch) for method in case.methods]
        for method, context in zip(case.methods, contexts, strict=True):
            found.append(Limit(method.label, batch, context, context / contexts[0] if contexts[0] else None))
    return found


def context_limit(case: Case, budget: Budget, method: PredictedMethod, batch: int) -> int:
    """The longest context at which a method fits; 0 where none does."""
    return longest_context(
        case.work(1, batch),
        case.keeping(method, batch),
        budget.memory_bytes,
        budget.overhead_bytes,
        method.removed_layers,
    )


def _costs(case: Case, budget: Budget, method: PredictedMethod, context: int, batch: int) -> _Costs:
    """The first new token ends prefill, so there is one decode step less."""
    work, keeping = case.work(context, batch), case.keeping(method, batch)
    times = predict(work, keeping, budget.ceilings)
    end_to_end_s = times.prefill.time_s + (case.new_tokens - 1) * times.decode.time_s
    memory = predict_memory(work, keeping, budget.overhead_bytes, method.removed_layers)
    return _Costs(times.prefill.time_s, times.decode.time_s, end_to_end_s, memory)
