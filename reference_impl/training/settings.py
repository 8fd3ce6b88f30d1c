"""TrainConfig: how a model is trained. In: keyword arguments, or the dict of a run's file. Out: a frozen, validated object."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from reference_impl.errors import TrainingError

MODES = ("full", "router", "lora")
PRECISIONS = ("fp32", "bf16")
SCHEDULES = ("linear", "cosine", "constant")
CHOICES = {"mode": MODES, "precision": PRECISIONS, "schedule": SCHEDULES}
AT_LEAST_ONE = ("steps", "batch_size", "accumulation", "log_every", "lora_rank", "keep_checkpoints", "evaluate_rows")


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained, apart from the model's own objective (ModConfig) and the text (DataConfig).

    Defaults without a source are our choice.

    Attributes:
        steps: optimiser steps of the whole training.
        batch_size: rows per device and forward; `accumulation` of them make a step.
        learning_rate: of everything but the routers, at its highest. Source: 3e-5 for a pretrained model, secondary reports of the
            paper.
        router_learning_rate: of the routers' weights, at its highest; they begin from nothing.
        bias_learning_rate: of the routers' biases, in logits per step, at its highest: how fast kept shares can move.
        budget_rate: logits per step by which biases move towards a budget per layer (ModConfig), in the place of their learning
            rate; near it they go half of the way. It stays the same throughout, so that the budget is still held when the
            learning rates have fallen to 0.
        warmup_steps: over which learning rates rise from 0.
        schedule: how they fall to 0 afterwards; `constant` stays.
        weight_decay, max_gradient_norm: of AdamW and of clipping; norms, biases and routers do not decay; 0 clips nothing.
        mode: `full` trains everything, `router` the routers alone, `lora` adapters of rank `lora_rank` on all linear layers but the
            head, and the routers; the adapters are merged at the end.
        distillation: weight of KL(teacher || model) in nats per token, beside the language-model loss; 0 without a teacher.
        precision: `bf16` computes in bfloat16 under autocast; weights that train stay float32.
        gradient_checkpointing: recompute layers in the backward, for memory.
        seed: of everything that training draws; the order of the data has its own (DataConfig).
        num_workers: processes that read data beside the training; 0 reads in between.
        log_every, save_every, evaluate_every: steps; 0 saves no checkpoint, or evaluates at the end alone.
        keep_checkpoints: how many of the newest stay.
        evaluate_rows: held-out rows to evaluate on; none where nothing is held out.

    Raises:
        TrainingError: a value is out of its range.
    """

    steps: int
    batch_size: int = 8
    accumulation: int = 1
    learning_rate: float = 3e-5
    router_learning_rate: float = 1e-3
    bias_learning_rate: float = 0.02
    budget_rate: float = 0.1
    warmup_steps: int = 0
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    mode: Literal["full", "router", "lora"] = "full"
    lora_rank: int = 16
    distillation: float = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = False
    seed: int = 0
    num_workers: int = 0
    log_every: int = 10
    save_every: int = 500
    evaluate_every: int = 0
    keep_checkpoints: int = 2
    evaluate_rows: int = 64

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise TrainingError(f"{name}: got {getattr(self, name)!r}; expected one of {', '.join(allowed)}")
        for name in (field.name for field in fields(self) if field.type is int):
            value, least = getattr(self, name), int(name in AT_LEAST_ONE)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise TrainingError(f"{name}: got {value!r}; expected an integer >= {least}")
        for name in (field.name for field in fields(self) if field.type is float):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not 0 <= value < math.inf:
                raise TrainingError(f"{name}: got {value!r}; expected a finite number >= 0{_how_to_write(value)}")
        if not isinstance(self.gradient_checkpointing, bool):
            raise TrainingError(f"gradient_checkpointing: got {self.gradient_checkpointing!r}; expected true or false")
        if self.warmup_steps > self.steps:
            raise TrainingError(
                f"warmup_steps: got {self.warmup_steps}; expected at most the {self.steps} steps there are"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready settings; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "TrainConfig":
        """Settings of a file -> TrainConfig.

        Raises:
            TrainingError: a key is unknown or missing, or a value out of its range.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(str(key) for key in settings if key not in known)
        if unknown:
            raise TrainingError(f"{unknown[0]}: unknown setting; expected some of {', '.join(known)}")
        if "steps" not in settings:
            raise TrainingError("steps: missing; expected the number of optimiser steps")
        return cls(**settings)


def _how_to_write(value: Any) -> str:
    """YAML reads 3e-5 as a text."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return ""
    mantissa, _, exponent = str(value).partition("e")
    is_text_of_a_number = isinstance(value, str) and math.isfinite(number) and exponent and "." not in mantissa
    return f": write {mantissa}.0e{exponent}" if is_text_of_a_number else ""
