"""What the profiler costs is measured by running with and without it."""

import math

import pytest
import torch

from modbench import own_cost
from modbench.own_cost import measure_own_cost
from modbench.profiling.perturbation import Perturbation


def test_the_cost_is_the_median_of_interleaved_pairs_with_its_exact_interval(monkeypatch):
    asked = {}

    def scripted(step, profiled, num_pairs, steps_per_block):
        asked.update(steps=steps_per_block)
        step()
        with profiled():
            step()
        return Perturbation(tuple((1.0, math.exp(0.001 * pair)) for pair in range(num_pairs)))

    monkeypatch.setattr(own_cost, "measure_perturbation", scripted)
    found = measure_own_cost(torch.device("cpu"), num_pairs=9, block_s=1e-6)
    assert asked["steps"] == 1
    assert found.added_ratio == pytest.approx(math.expm1(0.004))
    assert found.interval == pytest.approx((0.0, math.expm1(0.008)))


def test_decisions_are_kept_inside_and_nothing_outside(monkeypatch):
    lengths = []

    def look(step, profiled, num_pairs, steps_per_block):
        routing = own_cost_routing(step)
        step()
        lengths.append(routing.history)
        with profiled():
            step()
            lengths.append(len(routing.history))
        lengths.append(routing.history)
        return Perturbation(((1.0, 1.0),))

    monkeypatch.setattr(own_cost, "measure_perturbation", look)
    assert measure_own_cost(torch.device("cpu"), block_s=1e-6).interval is None, "one pair has no interval"
    assert lengths == [None, 4, None], "one decision for each of four routed layers"


def own_cost_routing(step):
    """The routing of the model that `step` decodes."""
    cells = dict(zip(step.__code__.co_freevars, step.__closure__, strict=True))
    return cells["subject"].cell_contents.model.routing
