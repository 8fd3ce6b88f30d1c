"""Values that follow from recorded ones, by hand."""

import pytest

from modbench.analysis import summarise
from modbench.analysis.resources import device_times, memory_values, saving_realised, varying_metrics
from modbench.record import Samples
from tests.modbench.record_factory import make_quads, make_record


def test_the_papers_latency_realises_three_eighths_of_its_possible_saving():
    assert saving_realised(1.2, 1.8) == pytest.approx(0.375)
    assert saving_realised(1.8, 1.8) == pytest.approx(1.0)
    assert saving_realised(0.9, 1.8) == pytest.approx(-0.25)


@pytest.mark.parametrize(("speedup", "ideal"), [(None, 1.8), (1.2, None), (1.0, 1.0), (1.1, 0.9)])
def test_no_saving_is_realised_where_none_is_possible_or_known(speedup, ideal):
    assert saving_realised(speedup, ideal) is None


def test_a_row_carries_the_saving_of_both_phases():
    row = summarise(make_quads(2)).cells[0].rows[1]
    for phase in ("prefill", "decode"):
        speedup, ideal = row.values[f"{phase}_speedup"], row.values[f"{phase}_ideal_speedup"]
        assert row.values[f"{phase}_saving_realised"] == pytest.approx((1 - 1 / speedup) / (1 - 1 / ideal))


def test_tensor_peaks_stand_for_a_row_on_a_cpu_and_allocator_peaks_on_a_gpu():
    metrics = {"peak_rss_bytes": 900, "weights_bytes": 100, "peak_live_bytes": 50}
    records = [make_record(metrics=metrics), make_record("threshold", metrics={**metrics, "peak_live_bytes": 25})]
    dense, threshold = summarise(records).cells[0].rows
    assert (dense.peak_memory_metric, dense.peak_memory_bytes) == ("peak_tensor_bytes", 150)
    assert threshold.values["peak_memory_reduction"] == pytest.approx(150 / 125)
    on_gpu = memory_values([make_record(metrics={"peak_allocated_bytes": 70, "peak_reserved_bytes": 96})])
    assert on_gpu["fragmentation_bytes"] == 26
    assert on_gpu["peak_tensor_bytes"] is None


def test_live_peaks_that_differ_between_launches_are_named_and_missing_ones_are_not():
    first, second = make_record(metrics={"peak_live_bytes": 5}), make_record(half=1, metrics={})
    assert varying_metrics([first, second]) == []
    assert varying_metrics([first, make_record(half=1, metrics={"peak_live_bytes": 6})]) == ["peak_live_bytes"]


def test_device_time_of_decode_is_per_step_and_unknown_on_a_cpu():
    samples = Samples(ttft_s=[1.0], tpot_s=[1.0], prefill_device_s=[0.8, 0.8], decode_device_s=[3.0, 3.0])
    on_gpu = make_record(samples=samples)  # 16 new tokens: 15 steps
    assert device_times([on_gpu]) == {"ttft_device_s": 0.8, "tpot_device_s": pytest.approx(0.2)}
    assert device_times([make_record()]) == {"ttft_device_s": None, "tpot_device_s": None}
