"""convert: what it changes, what it leaves alone, what it refuses."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, StaticCache
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaForCausalLM

from reference_impl import ModConfig, ModConfigError, RoutingError, UnsupportedModelError, convert
from reference_impl.convert import routed_attention
from tests.reference_impl.conftest import dense_model, random_ids


def test_conversion_is_in_place_and_adds_only_routers():
    model = dense_model()
    before = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    assert convert(model) is model
    after = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    added = set(after) - set(before)
    assert {name: after[name] for name in before} == before
    assert added == {f"model.layers.{i}.router.{part}" for i in (1, 3) for part in ("weight", "bias")}


@torch.no_grad()
def test_a_stock_model_in_the_same_process_stays_stock():
    stock = dense_model()
    expected = stock(random_ids(1, 9)).logits
    converted = convert(dense_model())
    assert type(stock) is LlamaForCausalLM
    assert type(stock.model.layers[1]) is LlamaDecoderLayer
    assert type(converted).__name__ == "ModLlamaForCausalLM"
    assert stock.config._attn_implementation == "sdpa"
    assert torch.equal(stock(random_ids(1, 9)).logits, expected)


@torch.no_grad()
def test_default_routers_start_near_the_dense_model():
    model = convert(dense_model(initializer_range=0.02))
    model(random_ids(2, 50))
    assert min(model.routing_report().values()) > 0.95


def test_other_families_and_second_conversions_are_refused():
    settings = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "vocab_size": 50}
    gpt_neox = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt_neox", intermediate_size=64, **settings))
    with pytest.raises(UnsupportedModelError, match="got GPTNeoXForCausalLM; supported: LlamaForCausalLM"):
        convert(gpt_neox)
    with pytest.raises(UnsupportedModelError, match="converted already"):
        convert(convert(dense_model()))


def test_sliding_window_layers_are_refused():
    model = dense_model("qwen2", use_sliding_window=True, sliding_window=8, max_window_layers=1)
    with pytest.raises(UnsupportedModelError, match="sliding-window"):
        convert(model)


def test_a_layer_beyond_the_model_and_an_absent_backend_are_refused():
    with pytest.raises(ModConfigError, match="got 4; expected 0 to 3"):
        convert(dense_model(), ModConfig(routed_layers=(1, 4)))
    with pytest.raises(UnsupportedModelError, match=r"got 'flash_attn'; on cpu .* has sdpa"):
        convert(dense_model(), attention="flash_attn")


@torch.no_grad()
def test_caches_that_cannot_hold_ragged_rows_are_refused(make_converted):
    model = make_converted()
    with pytest.raises(UnsupportedModelError, match="layer 1 is routed and got a StaticLayer"):
        model(random_ids(1, 5), past_key_values=StaticCache(config=model.config, max_cache_len=32))
    cache = model.new_cache()
    model(random_ids(1, 5), past_key_values=cache)
    with pytest.raises(UnsupportedModelError, match="use a new cache"):
        model(random_ids(2, 1), past_key_values=cache)


@torch.no_grad()
def test_replayed_masks_must_fit(make_converted):
    model = make_converted()
    keep = torch.ones(1, 5, dtype=torch.bool)
    with model.routing.replay({1: keep}), pytest.raises(RoutingError, match="no keep mask for layer 3"):
        model(random_ids(1, 5))
    with model.routing.replay({1: keep, 3: keep}), pytest.raises(RoutingError, match="tokens 0 to 6 of 1 rows"):
        model(random_ids(1, 6))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"operator": "topp"}, "operator: got 'topp'; expected one of threshold"),
        ({"threshold_p": 1.0}, "threshold_p: got 1.0"),
        ({"capacity": 0.0}, "capacity: got 0.0"),
        ({"gate": "both"}, "gate: got 'both'"),
        ({"routed_layers": (1, 1)}, "distinct layer indices"),
        ({"routed_layers": ()}, "distinct layer indices"),
        ({"router_std": -1.0}, "router_std"),
    ],
)
def test_config_refuses_impossible_values(settings, message):
    with pytest.raises(ModConfigError, match=message):
        ModConfig(**settings)


def test_config_survives_a_round_trip():
    config = ModConfig(threshold_p=0.55, routed_layers=(5, 2), gate="unit")
    assert config.to_dict()["routed_layers"] == [2, 5]
    assert ModConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ModConfigError, match="threshhold: unknown setting"):
        ModConfig.from_dict({"threshhold": 0.5})


@torch.no_grad()
def test_masks_and_positions_that_routed_layers_would_misread_are_refused(make_converted):
    model = make_converted()
    with pytest.raises(UnsupportedModelError, match="got 4 dimensions"):
        model(random_ids(1, 6), attention_mask=torch.ones(1, 1, 6, 6, dtype=torch.bool))
    with pytest.raises(UnsupportedModelError, match="restart within a row"):
        model(random_ids(1, 6), position_ids=torch.tensor([[0, 1, 2, 0, 1, 2]]), use_cache=False)


def test_the_attention_that_really_runs_is_told(make_converted):
    assert routed_attention(make_converted()) == "sdpa per row"
    assert routed_attention(make_converted(operator="masked")) == "sdpa"
