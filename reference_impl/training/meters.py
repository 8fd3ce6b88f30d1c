"""What is measured while a model trains: kept shares, gates and their histogram per layer, parts of the loss, tokens per second.

In: the decisions of each forward, parts of each loss, the times of steps. Out: values over all steps since the last log.

Nothing is read back from the device before it is logged.

Shapes: B batch, T tokens.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from reference_impl.routing import Decision, Routing

NUM_BINS = 20  # of equal width in [0, 1]
KEPT, TOKENS, GATES, BINS = 0, 1, 2, slice(3, 3 + NUM_BINS)  # of a layer's sums

Reduce = Callable[[Tensor], Tensor]
"""A tensor of this process -> its sum over all processes."""


class RoutingMeter:
    """Kept share F, mean gate G and a histogram of the gates, per routed layer; padding is not counted.

    Attributes:
        histograms: layer index -> tokens in each of `NUM_BINS` equal parts of [0, 1], as last taken.
    """

    def __init__(self, routing: Routing) -> None:
        self.routing = routing
        self.histograms: dict[int, list[int]] = {}
        self._sums: dict[int, Tensor] = {}

    def note(self) -> None:
        """Add what the last forward decided."""
        for layer, decision in self.routing.last.items():
            sums = _sums(decision)
            self._sums[layer] = self._sums[layer] + sums if layer in self._sums else sums

    def take(self, reduce: Reduce) -> dict[str, float]:
        """`keep_ratio` (mean over the layers), and per layer `keep_ratio/layer_L` (F) and `mean_gate/layer_L` (G); starts anew."""
        layers = sorted(self._sums)
        if not layers:
            return {}
        device = self._sums[layers[0]].device
        total = reduce(torch.stack([self._sums[layer].to(device) for layer in layers])).cpu()
        self._sums = {}
        shares = (total[:, KEPT] / total[:, TOKENS].clamp(min=1)).tolist()
        gates = (total[:, GATES] / total[:, TOKENS].clamp(min=1)).tolist()
        self.histograms = {layer: sums[BINS].long().tolist() for layer, sums in zip(layers, total, strict=True)}
        return {
            "keep_ratio": sum(shares) / len(shares),
            **{f"keep_ratio/layer_{layer}": share for layer, share in zip(layers, shares, strict=True)},
            **{f"mean_gate/layer_{layer}": gate for layer, gate in zip(layers, gates, strict=True)},
        }


def _sums(decision: Decision) -> Tensor:
    """Kept tokens, tokens, sum of gates, and tokens per bin; float64 (3 + NUM_BINS,)."""
    gate_BT = decision.gate_BT.double()
    valid_BT = torch.ones_like(gate_BT)
    if decision.valid_BT is not None:
        valid_BT = decision.valid_BT.expand_as(gate_BT).double()
    bin_BT = (decision.gate_BT * NUM_BINS).long().clamp(0, NUM_BINS - 1)
    counts = torch.zeros(NUM_BINS, dtype=torch.float64, device=gate_BT.device)
    counts.index_add_(0, bin_BT.flatten(), valid_BT.flatten())
    totals = torch.stack([decision.keep_BT.sum().double(), valid_BT.sum(), (gate_BT * valid_BT).sum()])
    return torch.cat([totals, counts])


class LossMeter:
    """Parts of the loss, averaged over optimiser steps; a step's parts add up over its micro-batches."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._num_steps = 0

    def note(self, **parts: Tensor | None) -> None:
        """Add a micro-batch's share of the step's parts."""
        for name, part in parts.items():
            if part is not None:
                self._sums[name] = self._sums.get(name, 0.0) + part.detach().double()

    def end_step(self) -> None:
        """What is noted from now on belongs to the next step."""
        self._num_steps += 1

    def take(self, reduce: Reduce, num_processes: int) -> dict[str, float]:
        """Each part's mean over steps and processes; starts anew."""
        if not self._sums or not self._num_steps:
            return {}
        total = reduce(torch.stack(list(self._sums.values()))) / (self._num_steps * num_processes)
        found = dict(zip(self._sums, total.tolist(), strict=True))
        self._sums, self._num_steps = {}, 0
        return found


class Pace:
    """Tokens per second of training: reading data, forward, backward and step, without evaluating and saving.

    A step's clock runs from when its data are asked for to its end, on the host. The first step of a process is timed from when its
    data are there, because a resumed training reads everything before them again.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._begin: float | None = None
        self._seconds = 0.0
        self._num_tokens = 0
        self._has_begun = False

    def ask_for_data(self) -> None:
        """The step begins."""
        if self._has_begun:
            self._begin = self._clock()

    def get_data(self, num_tokens: int) -> None:
        """The step's data are there."""
        if not self._has_begun:
            self._has_begun, self._begin = True, self._clock()
        self._num_tokens += num_tokens

    def end_step(self) -> None:
        """The step ends."""
        assert self._begin is not None, "a step ends after its data came"
        self._seconds += self._clock() - self._begin

    def take(self) -> dict[str, float]:
        """`tokens_per_s` of this process; starts anew."""
        if not self._seconds:
            return {}
        found = {"tokens_per_s": self._num_tokens / self._seconds}
        self._seconds, self._num_tokens = 0.0, 0
        return found
