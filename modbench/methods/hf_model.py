"""A Hugging Face model as a subject: built from a point (preset, geometry or local folder), prefilled and decoded.

In: the resolved point. Out: a stock model on the device, and the `Subject` around a stock or converted one.
"""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache

from modbench.errors import UnsupportedError
from modbench.methods.base import Subject
from modbench.plan import PointWork
from modbench.presets import Geometry
from reference_impl import Decision, ModCache, kv_cache_bytes
from reference_impl.convert import routed_attention
from reference_impl.mod_layer import sliding_windows
from reference_impl.mod_model import ModModel

STOCK_ATTENTION = {"auto": "sdpa", "sdpa": "sdpa", "torch_varlen": "sdpa", "flash_attn": "flash_attention_2"}
ROUTER_SEED_OFFSET = 1


def hf_config(geometry: Geometry) -> Any:
    """The Hugging Face config of a geometry; rope parameters in the transformers 5 spelling."""
    values = geometry.model_dump(exclude={"model_type", "rope_theta"}, exclude_none=True)
    return AutoConfig.for_model(
        geometry.model_type,
        rope_parameters={"rope_type": "default", "rope_theta": geometry.rope_theta},
        use_cache=True,
        **values,
    )


def build_model(point: PointWork, device: torch.device) -> PreTrainedModel:
    """The stock model of a point, in evaluation mode, on `device`; random weights depend on the seed alone.

    Raises:
        UnsupportedError: the checkpoint folder cannot be read as a causal language model.
    """
    dtype = getattr(torch, point.dtype)
    attention = STOCK_ATTENTION[point.attention]
    torch.manual_seed(point.workload["seed"])
    if point.model["weights"] == "random":
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(
                hf_config(point.geometry), dtype=dtype, attn_implementation=attention
            )
        return model.eval()
    folder = Path(point.model["path"])
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation=attention, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise UnsupportedError(f"model.path: {folder}: {str(error).splitlines()[0]}") from error
    return model.to(device).eval()


class HfSubject(Subject):
    """Prefill and decode through the model's own forward, with the stock cache or this project's."""

    def __init__(self, model: PreTrainedModel, kv_cache: str = "stock") -> None:
        self.model = model
        self.kv_cache = kv_cache
        self.attention_path = model.config._attn_implementation
        if isinstance(model, ModModel):
            model.routing.history = []
            self.attention_path += f", routed layers: {routed_attention(model)}"

    def new_cache(self) -> Cache:
        """An empty cache of the kind this subject uses."""
        if isinstance(self.model, ModModel):
            return self.model.new_cache()
        if self.kv_cache == "chunked":
            return ModCache(sliding_windows(self.model.config))
        return DynamicCache(config=self.model.config)

    def prefill(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, all_logits: bool = False
    ) -> tuple[Tensor, Any]:
        """See `Subject.prefill`; the state is the cache."""
        cache = self.new_cache()
        logits = self._forward(input_ids, cache, attention_mask, 0 if all_logits else 1)
        return logits, cache

    def decode(self, token_ids: Tensor, state: Any, attention_mask: Tensor | None = None) -> Tensor:
        """See `Subject.decode`."""
        return self._forward(token_ids, state, attention_mask, 1)

    def _forward(self, input_ids: Tensor, cache: Cache, attention_mask: Tensor | None, logits_to_keep: int) -> Tensor:
        positions: dict[str, Tensor] = {}
        if attention_mask is not None:  # left padding must not shift positions; `generate` does the same
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
            positions["position_ids"] = position_ids[:, -input_ids.shape[1] :]
        return self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=logits_to_keep,
            **positions,
        ).logits

    def kv_cache_bytes(self, state: Any) -> tuple[int, int]:
        """See `Subject.kv_cache_bytes`."""
        return kv_cache_bytes(state)

    def weights_bytes(self) -> int:
        """See `Subject.weights_bytes`."""
        tensors = itertools.chain(self.model.parameters(), self.model.buffers())
        storages = [tensor.untyped_storage() for tensor in tensors]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    def take_decisions(self) -> list[dict[int, Decision]]:
        """See `Subject.take_decisions`: decisions come in layer order, so a layer seen again starts the next forward."""
        if not isinstance(self.model, ModModel) or not self.model.routing.history:
            return []
        forwards: list[dict[int, Decision]] = []
        for layer_idx, decision in self.model.routing.history:
            if not forwards or layer_idx in forwards[-1]:
                forwards.append({})
            forwards[-1][layer_idx] = decision
        self.model.routing.history = []
        return forwards

    @contextmanager
    def replay(self, keep_masks: Mapping[int, Tensor]) -> Iterator[None]:
        """See `Subject.replay`."""
        if not isinstance(self.model, ModModel):
            yield
            return
        with self.model.routing.replay(keep_masks):
            yield
