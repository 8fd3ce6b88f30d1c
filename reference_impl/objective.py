"""What training adds to the language-model loss so that routers learn to skip.

In: the load of each routed layer in one forward, and the settings. Out: a scalar, differentiable in the gates.

Shapes: B batch, T tokens.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from reference_impl.config import ModConfig

SMALLEST_GATE = 1e-6  # where logarithms are taken
BUDGET_SCALE = 0.01  # of the gradient at a bias: too small for gradient clipping to see


class LayerLoad(NamedTuple):
    """One routed layer's gates (B, T) float32 with their graph, keep mask (B, T) bool, valid tokens (1 or B, T) bool or None.

    `bias` is its router's bias, a scalar with its graph; None where nobody trains it.
    """

    gate_BT: Tensor
    keep_BT: Tensor
    valid_BT: Tensor | None
    bias: Tensor | None = None

    def kept_fraction(self) -> Tensor:
        """F: share of the tokens that are not padding which is kept; a scalar without gradient."""
        if self.valid_BT is None:
            return self.keep_BT.float().mean()
        return self.keep_BT.sum() / self.valid_BT.expand_as(self.keep_BT).sum().clamp(min=1)

    def mean_gate(self) -> Tensor:
        """G: mean gate over the tokens that are not padding; a scalar with gradient."""
        return self._mean(self.gate_BT)

    def predictor_loss(self) -> Tensor:
        """Cross-entropy in nats of the gates as predictions of the keep mask; a scalar with gradient."""
        gate_BT = self.gate_BT.clamp(SMALLEST_GATE, 1 - SMALLEST_GATE)
        # not functional.binary_cross_entropy, which CUDA's autocast refuses
        return self._mean(-torch.where(self.keep_BT, gate_BT, 1 - gate_BT).log())

    def distance_to(self, share: float, threshold_p: float) -> Tensor:
        """How many logits the gates are too high for this share of the tokens to be kept; a scalar without gradient."""
        gate_N = self.gate_BT.detach().flatten()
        if self.valid_BT is None:
            num_valid = torch.tensor(gate_N.numel(), device=gate_N.device)
        else:
            valid_N = self.valid_BT.expand_as(self.gate_BT).flatten()
            gate_N, num_valid = gate_N.where(valid_N, -1.0), valid_N.sum()
        last = ((share * num_valid).round().long() - 1).clamp(0, gate_N.numel() - 1)
        last_kept = gate_N.sort(descending=True).values[last]
        return torch.logit(last_kept, eps=SMALLEST_GATE) - math.log(threshold_p / (1 - threshold_p))

    def _mean(self, value_BT: Tensor) -> Tensor:
        if self.valid_BT is None:
            return value_BT.mean()
        valid_BT = self.valid_BT.expand_as(value_BT)
        return (value_BT * valid_BT).sum() / valid_BT.sum().clamp(min=1)


Objective = Callable[[Sequence[LayerLoad], ModConfig, float], Tensor]
"""(loads of the routed layers, settings, progress of the training in [0, 1]) -> what is added to the loss, a float32 scalar."""


def load_reducing(loads: Sequence[LayerLoad], config: ModConfig, progress: float = 1.0) -> Tensor:
    """alpha * sum over routed layers of F * G, on the device of the first layer.

    The gradient reaches the gates through G alone: d/dg = alpha * F / number of tokens, whether the token is kept or not. It only
    ever lowers gates; what keeps them up is the language-model loss through the gates of kept tokens.

    Source: secondary reports of the paper (alpha = 0.01). Over a batch, F and G are taken per forward (our choice).
    """
    return config.objective_alpha * _sum(load.kept_fraction() * load.mean_gate() for load in loads)


def keep_budget(loads: Sequence[LayerLoad], config: ModConfig, progress: float = 1.0) -> Tensor:
    """Squared distance between kept share and target, whose gradient moves kept shares to the target.

    With a budget per layer the gradient is BUDGET_SCALE * distance at the router's bias and nothing elsewhere, the distance being
    that of p from the gate which is the last to be kept at the target, in logits: taken off the bias, it meets the target at once,
    whatever the spread of the gates. And the language-model loss does not reach the bias (routing.py): it decides which tokens are
    kept, the budget how many. The bias is the memory of the control, so a checkpoint holds all of it.

    With a budget for the model it is the distance of the mean over the layers, through the mean gates: which layers keep tokens is
    left to the language-model loss.

    Source: our choice.
    """
    target = target_at(config, progress)
    if config.budget == "model":
        distance = _sum(load.kept_fraction() for load in loads) / len(loads) - target
        mean_gate = _sum(load.mean_gate() for load in loads) / len(loads)
        return distance.square() + 2 * distance * (mean_gate - mean_gate.detach())
    terms = []
    for load in loads:
        assert load.bias is not None, "routers that train hand their bias over"
        slope = BUDGET_SCALE * load.distance_to(target, config.threshold_p)
        terms.append((load.kept_fraction() - target).square() + slope * (load.bias - load.bias.detach()))
    return _sum(terms)


def target_at(config: ModConfig, progress: float) -> float:
    """The keep ratio that `keep_budget` aims at: falling evenly from 1 over the first `budget_anneal` of the training."""
    done = 1.0 if progress >= config.budget_anneal else progress / config.budget_anneal
    return 1.0 + done * (config.target_keep_ratio - 1.0)


def topk_predictor(loads: Sequence[LayerLoad], config: ModConfig, progress: float = 1.0) -> Tensor:
    """alpha * sum over routed layers of the cross-entropy of gates against what top-k kept: at decode, gate >= p predicts top-k.

    Source: MoD (Raposo et al., arXiv 2404.02258), the auxiliary loss for sampling; the factor is our choice.
    """
    return config.objective_alpha * _sum(load.predictor_loss() for load in loads)


def _sum(terms: Iterable[Tensor]) -> Tensor:
    """Of scalars that may lie on several devices."""
    found = list(terms)
    return torch.stack([term.to(found[0].device) for term in found]).sum()


OBJECTIVES: dict[str, Objective] = {
    "load_reducing": load_reducing,
    "keep_budget": keep_budget,
    "topk_predictor": topk_predictor,
}
