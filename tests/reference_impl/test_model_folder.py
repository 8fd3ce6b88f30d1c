"""Folders of models: what is damaged, missing or foreign is one error; what is written is whole or not there."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from reference_impl import UnsupportedModelError
from reference_impl.errors import CommandError
from reference_impl.model_folder import copy_along, load_folder, new_folder
from tests.reference_impl.conftest import dense_model, random_ids
from tests.reference_impl.folders import contents, write_dense


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return write_dense(tmp_path_factory.mktemp("dense"))


@pytest.fixture
def copy(dense, tmp_path):
    """One to damage."""
    return shutil.copytree(dense, tmp_path / "copy")


@pytest.fixture
def sharded(tmp_path):
    dense_model().save_pretrained(tmp_path / "sharded", max_shard_size="60KB")
    return tmp_path / "sharded"


def change_config(folder, **settings) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))


def change_weights(folder, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@torch.no_grad()
def test_a_dense_folder_loads_as_it_was_saved(dense):
    expected = dense_model(vocab_size=257)(random_ids(1, 9)).logits
    assert torch.equal(load_folder(dense, "dense")(random_ids(1, 9)).logits, expected)
    assert load_folder(dense, "any", "bfloat16").dtype == torch.bfloat16


def test_a_damaged_shard_is_named(sharded):
    shard = sorted(sharded.glob("*.safetensors"))[1]
    whole = shard.read_bytes()
    for damaged in (b"", b"{", whole[:-1], whole + b"x", b"\xff" * len(whole)):
        shard.write_bytes(damaged)
        with pytest.raises(UnsupportedModelError, match=rf"{shard.name}: damaged: .*; copy it anew"):
            load_folder(sharded, "dense")


def test_a_missing_shard_is_named(sharded):
    shard = sorted(sharded.glob("*.safetensors"))[0]
    shard.unlink()
    with pytest.raises(
        UnsupportedModelError, match=rf"{shard.name}: missing; expected every file that model.safetensors.index"
    ):
        load_folder(sharded, "dense")


def test_an_index_that_is_none_or_leads_out_of_the_folder_is_refused(sharded):
    index = sharded / "model.safetensors.index.json"
    for content, message in (("{", "not JSON"), ("[]", "got a list"), ("{}", "it has no weight_map")):
        index.write_text(content)
        with pytest.raises(UnsupportedModelError, match=message):
            load_folder(sharded, "dense")
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "../other.safetensors"}}))
    with pytest.raises(
        UnsupportedModelError, match=r"got '\.\./other\.safetensors'; expected names of files beside it"
    ):
        load_folder(sharded, "dense")


def test_missing_weights_are_never_made_up(copy):
    change_weights(copy, lambda tensors: tensors.pop("model.layers.2.mlp.up_proj.weight"))
    with pytest.raises(UnsupportedModelError, match=r"missing keys: model\.layers\.2\.mlp\.up_proj\.weight, 1 in all"):
        load_folder(copy, "dense")


def test_weights_of_another_shape_are_refused(copy):
    change_config(copy, intermediate_size=80)
    with pytest.raises(UnsupportedModelError, match=r"copy: .*"):
        load_folder(copy, "dense")


def test_weights_that_are_no_safetensors_are_refused(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(UnsupportedModelError, match="expected weights as safetensors"):
        load_folder(copy, "dense")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "gpt_neox"}, "got model_type 'gpt_neox'; expected one of llama, mistral"),
        ({"model_type": None}, "got model_type None; expected one of llama"),
        ({"model_type": "mod_llama"}, "it is converted already; name the dense model's folder"),
        ({"quantization_config": {"quant_method": "gptq"}}, "has a quantization_config; expected weights in float32"),
        ({"num_attention_heads": "many"}, "cannot be loaded"),
        ({"modification": 1, "hidden_size": -4}, "cannot be loaded"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_one_error(copy, settings, message):
    change_config(copy, **settings)
    with pytest.raises(UnsupportedModelError, match=message):
        load_folder(copy, "dense")


def test_code_of_a_checkpoint_is_not_run(copy):
    change_config(copy, auto_map={"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"})
    (copy / "evil.py").write_text("raise SystemExit('run')\n")
    assert type(load_folder(copy, "dense")).__name__ == "LlamaForCausalLM"


def test_an_unknown_dtype_is_refused(dense):
    with pytest.raises(CommandError, match="--dtype: got 'int8'; expected one of auto, float32, bfloat16, float16"):
        load_folder(dense, "dense", "int8")


def test_a_new_folder_appears_whole(tmp_path):
    with new_folder(tmp_path / "out") as beside:
        (beside / "file").write_text("1")
        assert not (tmp_path / "out").exists()
    assert contents(tmp_path) == {"out/file": b"1"}
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_after_an_error_nothing_is_left_of_a_new_folder(tmp_path, error):
    def interrupted() -> None:
        with new_folder(tmp_path / "out") as beside:
            (beside / "file").write_text("1")
            raise error

    with pytest.raises(error):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled_and_any_other_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as beside:
        (beside / "file").write_text("1")
    with pytest.raises(CommandError, match="is there already and not an empty folder"), new_folder(tmp_path / "out"):
        pass
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CommandError, match="is there already"), new_folder(tmp_path / "file"):
        pass
    with pytest.raises(CommandError, match="is no folder; make it first"), new_folder(tmp_path / "no" / "out"):
        pass
    assert contents(tmp_path) == {"file": b"mine", "out/file": b"1"}


def test_what_someone_put_there_meanwhile_is_not_overwritten(tmp_path):
    def overtaken() -> None:
        with new_folder(tmp_path / "out") as beside:
            (beside / "file").write_text("ours")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "file").write_text("theirs")

    with pytest.raises(CommandError, match="is there already"):
        overtaken()
    assert contents(tmp_path) == {"out/file": b"theirs"}


def test_tokenizer_and_licence_travel_along_and_code_stays_behind(copy, tmp_path):
    for name in ("LICENSE.txt", "modeling_llama.py", "optimizer.pt", "chat_template.jinja"):
        (copy / name).write_text(name)
    (copy / "additional_chat_templates").mkdir()
    (copy / "additional_chat_templates" / "tools.jinja").write_text("t")
    (tmp_path / "out").mkdir()
    assert copy_along(copy, tmp_path / "out") == (
        "LICENSE.txt",
        "additional_chat_templates",
        "chat_template.jinja",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    )
    copied = contents(tmp_path / "out")
    assert copied.items() <= contents(copy).items()
    assert "additional_chat_templates/tools.jinja" in copied
    assert len(copied) == 6
