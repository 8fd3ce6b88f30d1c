"""One launch: build, calibrate, warm up, sample. In: a launch job. Out: its record.

Nothing but the subject runs inside the clocks; memory peaks are reset between phases; keep ratios are those of the last timed
sample. The record is `invalid` where a calibrated keep ratio missed its target.

Shapes: B batch, T tokens.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modbench.job import Job
from modbench.memory_limit import lift_limit
from modbench.methods import METHODS, Method, Subject
from modbench.methods.checkpoint import CHECKPOINT
from modbench.plan import PointWork
from modbench.profiling import process_memory, torch_memory
from modbench.profiling.contamination import ContaminationMeter
from modbench.profiling.gpu_watch import GpuWatch
from modbench.profiling.live_sample import count_live_tensors
from modbench.profiling.phase_peaks import PhasePeaks
from modbench.profiling.timing import CUDA_WARMUP_S, Sample, phase_durations, take_sample, warm_up
from modbench.record import CALIBRATED_ROUTER, CHECKPOINT_ROUTER, RANDOM_ROUTER, KeepRatios, Record, Samples
from modbench.scenario import KEEP_RATIO_ABSOLUTE, KEEP_RATIO_RELATIVE
from modbench.tokens import WRAPPED_PROMPT, PromptTokens, prompt_tokens
from reference_impl import Decision

OnPhase = Callable[[str], None]


@dataclass
class Measurement:
    """What the samples of a launch gave."""

    samples: list[Sample]
    decisions: list[dict[int, Decision]]
    metrics: dict[str, float | int | None]
    flags: list[str]
    gpu_facts: dict[str, Any]


def run_launch(job: Job, on_phase: OnPhase, publish: Callable[[Record], None]) -> Record:
    """Measure one launch.

    Args:
        job: a launch job.
        on_phase: hears build, calibrate, warmup, prefill, decode, live tensors, done.
        publish: gets the record as soon as everything timed is in it, so that nothing which follows can lose it.
    """
    spec = job.spec
    assert spec is not None, "a launch job has a run spec"
    point, device = spec.point, torch.device(job.device)
    tokens = prompt_tokens(point)
    ids_BT = tokens.ids_BT.to(device)
    on_phase("build")
    method = METHODS[spec.kind](point.settings)
    subject = method.build(point, device)
    built_rss_bytes = process_memory.rss_bytes()
    on_phase("calibrate")
    method.calibrate(subject, ids_BT, point.workload["context"])
    with torch.inference_mode():
        measured = _measure(job, subject, ids_BT, device, on_phase)
    keep_ratio = KeepRatios()
    if measured.decisions or method.keeps_all_unless_told:
        keep_ratio = keep_ratios(measured.decisions, point.geometry.num_hidden_layers, method.removed_layers())
    missed = _missed_target(method, keep_ratio, point.settings.get("routed_layers", ()))
    record = Record(
        launch_id=spec.launch_id,
        run_id=spec.run_id,
        point_id=spec.point_id,
        method=spec.method,
        kind=spec.kind,
        status="invalid" if missed else "ok",
        phase="done",
        point=point,
        pair=spec.pair,
        samples=raw_samples(measured.samples),
        metrics={**measured.metrics, "built_rss_bytes": built_rss_bytes},
        keep_ratio=keep_ratio,
        guard=job.guard,
        flags=[*_input_flags(tokens, method, point), *measured.flags],
        environment={
            **job.environment,
            "tokens_sha256": tokens.sha256,
            "device": job.device,
            "attention_path": getattr(subject, "attention_path", None),
            **({"gpu_watch": measured.gpu_facts} if measured.gpu_facts else {}),
        },
        error=missed,
    )
    if job.counts_live_tensors and device.type == "cpu":
        publish(record)
        on_phase("live tensors")
        lift_limit()  # the profiler's notes are not the launch's memory
        record = _with_live_tensors(record, subject, ids_BT)
    on_phase("done")
    return record


def _with_live_tensors(record: Record, subject: Subject, ids_BT: Tensor) -> Record:
    """The record with one more sample's tensors counted, or with the reason why they were not."""
    context = record.point.workload["context"]
    try:
        with torch.inference_mode():
            counted = count_live_tensors(subject, ids_BT[:, :context], ids_BT[:, context:])
    except (RuntimeError, MemoryError) as error:
        doubt = f"live tensors were not counted: {type(error).__name__}: {' '.join(str(error).split())}"
        return record.model_copy(update={"flags": [*record.flags, doubt]})
    return record.model_copy(update={"metrics": {**record.metrics, **counted}})


def _measure(job: Job, subject: Subject, ids_BT: Tensor, device: torch.device, on_phase: OnPhase) -> Measurement:
    assert job.spec is not None, "a launch job has a run spec"
    context = job.spec.point.workload["context"]
    inputs = ids_BT[:, :context], ids_BT[:, context:]
    on_phase("warmup")
    num_warmups, is_stationary = warm_up(
        lambda: phase_durations(take_sample(subject, *inputs, lambda phase: None)[0]),
        job.spec.measure["warmup"],
        at_least_s=CUDA_WARMUP_S if device.type == "cuda" else 0.0,
    )
    subject.take_decisions()  # of the warm-up
    peaks = PhasePeaks(device)
    watch = GpuWatch(device, job.environment.get("nvml"))

    def on_sample_phase(phase: str) -> None:
        peaks.enter(phase)
        watch.enter(phase)
        on_phase(phase)

    samples: list[Sample] = []
    metrics: dict[str, float | int | None] = {"weights_bytes": _weights_bytes(subject), "num_warmups": num_warmups}
    decisions: list[dict[int, Decision]] = []
    meter = ContaminationMeter()
    with watch:
        for _ in range(job.spec.measure["samples"]):
            decisions = []  # of the sample before
            before_bytes = torch_memory.requested_bytes(device)
            sample, state = take_sample(subject, *inputs, on_sample_phase)
            peaks.enter("")
            watch.enter("")
            samples.append(sample)
            decisions = subject.take_decisions()
            metrics |= _cache_metrics(subject, state, decisions, before_bytes, device)
            del state
    contamination = meter.stop()
    timed_s = sum(sample.end_to_end_s for sample in samples)
    metrics |= {
        **peaks.peaks,
        **watch.metrics(len(samples), timed_s),
        "involuntary_switches_per_s": contamination.involuntary_switches_per_s,
        "wall_cpu_ratio": contamination.wall_cpu_ratio,
    }
    flags = [*contamination.flags(is_cpu_bound=device.type == "cpu"), *watch.flags(timed_s)]
    if not peaks.is_per_phase:
        flags.append("peak RSS is since the start of the process: this kernel does not reset it")
    if is_stationary is False:
        flags.append("warm-up ended before the samples were stationary")
    return Measurement(samples, decisions, metrics, flags, watch.facts())


def _weights_bytes(subject: Subject) -> int | None:
    """A user's own subject need not have the optional method."""
    return getattr(subject, "weights_bytes", lambda: None)()


def _cache_metrics(
    subject: Subject,
    state: Any,
    decisions: Sequence[dict[int, Decision]],
    before_bytes: int | None,
    device: torch.device,
) -> dict[str, float | int | None]:
    """The cache as it is and, on CUDA, as the allocator sees it: all that the sample left behind but its decisions."""
    occupied, allocated = subject.kv_cache_bytes(state)
    metrics: dict[str, float | int | None] = {"kv_cache_bytes": occupied, "kv_cache_allocated_bytes": allocated}
    after_bytes = torch_memory.requested_bytes(device)
    if before_bytes is not None and after_bytes is not None:
        metrics["kv_cache_allocator_bytes"] = after_bytes - before_bytes - _storage_bytes(decisions)
    return metrics


def _storage_bytes(decisions: Sequence[dict[int, Decision]]) -> int:
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for forward in decisions
        for decision in forward.values()
        for tensor in decision
        if tensor is not None
    }
    return sum(storages.values())


def keep_ratios(decisions: Sequence[dict[int, Decision]], num_layers: int, removed: tuple[int, ...]) -> KeepRatios:
    """Measured shares per layer from one sample's decisions: the first forward is the prefill, each later one a decode step."""
    ratios: dict[str, list[float]] = {
        phase: [0.0 if layer in removed else 1.0 for layer in range(num_layers)]
        for phase in ("prefill", "decode", "decode_any")
    }
    if decisions:
        prefill, steps = decisions[0], decisions[1:]
        for layer, decision in prefill.items():
            ratios["prefill"][layer] = decision.keep_BT.float().mean().item()
            kept_BS = torch.cat([step[layer].keep_BT for step in steps], dim=1).float()
            ratios["decode"][layer] = kept_BS.mean().item()
            ratios["decode_any"][layer] = kept_BS.amax(dim=0).mean().item()
    return KeepRatios(**ratios)


def raw_samples(samples: Sequence[Sample]) -> Samples:
    """What every clock showed, as the record keeps it."""
    return Samples(
        ttft_s=[sample.ttft_s for sample in samples],
        tpot_s=[sample.tpot_s for sample in samples],
        itl_s=[gap for sample in samples for gap in sample.itl_s],
        prefill_cpu_s=[sample.prefill.cpu_s for sample in samples],
        decode_cpu_s=[sample.decode.cpu_s for sample in samples],
        prefill_device_s=_known(sample.prefill.device_s for sample in samples),
        decode_device_s=_known(sample.decode.device_s for sample in samples),
        num_involuntary_switches=[
            sample.prefill.num_involuntary_switches + sample.decode.num_involuntary_switches for sample in samples
        ],
    )


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _missed_target(method: Method, measured: KeepRatios, routed_layers: Sequence[int]) -> str | None:
    """One line where a phase's mean keep ratio over the routed layers is off the target that was asked for."""
    target = method.target_keep_ratio()
    if target is None or not routed_layers:
        return None
    allowed = max(KEEP_RATIO_RELATIVE * target, KEEP_RATIO_ABSOLUTE)
    for phase, ratios in (("prefill", measured.prefill), ("decode", measured.decode)):
        mean = sum(ratios[layer] for layer in routed_layers) / len(routed_layers)
        if abs(mean - target) > allowed:
            return (
                f"keep ratio at {phase}: got {mean:.4f}; expected {target:.4f} within {allowed:.4f}: "
                "choose new_tokens so that the share is a whole number of tokens, or a larger context"
            )
    return None


def _input_flags(tokens: PromptTokens, method: Method, point: PointWork) -> list[str]:
    flags = [WRAPPED_PROMPT] if tokens.is_wrapped else []
    if method.target_keep_ratio() is not None:
        flags.append(RANDOM_ROUTER if point.model["weights"] == "random" else CALIBRATED_ROUTER)
    elif CHECKPOINT in point.settings and point.settings.get("routed_layers"):
        flags.append(CHECKPOINT_ROUTER)
    return flags
