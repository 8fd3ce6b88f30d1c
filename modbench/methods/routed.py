"""What the methods with routers share: convert the point's model or load a converted one, calibrate, build the unit variant."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from modbench.methods.base import Method, Subject
from modbench.methods.checkpoint import CHECKPOINT, load_as_stock, load_converted
from modbench.methods.hf_model import ROUTER_SEED_OFFSET, HfSubject, build_model
from modbench.plan import PointWork
from reference_impl import ModConfig, calibrate, convert


class RoutedMethod(Method):
    """A converted model, made here or saved before; subclasses name the operator."""

    operator: ClassVar[str]

    def mod_config(self) -> ModConfig:
        """Scenario settings -> ModConfig."""
        return ModConfig.from_dict(
            {
                "operator": self.operator,
                "routed_layers": list(self.settings["routed_layers"]),
                **{key: self.settings[key] for key in ("threshold_p", "capacity", "gate") if key in self.settings},
            }
        )

    def target_keep_ratio(self) -> float | None:
        """`keep_ratio` of the settings; None for a checkpoint, whose routers are as trained."""
        return self.settings.get("keep_ratio")

    def build(self, point: PointWork, device: torch.device) -> Subject:
        """The converted model with seeded routers, or the checkpoint with its own."""
        return self._build(point, device, {})

    def build_unit(self, point: PointWork, device: torch.device) -> Subject | None:
        """p = 0 and unit gates: everything is kept and nothing is scaled."""
        return self._build(point, device, {"gate": "unit", "threshold_p": 0.0, "capacity": 1.0})

    def build_dense(self, point: PointWork, device: torch.device) -> Subject | None:
        """Of a checkpoint, the stock model with its weights."""
        if CHECKPOINT not in self.settings:
            return None
        return HfSubject(load_as_stock(self.settings, point, device))

    def _build(self, point: PointWork, device: torch.device, changes: Mapping[str, Any]) -> Subject:
        if CHECKPOINT in self.settings:
            return HfSubject(load_converted(self.settings, point, device, {"operator": self.operator, **changes}))
        model = build_model(point, device)
        torch.manual_seed(point.workload["seed"] + ROUTER_SEED_OFFSET)
        config = ModConfig.from_dict({**self.mod_config().to_dict(), **changes})
        return HfSubject(convert(model, config, attention=point.attention))

    def calibrate(self, subject: Subject, input_ids: Tensor, prompt_length: int) -> None:
        """Set the routers so that prompt and continuation of this text each keep the target share."""
        target = self.target_keep_ratio()
        if target is None:
            return
        assert isinstance(subject, HfSubject), "routed methods build HfSubject"
        calibrate(subject.model, input_ids, target, prompt_length)
        subject.take_decisions()  # the calibrating forward is not part of any phase
