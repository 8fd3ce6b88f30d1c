"""KV cache that stores kept tokens only: chunked layers for dense layers, ragged layers for routed ones.

In: the keys and values of each forward. Out: views of everything stored so far, without a copy per step.
The first tokens get exactly the room they need. From then on both layer kinds grow by a sixteenth of their length, so appending a
token costs O(1) amortised and slack stays within 1/16 (8 tokens at least); the stock cache concatenates, which copies the whole
cache at every token. With a sliding window, what no later query can see is dropped when a layer grows.

Shapes: B batch, T new tokens, K stored tokens, G KV heads, H head dim.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from reference_impl.errors import UnsupportedModelError
from reference_impl.packing import Packing

MIN_SLACK_TOKENS = 8
SLACK_SHIFT = 4  # capacity = length + length / 2**4


def grown_capacity(length: int) -> int:
    """Tokens to allocate for `length` stored ones. Source: our choice (slack <= 1/16, amortised O(1) appends)."""
    return length + max(MIN_SLACK_TOKENS, length >> SLACK_SHIFT)


def _moved(buffer: Tensor | None, new: Tensor, first: int, end: int) -> Tensor:
    """A buffer (..., capacity, H) holding tokens `first` to `end` of `buffer`, with room for those of `new` behind them."""
    num_kept, num_new = end - first, new.shape[-2]
    capacity = num_new if buffer is None else grown_capacity(num_kept + num_new)
    moved = new.new_empty(*new.shape[:-2], capacity, new.shape[-1])
    if buffer is not None and num_kept:
        moved[..., :num_kept, :] = buffer[..., first:end, :]
    return moved


class ChunkedLayer(CacheLayerMixin):
    """Keys and values (B, G, capacity, H) of a dense layer: every token of every row, or those its sliding window can still reach.

    Attributes:
        window: tokens that a query sees, itself included; None: all of them.
        length: tokens in the buffers.
        num_dropped: tokens that were seen and are in the buffers no more.
    """

    is_croppable = True
    supports_early_init = False
    keys: Tensor | None
    values: Tensor | None

    def __init__(self, window: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.window = window
        self.is_sliding = window is not None
        self.record_past = False
        self.length = 0
        self.num_dropped = 0
        self._num_stale = 0  # tokens at the front of the buffers that no later query can see

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Remember dtype and device of the first keys."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def activate_past_recording(self) -> None:
        """From now on a sliding layer drops tokens only after a `crop`, so that the crop finds them (assisted decoding)."""
        self.record_past = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (B, G, T, H) keys and values; return (B, G, K, H) of all that this forward's queries can see.

        Raises:
            UnsupportedModelError: the batch size differs from the one the cache was filled with.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.keys is not None:
            _check_rows(self.keys.shape[0], key_states.shape[0])
        num_new = key_states.shape[-2]
        if self.window is not None and not self.record_past and num_new >= self.window:
            return self._replace(key_states, value_states, self.window)
        self._make_room(key_states, value_states)
        assert self.keys is not None and self.values is not None, "room was just made"
        end = self.length + num_new
        self.keys[..., self.length : end, :] = key_states
        self.values[..., self.length : end, :] = value_states
        self.length = end
        first = 0
        if self.window is not None:
            first = max(0, end - num_new - (self.window - 1))
            self._num_stale = self._num_stale if self.record_past else max(0, end - (self.window - 1))
        return self.keys[..., first:end, :], self.values[..., first:end, :]

    def _make_room(self, key_states: Tensor, value_states: Tensor) -> None:
        if self.keys is not None and self.length + key_states.shape[-2] <= self.keys.shape[-2]:
            return
        self.keys = _moved(self.keys, key_states, self._num_stale, self.length)
        self.values = _moved(self.values, value_states, self._num_stale, self.length)
        self.length -= self._num_stale
        self.num_dropped += self._num_stale
        self._num_stale = 0

    def _replace(self, key_states: Tensor, value_states: Tensor, window: int) -> tuple[Tensor, Tensor]:
        """A forward of a whole window or more: only its end is stored, all of it is returned."""
        num_seen = self.get_seq_length() + key_states.shape[-2]
        if self.keys is not None and self.values is not None and self.length:
            first = max(0, self.length - (window - 1))
            key_states = torch.cat([self.keys[..., first : self.length, :], key_states], dim=-2)
            value_states = torch.cat([self.values[..., first : self.length, :], value_states], dim=-2)
        self.length = min(window - 1, key_states.shape[-2])
        self.keys = key_states[..., key_states.shape[-2] - self.length :, :].clone()
        self.values = value_states[..., value_states.shape[-2] - self.length :, :].clone()
        self.num_dropped, self._num_stale = num_seen - self.length, 0
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """(keys that the mask covers, offset), as transformers' mask builder asks."""
        num_seen = self.get_seq_length()
        if self.window is None:
            return num_seen + query_length, 0
        num_visible = min(num_seen, self.window - 1)
        return num_visible + query_length, num_seen - num_visible

    def get_seq_length(self) -> int:
        """Tokens seen so far, per row."""
        return self.num_dropped + self.length

    def get_max_length(self) -> int:
        """The window, or -1: no limit."""
        return -1 if self.window is None else self.window

    def reset(self) -> None:
        """Forget everything and free the memory."""
        self.keys = self.values = None
        self.length = self.num_dropped = self._num_stale = 0
        self.is_initialized = False

    def check_crop(self, tokens_to_remove: int) -> int:
        """The number of tokens that such a `crop` takes away.

        Raises:
            UnsupportedModelError: tokens that the window would reach again were dropped.
        """
        num_removed = min(_num_removed(tokens_to_remove), self.get_seq_length())
        if num_removed:
            _check_reach(self.window, self.get_seq_length() - num_removed, self.num_dropped)
        return num_removed

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last `-tokens_to_remove` seen tokens (a value <= 0, as in transformers); see `check_crop`."""
        self.length -= self.check_crop(tokens_to_remove)
        self._num_stale = 0 if self.window is None else max(0, self.length - (self.window - 1))

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
        """Bytes of the stored tokens' keys and values, without those that slid out of the window."""
        if self.keys is None or self.values is None:
            return 0
        num_live = self.length if self.window is None else min(self.length, self.window - 1)
        return _stored_bytes(self.keys, num_live) + _stored_bytes(self.values, num_live)

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


def _check_reach(window: int | None, num_seen: int, first_stored: int) -> None:
    if first_stored and window is not None and first_stored > max(0, num_seen - (window - 1)):
        raise UnsupportedModelError(
            f"crop: a window of {window} tokens back from token {num_seen} reaches tokens that the cache has dropped; "
            "call activate_past_recording before the tokens to be cropped are fed"
        )


def _stored_bytes(buffer: Tensor, length: int) -> int:
    return 0 if length == 0 else buffer.nbytes // buffer.shape[-2] * length


class RaggedRow:
    """One row's kept keys and values (G, capacity, H), with each one's seen index (capacity,)."""

    __slots__ = ("keys", "length", "seen_index", "values")

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.seen_index: Tensor | None = None
        self.length = 0

    def append(self, key_GTH: Tensor, value_GTH: Tensor, seen_index_T: Tensor, oldest: int = 0) -> None:
        """Store T more kept tokens.

        `seen_index_T` counts all seen tokens of the row, skipped and padded ones too; stored ones below `oldest` may be dropped.
        """
        if self.keys is None or self.length + key_GTH.shape[-2] > self.keys.shape[-2]:
            self._move(key_GTH, value_GTH, seen_index_T, self.num_older(oldest))
        assert self.keys is not None and self.values is not None and self.seen_index is not None, "room was just made"
        end = self.length + key_GTH.shape[-2]
        self.keys[:, self.length : end] = key_GTH
        self.values[:, self.length : end] = value_GTH
        self.seen_index[self.length : end] = seen_index_T
        self.length = end

    def _move(self, key_GTH: Tensor, value_GTH: Tensor, seen_index_T: Tensor, first: int) -> None:
        index_T1 = seen_index_T.to(torch.int32)[:, None]
        old_K1 = None if self.seen_index is None else self.seen_index[:, None]
        self.seen_index = _moved(old_K1, index_T1, first, self.length).squeeze(1)
        self.keys = _moved(self.keys, key_GTH, first, self.length)
        self.values = _moved(self.values, value_GTH, first, self.length)
        self.length -= first

    def num_older(self, seen_index: int) -> int:
        """Stored tokens with a seen index below this one; reads it back from the device where there are any."""
        if seen_index <= 0 or self.seen_index is None:
            return 0
        return int((self.seen_index[: self.length] < seen_index).sum())

    def drop(self, num_tokens: int) -> None:
        """Take the oldest `num_tokens` out and give their memory back."""
        if num_tokens and self.keys is not None and self.values is not None and self.seen_index is not None:
            self.keys = self.keys[:, num_tokens : self.length].clone()
            self.values = self.values[:, num_tokens : self.length].clone()
            self.seen_index = self.seen_index[num_tokens : self.length].clone()
            self.length -= num_tokens

    def copy(self) -> "RaggedRow":
        """An independent row with the same content (beams diverge)."""
        twin = RaggedRow()
        twin.length = self.length
        if self.keys is not None and self.values is not None and self.seen_index is not None:
            twin.keys, twin.values = self.keys.clone(), self.values.clone()
            twin.seen_index = self.seen_index.clone()
        return twin


class RaggedLayer(CacheLayerMixin):
    """Kept keys and values of a routed layer: one buffer per row, `get_seq_length()` counts tokens SEEN.

    Attributes:
        window: tokens that a query sees, counted over SEEN tokens and itself included; None: all of them. Source: our choice; a
            window over kept tokens would let a query of a sparse layer see further back than the dense model.
        seen: tokens seen so far, per row.
    """

    is_sliding = False  # its masks only say what is padding, and cover all seen tokens
    is_croppable = True
    supports_early_init = False

    def __init__(self, window: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.window = window
        self.record_past = False
        self.rows: list[RaggedRow] = []
        self.seen = 0
        self._oldest = 0  # stored tokens below this seen index may have been dropped
        self._is_open = False  # between begin and advance, while its routed layer runs
        self._packing: Packing | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Remember dtype and device of the first keys."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def activate_past_recording(self) -> None:
        """From now on tokens that slid out of the window are dropped only after a `crop` (assisted decoding)."""
        self.record_past = True

    def begin(self, batch: int, packing: Packing | None = None) -> None:
        """A forward begins: make sure there is a row per sequence, and remember which tokens `update` will be handed.

        Without a `packing` the attention function stores what is kept itself, with `append`.

        Raises:
            UnsupportedModelError: the batch size differs from the one the cache was filled with.
        """
        if not self.rows:
            self.rows = [RaggedRow() for _ in range(batch)]
        _check_rows(len(self.rows), batch)
        self.is_initialized = self._is_open = True
        self._packing = packing

    def append(self, row: int, key_GTH: Tensor, value_GTH: Tensor, token_index_T: Tensor) -> None:
        """Store kept tokens of one row; `token_index_T` is their index within this forward's tokens."""
        self.rows[row].append(key_GTH, value_GTH, token_index_T + self.seen, self._oldest)

    def advance(self, num_tokens: int) -> None:
        """`num_tokens` more tokens per row were seen, kept or not; called once per forward, after the layer ran."""
        self.seen += num_tokens
        self._is_open, self._packing = False, None
        if self.window is None or self.record_past:
            return
        self._oldest = max(0, self.seen - (self.window - 1))
        if num_tokens > 1 and self._oldest:  # a block leaves much behind; single tokens go when the row grows
            for row in self.rows:
                row.drop(row.num_older(self._oldest))

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Store packed keys and values (1, G, P, H), or whole rows of them (B, G, T, H).

        The attention function reads the rows, so nothing comes back but empty tensors, and the new states are freed before it
        runs; only the first tokens of whole rows come back as they are, for one plain attention over the block.

        Raises:
            UnsupportedModelError: a dense layer asks, which would attend to the new tokens alone.
        """
        if not self._is_open:
            raise UnsupportedModelError(
                "past_key_values: a dense layer got the cache of a routed one; use a new cache for another model"
            )
        packing = self._packing
        if packing is None:
            return key_states, value_states
        is_plain = packing.flat_index_P is None and not any(self.lengths())
        key_rows, value_rows = packing.split_rows(key_states), packing.split_rows(value_states)
        for row, token_index_T in enumerate(packing.token_index_rows(key_states.device)):
            if packing.lengths[row]:
                self.append(row, key_rows[row], value_rows[row], token_index_T)
        if is_plain:
            return key_states, value_states
        return key_states[:, :, :0].clone(), value_states[:, :, :0].clone()

    def stored_rows(self, lengths_q: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
        """Views (G, K, H) of each row's keys and values; empty for rows without a query, whose keys nobody reads."""
        some = next(row for row in self.rows if row.keys is not None and row.values is not None)
        assert some.keys is not None and some.values is not None, "just looked for"
        keys, values = [], []
        for row, num_queries in zip(self.rows, lengths_q, strict=True):
            has_query = num_queries > 0 and row.keys is not None and row.values is not None
            keys.append(row.keys[:, : row.length] if has_query and row.keys is not None else some.keys[:, :0])
            values.append(row.values[:, : row.length] if has_query and row.values is not None else some.values[:, :0])
        return keys, values

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
        self.seen = self._oldest = 0
        self.is_initialized = False

    def check_crop(self, tokens_to_remove: int) -> int:
        """The number of seen tokens that such a `crop` takes away.

        Raises:
            UnsupportedModelError: tokens that the window would reach again were dropped.
        """
        num_removed = min(_num_removed(tokens_to_remove), self.seen)
        if num_removed:
            _check_reach(self.window, self.seen - num_removed, self._oldest)
        return num_removed

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last `-tokens_to_remove` SEEN tokens; kept ones among them go (a value <= 0, as in transformers).

        See `check_crop`.
        """
        num_removed = self.check_crop(tokens_to_remove)
        if num_removed:
            self.seen -= num_removed
            for row in self.rows:
                row.length = row.num_older(self.seen)
        if self.window is not None:
            self._oldest = max(0, self.seen - (self.window - 1))

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

    def seen_index_rows(self, device: torch.device) -> list[Tensor]:
        """Per row, the seen index (K,) of each stored token, ascending."""
        none = torch.empty(0, dtype=torch.int32, device=device)
        return [none if row.seen_index is None else row.seen_index[: row.length] for row in self.rows]

    def occupied_bytes(self) -> int:
        """Bytes of the kept tokens' keys and values, without those that slid out of the window."""
        occupied = 0
        for row in self.rows:
            if row.keys is not None and row.values is not None:
                num_live = row.length - row.num_older(self._oldest)
                occupied += _stored_bytes(row.keys, num_live) + _stored_bytes(row.values, num_live)
        return occupied

    def allocated_bytes(self) -> int:
        """Bytes of the buffers: growth slack and the kept tokens' indices included."""
        return sum(
            buffer.nbytes
            for row in self.rows
            for buffer in (row.keys, row.values, row.seen_index)
            if buffer is not None
        )


class MaskedLayer(ChunkedLayer):
    """For the `masked` control: every token stored, with a flag (B, K) saying which were kept; a window hides, drops nothing."""

    def __init__(self, window: int | None = None, **kwargs: Any) -> None:
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
