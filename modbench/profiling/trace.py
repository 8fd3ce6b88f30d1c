"""A sample under torch's profiler, with named ranges: a Chrome trace in a file, and where the time went.

In: a warmed-up subject, token ids, and a file name. Out: the sample's times, with their clocks where timing.py has them, the trace
as gzipped JSON (Perfetto and chrome://tracing open it), and the breakdown read from it. On a GPU the ranges are NVTX ranges too.
It is the fastest of a few: the first ones pay for what the profiler loads and for memory it moves, and whatever else the machine
does only adds time.

Shapes: B batch, T tokens.
"""

import gzip
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from modbench.profiling.range_hooks import hooked
from modbench.profiling.self_time import device_breakdown, host_breakdown
from modbench.profiling.timing import Sample, take_sample
from modbench.trace_record import Seconds
from reference_impl.ranges import RangeHook, traced

NUM_TRACED = 3


@dataclass(frozen=True)
class TracedSample:
    """A sample that was slowed down by being traced, and its breakdowns; `device_s` is None on a CPU."""

    sample: Sample
    host_s: Seconds
    device_s: Seconds | None


def trace_sample(
    subject: Any, prompt_BT: Tensor, continuation_BT: Tensor, device: torch.device, path: Path
) -> TracedSample:
    """Trace a prefill and its decode into `path`, which ends in `.json.gz`; arguments as for `take_sample`."""
    tries = (_profiled_sample(subject, prompt_BT, continuation_BT, device) for _ in range(NUM_TRACED))
    sample, profiler = min(tries, key=lambda found: found[0].end_to_end_s)
    path.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(path))
    with gzip.open(path, "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    return TracedSample(sample, host_breakdown(events), device_breakdown(events))


def _profiled_sample(
    subject: Any, prompt_BT: Tensor, continuation_BT: Tensor, device: torch.device
) -> tuple[Sample, profile]:
    is_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    range_of: RangeHook = _nvtx_range if is_cuda else record_function
    model = getattr(subject, "model", None)
    with profile(activities=activities) as profiler, ExitStack() as around, ExitStack() as phase:
        around.enter_context(traced(range_of))
        if isinstance(model, nn.Module):
            around.enter_context(hooked(model))

        def on_phase(name: str) -> None:
            phase.close()
            phase.enter_context(range_of(name))

        sample, _ = take_sample(subject, prompt_BT, continuation_BT, on_phase)
    return sample, profiler


@contextmanager
def _nvtx_range(name: str) -> Iterator[None]:
    with record_function(name), torch.cuda.nvtx.range(name):
        yield
