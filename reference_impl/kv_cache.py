"""The KV cache of a converted model: ragged layers where it routes, chunked ones where it is dense; and its bytes.

In: the sliding window of each layer and which ones are routed. Out: a cache that `generate` and a stock forward take.
"""

from collections.abc import Sequence

from transformers.cache_utils import Cache

from reference_impl.chunked_layer import ChunkedLayer, MaskedLayer
from reference_impl.ragged_layer import RaggedLayer


class ModCache(Cache):
    """A cache whose slots at `routed_layers` hold `routed_class`, the others `ChunkedLayer`.

    `windows` gives the sliding window of each layer, None for full attention.
    """

    def __init__(
        self,
        windows: Sequence[int | None],
        routed_layers: Sequence[int] = (),
        routed_class: type[RaggedLayer] | type[MaskedLayer] = RaggedLayer,
    ) -> None:
        routed = set(routed_layers)
        super().__init__(
            layers=[(routed_class if i in routed else ChunkedLayer)(window) for i, window in enumerate(windows)]
        )

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last `-tokens_to_remove` seen tokens in every layer, or, where one cannot, raise and change none."""
        for layer in self.layers:
            layer.check_crop(tokens_to_remove)
        super().crop(tokens_to_remove)


def kv_cache_bytes(cache: Cache) -> tuple[int, int]:
    """(bytes that stored tokens occupy, bytes allocated) over all layers, read off the live tensors of any dynamic cache."""
    occupied = allocated = 0
    for layer in cache.layers:
        if isinstance(layer, ChunkedLayer | RaggedLayer):
            occupied += layer.occupied_bytes()
            allocated += layer.allocated_bytes()
        elif layer.keys is not None:
            occupied += layer.keys.nbytes + layer.values.nbytes
            allocated += layer.keys.untyped_storage().nbytes() + layer.values.untyped_storage().nbytes()
    return occupied, allocated
