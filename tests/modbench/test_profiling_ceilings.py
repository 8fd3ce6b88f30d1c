"""Ceilings are the best of several bounded runs, and measured once."""

import pytest
import torch

from modbench import measured_devices
from modbench.profiling import ceilings

CPU = torch.device("cpu")
ENVIRONMENT = {
    "machine": {"cpu": "Example CPU", "ram_bytes": 2**34, "fingerprint": "example"},
    "versions": {"torch": "2.13.0"},
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize(("trial_s", "expected"), [(1e-5, 1536), (1e-3, 768), (ceilings.MAX_PRODUCT_S, 96), (60.0, 96)])
def test_a_slow_dtype_gets_a_smaller_matrix(trial_s, expected):
    """At 128, 1e-3 s are 0.216 s for 768 and 1.73 s for 1536; below the trial's size nothing is tried."""
    assert ceilings.bounded_size(1536, 128, trial_s) == expected


@pytest.mark.parametrize(("kind", "call_s"), [("cpu", 1e-3), ("cuda", 1e-4)])
def test_the_cost_of_a_call_does_not_shrink_the_matrix(kind, call_s):
    largest = ceilings.MATRIX_SIZE[kind]
    assert ceilings.bounded_size(largest, ceilings.TRIAL_SIZE[kind], call_s) == largest


def test_the_best_run_counts_and_the_median_is_the_spread(monkeypatch):
    clock = iter([0.0, 4.0, 10.0, 12.0, 20.0, 23.0, 30.0, 35.0, 40.0, 43.0])
    monkeypatch.setattr(ceilings.time, "perf_counter", lambda: next(clock))
    seconds = ceilings._run_seconds(lambda: None, CPU)
    assert seconds == [4.0, 2.0, 3.0, 5.0, 3.0]
    assert ceilings._spread_ratio(seconds) == 0.5


def test_rates_are_of_what_was_moved_and_computed(monkeypatch):
    monkeypatch.setattr(ceilings, "COPY_BYTES", 1000)
    monkeypatch.setattr(ceilings, "MATRIX_SIZE", {"cpu": 256})
    monkeypatch.setattr(ceilings, "_run_seconds", lambda run, device: [0.02, 0.01, 0.03])
    measured = ceilings.measure_ceilings(CPU, torch.float32)
    assert measured["copy_bytes_per_s"] == pytest.approx(200_000)
    assert measured["matmul_flops_per_s"] == pytest.approx(2 * 256**3 / 0.01)
    assert measured["copy_spread_ratio"] == measured["matmul_spread_ratio"] == pytest.approx(1.0)


def test_what_is_known_is_measured_again_only_when_told_so(monkeypatch):
    rates = iter([1e9, 2e9, 3e9])
    fields = {"matmul_flops_per_s": 1.0, "copy_spread_ratio": 0.0, "matmul_spread_ratio": 0.0}
    monkeypatch.setattr(ceilings, "measure_ceilings", lambda *_: {"copy_bytes_per_s": next(rates), **fields})

    def copy_rate(dtype="float32", threads=1, is_remeasured=False):
        return ceilings.known_ceilings(CPU, dtype, threads, ENVIRONMENT, is_remeasured).copy_bytes_per_s

    assert [copy_rate(), copy_rate()] == [1e9, 1e9]
    assert [copy_rate(is_remeasured=True), copy_rate()] == [2e9, 2e9], "the new value takes the old one's place"
    assert copy_rate(threads=2) == 3e9
    assert measured_devices.recall("example", "2.13.0", "float32", 1).copy_bytes_per_s == 2e9
