"""`convert` as a command and a function: a dense folder in, a converted or smaller one out, or one line and nothing changed."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from reference_impl import ModConfig, ModConfigError, UnsupportedModelError, convert, load
from reference_impl.cli import app
from reference_impl.convert_command import ConvertOptions, convert_folder, parse_routed_layers
from reference_impl.hf_families import remove_layers
from reference_impl.model_folder import load_folder
from tests.reference_impl.conftest import dense_model, random_ids
from tests.reference_impl.folders import command_failure, contents, write_dense

TEXT = "It was a bright cold day in April, and the clocks were striking thirteen. " * 5


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return write_dense(tmp_path_factory.mktemp("models") / "dense")


@pytest.fixture
def text(tmp_path):
    (tmp_path / "prose.txt").write_text(TEXT)
    return tmp_path / "prose.txt"


def converted(*arguments) -> str:
    done = CliRunner().invoke(app, ["convert", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_command_writes_a_checkpoint_that_differs_by_its_routers_alone(dense, tmp_path, monkeypatch):
    before = contents(dense)
    monkeypatch.chdir(tmp_path)
    output = converted(dense, "out", "--threshold-p", "0.4")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert contents(dense) == before
    model = load(tmp_path / "out")
    assert model.routing.config == ModConfig(threshold_p=0.4)
    old, new = weights(dense), weights(tmp_path / "out")
    routers = {name for name in new if ".router." in name}
    assert new.keys() - old.keys() == routers
    assert all(torch.equal(new[name], old[name]) for name in old)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == before[name]
    assert "out: a mod_llama model of 4 layers, 2 of them routed (1, 3); threshold, p = 0.4." in output
    added = sum(new[name].numel() for name in routers)
    assert f"{model.num_parameters():,} parameters, {added} of them added, all in routers; float32" in output
    assert "python -m reference_impl generate out --prompt TEXT" in output


def test_settings_reach_the_checkpoint(dense, tmp_path):
    arguments = ("--operator", "topk", "--capacity", "0.25", "--routed-layers", "2,0", "--router-bias", "0.5")
    output = converted(dense, tmp_path / "out", *arguments, "--objective", "topk_predictor", "--dtype", "bfloat16")
    assert "2 of them routed (0, 2); topk, capacity = 0.25." in output
    assert "bfloat16, routers float32" in output
    model = load(tmp_path / "out")
    assert model.routing.config == ModConfig(
        operator="topk", capacity=0.25, routed_layers=(0, 2), router_bias=0.5, objective="topk_predictor"
    )
    assert model.dtype == torch.bfloat16
    assert model.model.layers[0].router.weight.dtype == torch.float32


def test_the_seed_decides_the_routers_and_leaves_the_callers_alone(dense, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        convert_folder(ConvertOptions(dense, tmp_path / name, seed=seed))
    assert torch.equal(torch.rand(3), expected)
    key = "model.layers.1.router.weight"
    a, b, c = (weights(tmp_path / name)[key] for name in "abc")
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_a_calibration_sets_the_share_and_says_that_the_choice_is_random(dense, tmp_path, text):
    options = ConvertOptions(dense, tmp_path / "out", keep_ratio=0.25, text=text)
    made = convert_folder(options)
    assert made.num_calibration_tokens == 256  # the model's positions
    model = load(tmp_path / "out").eval()
    with torch.no_grad():
        model(torch.tensor(list(TEXT.encode()[:256]))[None])
    assert model.routing_report().keep_ratio == pytest.approx(made.keep_ratio, abs=1e-6)
    assert list(made.keep_ratio.values()) == pytest.approx([0.25, 0.25], abs=0.01)
    output = converted(dense, tmp_path / "said", "--keep-ratio", "0.25", "--text", text)
    assert "were calibrated on 256 tokens" in output
    assert "how many tokens they keep was set, which ones is random." in output


@pytest.mark.parametrize("family", ["llama", "qwen2-window", "gemma2", "gemma3_text"])
@torch.no_grad()
def test_removed_layers_leave_a_smaller_dense_model(tmp_path, family):
    dense = write_dense(tmp_path / "dense", family)
    made = convert_folder(
        ConvertOptions(dense, tmp_path / "out", settings={"routed_layers": (0, 2)}, remove_layers=True)
    )
    expected = dense_model(family, vocab_size=257)
    num_before = expected.num_parameters()
    remove_layers(expected, (0, 2))
    again = load_folder(tmp_path / "out", "dense")
    assert torch.equal(again(random_ids(1, 19)).logits, expected(random_ids(1, 19)).logits)
    assert (made.num_layers, made.layers, made.rule) == (2, (0, 2), None)
    assert made.num_changed == again.num_parameters() - num_before < 0


def test_a_family_of_capped_logits_keeps_its_attention(tmp_path):
    dense = write_dense(tmp_path / "dense", "gemma2")
    assert convert_folder(ConvertOptions(dense, tmp_path / "out")).model_type == "mod_gemma2"
    assert load_folder(tmp_path / "out").config._attn_implementation == "eager"


def test_what_is_there_already_is_left_as_it_is(dense, tmp_path, monkeypatch, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    error = command_failure(monkeypatch, capsys, "convert", dense, tmp_path / "out")
    assert "is there already and not an empty folder; name another one, or remove it first" in error
    assert contents(tmp_path) == {"out/mine.txt": b"mine"}


def test_the_model_itself_is_never_written_to(dense, monkeypatch, capsys):
    before = contents(dense)
    for out in (dense, dense / "out", dense / ".." / dense.name / "out"):
        assert "it lies inside" in command_failure(monkeypatch, capsys, "convert", dense, out)
    assert contents(dense) == before


def test_an_interrupted_write_leaves_nothing(dense, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "tokenizer.json")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        convert_folder(ConvertOptions(dense, tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--operator", "topp"], "operator: got 'topp'; expected one of threshold, topk"),
        (["--threshold-p", "1.5"], "threshold_p: got 1.5; expected a number in [0, 1)"),
        (["--routed-layers", "all"], "--routed-layers: got 'all'; expected interleaved, indices such as 1,3,5"),
        (["--routed-layers", "1,4"], "routed_layers: got 4; expected 0 to 3"),
        (["--routed-layers", "1,4", "--remove-layers"], "routed_layers: got 4; expected 0 to 3"),
        (["--routed-layers", "1.0", "--remove-layers"], "--remove-layers: got all 4 layers; expected at least one to stay"),
        (["--remove-layers", "--threshold-p", "0.5"], "--threshold-p: got it with --remove-layers"),
        (["--keep-ratio", "0.5"], "--keep-ratio and --text belong together"),
        (["--text", "prose.txt"], "--keep-ratio and --text belong together"),
        (["--text", "prose.txt", "--keep-ratio", "1.5"], "--keep-ratio: got 1.5; expected a share in [0, 1]"),
        (["--text", "prose.txt", "--keep-ratio", "0.5", "--operator", "topk"], "got it with operator topk"),
        (["--text", "prose.txt", "--keep-ratio", "0.5", "--remove-layers"], "--keep-ratio: got it with --remove-layers"),
        (["--text", "no.txt", "--keep-ratio", "0.5"], "no.txt: cannot be read: No such file"),
        (["--text", "empty.txt", "--keep-ratio", "0.5"], "empty.txt: the text is empty"),
        (["--text", "latin.txt", "--keep-ratio", "0.5"], "latin.txt: byte 1 is not UTF-8"),
        (["--dtype", "int8"], "--dtype: got 'int8'; expected one of auto"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line_and_makes_nothing(
    dense, tmp_path, text, monkeypatch, capsys, arguments, message
):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes("né".encode("latin-1"))
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert message in command_failure(monkeypatch, capsys, "convert", dense, "out", *arguments)
    assert contents(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_a_converted_folder_is_not_converted_again(dense, tmp_path, monkeypatch, capsys):
    convert_folder(ConvertOptions(dense, tmp_path / "out"))
    error = command_failure(monkeypatch, capsys, "convert", tmp_path / "out", tmp_path / "twice")
    assert "it is converted already; name the dense model's folder" in error
    assert not (tmp_path / "twice").exists()


def test_a_damaged_shard_makes_nothing(dense, tmp_path):
    damaged = shutil.copytree(dense, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes((dense / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(UnsupportedModelError, match=r"model\.safetensors: damaged"):
        convert_folder(ConvertOptions(damaged, tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_generation_settings_are_copied_even_where_transformers_would_not_write_them(dense, tmp_path):
    source = shutil.copytree(dense, tmp_path / "source")
    settings = '{"do_sample": false, "temperature": 0.6, "eos_token_id": 256}'
    (source / "generation_config.json").write_text(settings)
    convert_folder(ConvertOptions(source, tmp_path / "out"))
    assert (tmp_path / "out" / "generation_config.json").read_text() == settings


def test_routed_layers_are_read_as_typed():
    assert parse_routed_layers("interleaved") == "interleaved"
    assert parse_routed_layers("1") == (1,)
    assert parse_routed_layers("1,3, 5") == (1, 3, 5)
    assert parse_routed_layers("1.0") == 1.0
    for wrong in ("", "1-3", "0.5.1", "one"):
        with pytest.raises(ModConfigError, match="--routed-layers: got"):
            parse_routed_layers(wrong)


def test_a_loaded_model_has_its_new_type_at_once(dense):
    assert convert(load_folder(dense, "dense")).config.model_type == "mod_llama"
