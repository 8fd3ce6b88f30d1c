"""Tiny models of every supported family, converted or not, and the tolerance that all exactness tests share."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from reference_impl import ModConfig, convert

BF16_RELATIVE_TOLERANCE = (
    0.02  # of the logits' standard deviation; seen: up to 0.005, one token wrongly kept: 0.05 and more
)
BF16_GATE_MARGIN = 2e-2  # rounding may flip a gate this near the threshold
FP32_TOLERANCE = 1e-5  # rounding of a few fp32 layers is about 3e-7; a wrong key or position shifts logits by over 1e-3

# a window of 8 is much shorter than the texts of the tests; the eager attention of Gemma-2 is the one that caps its logits
FAMILY_SETTINGS: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "llama-mha": {"num_key_value_heads": 4},
    "llama-head-dim-12": {"num_key_value_heads": 4, "hidden_size": 48, "head_dim": 12},
    "mistral": {"num_key_value_heads": 2, "sliding_window": None},
    "mistral-window": {"num_key_value_heads": 2, "sliding_window": 8},
    "qwen2": {"num_key_value_heads": 2},
    "qwen2-window": {
        "num_key_value_heads": 2,
        "use_sliding_window": True,
        "sliding_window": 8,
        "max_window_layers": 2,
    },
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
    "phi3": {"num_key_value_heads": 2, "partial_rotary_factor": 0.5},
    "phi3-window": {"num_key_value_heads": 2, "sliding_window": 8},
    "olmo2": {"num_key_value_heads": 2},
    "gemma2": {
        "num_key_value_heads": 2,
        "head_dim": 16,
        "sliding_window": 8,
        "query_pre_attn_scalar": 12,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        "attn_implementation": "eager",
    },
    "gemma3_text": {
        "num_key_value_heads": 2,
        "head_dim": 16,
        "sliding_window": 8,
        "query_pre_attn_scalar": 12,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "full_attention"],
    },
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
    attention = settings.pop("attn_implementation", "sdpa")
    config = AutoConfig.for_model(family.split("-")[0], **settings)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention).eval()


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
