"""Two searches for the largest size that fits: does the candidate still fit what the base fits?

In: the records of both sides that are trials. Out: a `Comparison` per method and search. A limit is known only between the largest
size that fits and the smallest that does not, so limits whose brackets overlap are the same.
"""

from collections.abc import Mapping, Sequence

from modbench.analysis.comparison import Comparison
from modbench.analysis.limits import memory_limit_bytes, method_limits
from modbench.analysis.matching import Launches, Match, Matching, match_launches
from modbench.analysis.rows import MethodLimit, failure_text
from modbench.analysis.same_work import fields_text
from modbench.analysis.summary import failed_identities
from modbench.analysis.verdict import Verdict
from modbench.record import Record
from modbench.units import format_bytes, format_count

LIMIT_METRICS = ("context_limit", "batch_limit")


def compare_limits(
    base: Sequence[Record], candidate: Sequence[Record], has_one_machine: bool
) -> tuple[list[Comparison], Matching]:
    """The limits of every search and method that both sides have, in the base's order; and what only one side has.

    Args:
        base, candidate: trials.
        has_one_machine: True if machine and library versions are known and the same on both sides.
    """
    trials = {record.launch_id: record for record in base}, {record.launch_id: record for record in candidate}
    searches = match_launches([_of_search(record) for record in base], [_of_search(record) for record in candidate])
    compared = []
    for match in searches.matches:
        limits = _limit(match.base, trials[0]), _limit(match.candidate, trials[1])
        if limits[0].value is not None or limits[1].value is not None:
            compared.append(_compared(match, *limits, has_one_machine))
    return compared, searches


def _of_search(record: Record) -> Record:
    """The record as a launch of its search: trials of all sizes under one identity."""
    assert record.trial is not None, "only trials are compared here"
    point = record.point.model_copy(
        update={
            "workload": {**record.point.workload, record.trial.name: None},
            "axes": {**record.point.axes, "search": record.trial.name},
        }
    )
    settings = sorted(point.settings.items(), key=lambda item: item[0])
    return record.model_copy(update={"point": point, "point_id": f"{point.cell_id} {settings!r}"})


def _limit(launches: Launches, trials: Mapping[str, Record]) -> MethodLimit:
    return method_limits([trials[record.launch_id] for record in launches.records])[0]


def _compared(match: Match, base: MethodLimit, candidate: MethodLimit, has_one_machine: bool) -> Comparison:
    first = match.candidate.first
    assert first.trial is not None, "only trials are compared here"
    reason = _why_not(match, base, has_one_machine)
    if reason:
        verdict = Verdict.NOT_COMPARABLE
    elif candidate.value is None:
        verdict, reason = Verdict.FAILED, f"the candidate has no limit: {candidate.status or 'not finished'}"
    else:
        verdict = _verdict(base, candidate)
    is_known = base.value is not None and candidate.value is not None
    return Comparison(
        cell_id=first.point.cell_id,
        axes=match.candidate.axes,
        method=first.method,
        metric=f"{first.trial.name}_limit",
        ground="exact",
        verdict=verdict,
        base=base.value,
        candidate=candidate.value,
        ratio=candidate.value / base.value if is_known and candidate.value and base.value else None,
        num_values=(base.num_trials, candidate.num_trials),
        reason=reason,
        doubts=(f"known to a step: the base {_failing(base)}, the candidate {_failing(candidate)}",)
        if is_known
        else (),
        scenario=match.base.scenario_name,
    )


def _verdict(base: MethodLimit, candidate: MethodLimit) -> Verdict:
    """SLOWER where the candidate is known to fail at what the base fits."""
    assert base.value is not None and candidate.value is not None, "limits without a value are not judged"
    if candidate.first_failing is not None and candidate.first_failing <= base.value:
        return Verdict.SLOWER
    if base.first_failing is not None and base.first_failing <= candidate.value:
        return Verdict.FASTER
    return Verdict.SAME


def _why_not(match: Match, base: MethodLimit, has_one_machine: bool) -> str:
    if match.differing_work:
        return f"the work differs: {fields_text(match.differing_work)}"
    for side, launches in (("base", match.base), ("candidate", match.candidate)):
        failed = failed_identities(launches.records)
        if failed:
            return f"{side}: {', '.join(failure_text(name) for name in failed)}"
    if base.value is None:
        return f"the base has no limit: {base.status or 'not finished'}"
    if not has_one_machine:
        return "limits are compared on one machine and its library versions only"
    budgets = [{memory_limit_bytes(record) for record in side.records} for side in (match.base, match.candidate)]
    if budgets[0] != budgets[1] or len(budgets[0]) > 1:
        texts = [", ".join(sorted(format_bytes(budget) for budget in found)) for found in budgets]
        return f"the memory limits differ: {texts[0]} and {texts[1]}"
    return ""


def _failing(limit: MethodLimit) -> str:
    if limit.first_failing is None:
        return "has reached the most that can be tried" if limit.is_at_bound else "has not failed"
    return f"fails at {format_count(limit.first_failing)}"
