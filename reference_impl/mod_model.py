"""The model class around routed layers: gives every forward a cache that fits, and reports what was kept.

In: a stock model's forward and `generate` calls. Out: the same results, with `ModCache` in the place of the stock dynamic cache.
"""

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from reference_impl.errors import UnsupportedModelError
from reference_impl.executions import EXECUTIONS
from reference_impl.kv_cache import ModCache
from reference_impl.routing import Routing


class ModModel:
    """Mixin before a stock `...ForCausalLM` class; `convert` swaps it in and sets `routing` and `routed_layers`."""

    routing: Routing
    routed_layers: tuple[int, ...]
    config: Any

    def new_cache(self) -> ModCache:
        """An empty cache: ragged at routed layers, chunked at dense ones."""
        cache_class = EXECUTIONS[self.routing.config.operator].cache_class
        return ModCache(self.config.num_hidden_layers, self.routed_layers, cache_class)

    def forward(
        self,
        input_ids: Tensor | None = None,
        *args: Any,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the stock model's forward; without a cache of the caller's, a `ModCache` is made and returned.

        Raises:
            UnsupportedModelError: a 4-D attention mask, or positions that restart (several sequences packed into a row).
        """
        _refuse_other_masks(kwargs.get("attention_mask"), kwargs.get("position_ids"))
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if use_cache and past_key_values is None and not args:
            past_key_values = self.new_cache()
        return super().forward(  # type: ignore[misc]
            input_ids, *args, past_key_values=past_key_values, use_cache=use_cache, **kwargs
        )

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Not built yet: a checkpoint written by the stock code would load as a dense model without a word.

        Raises:
            UnsupportedModelError: always.
        """
        raise UnsupportedModelError(
            "save_pretrained: converted models cannot be saved yet; save the dense model instead"
        )

    def _prepare_cache_for_generation(self, generation_config: Any, model_kwargs: dict, *args: Any) -> None:
        had_cache = model_kwargs.get("past_key_values") is not None
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args)  # type: ignore[misc]
        made: Any = model_kwargs.get("past_key_values")
        if not had_cache and type(made) is DynamicCache and not made.offloading:
            model_kwargs["past_key_values"] = self.new_cache()

    def routing_report(self) -> dict[int, float]:
        """Routed layer index -> share of the last forward's tokens (padding included) that it kept."""
        return {layer: last.keep_BT.float().mean().item() for layer, last in sorted(self.routing.last.items())}


def _refuse_other_masks(attention_mask: Tensor | None, position_ids: Tensor | None) -> None:
    """Routed layers are causal over all kept tokens of a row; they read nothing but padding from a mask."""
    if attention_mask is not None and attention_mask.dim() != 2:
        raise UnsupportedModelError(
            f"attention_mask: got {attention_mask.dim()} dimensions; expected (batch, tokens) with 0 at padding"
        )
    if position_ids is not None and position_ids.shape[-1] > 1 and bool((position_ids.diff(dim=-1) < 0).any()):
        raise UnsupportedModelError(
            "position_ids: they restart within a row; sequences packed into a row are not supported"
        )
