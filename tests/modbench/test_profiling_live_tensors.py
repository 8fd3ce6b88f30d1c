"""Peaks of live tensors, in bytes worked out by hand; every tensor here is float32 unless it says otherwise."""

import gc

import pytest
import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from modbench.profiling.live_sample import count_live_tensors
from modbench.profiling.live_tensors import AllocatorEvent, LiveTensorPeak

FLOAT_BYTES = 4


def floats(count: int) -> torch.Tensor:
    return torch.empty(count)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_peak_is_of_what_is_alive_at_once():
    with LiveTensorPeak() as peak:
        first, second = floats(1000), floats(500)
        del first
        third = floats(600)
    assert peak.peak_bytes == (1000 + 500) * FLOAT_BYTES
    assert peak.remaining_bytes == (500 + 600) * FLOAT_BYTES
    assert (second.numel(), third.numel()) == (500, 600), "both outlive the region"


def test_temporaries_inside_one_operator_count():
    whole, broken = torch.ones(1000, dtype=torch.int32), torch.ones(1000)
    with LiveTensorPeak() as peak:
        total = torch.add(whole, broken)  # its kernel converts the integers into a temporary first
    assert peak.peak_bytes == 2 * 1000 * FLOAT_BYTES
    assert peak.remaining_bytes == total.nbytes == 1000 * FLOAT_BYTES


def test_views_and_in_place_operators_allocate_nothing():
    base, other = floats(1000), floats(1000)
    with LiveTensorPeak() as peak:
        view = base.view(10, 100).transpose(0, 1)[5:]
        base.add_(other)
        view.copy_(other.view(10, 100).transpose(0, 1)[5:])
    assert (peak.peak_bytes, peak.remaining_bytes) == (0, 0)


def test_a_view_keeps_its_whole_storage_alive():
    with LiveTensorPeak() as peak:
        view = floats(1000)[:1]
    assert peak.remaining_bytes == 1000 * FLOAT_BYTES
    assert view.numel() == 1


def test_what_was_alive_before_never_counts_and_its_end_makes_no_room():
    old = floats(10_000)
    with LiveTensorPeak() as peak:
        first = floats(100)
        del old
        second = floats(100)
    assert peak.peak_bytes == peak.remaining_bytes == 200 * FLOAT_BYTES
    assert first.numel() == second.numel()


def test_a_growing_storage_counts_old_and_new_at_once():
    with LiveTensorPeak() as peak:
        grown = floats(100)
        grown.resize_(300)
    assert peak.peak_bytes == (100 + 300) * FLOAT_BYTES
    assert peak.remaining_bytes == grown.nbytes == 300 * FLOAT_BYTES


def test_an_inner_region_counts_its_own_and_the_outer_one_all():
    with LiveTensorPeak() as outer:
        first = floats(1000)
        with LiveTensorPeak() as inner:
            second = floats(300)
            del first
            third = floats(200)
            del second
        fourth = floats(400)
    assert inner.peak_bytes == (300 + 200) * FLOAT_BYTES
    assert inner.remaining_bytes == 200 * FLOAT_BYTES
    assert outer.peak_bytes == (1000 + 300) * FLOAT_BYTES
    assert outer.remaining_bytes == (200 + 400) * FLOAT_BYTES
    assert (third.numel(), fourth.numel()) == (200, 400)


def test_an_address_that_is_used_again_counts_once():
    region = LiveTensorPeak()
    region.count([AllocatorEvent(16, 100), AllocatorEvent(16, -100), AllocatorEvent(16, 60), AllocatorEvent(32, 50)])
    region.count([AllocatorEvent(64, -500), AllocatorEvent(16, -60), AllocatorEvent(32, -50)])
    assert (region._highest_bytes, region._live_bytes) == (110, 0)


def test_peaks_are_unknown_until_the_region_ends():
    with LiveTensorPeak() as peak:
        assert peak.peak_bytes is None
        assert peak.remaining_bytes is None
    assert peak.peak_bytes == 0


def attend_and_pass_mlp() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 4, 128, 16, generator=generator) for _ in range(3))
    attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    flat = attended.transpose(1, 2).reshape(128, 64)
    return functional.silu(flat @ flat.T).softmax(dim=-1)


def test_the_same_work_gives_the_same_bytes():
    seen = set()
    for _ in range(3):
        with LiveTensorPeak() as peak:
            attend_and_pass_mlp()
        seen.add((peak.peak_bytes, peak.remaining_bytes))
    assert len(seen) == 1
    query_to_output_bytes = 4 * 128 * 64 * FLOAT_BYTES
    assert peak.peak_bytes > query_to_output_bytes, "with the workspace of the attention kernel"
    assert peak.remaining_bytes == 0


class Loop:
    """Refers to itself, so that only Python's cycle collector can free its tensor."""

    def __init__(self) -> None:
        self.tensor = floats(100)
        self.itself = self


def test_tensors_in_a_reference_cycle_live_until_the_region_ends():
    with LiveTensorPeak() as peak:
        for _ in range(1000):  # more than the collector's threshold
            Loop()
    assert peak.peak_bytes == peak.remaining_bytes == 1000 * 100 * FLOAT_BYTES
    gc.collect()


def test_the_cycle_collector_is_left_as_it_was():
    with LiveTensorPeak():
        assert not gc.isenabled()
        with LiveTensorPeak():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with LiveTensorPeak():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_region_that_fails_leaves_the_next_one_whole():
    with pytest.raises(ZeroDivisionError), LiveTensorPeak() as failed:  # noqa: PT012 (the tensor is part of the case)
        block = floats(100)
        block[0] = 1 / 0
    assert failed.peak_bytes == 100 * FLOAT_BYTES
    with LiveTensorPeak() as peak:
        block = floats(50)
    assert peak.peak_bytes == 50 * FLOAT_BYTES
    assert block.numel() == 50
    assert gc.isenabled()


def test_another_profiler_is_refused_not_ended():
    with profile(activities=[ProfilerActivity.CPU]) as other:
        with pytest.raises(RuntimeError, match="a torch profiler is running"), LiveTensorPeak():
            pass
        floats(10)
    assert other.events(), "the other one went on"
    assert gc.isenabled()


def test_a_phase_begins_with_what_is_alive():
    with LiveTensorPeak() as peak:
        kept = floats(1000)
        gone = floats(2000)
        del gone
        assert peak.next_phase() == 3000 * FLOAT_BYTES
        more = floats(500)
        assert peak.next_phase() == 1500 * FLOAT_BYTES
        del more
    assert peak.peak_bytes == 1500 * FLOAT_BYTES, "of the last phase"
    assert peak.remaining_bytes == kept.nbytes


class GrowingSubject:
    """Prefill makes a cache and a larger temporary; each decode step replaces the cache by one with room for a token more."""

    def __init__(self):
        self.decisions: list[torch.Tensor] = [floats(7)]

    def prefill(self, input_ids):
        self.decisions.append(floats(50))
        floats(4000)
        return torch.zeros(1, 1, 8), {"cache": floats(1000)}

    def decode(self, token_ids, state):
        self.decisions.append(floats(50))
        state["cache"] = torch.cat([state["cache"], floats(100)])
        return torch.zeros(1, 1, 8)

    def take_decisions(self):
        taken, self.decisions = self.decisions, []
        return taken


def test_a_counted_sample_gives_peaks_per_phase_and_the_cache_alone():
    subject = GrowingSubject()
    found = count_live_tensors(subject, torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 2, dtype=torch.long))
    assert found["kv_cache_allocator_bytes"] == 1200 * FLOAT_BYTES, "decisions are for the record, not of the cache"
    assert found["peak_prefill_live_bytes"] == (50 + 4000) * FLOAT_BYTES
    logits, token = 8, 2  # the logits and token of the step before are alive until the next ones are there
    last_step = 3 * 50 + 1100 + 100 + 1200 + logits + token
    assert found["peak_decode_live_bytes"] == last_step * FLOAT_BYTES
    assert found["peak_live_bytes"] == found["peak_prefill_live_bytes"]
    assert subject.take_decisions() == []
