"""The original model: the baseline of every ratio."""

from collections.abc import Mapping
from typing import ClassVar

import torch

from modbench.methods.base import DENSE_AT_P0, Method, Subject
from modbench.methods.checkpoint import build_stock
from modbench.methods.hf_model import HfSubject
from modbench.plan import PointWork


class Dense(Method):
    """Settings: `kv_cache`, `stock` (transformers' dynamic cache) or `chunked` (this project's growing one); `checkpoint`."""

    declared: ClassVar[Mapping[str, str]] = {DENSE_AT_P0: "it is the dense model"}

    def build(self, point: PointWork, device: torch.device) -> Subject:
        """The stock model, untouched; the checkpoint's where there is one."""
        return HfSubject(build_stock(self.settings, point, device), self.settings["kv_cache"])
