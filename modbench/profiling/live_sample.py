"""One more sample whose tensors are counted and whose time is not: peaks of live tensors, and the cache as the allocator sees it.

In: a subject and token ids, on a CPU. Out: bytes by metric name. Weights are older than the sample and not in it.
"""

from typing import Any

from torch import Tensor

from modbench.profiling.live_tensors import LiveTensorPeak


def count_live_tensors(subject: Any, prompt_BT: Tensor, continuation_BT: Tensor) -> dict[str, int]:
    """Run a sample, as `take_sample` does, and count. Between steps what torch's profiler has noted is read and let go.

    Returns:
        `peak_live_bytes`, `peak_prefill_live_bytes` and `peak_decode_live_bytes`: the most bytes of tensors alive at once
        beside the weights; `kv_cache_allocator_bytes`: what the allocator had not got back at the end, when only the state of
        the decode was left.
    """
    subject.take_decisions()
    with LiveTensorPeak() as live:
        logits, state = subject.prefill(prompt_BT)
        token_B = logits[:, -1].argmax(dim=-1)
        token_B.tolist()
        prefill_bytes = live.next_phase()
        decode_bytes = 0
        for step in range(continuation_BT.shape[1]):
            logits = subject.decode(continuation_BT[:, step : step + 1], state)
            token_B = logits[:, -1].argmax(dim=-1)
            token_B.tolist()
            decode_bytes = max(decode_bytes, live.next_phase())
        subject.take_decisions()  # kept for the record alone, and let go with this
        del logits, token_B
    assert live.remaining_bytes is not None, "the region has ended"
    del state
    return {
        "peak_live_bytes": max(prefill_bytes, decode_bytes),
        "peak_prefill_live_bytes": prefill_bytes,
        "peak_decode_live_bytes": decode_bytes,
        "kv_cache_allocator_bytes": live.remaining_bytes,
    }
