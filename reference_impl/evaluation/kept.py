"""What a model keeps of a text, and the KV cache that follows, so that quality and cost stand side by side.

In: the decisions of forwards; keep ratios. Out: keep ratio per routed layer; bytes of KV cache per token.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from reference_impl.executions import EXECUTIONS
from reference_impl.mod_layer import sliding_windows
from reference_impl.mod_model import ModModel
from reference_impl.ragged_layer import RaggedLayer


@dataclass
class KeptTokens:
    """Adds up what forwards kept; empty for a dense model.

    Attributes:
        num_kept: routed layer -> kept tokens.
        num_tokens: tokens that each of them saw.
        masks: of each forward, what the routed layers kept (L, B * T), bool on the host, row behind row.
    """

    num_kept: dict[int, int] = field(default_factory=dict)
    num_tokens: int = 0
    masks: list[Tensor] = field(default_factory=list)

    def add(self, model: PreTrainedModel) -> None:
        """Count the last forward of the model, which had no padding."""
        if not isinstance(model, ModModel):
            return
        keep_LN = torch.stack([decision.keep_BT.flatten().cpu() for _, decision in sorted(model.routing.last.items())])
        for layer, num_kept in zip(sorted(model.routing.last), keep_LN.sum(dim=1).tolist(), strict=True):
            self.num_kept[layer] = self.num_kept.get(layer, 0) + num_kept
        self.num_tokens += keep_LN.shape[1]
        self.masks.append(keep_LN)

    def keep_masks(self) -> Tensor:
        """What the routed layers kept of all tokens, (L, N), bool; L in ascending order of the layers."""
        return torch.cat(self.masks, dim=1)

    def keep_ratio(self) -> dict[int, float]:
        """Routed layer -> kept tokens / tokens."""
        return {layer: num_kept / self.num_tokens for layer, num_kept in self.num_kept.items()}

    def mean_keep_ratio(self) -> float | None:
        """Mean over the routed layers; None where there are none."""
        ratios = self.keep_ratio()
        return sum(ratios.values()) / len(ratios) if ratios else None


@dataclass(frozen=True)
class KvCacheSize:
    """Bytes that the stored tokens of a text occupy, per token of the text, all layers together.

    Attributes:
        context_tokens: length of the text; layers with a sliding window store fewer of a longer one.
        kv_cache_bytes_per_token: at the measured keep ratios.
        dense_kv_cache_bytes_per_token: of the same model with every token kept.
        kv_cache_reduction_ratio: the second by the first; None where nothing is stored.
    """

    context_tokens: int
    kv_cache_bytes_per_token: float
    dense_kv_cache_bytes_per_token: float
    kv_cache_reduction_ratio: float | None


def kv_cache_size(model: PreTrainedModel, keep_ratio: Mapping[int, float], context_tokens: int) -> KvCacheSize:
    """What keep ratios mean for the cache of a text; with a window, as if tokens were kept evenly over the text.

    Args:
        model: dense or converted.
        keep_ratio: of every routed layer of the model; empty for a dense one.
        context_tokens: length of the text, >= 1.
    """
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    bytes_per_stored = 2 * config.num_key_value_heads * head_dim * model.dtype.itemsize  # a key and a value
    stored = dense_stored = 0.0
    for layer, window in enumerate(sliding_windows(config)):
        reach = context_tokens if window is None else min(context_tokens, window - 1)
        dense_stored += reach
        if layer not in keep_ratio:
            stored += reach
        elif EXECUTIONS[model.routing.config.operator].cache_class is RaggedLayer:
            stored += keep_ratio[layer] * reach
        else:  # the masked control stores every token, whatever its window
            stored += context_tokens
    per_token = bytes_per_stored / context_tokens
    reduction = dense_stored / stored if stored else None
    return KvCacheSize(context_tokens, stored * per_token, dense_stored * per_token, reduction)
