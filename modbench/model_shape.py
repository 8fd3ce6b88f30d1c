"""What a prediction needs to know of a decoder-only model: sizes per layer, experts and windows included. No names of families.

In: numbers, from a `Geometry` or any `config.json`. Out: an immutable `ModelShape`. All sizes count elements.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Experts:
    """The routed part of a mixture-of-experts MLP: every token passes `num_per_token` of `num_experts`."""

    num_experts: int
    num_per_token: int
    parameters: int  # of one expert

    def num_read(self, num_tokens: float, share: float = 1.0) -> float:
        """Distinct experts that some of `num_tokens` tokens pass, each of which is computed with probability `share`.

        E * (1 - (1 - share * k / E)^tokens): k of E experts per token, tokens independent and experts equally likely. Never more
        than E. Source: our choice; real routers are uneven, which reads fewer.
        """
        untouched = 1 - share * self.num_per_token / self.num_experts
        return self.num_experts * (1 - max(0.0, untouched) ** num_tokens)


@dataclass(frozen=True)
class LayerShape:
    """One decoder layer.

    Attributes:
        attention_parameters: the four projections, with biases.
        attention_width: query heads times head size, over which queries and keys are multiplied.
        kv_width: elements that one token's keys and values take in the cache.
        mlp_parameters: weights that every token passes; of a mixture its router and shared experts.
        window: original positions that a query sees, itself included; None: all.
        experts: the routed part of the MLP, None in a layer without.
        norm_parameters: weights of its norms, where they are known.
    """

    attention_parameters: int
    attention_width: int
    kv_width: int
    mlp_parameters: int
    window: int | None = None
    experts: Experts | None = None
    norm_parameters: int = 0

    @property
    def num_parameters(self) -> int:
        """All weights of the layer."""
        experts = self.experts.num_experts * self.experts.parameters if self.experts else 0
        return self.attention_parameters + self.mlp_parameters + experts + self.norm_parameters


@dataclass(frozen=True)
class ModelShape:
    """A whole model.

    Attributes:
        num_parameters: everything that has to fit in memory.
        head_size: of attention, and so of the rotary tables.
        max_position_embeddings: None where it is not known.
    """

    layers: tuple[LayerShape, ...]
    hidden_size: int
    vocab_size: int
    num_parameters: int
    head_size: int
    max_position_embeddings: int | None = None

    @property
    def num_hidden_layers(self) -> int:
        """Decoder layers."""
        return len(self.layers)

    def kv_bytes_per_token(self, bytes_per_element: int) -> int:
        """KV-cache bytes of one token over all layers, every layer keeping it, before any window has filled."""
        return sum(layer.kv_width for layer in self.layers) * bytes_per_element

    def shape(self) -> "ModelShape":
        """Itself, so that a `Geometry` and a shape can be asked alike."""
        return self
