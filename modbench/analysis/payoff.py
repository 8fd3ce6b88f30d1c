"""From which context a method pays at a batch, and why: derived from what bounds each phase.

In: a `Case` and its `Budget`. Out: a `Payoff` per routing method and batch. A phase's time has two parts: "weights" (reading them
and multiplying by them: projections, MLP, head) and "attention" (to the stored keys and values). They are told apart by predicting
the same phase with nothing stored.
"""

from dataclasses import dataclass
from typing import Literal

from modbench.analysis.estimate import Budget, Case, Estimate, PredictedMethod, context_limit, estimate_method
from modbench.analysis.prediction import SAVES, Ceilings, Keeping, PhasePrediction, Shares, Work, predict

PAYS_FROM = 1.1  # our choice: a smaller gain is easily lost in what the prediction does not count
SCANNED_CONTEXTS = tuple(2**power for power in range(10, 18))  # 1,024 to 131,072
Phase = Literal["prefill", "decode"]
Gain = Literal["end_to_end_speedup", "prefill_speedup", "decode_speedup", "memory_reduction"]
GAINS: tuple[Gain, ...] = ("end_to_end_speedup", "prefill_speedup", "decode_speedup", "memory_reduction")


@dataclass(frozen=True)
class Cause:
    """What bounds a phase of the baseline, and how much of it a method leaves.

    `part` is the one that takes longer, `part_share_ratio` of the baseline's time in this phase; `left_ratio` is what the method
    needs of that part's time, `other_left_ratio` of the other's. `phase_share_ratio` is the phase's of the end-to-end time.
    """

    phase: Phase
    part: Literal["weights", "attention"]
    bound: Literal["bytes", "flops"]
    part_share_ratio: float
    left_ratio: float
    other_left_ratio: float
    phase_share_ratio: float


@dataclass(frozen=True)
class Payoff:
    """Where a method gains `PAYS_FROM` or more at a batch, among the scanned contexts that fit.

    `scanned` is empty where none fits; its last one is the longest that fits, where that ends the scan: `is_memory_bound`.
    `dense_limit` is the baseline's longest context, `least_bytes` what the method needs for one token. `paying` has, per gain, the
    first and the last of the paying contexts; `causes` are those at `because`, the longer phase first. `joint_keep_ratio` is the
    share of decode steps that need a routed layer for some row.
    """

    method: str
    batch: int
    scanned: tuple[Estimate, ...]
    is_memory_bound: bool
    dense_limit: int
    least_bytes: float
    paying: dict[Gain, tuple[int, int]]
    because: Estimate | None
    causes: tuple[Cause, ...]
    joint_keep_ratio: float


def payoffs(case: Case, budget: Budget) -> list[Payoff]:
    """One per batch, for every method that routes in order to save; not for removed layers or controls."""
    methods = [m for m in case.methods if m.routed_layers and not m.is_removing and m.kind not in SAVES]
    return [_payoff(case, budget, method, batch) for method in methods for batch in case.batches]


def _payoff(case: Case, budget: Budget, method: PredictedMethod, batch: int) -> Payoff:
    asked = {context for context, rows in case.sizes if rows == batch}
    wanted = sorted({*SCANNED_CONTEXTS, *asked})
    longest = context_limit(case, budget, method, batch)
    contexts = sorted({min(context, longest) for context in wanted}) if longest else []
    scanned = tuple(estimate_method(case, budget, method, context, batch) for context in contexts)
    paying = {gain: ends for gain in GAINS if (ends := _paying_ends(scanned, gain))}
    because = _because(scanned, paying, asked)
    return Payoff(
        method=method.label,
        batch=batch,
        scanned=scanned,
        is_memory_bound=longest < wanted[-1],
        dense_limit=context_limit(case, budget, case.methods[0], batch),
        least_bytes=estimate_method(case, budget, method, 1, batch).memory.peak_bytes,
        paying=paying,
        because=because,
        causes=_causes(case, budget.ceilings, method, because) if because else (),
        joint_keep_ratio=case.keeping(method, batch).computed.decode_any[method.routed_layers[0]],
    )


def _paying_ends(scanned: tuple[Estimate, ...], gain: Gain) -> tuple[int, int] | None:
    """First and last context of the longest contexts in a row that pay; None if none does."""
    paying: list[int] = []
    for item in reversed(scanned):
        if getattr(item, gain) >= PAYS_FROM:
            paying.append(item.context)
        elif paying:
            break
    return (paying[-1], paying[0]) if paying else None


def _because(scanned: tuple[Estimate, ...], paying: dict[Gain, tuple[int, int]], asked: set[int]) -> Estimate | None:
    """What explains the answer: where it begins to pay; where it always does, at the first context asked for; else the last."""
    ends = paying.get("end_to_end_speedup") or paying.get("memory_reduction")
    if ends is None:
        return scanned[-1] if scanned else None
    within = [item for item in scanned if ends[0] <= item.context <= ends[1]]
    if within[0] is not scanned[0]:
        return within[0]
    return next((item for item in within if item.context in asked), within[-1])


@dataclass(frozen=True)
class _Parts:
    """A phase in its two parts."""

    weights: PhasePrediction
    attention: PhasePrediction


def _causes(case: Case, ceilings: Ceilings, method: PredictedMethod, at: Estimate) -> tuple[Cause, ...]:
    work = case.work(at.context, at.batch)
    dense = _parts(work, case.keeping(case.methods[0], at.batch), ceilings)
    kept = _parts(work, case.keeping(method, at.batch), ceilings)
    times = {phase: parts.weights.time_s + parts.attention.time_s for phase, parts in dense.items()}
    end_to_end_s = times["prefill"] + times["decode"] * (case.new_tokens - 1)
    prefill_share = times["prefill"] / end_to_end_s
    prefill = _cause("prefill", dense["prefill"], kept["prefill"], ceilings, prefill_share)
    decode = _cause("decode", dense["decode"], kept["decode"], ceilings, 1 - prefill_share)
    return (prefill, decode) if prefill_share >= 0.5 else (decode, prefill)


def _parts(work: Work, keeping: Keeping, ceilings: Ceilings) -> dict[Phase, _Parts]:
    """What is left with nothing stored is the weights' part, the rest is attention's."""
    nothing = (0.0,) * work.geometry.num_hidden_layers
    whole = predict(work, keeping, ceilings)
    blank = predict(work, Keeping(keeping.computed, Shares(nothing, nothing, nothing)), ceilings)
    return {
        "prefill": _Parts(blank.prefill, _less(whole.prefill, blank.prefill)),
        "decode": _Parts(blank.decode, _less(whole.decode, blank.decode)),
    }


def _cause(phase: Phase, dense: _Parts, kept: _Parts, ceilings: Ceilings, phase_share_ratio: float) -> Cause:
    weights_left = kept.weights.time_s / dense.weights.time_s
    attention_left = kept.attention.time_s / dense.attention.time_s
    is_attention = dense.attention.time_s > dense.weights.time_s
    larger = dense.attention if is_attention else dense.weights
    bytes_s, flops_s = larger.bytes_moved / ceilings.copy_bytes_per_s, larger.flops / ceilings.matmul_flops_per_s
    return Cause(
        phase=phase,
        part="attention" if is_attention else "weights",
        bound="bytes" if bytes_s >= flops_s else "flops",
        part_share_ratio=larger.time_s / (dense.weights.time_s + dense.attention.time_s),
        left_ratio=attention_left if is_attention else weights_left,
        other_left_ratio=weights_left if is_attention else attention_left,
        phase_share_ratio=phase_share_ratio,
    )


def _less(whole: PhasePrediction, part: PhasePrediction) -> PhasePrediction:
    return PhasePrediction(whole.time_s - part.time_s, whole.flops - part.flops, whole.bytes_moved - part.bytes_moved)
