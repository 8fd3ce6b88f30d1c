import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicCache

from modbench.analysis.memory_model import longest_context, predict_memory
from modbench.analysis.prediction import Keeping, Shares, Work
from modbench.methods.hf_model import hf_config
from modbench.presets import PRESETS, Geometry
from modbench.profiling.live_tensors import LiveTensorPeak
from reference_impl import ModConfig, convert

ONE_LAYER = Geometry(
    num_hidden_layers=1, hidden_size=4, intermediate_size=8, num_attention_heads=2, vocab_size=10
)  # attention 64 weights, MLP 96, norms 8 + 4, embeddings and head 40 each
MODEL = Geometry(num_hidden_layers=4, hidden_size=64, intermediate_size=172, num_attention_heads=4, vocab_size=512)
GEOMETRIES = {
    "MHA": MODEL,
    "GQA": MODEL.model_copy(update={"num_key_value_heads": 1}),
    "attention is widest": MODEL.model_copy(update={"intermediate_size": 64}),
}
NUM_TOKENS = 512
# not in the formula: ids, decisions, rotary tables gathered for kept tokens, workspaces of attention kernels; all are small where a
# head is a small part of the model, unlike here
LIVE_TENSOR_TOLERANCE = 0.1
GIB = 2**30


def interleaved(num_layers: int, ratio: float) -> Keeping:
    shares = tuple(1.0 if layer % 2 == 0 else ratio for layer in range(num_layers))
    return Keeping.of(Shares(shares, shares, shares))


def test_bytes_of_one_layer_by_hand():
    found = predict_memory(Work(ONE_LAYER, context=10, batch=1, new_tokens=2, bytes_per_element=4),
                           Keeping.everything(1), overhead_bytes=1000)  # fmt: skip
    assert found.weights_bytes == 4 * (64 + 96 + 8 + 4 + 40 + 40)
    assert found.kv_cache_bytes == 4 * 2 * 4 * (10 + 1)
    # embeddings and input, 8 per token; rotary tables, 4 per position; MLP: stream and normed copy, 8, gate, up, product, 24
    working = 4 * 10 * (8 + 4 + 8 + 24)
    assert found.activation_bytes == working
    assert found.peak_bytes == found.weights_bytes + 1000 + 4 * 2 * 4 * 10 + working


def test_decode_is_the_worst_moment_of_many_new_tokens():
    work = Work(ONE_LAYER, context=1, batch=3, new_tokens=10_001, bytes_per_element=4)
    found = predict_memory(work, Keeping.everything(1), overhead_bytes=0)
    assert found.peak_bytes == found.weights_bytes + found.kv_cache_bytes + 4 * 3 * 10  # logits of 3 rows


def test_a_last_layer_that_routes_is_not_stored_yet_when_the_dense_one_before_is_widest():
    geometry = MODEL.model_copy(update={"num_hidden_layers": 2})
    work = Work(geometry, context=100, batch=1, new_tokens=2, bytes_per_element=4)
    routed = predict_memory(work, interleaved(2, 0.5), 0)
    working = 4 * 100 * (2 * 64 + 2 * 16 + 2 * 64 + 3 * 172)
    assert routed.peak_bytes == routed.weights_bytes + 4 * 2 * 64 * 100 + working


def test_removed_layers_have_no_weights_and_routed_ones_keep_theirs():
    geometry = PRESETS["llama2-7b"]
    work = Work(geometry, 16, 1, 2, 2)
    nothing_kept = interleaved(32, 0.0)
    half = geometry.model_copy(update={"num_hidden_layers": 16})
    removed = predict_memory(work, nothing_kept, 0, removed_layers=range(1, 32, 2))
    assert removed.weights_bytes == half.num_parameters * 2
    assert predict_memory(work, nothing_kept, 0).weights_bytes == geometry.num_parameters * 2


def test_the_longest_context_fits_and_one_token_more_does_not():
    work = Work(PRESETS["llama2-7b"], 1, 8, 256, 2)
    kept = interleaved(32, 1 / 9)
    longest = longest_context(work, kept, 80 * GIB, GIB)
    assert longest > 4096
    peaks = [
        predict_memory(Work(work.geometry, context, 8, 256, 2), kept, GIB).peak_bytes
        for context in (longest, longest + 1)
    ]
    assert peaks[0] <= 80 * GIB < peaks[1]


def test_no_context_fits_where_the_weights_do_not():
    assert longest_context(Work(PRESETS["llama2-70b"], 1, 1, 2, 2), Keeping.everything(80), 80 * GIB, GIB) == 0


def build(geometry: Geometry, dtype: torch.dtype = torch.float32):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(hf_config(geometry), dtype=dtype, attn_implementation="sdpa").eval()


@torch.inference_mode()
def live_peak_bytes(model, cache, batch: int) -> int:
    ids_BT = torch.ones(batch, NUM_TOKENS, dtype=torch.long)
    with LiveTensorPeak() as peak:
        model(input_ids=ids_BT, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return peak.peak_bytes


def predicted_bytes(geometry: Geometry, keeping: Keeping, batch: int, bytes_per_element: int = 4) -> float:
    found = predict_memory(Work(geometry, NUM_TOKENS, batch, 2, bytes_per_element), keeping, overhead_bytes=0)
    return found.peak_bytes - found.weights_bytes


@pytest.mark.parametrize(("name", "batch"), [("MHA", 1), ("MHA", 3), ("GQA", 1), ("attention is widest", 1)])
def test_dense_prefill_is_as_the_live_tensors_of_a_real_model(name, batch):
    geometry = GEOMETRIES[name]
    model = build(geometry)
    live = live_peak_bytes(model, DynamicCache(config=model.config), batch)
    assert predicted_bytes(geometry, Keeping.everything(4), batch) == pytest.approx(live, rel=LIVE_TENSOR_TOLERANCE)


def test_half_as_large_elements_need_half_of_a_real_models_memory():
    model = build(MODEL, torch.bfloat16)
    live = live_peak_bytes(model, DynamicCache(config=model.config), batch=1)
    assert predicted_bytes(MODEL, Keeping.everything(4), 1, 2) == pytest.approx(live, rel=LIVE_TENSOR_TOLERANCE)


@pytest.mark.parametrize(
    ("name", "ratio"), [("MHA", 0.125), ("MHA", 1.0), ("GQA", 0.125), ("attention is widest", 0.5)]
)
def test_threshold_prefill_is_as_the_live_tensors_of_a_real_model(name, ratio):
    geometry = GEOMETRIES[name]
    model = convert(build(geometry), ModConfig())
    keep_BT = (torch.arange(NUM_TOKENS) % 8 < 8 * ratio)[None]
    with model.routing.replay(dict.fromkeys(model.routed_layers, keep_BT)):
        live = live_peak_bytes(model, model.new_cache(), batch=1)
    assert predicted_bytes(geometry, interleaved(4, ratio), 1) == pytest.approx(live, rel=LIVE_TENSOR_TOLERANCE)
