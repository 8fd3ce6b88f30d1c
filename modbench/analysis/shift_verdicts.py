"""Verdicts on two saved runs, which have no pairs with each other: how far one's ratios to dense lie above the other's.

In: the ranks of both sides' ln ratios, per comparison. Out: a `Judgement` each, by the rule that pairs are judged by.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from modbench.analysis.rank_statistics import RankShift
from modbench.analysis.statistics import holm
from modbench.analysis.verdict import FAMILY_ALPHA, HELD_BACK, Judgement, Verdict, confirming_pairs, decide


@dataclass(frozen=True)
class TwoSamples:
    """How the ln ratios of the candidate lie to those of the base, None where a side has none; and δ as a share."""

    shift: RankShift | None
    delta: float

    @property
    def num_pairs(self) -> int:
        """Of the side that has fewer."""
        return min(self.shift.num_base, self.shift.num_candidate) if self.shift else 0

    @property
    def p_value(self) -> float:
        """Of the one-sided exact Mann-Whitney test against ±δ, on the side where the shift lies; 1 without values."""
        if self.shift is None:
            return 1.0
        bound = math.log1p(self.delta)
        return min(self.shift.p_value_above(bound), self.shift.p_value_below(bound))


def judge_shifts(family: Iterable[TwoSamples], other_p_values: Sequence[float] = ()) -> list[Judgement]:
    """The verdicts of all comparisons of one command, in the order given; nothing further is measured, so none is undecided.

    With more than one comparison SLOWER and FASTER also need the one-sided exact test to pass Holm's procedure at 1.3 %, as in
    `judge_family`; `other_p_values` are of the command's other comparisons.
    """
    comparisons = list(family)
    p_values = [samples.p_value for samples in comparisons if samples.num_pairs]
    num_comparisons = len(p_values) + len(other_p_values)
    confirmed = iter(holm([*p_values, *other_p_values], FAMILY_ALPHA))
    judged = [
        _judge(samples, not samples.num_pairs or next(confirmed) or num_comparisons == 1) for samples in comparisons
    ]
    return [
        replace(item, pairs_needed=confirming_pairs(item.num_pairs, samples.p_value, num_comparisons))
        if item.reason == HELD_BACK
        else item
        for item, samples in zip(judged, comparisons, strict=True)
    ]


def _judge(samples: TwoSamples, is_confirmed: bool) -> Judgement:
    shift = samples.shift
    centre, interval = (0.0, None) if shift is None else (shift.estimate, shift.interval)
    return decide(samples.num_pairs, centre, interval, samples.delta, is_confirmed, Verdict.INCONCLUSIVE)
