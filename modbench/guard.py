"""The same-work guard: does a method do the work it is timed for? Checks the five identities with the timed functions themselves.

In: a method and a point. Out: per identity passed, declared or failed, with the largest error, and the share of flipped decisions.
Runs in a process of its own, once per (model, method, device, versions); never inside a timed launch.

Keep decisions are discrete, so rounding can flip a gate near p. Identities are therefore checked with the full forward's keep
masks replayed; what the gates would have decided is counted as flips, which fail only farther than `GATE_EPSILON` from p.

Shapes: B batch, T tokens, V vocabulary.
"""

from collections.abc import Callable
from contextlib import nullcontext
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
    declared = {**method.declared, **getattr(subject, "declared", {})}
    vocab_size, threshold_p = point.geometry.vocab_size, method.settings.get("threshold_p")
    check = SubjectCheck(subject, ids_BT, vocab_size, threshold_p, GATE_EPSILON[point.dtype])
    for name, measure in check.measures().items():
        if name not in declared:
            errors[name] = measure()
    limit = TOLERANCE[point.dtype]
    identities: dict[str, GuardResult] = {
        name: "declared" if name in declared else "passed" if errors[name] <= limit else "failed" for name in IDENTITIES
    }
    measured = ", ".join(f"{name} {errors[name]:.1e}" for name in IDENTITIES if name in errors)
    detail = (
        f"largest errors ({limit:.0e} allowed): {measured}; flipped decisions {check.flip_ratio:.2e}{check.kept_text}"
    )
    return GuardOutcome(identities, declared, check.flip_ratio, detail)


class SubjectCheck:
    """The four identities of a subject alone. Each measure gives its largest relative error, infinite for a wrong decision."""

    def __init__(
        self, subject: Subject, ids_BT: Tensor, vocab_size: int, threshold_p: float | None, gate_epsilon: float
    ) -> None:
        """`threshold_p` is None for methods without one: their decisions are not checked, only their logits."""
        self._subject = subject
        self._ids_BT = ids_BT
        self._vocab_size = vocab_size
        self._threshold_p = threshold_p
        self._gate_epsilon = gate_epsilon
        self.flip_ratio = 0.0
        self._full_BTV, self._decisions = _full(subject, ids_BT)
        self._masks = _masks_of(self._decisions)

    @property
    def kept_text(self) -> str:
        """The share that the routers kept of this text, for the detail line: a trained one may keep all of it, or nothing."""
        if not self._masks:
            return ""
        kept = torch.cat([keep_BT.flatten() for keep_BT in self._masks.values()]).float().mean().item()
        return f"; kept {kept:.1%} of its text"

    def measures(self) -> dict[str, Callable[[], float]]:
        """Identity -> the function that measures its error."""
        return {
            DECODE_EQUALS_FULL: self.decode_error,
            BATCH_EQUALS_SINGLE: self.batch_error,
            PADDED_EQUALS_UNPADDED: self.padding_error,
            CAUSAL: self.causality_error,
        }

    def decode_error(self) -> float:
        """Prefill and step-by-step decode against one pass over all tokens."""
        logits, steps = _steps(self._subject, self._ids_BT, self._masks)
        joined = {layer: _joined([step[layer] for step in steps]) for layer in self._decisions}
        self.flip_ratio, is_wrong = self._flips(joined)
        return float("inf") if is_wrong else _error(logits, self._full_BTV[:, PROMPT_TOKENS - 1 :])

    def batch_error(self) -> float:
        """The second row alone against the same row in the batch, in one pass and step by step."""
        own_masks = {layer: keep_BT[1:] for layer, keep_BT in self._masks.items()}
        single_1TV, _ = _full(self._subject, self._ids_BT[1:], own_masks)
        batch_steps, _ = _steps(self._subject, self._ids_BT, self._masks)
        single_steps, _ = _steps(self._subject, self._ids_BT[1:], own_masks)
        return max(_error(single_1TV, self._full_BTV[1:]), _error(single_steps, batch_steps[1:]))

    def padding_error(self) -> float:
        """The rows behind left padding against the rows themselves, in one pass and step by step."""
        padding_BT = torch.zeros_like(self._ids_BT[:, :PADDING])
        padded_BT = torch.cat([padding_BT, self._ids_BT], dim=1)
        mask_BT = torch.cat([padding_BT, torch.ones_like(self._ids_BT)], dim=1)
        keeps = {layer: torch.cat([padding_BT.bool(), keep_BT], dim=1) for layer, keep_BT in self._masks.items()}
        padded_BTV, _ = _full(self._subject, padded_BT, keeps, mask_BT)
        plain_steps, _ = _steps(self._subject, self._ids_BT, self._masks)
        padded_steps, _ = _steps(self._subject, padded_BT, keeps, mask_BT)
        return max(_error(padded_BTV[:, PADDING:], self._full_BTV), _error(padded_steps, plain_steps))

    def causality_error(self) -> float:
        """The first half of the prompt when every later token is another one."""
        cut = PROMPT_TOKENS // 2
        other_BT = self._ids_BT.clone()
        other_BT[:, cut:] = (other_BT[:, cut:] + 1) % self._vocab_size
        _, own = _full(self._subject, other_BT)
        masks = {layer: torch.cat([self._masks[layer][:, :cut], own[layer].keep_BT[:, cut:]], dim=1) for layer in own}
        changed_BTV, _ = _full(self._subject, other_BT, masks)
        return float("inf") if self._looks_ahead(own, cut) else _error(changed_BTV[:, :cut], self._full_BTV[:, :cut])

    def _looks_ahead(self, others: dict[int, Decision], cut: int) -> bool:
        """Whether a decision before `cut` depends on what comes after it, beyond the rounding of a gate at p.

        Only the first layer with a difference counts: it is what changes the inputs of the layers after it.
        """
        for layer, decision in sorted(self._decisions.items()):
            differs_BT = (decision.keep_BT != others[layer].keep_BT)[:, :cut]
            if bool(differs_BT.any()):
                if self._threshold_p is None:
                    return True
                margin_BT = (decision.gate_BT[:, :cut] - self._threshold_p).abs()
                return bool((differs_BT & (margin_BT > self._gate_epsilon)).any())
        return False

    def _flips(self, others: dict[int, Decision]) -> tuple[float, bool]:
        """(share of decisions that the other gates would make otherwise, whether one was far from p).

        Both sides have the same masks replayed, so a flip in one layer does not cause others in later layers.
        """
        if self._threshold_p is None or not others:
            return 0.0, False
        flips = total = 0
        is_wrong = False
        for layer, decision in self._decisions.items():
            gate_BT = decision.gate_BT
            is_flip_BT = (gate_BT >= self._threshold_p) != (others[layer].gate_BT >= self._threshold_p)
            flips, total = flips + int(is_flip_BT.sum()), total + is_flip_BT.numel()
            margin_BT = (gate_BT - self._threshold_p).abs()
            is_wrong |= bool((is_flip_BT & (margin_BT > self._gate_epsilon)).any())
        return flips / total, is_wrong


def _error(logits: Tensor, reference: Tensor) -> float:
    """Largest difference relative to max(1, largest logit); infinite where anything is not finite."""
    if logits.shape != reference.shape or not bool(torch.isfinite(logits).all()):
        return float("inf")
    difference = (logits.float() - reference.float()).abs().max()
    return (difference / reference.float().abs().max().clamp(min=1.0)).item()


def _full(
    subject: Subject, ids_BT: Tensor, masks: KeepMasks | None = None, attention_mask: Tensor | None = None
) -> tuple[Tensor, dict[int, Decision]]:
    """One pass: logits (B, T, V) and the decisions; with `masks`, those are replayed."""
    subject.take_decisions()
    with nullcontext() if masks is None else subject.replay(masks):
        logits, _ = subject.prefill(ids_BT, attention_mask, all_logits=True)
    return logits, next(iter(subject.take_decisions()), {})


def _steps(
    subject: Subject, ids_BT: Tensor, masks: KeepMasks, attention_mask: Tensor | None = None
) -> tuple[Tensor, list[dict[int, Decision]]]:
    """Prefill all but the last `NEW_TOKENS`, decode those, masks replayed: logits (B, 1 + NEW_TOKENS, V), decisions per forward."""
    subject.take_decisions()
    start = ids_BT.shape[1] - NEW_TOKENS
    with subject.replay(masks):
        last_B1V, state = subject.prefill(ids_BT[:, :start], _until(attention_mask, start))
        logits = [last_B1V]
        for position in range(start, ids_BT.shape[1]):
            token_B1 = ids_BT[:, position : position + 1]
            logits.append(subject.decode(token_B1, state, _until(attention_mask, position + 1)))
    return torch.cat(logits, dim=1), subject.take_decisions()


def _until(attention_mask: Tensor | None, end: int) -> Tensor | None:
    return None if attention_mask is None else attention_mask[:, :end]


def _joined(decisions: list[Decision]) -> Decision:
    """Decisions of consecutive forwards as those of one."""
    keeps, gates = [each.keep_BT for each in decisions], [each.gate_BT for each in decisions]
    return Decision(torch.cat(keeps, dim=1), torch.cat(gates, dim=1))


def _masks_of(decisions: dict[int, Decision]) -> KeepMasks:
    return {layer: decision.keep_BT for layer, decision in decisions.items()}


def _dense_error(method: Method, point: PointWork, device: torch.device, ids_BT: Tensor) -> float:
    unit = method.build_unit(point, device)
    assert unit is not None, f"{type(method).__name__} must declare {DENSE_AT_P0} or build a unit variant"
    unit_BTV, _ = _full(unit, ids_BT)
    del unit
    dense = method.build_dense(point, device) or Dense({"kv_cache": "stock"}).build(point, device)
    dense_BTV, _ = _full(dense, ids_BT)
    return _error(unit_BTV, dense_BTV)
