"""A stock model and its converted twin on the same weight tensors, a prefill of either, and keep masks to replay.

Sharing the weights takes layout luck out of the ratio: both read the same memory.

Shapes: B batch, T tokens.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache

from modbench.methods.hf_model import hf_config
from modbench.presets import Geometry
from reference_impl import ModConfig, convert


@dataclass(frozen=True)
class PairedModels:
    geometry: Geometry
    dense: PreTrainedModel
    packed: Any

    @classmethod
    def build(cls, geometry: Geometry) -> "PairedModels":
        torch.manual_seed(0)
        dense = AutoModelForCausalLM.from_config(
            hf_config(geometry), dtype=torch.float32, attn_implementation="sdpa"
        ).eval()
        twin = copy.deepcopy(dense, {id(parameter): parameter for parameter in dense.parameters()})
        return cls(geometry, dense, convert(twin, ModConfig()))

    def prompt(self, batch: int, num_tokens: int) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randint(1, self.geometry.vocab_size, (batch, num_tokens), generator=generator)

    def prefill_dense(self, ids_BT: Tensor) -> Cache:
        return _prefill(self.dense, DynamicCache(config=self.dense.config), ids_BT)

    def prefill_packed(self, ids_BT: Tensor, keep_masks: dict[int, Tensor]) -> Cache:
        with self.packed.routing.replay(keep_masks):
            return _prefill(self.packed, self.packed.new_cache(), ids_BT)


@torch.inference_mode()
def _prefill(model: PreTrainedModel, cache: Cache, ids_BT: Tensor) -> Cache:
    logits = model(input_ids=ids_BT, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    logits[:, -1].argmax(dim=-1).tolist()
    return cache


def keep_masks(
    shares: Sequence[float], num_tokens: int, layers: Iterable[int], is_contiguous: bool = False
) -> dict[int, Tensor]:
    """(B, T) masks per layer: row b keeps round(shares[b] * T) tokens, its last ones or any, others at each layer."""
    masks = {}
    for layer in layers:
        generator = torch.Generator().manual_seed(layer)
        mask_BT = torch.zeros(len(shares), num_tokens, dtype=torch.bool)
        for row, share in enumerate(shares):
            num_kept = round(share * num_tokens)
            kept = torch.randperm(num_tokens, generator=generator)[:num_kept]
            mask_BT[row, slice(num_tokens - num_kept, None) if is_contiguous else kept] = True
        masks[layer] = mask_BT
    return masks
