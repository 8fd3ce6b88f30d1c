"""The original model: the baseline of every ratio."""

from collections.abc import Mapping
from typing import ClassVar

import torch

from modbench.methods.base import DENSE_AT_P0, Method, Subject
from modbench.methods.hf_model import HfSubject, build_model
from modbench.plan import PointWork


class Dense(Method):
    """Settings: `kv_cache`, `stock` (transformers' dynamic cache) or `chunked` (this project's growing one)."""

    declared: ClassVar[Mapping[str, str]] = {DENSE_AT_P0: "it is the dense model"}

    def build(self, point: PointWork, device: torch.device) -> Subject:
        """The stock model, untouched."""
        return HfSubject(build_model(point, device), self.settings["kv_cache"])
