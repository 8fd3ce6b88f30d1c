"""Two samples that have no pairs with each other: by how much one lies above the other. Exact, by ranks, no normality.

In: two sequences of floats, such as the ln ratios to dense of two saved runs. Out: shift, interval, p-value. Nothing here needs
scipy or numpy; the work grows with the square of the numbers of values, so at most `MAX_VALUES` of a side are used.

Source: Hollander and Wolfe, Nonparametric Statistical Methods, chapter 4 (Mann-Whitney test, Hodges-Lehmann shift and interval).
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from operator import sub
from typing import Self

from modbench.analysis.statistics import MIN_COVERAGE, MIN_PAIRS

MAX_VALUES = 200


@dataclass(frozen=True)
class RankShift:
    """By how much the candidate lies above the base, from all differences candidate - base, in ascending order."""

    num_base: int
    num_candidate: int
    differences: Sequence[float]

    @classmethod
    def of(cls, base: Sequence[float], candidate: Sequence[float]) -> Self:
        """The shift of two samples.

        Raises:
            ValueError: a side has no values, more than `MAX_VALUES`, or one that is not finite.
        """
        for values in (base, candidate):
            if not 1 <= len(values) <= MAX_VALUES:
                raise ValueError(f"got {len(values)} values; expected 1 to {MAX_VALUES} a side")
            if not all(math.isfinite(value) for value in values):
                raise ValueError("got a value that is not finite; expected finite numbers")
        return cls(len(base), len(candidate), sorted(high - low for high in candidate for low in base))

    @property
    def estimate(self) -> float:
        """Hodges and Lehmann's: the median of the differences."""
        middle = len(self.differences) // 2
        return (self.differences[middle] + self.differences[-middle - 1]) / 2  # the two middle ones, or the one twice

    @property
    def interval(self) -> tuple[float, float] | None:
        """Exact, with at least 98.8 % coverage, more with ties; None below 8 values a side.

        It runs from the r-th smallest to the r-th largest difference, r as large as P(U < r) <= 0.6 % allows.
        """
        if min(self.num_base, self.num_candidate) < MIN_PAIRS:
            return None
        rank = interval_rank(self.num_base, self.num_candidate)
        return self.differences[rank - 1], self.differences[-rank]

    def p_value_above(self, threshold: float) -> float:
        """One-sided exact p-value of "the candidate lies above the base by more than `threshold`".

        It is P(U >= u) with u the number of differences above the threshold. One that is equal to it counts against, so that with
        ties the value is never smaller than for any way of breaking them.
        """
        return self._p_value(len(self.differences) - bisect_right(self.differences, threshold))

    def p_value_below(self, threshold: float) -> float:
        """The same for "the candidate lies below the base by more than `threshold`"."""
        return self._p_value(bisect_left(self.differences, -threshold))

    def _p_value(self, num_beyond: int) -> float:
        return tail_probability(self.num_base, self.num_candidate, len(self.differences) - num_beyond)


def interval_rank(num_base: int, num_candidate: int) -> int:
    """The largest r with 1 - 2 P(U < r) >= 98.8 %; 0 where even the widest interval covers less."""
    most = (1 - MIN_COVERAGE) / 2 * math.comb(num_base + num_candidate, num_base)
    return sum(1 for count in _cumulative_counts(*sorted((num_base, num_candidate))) if count <= most)


def tail_probability(num_base: int, num_candidate: int, most: int) -> float:
    """P(U <= most) of the Mann-Whitney statistic when both sides have one distribution without ties."""
    num_differences = num_base * num_candidate
    if most >= num_differences:
        return 1.0
    counts, total = (
        _cumulative_counts(*sorted((num_base, num_candidate))),
        math.comb(num_base + num_candidate, num_base),
    )
    if most < len(counts):
        return counts[most] / total
    return (total - counts[num_differences - most - 1]) / total  # the distribution is symmetric


@lru_cache(maxsize=64)
def _cumulative_counts(smaller: int, larger: int) -> tuple[int, ...]:
    """How many of the C(smaller + larger, smaller) orders have U <= u, for u in the lower half of 0 ... smaller * larger.

    The counts are the coefficients of the product over i = 1 ... smaller of (1 - q^(larger + i)) / (1 - q^i).
    """
    size = smaller * larger // 2 + 1
    counts = [1] + [0] * (size - 1)
    for i in range(1, smaller + 1):
        step = larger + i
        counts[step:] = map(sub, counts[step:], counts[: max(size - step, 0)])
        for first in range(min(i, size)):
            counts[first::i] = accumulate(counts[first::i])
    return tuple(accumulate(counts))
