"""A Hugging Face model as a subject: built from a point (preset, geometry or local folder), prefilled and decoded.

In: the resolved point. Out: a stock model on the device, and the `Subject` around a stock or converted one.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache

from modbench.errors import UnsupportedError
from modbench.geometry import Geometry, window_kind
from modbench.methods.base import Subject
from modbench.plan import PointWork
from reference_impl import Decision, ModCache, kv_cache_bytes
from reference_impl.convert import routed_attention
from reference_impl.mod_layer import sliding_windows
from reference_impl.mod_model import ModModel

STOCK_ATTENTION = {"auto": "sdpa", "sdpa": "sdpa", "torch_varlen": "sdpa", "flash_attn": "flash_attention_2"}
CAPPING_ATTENTION = {"auto": "eager", "flash_attn": "flash_attention_2"}
GEMMA3_LOCAL_ROPE_THETA = 10_000.0
ROUTER_SEED_OFFSET = 1
_WINDOW_FIELDS = ("sliding_window", "layer_types")


def hf_config(geometry: Geometry) -> Any:
    """The Hugging Face config of a geometry; rope parameters in the transformers 5 spelling.

    Whatever depends on the size is said, because families assume different things by themselves: head sizes, windows, the padding
    token. What does not is the family's own: activation, caps on logits, the local rotary base of Gemma-3.
    """
    family, kind = geometry.model_type, window_kind(geometry.model_type)
    values = geometry.model_dump(exclude={"model_type", "rope_theta", *_WINDOW_FIELDS}, exclude_none=True)
    values |= {"num_key_value_heads": geometry.kv_heads, "head_dim": geometry.size_per_head}
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": geometry.rope_theta}
    if kind == "every_layer":
        values["sliding_window"] = geometry.sliding_window
    if kind == "by_layer":  # Gemma wants a number even where no layer is windowed
        values["sliding_window"] = geometry.sliding_window or geometry.max_position_embeddings
        values["layer_types"] = ["sliding_attention" if window else "full_attention" for window in geometry.windows]
        values["use_sliding_window"] = geometry.sliding_window is not None
    if family.startswith("gemma"):
        values["query_pre_attn_scalar"] = geometry.size_per_head
    if family == "gemma3_text":
        local = {"rope_type": "default", "rope_theta": GEMMA3_LOCAL_ROPE_THETA}
        rope = {"full_attention": rope, "sliding_attention": local}
    return AutoConfig.for_model(family, rope_parameters=rope, use_cache=True, pad_token_id=None, **values)


def stock_attention(requested: str, config: Any) -> str:
    """The attention of dense layers, in transformers' names. Where logits are capped, `auto` is `eager`: `sdpa` cannot cap.

    Raises:
        UnsupportedError: the model caps its attention logits, and the attention asked for cannot.
    """
    if getattr(config, "attn_logit_softcapping", None) is None:
        return STOCK_ATTENTION[requested]
    if requested not in CAPPING_ATTENTION:
        raise UnsupportedError(
            f"measure.attention: got {requested}, which cannot cap the attention logits of {config.model_type}; "
            f"expected one of {', '.join(CAPPING_ATTENTION)}"
        )
    return CAPPING_ATTENTION[requested]


def build_model(point: PointWork, device: torch.device) -> PreTrainedModel:
    """The stock model of a point, in evaluation mode, on `device`; random weights depend on the seed alone.

    Raises:
        UnsupportedError: the checkpoint folder cannot be read as a causal language model, or the attention does not fit the model.
    """
    dtype = getattr(torch, point.dtype)
    torch.manual_seed(point.workload["seed"])
    if point.model["weights"] == "random":
        config = hf_config(point.geometry)
        attention = stock_attention(point.attention, config)
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
        return model.eval()
    return load_folder(Path(point.model["path"]), "model.path", point, device)


def load_folder(
    folder: Path, key: str, point: PointWork, device: torch.device, adapt: Callable[[Any], Any] | None = None
) -> PreTrainedModel:
    """A saved model in evaluation mode, on `device`, in the point's dtype and attention.

    Args:
        folder: as `save_pretrained` writes it.
        key: of the scenario, for errors.
        point: the work.
        device: where to.
        adapt: the folder's config -> the one to build the model from; None: its own.

    Raises:
        UnsupportedError: the folder cannot be read as a causal language model, or the attention does not fit the model.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        config = adapt(config) if adapt else config
        attention = stock_attention(point.attention, config)
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=getattr(torch, point.dtype),
            attn_implementation=attention,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, ImportError) as error:  # the last where an attention's package is not installed
        raise UnsupportedError(f"{key}: {folder}: {str(error).splitlines()[0]}") from error
    absent = sorted(info["missing_keys"])
    if absent:
        raise UnsupportedError(
            f"{key}: {folder}: the weights have no {absent[0]}, {len(absent)} missing in all; expected those of the whole model"
        )
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
