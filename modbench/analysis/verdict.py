"""Slower, faster, the same, or not known yet: the rule of `docs/measuring.md`, section 3, for one comparison and for
many.

In: ln ratios of pairs (above 0 = slower than the other side). Out: a `Judgement` per comparison.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from modbench.analysis.pairs import ComparisonKey
from modbench.analysis.statistics import MIN_PAIRS, holm, median, ratio_interval, sign_test_p_value
from modbench.plan import LOOKS

DEFAULT_TOLERANCE = 0.03
FAMILY_ALPHA = 0.013
MAX_USEFUL_PAIRS = 10_000
HELD_BACK = "one of several comparisons: more pairs are needed"


class Verdict(StrEnum):
    """What can be said at a look."""

    SLOWER = "slower"
    FASTER = "faster"
    SAME = "same"
    UNDECIDED = "undecided"
    INCONCLUSIVE = "inconclusive"


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


def judge(differences: Sequence[float], delta: float, is_confirmed: bool = True) -> Judgement:
    """The verdict on one comparison from its ln ratios.

    Args:
        differences: one ln ratio per pair, any order.
        delta: the margin, as a share.
        is_confirmed: False if the comparison is one of several and its sign test did not pass Holm's procedure; then
            it is
            neither SLOWER nor FASTER at this look.
    """
    num_pairs = len(differences)
    interval = ratio_interval(differences)
    if interval is None:
        return Judgement(Verdict.UNDECIDED, num_pairs, None, f"no verdict below {MIN_PAIRS} pairs", MIN_PAIRS)
    bound = math.log1p(delta)
    low, high = interval
    if low > bound and is_confirmed:
        return Judgement(Verdict.SLOWER, num_pairs, interval)
    if high < -bound and is_confirmed:
        return Judgement(Verdict.FASTER, num_pairs, interval)
    if -bound < low and high < bound:
        return Judgement(Verdict.SAME, num_pairs, interval)
    is_held_back = low > bound or high < -bound
    reason = HELD_BACK if is_held_back else "the interval crosses the margin"
    is_last = num_pairs >= LOOKS[-1]
    verdict = Verdict.INCONCLUSIVE if is_last else Verdict.UNDECIDED
    return Judgement(verdict, num_pairs, interval, reason, _pairs_needed(differences, interval, bound))


def judge_family(family: Iterable[Sequence[float]], delta: float) -> list[Judgement]:
    """The verdicts of all comparisons of one command, in the order given.

    With more than one comparison SLOWER and FASTER also need the one-sided exact sign test against ±δ to pass Holm's
    procedure at 1.3 %. Comparisons without any pair are left out of the family.
    """
    comparisons = list(family)
    bound = math.log1p(delta)
    p_values = [
        min(sign_test_p_value(values, bound), sign_test_p_value([-value for value in values], bound))
        for values in comparisons
        if values
    ]
    confirmed = iter(holm(p_values, FAMILY_ALPHA))
    is_family = len(p_values) > 1
    judged = [judge(values, delta, not values or next(confirmed) or not is_family) for values in comparisons]
    # Of pairs that all lie on one side, this many pass the first step of Holm's procedure.
    enough = math.ceil(math.log2(max(len(p_values), 1) / FAMILY_ALPHA))
    return [
        replace(item, pairs_needed=max(enough, item.num_pairs + 1)) if item.reason == HELD_BACK else item
        for item in judged
    ]


def undecided_cells(
    family: Mapping[ComparisonKey, Sequence[float]],
    tolerance: float = DEFAULT_TOLERANCE,
    noise_floor: float | None = None,
) -> set[str]:
    """Ids of the cells with a comparison that another look could still decide: the stopping rule of `launches: auto`.

    Args:
        family: the ln ratios of every (cell, method, latency metric), as `pairs.comparisons` gives them for all records of
            the run, since Holm's procedure looks at all of them; one without a pair (a method that cannot run here)
            holds nothing up.
    """
    judged = judge_family(family.values(), margin(tolerance, noise_floor))
    return {
        key.cell_id
        for (key, differences), judgement in zip(family.items(), judged, strict=True)
        if differences and not judgement.is_final
    }


def _pairs_needed(differences: Sequence[float], interval: tuple[float, float], bound: float) -> int | None:
    """Pairs at which an interval of this spread would leave the margin, its half width shrinking as 1/sqrt(n)."""
    centre = median(differences)
    gap = abs(abs(centre) - bound)
    half_width = max(centre - interval[0], interval[1] - centre)
    if gap == 0 or half_width == 0:
        return None if gap == 0 else len(differences) + 1
    needed = math.ceil(len(differences) * (half_width / gap) ** 2)
    return max(needed, len(differences) + 1) if needed <= MAX_USEFUL_PAIRS else None
