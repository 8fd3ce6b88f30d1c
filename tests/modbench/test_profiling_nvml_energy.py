"""Energy from differences of the counter, worked out by hand, and the calibration of its update interval."""

import pynvml
import pytest

from modbench.profiling.nvml import CounterReading, NvmlDevice, open_device
from modbench.profiling.nvml_energy import Energy, UpdateInterval, calibrate_update_interval, energy_between
from tests.modbench.fake_nvml import FakeGpu, FakeNvml, State

TENTH = UpdateInterval(0.1, 20)


def opened(nvml: FakeNvml) -> NvmlDevice:
    device = open_device(0, None, nvml, clock=nvml.clock)
    assert isinstance(device, NvmlDevice)
    return device


def counter(*steps: tuple[float, int], **changes) -> FakeNvml:
    """The counter takes each value, in millijoules, from a time on."""
    return FakeNvml([FakeGpu(trace=[(since_s, State(energy_mj=energy)) for since_s, energy in steps])], **changes)


def calibrate(nvml: FakeNvml, **changes) -> UpdateInterval:
    return calibrate_update_interval(opened(nvml), clock=nvml.clock, sleep=nvml.clock.sleep, **changes)


@pytest.mark.parametrize("before_mj", [0, 100_003, 98_765_432_109])
def test_a_scripted_85_000_millijoules_come_back_as_85_joules(before_mj):
    nvml = counter((0.0, before_mj), (10.0, before_mj + 85_000))
    device = opened(nvml)
    start = device.read_energy()
    nvml.clock.sleep(10.0)
    found = energy_between(start, device.read(), TENTH)
    assert found == Energy(duration_s=10.0, total_j=85.0)
    assert found.mean_power_w == 8.5


def test_idle_energy_is_taken_off_over_the_length_of_the_window():
    found = energy_between(CounterReading(2.0, 10.0), CounterReading(6.0, 1210.0), TENTH, idle_power_w=75.0)
    assert (found.total_j, found.above_idle_j) == (1200.0, 900.0)


def test_idle_power_comes_from_the_counter_too():
    idle = energy_between(CounterReading(0.0, 0.0), CounterReading(4.0, 300.0), TENTH)
    busy = energy_between(CounterReading(4.0, 300.0), CounterReading(8.0, 1500.0), TENTH, idle.mean_power_w)
    assert busy.above_idle_j == 900.0


def test_power_never_becomes_energy():
    nvml = FakeNvml(unsupported={"nvmlDeviceGetTotalEnergyConsumption": pynvml.NVML_ERROR_NOT_SUPPORTED})
    device = opened(nvml)
    start = device.read()
    nvml.clock.sleep(10.0)
    end = device.read()
    assert end.power_w is not None
    found = energy_between(start, end, TENTH)
    assert found == Energy(10.0, reason="the energy counter was not read at both ends")
    assert found.mean_power_w is None


@pytest.mark.parametrize(
    ("end", "update", "words"),
    [
        (
            CounterReading(1.99, 500.0),
            TENTH,
            "got a window of 1.99 s; expected at least 2 s, 20 updates of the counter",
        ),
        (CounterReading(10.0, 99.0), TENTH, "went backwards: the driver was loaded again"),
        (CounterReading(10.0, None), TENTH, "not read at both ends"),
        (CounterReading(10.0, 500.0), UpdateInterval(None, reason="not polled"), "interval is unknown: not polled"),
    ],
)
def test_a_window_that_says_nothing_is_none_with_the_reason(end, update, words):
    found = energy_between(CounterReading(0.0, 100.0), end, update, idle_power_w=1.0)
    assert (found.total_j, found.above_idle_j) == (None, None)
    assert words in found.reason


def test_a_window_of_twenty_updates_is_enough():
    assert energy_between(CounterReading(0.0, 100.0), CounterReading(2.0, 500.0), TENTH).total_j == 400.0


def test_the_update_interval_is_the_median_between_changes():
    steps = [0.0, 0.02, 0.12, 0.22, 0.62, 0.72]  # the first change ends an interval that began before the polling
    nvml = counter(*[(time_s, 1000 + num) for num, time_s in enumerate(steps)])
    found = calibrate(nvml, num_intervals=4)
    assert found.num_intervals == 4
    assert found.interval_s == pytest.approx(0.1, abs=0.002)
    assert nvml.clock.now == pytest.approx(0.72, abs=0.002), "polling ends with the last interval"


def test_few_changes_within_the_limit_still_give_an_interval_and_their_number():
    found = calibrate(counter((0.0, 1), (0.5, 2), (1.0, 3), (1.5, 4)), limit_s=2.0)
    assert found.num_intervals == 2
    assert found.interval_s == pytest.approx(0.5, abs=0.002)


@pytest.mark.parametrize("steps", [[(0.0, 7)], [(0.0, 7), (1.0, 8)]])
def test_a_counter_that_hardly_moves_has_no_interval(steps):
    nvml = counter(*steps)
    found = calibrate(nvml, limit_s=2.0)
    assert found.interval_s is None
    assert found.reason == f"the energy counter changed {len(steps) - 1} times within 2 s"
    assert nvml.clock.now == pytest.approx(2.0, abs=0.002)


def test_an_absent_counter_has_no_interval():
    nvml = FakeNvml(unsupported={"nvmlDeviceGetTotalEnergyConsumption": pynvml.NVML_ERROR_NOT_SUPPORTED})
    assert calibrate(nvml) == UpdateInterval(None, reason="this driver does not tell the energy counter")


def test_a_driver_that_dies_while_polled_has_no_interval():
    nvml = counter((0.0, 1), (0.5, 2))
    device = opened(nvml)
    nvml.dies_after = nvml.calls.total() + 50
    found = calibrate_update_interval(device, clock=nvml.clock, sleep=nvml.clock.sleep)
    assert found == UpdateInterval(None, reason="nvmlDeviceGetTotalEnergyConsumption: GPU is lost")
