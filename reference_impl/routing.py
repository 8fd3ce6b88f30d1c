"""Routing: what the routed layers of one model share: decisions made, decisions to replay, a calibration under way.

In: gates of a layer. Out: its keep mask, recorded. One `Routing` object per converted model.

Shapes: B batch, T tokens of this forward.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from reference_impl.config import ModConfig
from reference_impl.errors import RoutingError, UnsupportedModelError
from reference_impl.objective import OBJECTIVES, LayerLoad, Objective, keep_budget
from reference_impl.router import Router, threshold_keep, topk_keep


class RouterFitter(Protocol):
    """Sets a router's bias from the logits it has just given (see calibration.py)."""

    def fit(self, router: Router, logits_BT: Tensor, valid_BT: Tensor | None, position_ids: Tensor | None) -> None:
        """Change `router` in place; the layer asks it again afterwards."""


class Decision(NamedTuple):
    """One forward of one routed layer: keep mask (B, T) bool, gates (B, T) float32, valid tokens (1 or B, T) bool or None (all)."""

    keep_BT: Tensor
    gate_BT: Tensor
    valid_BT: Tensor | None = None


@dataclass(frozen=True)
class RoutingReport:
    """What the routed layers did in the last forward; padding is not counted.

    Attributes:
        keep_ratio: layer index -> kept tokens / tokens.
        mean_gate: layer index -> mean gate.
        num_tokens: tokens of that forward.
        keep_masks: layer index -> (B, T) bool, False at padding; None unless asked for.
    """

    keep_ratio: dict[int, float]
    mean_gate: dict[int, float]
    num_tokens: int
    keep_masks: dict[int, Tensor] | None = None


@dataclass
class Routing:
    """Shared routing state.

    Attributes:
        config: the model's settings.
        last: layer index -> decision of the last forward.
        objective: what training adds to the loss: the one that the settings name, or another that was put here for this process.
        last_objective: its value in the last forward that added it, a scalar without gradient; for logs.
        progress: share of the training that is done, in [0, 1]; whoever trains keeps it up to date, for annealed budgets.
        history: while a list, every decision is appended as (layer index, decision), those recomputed by gradient checkpointing
            too; None otherwise.
    """

    config: ModConfig
    last: dict[int, Decision] = field(default_factory=dict)
    objective: Objective | None = field(init=False)
    last_objective: Tensor | None = None
    progress: float = 1.0
    history: list[tuple[int, Decision]] | None = None
    _replay: Mapping[int, Tensor] | None = None
    _fitter: RouterFitter | None = None
    _is_as_decoded: bool = False

    def __post_init__(self) -> None:
        self.set_config(self.config)

    def set_config(self, config: ModConfig) -> None:
        """Other settings, and the objective that they name."""
        self.config = config
        self.objective = OBJECTIVES.get(config.objective)

    @property
    def is_bias_budgeted(self) -> bool:
        """Whether the routers' biases are left to a budget per layer alone."""
        return self.config.has_layer_budget and self.objective is keep_budget

    def decide(
        self,
        layer_idx: int,
        router: Router,
        hidden_BTD: Tensor,
        valid_BT: Tensor | None,
        position_ids: Tensor | None,
        num_seen: int,
    ) -> tuple[Tensor, Tensor]:
        """(gates float32, keep mask), both (B, T), of one layer's input; `num_seen` tokens per row came before."""
        read_BTD = hidden_BTD.detach() if self.config.router_gradient == "detached" else hidden_BTD
        logits_BT = router(read_BTD, position_ids, self.is_bias_budgeted)
        if self._fitter is not None:
            self._fitter.fit(router, logits_BT.detach(), valid_BT, position_ids)
            logits_BT = router(hidden_BTD, position_ids)
        if self.is_bias_budgeted and logits_BT.requires_grad:
            logits_BT.register_hook(lambda gradient_BT: centred(gradient_BT, valid_BT))
        gate_BT = torch.sigmoid(logits_BT)
        if self._replay is not None:
            keep_BT = self._replayed(layer_idx, num_seen, hidden_BTD)
        elif (
            self.config.operator == "topk"
            and not self._is_as_decoded
            and not (num_seen > 0 and hidden_BTD.shape[1] == 1)
        ):
            keep_BT = topk_keep(logits_BT, self.config.capacity, valid_BT)
        else:  # at decode top-k has no future to rank against: the threshold is its causal predictor (our choice)
            keep_BT = threshold_keep(gate_BT, self.config.threshold_p, valid_BT)
            if self.config.operator == "topk" and num_seen == 0:  # of a single token top-k keeps one
                keep_BT = keep_BT | is_first(keep_BT, valid_BT)
        self.last[layer_idx] = Decision(keep_BT, gate_BT.detach(), valid_BT)
        collection = _COLLECTION.get()
        if collection is not None and collection.routing is self:
            if collection.needs_gradient and not torch.is_grad_enabled():
                raise UnsupportedModelError(
                    "objective: the gates carry no gradient; use gradient_checkpointing_kwargs={'use_reentrant': False} or set "
                    "objective='none'"
                )
            # a value made here, inside the layer, has its gradient wherever the layer's parameters are sharded
            collection.loads.append(LayerLoad(gate_BT, keep_BT, valid_BT, router.bias.float().sum()))
        if self.history is not None:
            self.history.append((layer_idx, self.last[layer_idx]))
        return gate_BT, keep_BT

    def _replayed(self, layer_idx: int, num_seen: int, hidden_BTD: Tensor) -> Tensor:
        assert self._replay is not None, "replay is checked by the caller"
        batch, num_tokens = hidden_BTD.shape[:2]
        if layer_idx not in self._replay:
            raise RoutingError(f"replay: no keep mask for layer {layer_idx}; got layers {sorted(self._replay)}")
        keep_BT = self._replay[layer_idx][:, num_seen : num_seen + num_tokens]
        if keep_BT.shape != (batch, num_tokens):
            raise RoutingError(
                f"replay: layer {layer_idx} has masks {tuple(self._replay[layer_idx].shape)}; "
                f"tokens {num_seen} to {num_seen + num_tokens} of {batch} rows were asked for"
            )
        return keep_BT

    def report(self, keep_masks: bool = False) -> RoutingReport:
        """What the last forward kept, read back from the device."""
        loads = {
            layer: LayerLoad(last.gate_BT, last.keep_BT, last.valid_BT) for layer, last in sorted(self.last.items())
        }
        if not loads:
            return RoutingReport({}, {}, 0, {} if keep_masks else None)
        some = next(iter(loads.values()))
        num_tokens = some.keep_BT.numel() if some.valid_BT is None else int(some.valid_BT.expand_as(some.keep_BT).sum())
        return RoutingReport(
            keep_ratio={layer: load.kept_fraction().item() for layer, load in loads.items()},
            mean_gate={layer: load.mean_gate().item() for layer, load in loads.items()},
            num_tokens=num_tokens,
            keep_masks={layer: load.keep_BT for layer, load in loads.items()} if keep_masks else None,
        )

    @contextmanager
    def collecting(self) -> Iterator[list[LayerLoad]]:
        """Collect every routed layer's load of the forward inside, of this thread alone: replicas share their routing.

        A checkpointed backward afterwards adds nothing.
        """
        # reentrant checkpointing turns gradients off inside a layer
        collection = _Collection(self, [], needs_gradient=torch.is_grad_enabled())
        token = _COLLECTION.set(collection)
        try:
            yield collection.loads
        finally:
            _COLLECTION.reset(token)

    @contextmanager
    def replay(self, keep_masks: Mapping[int, Tensor]) -> Iterator[None]:
        """Use these keep masks, (B, all tokens) per layer, instead of deciding; for exactness checks.

        Under gradient checkpointing the backward decides again, so it belongs inside as well.
        """
        self._replay = keep_masks
        try:
            yield
        finally:
            self._replay = None

    @contextmanager
    def as_decoded(self) -> Iterator[None]:
        """Decide in whole-sequence forwards as a decode from the first token on would, token by token.

        That makes `topk` causal: its threshold decides, and the first token of a row, which top-k ranks alone, is kept. The other
        operators decide so anyway. For measuring what a model predicts without having seen what follows.
        """
        before, self._is_as_decoded = self._is_as_decoded, True
        try:
            yield
        finally:
            self._is_as_decoded = before

    @contextmanager
    def fitting(self, fitter: RouterFitter) -> Iterator[None]:
        """Let `fitter` set each router as the forward reaches its layer."""
        self._fitter = fitter
        try:
            yield
        finally:
            self._fitter = None


def is_first(keep_BT: Tensor, valid_BT: Tensor | None) -> Tensor:
    """(B, T) bool: the first token of each row that is not padding."""
    if valid_BT is None:
        return (torch.arange(keep_BT.shape[1], device=keep_BT.device) == 0).expand_as(keep_BT)
    return (valid_BT & (valid_BT.cumsum(1) == 1)).expand_as(keep_BT)


def centred(gradient_BT: Tensor, valid_BT: Tensor | None) -> Tensor:
    """A gradient of router logits less its mean over the tokens that are not padding.

    The mean asks for all tokens to be kept, or none: that is a budget's to say, and through the weights, whose part along the mean
    hidden state acts as another bias, the loss would take it back. Source: our choice.
    """
    if valid_BT is None:
        return gradient_BT - gradient_BT.mean()
    valid_BT = valid_BT.expand_as(gradient_BT)
    return (gradient_BT - (gradient_BT * valid_BT).sum() / valid_BT.sum().clamp(min=1)) * valid_BT


@dataclass(frozen=True)
class _Collection:
    """Gates with their graph, appended layer by layer for the training objective."""

    routing: Routing
    loads: list[LayerLoad]
    needs_gradient: bool


_COLLECTION: ContextVar[_Collection | None] = ContextVar("collection", default=None)
