"""convert: what it changes, what it leaves alone, what it refuses."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, StaticCache
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaForCausalLM

from reference_impl import ModConfig, ModConfigError, RoutingError, UnsupportedModelError, convert
from reference_impl.convert import routed_attention
from reference_impl.mod_layer import sliding_windows
from reference_impl.objective import keep_budget
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
    assert min(model.routing_report().keep_ratio.values()) > 0.95


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("stablelm", {}),
        ("mixtral", {"num_local_experts": 2}),
        ("qwen3_moe", {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}),
    ],
)
def test_families_of_another_layout_are_refused_by_name(model_type, settings):
    sizes = {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "vocab_size": 50,
    }
    config = AutoConfig.for_model(model_type, num_key_value_heads=2, **sizes, **settings)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(UnsupportedModelError, match=r"supported: LlamaForCausalLM, .*Gemma3ForCausalLM"):
        convert(model)


def test_other_families_and_second_conversions_are_refused():
    settings = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "vocab_size": 50}
    gpt_neox = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt_neox", intermediate_size=64, **settings))
    with pytest.raises(UnsupportedModelError, match="got GPTNeoXForCausalLM; supported: LlamaForCausalLM"):
        convert(gpt_neox)
    with pytest.raises(UnsupportedModelError, match="converted already"):
        convert(convert(dense_model()))


def test_attention_that_stock_layers_would_compute_otherwise_is_refused():
    model = dense_model("gemma2")
    model.config._attn_implementation = "sdpa"
    with pytest.raises(UnsupportedModelError, match="ignores this model's attn_logit_softcapping"):
        convert(model)
    model = dense_model("gemma3_text", use_bidirectional_attention=True)
    with pytest.raises(UnsupportedModelError, match="bidirectional"):
        convert(model)
    model = dense_model()
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(UnsupportedModelError, match="got attn_implementation='flex_attention'"):
        convert(model)


def test_a_refused_conversion_leaves_the_model_as_it_was():
    model = dense_model("mistral-window")
    names = set(model.state_dict())
    with pytest.raises(UnsupportedModelError, match="a sliding window this environment has sdpa, eager"):
        convert(model, attention="flash_attn")
    assert type(model).__name__ == "MistralForCausalLM"
    assert type(model.config).__name__ == "MistralConfig"
    assert set(model.state_dict()) == names


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
        ({"threshold_p": "0.5"}, "threshold_p: got '0.5'; expected a number"),
        ({"capacity": 0.0}, "capacity: got 0.0"),
        ({"gate": "both"}, "gate: got 'both'"),
        ({"routed_layers": (1, 1)}, "distinct layer indices"),
        ({"routed_layers": ()}, "distinct layer indices"),
        ({"routed_layers": "all"}, "got 'all'; expected 'interleaved'"),
        ({"routed_layers": 0.0}, r"got 0.0; .* a share in \(0, 1\]"),
        ({"routed_layers": (1.5,)}, "distinct layer indices"),
        ({"router_std": -1.0}, "router_std"),
        ({"router_bias": float("nan")}, "router_bias"),
        ({"objective": "top_p"}, "objective: got 'top_p'; expected one of load_reducing, keep_budget"),
        ({"objective_alpha": -0.1}, "objective_alpha"),
        ({"target_keep_ratio": 0.0}, r"target_keep_ratio: got 0.0; expected a number in \(0, 1\]"),
        ({"target_keep_ratio": True}, "target_keep_ratio: got True; expected a number"),
        ({"budget": "head"}, "budget: got 'head'; expected one of layer, model"),
        ({"budget_anneal": 1.5}, r"budget_anneal: got 1.5; expected a number in \[0, 1\]"),
        (
            {"skipped_gradient": "reinforce"},
            "skipped_gradient: got 'reinforce'; expected one of none, straight_through",
        ),
        (
            {"objective": "topk_predictor"},
            "objective: got topk_predictor for operator threshold; expected operator topk",
        ),
        (
            {"objective": "keep_budget", "operator": "topk"},
            "objective: got keep_budget for operator topk, whose capacity",
        ),
        (
            {"objective": "keep_budget", "threshold_p": 0.0},
            "threshold_p: got 0, at which every token is kept; keep_budget",
        ),
        *(
            (
                {"skipped_gradient": "straight_through", "operator": operator},
                f"skipped_gradient: got straight_through for operator {operator}; expected operator threshold",
            )
            for operator in ("topk", "masked", "kv_only")
        ),
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


def test_the_objective_of_a_converted_model_can_be_changed_and_is_saved(make_converted):
    model = make_converted(objective="none")
    assert model.routing.objective is None
    model.set_objective(objective="keep_budget", target_keep_ratio=0.25)
    assert model.routing.objective is keep_budget
    assert model.config.modification == model.routing.config.to_dict()
    assert model.routing.config.target_keep_ratio == 0.25
    assert model.routing.config.router_bias == 0.0, "the others stay"
    with pytest.raises(
        ModConfigError, match="threshold_p: cannot be changed after the conversion; expected some of objective"
    ):
        model.set_objective(threshold_p=0.7)
    with pytest.raises(ModConfigError, match="expected operator topk"):
        model.set_objective(objective="topk_predictor")
    assert model.routing.objective is keep_budget


@pytest.mark.parametrize(
    ("share", "num_layers", "routed"),
    [(0.5, 8, (1, 3, 5, 7)), (0.25, 8, (3, 7)), (1.0, 3, (0, 1, 2)), (0.01, 4, (3,)), (0.75, 4, (0, 1, 3))],
)
def test_a_share_of_layers_is_spread_evenly(share, num_layers, routed):
    config = ModConfig(routed_layers=share)
    assert config.resolve_layers(num_layers) == routed
    assert ModConfig.from_dict(config.to_dict()) == config


@torch.no_grad()
def test_masks_that_routed_layers_would_misread_are_refused(make_converted):
    model = make_converted()
    with pytest.raises(UnsupportedModelError, match="got 4 dimensions"):
        model(random_ids(1, 6), attention_mask=torch.ones(1, 1, 6, 6, dtype=torch.bool))
    with pytest.raises(UnsupportedModelError, match="got a dict"):
        model(random_ids(1, 6), attention_mask={"full_attention": None})


def test_the_attention_that_really_runs_is_told(make_converted):
    assert routed_attention(make_converted()) == "sdpa per row"
    assert routed_attention(make_converted(operator="masked")) == "sdpa"
    assert routed_attention(make_converted("gemma2")) == "eager per row"
    assert routed_attention(make_converted("gemma2", operator="masked")) == "eager"


@torch.no_grad()
def test_report_counts_tokens_without_padding_and_gives_masks_on_request(make_converted):
    model = make_converted()
    ids = random_ids(2, 9)
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    model(ids, attention_mask=mask)
    report = model.routing_report(keep_masks=True)
    assert report.num_tokens == 14
    for layer, keep in report.keep_masks.items():
        gate = model.routing.last[layer].gate_BT
        assert not keep[0, :4].any()
        assert report.keep_ratio[layer] == pytest.approx(((gate >= 0.5) & mask.bool()).sum().item() / 14)
        assert report.mean_gate[layer] == pytest.approx(gate[mask.bool()].mean().item())
    assert model.routing_report().keep_masks is None


def test_a_report_before_any_forward_is_empty(make_converted):
    report = make_converted().routing_report(keep_masks=True)
    assert (report.keep_ratio, report.num_tokens, report.keep_masks) == ({}, 0, {})


def test_models_built_from_one_configuration_convert_apart():
    shared = dense_model().config
    first, second = (LlamaForCausalLM(shared).eval() for _ in range(2))
    convert(first)
    assert type(shared).__name__ == "LlamaConfig"
    assert second.config is shared
    assert first.model.config is first.config is not shared
    assert convert(second).config.model_type == "mod_llama"


def test_a_configuration_without_settings_is_refused():
    config = type(convert(dense_model()).config)(**dense_model().config.to_dict() | {"model_type": "mod_llama"})
    with pytest.raises(ModConfigError, match="modification: missing"):
        AutoModelForCausalLM.from_config(config)


@torch.no_grad()
def test_an_attention_set_after_the_conversion_is_refused_too(make_converted):
    model = make_converted()
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(UnsupportedModelError, match="got attn_implementation='flex_attention'"):
        model(random_ids(1, 5))


def test_a_window_that_the_family_ignores_is_ignored():
    assert sliding_windows(dense_model(sliding_window=8).config) == [None] * 4
    assert sliding_windows(convert(dense_model("mistral-window")).config) == [8] * 4
    assert sliding_windows(dense_model("qwen2-window").config) == [None, None, 8, 8]
