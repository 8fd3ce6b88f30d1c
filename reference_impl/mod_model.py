"""The model class around routed layers: gives every forward a cache that fits, saves, loads, and reports what was kept.

In: a stock model's forward and `generate` calls. Out: the same results, with `ModCache` in the place of the stock dynamic cache.
"""

from typing import Any, ClassVar

from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from reference_impl.config import ModConfig
from reference_impl.errors import UnsupportedModelError
from reference_impl.executions import EXECUTIONS
from reference_impl.kv_cache import ModCache
from reference_impl.mod_layer import RoutedLayer, route_layers
from reference_impl.routing import Routing

MODEL_TYPE_PREFIX = "mod_"


class ModModel:
    """Mixin before a stock `...ForCausalLM` class; `convert` swaps it in. The family sets `mod_config_class` and
    `mod_layer_class`."""

    routing: Routing
    routed_layers: tuple[int, ...]
    config: Any
    mod_config_class: ClassVar[type]
    mod_layer_class: ClassVar[type[RoutedLayer]]
    # a threshold is decided in float32, whatever the model's dtype
    _keep_in_fp32_modules_strict: ClassVar[Any] = {"router"}

    def __init__(self, config: Any) -> None:
        """As the stock model, then routed as the checkpoint's `modification` says."""
        super().__init__(config)  # type: ignore[call-arg]
        self.route(ModConfig.from_dict(config.modification))

    def route(self, config: ModConfig, attention: str = "auto") -> None:
        """Turn the stock layers of this model into routed ones, and let its configuration say so.

        Raises:
            ModConfigError: a routed layer is beyond the model.
            UnsupportedModelError: the attention backend is not there.
        """
        layers = self.get_decoder().layers  # type: ignore[attr-defined]
        self.routing = route_layers(layers, self.mod_layer_class, config, self.config.hidden_size, attention)
        self.routed_layers = config.resolve_layers(len(layers))
        self.config.__class__ = self.mod_config_class
        self.config.modification = config.to_dict()

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
        """As the stock model's: `model_type` is `mod_<family>`, the settings stand under `modification`.

        Raises:
            UnsupportedModelError: routers were calibrated by position, which belongs to one text and is not saved.
        """
        for index in self.routed_layers:
            if self.get_decoder().layers[index].router.continuation is not None:  # type: ignore[attr-defined]
                raise UnsupportedModelError(
                    f"save_pretrained: layer {index} was calibrated by position; calibrate without prompt_length first"
                )
        super().save_pretrained(*args, **kwargs)  # type: ignore[misc]

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """As the stock model's, but router weights that are missing or alien are an error, never uninitialised memory.

        Raises:
            UnsupportedModelError: router keys of checkpoint and settings differ.
        """
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)  # type: ignore[misc]
        for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            routers = sorted(str(key) for key in info[problem] if ".router." in str(key))
            if routers:
                raise UnsupportedModelError(
                    f"checkpoint: {problem.replace('_', ' ')}: {', '.join(routers[:3])}: its routers do not fit its settings; "
                    "load the dense model and convert it"
                )
        return (model, info) if output_loading_info else model

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
