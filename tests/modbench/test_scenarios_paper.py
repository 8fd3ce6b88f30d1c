"""The paper's claims as scenarios: every scale, every context, the keep ratio of its memory figure, and what is promised."""

from pathlib import Path

import pytest

from modbench.presets import PRESETS
from modbench.scenario import load_scenario

FOLDER = Path(__file__).parents[2] / "scenarios" / "paper"
BILLIONS = {"3b": 3, "7b": 7, "13b": 13, "34b": 34, "70b": 70}
SCALE_TOLERANCE = 0.15  # a model that is called 3B has 3.4 B weights at most
CONTEXTS = [2**power for power in range(12, 18)]  # 4K to 128K
MEMORY_CLAIM, MEMORY_TOLERANCE = 1.8, 0.005


@pytest.fixture(params=BILLIONS)
def named(request):
    return request.param, load_scenario(FOLDER / f"{request.param}.yaml")


def test_there_is_one_scenario_per_scale():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(BILLIONS)


def test_the_preset_has_the_size_that_it_stands_for(named):
    scale, loaded = named
    num_parameters = PRESETS[loaded.scenario.model.preset].num_parameters
    assert num_parameters / 1e9 == pytest.approx(BILLIONS[scale], rel=SCALE_TOLERANCE)


def test_contexts_go_from_4k_to_128k(named):
    assert [point.workload.context for point in named[1].points] == CONTEXTS


def test_the_keep_ratio_is_that_of_the_papers_memory_figure(named):
    for point in named[1].points:
        settings, num_layers = point.methods["threshold"], point.geometry.num_hidden_layers
        assert settings.routed_layers == "interleaved"
        num_routed = num_layers // 2
        assert num_routed * 2 == num_layers
        assert num_layers / (num_layers - num_routed + num_routed * settings.keep_ratio) == pytest.approx(
            MEMORY_CLAIM, abs=MEMORY_TOLERANCE
        )


def test_both_claims_are_about_every_context(named):
    claims = {(claim.metric, claim.operator, claim.value): claim for claim in named[1].expectations}
    assert set(claims) == {("kv_cache_reduction", ">=", 1.78), ("end_to_end_speedup", ">=", 1.2)}
    assert not any(claim.conditions for claim in claims.values())


def test_weights_are_random_and_the_prompt_is_no_file_so_that_no_edit_changes_the_work(named):
    assert named[1].scenario.model.has_random_weights
    assert named[1].scenario.workload.prompt.synthetic
    assert named[1].scenario.model.dtype == "bfloat16"
