from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from modbench import command_calibrate
from modbench.command_calibrate import CalibrateOptions, calibrate_command
from modbench.errors import LaunchError


def test_a_budget_that_is_too_small_is_named_as_the_reason(monkeypatch, tmp_path):
    bench = SimpleNamespace(
        sides=(),
        num_open_launches=4,
        expected_quad_s=lambda: (100.0, False),
        comparisons=dict,
        announce=lambda num_quads: None,
    )

    @contextmanager
    def benches(*arguments):
        yield (bench,)

    monkeypatch.setattr(command_calibrate, "end_as_interrupt", lambda: None)
    monkeypatch.setattr(command_calibrate, "working_tree", lambda repository: None)
    monkeypatch.setattr(command_calibrate, "SideSession", lambda *arguments: None)
    monkeypatch.setattr(command_calibrate, "open_benches", benches)
    options = CalibrateOptions(None, 40, 0.03, tmp_path / "out", 60.0, False, False, True, "modbench calibrate")
    with pytest.raises(LaunchError, match=r"calibrate: --budget ended it at 0 of 40 pairs, and nothing was kept"):
        calibrate_command(options, [])
