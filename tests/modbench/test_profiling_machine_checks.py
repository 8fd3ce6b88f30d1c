"""What the operating system gives to launches, read from made-up kernel files."""

import pytest

from modbench.checks import OwnCost
from modbench.profiling.machine_checks import (
    address_space_check,
    clock_check,
    disk_check,
    free_disk_bytes,
    peak_rss_check,
    perf_counter_call_s,
    perturbation_check,
    read_number,
    read_text,
    system_check,
)
from tests.modbench.kernel_tree import make_tree

CLOCK = "sys/devices/system/clocksource/clocksource0"


def test_absent_and_unreadable_files_are_none(tmp_path):
    make_tree(tmp_path, {"text": "max", "number": "12"})
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert read_text(tmp_path, "text") == "max"
    assert [read_text(tmp_path, name) for name in ("absent", "binary")] == [None, None]
    assert [read_number(tmp_path, name) for name in ("number", "text", "absent")] == [12, None, None]


def test_launches_fork_on_linux_alone():
    assert system_check("Linux", "6.1", "x86_64").status == "ok"
    other = system_check("Darwin", "24.1", "arm64")
    assert (other.status, "Linux" in other.fix) == ("warn", True)


@pytest.mark.parametrize(
    ("peak_bytes", "is_resettable", "status"), [(1, True, "ok"), (1, False, "warn"), (None, False, "missing")]
)
def test_peaks_per_phase_need_a_reset(peak_bytes, is_resettable, status):
    check = peak_rss_check(peak_bytes, is_resettable)
    assert (check.status, check.gives, bool(check.fix)) == (status, "peak RSS", status != "ok")


def test_a_limit_on_the_address_space_is_told_in_gib():
    assert address_space_check(None).status == "ok"
    limited = address_space_check(2 * 1024**3)
    assert (limited.status, limited.fix) == ("warn", "ulimit -v unlimited")
    assert "2.00 GiB" in limited.finding


@pytest.mark.parametrize(
    ("files", "call_s", "status", "fix"),
    [
        ({"current_clocksource": "tsc"}, 4e-8, "ok", ""),
        ({}, 4e-8, "ok", ""),
        ({"current_clocksource": "hpet", "available_clocksource": "hpet kvm-clock"}, 4e-8, "warn", "kvm-clock"),
        ({"current_clocksource": "jiffies"}, 4e-8, "warn", "clocksource=tsc"),
        ({"current_clocksource": "tsc"}, 5e-6, "warn", "sandbox"),
    ],
)
def test_a_slow_or_coarse_clock_is_found(tmp_path, files, call_s, status, fix):
    check = clock_check(make_tree(tmp_path, {f"{CLOCK}/{name}": text for name, text in files.items()}), 1e-9, call_s)
    assert check.status == status
    assert fix in check.fix


def test_a_clock_call_costs_something():
    assert 0 < perf_counter_call_s() < 1


def test_a_full_disk_is_found_before_its_folder_exists(tmp_path):
    assert free_disk_bytes(tmp_path / "not" / "yet") == free_disk_bytes(tmp_path) > 0
    assert disk_check(tmp_path, 5 * 1024**3).status == "ok"
    full = disk_check(tmp_path, 1024)
    assert (full.status, "--output" in full.fix) == ("warn", True)


@pytest.mark.parametrize(
    ("interval", "status"),
    [((-0.001, 0.004), "ok"), ((0.006, 0.02), "warn"), ((-0.01, 0.02), "info"), (None, "info")],
)
def test_the_profilers_cost_is_judged_by_its_interval(interval, status):
    cost = OwnCost(model="micro", step_s=0.005, added_ratio=0.002, interval=interval, num_pairs=20)
    check = perturbation_check(cost)
    assert check.status == status
    assert check.finding.startswith("profiling adds +0.20 %")
    assert bool(check.fix) is (status != "ok")


def test_a_cost_that_was_not_measured_is_no_zero():
    check = perturbation_check(None)
    assert (check.status, check.fix) == ("info", "modbench doctor --remeasure")
