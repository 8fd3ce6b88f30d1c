"""Kept tokens -> bytes on the device at the worst moment of a launch, and the longest context that fits.

In: a workload and what is computed and stored per layer. Out: a `MemoryPrediction`.

Prefill holds one layer's working set at a time. Its widest moments, per token, in elements, as the stock decoders of
transformers make them (D model dim, M weights of the MLP / D: three MLP widths where it has a gate, Q query width, K key width of
all KV heads):

- in every layer, for all tokens: the embeddings and the layer's input, 2 D; once per position, the rotary tables, 2 heads wide
- attention, for computed tokens, before the layer's own keys are stored: its normed input, D; queries, keys and values, Q + 2 K;
  and rotation, 3 Q while it turns the queries or Q + 3 K while it turns the keys
- MLP, for computed tokens, after the layer's keys are stored: the stream and its normed copy, 2 D, and gate, up and product, M; of
  a mixture, M of all experts that a token passes, as if they ran together

To it come the keys and values of the layers done so far. After the last layer, embeddings, stream and its normed copy, 3 D, and
logits of one position per row. Attention never holds a context x context matrix (SDPA, FlashAttention); the `masked` control does,
which is not counted. Also not counted: routers, decisions, and a cache's growth slack. Source: our choice; tested against the
live-tensor peak of real models.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import accumulate

from modbench.analysis.prediction import Keeping, Work, kv_cache_bytes_expected, stored_bytes
from modbench.model_shape import LayerShape

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
    work: Work, keeping: Keeping, overhead_bytes: float, removed_layers: Collection[int] = ()
) -> MemoryPrediction:
    """Memory of one launch; removed layers (of which `keeping` keeps nothing) have no weights either."""
    weights = weights_bytes(work, removed_layers)
    kv_cache = kv_cache_bytes_expected(work, keeping)
    moments = _prefill_moments(work, keeping)
    fullest = max(stored + working for stored, working in moments)
    peak = weights + overhead_bytes + max(fullest, kv_cache + _logits_bytes(work))
    return MemoryPrediction(weights, kv_cache, max(working for _, working in moments), overhead_bytes, peak)


def weights_bytes(work: Work, removed_layers: Collection[int] = ()) -> float:
    """Bytes of all weights that are left."""
    removed = sum(work.shape.layers[layer].num_parameters for layer in removed_layers)
    return (work.shape.num_parameters - removed) * work.bytes_per_element


def longest_context(
    work: Work, keeping: Keeping, memory_bytes: float, overhead_bytes: float, removed_layers: Collection[int] = ()
) -> int:
    """The most prompt tokens per row with which a launch of this batch fits; 0 where none does. At most `MAX_CONTEXT`."""
    fits, too_many = 0, MAX_CONTEXT + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        found = predict_memory(replace(work, context=middle), keeping, overhead_bytes, removed_layers)
        if found.peak_bytes <= memory_bytes:
            fits = middle
        else:
            too_many = middle
    return fits


def _prefill_moments(work: Work, keeping: Keeping) -> list[tuple[float, float]]:
    """(bytes stored in the cache, bytes of the working set) at each layer's attention and MLP, and at the end."""
    shape, element, num_tokens = work.shape, work.bytes_per_element, work.context * work.batch
    filled = [0.0, *accumulate(stored_bytes(work, keeping, num_decoded=0))]
    tables = 2 * shape.head_size * work.context * element
    stream = 2 * shape.hidden_size * num_tokens * element + tables
    moments = []
    for index, layer in enumerate(shape.layers):
        computed_bytes = keeping.computed.prefill[index] * num_tokens * element
        attention, mlp = _attention_elements(layer, shape.hidden_size), _mlp_elements(layer, shape.hidden_size)
        moments.append((filled[index], stream + attention * computed_bytes))
        moments.append((filled[index + 1], stream + mlp * computed_bytes))
    end = tables + 3 * shape.hidden_size * num_tokens * element + _logits_bytes(work)
    return [*moments, (filled[-1], end)]


def _attention_elements(layer: LayerShape, hidden_size: int) -> float:
    """Elements per computed token that attention adds to the stream at its widest."""
    query, key = layer.attention_width, layer.kv_width / 2
    return hidden_size + query + 2 * key + max(3 * query, query + 3 * key)


def _mlp_elements(layer: LayerShape, hidden_size: int) -> float:
    """Elements per computed token that the MLP adds to the stream at its widest."""
    experts = layer.experts
    routed = experts.num_per_token * experts.parameters if experts else 0
    return 2 * hidden_size + (layer.mlp_parameters + routed) / hidden_size


def _logits_bytes(work: Work) -> float:
    return work.batch * work.shape.vocab_size * work.bytes_per_element
