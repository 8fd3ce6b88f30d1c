"""The model class around routed layers: gives every forward a cache that fits, saves, loads, and reports what was kept.

In: a stock model's forward and `generate` calls. Out: the same results, with `ModCache` in the place of the stock dynamic cache.
"""

import copy
from dataclasses import replace
from typing import Any, ClassVar

import torch
import transformers
from packaging.version import Version
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from reference_impl.chunked_layer import MaskedLayer
from reference_impl.config import TRAINING_SETTINGS, ModConfig
from reference_impl.errors import ModConfigError, UnsupportedModelError
from reference_impl.executions import EXECUTIONS
from reference_impl.kv_cache import ModCache
from reference_impl.mod_layer import RoutedLayer, fit_slot, refuse_attention, route_layers, sliding_windows
from reference_impl.objective import LayerLoad
from reference_impl.packing import has_restart, packed_sequence_lengths, positions_of_sequences
from reference_impl.ragged_layer import RaggedLayer
from reference_impl.routing import Routing, RoutingReport

# transformers 5.17 is wrong about chunks behind a filled cache and 5.23 is right; those between were not tried
CHUNKS_CONTINUE_SINCE = Version("5.23")
IGNORED_LABEL = -100  # of the stock loss
DYNAMIC_IMPLEMENTATIONS = (None, "dynamic", "hybrid")  # transformers reads hybrid as an old name of its default


class ModModel:
    """Mixin before a stock `...ForCausalLM` class; `convert` swaps it in. The family sets `mod_config_class` and
    `mod_layer_class`."""

    routing: Routing
    routed_layers: tuple[int, ...]
    config: Any
    mod_config_class: ClassVar[type]
    mod_layer_class: ClassVar[type[RoutedLayer]]
    # a threshold is decided in float32, whatever the model's dtype
    _keep_in_fp32_modules_strict: Any = {"router"}  # noqa: RUF012 (as in transformers)
    _no_split_modules: Any

    def __init__(self, config: Any) -> None:
        """As the stock model, then routed as the checkpoint's `modification` says.

        Raises:
            ModConfigError: the configuration has none, as that of a dense checkpoint.
        """
        if config.modification is None:
            raise ModConfigError(
                "modification: missing; expected the settings of a converted model: convert the dense model, or load a folder that "
                "a converted one saved"
            )
        super().__init__(config)  # type: ignore[call-arg]
        self.route(ModConfig.from_dict(config.modification))

    def route(self, config: ModConfig, attention: str = "auto") -> None:
        """Turn the stock layers of this model into routed ones, and let its configuration say so.

        Raises:
            ModConfigError: a routed layer is beyond the model.
            UnsupportedModelError: the attention backend is not there.
        """
        layers = self.get_decoder().layers  # type: ignore[attr-defined]
        self.routing = route_layers(layers, self.mod_layer_class, config, self.config, attention)
        self.routed_layers = config.resolve_layers(len(layers))
        self._own_config()
        self.config.modification = config.to_dict()
        # transformers read both off the stock class when the model was built
        self._no_split_modules = {type(layer).__name__ for layer in layers}
        self._keep_in_fp32_modules_strict = {*(self._keep_in_fp32_modules_strict or ()), "router"}

    def set_objective(self, **settings: Any) -> None:
        """Change how the model is trained from here on: some of `TRAINING_SETTINGS` (config.py), which it also saves.

        Raises:
            ModConfigError: another setting, or a value out of its range.
        """
        other = sorted(set(settings) - set(TRAINING_SETTINGS))
        if other:
            raise ModConfigError(
                f"{other[0]}: cannot be changed after the conversion; expected some of {', '.join(TRAINING_SETTINGS)}"
            )
        self.routing.set_config(replace(self.routing.config, **settings))
        self.config.modification = self.routing.config.to_dict()

    def _own_config(self) -> None:
        """A configuration of the MoDified class for this model alone: a stock model may share the one it was built from."""
        if isinstance(self.config, self.mod_config_class):
            return
        stock_config, self.config = self.config, copy.deepcopy(self.config)
        self.config.__class__ = self.mod_config_class
        vars(self.config).pop("model_type", None)  # one that was loaded has its class's as its own
        for module in self.modules():  # type: ignore[attr-defined]
            if vars(module).get("config") is stock_config:
                module.config = self.config

    def new_cache(self) -> ModCache:
        """An empty cache: ragged at routed layers, chunked at dense ones."""
        cache_class = EXECUTIONS[self.routing.config.operator].cache_class
        return ModCache(sliding_windows(self.config), self.routed_layers, cache_class)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> Any:
        """As the stock model's forward, and in training with labels the loss has the objective added.

        Without a cache of the caller's, a `ModCache` is made and returned. Rows that hold several sequences, told by positions
        that restart or by `cu_seq_lens_q`, are computed as if each were alone; they take no mask and no cache, so `use_cache`
        is off for them by default.

        Raises:
            UnsupportedModelError: a cache that cannot hold ragged rows, a mask that is not (B, T), packed sequences with a mask, a
                cache or another operator than threshold, attention weights asked for, or gates without gradient where the
                objective needs one.
        """
        self._check_request(attention_mask, past_key_values, kwargs.get("output_attentions"))
        inputs = input_ids if inputs_embeds is None else inputs_embeds
        if inputs is not None:
            position_ids = _with_cumulative_lengths(kwargs.get("cu_seq_lens_q"), position_ids, inputs)
            sequences = self._packed_sequences(
                position_ids, attention_mask, past_key_values, use_cache, inputs.shape[0]
            )
            kwargs["packed_sequences"] = sequences
            if sequences is not None or self._estimates_skipped(use_cache):
                use_cache = False
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if use_cache and past_key_values is None:
            past_key_values = self.new_cache()
        if inputs is not None and inputs.shape[1] == 0:  # stock attention cannot reshape nothing
            weight = self.get_output_embeddings().weight  # type: ignore[attr-defined]
            return CausalLMOutputWithPast(
                logits=weight.new_empty(inputs.shape[0], 0, weight.shape[0]), past_key_values=past_key_values
            )
        arguments = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            "inputs_embeds": inputs_embeds,
            "labels": labels,
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep,
            **kwargs,
        }
        if labels is None or not self.training or self.routing.objective is None:  # type: ignore[attr-defined]
            return super().forward(**arguments)  # type: ignore[misc]
        with self.routing.collecting() as loads:
            output = super().forward(**arguments)  # type: ignore[misc]
        return self._with_objective(output, loads, labels, kwargs.get("num_items_in_batch"))

    def _estimates_skipped(self, use_cache: bool | None) -> bool:
        """Whether this forward trains routers through skipped tokens too; it takes whole sequences, so a cache is refused."""
        is_training = self.training and torch.is_grad_enabled()  # type: ignore[attr-defined]
        if not is_training or self.routing.config.skipped_gradient == "none":
            return False
        if use_cache:
            raise UnsupportedModelError(
                "use_cache: got True in training; skipped_gradient straight_through expects whole sequences: leave it out"
            )
        return True

    def _check_request(
        self, attention_mask: Any, past_key_values: Cache | None, output_attentions: bool | None
    ) -> None:
        """Refuse what routed layers would get wrong, and give them their cache slots."""
        refuse_attention(self.config)  # it may have been set since the conversion
        if past_key_values is not None:
            self._fit_cache(past_key_values)
        if self.config.output_attentions if output_attentions is None else output_attentions:
            raise UnsupportedModelError(
                "output_attentions: got True; routed layers compute no attention weights: leave it out"
            )
        if attention_mask is not None and not (isinstance(attention_mask, Tensor) and attention_mask.dim() == 2):
            raise UnsupportedModelError(
                f"attention_mask: got {_described(attention_mask)}; expected (batch, tokens) with 0 at padding"
            )

    def _with_objective(
        self, output: Any, loads: list[LayerLoad], labels: Tensor, num_items: Tensor | int | None
    ) -> Any:
        """The output with the objective added to its loss.

        Where the loss is a share of a larger batch (`num_items_in_batch`), so is the objective: by the labels that count here.
        Accumulated over micro-batches it is then their mean, weighted by tokens (our choice).
        """
        assert self.routing.objective is not None, "without one there is nothing to add"
        objective = self.routing.objective(loads, self.routing.config, self.routing.progress)
        if num_items is not None:
            objective = objective * ((labels[..., 1:] != IGNORED_LABEL).sum() / num_items)
        # not on the output: DDP and autocast make it anew from what the stock class declares
        self.routing.last_objective = objective.detach()
        if isinstance(output, tuple):
            return (output[0] + objective.to(output[0].device), *output[1:])
        output.loss = output.loss + objective.to(output.loss.device)
        return output

    def _fit_cache(self, cache: Cache) -> None:
        """Give routed layers their slots, and refuse caches that would store skipped tokens or lose kept ones."""
        if isinstance(cache, EncoderDecoderCache) or not isinstance(cache, Cache):
            raise UnsupportedModelError(
                f"past_key_values: got a {type(cache).__name__}; expected a new dynamic cache: leave past_key_values out"
            )
        cache_class = EXECUTIONS[self.routing.config.operator].cache_class
        windows = sliding_windows(self.config)
        for index in self.routed_layers:
            if index < len(windows):  # an early exit runs fewer layers
                fit_slot(cache, index, cache_class, windows[index])
        for index, slot in enumerate(cache.layers):
            if index not in self.routed_layers and isinstance(slot, RaggedLayer | MaskedLayer):
                raise UnsupportedModelError(
                    f"past_key_values: layer {index} is dense and got the {type(slot).__name__} of a routed one; use a new cache"
                )

    def _packed_sequences(
        self,
        position_ids: Tensor | None,
        attention_mask: Tensor | None,
        past_key_values: Cache | None,
        use_cache: bool | None,
        batch: int,
    ) -> list[int] | None:
        """Tokens of each sequence where rows hold several, else None; checked."""
        if attention_mask is not None:
            sequences, is_packed = None, has_restart(position_ids, attention_mask)
        else:
            may_cache = self.config.use_cache if use_cache is None else use_cache
            # without mask and cache the dense layers of the same model start a sequence at every jump
            starts_at_jumps = not may_cache and past_key_values is None
            sequences = packed_sequence_lengths(position_ids, batch, starts_at_jumps)
            is_packed = sequences is not None
            if is_packed and not starts_at_jumps:  # packed rows get no cache, so this is where they do
                sequences = packed_sequence_lengths(position_ids, batch, starts_at_jumps=True)
        if is_packed and not EXECUTIONS[self.routing.config.operator].packs_sequences:
            raise UnsupportedModelError(
                f"position_ids: they restart within a row; operator {self.routing.config.operator} takes one sequence per row"
            )
        if is_packed and (attention_mask is not None or past_key_values is not None or use_cache):
            raise UnsupportedModelError(
                "position_ids: they restart within a row; sequences packed into a row take no attention_mask and no cache: "
                "leave attention_mask and past_key_values out and set use_cache=False"
            )
        return sequences

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
        implementation = generation_config.cache_implementation
        if implementation not in DYNAMIC_IMPLEMENTATIONS:
            raise UnsupportedModelError(
                f"cache_implementation: got {implementation!r}, which stores one entry per token; leave it out"
            )
        given = model_kwargs.get("past_key_values")
        if generation_config.prefill_chunk_size is not None:
            _refuse_chunks_behind(given)
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args)  # type: ignore[misc]
        made: Any = model_kwargs.get("past_key_values")
        if given is None and type(made) is DynamicCache:
            model_kwargs["past_key_values"] = self.new_cache()
            if getattr(generation_config, "is_assistant", False):  # its candidates are taken back
                model_kwargs["past_key_values"].activate_past_recording()

    def init_continuous_batching(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: its paged cache stores one entry per token.

        Raises:
            UnsupportedModelError: always.
        """
        raise UnsupportedModelError(
            "cache_implementation: continuous batching pages one entry per token; call generate with the default cache"
        )

    def routing_report(self, keep_masks: bool = False) -> RoutingReport:
        """What the routed layers kept in the last forward, padding not counted; with the masks (B, T) themselves on request."""
        return self.routing.report(keep_masks)


def _refuse_chunks_behind(cache: Any) -> None:
    if (
        isinstance(cache, Cache)
        and cache.get_seq_length()
        and Version(transformers.__version__) < CHUNKS_CONTINUE_SINCE
    ):
        raise UnsupportedModelError(
            f"prefill_chunk_size: transformers {transformers.__version__} feeds a filled cache its own tokens again; "
            f"leave it out, or use transformers {CHUNKS_CONTINUE_SINCE} or newer"
        )


def _described(attention_mask: Any) -> str:
    if isinstance(attention_mask, Tensor):
        return f"{attention_mask.dim()} dimensions"
    return f"a {type(attention_mask).__name__}"


def _with_cumulative_lengths(cu_seqlens: Tensor | None, position_ids: Tensor | None, inputs: Tensor) -> Tensor | None:
    """The positions that FlashAttention's `cu_seq_lens_q` (S+1,) implies, checked against those given.

    Raises:
        UnsupportedModelError: they do not fit the tokens, or contradict the given positions.
    """
    if cu_seqlens is None:
        return position_ids
    batch, num_tokens = inputs.shape[:2]
    lengths = cu_seqlens.diff().tolist()
    if batch != 1 or sum(lengths) != num_tokens:
        raise UnsupportedModelError(
            f"cu_seq_lens_q: got {sum(lengths)} tokens for inputs of {batch} x {num_tokens}; expected one row of as many"
        )
    if position_ids is None:
        return positions_of_sequences(cu_seqlens, num_tokens)
    given = packed_sequence_lengths(position_ids, 1, starts_at_jumps=True) or [num_tokens]
    if given != [length for length in lengths if length]:
        raise UnsupportedModelError(
            f"cu_seq_lens_q: got sequences of {lengths} tokens; position_ids restart after {given}: leave one of them out"
        )
    return position_ids
