"""The same-work guard: does a method do the work it is timed for? Checks the five identities with the timed functions themselves.

In: a method and a point. Out: per identity passed, declared or failed, with the largest error, and the share of flipped decisions.
Runs in a process of its own, once per (model, method, device, versions); never inside a timed launch.

Keep decisions are discrete, so rounding can flip a gate near p. Identities are therefore checked with the full forward's keep
masks replayed; free-running flips are counted, and fail only where the gate was farther than `GATE_EPSILON` from p.

Shapes: B batch, T tokens, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from modbench.methods.base import (
    BATCH_EQUALS_SINGLE,
    CAUSAL,
    DECODE_EQUALS_FULL,
    DENSE_AT_P0,
    IDENTITIES,
    PADDED_EQUALS_UNPADDED,
    Method,
    Subject,
)
from modbench.methods.dense import Dense
from modbench.plan import PointWork
from modbench.record import GuardResult
from reference_impl import Decision

# Largest |difference| of logits, over max(1, largest |logit|): rounding over a deep stack, well under any real mistake.
TOLERANCE = {"float32": 1e-5, "float16": 2e-2, "bfloat16": 1e-1}
GATE_EPSILON = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}
PROMPT_TOKENS = 40
NEW_TOKENS = 9
PADDING = 7
DEFAULT_THRESHOLD_P = 0.5

KeepMasks = dict[int, Tensor]


@dataclass(frozen=True)
class GuardOutcome:
    """What the guard found: per identity the result, why some are declared away, and one line with every error measured."""

    identities: dict[str, GuardResult]
    declared: dict[str, str]
    flip_ratio: float
    detail: str


@torch.inference_mode()
def check_identities(method: Method, point: PointWork, device: torch.device) -> GuardOutcome:
    """Build the method once more on a short seeded text and check every identity it does not declare away."""
    generator = torch.Generator().manual_seed(point.workload["seed"])
    shape = (2, PROMPT_TOKENS + NEW_TOKENS)
    ids_BT = torch.randint(0, point.geometry.vocab_size, shape, generator=generator).to(device)
    errors: dict[str, float] = {}
    if DENSE_AT_P0 not in method.declared:  # first, so that no more than one model is in memory at a time
        errors[DENSE_AT_P0] = _dense_error(method, point, device, ids_BT)
    subject = method.build(point, device)
    method.calibrate(subject, ids_BT, PROMPT_TOKENS)
    declared = {**method.declared, **subject.declared}
    flip_ratio, has_wrong_flip = _check_subject(method, subject, ids_BT, point, declared, errors)
    limit = TOLERANCE[point.dtype]
    identities: dict[str, GuardResult] = {
        name: "declared" if name in declared else "passed" if errors[name] <= limit else "failed" for name in IDENTITIES
    }
    if has_wrong_flip:
        identities[DECODE_EQUALS_FULL] = "failed"
    measured = ", ".join(f"{name} {errors[name]:.1e}" for name in IDENTITIES if name in errors)
    detail = f"largest errors ({limit:.0e} allowed): {measured}; flipped decisions {flip_ratio:.2e}"
    return GuardOutcome(identities, declared, flip_ratio, detail)


def _check_subject(
    method: Method,
    subject: Subject,
    ids_BT: Tensor,
    point: PointWork,
    declared: dict[str, str],
    errors: dict[str, float],
) -> tuple[float, bool]:
    """Fill `errors` with the four identities of the subject alone; return the flips of free-running decode."""
    full_BTV, masks, decisions = _full(subject, ids_BT)
    flips = 0.0, False
    if DECODE_EQUALS_FULL not in declared:
        errors[DECODE_EQUALS_FULL] = _error(_incremental(subject, ids_BT, masks), full_BTV[:, PROMPT_TOKENS - 1 :])
        flips = _free_running_flips(method, subject, ids_BT, decisions, point.dtype)
    if BATCH_EQUALS_SINGLE not in declared:
        single_1TV, _, _ = _full(subject, ids_BT[1:], {layer: keep_BT[1:] for layer, keep_BT in masks.items()})
        errors[BATCH_EQUALS_SINGLE] = _error(single_1TV, full_BTV[1:])
    if PADDED_EQUALS_UNPADDED not in declared:
        errors[PADDED_EQUALS_UNPADDED] = _error(_padded(subject, ids_BT, masks), full_BTV)
    if CAUSAL not in declared:
        cut = PROMPT_TOKENS // 2
        other_BT = ids_BT.clone()
        other_BT[:, cut:] = (other_BT[:, cut:] + 1) % point.geometry.vocab_size
        # free running: a decision that looks at later tokens is just what this must find
        changed_BTV, _, _ = _full(subject, other_BT)
        errors[CAUSAL] = _error(changed_BTV[:, :cut], full_BTV[:, :cut])
    return flips


def _error(logits: Tensor, reference: Tensor) -> float:
    """Largest difference relative to max(1, largest logit); infinite where anything is not finite."""
    if logits.shape != reference.shape or not bool(torch.isfinite(logits).all()):
        return float("inf")
    difference = (logits.float() - reference.float()).abs().max()
    return (difference / reference.float().abs().max().clamp(min=1.0)).item()


def _full(
    subject: Subject, ids_BT: Tensor, masks: KeepMasks | None = None, attention_mask: Tensor | None = None
) -> tuple[Tensor, KeepMasks, dict[int, Decision]]:
    """One pass: logits (B, T, V), the keep masks and the decisions; with `masks`, those are replayed."""
    subject.take_decisions()
    if masks is None:
        logits, _ = subject.prefill(ids_BT, attention_mask, all_logits=True)
    else:
        with subject.replay(masks):
            logits, _ = subject.prefill(ids_BT, attention_mask, all_logits=True)
    decisions = next(iter(subject.take_decisions()), {})
    return logits, {layer: decision.keep_BT for layer, decision in decisions.items()}, decisions


def _steps(subject: Subject, ids_BT: Tensor) -> Tensor:
    """Prefill the prompt, decode the rest: logits (B, 1 + NEW_TOKENS, V) from the last prompt token on."""
    last_B1V, state = subject.prefill(ids_BT[:, :PROMPT_TOKENS])
    logits = [last_B1V]
    for position in range(PROMPT_TOKENS, ids_BT.shape[1]):
        logits.append(subject.decode(ids_BT[:, position : position + 1], state))
    return torch.cat(logits, dim=1)


def _incremental(subject: Subject, ids_BT: Tensor, masks: KeepMasks) -> Tensor:
    with subject.replay(masks):
        logits = _steps(subject, ids_BT)
    subject.take_decisions()
    return logits


def _free_running_flips(
    method: Method, subject: Subject, ids_BT: Tensor, full: dict[int, Decision], dtype: str
) -> tuple[float, bool]:
    """(share of decode decisions that differ from the full forward's, whether one of them was far from p)."""
    _steps(subject, ids_BT)
    steps = subject.take_decisions()
    threshold_p = method.settings.get("threshold_p", DEFAULT_THRESHOLD_P)
    flips, total, has_wrong_flip = 0, 0, False
    for layer, decision in full.items():
        keep_BT = torch.cat([step[layer].keep_BT for step in steps], dim=1)
        is_flip_BT = keep_BT != decision.keep_BT
        flips += int(is_flip_BT.sum())
        total += is_flip_BT.numel()
        margin_BT = (decision.gate_BT - threshold_p).abs()
        has_wrong_flip |= bool((is_flip_BT & (margin_BT > GATE_EPSILON[dtype])).any())
    return (flips / total if total else 0.0), has_wrong_flip


def _padded(subject: Subject, ids_BT: Tensor, masks: KeepMasks) -> Tensor:
    """Logits (B, T, V) of the same rows behind left padding, padding cut off again."""
    padding_BT = torch.zeros_like(ids_BT[:, :PADDING])
    attention_mask = torch.cat([padding_BT, torch.ones_like(ids_BT)], dim=1)
    padded_masks = {layer: torch.cat([padding_BT.bool(), keep], dim=1) for layer, keep in masks.items()}
    logits, _, _ = _full(subject, torch.cat([padding_BT, ids_BT], dim=1), padded_masks, attention_mask)
    return logits[:, PADDING:]


def _dense_error(method: Method, point: PointWork, device: torch.device, ids_BT: Tensor) -> float:
    unit = method.build_unit(point, device)
    assert unit is not None, f"{type(method).__name__} must declare {DENSE_AT_P0} or build a unit variant"
    unit_BTV, _, _ = _full(unit, ids_BT)
    del unit
    dense_BTV, _, _ = _full(Dense({"kv_cache": "stock"}).build(point, device), ids_BT)
    return _error(unit_BTV, dense_BTV)
