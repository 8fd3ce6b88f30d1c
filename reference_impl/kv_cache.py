"""KV cache that stores kept tokens only: chunked layers for dense layers, ragged layers for routed ones.

In: the keys and values of each forward. Out: views of everything stored so far, without a copy per step.
Both layer kinds grow by a sixteenth of their length, so appending a token costs O(1) amortised and slack stays within 1/16
(8 tokens at least); the stock cache concatenates, which copies the whole cache at every token.

Shapes: B batch, T new tokens, K stored tokens, G KV heads, H head dim.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from reference_impl.errors import UnsupportedModelError

MIN_SLACK_TOKENS = 8
SLACK_SHIFT = 4  # capacity = length + length / 2**4


def grown_capacity(length: int) -> int:
    """Tokens to allocate for `length` stored ones. Source: our choice (slack <= 1/16, amortised O(1) appends)."""
    return length + max(MIN_SLACK_TOKENS, length >> SLACK_SHIFT)


def _grow(buffer: Tensor | None, like: Tensor, used: int, needed: int) -> Tensor:
    """A buffer (..., capacity, H) with room for `needed` tokens and the first `used` of `buffer` copied over."""
    grown = like.new_empty(*like.shape[:-2], grown_capacity(needed), like.shape[-1])
    if buffer is not None and used:
        grown[..., :used, :] = buffer[..., :used, :]
    return grown


class ChunkedLayer(CacheLayerMixin):
    """Keys and values (B, G, capacity, H) of a dense layer: every token of every row is stored."""

    is_sliding = False
    is_croppable = True
    supports_early_init = False
    keys: Tensor | None
    values: Tensor | None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Remember dtype and device of the first keys."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (B, G, T, H) keys and values; return views (B, G, K, H) of all stored ones.

        Raises:
            UnsupportedModelError: the batch size differs from the one the cache was filled with.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.keys is not None:
            _check_rows(self.keys.shape[0], key_states.shape[0])
        end = self.length + key_states.shape[-2]
        if self.keys is None or end > self.keys.shape[-2]:
            self.keys = _grow(self.keys, key_states, self.length, end)
            self.values = _grow(self.values, value_states, self.length, end)
        assert self.keys is not None and self.values is not None, "both buffers grow together"
        self.keys[..., self.length : end, :] = key_states
        self.values[..., self.length : end, :] = value_states
        self.length = end
        return self.keys[..., :end, :], self.values[..., :end, :]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """(keys that the mask covers, offset), as transformers' mask builder asks."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens seen so far, per row."""
        return self.length

    def get_max_length(self) -> int:
        """-1: no limit."""
        return -1

    def reset(self) -> None:
        """Forget everything and free the memory."""
        self.keys = self.values = None
        self.length = 0
        self.is_initialized = False

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last `-tokens_to_remove` seen tokens (a value <= 0, as in transformers)."""
        self.length -= min(_num_removed(tokens_to_remove), self.length)

    def _select_rows(self, rows: Tensor) -> None:
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys.index_select(0, rows), self.values.index_select(0, rows)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i becomes the former row beam_idx[i]."""
        if self.keys is not None:
            self._select_rows(beam_idx.to(self.keys.device))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row `repeats` times, adjacent."""
        if self.keys is not None:
            self._select_rows(torch.arange(self.keys.shape[0], device=self.keys.device).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only the given rows (indices or a boolean mask)."""
        if self.keys is not None:
            self._select_rows(torch.arange(self.keys.shape[0], device=self.keys.device)[indices.to(self.keys.device)])

    def occupied_bytes(self) -> int:
        """Bytes of the stored tokens' keys and values."""
        if self.keys is None or self.values is None:
            return 0
        return _stored_bytes(self.keys, self.length) + _stored_bytes(self.values, self.length)

    def allocated_bytes(self) -> int:
        """Bytes of the buffers, growth slack included."""
        return sum(buffer.nbytes for buffer in (self.keys, self.values) if buffer is not None)


def _num_removed(tokens_to_remove: int) -> int:
    if tokens_to_remove > 0:  # older callers mean the length to keep; guessing would drop the wrong tokens
        raise ValueError(f"crop: got {tokens_to_remove}; expected minus the number of tokens to remove")
    return -tokens_to_remove


def _check_rows(stored: int, batch: int) -> None:
    if stored != batch:
        raise UnsupportedModelError(f"kv cache holds {stored} rows; got a batch of {batch}: use a new cache")


def _stored_bytes(buffer: Tensor, length: int) -> int:
    return buffer.nbytes // buffer.shape[-2] * length


class RaggedRow:
    """One row's kept keys and values (G, capacity, H), with each one's seen index (capacity,)."""

    __slots__ = ("keys", "length", "seen_index", "values")

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.seen_index: Tensor | None = None
        self.length = 0

    def append(self, key_GTH: Tensor, value_GTH: Tensor, seen_index_T: Tensor) -> None:
        """Store T more kept tokens; `seen_index_T` counts all seen tokens of the row, skipped and padded ones too."""
        end = self.length + key_GTH.shape[-2]
        if self.keys is None or end > self.keys.shape[-2]:
            self.keys = _grow(self.keys, key_GTH, self.length, end)
            self.values = _grow(self.values, value_GTH, self.length, end)
            grown = seen_index_T.new_empty(grown_capacity(end), dtype=torch.int32)
            if self.seen_index is not None and self.length:
                grown[: self.length] = self.seen_index[: self.length]
            self.seen_index = grown
        assert self.values is not None and self.seen_index is not None, "a row's three buffers grow together"
        self.keys[:, self.length : end] = key_GTH
        self.values[:, self.length : end] = value_GTH
        self.seen_index[self.length : end] = seen_index_T
        self.length = end

    def copy(self) -> "RaggedRow":
        """An independent row with the same content (beams diverge)."""
        twin = RaggedRow()
        twin.length = self.length
        if self.keys is not None and self.values is not None and self.seen_index is not None:
            twin.keys, twin.values = self.keys.clone(), self.values.clone()
            twin.seen_index = self.seen_index.clone()
        return twin


class RaggedLayer(CacheLayerMixin):
    """Kept keys and values of a routed layer: one buffer per row, `get_seq_length()` counts tokens SEEN."""

    is_sliding = False
    is_croppable = True
    supports_early_init = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rows: list[RaggedRow] = []
        self.seen = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Remember dtype and device of the first keys."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def begin(self, batch: int) -> None:
        """Make sure there is a row per sequence.

        Raises:
            UnsupportedModelError: the batch size differs from the one the cache was filled with.
        """
        if not self.rows:
            self.rows = [RaggedRow() for _ in range(batch)]
        _check_rows(len(self.rows), batch)
        self.is_initialized = True

    def append(self, row: int, key_GTH: Tensor, value_GTH: Tensor, token_index_T: Tensor) -> None:
        """Store kept tokens of one row; `token_index_T` is their index within this forward's tokens."""
        self.rows[row].append(key_GTH, value_GTH, token_index_T + self.seen)

    def advance(self, num_tokens: int) -> None:
        """`num_tokens` more tokens per row were seen, kept or not; called once per forward, after the layer ran."""
        self.seen += num_tokens

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return the new keys and values as they are: the attention backend stores and reads kept rows itself."""
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """(keys that the mask covers, offset): a mask over seen tokens tells which new ones are padding."""
        return self.seen + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens seen so far, per row, kept or not."""
        return self.seen

    def get_max_length(self) -> int:
        """-1: no limit."""
        return -1

    def reset(self) -> None:
        """Forget everything and free the memory."""
        self.rows = []
        self.seen = 0
        self.is_initialized = False

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last `-tokens_to_remove` SEEN tokens; kept ones among them go (a value <= 0, as in transformers)."""
        self.seen -= min(_num_removed(tokens_to_remove), self.seen)
        for row in self.rows:
            if row.seen_index is not None:
                row.length = int((row.seen_index[: row.length] < self.seen).sum())

    def _select_rows(self, chosen: Iterable[int]) -> None:
        taken: set[int] = set()
        rows = []
        for index in chosen:
            rows.append(self.rows[index].copy() if index in taken else self.rows[index])
            taken.add(index)
        self.rows = rows

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i becomes the former row beam_idx[i]."""
        if self.rows:
            self._select_rows(beam_idx.tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row `repeats` times, adjacent."""
        self._select_rows(index for index in range(len(self.rows)) for _ in range(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only the given rows (indices or a boolean mask)."""
        if self.rows:
            self._select_rows(torch.arange(len(self.rows))[indices.cpu()].tolist())

    def lengths(self) -> list[int]:
        """Stored tokens per row."""
        return [row.length for row in self.rows]

    def occupied_bytes(self) -> int:
        """Bytes of the kept tokens' keys and values."""
        return sum(
            _stored_bytes(row.keys, row.length) + _stored_bytes(row.values, row.length)
            for row in self.rows
            if row.keys is not None and row.values is not None
        )

    def allocated_bytes(self) -> int:
        """Bytes of the buffers: growth slack and the kept tokens' indices included."""
        return sum(
            buffer.nbytes
            for row in self.rows
            for buffer in (row.keys, row.values, row.seen_index)
            if buffer is not None
        )


class MaskedLayer(ChunkedLayer):
    """For the `masked` control: every token stored, with a flag (B, capacity) saying which were kept."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kept: Tensor | None = None

    def append_kept(self, keep_BT: Tensor) -> Tensor:
        """Store the flags of this forward's tokens; return those of all tokens, (B, K)."""
        past = keep_BT[:, :0] if self.kept is None else self.kept[:, : self.length]
        self.kept = torch.cat([past, keep_BT], dim=1)
        return self.kept

    def _select_rows(self, rows: Tensor) -> None:
        super()._select_rows(rows)
        if self.kept is not None:
            self.kept = self.kept.index_select(0, rows)

    def reset(self) -> None:
        """Forget everything and free the memory."""
        super().reset()
        self.kept = None


class ModCache(Cache):
    """A cache for `num_layers` layers whose slots at `routed_layers` hold `routed_class`, the others `ChunkedLayer`."""

    def __init__(
        self, num_layers: int, routed_layers: Sequence[int] = (), routed_class: type[CacheLayerMixin] = RaggedLayer
    ) -> None:
        routed = set(routed_layers)
        super().__init__(layers=[routed_class() if i in routed else ChunkedLayer() for i in range(num_layers)])


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
