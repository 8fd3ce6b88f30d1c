"""Peak of live tensor bytes on the CPU over a region, exact and repeatable. In: a `with` block. Out: bytes.

Read off the allocator events of torch's own profiler, so that what a kernel allocates and frees inside one operator counts
too; a `TorchDispatchMode` that follows storages sees only what operators take and return.

Counted: every block that torch's CPU allocator hands out in this thread after entry, at the size asked for, until it is
freed: tensors, temporaries, workspaces. Views and in-place operators allocate nothing. Not counted: what was alive before,
whether or not it is freed in the region; memory of others (arrays that a tensor wraps, what oneDNN and MKL keep to
themselves, Python objects); the allocator's rounding; other devices; other threads, torch's own workers among them.

Repeatable, because Python's cycle collector does not run inside: tensors in a reference cycle live until the region ends.
Workspaces may grow with torch's number of threads. The profiler slows operators down: never time a region.
"""

import gc
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

ALLOCATOR_EVENT = "[memory]"


class AllocatorEvent(NamedTuple):
    """`num_bytes` allocated at `address`, or freed there (negative)."""

    address: int
    num_bytes: int


class LiveTensorPeak:
    """`with LiveTensorPeak() as peak: ...`, then `peak.peak_bytes`. Regions of one thread may lie within one another.

    Attributes:
        peak_bytes: the most bytes alive at once of those allocated since entry, or since the last `next_phase`; None until the
            region has ended.
        remaining_bytes: those still alive at its end (results, caches); None until then.

    Raises:
        RuntimeError: on entry, where a torch profiler is running: there can be one only, and a second would end it.
    """

    _open: ClassVar[list["LiveTensorPeak"]] = []
    _recorder: ClassVar[profile | None] = None
    _was_collecting: ClassVar[bool] = False

    def __init__(self) -> None:
        self.peak_bytes: int | None = None
        self.remaining_bytes: int | None = None
        self._num_bytes_at: dict[int, int] = {}
        self._live_bytes = 0
        self._highest_bytes = 0

    def __enter__(self) -> "LiveTensorPeak":
        if self._open:
            self._hand_out_events()
        else:
            if torch.autograd._profiler_enabled():
                raise RuntimeError("a torch profiler is running; expected none: leave it before LiveTensorPeak begins")
            gc.collect()
            LiveTensorPeak._was_collecting = gc.isenabled()
            gc.disable()
        self._open.append(self)
        self._record()
        return self

    def __exit__(self, *exception: object) -> None:
        self._hand_out_events()
        closed = self._open.pop()
        assert closed is self, "with blocks end in the reverse order of their beginning"
        self.peak_bytes, self.remaining_bytes = self._highest_bytes, self._live_bytes
        if self._open:
            self._record()
        elif self._was_collecting:
            gc.enable()

    def next_phase(self) -> int:
        """The most bytes alive at once since entry or the last call; the next phase begins with what is alive now."""
        self._hand_out_events()
        highest_bytes, self._highest_bytes = self._highest_bytes, self._live_bytes
        self._record()
        return highest_bytes

    @classmethod
    def _record(cls) -> None:
        cls._recorder = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        cls._recorder.start()

    @classmethod
    def _hand_out_events(cls) -> None:
        """End the stretch between two borders of regions: every open region counts its events."""
        assert cls._recorder is not None and cls._recorder.profiler is not None, "a region is open"
        cls._recorder.stop()
        events = list(allocator_events(cls._recorder))
        cls._recorder.profiler.kineto_results = None  # else its events stay in memory as long as the process
        cls._recorder = None
        for region in cls._open:
            region.count(events)

    def count(self, events: Iterable[AllocatorEvent]) -> None:
        """Follow allocations and frees in their order; the free of a block older than the region changes nothing."""
        for address, num_bytes in events:
            if num_bytes > 0:
                self._num_bytes_at[address] = num_bytes
                self._live_bytes += num_bytes
                self._highest_bytes = max(self._highest_bytes, self._live_bytes)
            else:
                self._live_bytes -= self._num_bytes_at.pop(address, 0)


def allocator_events(recorder: profile) -> Iterator[AllocatorEvent]:
    """The CPU allocator's events of a profiler that was stopped, in the order of their time."""
    assert recorder.profiler is not None and recorder.profiler.kineto_results is not None, "the profiler has run"
    found = _allocations(recorder.profiler.kineto_results.experimental_event_tree())
    # the sort is stable: events of one nanosecond keep the order of the tree, which is that of their operators
    for event in sorted(found, key=lambda event: event.start_time_ns):
        yield AllocatorEvent(event.extra_fields.ptr, event.extra_fields.alloc_size)


def _allocations(events: list[Any]) -> Iterator[Any]:
    pending = list(reversed(events))
    while pending:
        event = pending.pop()
        if event.name == ALLOCATOR_EVENT and event.extra_fields.device.type == "cpu":
            yield event
        pending += reversed(event.children)
