"""Tiny models of every supported family, converted or not, and the tolerance that all exactness tests share."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from reference_impl import ModConfig, convert

FP32_TOLERANCE = 1e-5  # rounding of a few fp32 layers is about 3e-7; a wrong key or position shifts logits by over 1e-3

FAMILY_SETTINGS: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "llama-mha": {"num_key_value_heads": 4},
    "llama-head-dim-12": {"num_key_value_heads": 4, "hidden_size": 48, "head_dim": 12},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
}


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


def dense_model(family: str = "llama", **overrides: Any) -> PreTrainedModel:
    """A seeded model with enlarged weights, so that mistakes are not hidden by tiny activations."""
    settings: dict[str, Any] = {
        "num_hidden_layers": 4,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "vocab_size": 211,
        "max_position_embeddings": 256,
        "initializer_range": 0.1,
        "pad_token_id": 0,
        "eos_token_id": None,
        "bos_token_id": None,
        **FAMILY_SETTINGS[family],
        **overrides,
    }
    torch.manual_seed(7)
    config = AutoConfig.for_model(family.split("-")[0], **settings)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def random_ids(rows: int, length: int, seed: int = 3) -> torch.Tensor:
    return torch.randint(1, 211, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def make_converted() -> Callable[..., PreTrainedModel]:
    """`make_converted(family, **ModConfig settings)`: half of the tokens are kept at an uncalibrated router."""

    def make(family: str = "llama", model_overrides: dict[str, Any] | None = None, **settings: Any) -> PreTrainedModel:
        model = dense_model(family, **(model_overrides or {}))
        torch.manual_seed(11)
        return convert(model, ModConfig(**{"router_bias": 0.0, **settings}))

    return make
