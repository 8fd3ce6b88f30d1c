"""Tensor parallel over two gloo processes equals one process: decisions, logits, tokens, gradients, KV cache, saved weights."""

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from transformers import PreTrainedModel

from reference_impl import ModConfig, convert, load
from reference_impl.hf_families import FAMILIES
from tests.reference_impl import tensor_parallel_rank
from tests.reference_impl.conftest import FP32_TOLERANCE, dense_model, random_ids

PROJECT = Path(__file__).resolve().parents[2]
NUM_RANKS = 2
LAUNCH_TIMEOUT_S = 200.0
VOCAB_SIZE = 212  # transformers 5.17 splits a head over two ranks only where they get equal parts
OPERATORS = ("topk", "masked", "kv_only")  # of llama, beside threshold of every family


def tensor_parallel_plan(family: str) -> dict[str, str] | None:
    return FAMILIES[family].model.config_class.base_model_tp_plan


SHARDABLE = [family for family in FAMILIES if tensor_parallel_plan(family)]
CASES = {
    **{family: (family, "threshold") for family in SHARDABLE},
    **{f"llama-{name}": ("llama", name) for name in OPERATORS},
}


@dataclass(frozen=True)
class Launch:
    """What one case gave: on each rank, and in this process alone."""

    folder: Path
    family: str
    model: PreTrainedModel
    single: dict[str, Any]
    ranks: list[dict[str, Any]]


def save_case(folder: Path, family: str, operator: str) -> None:
    """A dense model and its conversion, whose random routers keep about half of the tokens."""
    dense_model(family, vocab_size=VOCAB_SIZE).save_pretrained(folder / "dense")
    model = dense_model(family, vocab_size=VOCAB_SIZE)
    torch.manual_seed(11)
    convert(model, ModConfig(operator=operator, capacity=0.5, router_bias=0.0))
    for layer in model.routed_layers:
        torch.nn.init.normal_(model.get_decoder().layers[layer].router.bias, std=0.1)
    model.save_pretrained(folder / "converted")


def run_ranks(folders: list[Path], log: Path) -> None:
    """One launch for all cases; whatever happens, no process is left."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(NUM_RANKS)]
    command = [*launcher, "-m", tensor_parallel_rank.__name__, *map(str, folders)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        exit_code: int | None = process.wait(LAUNCH_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        exit_code = None
    finally:
        end_with_children(process)
    assert exit_code == 0, f"exit code {exit_code} within {LAUNCH_TIMEOUT_S:.0f} s\n{log.read_text()}"


def end_with_children(process: subprocess.Popen) -> None:
    """The launcher gives each rank a session of its own, so they are found as its children while it still runs."""
    if process.poll() is None:
        launcher = psutil.Process(process.pid)
        launcher.suspend()  # or it would see its ranks end first
        for running in [*launcher.children(recursive=True), launcher]:
            with suppress(psutil.NoSuchProcess):
                running.kill()
        process.wait()


@pytest.fixture(scope="module")
def launches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Launch]:
    base = tmp_path_factory.mktemp("ranks")
    for case, (family, operator) in CASES.items():
        save_case(base / case, family, operator)
    run_ranks([base / case for case in CASES], base / "log")
    found = {}
    for case, (family, _) in CASES.items():
        folder = base / case
        model = tensor_parallel_rank.load_converted(folder)
        ranks = [torch.load(folder / f"rank{rank}.pt") for rank in range(NUM_RANKS)]
        found[case] = Launch(folder, family, model, tensor_parallel_rank.outcome(model), ranks)
    return found


@pytest.fixture(params=CASES)
def launch(request: pytest.FixtureRequest, launches: dict[str, Launch]) -> Launch:
    return launches[request.param]


def num_flips(first: dict[int, torch.Tensor], second: dict[int, torch.Tensor]) -> int:
    """Tokens that one kept and the other did not."""
    assert first.keys() == second.keys()
    return sum(int((first[layer] != second[layer]).sum()) for layer in first)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_a_tensor_parallel_plan(family):
    if family not in SHARDABLE:
        pytest.skip(f"transformers has no tensor parallel plan for {family}")
    assert f"model.{next(iter(tensor_parallel_plan(family)))}" in dense_model(family).tp_plan


@pytest.mark.parametrize("path", ["inference", "training", "converted_here"])
def test_every_rank_keeps_the_tokens_that_one_process_keeps(launch, path):
    expected = launch.single["training" if path == "training" else "inference"]["keep_masks"]
    assert all(0.2 < keep.float().mean() < 0.8 for keep in expected.values()), "the test needs kept and skipped tokens"
    first, second = (rank[path]["keep_masks"] for rank in launch.ranks)
    assert num_flips(first, second) == 0, "ranks that disagree exchange halves of different tokens"
    assert num_flips(first, expected) == 0, "no gate of this seed lies within rounding of the threshold"


@pytest.mark.parametrize("path", ["inference", "training", "converted_here"])
@torch.no_grad()
def test_logits_of_every_rank_equal_those_of_one_process(launch, path):
    for rank in launch.ranks:
        with launch.model.routing.replay(rank[path]["keep_masks"]):
            expected = launch.model(random_ids(3, 24)).logits
        torch.testing.assert_close(rank[path]["logits"], expected, atol=FP32_TOLERANCE, rtol=0)


def test_every_rank_generates_the_tokens_of_one_process(launch):
    assert launch.single["tokens"].shape == (3, 24 + tensor_parallel_rank.NEW_TOKENS)
    for rank in launch.ranks:
        assert torch.equal(rank["tokens"], launch.single["tokens"])


def test_kv_caches_of_the_ranks_add_up_to_that_of_one_process(launch):
    plan = tensor_parallel_plan(launch.family)
    are_heads_split = any(name.endswith("k_proj") and style == "colwise" for name, style in plan.items())
    copies = 1 if are_heads_split else NUM_RANKS  # a plan that gathers the projections keeps all heads on each rank
    assert [rank["kv_cache_bytes"] * NUM_RANKS for rank in launch.ranks] == [
        launch.single["kv_cache_bytes"] * copies
    ] * NUM_RANKS


def test_gradients_of_every_rank_equal_those_of_one_process(launch):
    for rank in launch.ranks:
        assert rank["gradients"].keys() == launch.single["gradients"].keys()
        for name, gradient in rank["gradients"].items():
            expected = launch.single["gradients"][name]
            torch.testing.assert_close(gradient, expected, atol=FP32_TOLERANCE, rtol=1e-4, msg=name)
    for layer in launch.model.routed_layers:
        assert launch.single["gradients"][f"model.layers.{layer}.router.weight"].abs().max() > 100 * FP32_TOLERANCE


def test_a_model_that_the_ranks_saved_loads_whole_in_one_process(launch):
    attention = tensor_parallel_rank.attention_of(launch.folder)
    saved = load(launch.folder / "saved", attn_implementation=attention).state_dict()
    expected = launch.model.state_dict()
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], expected[name]) for name in expected)


def test_a_model_that_is_converted_on_the_ranks_gets_the_same_random_routers_on_each(launch):
    first, second = (rank["drawn_routers"] for rank in launch.ranks)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first["model.layers.1.router.weight"].std() > 0
