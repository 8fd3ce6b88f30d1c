"""What training adds to the language-model loss so that routers learn to skip.

In: the load of each routed layer in one forward. Out: a scalar, differentiable in the gates.

Shapes: B batch, T tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class LayerLoad(NamedTuple):
    """One routed layer's gates (B, T) float32 with their graph, keep mask (B, T) bool, valid tokens (1 or B, T) bool or None."""

    gate_BT: Tensor
    keep_BT: Tensor
    valid_BT: Tensor | None

    def kept_fraction(self) -> Tensor:
        """F: share of the tokens that are not padding which is kept; a scalar without gradient."""
        if self.valid_BT is None:
            return self.keep_BT.float().mean()
        return self.keep_BT.sum() / self.valid_BT.expand_as(self.keep_BT).sum().clamp(min=1)

    def mean_gate(self) -> Tensor:
        """G: mean gate over the tokens that are not padding; a scalar with gradient."""
        if self.valid_BT is None:
            return self.gate_BT.mean()
        valid_BT = self.valid_BT.expand_as(self.gate_BT)
        return (self.gate_BT * valid_BT).sum() / valid_BT.sum().clamp(min=1)


def load_reducing(loads: Sequence[LayerLoad], alpha: float) -> Tensor:
    """alpha * sum over routed layers of F * G, a float32 scalar on the device of the first layer.

    The gradient reaches the gates through G alone: d/dg = alpha * F / number of tokens, whether the token is kept or not. It only
    ever lowers gates; what keeps them up is the language-model loss through the gates of kept tokens.

    Source: secondary reports of the paper (alpha = 0.01). Over a batch, F and G are taken per forward (our choice).
    """
    device = loads[0].gate_BT.device
    terms = [(load.kept_fraction() * load.mean_gate()).to(device) for load in loads]
    return alpha * torch.stack(terms).sum()


OBJECTIVES = {"load_reducing": load_reducing}
