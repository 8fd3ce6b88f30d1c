"""Methods that run a saved model: whose weights and routers they have, that the guard holds for them, and what records say."""

import json

import pytest
import torch

from modbench import worker
from modbench.errors import UnsupportedError
from modbench.guard import check_identities
from modbench.methods import METHODS
from modbench.methods.routed import RoutedMethod
from modbench.record import CHECKPOINT_ROUTER, ROUTER_FLAGS
from reference_impl import ModConfig, UnsupportedModelError, load
from reference_impl.naive import naive_forward
from tests.modbench.jobs import FAMILY_MICRO, make_job, make_point
from tests.modbench.saved_models import ROUTED, dense_model, save_converted, save_dense, save_shorter

CPU = torch.device("cpu")
IDS = torch.arange(60)[None]
THRESHOLD_RULE = ("threshold", "masked", "kv_only")


@pytest.fixture(autouse=True)
def _keep_thread_count():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    return save_converted(tmp_path_factory.mktemp("converted"))


def routed(folder, **changes):
    """As a plan resolves it."""
    settings = {"checkpoint": str(folder), "checkpoint_sha256": "x", "routed_layers": list(ROUTED), "gate": "shared"}
    return {**settings, "threshold_p": 0.55, **changes}


def topk(folder):
    config = ModConfig(operator="topk", routed_layers=ROUTED, capacity=0.25, objective="topk_predictor")
    settings = routed(save_converted(folder, config=config), capacity=0.25)
    settings.pop("threshold_p")
    return settings


@torch.inference_mode()
@pytest.mark.parametrize("kind", THRESHOLD_RULE)
def test_a_checkpoint_decides_with_its_own_routers_whichever_method_runs_it(converted, kind):
    settings = routed(converted)
    subject = METHODS[kind](settings).build(make_point(settings), CPU)
    METHODS[kind](settings).calibrate(subject, IDS, 30)  # nothing to set
    subject.prefill(IDS)
    (decisions,) = subject.take_decisions()
    _, masks = naive_forward(load(converted).eval(), IDS[0])
    assert subject.model.routing.config.operator == kind
    assert {layer: decision.keep_BT[0].tolist() for layer, decision in decisions.items()} == {
        layer: list(keep) for layer, keep in masks.items()
    }
    kept = torch.cat([decision.keep_BT for decision in decisions.values()]).float().mean()
    assert 0.1 < kept < 0.6, "some and not all, or this test shows nothing"


@torch.inference_mode()
def test_dense_and_shorter_checkpoints_have_their_own_weights(tmp_path):
    own, short = save_dense(tmp_path / "own", seed=11), save_shorter(tmp_path / "short", (0, 2), seed=12)
    point = make_point({})
    dense = METHODS["dense"]({"kv_cache": "stock", "checkpoint": str(own)}).build(point, CPU)
    torch.testing.assert_close(dense.prefill(IDS)[0], dense_model(seed=11)(IDS).logits[:, -1:])
    settings = {"kv_cache": "stock", "checkpoint": str(short), "counted_as_removed": [2, 3]}
    method = METHODS["skip_layers"](settings)
    _, cache = method.build(point, CPU).prefill(IDS)
    assert len(cache.layers) == 2
    assert method.removed_layers() == (2, 3)


@pytest.mark.parametrize("kind", THRESHOLD_RULE)
def test_the_guard_passes_a_checkpoint_against_the_dense_model_of_its_own_weights(converted, kind):
    settings = routed(converted)
    outcome = check_identities(METHODS[kind](settings), make_point(settings), CPU)
    assert set(outcome.identities.values()) == {"passed"}, outcome.detail
    assert "% of its text" in outcome.detail


@pytest.mark.parametrize("family", ["qwen2", "gemma3_text"])
def test_the_guard_passes_checkpoints_of_windowed_families(tmp_path, family):
    geometry = FAMILY_MICRO[family]
    settings = routed(save_converted(tmp_path, geometry))
    outcome = check_identities(METHODS["threshold"](settings), make_point(settings, geometry=geometry), CPU)
    assert set(outcome.identities.values()) == {"passed"}, outcome.detail


def test_the_guard_passes_topk_and_dense_checkpoints(tmp_path):
    settings = topk(tmp_path / "topk")
    found = check_identities(METHODS["topk"](settings), make_point(settings), CPU).identities
    assert found["dense_at_p0"] == "passed"
    assert "failed" not in found.values()
    dense = {"kv_cache": "stock", "checkpoint": str(save_dense(tmp_path / "dense"))}
    assert "failed" not in check_identities(METHODS["dense"](dense), make_point(dense), CPU).identities.values()


def test_another_dense_model_than_the_checkpoints_own_would_be_caught(converted, monkeypatch):
    monkeypatch.setattr(RoutedMethod, "build_dense", lambda *_: None)  # the point's model, whose weights are others
    settings = routed(converted)
    assert (
        check_identities(METHODS["threshold"](settings), make_point(settings), CPU).identities["dense_at_p0"]
        == "failed"
    )


def launched(tmp_path, kind, settings):
    result = worker.do_job(make_job(tmp_path, kind, settings=settings))
    assert result.record is not None, result.error
    return result.record


def test_a_record_says_that_the_router_is_the_checkpoints(tmp_path, converted):
    record = launched(tmp_path, "threshold", routed(converted))
    assert record.status == "ok", record.error
    assert [flag for flag in record.flags if flag in ROUTER_FLAGS] == [CHECKPOINT_ROUTER]
    assert record.keep_ratio.prefill[0] == 1.0
    assert all(0 < record.keep_ratio.prefill[layer] < 1 for layer in ROUTED)


def test_a_trained_topk_predictor_is_held_to_no_target(tmp_path):
    record = launched(tmp_path, "topk", topk(tmp_path / "saved"))
    assert record.status == "ok", record.error
    assert record.keep_ratio.prefill[ROUTED[0]] == 0.25
    assert CHECKPOINT_ROUTER in record.flags


def test_a_shorter_checkpoint_has_no_router_to_speak_of(tmp_path):
    saved = str(save_shorter(tmp_path / "saved", (0, 2)))
    settings = {"kv_cache": "stock", "checkpoint": saved, "counted_as_removed": [2, 3]}
    record = launched(tmp_path, "skip_layers", settings)
    assert record.keep_ratio.decode == [1.0, 1.0, 0.0, 0.0]
    assert not set(record.flags) & set(ROUTER_FLAGS)


def test_the_attention_asked_for_is_that_of_routed_layers(converted):
    settings = routed(converted)
    subject = METHODS["threshold"](settings).build(make_point(settings, attention="sdpa"), CPU)
    assert subject.attention_path == "sdpa, routed layers: sdpa per row"
    with pytest.raises(UnsupportedModelError, match="torch_varlen"):
        METHODS["threshold"](settings).build(make_point(settings, attention="torch_varlen"), CPU)


def test_weights_that_are_not_all_there_are_one_line(tmp_path):
    folder = save_converted(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["modification"]["routed_layers"] = [0, 1]
    (folder / "config.json").write_text(json.dumps(config))
    settings = routed(folder)
    with pytest.raises(UnsupportedError, match=r"^checkpoint: .*missing keys: model\.layers\.0\.router") as caught:
        METHODS["threshold"](settings).build(make_point(settings), CPU)
    assert "\n" not in str(caught.value)
    dense = save_shorter(tmp_path / "short", (3,))
    config = json.loads((dense / "config.json").read_text())
    (dense / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    with pytest.raises(UnsupportedError, match=r"the weights have no model\.layers\.3\.\S+, 9 missing in all"):
        METHODS["dense"]({"kv_cache": "stock", "checkpoint": str(dense)}).build(make_point({}), CPU)
