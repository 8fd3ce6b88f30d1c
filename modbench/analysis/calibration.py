"""What a machine's own noise does to verdicts: from A/A pairs, the noise floor, the false-alarm rate, the smallest change found.

In: ln ratios of pairs in which nothing differs. Out: a `NoiseFigures`. The gate is played on resamples of the pairs that were
measured (bootstrap), look by look, as it would be played on new ones; nothing is assumed about their distribution.
"""

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from modbench.analysis.statistics import median, quantile, ratio_interval
from modbench.analysis.verdict import Verdict, interval_verdict
from modbench.plan import LOOKS

MIN_CALIBRATION_PAIRS = 40
NUM_RESAMPLES = 2000
FLOOR_QUANTILE = 0.95
WANTED_DETECTION = 0.95
MAX_INCONCLUSIVE = 0.10
STEP = 0.005  # of the changes tried, as a share
LARGEST_CHANGE = 0.50

Interval = tuple[float, float]


@dataclass(frozen=True)
class NoiseFigures:
    """Shares, all of them: 0.03 is 3 %.

    Attributes:
        num_pairs: A/A pairs that it rests on.
        sigma_ratio: standard deviation of the pairs' ln ratios.
        noise_floor: 95th percentile of |median of 20 ln ratios|, as a change of the ratio.
        margin: δ that the gate was played with: the larger of tolerance and floor.
        false_alarm_ratio: of plays that ended slower or faster, although nothing differs.
        same_ratio, inconclusive_ratio: of the others.
        smallest_detectable: the smallest slow-down found in 95 % of plays; None if not even +50 % is.
        usable_tolerance: the smallest tolerance, from the margin on, at which at most 10 % of plays with nothing changed end
            inconclusive; None if not even 50 % is enough.
    """

    num_pairs: int
    sigma_ratio: float
    noise_floor: float
    margin: float
    false_alarm_ratio: float
    same_ratio: float
    inconclusive_ratio: float
    smallest_detectable: float | None
    usable_tolerance: float | None


def noise_figures(differences: Sequence[float], tolerance: float, seed: int = 0) -> NoiseFigures:
    """Play the gate on resamples of A/A pairs.

    Args:
        differences: ln ratios, at least 40.
        tolerance: asked of the gate, as a share.
        seed: of the resampling.

    Raises:
        ValueError: fewer than 40 pairs.
    """
    if len(differences) < MIN_CALIBRATION_PAIRS:
        raise ValueError(f"got {len(differences)} pairs; expected at least {MIN_CALIBRATION_PAIRS}")
    chooser = random.Random(seed)
    resamples = [chooser.choices(differences, k=LOOKS[-1]) for _ in range(NUM_RESAMPLES)]
    floor = math.expm1(quantile([abs(median(values)) for values in resamples], FLOOR_QUANTILE))
    delta = max(tolerance, floor)
    plays = [_intervals(values) for values in resamples]
    outcomes = [_outcome(play, math.log1p(delta), 0.0) for play in plays]
    return NoiseFigures(
        num_pairs=len(differences),
        sigma_ratio=statistics.stdev(differences),
        noise_floor=floor,
        margin=delta,
        false_alarm_ratio=_share(outcomes, Verdict.SLOWER) + _share(outcomes, Verdict.FASTER),
        same_ratio=_share(outcomes, Verdict.SAME),
        inconclusive_ratio=_share(outcomes, Verdict.INCONCLUSIVE),
        smallest_detectable=_smallest_detectable(plays, delta),
        usable_tolerance=_usable_tolerance(plays, delta),
    )


def _intervals(values: Sequence[float]) -> list[Interval]:
    found = [ratio_interval(values[:look]) for look in LOOKS]
    return [interval for interval in found if interval is not None]


def _outcome(play: Sequence[Interval], bound: float, shift: float) -> Verdict:
    """The verdict of the first look that decides, of a single comparison, with `shift` added to every ln ratio."""
    verdicts = (interval_verdict((low + shift, high + shift), bound) for low, high in play)
    return next((verdict for verdict in verdicts if verdict is not None), Verdict.INCONCLUSIVE)


def _smallest_detectable(plays: Sequence[Sequence[Interval]], delta: float) -> float | None:
    """The smallest change above δ, in steps of half a per cent, from which on slower is the verdict often enough."""
    bound, change = math.log1p(delta), delta
    while change <= LARGEST_CHANGE:
        outcomes = [_outcome(play, bound, math.log1p(change)) for play in plays]
        if _share(outcomes, Verdict.SLOWER) >= WANTED_DETECTION:
            return change
        change += STEP
    return None


def _usable_tolerance(plays: Sequence[Sequence[Interval]], delta: float) -> float | None:
    """The smallest margin from δ on, in steps of half a per cent, at which the gate seldom gives up on unchanged code."""
    margin = delta
    while margin <= LARGEST_CHANGE:
        outcomes = [_outcome(play, math.log1p(margin), 0.0) for play in plays]
        if _share(outcomes, Verdict.INCONCLUSIVE) <= MAX_INCONCLUSIVE:
            return margin
        margin += STEP
    return None


def _share(outcomes: Sequence[Verdict], wanted: Verdict) -> float:
    return outcomes.count(wanted) / len(outcomes)
