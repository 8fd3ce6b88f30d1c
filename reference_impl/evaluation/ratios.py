"""Sums over rows -> one ratio with its standard error. In: numerators and denominators per row. Out: a `Ratio`. Pure."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Ratio(NamedTuple):
    """A ratio of sums, and its standard error; None with fewer than two rows."""

    value: float
    standard_error: float | None


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """Sum of the numerators / sum of the denominators, which is above 0.

    The standard error is that of rows drawn at random (the linearised ratio estimator of survey sampling). Rows of one document
    are alike, so it is rather too small where a document fills many rows.
    """
    total = math.fsum(denominators)
    value = math.fsum(numerators) / total
    num_rows = len(numerators)
    if num_rows < 2:
        return Ratio(value, None)
    squares = math.fsum(
        (numerator - value * denominator) ** 2 for numerator, denominator in zip(numerators, denominators, strict=True)
    )
    return Ratio(value, math.sqrt(squares * num_rows / (num_rows - 1)) / total)
