"""The nouns of a summary: cells, a row per method, latencies, speed-ups, doubts, failures. Frozen, in base units."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modbench.analysis.pairs import LatencyMetric
from modbench.analysis.statistics import Percentile
from modbench.analysis.verdict import Judgement
from modbench.scenario import METRICS

NO_GUARD = "guard did not run"  # stands among failed identities where an `ok` launch has no guard outcome
FROM_BASELINE = "baseline: "  # begins the failed identities that a row has from its cell's baseline
SPEEDUP_METRICS: dict[str, LatencyMetric] = {
    "prefill_speedup": "ttft_s",
    "decode_speedup": "tpot_s",
    "end_to_end_speedup": "end_to_end_s",
}


@dataclass(frozen=True)
class Spread:
    """Values of several launches: their median, smallest and largest, in seconds; from 8 on its exact interval."""

    median: float
    low: float
    high: float
    num_launches: int
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Speedup:
    """Baseline time / method time: exp(-median of the ln ratios) of all pairs.

    The exact interval exists from 8 pairs on and rests on the pairs of the look, as the judgement does. `judgement` is
    None for end-to-end, which is derived from the two phases and takes no part in the family of verdicts, and where
    launches have too few samples.
    """

    value: float
    interval: tuple[float, float] | None
    num_pairs: int
    judgement: Judgement | None = None


@dataclass(frozen=True)
class LossDifference:
    """Held-out bits per byte of a method less the baseline's on the same rows; the error is that of pairs, None for one row."""

    bits_per_byte: float
    standard_error: float | None


@dataclass(frozen=True)
class Quality:
    """One evaluation of the model that a row runs; its numbers are among the row's values.

    `reason` says why there are none, with the `status` failed or not_evaluated. `standard_errors` are over rows, by metric.
    `by_position` has (first position, last position, bits per byte or None) of buckets of positions in a sequence.
    """

    work_id: str
    status: str
    reason: str = ""
    num_rows: int = 0
    num_bytes: int = 0
    context: int = 0
    standard_errors: Mapping[str, float] = field(default_factory=dict)
    difference: LossDifference | None = None
    by_position: tuple[tuple[int, int, float | None], ...] = ()

    @property
    def facts(self) -> tuple[int, int, int]:
        """The text in numbers: rows, tokens of the longest row, bytes."""
        return self.num_rows, self.context, self.num_bytes


@dataclass(frozen=True)
class MethodRow:
    """One method at one cell.

    `values` has every name of the scenario's `METRICS`, None where unknown. A row `is_wrong` if an identity of the
    same-work guard failed, for it or for the baseline it is compared with: its numbers are computed, and count for
    nothing. `keep_ratios` has, per phase, the mean over launches at each routed layer.
    """

    method: str
    kind: str
    point_id: str
    settings: Mapping[str, Any]
    is_baseline: bool
    status_counts: Mapping[str, int]
    num_launches: int
    latencies: Mapping[LatencyMetric, Spread]
    speedups: Mapping[str, Speedup]
    itl_percentiles: Mapping[int, Percentile]
    values: Mapping[str, float | None]
    peak_memory_metric: str | None
    guard: Mapping[str, str]
    declared: Mapping[str, str]  # identity -> why the method does not hold it
    failed_identities: tuple[str, ...] = ()
    router: str | None = None  # how its routers came to their keep ratio, where they were not trained
    keep_ratios: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    no_verdict: str = ""  # why there is no verdict against the baseline, whatever the numbers
    quality: Quality | None = None  # None where the run asked for none

    @property
    def is_wrong(self) -> bool:
        """True if the method does not do the work it is compared on."""
        return bool(self.failed_identities)

    @property
    def has_failed(self) -> bool:
        """True if no launch was `ok`: there are no numbers."""
        return self.num_launches == 0

    @property
    def peak_memory_bytes(self) -> float | None:
        """The value of `peak_memory_metric`."""
        return self.values[self.peak_memory_metric] if self.peak_memory_metric else None


@dataclass(frozen=True)
class CellSummary:
    """One cell of the matrix: the axes that name it, what was run there, and a row per method, the baseline first."""

    cell_id: str
    axes: Mapping[str, Any]
    model: Mapping[str, Any]
    workload: Mapping[str, Any]
    device_kind: str
    attention: str
    threads: int
    dtype: str
    rows: tuple[MethodRow, ...]


@dataclass(frozen=True)
class MethodLimit:
    """The largest size of one method that fits, and the smallest that does not; None where not known.

    Neither is known where a launch `failed` for a reason that has nothing to do with sizes and ended the search. `status`,
    `phase` and `error` are those of that launch, or of the first that did not fit. `ratio` is limit / the
    baseline's limit, and lies within `ratio_bounds`: (limit / baseline's first failing, first failing / baseline's limit).
    Both are None where the baseline has no limit of its own; an end is None where it is open.
    """

    method: str
    value: int | None
    first_failing: int | None
    is_at_bound: bool  # the largest size that can be tried fits
    num_trials: int
    num_invalid: int = 0  # trials whose keep ratio was off its target
    status: str | None = None
    phase: str | None = None
    error: str | None = None
    ratio: float | None = None
    ratio_bounds: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True)
class LimitCell:
    """One search of every method: `axis` is the dotted key that was searched, `memory_limit_bytes` what had to hold it.

    `cell` has the rows of the launches at the limits, so of methods that have one; each is at its own size, and none is
    compared with another.
    """

    axis: str
    cell: CellSummary
    limits: tuple[MethodLimit, ...]
    memory_limit_bytes: float | None = None
    has_one_budget: bool = True  # False: its launches had different limits

    @property
    def name(self) -> str:
        """The searched size in a word: context or batch."""
        return self.axis.rpartition(".")[2]

    @property
    def is_complete(self) -> bool:
        """True if every method has a limit and numbers there."""
        measured = {row.method for row in self.cell.rows if row.num_launches == sum(row.status_counts.values())}
        return all(limit.value is not None and limit.method in measured for limit in self.limits)

    def row(self, method: str) -> MethodRow | None:
        """What was measured at the method's limit."""
        return next((row for row in self.cell.rows if row.method == method), None)


@dataclass(frozen=True)
class Footnote:
    """A doubt about numbers, and what it concerns: methods (none: all) and cells by id (none: all with numbers)."""

    text: str
    methods: tuple[str, ...] = ()
    cell_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Launches of one method at one cell that gave no numbers, for one reason."""

    cell_id: str
    method: str
    status: str
    phase: str
    error: str | None
    last_memory_bytes: float | None
    count: int


@dataclass(frozen=True)
class Summary:
    """Everything a report prints.

    `tolerance` and `margins` are shares: what was asked for, and δ per latency metric, with the machine's noise floor.
    `environment` is the first record's; `varying_environment` names its dotted keys that differ in a later record.
    """

    cells: tuple[CellSummary, ...]
    failures: tuple[Failure, ...]
    footnotes: tuple[Footnote, ...]
    environment: Mapping[str, Any]
    varying_environment: tuple[str, ...]
    num_records: int
    tolerance: float
    margins: Mapping[str, float] = field(default_factory=dict)
    run_ids: tuple[str, ...] = field(default_factory=tuple)
    limits: tuple[LimitCell, ...] = ()

    @property
    def all_cells(self) -> tuple[CellSummary, ...]:
        """The cells that were measured, and those of searches."""
        return (*self.cells, *(limit.cell for limit in self.limits))

    def cell(self, cell_id: str) -> CellSummary:
        """The cell of that id.

        Raises:
            KeyError: there is none.
        """
        return {cell.cell_id: cell for cell in self.all_cells}[cell_id]


def metric_value(row: MethodRow, name: str) -> float | None:
    """The row's value of an expectation's metric, in base units; None where unknown.

    Raises:
        KeyError: the name is not in the scenario's `METRICS`.
    """
    assert set(row.values) == set(METRICS), "a row has a value, or None, for every metric"
    return row.values[name]


def failure_text(identity: str) -> str:
    """A failed identity in words: `identity causal failed`, `baseline: guard did not run`."""
    if identity.startswith(FROM_BASELINE):
        return FROM_BASELINE + failure_text(identity.removeprefix(FROM_BASELINE))
    return identity if identity == NO_GUARD else f"identity {identity} failed"
