"""Model geometries by name: published ones from 3B to 70B, and small ones for a CPU.

A geometry uses the names of Hugging Face configs. `PRESETS["llama2-7b"]` is the whole entry; adding one is one line.
Source: the models' published `config.json` files as recorded in this project's platform notes; layers, widths, heads
and vocabularies reproduce the published parameter totals (tested), epsilon, positions and rope theta are not covered by
that test.
"""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

MAX_LAYERS, MAX_SIZE, MAX_POSITIONS = 10_000, 2**24, 2**31  # a slip of the keyboard is an error, not out of memory
ModelType = Literal["llama", "qwen2", "qwen3"]
FAMILIES: tuple[str, ...] = get_args(
    ModelType
)  # of those that reference_impl can convert, whose geometry is what this class says
Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
Positions = Annotated[int, Field(ge=1, le=MAX_POSITIONS)]


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
    attention_bias: bool = Field(False, description="bias on the query, key and value projections")

    @property
    def kv_heads(self) -> int:
        """Key/value heads per layer."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def size_per_head(self) -> int:
        """Elements per attention head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def attention_parameters(self) -> int:
        """Weights (with biases) of one layer's four attention projections."""
        query = self.num_attention_heads * self.size_per_head
        key_value = self.kv_heads * self.size_per_head
        bias = query + 2 * key_value if self.attention_bias else 0
        return self.hidden_size * (2 * query + 2 * key_value) + bias

    @property
    def mlp_parameters(self) -> int:
        """Weights of one layer's gated MLP (gate, up and down projections)."""
        return 3 * self.hidden_size * self.intermediate_size

    @property
    def num_parameters(self) -> int:
        """All weights: embeddings, layers with their two norms, final norm, and the head unless tied."""
        layer = self.attention_parameters + self.mlp_parameters + 2 * self.hidden_size
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return self.num_hidden_layers * layer + embeddings + self.hidden_size

    def kv_bytes_per_token(self, bytes_per_element: int) -> int:
        """KV-cache bytes of one token over all layers, every layer keeping it."""
        return 2 * self.num_hidden_layers * self.kv_heads * self.size_per_head * bytes_per_element


def _llama(
    layers: int, hidden: int, mlp: int, heads: int, kv_heads: int, vocab: int, theta: float, positions: int
) -> Geometry:
    return Geometry(
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=mlp,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocab,
        rope_theta=theta,
        max_position_embeddings=positions,
    )


def _qwen2(
    layers: int, hidden: int, mlp: int, heads: int, kv_heads: int, vocab: int, positions: int, *, tied: bool = False
) -> Geometry:
    return _llama(layers, hidden, mlp, heads, kv_heads, vocab, 1e6, positions).model_copy(
        update={"model_type": "qwen2", "rms_norm_eps": 1e-6, "attention_bias": True, "tie_word_embeddings": tied}
    )


PRESETS: dict[str, Geometry] = {
    "tiny": _llama(4, 128, 344, 4, 4, 512, 1e4, 65536),
    "bench-8x512": _llama(8, 512, 1376, 8, 8, 1000, 1e4, 65536),
    "openllama-3b": _llama(26, 3200, 8640, 32, 32, 32000, 1e4, 2048),
    "qwen2.5-3b": _qwen2(36, 2048, 11008, 16, 2, 151936, 32768, tied=True),
    "llama2-7b": _llama(32, 4096, 11008, 32, 32, 32000, 1e4, 4096),
    "qwen2.5-7b": _qwen2(28, 3584, 18944, 28, 4, 152064, 32768),
    "llama3-8b": _llama(32, 4096, 14336, 32, 8, 128256, 5e5, 8192),
    "llama2-13b": _llama(40, 5120, 13824, 40, 40, 32000, 1e4, 4096),
    "qwen2.5-32b": _qwen2(64, 5120, 27648, 40, 8, 152064, 32768),
    "codellama-34b": _llama(48, 8192, 22016, 64, 8, 32000, 1e6, 16384),
    "llama2-70b": _llama(80, 8192, 28672, 64, 8, 32000, 1e4, 4096),
    "llama3-70b": _llama(80, 8192, 28672, 64, 8, 128256, 5e5, 8192),
}
