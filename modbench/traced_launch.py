"""One traced launch: build, calibrate, warm up, sample untraced, then traced. In: a trace job. Out: its row.

Its times are slower than measured ones, by the slowdown that stands beside them, and enter no record. Shares are what it is for.

Shapes: B batch, T tokens.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from modbench.job import Job
from modbench.methods import METHODS
from modbench.profiling.timing import Sample, phase_durations, take_sample, warm_up
from modbench.profiling.trace import trace_sample
from modbench.tokens import prompt_tokens
from modbench.trace_record import TraceRecord, new_trace_record, trace_file

NUM_UNTRACED = 3  # the fastest of them says how much slower the traced one is
MAX_DECODE_STEPS = 64  # a trace holds every operation: more steps make a file that no viewer opens


def run_traced_launch(job: Job, on_phase: Callable[[str], None]) -> TraceRecord:
    """Trace one launch into the folder that the job names; `on_phase` hears build, calibrate, warmup, trace, done."""
    spec = job.spec
    assert spec is not None and job.trace_folder is not None, "a trace job has a run spec and a folder"
    point, device = spec.point, torch.device(job.device)
    context = point.workload["context"]
    ids_BT = prompt_tokens(point).ids_BT.to(device)
    prompt_BT, continuation_BT = ids_BT[:, :context], ids_BT[:, context : context + MAX_DECODE_STEPS]
    on_phase("build")
    method = METHODS[spec.kind](point.settings)
    subject = method.build(point, device)
    on_phase("calibrate")
    method.calibrate(subject, ids_BT, context)

    def untraced_sample() -> Sample:
        return take_sample(subject, prompt_BT, continuation_BT, lambda phase: None)[0]

    with torch.inference_mode():
        on_phase("warmup")
        warm_up(lambda: phase_durations(untraced_sample()), spec.measure["warmup"])
        untraced = min((untraced_sample() for _ in range(NUM_UNTRACED)), key=lambda sample: sample.end_to_end_s)
        on_phase("trace")
        traced = trace_sample(subject, prompt_BT, continuation_BT, device, Path(job.trace_folder) / trace_file(spec))
    on_phase("done")
    return new_trace_record(spec).model_copy(
        update={
            "trace_file": trace_file(spec),
            "num_decode_steps": continuation_BT.shape[1],
            "host_s": traced.host_s,
            "device_s": traced.device_s,
            "slowdown_ratio": {
                "prefill": traced.sample.ttft_s / untraced.ttft_s,
                "decode": traced.sample.tpot_s / untraced.tpot_s,
            },
        }
    )
