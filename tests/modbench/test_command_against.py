"""The command that a check of two revisions suggests for one point."""

import shlex
from pathlib import Path

from modbench.command_against import AgainstOptions, rerun_command_of
from modbench.environments import Mode
from modbench.gate_output import GateOptions
from modbench.scenario import load_scenario

SCENARIO = Path(__file__).parents[2] / "scenarios" / "ci.yaml"


def test_a_rerun_judges_by_the_same_rules_on_the_same_settings():
    options = AgainstOptions("main", 0.1, GateOptions(), ["tpot_s"], ("dense",), Mode.OWN, "make x", allow_entry=True)
    words = shlex.split(rerun_command_of([load_scenario(SCENARIO, ["measure.samples=7"])], options))
    assert words[:5] == ["modbench", "check", "--against", "main", str(SCENARIO)]
    expected = "--method dense --metric tpot_s --tolerance 10% --environment own --install X --allow-entry --set measure.samples=7"
    assert words[5:] == ["make x" if word == "X" else word for word in expected.split()]


def test_a_rerun_names_no_defaults():
    options = AgainstOptions("main", 0.03, GateOptions())
    assert rerun_command_of([load_scenario(SCENARIO)], options) == f"modbench check --against main {SCENARIO}"
