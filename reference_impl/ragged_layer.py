"""The cache of a routed layer: kept tokens only, one buffer per row, each token with its seen index.

In: the packed keys and values of each forward's kept tokens. Out: views of each row's.
With a sliding window, what no later query can see is dropped when a row grows.

Shapes: B batch, T new tokens, P packed kept tokens, K stored tokens, G KV heads, H head dim.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from reference_impl.cache_buffers import check_reach, check_rows, has_room, moved, num_removed, stored_bytes
from reference_impl.errors import UnsupportedModelError
from reference_impl.packing import Packing
from reference_impl.ranges import CACHE_APPEND, named_range


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
        if not (has_room(self.keys, self.length, key_GTH) and has_room(self.values, self.length, value_GTH)):
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
        self.seen_index = moved(old_K1, index_T1, first, self.length).squeeze(1)
        self.keys = moved(self.keys, key_GTH, first, self.length)
        self.values = moved(self.values, value_GTH, first, self.length)
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
        check_rows(len(self.rows), batch)
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
        with named_range(CACHE_APPEND):
            return self._store(packing, key_states, value_states)

    def _store(self, packing: Packing, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
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
        self.is_initialized = self._is_open = False
        self._packing = None

    def check_crop(self, tokens_to_remove: int) -> int:
        """The number of seen tokens that such a `crop` takes away.

        Raises:
            UnsupportedModelError: tokens that the window would reach again were dropped.
        """
        removed = min(num_removed(tokens_to_remove), self.seen)
        if removed < self.seen:
            check_reach(self.window, self.seen - removed, self._oldest)
        return removed

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last `-tokens_to_remove` SEEN tokens; kept ones among them go (a value <= 0, as in transformers).

        See `check_crop`.
        """
        removed = self.check_crop(tokens_to_remove)
        if removed:
            self.seen -= removed
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
                occupied += stored_bytes(row.keys, num_live) + stored_bytes(row.values, num_live)
        return occupied

    def allocated_bytes(self) -> int:
        """Bytes of the buffers: growth slack and the kept tokens' indices included."""
        return sum(
            buffer.nbytes
            for row in self.rows
            for buffer in (row.keys, row.values, row.seen_index)
            if buffer is not None
        )
