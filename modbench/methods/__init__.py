"""WHAT is measured: one file per method. `METHODS[kind](settings)` is the recipe; add a method by adding a file and a line here."""

from modbench.methods.base import Method, Program, Subject
from modbench.methods.command import Command
from modbench.methods.dense import Dense
from modbench.methods.entry import Entry
from modbench.methods.kv_only import KvOnly
from modbench.methods.masked import Masked
from modbench.methods.skip_layers import SkipLayers
from modbench.methods.threshold import Threshold
from modbench.methods.topk import Topk

METHODS: dict[str, type[Method]] = {
    "dense": Dense,
    "threshold": Threshold,
    "topk": Topk,
    "skip_layers": SkipLayers,
    "masked": Masked,
    "kv_only": KvOnly,
    "entry": Entry,
    "command": Command,
}

__all__ = ["METHODS", "Method", "Program", "Subject"]
