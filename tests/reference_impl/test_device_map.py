"""device_map: a converted model whose layers lie on disk is the same model, its routers included."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from reference_impl import ModConfig, UnsupportedModelError, calibrate, convert, kv_cache_bytes, load
from tests.reference_impl.conftest import FP32_TOLERANCE, dense_model, random_ids

NUM_LAYERS = 4
ROUTED = (1, 3)
PARTS = ["embed_tokens", "norm", "rotary_emb", *(f"layers.{index}" for index in range(NUM_LAYERS))]


def with_on_disk(*parts: str) -> dict[str, str]:
    """A device map of the whole model: these parts of the decoder on disk, the rest in memory."""
    return {"lm_head": "cpu", **{f"model.{part}": "disk" if part in parts else "cpu" for part in PARTS}}


DEVICE_MAPS: dict[str, Any] = {
    "all-in-memory": "cpu",
    "all-on-disk": {"": "disk"},
    "routed-layers-on-disk": with_on_disk("layers.1", "layers.3"),
    "dense-layers-on-disk": with_on_disk("layers.0", "layers.2"),
    "one-routed-layer-and-the-embedding-on-disk": with_on_disk("layers.3", "embed_tokens"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted model in several files."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(11)
    convert(dense_model(), ModConfig(router_bias=0.0)).save_pretrained(folder, max_shard_size="50KB")
    assert len(list(folder.glob("*.safetensors"))) > 5
    return folder


@pytest.fixture
def shards(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def load_mapped(folder: Path, offload_folder: Path, device_map: Any, **kwargs: Any) -> PreTrainedModel:
    return load(folder, device_map=device_map, offload_folder=offload_folder, **kwargs).eval()


def routers(model: PreTrainedModel) -> list[torch.nn.Module]:
    return [model.get_decoder().layers[index].router for index in ROUTED]


def check_same(model: PreTrainedModel, expected: PreTrainedModel) -> None:
    """The same decisions and logits; not bit for bit, since kernels round by where in memory the weights lie."""
    logits, expected_logits = model(random_ids(2, 19)).logits, expected(random_ids(2, 19)).logits
    torch.testing.assert_close(logits, expected_logits, atol=FP32_TOLERANCE, rtol=0)
    for layer in ROUTED:
        assert torch.equal(model.routing.last[layer].keep_BT, expected.routing.last[layer].keep_BT)


@pytest.mark.parametrize("device_map", DEVICE_MAPS.values(), ids=DEVICE_MAPS)
@torch.no_grad()
def test_the_place_of_the_layers_changes_nothing(saved, tmp_path, device_map):
    expected = load(saved).eval()
    check_same(load_mapped(saved, tmp_path, device_map), expected)
    for layer in ROUTED:
        assert 0.2 < expected.routing.last[layer].keep_BT.float().mean() < 0.8, "the test needs kept and skipped tokens"


@torch.no_grad()
def test_generate_with_layers_on_disk_gives_the_same_tokens_and_cache(saved, tmp_path):
    results = [
        model.generate(
            random_ids(2, 9),
            attention_mask=torch.ones(2, 9, dtype=torch.long),
            max_new_tokens=6,
            do_sample=False,
            return_dict_in_generate=True,
        )
        for model in (load(saved).eval(), load_mapped(saved, tmp_path, with_on_disk("layers.1", "layers.2")))
    ]
    assert torch.equal(results[0].sequences, results[1].sequences)
    assert kv_cache_bytes(results[0].past_key_values) == kv_cache_bytes(results[1].past_key_values)


def test_routers_go_to_disk_with_their_layer(saved, tmp_path):
    model = load_mapped(saved, tmp_path, with_on_disk("layers.3"))
    first, last = ({parameter.device.type for parameter in router.parameters()} for router in routers(model))
    assert (first, last) == ({"cpu"}, {"meta"})


@pytest.mark.parametrize("share", [0.5, 0.6, 0.7, 0.8, 0.9])
@torch.no_grad()
def test_an_automatic_map_keeps_each_layer_in_one_place(saved, tmp_path, share):
    expected = load(saved).eval()
    num_bytes = sum(parameter.nbytes for parameter in expected.parameters())
    model = load_mapped(saved, tmp_path, "auto", max_memory={"cpu": int(share * num_bytes)})
    places = model.hf_device_map
    assert set(places.values()) == {"cpu", "disk"}
    assert not [name for name in places if name.startswith("model.layers.") and name.count(".") > 2]
    check_same(model, expected)


@torch.no_grad()
def test_the_auto_class_takes_a_device_map_and_half_precision(saved, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(
        saved, dtype=torch.bfloat16, device_map=with_on_disk("layers.0"), offload_folder=tmp_path
    ).eval()
    assert model.get_decoder().layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    assert model.get_decoder().layers[1].mlp.up_proj.weight.dtype == torch.bfloat16
    assert {parameter.dtype for router in routers(model) for parameter in router.parameters()} == {torch.float32}
    logits = model(random_ids(2, 19)).logits
    assert logits.dtype == torch.bfloat16
    assert torch.isfinite(logits).all()


@torch.no_grad()
def test_routers_of_a_bfloat16_model_are_read_from_disk_in_float32(saved, tmp_path):
    expected = load(saved, dtype=torch.bfloat16).eval()
    model = load_mapped(saved, tmp_path, with_on_disk("layers.1", "layers.3"), dtype=torch.bfloat16)
    hidden = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    for on_disk, in_memory in zip(routers(model), routers(expected), strict=True):
        torch.testing.assert_close(on_disk(hidden), in_memory(hidden), atol=FP32_TOLERANCE, rtol=0)
    assert torch.isfinite(model(random_ids(2, 19)).logits).all()


@pytest.mark.parametrize("operator", ["threshold", "masked"])
def test_a_dispatched_dense_model_is_not_converted(tmp_path, operator):
    dense_model().save_pretrained(tmp_path)
    device_map = with_on_disk("embed_tokens")
    model = AutoModelForCausalLM.from_pretrained(tmp_path, device_map=device_map, offload_folder=tmp_path / "offload")
    with pytest.raises(UnsupportedModelError, match="its forward was replaced, as a device_map"):
        convert(model, ModConfig(operator=operator))
    assert type(model).__name__ == "LlamaForCausalLM"


def test_routers_on_disk_are_not_calibrated(saved, tmp_path):
    model = load_mapped(saved, tmp_path, with_on_disk("layers.3"))
    with pytest.raises(UnsupportedModelError, match="calibrate: a routed layer is offloaded"):
        calibrate(model, random_ids(1, 40), 0.25)


def test_a_model_converted_in_memory_tells_its_layer_classes_too(saved):
    assert convert(dense_model())._no_split_modules == {"LlamaDecoderLayer", "ModLlamaDecoderLayer"}
    assert convert(dense_model(), ModConfig(routed_layers=(0, 1, 2, 3)))._no_split_modules == {"ModLlamaDecoderLayer"}
    assert load(saved)._no_split_modules == {"LlamaDecoderLayer", "ModLlamaDecoderLayer"}


def with_router_weight(folder: Path, problem: str) -> str:
    """Damage the router of layer 1, or give layer 2 one; returns the name of the weight."""
    index_path = folder / "model.safetensors.index.json"
    index = json.loads(index_path.read_text())
    name = "model.layers.1.router.weight"
    file = index["weight_map"][name]
    tensors = load_file(folder / file)
    if problem == "missing":
        del tensors[name], index["weight_map"][name]
    elif problem == "mismatched":
        tensors[name] = torch.zeros(63)
    else:
        name = name.replace("layers.1", "layers.2")
        tensors[name] = torch.zeros(64)
        index["weight_map"][name] = file
    save_file(tensors, folder / file, metadata={"format": "pt"})
    index_path.write_text(json.dumps(index))
    return name


@pytest.mark.parametrize("device_map", [None, {"": "disk"}], ids=["in-memory", "on-disk"])
@pytest.mark.parametrize("problem", ["missing", "unexpected"])
def test_missing_or_alien_router_weights_of_a_sharded_checkpoint_are_an_error(shards, problem, device_map):
    name = with_router_weight(shards, problem)
    with pytest.raises(UnsupportedModelError, match=rf"{problem} keys: {name}"):
        load_mapped(shards, shards / "offload", device_map)


def test_router_weights_of_another_size_are_an_error_even_where_such_are_ignored(shards):
    name = with_router_weight(shards, "mismatched")
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        load(shards)
    with pytest.raises(UnsupportedModelError, match=f"mismatched keys: .*{name}"):
        load(shards, ignore_mismatched_sizes=True)
