"""The parts of `report.json` under their stable names: what is printed, and its JSON Schema (`modbench schema --report`).

In: values of a summary. Out: frozen parts that JSON can hold. Base units; null is unknown, never 0 or NaN; every key is there.
`schema_version` is raised when a name goes or means something else. Names may be added without that: pass over unknown ones.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from modbench.analysis.verdict import Verdict
from modbench.record import GuardResult
from modbench.scenario import METRICS

SCHEMA_VERSION: Literal[1] = 1


def _text(value: Any) -> Any:
    """As text of whole characters: no half of a surrogate pair, which UTF-8 cannot hold."""
    return None if value is None else str(value).encode(errors="replace").decode()


def _plain(value: Any) -> Any:
    """As JSON can hold it; a number that is none is unknown."""
    if isinstance(value, Mapping):
        return {_text(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, bool | int | float) else _text(value)


Text = Annotated[str, BeforeValidator(_text)]
Number = Annotated[int | float | None, BeforeValidator(_plain)]
Facts = Annotated[dict[str, Any], BeforeValidator(_plain)]
METRICS_SCHEMA: dict[str, Any] = {
    "properties": {
        name: {"type": ["number", "null"], "description": f"{metric.unit}: {metric.description}"}
        for name, metric in METRICS.items()
    },
    "required": list(METRICS),
}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class LatencyPart(_Part):
    """Of the launches' 25th percentiles."""

    median_s: Number
    low_s: Number
    high_s: Number
    num_launches: int


class SpeedupPart(_Part):
    """Baseline time / method time over pairs of launches."""

    value: Number
    interval: tuple[Number, Number] | None = Field(description="exact, from 8 pairs on")
    num_pairs: int
    verdict: Verdict | None = Field(description="null: too few pairs, or the method is wrong")
    reason: Text = Field(description="why the verdict is undecided or inconclusive, else empty")
    pairs_needed: int | None = Field(description="that would decide; null: decided, or none would")


class PercentilePart(_Part):
    """Of all gaps between tokens; `value_s` is null where there are too few, and `reason` says so."""

    percent: int
    value_s: Number
    reason: Text | None


class IdentityPart(_Part):
    """An identity of the same-work guard: the worst result of all launches, and why the method declares not to hold it."""

    name: Text
    result: GuardResult
    reason: Text | None


class LayerPart(_Part):
    """Share of tokens kept at a routed layer."""

    layer: int
    prefill: Number
    decode: Number


class PositionPart(_Part):
    """Held-out bits per byte at some positions of sequences."""

    first_position: int
    last_position: int
    bits_per_byte: Number


class QualityPart(_Part):
    """One evaluation of the method's model; its numbers are among the metrics."""

    status: Text = Field(description="ok, failed or not_evaluated")
    reason: Text = Field(description="why there are no numbers, else empty")
    num_rows: int
    num_bytes: int
    context: int
    standard_errors: dict[str, Number] = Field(description="over rows, by metric")
    bits_per_byte_difference: Number = Field(description="method less dense, on the same rows")
    bits_per_byte_difference_standard_error: Number
    by_position: list[PositionPart]


class MethodPart(_Part):
    """One method at one point. One that `is_wrong` does not do the work it is compared on: its numbers count for nothing."""

    method: Text
    kind: Text
    point_id: Text
    settings: Facts
    is_baseline: bool
    is_wrong: bool
    failed_identities: list[Text] = Field(description="its own, and those of the baseline as `baseline: NAME`")
    guard: list[IdentityPart]
    num_launches: int = Field(description="that gave numbers")
    num_launches_by_status: dict[str, int]
    metrics: dict[str, Number] = Field(json_schema_extra=METRICS_SCHEMA)
    latencies: dict[str, LatencyPart] = Field(description="ttft_s, tpot_s, end_to_end_s, as far as measured")
    speedups: dict[str, SpeedupPart] = Field(description="prefill_speedup, decode_speedup, end_to_end_speedup")
    no_verdict: Text = Field(description="why there is no verdict, whatever the numbers, else empty")
    itl_percentiles: list[PercentilePart]
    peak_memory_metric: Text | None = Field(description="which of the metrics peak_memory_reduction is about")
    router: Text | None = Field(description="how its routers came to their keep ratio, where not by training")
    keep_ratios: list[LayerPart]
    quality: QualityPart | None = Field(description="null where the run asked for none")


class CellPart(_Part):
    """One point of the matrix, the baseline first among its methods."""

    cell_id: Text
    axes: Facts
    model: Facts
    workload: Facts
    device_kind: Text
    attention: Text
    threads: int
    dtype: Text
    methods: list[MethodPart]


class LimitPart(_Part):
    """The largest size of a method that fits, and the smallest that does not; `ratio` is limit / the baseline's limit."""

    method: Text
    value: int | None
    first_failing: int | None
    is_at_bound: bool = Field(description="the largest size that can be tried fits")
    ratio: Number
    ratio_bounds: tuple[Number, Number]
    num_trials: int
    num_invalid: int
    status: Text | None = Field(description="of the launch that ended the search, as phase and error")
    phase: Text | None
    error: Text | None


class SearchPart(_Part):
    """A search along `axis`; `cell` has what was measured at the limits, each method at its own."""

    axis: Text
    memory_limit_bytes: Number
    has_one_budget: bool
    is_complete: bool
    limits: list[LimitPart]
    cell: CellPart


class FailurePart(_Part):
    """Launches that gave no numbers, for one reason."""

    cell_id: Text
    method: Text
    status: Text
    phase: Text
    error: Text | None
    last_memory_bytes: Number
    num_launches: int


class DoubtPart(_Part):
    """What it concerns: methods (none: all) and cells (none: all with numbers)."""

    text: Text
    methods: list[Text]
    cell_ids: list[Text]


class ExpectationPart(_Part):
    """`is_met` is null where nothing was checked, `cell_id` where no cell matched."""

    text: Text
    cell_id: Text | None
    is_met: bool | None
    measured: Number
    reason: Text


class PhasePart(_Part):
    """Where the time of a traced prefill, or mean decode step, went."""

    cell_id: Text
    method: Text
    phase: Text
    is_device: bool = Field(description="time of the device, not of the host")
    total_s: Number
    seconds: dict[str, Number] = Field(description="per range")
    own_cost_ratio: Number
    slowdown_ratio: Number = Field(description="traced / untraced time")


class FailedTracePart(_Part):
    """A traced launch that gave no breakdown."""

    cell_id: Text
    method: Text
    error: Text


class BreakdownPart(_Part):
    """All traced launches."""

    phases: list[PhasePart]
    failures: list[FailedTracePart]


class Report(_Part):
    """Everything a report says of a run."""

    schema_version: Literal[1]
    scenario: Text
    question: Text
    answers: list[Text] = Field(description="sentences, the main method's first")
    command: Text = Field(description="what reproduces the run")
    run_ids: list[Text]
    num_records: int
    tolerance_ratio: Number = Field(description="what was asked to count as the same speed")
    margin_ratios: dict[str, Number] = Field(
        description="δ of verdicts per latency, this machine's noise floor included"
    )
    cells: list[CellPart]
    searches: list[SearchPart]
    failures: list[FailurePart]
    doubts: list[DoubtPart]
    expectations: list[ExpectationPart]
    breakdowns: BreakdownPart | None = Field(description="null where nothing was traced")
    environment: Facts = Field(description="of the first launch")
    varying_environment: list[Text] = Field(description="its dotted keys that differ in later launches")


def report_json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `report.json`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Report.model_json_schema(mode="serialization")}
