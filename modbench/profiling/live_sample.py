"""One more sample whose tensors are counted and whose time is not: peaks of live tensors, and the cache as the allocator sees it.

In: a subject and token ids, on a CPU. Out: bytes by metric name. Weights are older than the sample and not in it.
"""

from typing import Any

from torch import Tensor

from modbench.profiling.live_tensors import LiveTensorPeak
from modbench.profiling.timing import take_sample


def count_live_tensors(subject: Any, prompt_BT: Tensor, continuation_BT: Tensor) -> dict[str, int]:
    """Run a sample and count.

    Returns:
        `peak_live_bytes`, `peak_prefill_live_bytes` and `peak_decode_live_bytes`: the most bytes of tensors alive at once
        beside the weights; `kv_cache_allocator_bytes`: what the allocator had not got back at the end, when only the state of
        the decode was left.
    """
    subject.take_decisions()
    peaks: dict[str, int] = {}

    def on_phase(phase: str) -> None:
        if phase == "decode":
            peaks["prefill"] = live.next_phase()

    with LiveTensorPeak() as live:
        _, state = take_sample(subject, prompt_BT, continuation_BT, on_phase)
        peaks["decode"] = live.next_phase()
        subject.take_decisions()  # kept for the record alone, and let go with this
    assert live.remaining_bytes is not None, "the region has ended"
    del state
    return {
        "peak_live_bytes": max(peaks.values()),
        "peak_prefill_live_bytes": peaks["prefill"],
        "peak_decode_live_bytes": peaks["decode"],
        "kv_cache_allocator_bytes": live.remaining_bytes,
    }
