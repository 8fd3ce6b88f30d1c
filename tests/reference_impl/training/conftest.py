"""A small text, models of two layers that read its bytes, and trainings of a few steps."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from reference_impl import ModConfig, convert
from reference_impl.data import ByteTokenizer, DataConfig, SourceConfig
from reference_impl.training import TrainConfig, read_log, train
from tests.reference_impl.conftest import dense_model

pytest.importorskip("accelerate", reason="Trainer needs accelerate, which is not installed")

VOCAB_SIZE = 257  # bytes, and the end of a document
SMALL = {"num_hidden_layers": 2, "vocab_size": VOCAB_SIZE, "initializer_range": 0.05}  # the second one is routed
CONFIG = {"steps": 4, "batch_size": 2, "learning_rate": 1e-3, "log_every": 1, "save_every": 2, "evaluate_rows": 2}
BUDGET = {"objective": "keep_budget", "skipped_gradient": "straight_through", "target_keep_ratio": 0.25}


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    """Rows of several documents, of which a fifth is held out."""
    (tmp_path / "texts").mkdir()
    for index in range(40):
        words = " ".join(f"word{(index * step) % 17}" for step in range(1, 4 + index % 9))
        (tmp_path / "texts" / f"{index:02}.txt").write_text(f"text {index}: {words}\n")
    sources = (SourceConfig("text", path=str(tmp_path / "texts")),)
    return DataConfig(sources=sources, sequence_length=32, held_out_share=0.2, shuffle_rows=4)


def small_dense(**overrides: Any) -> PreTrainedModel:
    return dense_model(**{**SMALL, **overrides})


def small_converted(**settings: Any) -> PreTrainedModel:
    model = small_dense()
    torch.manual_seed(11)
    return convert(model, ModConfig(**{"router_bias": 0.0, **settings}))


def run(model: PreTrainedModel, data: DataConfig, output: Path, **changes: Any) -> PreTrainedModel:
    """Train; `changes` are settings of TrainConfig, or arguments of `train` in `call`."""
    call = {"tokenizer": ByteTokenizer(), **changes.pop("call", {})}
    return train(model, data, TrainConfig(**{**CONFIG, **changes}), output, **call)


def logged(output: Path) -> list[dict[str, Any]]:
    """The lines of the steps."""
    return [line for line in read_log(output / "log.jsonl") if "loss" in line]


def weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Bit for bit."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def facts_of(output: Path) -> dict[str, Any]:
    return json.loads((output / "training.json").read_text())
