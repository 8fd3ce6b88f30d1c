"""Trace events -> seconds per phase and range, each moment counted once. Pure: works on a Chrome trace read from JSON.

In: the events of a Chrome trace, with nested host ranges and, on a GPU, kernels and the calls that launched them. Out: a breakdown
per phase whose parts add up to it. Times inside are microseconds, as in the file.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modbench.trace_record import DEVICE_IDLE, OTHER, PHASES, RANGES, Seconds

HOST_RANGE = "user_annotation"
LAUNCHES = ("cuda_runtime", "cuda_driver")
DEVICE_WORK = ("kernel", "gpu_memcpy", "gpu_memset")

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Segment:
    """A stretch of one thread's time and the innermost range around it; `phase_end` closes the phase it lies in."""

    phase: str
    name: str
    thread: Any
    start: float
    end: float
    phase_end: float


def host_breakdown(events: Iterable[Event]) -> Seconds:
    """Per phase and range, the seconds of the launching thread that no range inside it claims; the phase's own are `other`."""
    breakdown: Seconds = {}
    for segment in segments(events):
        _add(breakdown, segment.phase, segment.name, segment.end - segment.start)
    return breakdown


def device_breakdown(events: Sequence[Event]) -> Seconds | None:
    """Per phase and range, the seconds in which the device worked on what that range launched; the rest is `device_idle`.

    Of work that overlaps, every moment counts for what started first. None where the trace has no device work.
    """
    host = segments(events)
    starts = [segment.start for segment in host]
    launches = {_correlation(event): event for event in events if event.get("cat") in LAUNCHES}
    launches.pop(None, None)
    work = sorted((event for event in events if event.get("cat") in DEVICE_WORK), key=lambda event: event["ts"])
    if not work:
        return None
    breakdown: Seconds = {}
    busy_until = 0.0
    for event in work:
        launch = launches.get(_correlation(event), event)
        index = bisect_right(starts, launch["ts"]) - 1
        if index < 0 or launch["ts"] >= host[index].end:
            continue  # launched outside the phases
        segment = host[index]
        is_own_thread = launch.get("tid") == segment.thread
        start = max(event["ts"], busy_until)
        busy_until = max(start, min(event["ts"] + event["dur"], segment.phase_end))
        _add(breakdown, segment.phase, segment.name if is_own_thread else OTHER, busy_until - start)
    for phase, wall in host_breakdown(events).items():
        busy_s = sum(breakdown.get(phase, {}).values())
        breakdown.setdefault(phase, {})[DEVICE_IDLE] = max(0.0, sum(wall.values()) - busy_s)
    return breakdown


def segments(events: Iterable[Event]) -> list[Segment]:
    """The phases cut where a range begins or ends, in order of time; ranges outside a phase are left out."""
    found: list[Segment] = []
    stack: list[tuple[str, float]] = []  # (name, end) of the open ranges, the phase first
    thread, cursor = None, 0.0

    def cut(end: float) -> None:
        nonlocal cursor
        if end > cursor:
            name = OTHER if len(stack) == 1 else stack[-1][0]
            found.append(Segment(stack[0][0], name, thread, cursor, end, stack[0][1]))
        cursor = max(cursor, end)

    for event in sorted(filter(_is_range, events), key=lambda event: (event["ts"], -event["dur"])):
        start, name = event["ts"], event["name"]
        while stack and stack[-1][1] <= start:
            cut(stack[-1][1])
            stack.pop()
        if not stack:
            if name not in PHASES:
                continue
            thread, cursor = event.get("tid"), start
        elif event.get("tid") != thread:
            continue
        else:
            cut(start)
        end = start + event["dur"]
        if stack:
            end = min(end, stack[-1][1])  # rounding may let a range outlast the one around it
        stack.append((name, end))
    while stack:
        cut(stack[-1][1])
        stack.pop()
    return found


def _is_range(event: Event) -> bool:
    return event.get("cat") == HOST_RANGE and event.get("ph") == "X" and event.get("name") in (*PHASES, *RANGES)


def _correlation(event: Event) -> Any:
    return event.get("args", {}).get("correlation")


def _add(breakdown: Seconds, phase: str, name: str, microseconds: float) -> None:
    parts = breakdown.setdefault(phase, {})
    parts[name] = parts.get(name, 0.0) + microseconds / 1e6
