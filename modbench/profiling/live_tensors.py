"""Peak of live tensor bytes on the CPU over a region, exact and repeatable. In: a `with` block. Out: bytes.

Read off the allocator events of torch's own profiler, so what a kernel allocates and frees inside one operator counts too; a
`TorchDispatchMode` that follows storages sees only what operators take and return. Counted: every block that torch's CPU
allocator hands out in the calling thread after entry, from then until it is freed: tensors, temporaries and workspaces, at
the size asked for. Views and in-place operators allocate nothing. Not counted: what was alive before, whether or not it is
freed in the region; memory of others (numpy arrays that a tensor wraps, scratch memory that oneDNN and MKL keep themselves,
Python objects); the allocator's rounding; other devices; other threads, those of torch's own operators included.

Repeatable, because Python's cycle collector does not run inside: tensors in a reference cycle are alive until the region ends.
Workspaces may grow with torch's number of threads. The profiler slows operators down: never time a region.
"""

import gc
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, NamedTuple

from torch.profiler import ProfilerActivity, profile

ALLOCATOR_EVENT = "[memory]"


class AllocatorEvent(NamedTuple):
    """`num_bytes` allocated at `address`, or freed there (negative)."""

    address: int
    num_bytes: int


class LiveTensorPeak:
    """`with LiveTensorPeak() as peak: ...`, then `peak.peak_bytes`; regions may lie within one another.

    Attributes:
        peak_bytes: the most bytes alive at once of those allocated since entry; None until the region has ended.
        remaining_bytes: bytes of those that are alive when it ends (results, caches); None until then.

    Raises:
        RuntimeError: from torch, if another profiler is running in this thread.
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

    @classmethod
    def _record(cls) -> None:
        cls._recorder = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        cls._recorder.start()

    @classmethod
    def _hand_out_events(cls) -> None:
        """End the stretch between two borders of regions: every open region counts its events."""
        assert cls._recorder is not None, "a region is open"
        cls._recorder.stop()
        events = list(allocator_events(cls._recorder))
        cls._recorder = None
        for region in cls._open:
            region.count(events)

    def count(self, events: Iterable[AllocatorEvent]) -> None:
        """Follow allocations and frees in their order; frees of blocks that are older than the region are passed over."""
        for address, num_bytes in events:
            if num_bytes > 0:
                self._num_bytes_at[address] = num_bytes
                self._live_bytes += num_bytes
                self._highest_bytes = max(self._highest_bytes, self._live_bytes)
            else:
                self._live_bytes -= self._num_bytes_at.pop(address, 0)


def allocator_events(recorder: profile) -> Iterator[AllocatorEvent]:
    """The CPU allocator's events of a stopped profiler, in the order of their time."""
    assert recorder.profiler is not None and recorder.profiler.kineto_results is not None, "the profiler has run"
    found = _allocations(recorder.profiler.kineto_results.experimental_event_tree())
    # a stable sort: events of one nanosecond stay in the order in which the tree lists them, which is that of their operator
    for event in sorted(found, key=lambda event: event.start_time_ns):
        yield AllocatorEvent(event.extra_fields.ptr, event.extra_fields.alloc_size)


def _allocations(events: list[Any]) -> Iterator[Any]:
    pending = list(reversed(events))
    while pending:
        event = pending.pop()
        if event.name == ALLOCATOR_EVENT and event.extra_fields.device.type == "cpu":
            yield event
        pending += reversed(event.children)
