"""The largest value that fits: doubling until one fails, then halving the gap. Pure: no clock, no files, no device.

In: outcomes of tried values, in any order, so that a resumed search is fed from disk. Out: the next value to try, and the bracket.
"""

from dataclasses import dataclass

ROUNDING = 16  # values between two tried ones are multiples of this where the gap is several times as wide
MIN_ROUNDED_GAP = 4 * ROUNDING


@dataclass
class LimitSearch:
    """The state of one search; values are integers >= 1.

    A search that has failed at 1 has no limit. Outcomes need not be monotonic: the limit is the largest value known to fit below
    the smallest one known not to, and a value that once did not fit does not fit.
    """

    first: int
    bound: int | None = None  # the largest value that can be tried; None: no bound
    resolution: float = 0.0  # the gap that is left, as a share of the limit; 0: to the last unit
    first_failing: int | None = None  # the smallest value known not to fit
    has_failed: bool = False  # a try said nothing about sizes: there is no point in others
    _fitting: tuple[int, ...] = ()

    def note(self, value: int, fits: bool | None) -> None:
        """Take in the outcome of one try; None where it failed for a reason that has nothing to do with sizes."""
        if fits is None:
            self.has_failed = True
        elif fits:
            self._fitting = (*self._fitting, value)
        elif self.first_failing is None or value < self.first_failing:
            self.first_failing = value

    @property
    def largest_fitting(self) -> int | None:
        """The largest value known to fit below every failing one; None if there is none."""
        below = [value for value in self._fitting if self.first_failing is None or value < self.first_failing]
        return max(below, default=None)

    @property
    def is_at_bound(self) -> bool:
        """True if the bound itself fits, so that the limit may be larger."""
        return self.bound is not None and self.largest_fitting == self.bound

    def next_value(self) -> int | None:
        """The value to try next; None when the limit is known well enough, there is none, or a try has failed."""
        low, high = self.largest_fitting, self.first_failing
        if self.has_failed:
            return None
        if high is None:
            if low is None:
                return self._bounded(self.first)
            return None if self.is_at_bound else self._bounded(2 * low)
        if low is None:
            return high // 2 or None
        gap = high - low
        return None if gap <= max(1, self.resolution * low) else _middle(low, gap)

    def _bounded(self, value: int) -> int:
        return value if self.bound is None else min(value, self.bound)


def _middle(low: int, gap: int) -> int:
    """A value strictly between `low` and `low + gap`, rounded down to a multiple of `ROUNDING` where the gap is wide."""
    middle = low + gap // 2
    return middle - middle % ROUNDING if gap >= MIN_ROUNDED_GAP else middle
