"""Order statistics of few, skewed samples: quantile of a launch, exact intervals of a median, honest percentiles.

In: plain sequences of floats. Out: floats or None. Nothing here assumes normality; nothing needs numpy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LAUNCH_QUANTILE = 0.25
MIN_PAIRS = 8
MIN_SAMPLES = 5  # of a launch, for a verdict
MIN_COVERAGE = 0.988
PERCENTILE_NEEDS = {50: 1, 90: 29, 95: 59, 99: 299}


def quantile(values: Sequence[float], share: float) -> float:
    """Quantile with linear interpolation: position `share * (n - 1)` in the sorted values.

    Source: Hyndman and Fan's definition 7, numpy's default method "linear".

    Raises:
        ValueError: no values, or a share outside [0, 1].
    """
    if not values or not 0 <= share <= 1:
        raise ValueError(
            f"got {len(values)} values and share {share}; expected at least one value and a share in [0, 1]"
        )
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def launch_value(samples: Sequence[float]) -> float:
    """The value of one launch: the 25th percentile of its samples, in their unit (`docs/measuring.md`, section 3)."""
    return quantile(samples, LAUNCH_QUANTILE)


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two middle ones."""
    return quantile(values, 0.5)


def log_ratios(pairs: Sequence[tuple[float, float]]) -> list[float]:
    """ln(x_B / x_A) of each pair (x_A, x_B): above 0 where B is slower, in the order given."""
    return [math.log(b / a) for a, b in pairs]


def coverage(num_values: int, rank: int) -> float:
    """Exact probability that [d_rank, d_(n+1-rank)] of n sorted values holds the true median.

    `rank` counts from 1. Source: binomial distribution of the number of values below the median, 1 - 2 P(Bin(n, 1/2)
    < rank).
    """
    return 1 - 2 * sum(math.comb(num_values, below) for below in range(rank)) / 2**num_values


def interval_rank(num_values: int) -> int | None:
    """The largest rank from either end whose interval covers at least 98.8 %; None below 8 values.

    Gives 1, 2 and 5 at the looks of 8, 12 and 20 pairs (99.2, 99.4 and 98.8 %).
    """
    if num_values < MIN_PAIRS:
        return None
    ranks = range(1, num_values // 2 + 1)
    return max((rank for rank in ranks if coverage(num_values, rank) >= MIN_COVERAGE), default=None)


def ratio_interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """Exact order-statistic interval of the median of `differences` (any order); None below 8 of them."""
    rank = interval_rank(len(differences))
    if rank is None:
        return None
    ordered = sorted(differences)
    return ordered[rank - 1], ordered[-rank]


@dataclass(frozen=True)
class Percentile:
    """A percentile, or why there is none."""

    value: float | None
    reason: str | None = None


def percentile(values: Sequence[float], percent: int) -> Percentile:
    """p50, p90, p95 or p99 of `values`, only from 1, 29, 59 or 299 samples on; otherwise None with the reason.

    Raises:
        KeyError: another percentile was asked for.
    """
    needed = PERCENTILE_NEEDS[percent]
    if len(values) < needed:
        return Percentile(None, f"needs {needed}")
    return Percentile(quantile(values, percent / 100))


def sign_test_p_value(differences: Sequence[float], threshold: float) -> float:
    """One-sided exact sign test of "the median is above `threshold`"; a value equal to it counts against.

    Returns 1.0 for no values. Source: P(Bin(n, 1/2) >= number of values above the threshold).
    """
    num_above = sum(value > threshold for value in differences)
    total = len(differences)
    return sum(math.comb(total, above) for above in range(num_above, total + 1)) / 2**total


def holm(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Which of a family's hypotheses are rejected at family-wise error `alpha`, in the order given.

    Source: Holm 1979, step-down: the i-th smallest p-value (from 0) is compared with alpha / (m - i) until one fails.
    """
    rejected = [False] * len(p_values)
    for step, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] > alpha / (len(p_values) - step):
            break
        rejected[index] = True
    return rejected


def speedup_of(differences: Sequence[float]) -> float:
    """Baseline time / method time from ln(method / baseline): exp(-median)."""
    return math.exp(-median(differences))


def interval_of_speedup(differences: Sequence[float]) -> tuple[float, float] | None:
    """The exact interval of `speedup_of`, smaller end first; None below 8 pairs."""
    interval = ratio_interval(differences)
    return None if interval is None else (math.exp(-interval[1]), math.exp(-interval[0]))
