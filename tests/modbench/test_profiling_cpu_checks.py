"""What makes a processor's speed wander, read from made-up kernel files."""

import pytest

from modbench.profiling import cpu_checks
from modbench.profiling.cpu_checks import CpuTimes
from tests.modbench.kernel_tree import make_tree

CPUS = "sys/devices/system/cpu"


def test_a_narrow_affinity_is_told():
    assert cpu_checks.processor_check("Example CPU", [0, 1], 2).status == "ok"
    narrow = cpu_checks.processor_check("Example CPU", [3], 2)
    assert (narrow.status, narrow.finding) == ("info", "Example CPU, 1 of 2 CPUs allowed")
    assert "taskset" in narrow.fix


@pytest.mark.parametrize(
    ("governors", "status", "finding"),
    [
        (["performance", "performance"], "ok", "performance"),
        (["performance", "powersave"], "warn", "performance, powersave: the frequency follows the load"),
        ([], "info", cpu_checks.NOT_VISIBLE),
    ],
)
def test_only_the_performance_governor_is_steady(tmp_path, governors, status, finding):
    files = {f"{CPUS}/cpu{cpu}/cpufreq/scaling_governor": name for cpu, name in enumerate(governors)}
    check = cpu_checks.governor_check(make_tree(tmp_path, files), [0, 1])
    assert (check.status, check.finding) == (status, finding)
    assert ("cpupower" in check.fix) == (status == "warn")


def test_governors_of_cpus_that_are_not_allowed_do_not_count(tmp_path):
    governors = {0: "powersave", 1: "performance"}
    files = {f"{CPUS}/cpu{cpu}/cpufreq/scaling_governor": name for cpu, name in governors.items()}
    assert cpu_checks.governor_check(make_tree(tmp_path, files), [1]).status == "ok"


@pytest.mark.parametrize(
    ("files", "status", "fix"),
    [
        ({"cpufreq/boost": "1"}, "warn", f"echo 0 | sudo tee /{CPUS}/cpufreq/boost"),
        ({"cpufreq/boost": "0"}, "ok", ""),
        ({"intel_pstate/no_turbo": "0"}, "warn", f"echo 1 | sudo tee /{CPUS}/intel_pstate/no_turbo"),
        ({"intel_pstate/no_turbo": "1"}, "ok", ""),
        ({}, "info", ""),
    ],
)
def test_boost_is_found_with_either_driver(tmp_path, files, status, fix):
    check = cpu_checks.boost_check(make_tree(tmp_path, {f"{CPUS}/{name}": text for name, text in files.items()}))
    assert (check.status, check.fix) == (status, fix)


@pytest.mark.parametrize(
    ("active", "threads", "status"), [("1", 1, "info"), ("1", 2, "warn"), ("0", 2, "ok"), (None, 2, "info")]
)
def test_siblings_matter_where_threads_outnumber_cores(tmp_path, active, threads, status):
    files = {f"{CPUS}/cpu{cpu}/topology/thread_siblings_list": "0-1" for cpu in (0, 1)}
    files |= {} if active is None else {f"{CPUS}/smt/active": active}
    assert cpu_checks.smt_check(make_tree(tmp_path, files), [0, 1], threads).status == status


def test_cpu_times_are_the_first_line_of_proc_stat(tmp_path):
    assert cpu_checks.read_cpu_times(tmp_path) is None
    make_tree(tmp_path, {"proc/stat": "cpu  10 1 5 80 4 2 3 7 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0"})
    times = cpu_checks.read_cpu_times(tmp_path)
    assert (times.busy, times.steal, times.total) == (21, 7, 112)
    make_tree(tmp_path, {"proc/stat": "cpu  0 0 0 0 0 0 0 0 0 0"})
    assert cpu_checks.read_cpu_times(tmp_path) is None


@pytest.mark.parametrize(
    ("busy", "steal", "own_s", "status", "text"),
    [
        (50, 0, 0.5, "ok", "others use 0.00 of 4 CPUs"),
        (50, 0, 0.25, "warn", "others use 0.50 of 4 CPUs"),
        (50, 20, 0.5, "warn", "steal 10 %"),
    ],
)
def test_own_work_is_no_load_of_others(busy, steal, own_s, status, text):
    """200 ticks of 4 CPUs, 100 ticks per second: half a second."""
    before, after = CpuTimes(0, 0, 0, 0.0), CpuTimes(busy, steal, 200, own_s)
    check = cpu_checks.other_load_check(before, after, 4, 100, 1.0)
    assert check.status == status
    assert text in check.finding


def test_a_silent_proc_stat_leaves_the_load_average():
    check = cpu_checks.other_load_check(None, None, 4, 100, 1.25)
    assert (check.status, "load average 1.25" in check.finding) == ("info", True)


V2 = {"proc/self/cgroup": "0::/job/inner", "sys/fs/cgroup/job/inner/cpu.max": "max 100000"}
V1 = {"proc/self/cgroup": "4:cpu,cpuacct:/job", "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000"}


@pytest.mark.parametrize(
    ("files", "status", "text"),
    [
        ({}, "ok", "no control group"),
        (V2, "ok", "no control group"),
        ({**V2, "sys/fs/cgroup/job/cpu.max": "150000 100000"}, "warn", "1.5 of 4 CPUs: 2 threads"),
        ({**V2, "sys/fs/cgroup/cpu.max": "300000 100000"}, "info", "3 of 4 CPUs"),
        ({**V1, "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "-1"}, "ok", "no control group"),
        ({**V1, "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "100000"}, "warn", "1 of 4 CPUs"),
        ({"proc/self/cgroup": "0::/elsewhere", "sys/fs/cgroup/cpu.max": "100000 100000"}, "warn", "1 of 4 CPUs"),
    ],
)
def test_the_tightest_cpu_quota_of_the_groups_around_counts(tmp_path, files, status, text):
    check = cpu_checks.cpu_quota_check(make_tree(tmp_path, files), num_cpus=4, threads=2)
    assert check.status == status
    assert text in check.finding


@pytest.mark.parametrize(
    ("counts", "sensors", "status", "finding"),
    [
        ([], [], "info", cpu_checks.NOT_VISIBLE),
        ([0, 0], [], "ok", "throttled 0 times since the machine started"),
        ([2, 3], [], "warn", "throttled 5 times since the machine started"),
        ([], [(61.2, None)], "ok", "61 °C"),
        ([], [(50.0, 100.0), (60.0, 80.0)], "ok", "60 °C of 80 °C"),
        ([], [(95.0, 100.0)], "warn", "95 °C of 100 °C"),
    ],
)
def test_heat_is_the_sensor_nearest_its_limit_and_the_throttle_count(tmp_path, counts, sensors, status, finding):
    files = {f"{CPUS}/cpu{cpu}/thermal_throttle/core_throttle_count": str(n) for cpu, n in enumerate(counts)}
    check = cpu_checks.thermal_check(make_tree(tmp_path, files), sensors)
    assert (check.status, check.finding) == (status, finding)
