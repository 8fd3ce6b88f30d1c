"""The shape of a Hugging Face model, in the names of its `config.json`, for the families that can be converted.

In: sizes, checked. Out: parameter counts, windows, and the `ModelShape` that predictions work on. What families differ in and no
config says (norms, biases, which layers have a window) is the table `_TRAITS`.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from modbench.model_shape import LayerShape, ModelShape

MAX_LAYERS, MAX_SIZE, MAX_POSITIONS = 10_000, 2**24, 2**31  # a slip of the keyboard is an error, not out of memory
ModelType = Literal["llama", "mistral", "qwen2", "qwen3", "phi3", "olmo2", "gemma2", "gemma3_text"]
LayerType = Literal["full_attention", "sliding_attention"]
WindowKind = Literal["none", "every_layer", "by_layer"]
FAMILIES: tuple[str, ...] = get_args(ModelType)  # those that reference_impl can convert
Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
Positions = Annotated[int, Field(ge=1, le=MAX_POSITIONS)]
_ONLY_WHERE_SET = ("sliding_window", "layer_types")  # not in dumps otherwise, so that point ids without windows stay


@dataclass(frozen=True)
class _Traits:
    """What a family's layers have beyond the sizes.

    Attributes:
        num_norms: of the model's width, per layer.
        qk_norm: norms of queries and keys: per head (one head's size each), or of all heads at once.
        bias: attention biases: never; on all four projections where `attention_bias` says so; always on query, key and value.
        window: layers that a `sliding_window` is in: none, every one, or by `layer_types`.
        full_every: without `layer_types`, every n-th layer attends in full; None: no layer does.
    """

    num_norms: int = 2
    qk_norm: Literal["none", "head", "all_heads"] = "none"
    bias: Literal["never", "on_request", "query_key_value"] = "on_request"
    window: WindowKind = "none"
    full_every: int | None = None


_TRAITS: dict[str, _Traits] = {
    "llama": _Traits(),
    "mistral": _Traits(bias="never", window="every_layer"),
    "qwen2": _Traits(bias="query_key_value", window="by_layer"),
    "qwen3": _Traits(qk_norm="head", window="by_layer"),
    "phi3": _Traits(bias="never", window="every_layer"),
    "olmo2": _Traits(qk_norm="all_heads"),
    "gemma2": _Traits(num_norms=4, window="by_layer", full_every=2),
    "gemma3_text": _Traits(num_norms=4, qk_norm="head", window="by_layer", full_every=6),
}


def window_kind(model_type: str) -> WindowKind:
    """Which layers of a family a `sliding_window` is in: none, every one, or those that `layer_types` names."""
    return _TRAITS[model_type].window


class Geometry(BaseModel):
    """The shape of a decoder-only transformer, in Hugging Face's names. Sizes in elements."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model_type: ModelType = Field("llama", description="Hugging Face model family")
    num_hidden_layers: Annotated[int, Field(ge=1, le=MAX_LAYERS)]
    hidden_size: Size
    intermediate_size: Size
    num_attention_heads: Size
    num_key_value_heads: Size | None = Field(None, description="default: num_attention_heads (no GQA)")
    head_dim: Size | None = Field(None, description="default: hidden_size / num_attention_heads")
    vocab_size: Size
    max_position_embeddings: Positions = 8192
    rope_theta: float = Field(10000.0, gt=0)
    rms_norm_eps: float = Field(1e-5, gt=0)
    tie_word_embeddings: bool = False
    attention_bias: bool = Field(False, description="bias on the attention projections, in families that have one")
    sliding_window: Annotated[int, Field(ge=2, le=MAX_POSITIONS)] | None = Field(
        None, description="original positions that a query of a windowed layer sees, itself included; default: all"
    )
    layer_types: Annotated[tuple[LayerType, ...], Field(strict=False)] | None = Field(
        None, description="which layers have the window; default: the family's own pattern, else every layer"
    )

    @model_validator(mode="after")
    def _check_windows(self) -> "Geometry":
        kind = window_kind(self.model_type)
        if self.sliding_window is not None and kind == "none":
            raise ValueError(f"got a sliding_window for {self.model_type}, which has none; expected no sliding_window")
        if self.layer_types is None:
            return self
        if kind != "by_layer":
            raise ValueError(f"got layer_types for {self.model_type}, whose layers are all alike; expected none")
        if len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(f"got {len(self.layer_types)} layer_types; expected one for each of the layers")
        if "sliding_attention" in self.layer_types and self.sliding_window is None:
            raise ValueError("got sliding_attention in layer_types without a sliding_window; expected both or none")
        return self

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return {key: value for key, value in values.items() if value is not None or key not in _ONLY_WHERE_SET}

    @property
    def kv_heads(self) -> int:
        """Key/value heads per layer."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def size_per_head(self) -> int:
        """Elements per attention head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Per layer, the original positions that a query sees, itself included; None: all of them."""
        if self.layer_types is not None:
            return tuple(self.sliding_window if kind == "sliding_attention" else None for kind in self.layer_types)
        full_every = _TRAITS[self.model_type].full_every
        return tuple(
            None if full_every and (layer + 1) % full_every == 0 else self.sliding_window
            for layer in range(self.num_hidden_layers)
        )

    @property
    def attention_parameters(self) -> int:
        """Weights (with biases) of one layer's four attention projections."""
        query = self.num_attention_heads * self.size_per_head
        key_value = self.kv_heads * self.size_per_head
        bias = {
            "never": 0,
            "query_key_value": query + 2 * key_value,
            "on_request": (query + 2 * key_value + self.hidden_size) * self.attention_bias,
        }[_TRAITS[self.model_type].bias]
        return self.hidden_size * (2 * query + 2 * key_value) + bias

    @property
    def mlp_parameters(self) -> int:
        """Weights of one layer's gated MLP (gate, up and down projections)."""
        return 3 * self.hidden_size * self.intermediate_size

    @property
    def norm_parameters(self) -> int:
        """Weights of one layer's norms, those of queries and keys included."""
        traits = _TRAITS[self.model_type]
        num_heads = {"none": 0, "head": 2, "all_heads": self.num_attention_heads + self.kv_heads}[traits.qk_norm]
        return traits.num_norms * self.hidden_size + num_heads * self.size_per_head

    @property
    def num_parameters(self) -> int:
        """All weights: embeddings, layers with their norms, final norm, and the head unless tied."""
        layer = self.attention_parameters + self.mlp_parameters + self.norm_parameters
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return self.num_hidden_layers * layer + embeddings + self.hidden_size

    def kv_bytes_per_token(self, bytes_per_element: int) -> int:
        """KV-cache bytes of one token over all layers, every layer keeping it, before any window has filled."""
        return 2 * self.num_hidden_layers * self.kv_heads * self.size_per_head * bytes_per_element

    def shape(self) -> ModelShape:
        """The same without names: what predictions work on."""
        windows = self.windows
        alike = {
            window: LayerShape(
                attention_parameters=self.attention_parameters,
                attention_width=self.num_attention_heads * self.size_per_head,
                kv_width=2 * self.kv_heads * self.size_per_head,
                mlp_parameters=self.mlp_parameters,
                window=window,
                norm_parameters=self.norm_parameters,
            )
            for window in set(windows)
        }
        layers = tuple(alike[window] for window in windows)
        return ModelShape(
            layers=layers,
            hidden_size=self.hidden_size,
            vocab_size=self.vocab_size,
            num_parameters=self.num_parameters,
            head_size=self.size_per_head,
            max_position_embeddings=self.max_position_embeddings,
        )
