"""What is measured beside the steps, against values computed by hand."""

import pytest
import torch

from reference_impl import ModConfig
from reference_impl.routing import Decision, Routing
from reference_impl.training.meters import NUM_BINS, LossMeter, Pace, RoutingMeter


def decision(gates, keep, valid=None):
    return Decision(torch.tensor(keep), torch.tensor(gates), None if valid is None else torch.tensor(valid))


def twice(values):
    """As if another process had seen the same."""
    return 2 * values


def test_shares_gates_and_histograms_are_over_all_tokens_since_the_last_time():
    meter = RoutingMeter(Routing(ModConfig()))
    meter.routing.last = {3: decision([[0.0, 0.97]], [[False, True]]), 1: decision([[0.52, 0.51]], [[True, True]])}
    meter.note()
    meter.routing.last = {
        1: decision([[0.2, 1.0], [0.3, 0.3]], [[False, True], [False, False]], [[True, True], [True, False]]),
        3: decision([[0.06]], [[False]]),
    }
    meter.note()
    found = meter.take(twice)
    assert list(found) == [
        "keep_ratio",
        "keep_ratio/layer_1",
        "keep_ratio/layer_3",
        "mean_gate/layer_1",
        "mean_gate/layer_3",
    ]
    assert found["keep_ratio/layer_1"] == pytest.approx(3 / 5), "padding does not count"
    assert found["mean_gate/layer_1"] == pytest.approx((0.52 + 0.51 + 0.2 + 1.0 + 0.3) / 5)
    assert found["keep_ratio/layer_3"] == pytest.approx(1 / 3)
    assert found["keep_ratio"] == pytest.approx((3 / 5 + 1 / 3) / 2)
    assert {index: count for index, count in enumerate(meter.histograms[1]) if count} == {4: 2, 6: 2, 10: 4, 19: 2}
    assert {index: count for index, count in enumerate(meter.histograms[3]) if count} == {0: 2, 1: 2, 19: 2}
    assert len(meter.histograms[1]) == NUM_BINS
    assert meter.take(twice) == {}


def test_parts_of_the_loss_add_up_within_steps_and_are_averaged_over_them():
    meter = LossMeter()
    for step in ((1.0, 2.0), (3.0, 6.0)):
        for part in step:
            meter.note(
                lm_loss=torch.tensor(part), objective=torch.tensor(part / 10, requires_grad=True), distillation=None
            )
        meter.end_step()
    found = meter.take(twice, num_processes=2)
    assert found == {"lm_loss": pytest.approx(6.0), "objective": pytest.approx(0.6)}
    assert meter.take(twice, num_processes=2) == {}


def test_the_pace_counts_reading_data_but_nothing_between_steps_nor_what_a_resumed_training_reads_again():
    times = iter([10.0, 14.0, 100.0, 103.0, 200.0, 201.0])
    pace = Pace(lambda: next(times))
    pace.ask_for_data()  # not timed
    pace.get_data(80)  # 10
    pace.end_step()  # 14
    pace.ask_for_data()  # 100, after a checkpoint
    pace.get_data(60)
    pace.end_step()  # 103
    assert pace.take() == {"tokens_per_s": 140 / 7}
    assert pace.take() == {}
    pace.ask_for_data()
    pace.get_data(5)
    pace.end_step()
    assert pace.take() == {"tokens_per_s": 5.0}
