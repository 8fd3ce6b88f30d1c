"""Anybody's engine: `command: [program, argument, ...]`, a program that builds, warms up and times itself.

Only with `--allow-entry`. It reads a run spec on its standard input and answers with one line of JSON (docs/engines.md). No
identity can be checked: it answers with numbers and not with logits.
"""

from typing import ClassVar

import torch

from modbench.methods.base import Method, Program, Subject
from modbench.plan import PointWork


class Command(Method):
    """Settings: `command` (a list of words), `options` (a mapping that the program reads), `env` (its environment variables)."""

    keeps_all_unless_told: ClassVar[bool] = False

    def program(self) -> Program:
        """What the scenario names."""
        return Program(tuple(self.settings["command"]), "command", self.settings["env"])

    def build(self, point: PointWork, device: torch.device) -> Subject:
        """Never called: its program builds it."""
        raise AssertionError("a method with a program of its own is not built in the worker")
