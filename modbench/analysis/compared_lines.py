"""One method at one cell on both sides -> its lines, latencies still without a verdict, since that needs all lines of the command.

In: a `Match`. Out: `Line`s. What the two sides cannot be compared on has its verdict, NOT_COMPARABLE or FAILED, already.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from modbench.analysis.comparison import Comparison, Ground
from modbench.analysis.exact import EXACT_METRICS, exact_results, recorded_metrics
from modbench.analysis.matching import Launches, Match
from modbench.analysis.pairs import FAMILY_METRICS, LatencyMetric, has_few_samples, launch_latency, pair_values_in
from modbench.analysis.rank_statistics import MAX_VALUES, RankShift
from modbench.analysis.same_work import no_launch_text, why_other_baseline, why_other_work
from modbench.analysis.shift_verdicts import TwoSamples
from modbench.analysis.side_pairs import session_of, side_by_side_comparisons
from modbench.analysis.sides import has_one_machine, has_one_version, match_doubts
from modbench.analysis.statistics import MIN_SAMPLES, log_ratios, median
from modbench.analysis.verdict import Verdict, pairs_at_look
from modbench.scenario import BASELINE

FEW_SAMPLES = f"fewer than {MIN_SAMPLES} samples per launch: no verdict"


@dataclass(frozen=True)
class Pairs:
    """The ln ratios of pairs of the two sides, and δ as a share."""

    differences: Sequence[float]
    delta: float


@dataclass(frozen=True)
class Line:
    """A line; where it has evidence, that is judged in the family of all lines."""

    comparison: Comparison
    evidence: Pairs | TwoSamples | None = None


def compared_lines(match: Match, deltas: Mapping[str, float], metrics: Sequence[str]) -> list[Line]:
    """The lines of one match, latencies first; none where no launch is `ok` on either side.

    Args:
        match: launches of one method at one cell.
        deltas: δ per latency metric, as a share.
        metrics: what is compared.
    """
    if not match.base.ok and not match.candidate.ok:
        return []
    latencies = [metric for metric in FAMILY_METRICS if metric in metrics]
    counted = [metric for metric in EXACT_METRICS if metric in metrics]
    line = _empty(match)
    verdict, reason = _refusal(match)
    if reason:
        known = recorded_metrics(match.base) | recorded_metrics(match.candidate)
        refused = replace(line, verdict=verdict, reason=reason)
        lines = [replace(refused, metric=metric, ground=_ground(match)) for metric in latencies]
        lines += [replace(refused, metric=metric) for metric in counted if metric in known]
        return [Line(found) for found in lines]
    line = replace(line, doubts=match_doubts(match))
    return [*_latency_lines(match, line, latencies, deltas), *_exact_lines(match, line, counted)]


def match_notes(match: Match, metrics: Sequence[str]) -> list[str]:
    """What of a match has no line, or none with a verdict."""
    if not match.base.ok and not match.candidate.ok:
        return ["no ok launch on either side, not judged"]
    if _refusal(match)[1]:
        return []
    notes = []
    ground = _ground(match)
    if ground == "ratio_to_dense" and not match.base.cell.baseline.ok and not match.candidate.cell.baseline.ok:
        notes.append("no ratio to dense: it has no ok launch on either side")
    if ground != "pairs" and set(FAMILY_METRICS) & set(metrics) and not _has_one_machine(match):
        notes.append("absolute times are not shown: the machines differ, or are not known")
    one_sided = recorded_metrics(match.base) ^ recorded_metrics(match.candidate)
    names = [name for name in EXACT_METRICS if name in one_sided and name in metrics]
    return notes + ([f"recorded on one side only, not judged: {', '.join(names)}"] if names else [])


def _empty(match: Match) -> Comparison:
    first = match.candidate.first
    return Comparison(
        cell_id=first.point.cell_id,
        axes=match.candidate.axes,
        method=first.method,
        metric="",
        ground="exact",
        verdict=None,
        scenario=match.base.scenario_name,
    )


def _refusal(match: Match) -> tuple[Verdict, str]:
    """Why nothing of the two can be compared; an empty reason where something can."""
    fields = match.differing_work
    if not match.candidate.ok and not fields:
        return Verdict.FAILED, f"no launch of the candidate is ok: {no_launch_text(match.candidate.records)}"
    if not match.base.ok and not fields:
        return Verdict.NOT_COMPARABLE, f"no launch of the base is ok: {no_launch_text(match.base.records)}"
    failed = match.candidate.failed
    if (
        failed and not match.base.failed and not fields
    ):  # what fails now and then would pass by the launches that do not
        count = f"{len(failed)} of {len(match.candidate.records)}"
        return Verdict.FAILED, f"{count} launches of the candidate failed, none of the base: {no_launch_text(failed)}"
    return Verdict.NOT_COMPARABLE, why_other_work(match)


def _ground(match: Match) -> Ground:
    if _is_side_by_side(match):
        return "pairs"
    return "advisory" if match.base.first.method == BASELINE else "ratio_to_dense"


def _is_side_by_side(match: Match) -> bool:
    sessions = [{session_of(record) for record in side.records} - {None} for side in (match.base, match.candidate)]
    return bool(sessions[0] & sessions[1])


def _has_one_machine(match: Match) -> bool:
    return has_one_machine(match.base.ok, match.candidate.ok)


def _latency_lines(
    match: Match, line: Comparison, metrics: Sequence[LatencyMetric], deltas: Mapping[str, float]
) -> Iterator[Line]:
    ground = _ground(match)
    if ground == "pairs":
        yield from _pair_lines(match, line, metrics, deltas)
        return
    if ground == "ratio_to_dense" and (match.base.cell.baseline.ok or match.candidate.cell.baseline.ok):
        yield from _ratio_lines(match, line, metrics, deltas)
    if _has_one_machine(match):
        for metric in metrics:
            values = _latencies(match.base, metric), _latencies(match.candidate, metric)
            if all(values):
                yield Line(_with_values(replace(line, ground="advisory"), metric, values))


def _pair_lines(
    match: Match, line: Comparison, metrics: Sequence[LatencyMetric], deltas: Mapping[str, float]
) -> Iterator[Line]:
    found = side_by_side_comparisons(match.base.records, match.candidate.records)
    for key, differences in found.items():
        values = _latencies(match.base, key.metric), _latencies(match.candidate, key.metric)
        if key.metric not in metrics or not any(values):
            continue
        judged = pairs_at_look(differences)
        paired = replace(
            _with_values(replace(line, ground="pairs"), key.metric, values),
            ratio=math.exp(median(judged)) if judged else None,
            num_values=(len(judged), len(judged)),
        )
        yield _judged_line(paired, Pairs(differences, deltas[key.metric]), match)


def _ratio_lines(
    match: Match, line: Comparison, metrics: Sequence[LatencyMetric], deltas: Mapping[str, float]
) -> Iterator[Line]:
    line = replace(line, ground="ratio_to_dense")
    reason = why_other_baseline(match)
    for metric in metrics:
        if reason:
            yield Line(replace(line, metric=metric, verdict=Verdict.NOT_COMPARABLE, reason=reason))
            continue
        found = [_ratios_to_dense(side, metric) for side in (match.base, match.candidate)]
        base, candidate = (ratios[:MAX_VALUES] for ratios in found)
        if not base and not candidate:
            continue
        shift = RankShift.of(base, candidate) if base and candidate else None
        cut = max(len(ratios) for ratios in found)
        doubts = (f"the first {MAX_VALUES} of {cut} pairs are compared",) if cut > MAX_VALUES else ()
        shifted = replace(
            line,
            metric=metric,
            base=math.exp(median(base)) if base else None,
            candidate=math.exp(median(candidate)) if candidate else None,
            ratio=math.exp(shift.estimate) if shift else None,
            num_values=(len(base), len(candidate)),
            doubts=(*line.doubts, *doubts),
        )
        yield _judged_line(shifted, TwoSamples(shift, deltas[metric]), match)


def _judged_line(line: Comparison, evidence: Pairs | TwoSamples, match: Match) -> Line:
    """With the evidence that is to be judged; launches of too few samples are none."""
    launches = [match.base.ok, match.candidate.ok]
    if line.ground == "ratio_to_dense":
        launches += [match.base.cell.baseline.ok, match.candidate.cell.baseline.ok]
    if any(has_few_samples(record) for side in launches for record in side):
        return Line(replace(line, verdict=Verdict.INCONCLUSIVE, reason=FEW_SAMPLES))
    return Line(line, evidence)


def _exact_lines(match: Match, line: Comparison, metrics: Sequence[str]) -> Iterator[Line]:
    is_one = _has_one_machine(match) and has_one_version(match.base.ok, match.candidate.ok)
    results = exact_results(match, is_one)
    for metric in metrics:
        if metric in results:
            result = results[metric]
            counted = replace(
                line,
                metric=metric,
                ground="exact" if result.verdict else "advisory",
                verdict=result.verdict,
                base=result.base,
                candidate=result.candidate,
                ratio=result.candidate / result.base if result.base else None,
                num_values=result.num_values,
                reason=result.reason,
                doubts=result.doubts,  # flags are about times
            )
            yield Line(counted)


def _with_values(line: Comparison, metric: LatencyMetric, values: tuple[list[float], list[float]]) -> Comparison:
    """With the median latency of each side, over launches, and their ratio."""
    base, candidate = (median(found) if found else None for found in values)
    ratio = candidate / base if base and candidate else None
    counts = (len(values[0]), len(values[1]))
    return replace(line, metric=metric, base=base, candidate=candidate, ratio=ratio, num_values=counts)


def _latencies(launches: Launches, metric: LatencyMetric) -> list[float]:
    return [value for record in launches.ok if (value := launch_latency(record, metric)) is not None]


def _ratios_to_dense(launches: Launches, metric: LatencyMetric) -> list[float]:
    first = launches.first
    return log_ratios(pair_values_in(launches.cell.halves, first.method, first.point_id, metric))
