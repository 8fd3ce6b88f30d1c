"""Buffers that the caches grow in, and the checks that both kinds of cache layer share.

In: keys or values to append. Out: a buffer with room for them. The first tokens get exactly the room they need; from then on a
buffer grows by a sixteenth, so appending a token costs O(1) amortised and slack stays within 1/16 (8 tokens at least).

Shapes: H head dim.
"""

import torch
from torch import Tensor

from reference_impl.errors import UnsupportedModelError

MIN_SLACK_TOKENS = 8
SLACK_SHIFT = 4  # capacity = length + length / 2**4


def grown_capacity(length: int) -> int:
    """Tokens to allocate for `length` stored ones. Source: our choice (slack <= 1/16, amortised O(1) appends)."""
    return length + max(MIN_SLACK_TOKENS, length >> SLACK_SHIFT)


def moved(buffer: Tensor | None, new: Tensor, first: int, end: int) -> Tensor:
    """A buffer (..., capacity, H) holding tokens `first` to `end` of `buffer`, with room for those of `new` behind them."""
    num_kept, num_new = end - first, new.shape[-2]
    capacity = num_new if buffer is None else grown_capacity(num_kept + num_new)
    grown = new.new_empty(*new.shape[:-2], capacity, new.shape[-1])
    if buffer is not None and num_kept:
        grown[..., :num_kept, :] = buffer[..., first:end, :]
    return grown


def has_room(buffer: Tensor | None, length: int, new: Tensor) -> bool:
    """Whether `new` may be written behind the first `length` tokens of `buffer`.

    Not where autograd follows either, since an earlier forward's graph holds the buffer, nor into a buffer made in inference mode
    from outside of it.
    """
    if buffer is None or length + new.shape[-2] > buffer.shape[-2]:
        return False
    if buffer.is_inference() and not torch.is_inference_mode_enabled():
        return False
    return not (torch.is_grad_enabled() and (buffer.requires_grad or new.requires_grad))


def num_removed(tokens_to_remove: int) -> int:
    """How many tokens a `crop` with this argument (<= 0, as in transformers) takes away."""
    if tokens_to_remove > 0:  # older callers mean the length to keep; guessing would drop the wrong tokens
        raise ValueError(f"crop: got {tokens_to_remove}; expected minus the number of tokens to remove")
    return -tokens_to_remove


def check_rows(stored: int, batch: int) -> None:
    """Raise UnsupportedModelError where a cache of `stored` rows is handed a batch of other size."""
    if stored != batch:
        raise UnsupportedModelError(f"kv cache holds {stored} rows; got a batch of {batch}: use a new cache")


def check_reach(window: int | None, num_seen: int, first_stored: int) -> None:
    """Raise UnsupportedModelError where a window back from token `num_seen` reaches before the first stored one."""
    if first_stored and window is not None and first_stored > max(0, num_seen - (window - 1)):
        raise UnsupportedModelError(
            f"crop: a window of {window} tokens back from token {num_seen} reaches tokens that the cache has dropped; "
            "crop fewer tokens, or call activate_past_recording before they are fed"
        )


def stored_bytes(buffer: Tensor, length: int) -> int:
    """Bytes of `length` tokens of a buffer (..., capacity, H)."""
    return 0 if length == 0 else buffer.nbytes // buffer.shape[-2] * length
