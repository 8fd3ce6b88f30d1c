"""Every family as a subject of the benchmark: parameters, and the bytes of its caches against the prediction's formula."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from modbench import worker
from modbench.analysis.prediction import Keeping, Shares, Work, kv_cache_bytes_expected
from modbench.methods import METHODS
from modbench.methods.hf_model import hf_config
from tests.modbench.jobs import FAMILY_MICRO, SETTINGS, make_job, make_point

CPU = torch.device("cpu")
NUM_LAYERS, BATCH, ELEMENT = 4, 2, 4
ROUTED = SETTINGS["threshold"]["routed_layers"]
CONTEXTS = [5, 24]  # within the window of 8, and three times as long


@pytest.mark.parametrize("family", FAMILY_MICRO)
def test_parameters_are_those_of_the_real_model(family):
    geometry = FAMILY_MICRO[family]
    for changed in (geometry, geometry.model_copy(update={"attention_bias": True})):
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(hf_config(changed))
        assert sum(parameter.numel() for parameter in model.parameters()) == changed.num_parameters


@pytest.fixture
def _keep_thread_count():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_keep_thread_count")
@pytest.mark.parametrize(("family", "attention"), [("mistral", "sdpa"), ("gemma2", "eager"), ("gemma3_text", "sdpa")])
def test_a_windowed_family_is_launched_with_routers(tmp_path, family, attention):
    record = worker.do_job(make_job(tmp_path, "threshold", geometry=FAMILY_MICRO[family])).record
    assert (record.status, record.error) == ("ok", None)
    assert record.keep_ratio.prefill == pytest.approx([1.0, 0.25, 1.0, 0.25], abs=0.02)
    assert record.environment["attention_path"] == f"{attention}, routed layers: {attention} per row"


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "mistral"])
def test_a_windowed_family_without_a_window_attends_in_full(family):
    full = FAMILY_MICRO[family].model_copy(update={"sliding_window": None, "layer_types": None})
    assert found_bytes("dense", SETTINGS["dense"], full, 24, 5) == expected_bytes(full, 24, 5)


@torch.inference_mode()
def found_bytes(kind, settings, geometry, context, num_fed, keep_masks=None):
    """Bytes that the cache of a real model reports after a prompt and some decoded tokens."""
    subject = METHODS[kind](settings).build(make_point(settings, geometry=geometry), CPU)
    ids = torch.arange(BATCH * (context + num_fed)).reshape(BATCH, -1) % geometry.vocab_size
    with subject.replay(keep_masks or {}):
        _, cache = subject.prefill(ids[:, :context])
        for position in range(context, context + num_fed):
            subject.decode(ids[:, position : position + 1], cache)
    return subject.kv_cache_bytes(cache)[0]


def expected_bytes(geometry, context, num_fed, prefill=1.0, decode=1.0):
    shares = [tuple(ratio if layer in ROUTED else 1.0 for layer in range(NUM_LAYERS)) for ratio in (prefill, decode)]
    work = Work(geometry, context, BATCH, num_fed + 1, ELEMENT)
    return kv_cache_bytes_expected(work, Keeping.of(Shares(shares[0], shares[1], shares[1])))


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize(
    ("family", "kv_cache"),
    [*((family, "stock") for family in FAMILY_MICRO), ("mistral", "chunked"), ("gemma2", "chunked")],
)
def test_a_dense_cache_is_what_the_formula_says(family, kv_cache, context):
    geometry = FAMILY_MICRO[family]
    found = found_bytes("dense", {"kv_cache": kv_cache}, geometry, context, 5)
    assert found == expected_bytes(geometry, context, 5)


@pytest.mark.parametrize(("context", "num_fed"), [(5, 1), (24, 3), (24, 12)])
@pytest.mark.parametrize("family", ["mistral", "gemma3_text"])
def test_a_ragged_cache_is_what_the_formula_says(family, context, num_fed):
    """Of the prompt everything is kept, of what is decoded nothing: the formula's spreading is then exact."""
    geometry = FAMILY_MICRO[family]
    keep_BT = torch.cat([torch.ones(BATCH, context), torch.zeros(BATCH, num_fed)], dim=1).bool()
    found = found_bytes("threshold", SETTINGS["threshold"], geometry, context, num_fed, dict.fromkeys(ROUTED, keep_BT))
    assert found == expected_bytes(geometry, context, num_fed, prefill=1.0, decode=0.0)


def test_a_window_over_kept_tokens_holds_their_share_of_it():
    geometry = FAMILY_MICRO["mistral"].model_copy(update={"sliding_window": 9})
    keep_BT = (torch.arange(40) % 2 == 0).expand(BATCH, 40)  # 4 of any 8 positions
    found = found_bytes("threshold", SETTINGS["threshold"], geometry, 37, 3, dict.fromkeys(ROUTED, keep_BT))
    assert found == expected_bytes(geometry, 37, 3, prefill=0.5, decode=0.5)
