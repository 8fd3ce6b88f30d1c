"""The cache of a dense layer: keys and values of every token, or of those that its sliding window can still reach.

In: the keys and values of each forward. Out: views of everything stored so far; the stock layer concatenates instead, which copies
the whole cache at every token.

Shapes: B batch, T new tokens, K stored tokens, G KV heads, H head dim.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from reference_impl.cache_buffers import check_reach, check_rows, has_room, moved, num_removed, stored_bytes
from reference_impl.ranges import CACHE_APPEND, named_range


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
            check_rows(self.keys.shape[0], key_states.shape[0])
        with named_range(CACHE_APPEND):
            return self._append(key_states, value_states)

    def _append(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
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
        if has_room(self.keys, self.length, key_states) and has_room(self.values, self.length, value_states):
            return
        self.keys = moved(self.keys, key_states, self._num_stale, self.length)
        self.values = moved(self.values, value_states, self._num_stale, self.length)
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
        removed = min(num_removed(tokens_to_remove), self.get_seq_length())
        if removed < self.get_seq_length():
            check_reach(self.window, self.get_seq_length() - removed, self.num_dropped)
        return removed

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last `-tokens_to_remove` seen tokens (a value <= 0, as in transformers); see `check_crop`."""
        removed = self.check_crop(tokens_to_remove)
        if removed and removed == self.get_seq_length():
            self.reset()
        else:
            self.length -= removed
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
        return stored_bytes(self.keys, num_live) + stored_bytes(self.values, num_live)

    def allocated_bytes(self) -> int:
        """Bytes of the buffers, growth slack included."""
        return sum(buffer.nbytes for buffer in (self.keys, self.values) if buffer is not None)


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
