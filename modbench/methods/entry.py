"""A user's own implementation: `entry: package.module:factory`, imported in the worker, and only with `--allow-entry`.

The factory is called as `factory(point: dict, options: dict, device: str)` and returns an object with the methods of
`modbench.methods.base.Subject` (subclassing it is the easy way). It calibrates itself if it has something to calibrate.

With `python: INTERPRETER` it is imported there instead, by the host script `entry_host.py`, which times it with the same clocks.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch

from modbench.errors import UnsupportedError
from modbench.methods.base import DENSE_AT_P0, Method, Program, Subject
from modbench.plan import PointWork

HOST_FILE = Path(__file__).parents[1] / "entry_host.py"
# Python puts the folder of a script that it is given before all others, and modbench's own modules must not be found there.
START_HOST = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
REQUIRED = ("prefill", "decode", "kv_cache_bytes", "take_decisions", "replay")


class Entry(Method):
    """Settings: `entry` (package.module:factory), `options` (a mapping handed to it), `python` (another interpreter)."""

    declared: ClassVar[Mapping[str, str]] = {DENSE_AT_P0: "a user's own method; it has no known p"}

    keeps_all_unless_told: ClassVar[bool] = False

    def program(self) -> Program | None:
        """The host script under the interpreter that was named."""
        python = self.settings.get("python")
        return None if python is None else Program((python, "-c", START_HOST, str(HOST_FILE)), "python")

    def build(self, point: PointWork, device: torch.device) -> Subject:
        """Import the factory and call it.

        Raises:
            UnsupportedError: the module or factory is not there, or what it returned is not a subject.
        """
        module_name, factory_name = self.settings["entry"].split(":")
        try:
            factory = getattr(importlib.import_module(module_name), factory_name)
        except (ImportError, AttributeError) as error:
            raise UnsupportedError(f"entry: {self.settings['entry']}: {error}; is it importable from here?") from error
        subject = factory(point.model_dump(mode="json"), dict(self.settings["options"]), str(device))
        missing = [name for name in REQUIRED if not callable(getattr(subject, name, None))]
        if missing:
            raise UnsupportedError(
                f"entry: {self.settings['entry']} returned a {type(subject).__name__} without {', '.join(missing)}; "
                "expected a modbench.methods.base.Subject"
            )
        return subject
