"""Records of two sides, or more -> every line of their comparison, with a verdict where its ground allows one.

In: the records of a base and of candidates. Out: `ComparedSides`, which `report/` prints and gates read. The rules are those of
docs/measuring.md, section 3: pairs where both sides were measured in one interleaved job, else the ratios to dense inside each
run; counted bytes exactly; absolute times without a verdict.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from modbench.analysis.compared_lines import Line, Pairs, compared_lines, match_notes
from modbench.analysis.comparison import ONLY_BASE, ComparedSides, Comparison
from modbench.analysis.doubts import passed_over
from modbench.analysis.exact import EXACT_METRICS
from modbench.analysis.limit_comparison import LIMIT_METRICS, compare_limits
from modbench.analysis.margins import margins_of, recorded_floors
from modbench.analysis.matching import Launches, Matching, match_launches
from modbench.analysis.pairs import FAMILY_METRICS
from modbench.analysis.rows import Footnote
from modbench.analysis.shift_verdicts import TwoSamples, judge_shifts
from modbench.analysis.sides import describe_side, differences, has_one_machine, has_one_version, side_footnotes
from modbench.analysis.verdict import (
    DEFAULT_TOLERANCE,
    Judgement,
    Verdict,
    judge_family,
    one_sided_p_value,
    pairs_at_look,
)
from modbench.analysis.work_differences import work_differences
from modbench.errors import RecordError
from modbench.record import Record

NO_LAUNCH = "the candidate has no launch of it at this point"
COMPARED_METRICS = (*FAMILY_METRICS, *EXACT_METRICS, *LIMIT_METRICS)


@dataclass(frozen=True)
class SideRecords:
    """One side as it was loaded: what the user called it, its records, and how many damaged lines were passed over."""

    label: str
    records: Sequence[Record]
    num_skipped_lines: int = 0


def compare_sides(
    base: Sequence[Record],
    candidate: Sequence[Record],
    base_label: str,
    candidate_label: str,
    tolerance: float = DEFAULT_TOLERANCE,
    margins: Mapping[str, float] | None = None,
    metrics: Collection[str] | None = None,
) -> ComparedSides:
    """Compare one candidate with the base; see `compare_all`."""
    candidates = [SideRecords(candidate_label, candidate)]
    return compare_all(SideRecords(base_label, base), candidates, tolerance, margins, metrics)[0]


def compare_all(
    base: SideRecords,
    candidates: Sequence[SideRecords],
    tolerance: float = DEFAULT_TOLERANCE,
    margins: Mapping[str, float] | None = None,
    metrics: Collection[str] | None = None,
) -> tuple[ComparedSides, ...]:
    """Compare every candidate with the base; the latencies of all of them are one family of comparisons.

    Args:
        base, candidates: launches in the order written.
        tolerance: what counts as the same speed, as a share.
        margins: δ per latency metric, as shares, in the place of the larger of tolerance and the noise floor that records carry.
        metrics: names of `COMPARED_METRICS` to compare; None for all.

    Raises:
        RecordError: a latency is not above 0, so that it has no ratio.
    """
    everything = [record for side in (base, *candidates) for record in side.records]
    deltas = {**margins_of(tolerance, recorded_floors(everything)), **(margins or {})}
    wanted = [name for name in COMPARED_METRICS if metrics is None or name in metrics]
    drafts = []
    for candidate in candidates:
        matchings, limits = _matched(base.records, candidate.records)
        try:
            lines = [line for match in matchings[0].matches for line in compared_lines(match, deltas, wanted)]
        except ValueError as error:
            raise RecordError(f"{base.label}, {candidate.label}: {error}; expected seconds above 0") from error
        lines += [Line(missing) for missing in _missing(matchings[0], wanted)]
        drafts.append((matchings, [*lines, *(Line(limit) for limit in limits if limit.metric in wanted)]))
    judged = iter(_judged([line for _, lines in drafts for line in lines]))
    return tuple(
        ComparedSides(
            base=describe_side(base.label, base.records),
            candidate=describe_side(candidate.label, candidate.records),
            comparisons=tuple(next(judged) for _ in lines),
            tolerance=tolerance,
            margins={metric: delta for metric, delta in deltas.items() if metric in wanted},
            differences=(
                *work_differences(base.records, candidate.records),
                *differences(base.records, candidate.records),
            ),
            footnotes=(
                *_damage_notes(base, candidate),
                *side_footnotes(base.records, candidate.records),
                *_matching_notes(matchings, wanted),
            ),
            cells=_cells(matchings),
        )
        for candidate, (matchings, lines) in zip(candidates, drafts, strict=True)
    )


def _missing(matching: Matching, metrics: Sequence[str]) -> list[Comparison]:
    """What the candidate has no launch of, at cells where it did the same work: it failed to measure it, or was interrupted."""
    shared = _shared_cells(matching)
    return [
        Comparison(
            cell_id=launches.first.point.cell_id,
            axes=launches.axes,
            method=launches.first.method,
            metric=metrics[0],
            ground="advisory",
            verdict=Verdict.FAILED,
            reason=NO_LAUNCH,
            scenario=launches.scenario_name,
        )
        for launches in matching.only_base
        if launches.first.point.cell_id in shared and any(record.status == "ok" for record in launches.records)
    ]


def _shared_cells(matching: Matching) -> set[str]:
    """The base's cells at which the candidate did the same work with some method."""
    return {match.base.first.point.cell_id for match in matching.matches if not match.differing_work}


def _matched(base: Sequence[Record], candidate: Sequence[Record]) -> tuple[list[Matching], list[Comparison]]:
    """Launches that are compared with others, and searches: what was matched of both, and the limits of the searches."""
    base_trials, trials = ([record for record in side if record.trial is not None] for side in (base, candidate))
    is_one = has_one_machine(base_trials, trials) and has_one_version(base_trials, trials)
    limits, searches = compare_limits(base_trials, trials, is_one)
    base_launches, launches = ([record for record in side if record.trial is None] for side in (base, candidate))
    return [match_launches(base_launches, launches), searches], limits


def _judged(lines: Sequence[Line]) -> list[Comparison]:
    """The lines in their order, those with evidence judged as one family."""
    paired = [line.evidence for line in lines if isinstance(line.evidence, Pairs)]
    samples = [line.evidence for line in lines if isinstance(line.evidence, TwoSamples)]
    pair_p_values = [
        one_sided_p_value(pairs_at_look(found.differences), math.log1p(found.delta))
        for found in paired
        if found.differences
    ]
    judgements = judge_family(
        [found.differences for found in paired],
        [found.delta for found in paired],
        [True] * len(paired),  # of saved pairs there are no more to come
        [found.p_value for found in samples if found.num_pairs],
    )
    by_kind = {Pairs: iter(judgements), TwoSamples: iter(judge_shifts(samples, pair_p_values))}
    return [
        line.comparison if line.evidence is None else _with_judgement(line, next(by_kind[type(line.evidence)]))
        for line in lines
    ]


def _with_judgement(line: Line, judgement: Judgement) -> Comparison:
    low_high = (
        None if judgement.interval is None else (math.exp(judgement.interval[0]), math.exp(judgement.interval[1]))
    )
    return replace(
        line.comparison,
        verdict=judgement.verdict,
        interval=low_high,
        reason=judgement.reason,
        pairs_needed=judgement.pairs_needed,
    )


def _damage_notes(*sides: SideRecords) -> Iterator[Footnote]:
    for name, side in zip(("base", "candidate"), sides, strict=True):
        if side.num_skipped_lines:
            yield Footnote(f"{name}: {passed_over(side.num_skipped_lines, 'its records')}")


def _matching_notes(matchings: Sequence[Matching], metrics: Sequence[str]) -> list[Footnote]:
    """What is not judged, and where."""
    found: list[tuple[str, Launches]] = []
    for matching in matchings:
        shared = _shared_cells(matching)
        elsewhere = [launches for launches in matching.only_base if launches.first.point.cell_id not in shared]
        found += [(ONLY_BASE, launches) for launches in elsewhere]
        found += [("on the candidate side only, not judged", launches) for launches in matching.only_candidate]
    launched, _ = matchings
    found += [(text, match.candidate) for match in launched.matches for text in match_notes(match, metrics)]
    cells: dict[tuple[str, str], dict[str, None]] = {}
    for text, launches in found:
        cells.setdefault((text, launches.first.method), {})[launches.first.point.cell_id] = None
    methods: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (text, method), ids in cells.items():
        methods.setdefault((text, tuple(ids)), []).append(method)
    return [Footnote(text, tuple(names), ids) for (text, ids), names in methods.items()]


def _cells(matchings: Iterable[Matching]) -> dict[str, Mapping[str, object]]:
    """The axes of every cell of either side."""
    groups = [
        launches
        for matching in matchings
        for launches in (
            *(side for match in matching.matches for side in (match.base, match.candidate)),
            *matching.only_base,
            *matching.only_candidate,
        )
    ]
    return {launches.first.point.cell_id: launches.axes for launches in groups}
