"""What launches took is remembered per point, method and machine, and scaled to other sizes."""

import json

import pytest

from modbench import machine_cache
from modbench.launch_costs import MAX_POINTS, Expected, LaunchCosts
from modbench.plan import RunSpec, build_plan
from modbench.scenario import load_scenario

SCENARIO = """\
name: timed
model: {preset: tiny}
methods: {dense: {}, skip_layers: {}}
workload: {context: 8, new_tokens: 8, prompt: {synthetic: true}}
measure: {launches: 2, device: cpu}
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def specs(tmp_path, context: int = 8, text: str = SCENARIO) -> list[RunSpec]:
    """dense, skip_layers, skip_layers, dense."""
    (tmp_path / "s.yaml").write_text(text)
    loaded = load_scenario(tmp_path / "s.yaml", [f"workload.context={context}"])
    return build_plan(loaded, "run", "cpu").quads(0, 0, 1)


def test_nothing_is_expected_before_anything_was_measured(tmp_path):
    assert LaunchCosts().expect(specs(tmp_path)[0], "m") is None


def test_a_point_is_known_to_later_runs_on_the_same_machine_alone(tmp_path):
    first, _, _, last = specs(tmp_path)
    costs = LaunchCosts()
    costs.add(first, "m", 7.0)
    costs.add(last, "m", 2.0)
    costs.add(last, "m", 4.0)
    for known in (costs, LaunchCosts()):
        assert known.expect(last, "m") == Expected(3.0, is_scaled=False)
        assert known.expect(first, "m") == Expected(7.0, is_scaled=False), "the first launch starts the server"
    assert LaunchCosts().expect(last, "other") is None


def test_a_new_run_replaces_what_an_earlier_one_measured(tmp_path):
    last = specs(tmp_path)[-1]
    LaunchCosts().add(last, "m", 9.0)
    LaunchCosts().add(last, "m", 1.0)
    assert LaunchCosts().expect(last, "m") == Expected(1.0, is_scaled=False)


def test_another_size_is_scaled_by_tokens_and_the_servers_start_is_not(tmp_path):
    first, _, _, last = specs(tmp_path, context=8)
    costs = LaunchCosts()
    costs.add(first, "m", 7.0)
    costs.add(last, "m", 3.0)
    large = specs(tmp_path, context=40)
    assert costs.expect(large[-1], "m") == Expected(9.0, is_scaled=True), "48 tokens against 16"
    assert costs.expect(large[0], "m") == Expected(13.0, is_scaled=True)
    assert costs.expect(large[1], "m") is None, "another method"


def test_the_nearest_size_is_scaled(tmp_path):
    costs = LaunchCosts()
    costs.add(specs(tmp_path, context=8)[1], "m", 100.0)
    costs.add(specs(tmp_path, context=120)[1], "m", 2.0)
    assert costs.expect(specs(tmp_path, context=56)[1], "m") == Expected(1.0, is_scaled=True)


@pytest.mark.parametrize(
    ("old", "new"), [("device:", "samples: 9, device:"), ("skip_layers: {}", "skip_layers: {routed_layers: [2]}")]
)
def test_other_sampling_or_settings_are_another_method(tmp_path, old, new):
    LaunchCosts().add(specs(tmp_path)[1], "m", 1.0)
    assert LaunchCosts().expect(specs(tmp_path, text=SCENARIO.replace(old, new))[1], "m") is None


@pytest.mark.parametrize("damage", [[], {"p": 1}, {"p": {"num_tokens": 0, "later_s": 1.0}}, {"p": {"num_tokens": "x"}}])
def test_what_cannot_be_used_is_forgotten(tmp_path, damage):
    spec = specs(tmp_path)[1]
    LaunchCosts().add(spec, "m", 1.0)
    (file,) = (machine_cache.cache_folder() / "launch_costs").glob("*.json")
    file.write_text(json.dumps({"key": None, "value": damage}))
    assert LaunchCosts().expect(spec, "m") is None


def test_only_so_many_sizes_are_kept(tmp_path):
    costs = LaunchCosts()
    for context in range(8, 8 + MAX_POINTS + 1):
        costs.add(specs(tmp_path, context=context)[1], "m", 1.0)
    found = LaunchCosts()
    assert found.expect(specs(tmp_path, context=8)[1], "m").is_scaled, "the oldest"
    assert not found.expect(specs(tmp_path, context=9)[1], "m").is_scaled
