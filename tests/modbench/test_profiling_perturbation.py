"""The cost of sampling to the work: scripted steps on a scripted clock."""

from contextlib import contextmanager

import pytest

from modbench.profiling.perturbation import Perturbation, measure_perturbation
from tests.modbench.fake_nvml import ScriptedClock


class ScriptedWork:
    """Steps of 2 s, 1 % longer while sampled, and `drift_s` longer with each block; switching sampling takes 50 s."""

    def __init__(self, drift_s: float = 0.0) -> None:
        self.clock = ScriptedClock()
        self.drift_s = drift_s
        self.sampled: list[bool] = []
        self._is_sampled = False

    def step(self) -> None:
        self.clock.sleep(2.0 * (1.01 if self._is_sampled else 1.0) + self.drift_s * len(self.sampled))
        self.sampled.append(self._is_sampled)

    @contextmanager
    def sampling(self):
        self.clock.sleep(50.0)
        self._is_sampled = True
        yield
        self._is_sampled = False
        self.clock.sleep(50.0)


def test_blocks_are_interleaved_and_mirrored():
    work = ScriptedWork()
    measure_perturbation(work.step, work.sampling, num_pairs=3, steps_per_block=2, clock=work.clock)
    a, b = [False] * 2, [True] * 2
    assert work.sampled == a + b + b + a + a + b


def test_a_pair_is_seconds_per_step_without_and_with_sampling():
    work = ScriptedWork()
    found = measure_perturbation(work.step, work.sampling, num_pairs=4, steps_per_block=10, clock=work.clock)
    assert len(found.pairs) == 4
    for without_s, with_s in found.pairs:
        assert (without_s, with_s) == (pytest.approx(2.0), pytest.approx(2.02)), "switching is on no clock"
    assert found.step_s == pytest.approx(2.0)


def test_linear_drift_cancels_over_two_pairs():
    work = ScriptedWork(drift_s=0.001)
    (a1, b1), (a2, b2) = measure_perturbation(work.step, work.sampling, num_pairs=2, clock=work.clock).pairs
    assert (b1 + b2) / (a1 + a2) - 1 == pytest.approx(0.01, abs=1e-4)


def test_the_step_time_is_the_median_without_sampling():
    assert Perturbation(((1.0, 9.0), (5.0, 9.0), (2.0, 9.0))).step_s == 2.0


@pytest.mark.parametrize(("num_pairs", "steps_per_block"), [(0, 1), (1, 0)])
def test_no_pairs_or_steps_are_refused(num_pairs, steps_per_block):
    work = ScriptedWork()
    with pytest.raises(ValueError, match="expected at least one of each"):
        measure_perturbation(work.step, work.sampling, num_pairs, steps_per_block)


def test_a_step_that_fails_ends_the_sampling():
    ended = []

    @contextmanager
    def sampling():
        try:
            yield
        finally:
            ended.append(True)

    steps = iter([None])
    with pytest.raises(StopIteration):
        measure_perturbation(lambda: next(steps), sampling, num_pairs=1)
    assert ended == [True]
