"""What does sampling cost the work that it watches? In: a step, and what to switch on around it. Out: pairs of seconds per step.

Each pair has a block of steps without sampling and one with, in the order A B B A, so that linear drift cancels. The ln ratio
of pairs and its interval are analysis.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

TARGET_RATIO = 0.005  # of a decode step


@dataclass(frozen=True)
class Perturbation:
    """Seconds per step (without sampling, with sampling) of each pair, in the order measured."""

    pairs: tuple[tuple[float, float], ...]

    @property
    def step_s(self) -> float:
        """The median step without sampling."""
        return statistics.median(without for without, _ in self.pairs)


def measure_perturbation(
    step: Callable[[], object],
    sampling: Callable[[], AbstractContextManager[Any]],
    num_pairs: int,
    steps_per_block: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Perturbation:
    """Time blocks of steps in the order A B B A: A without sampling, B inside `sampling()`.

    Args:
        step: one step of the work, which returns when the device has finished; warmed up by the caller.
        sampling: makes the context that samples; entered before the clock starts, left after it stops.
        num_pairs: how many pairs; 8 at least for an interval.
        steps_per_block: make a block last for several readings, or most blocks are not sampled at all.
        clock: seconds.

    Raises:
        ValueError: fewer than one pair or step.
    """
    if num_pairs < 1 or steps_per_block < 1:
        raise ValueError(f"got {num_pairs} pairs of {steps_per_block} steps; expected at least one of each")

    def block(context: AbstractContextManager[Any]) -> float:
        with context:
            start = clock()
            for _ in range(steps_per_block):
                step()
            return (clock() - start) / steps_per_block

    pairs = []
    for pair in range(num_pairs):
        if pair % 2 == 0:
            without_s = block(nullcontext())
            with_s = block(sampling())
        else:
            with_s = block(sampling())
            without_s = block(nullcontext())
        pairs.append((without_s, with_s))
    return Perturbation(tuple(pairs))
