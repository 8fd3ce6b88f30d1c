"""Slower, faster, the same, or not known yet: the rule of `docs/measuring.md`, section 3, for one comparison or many.

In: ln ratios of pairs (above 0 = slower than the other side). Out: a `Judgement` per comparison.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import NormalDist

from modbench.analysis.pairs import ComparisonKey
from modbench.analysis.statistics import MIN_PAIRS, holm, median, ratio_interval, sign_test_p_value
from modbench.plan import LOOKS, PAIRS_PER_QUAD
from modbench.scenario import BASELINE

DEFAULT_TOLERANCE = 0.03
FAMILY_ALPHA = 0.013
MAX_USEFUL_PAIRS = 10_000
LAST_QUAD = LOOKS[-1] // PAIRS_PER_QUAD - 1  # a cell that has come to this quad gets no further look
HELD_BACK = "one of several comparisons: more pairs are needed"


class Verdict(StrEnum):
    """What can be said of a comparison: six verdicts, and `undecided` where another look is still to come."""

    SLOWER = "slower"
    FASTER = "faster"
    SAME = "same"
    UNDECIDED = "undecided"
    INCONCLUSIVE = "inconclusive"
    NOT_COMPARABLE = "not comparable"  # the two sides did not do the same work
    FAILED = "failed"


@dataclass(frozen=True)
class Judgement:
    """A verdict with what it rests on; `interval` holds ln ratios, `pairs_needed` is None where no number would do."""

    verdict: Verdict
    num_pairs: int
    interval: tuple[float, float] | None
    reason: str = ""
    pairs_needed: int | None = None

    @property
    def is_final(self) -> bool:
        """False if another look could still decide."""
        return self.verdict is not Verdict.UNDECIDED


def margin(tolerance: float = DEFAULT_TOLERANCE, noise_floor: float | None = None) -> float:
    """δ: the larger of the tolerance and this machine's noise floor, both as shares (0.03 = 3 %)."""
    return max(tolerance, noise_floor or 0.0)


def pairs_at_look(differences: Sequence[float]) -> Sequence[float]:
    """The first pairs, up to the largest planned look that they suffice for: what intervals and verdicts rest on.

    Looks are planned at 8, 12 and 20 pairs. Looking at 9 or 14 as well (a pair was lost, a run was interrupted, another
    number of launches was asked for) would be a further look, which the error does not allow for.
    """
    size = max((look for look in LOOKS if look <= len(differences)), default=len(differences))
    return differences[:size]


def judge(
    differences: Sequence[float], delta: float, is_confirmed: bool = True, is_last_look: bool = False
) -> Judgement:
    """The verdict on one comparison from its ln ratios.

    Args:
        differences: one ln ratio per pair of the look, any order.
        delta: the margin, as a share.
        is_confirmed: False if the comparison is one of several and its sign test did not pass Holm's procedure; then
            it is neither SLOWER nor FASTER at this look.
        is_last_look: True if no further look is planned, be it that pairs were lost; at 20 pairs it is the last.
    """
    num_pairs = len(differences)
    is_last = is_last_look or num_pairs >= LOOKS[-1]
    open_verdict = Verdict.INCONCLUSIVE if is_last else Verdict.UNDECIDED
    centre = median(differences) if differences else 0.0
    found = decide(num_pairs, centre, ratio_interval(differences), delta, is_confirmed, open_verdict)
    return replace(found, pairs_needed=at_a_look(found.pairs_needed))


def decide(
    num_pairs: int,
    centre: float,
    interval: tuple[float, float] | None,
    delta: float,
    is_confirmed: bool,
    open_verdict: Verdict,
) -> Judgement:
    """The verdict rule on an estimate (an ln ratio) and its interval; `open_verdict` where they decide nothing."""
    if interval is None:
        return Judgement(open_verdict, num_pairs, None, f"no verdict below {MIN_PAIRS} pairs", MIN_PAIRS)
    bound = math.log1p(delta)
    verdict = interval_verdict(interval, bound)
    if verdict is Verdict.SAME or (verdict is not None and is_confirmed):
        return Judgement(verdict, num_pairs, interval)
    reason = "the interval crosses the margin" if verdict is None else HELD_BACK
    return Judgement(open_verdict, num_pairs, interval, reason, _pairs_needed(num_pairs, centre, interval, bound))


def interval_verdict(interval: tuple[float, float], bound: float) -> Verdict | None:
    """What an interval of ln ratios says by itself, with `bound` = ln(1 + δ); None where it crosses the margin."""
    low, high = interval
    if low > bound:
        return Verdict.SLOWER
    if high < -bound:
        return Verdict.FASTER
    return Verdict.SAME if -bound < low and high < bound else None


def judge_family(
    family: Iterable[Sequence[float]],
    delta: float | Sequence[float],
    is_last_look: Iterable[bool] | None = None,
    other_p_values: Sequence[float] = (),
) -> list[Judgement]:
    """The verdicts of all comparisons of one command, in the order given, each on the pairs of its look.

    With more than one comparison SLOWER and FASTER also need the one-sided exact sign test against ±δ to pass Holm's
    procedure at 1.3 %. Comparisons without any pair are left out of the family. `delta` is one margin for all, or one each;
    `other_p_values` are of comparisons of the same command that are not made from pairs.
    """
    comparisons = [pairs_at_look(values) for values in family]
    last_looks = [False] * len(comparisons) if is_last_look is None else list(is_last_look)
    deltas = [delta] * len(comparisons) if isinstance(delta, int | float) else list(delta)
    p_values = [one_sided_p_value(values, math.log1p(own)) for values, own in zip(comparisons, deltas, strict=True)]
    tested = [p_value for values, p_value in zip(comparisons, p_values, strict=True) if values]
    num_comparisons = len(tested) + len(other_p_values)
    confirmed = iter(holm([*tested, *other_p_values], FAMILY_ALPHA))
    is_family = num_comparisons > 1
    judged = [
        judge(values, own, not values or next(confirmed) or not is_family, is_last)
        for values, own, is_last in zip(comparisons, deltas, last_looks, strict=True)
    ]
    return [
        replace(item, pairs_needed=at_a_look(confirming_pairs(item.num_pairs, p_value, num_comparisons)))
        if item.reason == HELD_BACK
        else item
        for item, p_value in zip(judged, p_values, strict=True)
    ]


def one_sided_p_value(values: Sequence[float], bound: float) -> float:
    """Of the sign test on the side where the values lie."""
    return min(sign_test_p_value(values, bound), sign_test_p_value([-value for value in values], bound))


def confirming_pairs(num_pairs: int, p_value: float, num_comparisons: int) -> int:
    """Pairs at which a p-value passes the first step of Holm's procedure, its normal score growing as sqrt(n)."""
    now, wanted = (NormalDist().inv_cdf(share) for share in (p_value, FAMILY_ALPHA / num_comparisons))
    return max(math.ceil(num_pairs * (wanted / now) ** 2), num_pairs + 1)


def undecided_cells(
    family: Mapping[ComparisonKey, Sequence[float]],
    exhausted: Collection[tuple[str, str]] = (),
    margins: Mapping[str, float] | None = None,
) -> set[str]:
    """Ids of the cells with a comparison that another look could still decide: the stopping rule of `launches: auto`.

    Args:
        family: the ln ratios of every (cell, method, latency metric), as `pairs.comparisons` gives them for all records of
            the run, since Holm's procedure looks at all of them; one without a pair (a method that cannot run here)
            holds nothing up.
        exhausted: (cell, method) that further launches would not help, as `pairs.exhausted_methods` gives them: they
            hold nothing up either, and an exhausted baseline closes its cell.
        margins: δ per latency metric, as shares; None: the default tolerance.
    """
    deltas = [margins[key.metric] if margins else DEFAULT_TOLERANCE for key in family]
    judged = judge_family(family.values(), deltas)
    stuck = frozenset(exhausted)
    return {
        key.cell_id
        for (key, differences), judgement in zip(family.items(), judged, strict=True)
        if differences and not judgement.is_final and not {(key.cell_id, key.method), (key.cell_id, BASELINE)} & stuck
    }


def _pairs_needed(num_pairs: int, centre: float, interval: tuple[float, float], bound: float) -> int | None:
    """Pairs at which an interval of this spread would leave the margin, its half width shrinking as 1/sqrt(n)."""
    gap = abs(abs(centre) - bound)
    half_width = max(centre - interval[0], interval[1] - centre)
    if gap == 0 or half_width == 0:
        return None if gap == 0 else num_pairs + 1
    if math.sqrt(num_pairs) * half_width > math.sqrt(MAX_USEFUL_PAIRS) * gap:
        return None
    return max(math.ceil(num_pairs * (half_width / gap) ** 2), num_pairs + 1)


def at_a_look(num_pairs: int | None) -> int | None:
    """The next number of pairs that is judged; past the last look, where none is planned, the number itself."""
    return next((look for look in LOOKS if num_pairs is not None and look >= num_pairs), num_pairs)
