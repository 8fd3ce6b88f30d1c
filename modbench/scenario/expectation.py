"""Expectations: `METHOD.METRIC OP NUMBER [@ AXIS OP VALUE [and AXIS OP VALUE ...]]`, and the metrics they may name.

In: the texts under `expect`. Out: `Expectation`s, whose conditions and `is_met` the analysis asks.
"""

import math
import operator as operators
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modbench.errors import ScenarioError
from modbench.scenario.keys import unknown_key, value_at
from modbench.scenario.models import Point
from modbench.scenario.quality_settings import HELD_OUT
from modbench.scenario.wording import show, suggestion

GRAMMAR = (
    "METHOD.METRIC OP NUMBER [@ AXIS OP VALUE [and ...]], "
    'such as "threshold.prefill_speedup >= 1.5 @ workload.context >= 32768"'
)
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operators.ge,
    "<=": operators.le,
    "==": operators.eq,
    ">": operators.gt,
    "<": operators.lt,
}
_OPERATOR = r"(>=|<=|==|>|<)"
_CLAIM = re.compile(rf"\s*([\w-]+)\.(\w+)\s*{_OPERATOR}\s*(\S+)\s*", re.ASCII)
# What records carry as it was written.
_SECTIONS = ("model", "methods", "workload", "measure")
_MEASURE_AXES = ("measure.device", "measure.attention", "measure.threads")
_CONDITION = re.compile(rf"\s*([\w-]+(?:\.[\w-]+)*)\s*{_OPERATOR}\s*(\S(?:.*\S)?)\s*", re.ASCII)
_NUMBER = re.compile(r"[-+]?(\d+(_\d+)*(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Metric:
    """A number that a method has at a point. A `*_speedup` or `*_reduction` is dense divided by method.

    `searched_axis` is the axis whose search gives it, `probe` the probe under `quality` that does; None for what every measured
    point has.
    """

    unit: str
    description: str
    higher_is_better: bool
    searched_axis: str | None = None
    probe: str | None = None


def _evaluated(unit: str, description: str, higher_is_better: bool, probe: str = HELD_OUT) -> Metric:
    return Metric(unit, description, higher_is_better, probe=probe)


METRICS: dict[str, Metric] = {
    "prefill_speedup": Metric("ratio", "dense TTFT / method TTFT", True),
    "decode_speedup": Metric("ratio", "dense TPOT / method TPOT", True),
    "end_to_end_speedup": Metric("ratio", "dense / method time from request to last token", True),
    "prefill_ideal_speedup": Metric("ratio", "predicted prefill speed-up at the measured keep ratios", True),
    "decode_ideal_speedup": Metric("ratio", "predicted decode speed-up at the measured keep ratios", True),
    "prefill_share_of_ideal": Metric("ratio", "measured / ideal prefill speed-up", True),
    "decode_share_of_ideal": Metric("ratio", "measured / ideal decode speed-up", True),
    "prefill_saving_realised": Metric("ratio", "share of the possible prefill time saving that was measured", True),
    "decode_saving_realised": Metric("ratio", "share of the possible decode time saving that was measured", True),
    "kv_cache_reduction": Metric("ratio", "dense / method KV-cache bytes", True),
    "peak_memory_reduction": Metric("ratio", "dense / method peak memory, of the same kind of peak", True),
    "keep_ratio_prefill": Metric("ratio", "kept / all prompt tokens, mean over routed layers", False),
    "keep_ratio_decode": Metric("ratio", "kept / all decoded tokens, mean over routed layers", False),
    "keep_ratio_decode_any": Metric(
        "ratio", "decode steps that keep a token of any row, mean over routed layers", False
    ),
    "ttft_s": Metric("s", "request submitted to first token on the host", False),
    "tpot_s": Metric("s", "(end to end - TTFT) / (output tokens - 1)", False),
    "ttft_device_s": Metric("s", "prefill between CUDA events, the device's idle gaps included", False),
    "tpot_device_s": Metric("s", "decode between CUDA events / decode steps, idle gaps included", False),
    "prefill_tokens_per_s": Metric("tokens/s", "prompt tokens of all rows / TTFT", True),
    "decode_tokens_per_s": Metric("tokens/s", "decoded tokens of all rows per second", True),
    "kv_cache_bytes": Metric("bytes", "what the kept tokens' keys and values occupy", False),
    "kv_cache_allocated_bytes": Metric("bytes", "KV cache with padding and growth slack", False),
    "kv_cache_slack_ratio": Metric("ratio", "allocated / occupied KV-cache bytes - 1", False),
    "kv_cache_formula_ratio": Metric("ratio", "KV-cache bytes / bytes expected from the kept tokens", False),
    "kv_cache_expected_bytes": Metric("bytes", "formula: what the stored tokens' keys and values need", False),
    "kv_cache_allocator_bytes": Metric("bytes", "what the cache holds as the allocator sees it", False),
    "weights_bytes": Metric("bytes", "parameters and buffers of the model", False),
    "peak_live_bytes": Metric("bytes", "CPU: most bytes of tensors alive at once beside the weights", False),
    "peak_tensor_bytes": Metric("bytes", "CPU: weights and peak_live_bytes", False),
    "peak_rss_bytes": Metric("bytes", "peak resident memory of the launch", False),
    "peak_allocated_bytes": Metric("bytes", "CUDA: peak of live tensors, weights included", False),
    "peak_reserved_bytes": Metric("bytes", "CUDA: peak of what torch's allocator holds", False),
    "fragmentation_bytes": Metric("bytes", "CUDA: peak reserved - peak allocated", False),
    "peak_device_used_bytes": Metric("bytes", "peak of device memory in use by all processes, sampled by NVML", False),
    "peak_process_device_bytes": Metric("bytes", "peak of the launch's device memory, sampled by NVML", False),
    "energy_j": Metric("J", "energy of a prefill and its decode, from NVML's counter over all samples", False),
    "energy_above_idle_j": Metric("J", "the same without what the idle device takes", False),
    "mean_power_w": Metric("W", "energy of the timed samples / their duration", False),
    "perplexity": Metric(
        "perplexity",
        "exp(mean negative log-likelihood per token) of the workload's text, where a launch carries it",
        False,
    ),
    "bits_per_byte": _evaluated("bits", "-log2 of held-out tokens' probabilities / their bytes", False),
    "bits_per_byte_ratio": _evaluated("ratio", "method / dense held-out bits per byte; above 1 is worse", False),
    "next_token_accuracy": _evaluated("ratio", "held-out tokens that were the likeliest ones", True),
    "held_out_keep_ratio": _evaluated("ratio", "kept / all held-out tokens, mean over routed layers", False),
    "held_out_kv_reduction": _evaluated("ratio", "dense / method KV-cache bytes per held-out token", True),
    "needle_accuracy": _evaluated("ratio", "keys given back, over all contexts and depths", True, "needle"),
    "induction_accuracy": _evaluated(
        "ratio", "tokens of a second copy that were the likeliest ones, mean over lengths", True, "induction"
    ),
    "kl_bits_per_token": _evaluated("bits", "KL(teacher || method) per held-out token", False, "agreement"),
    "top1_agreement_ratio": _evaluated(
        "ratio", "held-out tokens where teacher and method find the same one likeliest", True, "agreement"
    ),
    "context_limit": Metric("tokens", "longest context that fits", True, "workload.context"),
    "context_limit_ratio": Metric("ratio", "method / dense longest context", True, "workload.context"),
    "batch_limit": Metric("rows", "largest batch that fits", True, "workload.batch"),
    "batch_limit_ratio": Metric("ratio", "method / dense largest batch", True, "workload.batch"),
}


@dataclass(frozen=True)
class Condition:
    """`AXIS OP VALUE`: where an expectation applies."""

    axis: str
    operator: str
    value: float | str

    def __str__(self) -> str:
        is_whole = isinstance(self.value, float) and self.value.is_integer()
        return f"{self.axis} {self.operator} {int(self.value) if is_whole else self.value}"

    def holds(self, found: Any) -> bool:
        """Return whether the axis's value at a point fulfils the condition; a value that is not set never does."""
        if isinstance(self.value, float):
            is_number = isinstance(found, int | float) and not isinstance(found, bool)
            return is_number and OPERATORS[self.operator](found, self.value)
        shown = str(found).lower() if isinstance(found, bool) else found
        return shown == self.value


@dataclass(frozen=True)
class Expectation:
    """One expectation, parsed; `text` is as written."""

    text: str
    method: str
    metric: str
    operator: str
    value: float
    conditions: tuple[Condition, ...] = ()

    def is_met(self, measured: float) -> bool:
        """Return whether a measured value, in the metric's unit, fulfils the expectation."""
        return OPERATORS[self.operator](measured, self.value)


def parse_expectation(text: str, kinds: Mapping[str, str]) -> Expectation:
    """Parse one expectation and check its names; `kinds` has the scenario's methods by label.

    Raises:
        ScenarioError: without a location: not the grammar, or an unknown method, metric or axis.
    """
    claim, at, conditions = text.partition("@")
    match = _CLAIM.fullmatch(claim)
    value = _number(match[4]) if match else None
    if match is None or value is None:
        raise ScenarioError(f"got {show(text)}; expected {GRAMMAR}")
    method, metric = match[1], match[2]
    if method not in kinds:
        raise ScenarioError(f"got {show(text)}: unknown method {show(method)}; {suggestion(method, list(kinds))}")
    if metric not in METRICS:
        raise ScenarioError(f"got {show(text)}: unknown metric {show(metric)}; {suggestion(metric, list(METRICS))}")
    parsed = tuple(_parse_condition(part, text, kinds) for part in re.split(r"\sand\s", conditions)) if at else ()
    return Expectation(text, method, metric, match[3], value, parsed)


def _parse_condition(part: str, text: str, kinds: Mapping[str, str]) -> Condition:
    match = _CONDITION.fullmatch(part)
    if match is None:
        raise ScenarioError(f"got {show(text)}: cannot read {show(part.strip())} after '@'; expected {GRAMMAR}")
    axis, operator = match[1], match[2]
    reason = unknown_key(axis.split("."), kinds) or _not_recorded(axis.split("."))
    if reason:
        raise ScenarioError(f"got {show(text)}: axis {show(axis)}: {reason}")
    number = _number(match[3])
    if number is None and operator != "==":
        raise ScenarioError(
            f"got {show(text)}: cannot compare {show(match[3])} with {operator}; expected a number, or =="
        )
    return Condition(axis, operator, match[3].strip("\"'") if number is None else number)


def _not_recorded(parts: Sequence[str]) -> str | None:
    """Say why no condition can be put on a key that exists: records don't carry it as it was written."""
    axis = ".".join(parts)
    if parts[0] not in _SECTIONS:
        return f"is no part of the work; expected a key under {', '.join(_SECTIONS)}"
    if parts[0] == "measure" and axis not in _MEASURE_AXES:
        return f"says how to measure, not what; expected one of {', '.join(_MEASURE_AXES)}, or another key"
    if parts[:2] == ["workload", "prompt"] or (parts[0] == "methods" and parts[2:] == ["routed_layers"]):
        return "is not recorded as it is written; expected another key; use one scenario per value"
    return None


def unmatched_condition(conditions: Sequence[Condition], points: Sequence[Point]) -> str | None:
    """Name the conditions that hold at none of the points, by the values that records will carry; None if all is well.

    One that never holds is named alone, otherwise all of them: no cell has them together.
    """
    holds = [[_can_hold(condition, point) for condition in conditions] for point in points]
    if any(all(row) for row in holds):
        return None
    never = [str(condition) for index, condition in enumerate(conditions) if not any(row[index] for row in holds)]
    return never[0] if never else " and ".join(str(condition) for condition in conditions)


def _can_hold(condition: Condition, point: Point) -> bool:
    if condition.axis in point.axes:
        return condition.holds(point.axes[condition.axis])
    if condition.axis == "measure.device":  # records have the kind of device, which `auto` leaves open
        kind = point.measure.device.partition(":")[0]
        return any(condition.holds(device) for device in (("cpu", "cuda") if kind == "auto" else (kind,)))
    recorded = {
        "model": {
            **point.model.model_dump(),
            "weights": "random" if point.model.has_random_weights else "checkpoint",
            "geometry": point.geometry,
            "path": None,  # recorded from the folder that modbench was started in
        },
        "methods": {label: {**point.settings_in_force(label), "checkpoint": None} for label in point.methods},
        "workload": point.workload,
        "measure": point.measure,
    }
    return condition.holds(value_at(recorded, condition.axis))


def _number(text: str) -> float | None:
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None
