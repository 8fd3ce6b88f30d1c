"""`checkpoint` in a scenario: what is read from the folder without loading a model, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from modbench.plan import build_plan
from modbench.scenario import json_schema
from tests.modbench.test_scenario_example import errors, load

SIZES: dict[str, Any] = {
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
}
DENSE = {"model_type": "llama", **SIZES}
MODIFICATION = {
    "operator": "threshold",
    "threshold_p": 0.55,
    "capacity": 0.25,
    "routed_layers": [1, 2],
    "gate": "unit",
    "objective": "keep_budget",
}
CONVERTED = {"model_type": "mod_llama", **SIZES, "modification": MODIFICATION}
TOPK = CONVERTED | {"modification": MODIFICATION | {"operator": "topk", "routed_layers": "interleaved"}}
SCENARIO = """\
name: x
model: {path: base}
methods:
  dense:
  mine: METHOD
workload: {context: 64, new_tokens: 10, prompt: {synthetic: true}}
"""


def save(folder: Path, config: object, weights: bytes | None = b"weights") -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)


def scenario(folder: Path, method: str, config: object = CONVERTED, base: object = DENSE) -> str:
    save(folder / "base", base)
    save(folder / "saved", config)
    return SCENARIO.replace("METHOD", method)


def planned(folder: Path, text: str, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    cell = build_plan(load(folder, text, overrides), "run", "cpu").cells[0]
    return {method.method: method for method in cell.methods}


def settings_of(folder: Path, text: str) -> dict[str, Any]:
    return planned(folder, text)["mine"].work.settings


@pytest.mark.parametrize("kind", ["threshold", "masked", "kv_only"])
def test_routing_comes_from_the_checkpoint(tmp_path: Path, kind: str) -> None:
    found = settings_of(tmp_path, scenario(tmp_path, f"{{method: {kind}, checkpoint: saved}}"))
    assert len(found.pop("checkpoint_sha256")) == 64
    assert found == {
        "method": kind,
        "checkpoint": str(tmp_path / "saved"),
        "threshold_p": 0.55,
        "routed_layers": [1, 2],
        "gate": "unit",
    }


def test_topk_takes_its_capacity_from_the_checkpoint(tmp_path: Path) -> None:
    found = settings_of(tmp_path, scenario(tmp_path, "{method: topk, checkpoint: saved}", TOPK))
    assert (found["capacity"], found["routed_layers"], found["gate"]) == (0.25, [1, 3], "unit")
    assert "threshold_p" not in found


@pytest.mark.parametrize(("share", "layers"), [(0.5, [1, 3]), (0.01, [3])])
def test_a_share_of_layers_means_what_it_means_to_the_converted_model(
    tmp_path: Path, share: float, layers: list[int]
) -> None:
    config = CONVERTED | {"modification": MODIFICATION | {"routed_layers": share}}
    text = scenario(tmp_path, "{method: threshold, checkpoint: saved}", config)
    assert settings_of(tmp_path, text)["routed_layers"] == layers


def test_dense_runs_a_checkpoint_of_the_same_shape(tmp_path: Path) -> None:
    text = scenario(tmp_path, "{method: dense, checkpoint: saved, kv_cache: chunked}", DENSE | {"rope_theta": 5e5})
    found = settings_of(tmp_path, text)
    assert found["checkpoint"] == str(tmp_path / "saved")
    assert found["kv_cache"] == "chunked"


def test_of_a_shorter_checkpoint_the_number_of_removed_layers_is_known(tmp_path: Path) -> None:
    text = scenario(tmp_path, "{method: skip_layers, checkpoint: saved}", DENSE | {"num_hidden_layers": 3})
    found = settings_of(tmp_path, text)
    assert found["counted_as_removed"] == [3], "all layers are alike, so any of them may stand for the removed one"
    assert "routed_layers" not in found, "which one was removed is not known"


def test_of_layers_with_windows_those_of_the_missing_kind_are_counted(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "full_attention"]
    gemma = DENSE | {"model_type": "gemma2", "sliding_window": 32, "head_dim": 16}
    base = gemma | {"layer_types": kinds * 2}
    text = scenario(
        tmp_path,
        "{method: skip_layers, checkpoint: saved}",
        gemma | {"num_hidden_layers": 2, "layer_types": [kinds[0]] * 2},
        base,
    )
    assert settings_of(tmp_path, text)["counted_as_removed"] == [1, 3]
    save(tmp_path / "saved", gemma | {"num_hidden_layers": 3, "layer_types": [kinds[1]] * 3})
    assert errors(tmp_path, text)[0].endswith(
        "layer_types: got a layer with full attention where the scenario's model has none left; expected the model's layers in "
        "their order, some removed"
    )


def test_without_a_checkpoint_no_identity_changes(tmp_path: Path) -> None:
    text = scenario(tmp_path, "{method: threshold, keep_ratio: 0.111}")
    assert "checkpoint" not in settings_of(tmp_path, text)
    assert "checkpoint" not in planned(tmp_path, text)["dense"].work.settings


def test_another_checkpoint_is_other_work(tmp_path: Path) -> None:
    text = scenario(tmp_path, "{method: threshold, checkpoint: saved}")
    first = planned(tmp_path, text)
    save(tmp_path / "saved", CONVERTED, b"trained on")
    second = planned(tmp_path, text)
    assert first["mine"].point_id != second["mine"].point_id
    assert first["dense"].point_id == second["dense"].point_id, "whose checkpoint it is not"


def test_a_matrix_may_go_over_checkpoints(tmp_path: Path) -> None:
    text = scenario(tmp_path, "{method: threshold}")
    save(tmp_path / "other", CONVERTED | {"modification": MODIFICATION | {"threshold_p": 0.6}})
    text += "matrix: {methods.mine.checkpoint: [saved, other]}\n"
    text += 'expect: ["mine.decode_speedup > 1 @ methods.mine.threshold_p > 0.58"]\n'
    cells = build_plan(load(tmp_path, text), "run", "cpu").cells
    assert [cell.methods[1].work.settings["threshold_p"] for cell in cells] == [0.55, 0.6]
    assert cells[0].cell_id != cells[1].cell_id


def without(config: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != key}


ROUTED = "{method: threshold, checkpoint: saved}"
WHERE = "config.json in 'FOLDER/saved'"
AS_IN_MODEL = ", as in the scenario's model; name a model made from that one"
REFUSED = {
    "width": (ROUTED, CONVERTED | {"hidden_size": 48}, f"{WHERE}: hidden_size: got 48; expected 64{AS_IN_MODEL}"),
    "vocabulary": (ROUTED, CONVERTED | {"vocab_size": 301}, f"{WHERE}: vocab_size: got 301; expected 300{AS_IN_MODEL}"),
    "heads": (
        ROUTED,
        CONVERTED | {"num_key_value_heads": 4},
        f"{WHERE}: num_key_value_heads: got 4; expected 2{AS_IN_MODEL}",
    ),
    "layers": (
        ROUTED,
        CONVERTED | {"num_hidden_layers": 5},
        f"{WHERE}: num_hidden_layers: got 5; expected 4{AS_IN_MODEL}",
    ),
    "family": (
        ROUTED,
        CONVERTED | {"model_type": "mod_olmo2"},
        f"{WHERE}: model_type: got olmo2; expected llama{AS_IN_MODEL}",
    ),
    "no family": (ROUTED, CONVERTED | {"model_type": "mod_gpt2"}, f"{WHERE}: model_type: got 'gpt2'; expected one of"),
    "heads that do not divide": (
        ROUTED,
        CONVERTED | {"num_attention_heads": 5},
        f"{WHERE}: got hidden_size 64 with 5 attention heads",
    ),
    "dense for routed": (
        ROUTED,
        DENSE,
        f"{WHERE} is of a dense model, 'llama'; expected mod_llama, as a converted model is saved; leave checkpoint out",
    ),
    "routed for dense": (
        "{method: dense, checkpoint: saved}",
        CONVERTED,
        f"{WHERE} is of a converted model, 'mod_llama'; expected llama, which dense runs",
    ),
    "not shorter": (
        "{method: skip_layers, checkpoint: saved}",
        DENSE,
        f"{WHERE}: num_hidden_layers: got 4; expected fewer than the 4 of the scenario's model",
    ),
    "longer": (
        "{method: skip_layers, checkpoint: saved}",
        DENSE | {"num_hidden_layers": 6},
        f"{WHERE}: num_hidden_layers: got 6; expected fewer than the 4 of the scenario's model",
    ),
    "operator": (
        ROUTED,
        TOPK,
        f"{WHERE}: modification.operator: got 'topk'; expected threshold or masked or kv_only, which threshold runs",
    ),
    "operator of topk": (
        "{method: topk, checkpoint: saved}",
        CONVERTED,
        f"{WHERE}: modification.operator: got 'threshold'; expected topk, which topk runs",
    ),
    "no modification": (
        ROUTED,
        without(CONVERTED, "modification"),
        f"{WHERE}: modification: got nothing; expected the settings of a converted model; save it again",
    ),
    "modification without a key": (
        ROUTED,
        CONVERTED | {"modification": without(MODIFICATION, "gate")},
        f"{WHERE}: modification.gate: got nothing; expected one of shared, unit",
    ),
    "a bad value": (
        ROUTED,
        CONVERTED | {"modification": MODIFICATION | {"threshold_p": 2}},
        f"{WHERE}: modification.threshold_p: got 2; expected a number >= 0 and < 1",
    ),
    "layers of the model": (
        ROUTED,
        CONVERTED | {"modification": MODIFICATION | {"routed_layers": [4]}},
        f"{WHERE}: modification.routed_layers: got layer 4; expected indices from 0 to 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("method", "config", "expected"), REFUSED.values(), ids=REFUSED)
def test_a_checkpoint_of_another_kind_or_shape_is_exactly_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, config: object, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FOLDER").mkdir()
    lines = errors(Path("FOLDER"), scenario(Path("FOLDER"), method, config))
    assert len(lines) == 1, f"expected one line, got {lines}"
    assert lines[0].startswith(f"x.yaml:5: methods.mine.checkpoint: {expected}")


def test_windows_are_compared_layer_by_layer(tmp_path: Path) -> None:
    kinds = ["full_attention", "sliding_attention"]
    gemma = DENSE | {"model_type": "gemma2", "sliding_window": 32, "head_dim": 16}
    text = scenario(
        tmp_path,
        "{method: dense, checkpoint: saved}",
        gemma | {"layer_types": kinds * 2},
        gemma | {"layer_types": kinds[::-1] * 2},
    )
    assert "layer_types[0]: got full attention; expected a window of 32, as in" in errors(tmp_path, text)[0]


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("threshold", "threshold_p", "0.5"),
        ("threshold", "keep_ratio", "0.1"),
        ("masked", "gate", "unit"),
        ("kv_only", "routed_layers", "[1]"),
        ("topk", "capacity", "0.1"),
        ("skip_layers", "routed_layers", "[1]"),
    ],
)
def test_what_the_checkpoint_decides_is_not_given_as_well(tmp_path: Path, kind: str, key: str, value: str) -> None:
    lines = errors(tmp_path, scenario(tmp_path, f"{{method: {kind}, checkpoint: saved, {key}: {value}}}"))
    assert len(lines) == 1
    assert lines[0].startswith(f"x.yaml:5: methods.mine: got checkpoint with {key}; expected one without ")
    assert lines[0].endswith(f": the trained model decides; leave {key} out")


def test_folders_that_hold_no_model_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # long names are shortened in errors
    text = scenario(tmp_path, ROUTED)
    tmp_path = Path()
    (tmp_path / "saved" / "model.safetensors").unlink()
    assert errors(tmp_path, text)[0].endswith("which has no *.safetensors; expected the weights of a saved model")
    (tmp_path / "saved" / "config.json").write_text("{")
    assert "methods.mine.checkpoint: config.json in" in errors(tmp_path, text)[0]
    (tmp_path / "saved" / "config.json").unlink()
    assert "which has no config.json; expected a Hugging Face folder" in errors(tmp_path, text)[0]
    (tmp_path / "saved").rmdir()
    assert errors(tmp_path, text) == [
        "x.yaml:5: methods.mine.checkpoint: got 'saved', which is not a folder; "
        "expected a Hugging Face folder with config.json"
    ]


def test_a_converted_model_as_the_scenarios_model_is_sent_to_its_place(tmp_path: Path) -> None:
    lines = errors(tmp_path, scenario(tmp_path, "{method: threshold}", base=CONVERTED))
    assert len(lines) == 1
    assert lines[0].startswith("x.yaml:2: model.path: config.json in ")
    assert lines[0].endswith(
        "is of a converted model, 'mod_llama'; expected the dense model that it was made from; name the converted one as "
        "methods.<label>.checkpoint"
    )


def test_only_methods_that_can_run_one_have_the_key(tmp_path: Path) -> None:
    assert (
        "methods.mine.checkpoint: unknown key"
        in errors(tmp_path, scenario(tmp_path, '{entry: "a:b", checkpoint: saved}'))[0]
    )


def test_a_trained_router_needs_no_whole_number_of_kept_tokens(tmp_path: Path) -> None:
    text = scenario(tmp_path, "{method: topk, checkpoint: saved}", TOPK).replace("new_tokens: 10", "new_tokens: 2")
    assert settings_of(tmp_path, text)["capacity"] == 0.25


def test_the_schema_excludes_what_a_checkpoint_decides() -> None:
    definitions = json_schema()["$defs"]
    topk = definitions["TopkSettings"]
    assert topk["properties"]["checkpoint"]["anyOf"][0] == {"minLength": 1, "type": "string"}
    assert topk["if"]["required"] == ["checkpoint"]
    assert topk["then"] == {"not": {"anyOf": [{"required": [key]} for key in ("capacity", "routed_layers", "gate")]}}
    assert "if" not in definitions["DenseSettings"], "nothing of it is a checkpoint's"
