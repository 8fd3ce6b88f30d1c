"""Kept tokens -> bytes on the device at the worst moment of a launch, and the longest context that fits.

In: a workload and what is computed and stored per layer. Out: a `MemoryPrediction`.

Prefill holds one layer's working set at a time. Its widest moments, per token, in elements, as the stock decoders of
transformers make them (D model dim, I MLP width, Q query width, K key width of all KV heads):

- in every layer, for all tokens: the embeddings and the layer's input, 2 D; once per position, the rotary tables, 2 heads wide
- attention, for computed tokens, before the layer's own keys are stored: its normed input, D; queries, keys and values, Q + 2 K;
  and rotation, 3 Q while it turns the queries or Q + 3 K while it turns the keys
- MLP, for computed tokens, after the layer's keys are stored: the stream and its normed copy, 2 D, and gate, up and product, 3 I

To it come the keys and values of the layers done so far. After the last layer, embeddings, stream and its normed copy, 3 D, and
logits of one position per row. Attention never holds a context x context matrix (SDPA, FlashAttention); the `masked` control does,
which is not counted. Also not counted: routers, decisions, and a cache's growth slack. Source: our choice; tested against the
live-tensor peak of real models.
"""

from dataclasses import dataclass, replace
from itertools import accumulate

from modbench.analysis.prediction import Keeping, Work, kv_cache_bytes_expected
from modbench.presets import Geometry

# What is on a device beside tensors, our choice: an accelerator's context, library workspaces and the allocator's rounding; for a
# CPU the interpreter and torch (docs/measuring.md, section 4).
OVERHEAD_BYTES = {"cuda": 1024**3, "cpu": 300 * 1024**2}
MAX_CONTEXT = 2**30


@dataclass(frozen=True)
class MemoryPrediction:
    """Bytes of a launch.

    `kv_cache_bytes` is at its end, `activation_bytes` the largest working set of prefill; `peak_bytes` is of the worst moment, not
    their sum: prefill's working set is gone when the cache is full.
    """

    weights_bytes: float
    kv_cache_bytes: float
    activation_bytes: float
    overhead_bytes: float
    peak_bytes: float


def predict_memory(
    work: Work, keeping: Keeping, overhead_bytes: float, num_removed_layers: int = 0
) -> MemoryPrediction:
    """Memory of one launch; removed layers (of which `keeping` keeps nothing) have no weights either."""
    weights = weights_bytes(work, num_removed_layers)
    kv_cache = kv_cache_bytes_expected(work, keeping)
    moments = _prefill_moments(work, keeping)
    fullest = max(stored + working for stored, working in moments)
    peak = weights + overhead_bytes + max(fullest, kv_cache + _logits_bytes(work))
    return MemoryPrediction(weights, kv_cache, max(working for _, working in moments), overhead_bytes, peak)


def weights_bytes(work: Work, num_removed_layers: int = 0) -> float:
    """Bytes of all weights that are left."""
    num_layers = work.geometry.num_hidden_layers - num_removed_layers
    left = work.geometry.model_copy(update={"num_hidden_layers": num_layers})
    return left.num_parameters * work.bytes_per_element


def longest_context(
    work: Work, keeping: Keeping, memory_bytes: float, overhead_bytes: float, num_removed_layers: int = 0
) -> int:
    """The most prompt tokens per row with which a launch of this batch fits; 0 where none does. At most `MAX_CONTEXT`."""
    fits, too_many = 0, MAX_CONTEXT + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        found = predict_memory(replace(work, context=middle), keeping, overhead_bytes, num_removed_layers)
        if found.peak_bytes <= memory_bytes:
            fits = middle
        else:
            too_many = middle
    return fits


def _prefill_moments(work: Work, keeping: Keeping) -> list[tuple[float, float]]:
    """(bytes stored in the cache, bytes of the working set) at each layer's attention and MLP, and at the end."""
    geometry, element, num_tokens = work.geometry, work.bytes_per_element, work.context * work.batch
    key = geometry.kv_heads * geometry.size_per_head
    stored = [2 * key * share * num_tokens * element for share in keeping.stored.prefill]
    filled = list(accumulate(stored))
    tables = 2 * geometry.size_per_head * work.context * element
    stream = 2 * geometry.hidden_size * num_tokens * element + tables
    moments = []
    for before, after, share in zip([0.0, *filled], filled, keeping.computed.prefill, strict=False):
        computed_bytes = share * num_tokens * element
        moments.append((before, stream + _attention_elements(geometry) * computed_bytes))
        moments.append((after, stream + (2 * geometry.hidden_size + 3 * geometry.intermediate_size) * computed_bytes))
    end = tables + 3 * geometry.hidden_size * num_tokens * element + _logits_bytes(work)
    return [*moments, (filled[-1], end)]


def _attention_elements(geometry: Geometry) -> int:
    """Elements per computed token that attention adds to the stream at its widest."""
    query = geometry.num_attention_heads * geometry.size_per_head
    key = geometry.kv_heads * geometry.size_per_head
    return geometry.hidden_size + query + 2 * key + max(3 * query, query + 3 * key)


def _logits_bytes(work: Work) -> float:
    return work.batch * work.geometry.vocab_size * work.bytes_per_element
