"""One launch: build, calibrate, warm up, sample. In: a launch job. Out: its record.

Nothing but the subject runs inside the clocks; memory peaks are reset between phases; keep ratios are those of the last timed
sample. The record is `invalid` where a calibrated keep ratio missed its target.

Shapes: B batch, T tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from modbench.job import Job
from modbench.methods import METHODS, Method, Subject
from modbench.profiling import process_memory, torch_memory
from modbench.profiling.contamination import ContaminationMeter
from modbench.profiling.timing import Sample, take_sample, warm_up
from modbench.record import CALIBRATED_ROUTER, RANDOM_ROUTER, KeepRatios, Record, Samples
from modbench.scenario import KEEP_RATIO_ABSOLUTE, KEEP_RATIO_RELATIVE
from modbench.tokens import PromptTokens, prompt_tokens
from reference_impl import Decision

OnPhase = Callable[[str], None]


@dataclass
class PhasePeaks:
    """Highest memory per phase over all samples, in bytes; `enter` ends one phase and starts the next."""

    device: torch.device
    peaks: dict[str, int] = field(default_factory=dict)
    is_per_phase: bool = False
    _phase: str = ""

    def enter(self, phase: str) -> None:
        """Close the current phase ('' closes the last one) and reset the counters."""
        if self._phase:
            if self.is_per_phase:
                self._note(f"peak_{self._phase}_rss_bytes", process_memory.peak_rss_bytes())
            self._note("peak_rss_bytes", process_memory.peak_rss_bytes())
            self._note("peak_device_used_bytes", torch_memory.device_used_bytes(self.device))
            for name, value in torch_memory.allocator_peaks(self.device).items():
                self._note(name, value)
                self._note(name.replace("peak_", f"peak_{self._phase}_"), value)
        self._phase = phase
        self.is_per_phase = process_memory.reset_peak()
        torch_memory.reset_peak(self.device)

    def _note(self, name: str, value: int | None) -> None:
        if value is not None:
            self.peaks[name] = max(value, self.peaks.get(name, 0))


@dataclass
class Measurement:
    """What the samples of a launch gave."""

    samples: list[Sample]
    decisions: list[dict[int, Decision]]
    metrics: dict[str, float | int | None]
    flags: list[str]


def run_launch(job: Job, on_phase: OnPhase) -> Record:
    """Measure one launch; `on_phase` hears build, calibrate, warmup, prefill, decode, done."""
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
    on_phase("done")
    keep_ratio = KeepRatios()
    if measured.decisions or method.keeps_all_unless_told:
        keep_ratio = keep_ratios(measured.decisions, point.geometry.num_hidden_layers, method.removed_layers())
    missed = _missed_target(method, keep_ratio, point.settings.get("routed_layers", ()))
    return Record(
        launch_id=spec.launch_id,
        run_id=spec.run_id,
        point_id=spec.point_id,
        method=spec.method,
        kind=spec.kind,
        status="invalid" if missed else "ok",
        phase="done",
        point=point,
        pair=spec.pair,
        samples=Samples(
            ttft_s=[sample.ttft_s for sample in measured.samples],
            tpot_s=[sample.tpot_s for sample in measured.samples],
            itl_s=[gap for sample in measured.samples for gap in sample.itl_s],
        ),
        metrics={**measured.metrics, "built_rss_bytes": built_rss_bytes},
        keep_ratio=keep_ratio,
        guard=job.guard,
        flags=[*_input_flags(tokens, method, point.model), *measured.flags],
        environment={
            **job.environment,
            "tokens_sha256": tokens.sha256,
            "device": job.device,
            "attention_path": getattr(subject, "attention_path", None),
        },
        error=missed,
    )


def _measure(job: Job, subject: Subject, ids_BT: Tensor, device: torch.device, on_phase: OnPhase) -> Measurement:
    assert job.spec is not None, "a launch job has a run spec"
    context = job.spec.point.workload["context"]
    prompt_BT, continuation_BT = ids_BT[:, :context], ids_BT[:, context:]
    on_phase("warmup")
    num_warmups, is_stationary = warm_up(
        lambda: take_sample(subject, prompt_BT, continuation_BT, lambda phase: None)[0].end_to_end_s,
        job.spec.measure["warmup"],
    )
    peaks = PhasePeaks(device)

    def on_sample_phase(phase: str) -> None:
        peaks.enter(phase)
        on_phase(phase)

    samples, metrics = [], {}
    meter = ContaminationMeter()
    for _ in range(job.spec.measure["samples"]):
        subject.take_decisions()
        sample, state = take_sample(subject, prompt_BT, continuation_BT, on_sample_phase)
        peaks.enter("")
        samples.append(sample)
        occupied, allocated = subject.kv_cache_bytes(state)
        metrics = {"kv_cache_bytes": occupied, "kv_cache_allocated_bytes": allocated}
        del state
    contamination = meter.stop()
    return Measurement(
        samples,
        subject.take_decisions(),
        {
            **metrics,
            **peaks.peaks,
            "num_warmups": num_warmups,
            "involuntary_switches_per_s": contamination.involuntary_switches_per_s,
            "wall_cpu_ratio": contamination.wall_cpu_ratio,
        },
        [
            *contamination.flags(is_cpu_bound=device.type == "cpu"),
            *(
                []
                if peaks.is_per_phase
                else ["peak RSS is since the start of the process: this kernel does not reset it"]
            ),
            *(["warm-up ended before the samples were stationary"] if is_stationary is False else []),
        ],
    )


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


def _input_flags(tokens: PromptTokens, method: Method, model: dict[str, Any]) -> list[str]:
    flags = ["prompt text too short: a row goes on from its beginning"] if tokens.is_wrapped else []
    if method.target_keep_ratio() is not None:
        flags.append(RANDOM_ROUTER if model["weights"] == "random" else CALIBRATED_ROUTER)
    return flags
