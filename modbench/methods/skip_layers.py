"""The model with its routed layers removed: the cheapest thing a user could do instead of routing."""

from collections.abc import Mapping
from typing import ClassVar

import torch

from modbench.methods.base import DENSE_AT_P0, Method, Subject
from modbench.methods.checkpoint import CHECKPOINT, build_stock
from modbench.methods.hf_model import HfSubject
from modbench.plan import PointWork
from reference_impl.hf_families import remove_layers


class SkipLayers(Method):
    """Settings: `routed_layers` (those removed), `kv_cache` as for dense; or a `checkpoint` that has fewer layers."""

    declared: ClassVar[Mapping[str, str]] = {DENSE_AT_P0: "there is no threshold"}

    def build(self, point: PointWork, device: torch.device) -> Subject:
        """The stock model, a stack of the remaining layers."""
        model = build_stock(self.settings, point, device)
        if CHECKPOINT not in self.settings:
            remove_layers(model, self.removed_layers())
        return HfSubject(model, self.settings["kv_cache"])

    def removed_layers(self) -> tuple[int, ...]:
        """`routed_layers`; of a checkpoint, which does not say, layers that are like those it lacks."""
        key = "counted_as_removed" if CHECKPOINT in self.settings else "routed_layers"
        return tuple(self.settings[key])
