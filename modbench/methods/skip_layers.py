"""The model with its routed layers removed: the cheapest thing a user could do instead of routing."""

from collections.abc import Mapping
from typing import ClassVar

import torch

from modbench.methods.base import DENSE_AT_P0, Method, Subject
from modbench.methods.hf_model import HfSubject, build_model
from modbench.plan import PointWork
from reference_impl.hf_families import remove_layers


class SkipLayers(Method):
    """Settings: `routed_layers` (those removed), `kv_cache` as for dense."""

    declared: ClassVar[Mapping[str, str]] = {DENSE_AT_P0: "there is no threshold"}

    def build(self, point: PointWork, device: torch.device) -> Subject:
        """The stock model, a stack of the remaining layers."""
        model = build_model(point, device)
        remove_layers(model, self.removed_layers())
        return HfSubject(model, self.settings["kv_cache"])

    def removed_layers(self) -> tuple[int, ...]:
        """`routed_layers`."""
        return tuple(self.settings["routed_layers"])
