"""Model geometries by name: published ones from 0.6B to 72B, and small ones for a CPU.

A geometry uses the names of Hugging Face configs. `PRESETS["llama2-7b"]` is the whole entry; adding one is one line.
Source: the models' published `config.json` files; layers, widths, heads and vocabularies reproduce the published parameter totals
(tested). Windows, epsilon, positions and rope theta are not covered by that test, and rope scaling is left out: it changes no work.
Of Gemma 3 the text model is meant.
"""

from modbench.geometry import FAMILIES, Geometry, ModelType, Positions

__all__ = ["FAMILIES", "PRESETS", "Geometry", "ModelType", "Positions"]


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


def _tied_llama(layers: int, hidden: int, heads: int, head_dim: int) -> Geometry:
    return _llama(layers, hidden, 8192, heads, 8, 128256, 5e5, 131072).model_copy(
        update={"head_dim": head_dim, "tie_word_embeddings": True}
    )


def _qwen3(layers: int, hidden: int, mlp: int, heads: int, *, tied: bool = False) -> Geometry:
    return _llama(layers, hidden, mlp, heads, 8, 151936, 1e6, 40960).model_copy(
        update={"model_type": "qwen3", "rms_norm_eps": 1e-6, "head_dim": 128, "tie_word_embeddings": tied}
    )


def _mistral(vocab: int, theta: float, window: int | None) -> Geometry:
    return _llama(32, 4096, 14336, 32, 8, vocab, theta, 32768).model_copy(
        update={"model_type": "mistral", "sliding_window": window}
    )


def _olmo2(layers: int, hidden: int, mlp: int, heads: int, kv_heads: int) -> Geometry:
    return _llama(layers, hidden, mlp, heads, kv_heads, 100352, 5e5, 4096).model_copy(
        update={"model_type": "olmo2", "rms_norm_eps": 1e-6}
    )


def _gemma(
    family: ModelType, sizes: tuple[int, int, int, int, int], head_dim: int, vocab: int, window: int, positions: int
) -> Geometry:
    theta = 1e6 if family == "gemma3_text" else 1e4
    return _llama(*sizes, vocab, theta, positions).model_copy(
        update={
            "model_type": family,
            "rms_norm_eps": 1e-6,
            "head_dim": head_dim,
            "tie_word_embeddings": True,
            "sliding_window": window,
        }
    )


PRESETS: dict[str, Geometry] = {
    "tiny": _llama(4, 128, 344, 4, 4, 512, 1e4, 65536),
    "bench-8x512": _llama(8, 512, 1376, 8, 8, 1000, 1e4, 65536),
    "qwen3-0.6b": _qwen3(28, 1024, 3072, 16, tied=True),
    "gemma3-1b": _gemma("gemma3_text", (26, 1152, 6912, 4, 1), 256, 262144, 512, 32768),
    "llama3.2-1b": _tied_llama(16, 2048, 32, 64),
    "qwen3-1.7b": _qwen3(28, 2048, 6144, 16, tied=True),
    "gemma2-2b": _gemma("gemma2", (26, 2304, 9216, 8, 4), 256, 256000, 4096, 8192),
    "openllama-3b": _llama(26, 3200, 8640, 32, 32, 32000, 1e4, 2048),
    "qwen2.5-3b": _qwen2(36, 2048, 11008, 16, 2, 151936, 32768, tied=True),
    "llama3.2-3b": _tied_llama(28, 3072, 24, 128),
    "gemma3-4b": _gemma("gemma3_text", (34, 2560, 10240, 8, 4), 256, 262208, 1024, 131072),
    "qwen3-4b": _qwen3(36, 2560, 9728, 32, tied=True),
    "llama2-7b": _llama(32, 4096, 11008, 32, 32, 32000, 1e4, 4096),
    "mistral-7b-v0.1": _mistral(32000, 1e4, 4096),
    "mistral-7b-v0.3": _mistral(32768, 1e6, None),
    "olmo2-7b": _olmo2(32, 4096, 11008, 32, 32),
    "qwen2.5-7b": _qwen2(28, 3584, 18944, 28, 4, 152064, 32768),
    "llama3-8b": _llama(32, 4096, 14336, 32, 8, 128256, 5e5, 8192),
    "llama3.1-8b": _llama(32, 4096, 14336, 32, 8, 128256, 5e5, 131072),
    "qwen3-8b": _qwen3(36, 4096, 12288, 32),
    "gemma2-9b": _gemma("gemma2", (42, 3584, 14336, 16, 8), 256, 256000, 4096, 8192),
    "gemma3-12b": _gemma("gemma3_text", (48, 3840, 15360, 16, 8), 256, 262208, 1024, 131072),
    "llama2-13b": _llama(40, 5120, 13824, 40, 40, 32000, 1e4, 4096),
    "olmo2-13b": _olmo2(40, 5120, 13824, 40, 40),
    "phi-4": _llama(40, 5120, 17920, 40, 10, 100352, 2.5e5, 16384).model_copy(update={"model_type": "phi3"}),
    "qwen2.5-14b": _qwen2(48, 5120, 13824, 40, 8, 152064, 32768),
    "qwen3-14b": _qwen3(40, 5120, 17408, 40),
    "gemma2-27b": _gemma("gemma2", (46, 4608, 36864, 32, 16), 128, 256000, 4096, 8192),
    "gemma3-27b": _gemma("gemma3_text", (62, 5376, 21504, 32, 16), 128, 262208, 1024, 131072),
    "olmo2-32b": _olmo2(64, 5120, 27648, 40, 8),
    "qwen2.5-32b": _qwen2(64, 5120, 27648, 40, 8, 152064, 32768),
    "qwen3-32b": _qwen3(64, 5120, 25600, 64),
    "codellama-34b": _llama(48, 8192, 22016, 64, 8, 32000, 1e6, 16384),
    "llama2-70b": _llama(80, 8192, 28672, 64, 8, 32000, 1e4, 4096),
    "llama3-70b": _llama(80, 8192, 28672, 64, 8, 128256, 5e5, 8192),
    "llama3.1-70b": _llama(80, 8192, 28672, 64, 8, 128256, 5e5, 131072),
    "llama3.3-70b": _llama(80, 8192, 28672, 64, 8, 128256, 5e5, 131072),
    "qwen2.5-72b": _qwen2(80, 8192, 29568, 64, 8, 152064, 32768),
}
