"""ModConfig: the settings of a MoDified model.

In: keyword arguments, or the dict of a checkpoint. Out: a frozen, validated object.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from reference_impl.errors import ModConfigError

OPERATORS = ("threshold", "topk", "masked", "kv_only")
GATES = ("shared", "unit")
OBJECTIVES = ("load_reducing", "keep_budget", "topk_predictor", "none")
BUDGETS = ("layer", "model")
SKIPPED_GRADIENTS = ("none", "straight_through")
ROUTER_GRADIENTS = ("through", "detached")
CHOICES = {
    "operator": OPERATORS,
    "gate": GATES,
    "objective": OBJECTIVES,
    "budget": BUDGETS,
    "skipped_gradient": SKIPPED_GRADIENTS,
    "router_gradient": ROUTER_GRADIENTS,
}
TRAINING_SETTINGS = (  # that change nothing about a trained model
    "objective",
    "objective_alpha",
    "target_keep_ratio",
    "budget",
    "budget_anneal",
    "skipped_gradient",
    "router_gradient",
)
NUMBERS = (
    "threshold_p",
    "capacity",
    "router_bias",
    "router_std",
    "objective_alpha",
    "target_keep_ratio",
    "budget_anneal",
)


@dataclass(frozen=True)
class ModConfig:
    """How a dense model is turned into a Mixture-of-Depths model.

    Attributes:
        operator: `threshold` keeps a token where its gate reaches `threshold_p` (the paper's operator); `topk` keeps the
            `capacity` share with the highest scores per sequence (MoD as published); `masked` and `kv_only` are controls
            that decide as `threshold` does but save no work, or only KV memory (our choice).
        threshold_p: gate value in [0, 1) at which a token is kept. Source: 0.5 in secondary reports of the paper.
        capacity: share in (0, 1] kept by `topk`; k = ceil(capacity * tokens) per sequence.
        routed_layers: `interleaved` (every other layer, the second one first: secondary reports of the paper), indices, or the
            share of the layers in (0, 1], spread evenly with the first ones dense (our choice; 0.5 is `interleaved` where the
            number of layers is even).
        gate: `shared` multiplies the outputs of attention and MLP by the same gate before each residual add (secondary
            reports of the paper); `unit` leaves them as they are (our choice, for exactness tests).
        router_bias: initial router bias in logits. Source: our choice; 2.0 puts gates near 0.88, so conversion starts near
            the dense model, keeping nearly every token.
        router_std: standard deviation of the initial router weights, times 1/sqrt(hidden size). Source: our choice.
        objective: what training adds to the language-model loss (objective.py): `load_reducing` (the paper's), `keep_budget` (a
            chosen keep ratio, our choice), `topk_predictor` (MoD's, for `topk` at decode), or `none`.
        objective_alpha: factor of `load_reducing` and `topk_predictor`, >= 0. Source: 0.01 in secondary reports of the paper.
        target_keep_ratio: share in (0, 1] of the tokens that `keep_budget` lets routed layers keep. 1/9 makes the KV cache of an
            interleaved model 1.8 times smaller.
        budget: `layer` holds every routed layer to the target, `model` their mean alone.
        budget_anneal: share in [0, 1] of the training over which the target falls evenly from 1 to its value.
        skipped_gradient: what a token that a layer skips tells its router: `none` (the paper's, as far as is known), or
            `straight_through`, an estimate of what keeping it would have changed in the loss (our choice; executions.py).
        router_gradient: whether the loss reaches a layer's input `through` its router (the paper's, as far as is known), or routers
            are `detached`: they read the hidden states and do not steer them (our choice; docs/method.md).

    Raises:
        ModConfigError: a value is out of its range.
    """

    operator: Literal["threshold", "topk", "masked", "kv_only"] = "threshold"
    threshold_p: float = 0.5
    capacity: float = 0.125
    routed_layers: Literal["interleaved"] | tuple[int, ...] | float = "interleaved"
    gate: Literal["shared", "unit"] = "shared"
    router_bias: float = 2.0
    router_std: float = 1.0
    objective: Literal["load_reducing", "keep_budget", "topk_predictor", "none"] = "load_reducing"
    objective_alpha: float = 0.01
    target_keep_ratio: float = 1 / 9
    budget: Literal["layer", "model"] = "layer"
    budget_anneal: float = 0.0
    skipped_gradient: Literal["none", "straight_through"] = "none"
    router_gradient: Literal["through", "detached"] = "through"

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ModConfigError(f"{name}: got {getattr(self, name)!r}; expected one of {', '.join(allowed)}")
        for name in NUMBERS:
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise ModConfigError(f"{name}: got {value!r}; expected a number")
        if not 0 <= self.threshold_p < 1:
            raise ModConfigError(f"threshold_p: got {self.threshold_p}; expected a number in [0, 1)")
        for name in ("capacity", "target_keep_ratio"):
            if not 0 < getattr(self, name) <= 1:
                raise ModConfigError(f"{name}: got {getattr(self, name)}; expected a number in (0, 1]")
        if not 0 <= self.budget_anneal <= 1:
            raise ModConfigError(f"budget_anneal: got {self.budget_anneal}; expected a number in [0, 1]")
        if not math.isfinite(self.router_bias):
            raise ModConfigError(f"router_bias: got {self.router_bias}; expected a finite number")
        for name in ("router_std", "objective_alpha"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ModConfigError(f"{name}: got {getattr(self, name)}; expected a finite number >= 0")
        if (self.objective == "topk_predictor") > (self.operator == "topk"):
            raise ModConfigError(f"objective: got topk_predictor for operator {self.operator}; expected operator topk")
        if self.objective == "keep_budget" and self.threshold_p == 0:
            raise ModConfigError(
                "threshold_p: got 0, at which every token is kept; keep_budget expects a number in (0, 1)"
            )
        if self.objective == "keep_budget" and self.operator == "topk":
            raise ModConfigError("objective: got keep_budget for operator topk, whose capacity decides; leave one out")
        if self.skipped_gradient == "straight_through" and self.operator != "threshold":
            raise ModConfigError(
                f"skipped_gradient: got straight_through for operator {self.operator}; expected operator threshold"
            )
        object.__setattr__(self, "routed_layers", _checked_layers(self.routed_layers))

    @property
    def has_layer_budget(self) -> bool:
        """Whether each routed layer is held to a keep ratio, by its bias alone."""
        return self.objective == "keep_budget" and self.budget == "layer"

    def resolve_layers(self, num_layers: int) -> tuple[int, ...]:
        """Indices of the routed layers of a model with `num_layers` layers, ascending.

        Raises:
            ModConfigError: an index is beyond the model, or a one-layer model has no layer to interleave.
        """
        if isinstance(self.routed_layers, str):
            layers = tuple(range(1, num_layers, 2))
            if not layers:
                raise ModConfigError(f"routed_layers: interleaved needs at least 2 layers; the model has {num_layers}")
            return layers
        if isinstance(self.routed_layers, float):
            num_routed = max(1, round(self.routed_layers * num_layers))
            return tuple((count + 1) * num_layers // num_routed - 1 for count in range(num_routed))
        if self.routed_layers[-1] >= num_layers:
            raise ModConfigError(f"routed_layers: got {self.routed_layers[-1]}; expected 0 to {num_layers - 1}")
        return self.routed_layers

    def rule(self) -> str:
        """What decides, in words: `threshold, p = 0.5`."""
        return f"{self.operator}, " + (
            f"capacity = {self.capacity:g}" if self.operator == "topk" else f"p = {self.threshold_p:g}"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready settings; `from_dict` reads them back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "ModConfig":
        """Settings of a checkpoint -> ModConfig.

        Raises:
            ModConfigError: a key is unknown or a value out of its range.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise ModConfigError(f"{unknown[0]}: unknown setting; expected some of {', '.join(sorted(known))}")
        return cls(**settings)


def _checked_layers(given: Any) -> "Literal['interleaved'] | tuple[int, ...] | float":
    """The setting in its stored form: indices ascending, a share as float."""
    expected = "expected 'interleaved', distinct layer indices >= 0, or a share in (0, 1] such as 0.5"
    if given == "interleaved":
        return "interleaved"
    if isinstance(given, float):
        if not 0 < given <= 1:
            raise ModConfigError(f"routed_layers: got {given}; {expected}")
        return given
    is_list = isinstance(given, list | tuple | range)
    if not is_list or not all(isinstance(index, int) and not isinstance(index, bool) for index in given):
        raise ModConfigError(f"routed_layers: got {given!r}; {expected}")
    layers = tuple(sorted(given))
    if not layers or len(set(layers)) != len(layers) or layers[0] < 0:
        raise ModConfigError(f"routed_layers: got {given!r}; {expected}")
    return layers
