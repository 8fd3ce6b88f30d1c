"""Traced launches for real, on a CPU: their files, their parts, and nothing of them left behind."""

import gzip
import json

import pytest
import torch

from modbench import worker
from modbench.methods import METHODS
from modbench.profiling import range_hooks
from modbench.profiling.trace import trace_sample
from modbench.trace_record import OTHER, OWN_COST, PHASES, RANGES, ROUTING_RANGES
from reference_impl import ranges
from tests.modbench.jobs import SETTINGS, entry_job, make_job, make_point

STOCK_RANGES = {"attention", "mlp", "cache_append", "norm", "embedding", "head"}


@pytest.fixture(autouse=True)
def _keep_thread_count():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def traced_launch(job, tmp_path):
    result = worker.do_job(job.model_copy(update={"trace_folder": str(tmp_path)}))
    assert result.error is None
    return result.trace


def hooks_of(model):
    return [
        hook
        for module in model.modules()
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    ]


def built(kind):
    point = make_point(SETTINGS[kind])
    return METHODS[kind](point.settings).build(point, torch.device("cpu"))


def test_a_traced_launch_of_threshold_has_every_range_in_both_phases(tmp_path):
    trace = traced_launch(make_job(tmp_path, "threshold", "trace"), tmp_path)
    assert (trace.method, trace.error, trace.num_decode_steps, trace.device_s) == ("threshold", None, 16, None)
    for phase in PHASES:
        assert {name for name, seconds in trace.host_s[phase].items() if seconds > 0} == {*RANGES, OTHER}
        assert trace.slowdown_ratio[phase] > 0
    with gzip.open(tmp_path / trace.trace_file, "rt") as file:
        events = json.load(file)["traceEvents"]
    names = [event["name"] for event in events if event.get("cat") == "user_annotation"]
    assert set(names) == {*PHASES, *RANGES}
    num_routed = names.count("mlp") - 2 * 17
    assert names.count("attention") == names.count("mlp")
    assert 0 < num_routed < names.count("router") == 2 * 17, (
        "a routed layer names its attention once, and not in steps without a kept row"
    )
    wall_us = {event["name"]: event["dur"] for event in events if event["name"] in PHASES}
    for phase, parts in trace.host_s.items():
        assert sum(parts.values()) == pytest.approx(wall_us[phase] / 1e6, rel=1e-3)


@pytest.mark.parametrize("kind", ["dense", "skip_layers", "masked", "kv_only", "topk"])
def test_every_method_can_be_traced(tmp_path, kind):
    trace = traced_launch(make_job(tmp_path, kind, "trace"), tmp_path)
    for parts in trace.host_s.values():
        assert set(parts) >= {*STOCK_RANGES, OTHER}
        assert (set(parts) & set(ROUTING_RANGES) != set()) == (kind in ("masked", "kv_only", "topk"))


def test_a_subject_that_is_no_hugging_face_model_has_phases_only(tmp_path):
    class Bare:
        def prefill(self, ids):
            return torch.zeros(1, 1, 3), None

        def decode(self, ids, state):
            return torch.zeros(1, 1, 3)

    ids = torch.zeros(1, 4, dtype=torch.int64)
    found = trace_sample(Bare(), ids, ids, torch.device("cpu"), tmp_path / "t.json.gz")
    assert {phase: set(parts) for phase, parts in found.host_s.items()} == {phase: {OTHER} for phase in PHASES}


@pytest.mark.parametrize("kind", ["dense", "threshold"])
def test_tracing_leaves_no_hook_behind_also_when_it_fails(kind, tmp_path):
    subject, nothing = built(kind), ranges.named_range("x")
    before = len(hooks_of(subject.model))
    ids = torch.zeros(1, 8, dtype=torch.int64)
    with torch.inference_mode():
        trace_sample(subject, ids, ids[:, :2], torch.device("cpu"), tmp_path / "t.json.gz")
        assert len(hooks_of(subject.model)) == before
        with pytest.raises(IndexError):
            trace_sample(subject, ids + 10**6, ids, torch.device("cpu"), tmp_path / "t.json.gz")
        assert len(hooks_of(subject.model)) == before
        cache = subject.prefill(ids)[1]
    assert ranges.named_range("x") is nothing
    assert "update" not in vars(cache)


def test_a_stock_cache_is_itself_again_afterwards():
    subject = built("dense")
    cache = subject.new_cache()
    ids = torch.zeros(1, 8, dtype=torch.int64)
    with torch.inference_mode(), range_hooks.hooked(subject.model):
        subject.model(ids, past_key_values=cache)
        assert "update" in vars(cache)
    assert "update" not in vars(cache)
    assert cache.get_seq_length() == 8


def test_a_traced_launch_that_fails_is_an_error_line(tmp_path):
    job = entry_job(tmp_path, "raises", "trace").model_copy(update={"trace_folder": str(tmp_path)})
    result = worker.do_job(job)
    assert result.trace is None
    assert result.error == "RuntimeError: a mistake over two lines"


def test_both_packages_use_the_same_names():
    own = {ranges.ROUTER, ranges.PACK, ranges.SCATTER, ranges.CACHE_APPEND}
    assert own == set(OWN_COST)
    assert {*own, ranges.ATTENTION, ranges.MLP, *range_hooks.RANGE_OF_MODULE.values()} == set(RANGES)
    assert set(SETTINGS) <= set(METHODS)
